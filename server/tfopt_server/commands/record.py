"""`tfopt warmup record MODEL --requests=FILE`: requests that were written down somewhere become a warmup file.

    tfopt warmup record models/m/3 --requests=requests.jsonl --in_place
    zcat access.log.gz | jq -c .request | tfopt warmup record models/m/3 --requests=- --out=warm --count=200 --every=50

One request a line: the body of a predict request (with `instances` or `inputs`, `signature_name` and `parameters`), or
an instance alone, as batch prediction's input files have them. Which are kept is decided as for --record_warmup of a
running server. Nothing is run: a request that the model refuses would fail its next load, so try the file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo
    from tfopt_warmup.recording import Asked

MOST = 1000  # TensorFlow Serving's


class Unfit(Exception):
    """A line that is no request for the model; the text is for the operator."""


def main(argv: Sequence[str]) -> int:
    """0: written; 1: nothing could be; 2 (argparse): wrong flags."""
    from tfopt_optimizer.saved_model import SavedModelError, read_signatures
    from tfopt_warmup import cli, records
    from tfopt_warmup.recording import Collection

    arguments = _parser().parse_args(argv)
    try:
        folder = cli.version_folder(arguments.model)
        signatures = {s.key: s for s in read_signatures(folder, arguments.saved_model_tags.split(","))}
        collection = Collection(arguments.count, arguments.every)
        for asked in _requests(arguments.requests, signatures):
            if collection.wanted(asked):
                collection.add(asked)
    except (SavedModelError, Unfit, OSError) as error:
        print(f"tfopt warmup record: {error}", file=sys.stderr)
        return 1
    if not collection.asked:
        print(f"tfopt warmup record: {arguments.requests} holds no request", file=sys.stderr)
        return 1
    out = records.path_in(folder) if arguments.in_place else arguments.out
    records.write(out, collection.logs(arguments.model_name))
    print(f"{out}: {len(collection.asked)} records")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tfopt warmup record", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--requests", required=True, metavar="FILE", help="one request a line; -: standard input")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="FILE")
    where.add_argument("--in_place", action="store_true", help="write into the model, where servers look")
    parser.add_argument("--count", type=_up_to(MOST), default=100, help="most records (default 100)")
    parser.add_argument("--every", type=_up_to(2**31 - 1), default=1, help="keep each N-th, and new shapes (default 1)")
    parser.add_argument("--saved_model_tags", default="serve", metavar="serve")
    parser.add_argument("--model_name", default="default", help="name in the requests; servers do not check it")
    return parser


def _up_to(most: int) -> type[int]:
    def number(text: str) -> int:
        value = int(text)
        if not 1 <= value <= most:
            raise argparse.ArgumentTypeError(f"expected 1 to {most}, received {value}")
        return value

    return number  # type: ignore[return-value]


def _requests(path: str, signatures: Mapping[str, SignatureInfo]) -> Iterator[Asked]:
    from tfopt_warmup.recording import Asked
    from tfopt_warmup.records import PREDICT

    from tfopt_server.errors import ServingError
    from tfopt_server.rest import codec

    with nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                request = codec.Request.read(_body(line), in_parameters=True)
                signature = signatures.get(request.signature)
                if signature is None:
                    raise Unfit(f"line {number}: no signature {request.signature!r}; there are {', '.join(signatures)}")
                feeds, _ = codec.feeds(request, signature)
            except ServingError as error:
                raise Unfit(f"line {number}: {error.message}") from error
            yield Asked(PREDICT, signature.key, feeds)


def _body(line: bytes) -> bytes:
    """A predict body as it is; an instance as the only row of one."""
    from tfopt_server.rest.parse import parse

    document = parse(line)
    whole = type(document) is dict and ("instances" in document or "inputs" in document)
    return line if whole else b'{"instances":[' + line.strip() + b"]}"
