"""Rows between two buckets: plain TensorFlow, the next bucket filled up, and what the server does, in turn.

    python -m benchmarks.between mobilenet_v2 --rows=2,3,5,9,12,16,24

Takes the model's plan from `--work`, or makes it there. What the server does is `SignatureRunner.run`: one bucket, or
several after another where their measured times say that this takes less (tfopt_optimizer/pieces.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.pieces import told
from tfopt_optimizer.signature_runner import Bucket

from benchmarks import interleave, machine, models, stats, table
from benchmarks.inprocess import TAGS, in_turn, optimized, tensorflow_signature
from benchmarks.models import Feeds

BLOCKS = 200
HEADER = ("rows", "buckets", "plain TF ms", "filled ms", "served ms", "plain / filled", "plain / served")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.between", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("model", choices=sorted(models.MODELS))
    parser.add_argument(
        "--rows", type=numbers, default="2,3,5,9,12,16,24", help="numbers of rows, with commas between them"
    )
    parser.add_argument("--buckets", type=numbers, default="1,8,32", help="of the plan, as --allowed_batch_sizes")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each number of rows")
    parser.add_argument("--work", type=Path, default=Path("/tmp/tfopt-benchmarks"), help="where plans lie")
    asked = parser.parse_args(argv)
    if max(asked.rows) > max(asked.buckets):
        parser.error(f"--rows: expected at most the largest bucket, {max(asked.buckets)}, received {max(asked.rows)}")
    return asked


def main(argv: Sequence[str]) -> int:
    asked = arguments(argv)
    model = models.MODELS[asked.model]
    models.ensure(model)
    plan, place = optimized(model, OptimizerFlags(allowed_batch_sizes=asked.buckets), asked.work / "plans")
    from tfopt_optimizer.servable import Servable

    servable = Servable.open(model.saved_model, place, plan, TAGS)
    runner, plain = servable.signatures[models.SIGNATURE], tensorflow_signature(model)
    found = []
    for rows in asked.rows:
        feeds, bucket = model.drawn(rows), runner.bucket_for(rows)

        def filled(one: Feeds, bucket: Bucket = bucket, rows: int = rows) -> object:
            return runner.run_in_bucket(bucket, one, rows, None)

        calls = {"plain": in_turn(plain, feeds), "filled": in_turn(filled, feeds), "served": in_turn(runner.run, feeds)}
        times = interleave.interleave(calls, BLOCKS, asked.seconds)
        ms = {name: stats.summary(times[name]).p50 / 1e3 for name in calls}
        way = told([b.batch or 0 for b in runner.buckets_for(rows)])
        found.append((rows, way, *ms.values(), ms["plain"] / ms["filled"], ms["plain"] / ms["served"]))
    servable.close()
    print(machine.describe(), file=sys.stderr)
    print(table.render(HEADER, found, title=f"{model.name}, buckets of {', '.join(map(str, asked.buckets))}"))
    return 0


def numbers(text: str) -> tuple[int, ...]:
    found = tuple(map(int, text.split(",")))
    if min(found) < 1:
        raise ValueError
    return found


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
