"""Compiles exported models for TPUs that are not there: memory per batch size, compile time, the compiler's model.

    python -m benchmarks.ahead exported --topologies=v5e:2x2,v6e:2x2

Nothing is executed: no number here is a measured latency. Products are the TPU's own, of bfloat16 (the variant
`tpu+bf16-products`); with --exact they are of float32 too (the variant `tpu`), which takes several times as long.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer.engines import artifacts
from tfopt_optimizer.tpu import ahead

from benchmarks import exported, machine, table

RESULTS = Path(__file__).parent / "results"


def rows(folder: Path, topologies: Sequence[str], precisions: Sequence[bool]) -> list[dict[str, Any]]:
    """One per topology, model, batch size and precision, printed as they come."""
    found = []
    programs, about = [], []
    for model, place, target in exported.read(folder):
        inputs = len(artifacts.read_meta(place / target.folder).inputs)
        for exact in precisions:
            name = f"{model.name} x {target.rows}{' exact' if exact else ''}"
            programs.append(ahead.of_file(name, place / target.folder, inputs, exact=exact))
            about.append({"model": model.name, "batch": target.rows, "exact": exact})
    for topology in topologies:
        for told, made in zip(about, ahead.compile_all(programs, topology), strict=True):
            print(*ahead.lines([made], topology), sep="\n", flush=True)
            found.append({"topology": topology, **told, **dataclasses.asdict(made), "memory": made.memory})
    return found


def shown(found: Sequence[dict[str, Any]]) -> str:
    return table.render(
        ("topology", "model", "batch", "products", "MB a core", "temporary MB", "compile s", "modelled ms", "error"),
        [
            (
                r["topology"], r["model"], r["batch"], "float32" if r["exact"] else "bfloat16",
                f"{r['memory'] / 1e6:.0f}", f"{r['temporary'] / 1e6:.0f}", f"{r['compile_s']:.1f}",
                "-" if r["optimal_s"] is None else f"{r['optimal_s'] * 1e3:.2f}", r["error"][:60],
            )
            for r in found
        ],
    )  # fmt: skip


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ahead", description=__doc__)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--topologies", default="v5e:2x2")
    parser.add_argument("--exact", action="store_true")
    given = parser.parse_args(argv)
    found = rows(given.exported, given.topologies.split(","), (False, True) if given.exact else (False,))
    print(shown(found))
    here = machine.describe()
    label = given.topologies.replace(":", "-").replace(",", "-")
    path = RESULTS / f"{datetime.date.today()}-{here.label()}-tpu-ahead-{label}.json"
    note = "compiled ahead of time without a TPU; nothing was executed, no latency was measured"
    path.write_text(json.dumps({"note": note, "machine": dataclasses.asdict(here), "compiled": found}, indent=1))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
