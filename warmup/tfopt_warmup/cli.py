"""The commands `tfopt warmup inspect` and `tfopt warmup synthesize`: look into a warmup file, or make one up.

    tfopt warmup inspect models/m/3                 # or the file itself; --json for programs
    tfopt warmup synthesize models/m/3 --in_place --batch_sizes=1,8

Exit codes: 0 done, 1 the file or model is wrong (the reason goes to stderr), 2 wrong flags. Needs no TensorFlow.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfopt_protos import dtypes

from tfopt_warmup import records, signatures, synthesize


class UsageError(ValueError):
    """Flags that cannot be followed for this model; the text says what to change."""


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What makes two runs alike: the table has a line per shape, not per record."""

    kind: str
    signature: str
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]


def main(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except (records.WarmupError, signatures.ModelError, UsageError, OSError) as error:
        print(f"tfopt warmup: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tfopt warmup", description="Warmup records of a SavedModel.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("record", add_help=False, help="requests that were written down become a warmup file")
    inspect = commands.add_parser("inspect", allow_abbrev=False, help="what a warmup file holds")
    inspect.add_argument("target", type=Path, metavar="FILE_OR_MODEL")
    inspect.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    inspect.set_defaults(run=_inspect)
    make = commands.add_parser("synthesize", allow_abbrev=False, help="make up records from the model's signatures")
    make.add_argument("model", type=Path, metavar="MODEL")
    where = make.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="FILE")
    where.add_argument("--in_place", action="store_true", help=f"write MODEL/{records.FILE_NAME}")
    make.add_argument("--batch_sizes", type=_numbers, default=(1,), metavar="1,8", help="default 1")
    make.add_argument("--signatures", type=_names, default=(), metavar="A,B", help="default: all that can be made up")
    make.add_argument("--count", type=_positive, default=1, help="records per signature and batch size (default 1)")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--unknown_dim", type=_positive, metavar="N", help="size of unknown dimensions after the first")
    make.add_argument("--saved_model_tags", type=_names, default=("serve",), metavar="serve")
    make.add_argument("--model_name", default="default", help="name written into the requests; servers do not check it")
    make.set_defaults(run=_synthesize)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(part) for part in text.split(",")}))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


# --- inspect ----------------------------------------------------------------------------------------------------------


def _inspect(arguments: argparse.Namespace) -> int:
    target: Path = arguments.target
    path = records.path_in(version_folder(target)) if target.is_dir() else target
    seen: Counter[_Shape] = Counter()
    total = skipped = 0
    problem: records.WarmupError | None = None
    try:
        for record in records.read(path):
            total += 1
            skipped += not record.runs
            seen.update(_shape(record.kind, run) for run in record.runs)
    except records.WarmupError as error:
        problem = error  # shown after what could be read
    show = _print_json if arguments.json else _print_table
    show(path, total, skipped, seen, problem)
    return 1 if problem else 0


def _shape(kind: str, run: records.Run) -> _Shape:
    inputs = tuple((name, dtypes.from_numpy(array.dtype), array.shape) for name, array in sorted(run.feeds.items()))
    return _Shape(kind, run.signature, inputs)


def _print_table(
    path: Path, total: int, skipped: int, seen: Counter[_Shape], problem: records.WarmupError | None
) -> None:
    rows = [("runs", "kind", "signature", "inputs")]
    for shape, count in sorted(seen.items(), key=lambda item: dataclasses.astuple(item[0])):
        inputs = ", ".join(f"{name} {dtype}{list(sizes)}" for name, dtype, sizes in shape.inputs)
        rows.append((str(count), shape.kind, shape.signature, inputs))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print(f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip())
    print(f"{path}: {total} records, {sum(seen.values())} runs, {skipped} without a request")
    if problem:
        print(f"tfopt warmup: {problem}", file=sys.stderr)


def _print_json(
    path: Path, total: int, skipped: int, seen: Counter[_Shape], problem: records.WarmupError | None
) -> None:
    groups = [
        {
            "runs": count,
            "kind": shape.kind,
            "signature": shape.signature,
            "inputs": {name: {"dtype": dtype, "shape": list(sizes)} for name, dtype, sizes in shape.inputs},
        }
        for shape, count in sorted(seen.items(), key=lambda item: dataclasses.astuple(item[0]))
    ]
    error = {"code": problem.code, "message": problem.message} if problem else None
    print(json.dumps({"path": str(path), "records": total, "skipped": skipped, "groups": groups, "error": error}))


# --- synthesize -------------------------------------------------------------------------------------------------------


def _synthesize(arguments: argparse.Namespace) -> int:
    folder = version_folder(arguments.model)
    chosen = _chosen(signatures.read(folder, arguments.saved_model_tags), arguments)
    count = len(chosen) * len(arguments.batch_sizes) * arguments.count
    if count > records.MAX_RECORDS:
        raise UsageError(f"{count} records are more than a server takes ({records.MAX_RECORDS}); lower --count")
    out = records.path_in(folder) if arguments.in_place else arguments.out
    records.write(out, _logs(chosen, arguments))
    print(f"{out}: {count} records for {', '.join(signature.key for signature in chosen)}")
    return 0


def _chosen(found: Sequence[signatures.Signature], arguments: argparse.Namespace) -> list[signatures.Signature]:
    """The signatures asked for, or all that inputs can be made up for; the others are named on stderr."""
    asked: tuple[str, ...] = arguments.signatures
    if unknown := sorted(set(asked) - {signature.key for signature in found}):
        names = ", ".join(signature.key for signature in found)
        raise UsageError(f"no signature {unknown[0]!r}; the model has {names}")
    chosen = []
    for signature in found:
        if asked and signature.key not in asked:
            continue
        reason = synthesize.why_not(signature, arguments.unknown_dim)
        if reason and asked:
            raise UsageError(reason)
        if reason:
            print(f"tfopt warmup: left out: {reason}", file=sys.stderr)
        else:
            chosen.append(signature)
    if not chosen:
        raise UsageError("inputs cannot be made up for any signature of this model")
    return chosen


def _logs(chosen: Sequence[signatures.Signature], arguments: argparse.Namespace) -> Iterator[Any]:
    for signature in chosen:
        for batch in arguments.batch_sizes:
            for number in range(arguments.count):
                feeds = synthesize.feeds(signature, batch, arguments.seed + number, arguments.unknown_dim)
                if feeds is None:  # _chosen() kept only those that can be made up
                    raise AssertionError(signature.key)
                yield records.predict_log(arguments.model_name, signature.key, feeds)


def version_folder(path: Path) -> Path:
    """A SavedModel's own folder, or the newest version below a base path."""
    if any((path / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt", records.FILE_NAME.parent)):
        return path
    versions = [child for child in path.iterdir() if child.name.isdecimal()] if path.is_dir() else []
    return max(versions, key=lambda child: int(child.name), default=path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
