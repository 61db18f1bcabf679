"""Scores files with a model on Apache Beam: JSON lines or TFRecords in, JSON lines out.

    python deploy/beam/score.py --model=gs://BUCKET/m --input='gs://BUCKET/in/*.jsonl' --output=gs://BUCKET/out/scored \
        [--key=id] [--flag=--tensorflow_intra_op_parallelism=1 ...] [Beam's own options: --runner=DataflowRunner ...]

A line is an object with the signature's inputs for one row; --key names a field that is not an input and goes to the
answer. A file whose name ends in .tfrecord, or with --tfrecord any, holds one value of a string input a record: for a
signature that parses examples, a tf.Example. Answers go to OUTPUT-00000-of-..., `{"key": ..., "outputs": {...}}` a
line; rows that cannot be scored go to OUTPUT.refused-... with the reason, and cost no others.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import KeyedModelHandler, PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from tfopt_client.files import listed
from tfopt_server.beam import TfoptModelHandler

SCORED, REFUSED = "scored", "refused"


def keyed(line: str, key: str) -> tuple[Any, Any]:
    """A line's key, None without one, and the element."""
    element = json.loads(line)
    if not key:
        return None, element
    if not isinstance(element, dict) or key not in element:
        raise ValueError(f"expected a line with the field {key!r}, received {line[:200]}")
    return element.pop(key), element


def written(key: Any, result: PredictionResult) -> Iterator[Any]:
    """One line for the scored, or the refused."""
    line: dict[str, Any] = {} if key is None else {"key": key}
    if isinstance(result.inference, Mapping):
        yield json.dumps(line | {"outputs": listed(result.inference)}, ensure_ascii=False)
        return
    element = result.example
    if isinstance(element, bytes):
        element = {"b64": base64.b64encode(element).decode()}
    line |= {"element": element, "error": str(result.inference)}
    yield beam.pvalue.TaggedOutput(REFUSED, json.dumps(line, ensure_ascii=False))


def read(pipeline: beam.Pipeline, args: argparse.Namespace) -> beam.PCollection:
    """(key, element) of every line or record."""
    if args.tfrecord or args.input.endswith(".tfrecord"):
        records = pipeline | beam.io.ReadFromTFRecord(args.input)
        return records | "without a key" >> beam.Map(lambda record: (None, record))
    return pipeline | beam.io.ReadFromText(args.input) | "by key" >> beam.Map(keyed, args.key)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, and those that are Beam's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in (("model", "a SavedModel or a folder of versions"), ("input", "files"), ("output", "a prefix")):
        parser.add_argument(f"--{name}", required=True, help=what)
    parser.add_argument("--signature", default="serving_default")
    parser.add_argument("--outputs", default="", help="names of outputs, by commas; all without")
    parser.add_argument("--key", default="", help="the field of a line that goes to its answer")
    parser.add_argument("--tfrecord", action="store_true", help="the files are TFRecords whatever their names")
    parser.add_argument("--flag", action="append", default=[], help="a flag of tfopt serve, repeated")
    return parser.parse_known_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args, rest = parse(argv)
    outputs = [name for name in args.outputs.split(",") if name]
    handler = TfoptModelHandler(
        args.model, flags=args.flag, signature=args.signature, outputs=outputs or None, keep_refused=True
    )
    with beam.Pipeline(options=PipelineOptions(rest)) as pipeline:
        scored = read(pipeline, args) | RunInference(KeyedModelHandler(handler))
        lines = scored | "written" >> beam.FlatMapTuple(written).with_outputs(REFUSED, main=SCORED)
        lines[SCORED] | "scored" >> beam.io.WriteToText(args.output)
        lines[REFUSED] | "refused" >> beam.io.WriteToText(f"{args.output}.refused")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
