"""The command: `python -m benchmarks [--quick] [--bars] [--only inprocess|wire|process] [--models a,b]`."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import bars, inprocess, machine, memory, models, process_checks, table, wire

HERE = Path(__file__).parent
PARTS = ("inprocess", "wire", "process")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    work = args.work.resolve()
    chosen = models.select(args.models.split(",") if args.models else None, args.quick)
    parts = (args.only,) if args.only else PARTS
    here = machine.describe()
    print(_heading(here), flush=True)
    found = _measure(parts, chosen, args, work)
    verdicts = bars.judge(found)
    print(report(found, verdicts))
    place = write(here, found, verdicts, args)
    print(f"\nwritten to {place}")
    return 1 if args.bars and any(bar.passed is False for bar in verdicts) else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small models, few rounds: a look, not a comparison")
    parser.add_argument("--bars", action="store_true", help="only what the bars need; exit 1 when one is missed")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--models", help=f"comma list of {', '.join(models.MODELS)}")
    parser.add_argument("--flags", help=f"comma list of flag sets for inprocess: {', '.join(inprocess.FLAGS)}")
    parser.add_argument("--work", type=Path, default=models.ROOT / ".work", help="plan caches and server logs")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON goes")
    args = parser.parse_args(argv)
    try:
        models.select(args.models.split(",") if args.models else None, args.quick)
    except KeyError as error:
        parser.error(f"--models: {error.args[0]}")
    if args.flags and (unknown := set(args.flags.split(",")) - set(inprocess.FLAGS)):
        parser.error(f"--flags: there is no set {sorted(unknown)[0]!r}")
    return args


def _measure(parts: Sequence[str], chosen: Sequence[models.Model], args: argparse.Namespace, work: Path):
    calls = inprocess.QUICK if args.quick else inprocess.BRIEF if args.bars else inprocess.FULL
    load = wire.QUICK if args.quick else wire.BARS if args.bars else wire.FULL
    flags = args.flags.split(",") if args.flags else list(inprocess.FLAGS)[: 2 if args.quick else None]
    found = bars.Measurements()
    if "inprocess" in parts:
        rows = inprocess.measure(chosen, flags, calls, work, inprocess.BARS if args.bars else None)
        found = dataclasses.replace(found, inprocess=tuple(rows))
    if "wire" in parts:
        served = [m for m in chosen if m.name == "mlp"] if args.bars else chosen
        loads = wire.BAR_LOADS if args.bars else wire.LOADS
        found = dataclasses.replace(found, wire=wire.measure(served, load, work, loads))
    if "process" in parts:
        drains = tuple(process_checks.drain(face, work, load) for face in ("rest", "grpc"))
        found = dataclasses.replace(found, starts=process_checks.starts(work, 2 if args.quick else 5), drains=drains)
        if not args.quick:
            found = dataclasses.replace(found, memory=memory.measure(work))
    return found


def report(found: bars.Measurements, verdicts: Sequence[bars.Bar]) -> str:
    parts = []
    if found.inprocess:
        rows = inprocess.table_rows(found.inprocess)
        parts.append(table.render(inprocess.HEADER, rows, "In process (medians, microseconds)"))
    if found.wire:
        parts.append(table.render(wire.HEADER, wire.table_rows(found.wire.rows), "Over the wire (medians of rounds)"))
    parts.append(table.render(bars.HEADER, bars.table_rows(verdicts), "Bars"))
    if found.inprocess:
        parts.append(inprocess.handover_line(found.inprocess))
    return "\n\n".join(["", *parts])


def _heading(here: machine.Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    return (
        f"{here.cpu}, {here.cores} cores, {', '.join(here.flags)}, {here.memory_gib:g} GiB, {here.system}, "
        f"Python {here.python}\n{versions}\nload at the start: {here.load:g} (above 0.3 somebody else is working here)"
    )


def write(here: machine.Machine, found: bars.Measurements, verdicts: Sequence[bars.Bar], args) -> Path:
    now = datetime.datetime.now(datetime.UTC)
    args.results.mkdir(parents=True, exist_ok=True)
    place = args.results / f"{now:%Y-%m-%d}-{here.label()}{'-quick' if args.quick else ''}.json"
    content = {
        "created": now.isoformat(timespec="seconds"),
        "machine": dataclasses.asdict(here),
        "handover_ns": inprocess.handover(found.inprocess),
        "quick": args.quick,
        **dataclasses.asdict(found),
        "bars": [dataclasses.asdict(bar) for bar in verdicts],
    }
    place.write_text(json.dumps(content, indent=1) + "\n")
    return place


if __name__ == "__main__":
    sys.exit(main())
