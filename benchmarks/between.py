"""Rows between two buckets: plain TensorFlow, the next bucket filled up, and what the server does, in turn.

    python -m benchmarks.between mobilenet_v2 --rows=2,3,5,9,12,16,24

Takes the model's plan from `--work`, or makes it there. What the server does is `SignatureRunner.run`: one bucket, or
several after another where their measured times say that this takes less (tfopt_optimizer/pieces.py).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.signature_runner import Bucket

from benchmarks import interleave, machine, models, stats, table
from benchmarks.inprocess import TAGS, optimized, tensorflow_signature
from benchmarks.models import Feeds

BLOCKS = 200
HEADER = ("rows", "buckets", "plain TF ms", "filled ms", "served ms", "plain / filled", "plain / served")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.between", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("model", choices=sorted(models.MODELS))
    parser.add_argument("--rows", default="2,3,5,9,12,16,24", help="numbers of rows, with commas between them")
    parser.add_argument("--buckets", default="1,8,32", help="of the plan, as --allowed_batch_sizes")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each number of rows")
    parser.add_argument("--work", type=Path, default=Path("/tmp/tfopt-benchmarks"), help="where plans lie")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    asked = arguments(argv)
    model = models.MODELS[asked.model]
    models.ensure(model)
    plan, place = optimized(model, OptimizerFlags(allowed_batch_sizes=_numbers(asked.buckets)), asked.work / "plans")
    from tfopt_optimizer.servable import Servable

    servable = Servable.open(model.saved_model, place, plan, TAGS)
    runner, plain = servable.signatures[models.SIGNATURE], tensorflow_signature(model)
    found = []
    for rows in _numbers(asked.rows):
        feeds, bucket = model.drawn(rows), runner.bucket_for(rows)
        if rows > (bucket.batch or 0):
            raise SystemExit(f"--rows: the largest bucket takes {bucket.batch}, received {rows}")

        def filled(one: Feeds, bucket: Bucket = bucket, rows: int = rows) -> object:
            return runner.run_in_bucket(bucket, one, rows, None)

        calls = {"plain": _each(plain, feeds), "filled": _each(filled, feeds), "served": _each(runner.run, feeds)}
        times = interleave.interleave(calls, BLOCKS, asked.seconds)
        ms = {name: stats.summary(times[name]).p50 / 1e3 for name in calls}
        counted = Counter(b.batch for b in runner.buckets_for(rows))
        way = " + ".join(f"{number} x {size}" for size, number in counted.items())
        found.append((rows, way, *ms.values(), ms["plain"] / ms["filled"], ms["plain"] / ms["served"]))
    servable.close()
    print(machine.describe(), file=sys.stderr)
    print(table.render(HEADER, found, title=f"{model.name}, buckets of {asked.buckets}"))
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _each(call: Callable[[Feeds], object], feeds: Sequence[Feeds]) -> Callable[[], object]:
    turns = itertools.cycle(feeds)
    return lambda: call(next(turns))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
