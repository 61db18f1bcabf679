"""Trains and exports the demo models: `python -m demo.build --out demo/models` (seconds; nothing is downloaded).

Per model: `<out>/<name>/1/` (a SavedModel in a version folder, with warmup records in assets.extra) and
`<out>/<name>/held_out.npz` (rows never trained on, for accuracy checks). Seeds are fixed, so the models are the same
from build to build on one machine.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tfopt_warmup import records

from demo import held_out

NAMES = ("digits", "tabular")
SIGNATURE = "serving_default"
# Batch sizes of the warmup records: single requests, the usual page of a table, and a full batch. They are also what
# the optimizer takes its buckets from.
RECORD_BATCHES = (1, 1, 1, 1, 8, 8, 32)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.build", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models")
    parser.add_argument("--only", choices=NAMES, help="build one model")
    args = parser.parse_args(argv)
    for name in (args.only,) if args.only else NAMES:
        start = time.perf_counter()
        accuracy, rows = build(name, args.out)
        seconds = time.perf_counter() - start
        print(f"{name}: accuracy {accuracy:.3f} on {rows} held-out rows, {seconds:.1f} s -> {args.out / name / '1'}")
    return 0


def build(name: str, out: Path) -> tuple[float, int]:
    """Trains, exports and checks one model; returns its accuracy on the held-out rows and their number.

    The model is written beside its place and moved there at the end: an interrupted build leaves no half model.
    """
    part, place = out / f".{name}.part", out / name
    shutil.rmtree(part, ignore_errors=True)
    data = _module(name).build(part / "1")
    held_out.write(part, data)
    _write_warmup(part / "1", name, data)
    result = accuracy(part, data), len(data.answer)
    shutil.rmtree(place, ignore_errors=True)
    part.rename(place)
    return result


def answers(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a demo model says per row: the label it names, else the place of the largest probability."""
    return outputs["label"] if "label" in outputs else outputs["output_0"].argmax(axis=1)


def accuracy(model: Path, data: held_out.HeldOut) -> float:
    """The share of rows that plain TensorFlow, with the SavedModel loaded from disk, gets right."""
    return float((answers(plain_outputs(model, data)) == data.answer).mean())


def plain_outputs(model: Path, data: held_out.HeldOut) -> dict[str, np.ndarray]:
    """The outputs of plain TensorFlow for all held-out rows in one batch."""
    import tensorflow as tf

    function = tf.saved_model.load(str(model / "1")).signatures[SIGNATURE]
    outputs = function(**{name: tf.constant(array) for name, array in data.inputs.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def _module(name: str):
    if name == "digits":
        from demo import digits

        return digits
    from demo import tabular

    return tabular


def _write_warmup(version_dir: Path, name: str, data: held_out.HeldOut) -> None:
    logs = (records.predict_log(name, SIGNATURE, feeds) for feeds in _record_feeds(data))
    records.write(records.path_in(version_dir), logs)


def _record_feeds(data: held_out.HeldOut) -> Iterator[dict[str, np.ndarray]]:
    start = 0
    for batch in RECORD_BATCHES:
        yield data.rows(start, start + batch)
        start += batch


if __name__ == "__main__":
    raise SystemExit(main())
