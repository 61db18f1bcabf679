"""In process: plain TensorFlow, TensorFlow Serving's way to call it, and what tfopt chose, per model, flags and bucket.

`python -m benchmarks.inprocess MODEL FLAGS BLOCKS SECONDS` measures one model in a fresh process and prints JSON; the
functions here start it. Engines that did not win are shown as the optimizer measured them (the plan's evidence).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tfopt_optimizer import plan as plans
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_warmup import records

from benchmarks import cores, interleave, models, stats
from benchmarks.models import Feeds, Model

TAGS = ("serve",)
TIMEOUT_S = 900.0

# Flag sets by name, as `tfopt serve` gets them. The gains' bars speak of "precompilation", "any flags" of them all.
FLAGS: Mapping[str, OptimizerFlags] = {
    "default": OptimizerFlags(),
    "precompilation": OptimizerFlags(allow_precompilation=True, optimize_budget_s=60.0),
    "precompilation, no tfrt": OptimizerFlags(allow_precompilation=True, use_tfrt=False),
    "compression": OptimizerFlags(allow_precompilation=True, allow_compression=True),
}


# What the bars speak of, and nothing else: a run of them takes minutes.
BARS: Mapping[str, frozenset[str]] = {
    "default": frozenset(models.MODELS),
    "precompilation": frozenset({"mlp", "bert_small", "mobilenet_v2"}),
}
SGEMM = 2048  # rows and columns of the float32 matrices by which the machine's own rate is measured


@dataclasses.dataclass(frozen=True)
class Effort:
    """Blocks of 30 ms (or one call) per variant, and a limit in seconds per bucket."""

    blocks: int
    seconds: float


FULL, QUICK, BRIEF = Effort(40, 20.0), Effort(10, 4.0), Effort(20, 6.0)


@dataclasses.dataclass(frozen=True)
class Row:
    """One bucket. Times are medians in microseconds of a call with numpy in and out; None where it does not run.

    `chosen` is the engine that the plan names, `chosen_us` its runner called directly (or those of smaller buckets in
    turn, where so many rows go through them), `servable_us` the same through Servable (checks, padding, slicing).
    `evidence`: the optimizer's own medians per candidate, or its reason.
    Where rows are filled up, `tf_full_us` and `full_us` are plain TensorFlow's and the chosen runner's times for rows
    that are not. `sgemm_share`: its operations per second for those over this machine's sgemm's, measured in turn.
    `way`: the buckets that so many rows go through in turn, mostly one of as many, whose runner `chosen` is.
    `handover_ns`: of a cache line between two cores, before and after (`cores.handover`).
    """

    model: str
    flags: str
    batch: int
    tf_signature_us: float
    tf_session_us: float | None
    chosen: str
    chosen_us: float
    servable_us: float
    evidence: Mapping[str, str]
    why: str
    way: tuple[int, ...] = ()
    sgemm_share: float | None = None
    tf_full_us: float | None = None
    full_us: float | None = None
    handover_ns: tuple[float | None, float | None] = (None, None)

    @property
    def speedup(self) -> float:
        return self.tf_signature_us / self.chosen_us


def measure(
    chosen: Sequence[Model],
    flag_names: Sequence[str],
    effort: Effort,
    work: Path,
    only: Mapping[str, frozenset[str]] | None = None,
) -> list[Row]:
    """Optimizes (or takes the plan from an earlier run) here, without TensorFlow; measures in a child process each.

    `only`: the models of each flag set that are wanted, by default all.
    """
    rows: list[Row] = []
    for model in chosen:
        models.ensure(model)
        for name in flag_names:
            if only is not None and model.name not in only.get(name, ()):
                continue
            print(f"  {model.name}, {name} ...", file=sys.stderr, flush=True)
            plan, place = optimized(model, FLAGS[name], work / "plans")
            log = work / "logs" / f"inprocess-{model.name}.log"
            rows += [_row(model, name, plan, found) for found in _in_child(model, place, effort, log)]
    return rows


def optimized(model: Model, flags: OptimizerFlags, cache: Path) -> tuple[plans.Plan, Path]:
    """As the server would optimize it: the samples are the model's warmup records, so the plans can be shared."""
    from tfopt_optimizer.cache import optimize_cached
    from tfopt_optimizer.optimize import OptimizeJob

    runs = [run for record in records.read(records.path_in(model.saved_model)) for run in record.runs]
    samples = {models.SIGNATURE: tuple(run.feeds for run in runs)}
    job = OptimizeJob(model.saved_model, cache, TAGS, flags, samples, "warmup")
    return optimize_cached(job, cache, lambda line: None)


def _in_child(model: Model, place: Path, effort: Effort, log: Path) -> list[dict[str, Any]]:
    """TensorFlow's start-up chatter goes to the log; RuntimeError shows its end when the measurement fails."""
    arguments = [model.name, str(place), str(effort.blocks), str(effort.seconds)]
    command = [sys.executable, "-m", "benchmarks.inprocess", *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as err:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=err, check=False, timeout=TIMEOUT_S, cwd=models.HERE.parent
        )
    if done.returncode != 0:
        raise RuntimeError(f"measuring {model.name} ended with {done.returncode}: {log.read_text()[-2000:]}")
    return json.loads(done.stdout)


def _row(model: Model, flags: str, plan: plans.Plan, found: Mapping[str, Any]) -> Row:
    signature = plan.signature(models.SIGNATURE)
    assert signature is not None
    bucket = next(b for b in signature.buckets if b.batch == found["way"][0])
    return Row(
        model=model.name,
        flags=flags,
        chosen=f"{bucket.engine}/{bucket.variant}",
        evidence={f"{c.engine}/{c.variant}": _evidence(c) for c in bucket.candidates},
        why=bucket.why,
        **{**found, "way": tuple(found["way"])},
    )


def _evidence(candidate: plans.Candidate) -> str:
    time = f"{candidate.measured.median_us:.1f} us" if candidate.measured else "not measured"
    return f"{candidate.status}, {time}" + (f": {candidate.reason}" if candidate.reason else "")


def main(name: str, place: str, blocks: str, seconds: str) -> int:
    from tfopt_optimizer.servable import Servable

    model, plan = models.MODELS[name], plans.read(Path(place))
    servable = Servable.open(model.saved_model, Path(place), plan, TAGS)
    runner = servable.signatures[models.SIGNATURE]
    signature, session = tensorflow_signature(model), tensorflow_session(model)
    rows = []
    for batch in model.buckets:
        feeds = model.drawn(batch)
        serving = runner.buckets_for(batch)
        run = serving[0].run if [bucket.batch for bucket in serving] == [batch] else runner.run
        variants = {
            "tf_signature_us": in_turn(signature, feeds),
            "tf_session_us": in_turn(session, feeds),
            "chosen_us": in_turn(run, feeds),
            "servable_us": in_turn(runner.run, feeds),
        }
        if model.full is not None:
            full = [model.full(batch, 0)]
            variants |= {"tf_full_us": in_turn(signature, full), "full_us": in_turn(run, full)}
        if model.flop:
            variants["sgemm_us"] = sgemm()
        before = cores.handover()
        times = interleave.interleave(variants, int(blocks), float(seconds))
        way = [bucket.batch for bucket in serving]
        row = {"batch": batch, "way": way, "handover_ns": (before, cores.handover())}
        row |= {key: stats.summary(found).p50 for key, found in times.items()}
        if model.flop:
            row["sgemm_share"] = share(model.flop * batch, row["full_us"], row.pop("sgemm_us"))
        rows.append(row)
    servable.close()
    json.dump(rows, sys.stdout)
    return 0


def sgemm() -> Callable[[], object]:
    """A product of float32 matrices by numpy's BLAS on all cores: what this machine can do."""
    left, right = np.random.default_rng(1).standard_normal((2, SGEMM, SGEMM), dtype=np.float32)
    out = np.empty_like(left)
    return lambda: np.matmul(left, right, out=out)


def share(flop: float, us: float, sgemm_us: float) -> float:
    """The rate of `flop` operations in `us` over that of a product of SGEMM x SGEMM matrices in `sgemm_us`."""
    return (flop / us) / (2.0 * SGEMM**3 / sgemm_us)


def in_turn(function: Callable[[Feeds], object], feeds: Sequence[Feeds]) -> Callable[[], object]:
    """Takes the feeds in turn."""
    turns = itertools.cycle(feeds)
    return lambda: function(next(turns))


def tensorflow_signature(model: Model) -> Callable[[Feeds], object]:
    """Plain TensorFlow as its guide shows it: load, call the signature, read the outputs."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model.saved_model))
    function = loaded.signatures[models.SIGNATURE]

    def run(feeds: Feeds) -> object:
        outputs = function(**{name: tf.constant(array) for name, array in feeds.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    run.keep = loaded  # type: ignore[attr-defined]  # a signature does not keep its model's variables alive
    return run


def tensorflow_session(model: Model) -> Callable[[Feeds], object]:
    """The TF1 session callable: the calls that TensorFlow Serving's engine makes."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2

    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        meta = tf.compat.v1.saved_model.load(session, list(TAGS), str(model.saved_model))
    definition = meta.signature_def[models.SIGNATURE]
    names = sorted(definition.inputs)
    options = config_pb2.CallableOptions(
        feed=[definition.inputs[name].name for name in names],
        fetch=[info.name for info in definition.outputs.values()],
    )
    function = session._make_callable_from_options(options)
    return lambda feeds: function(*[feeds[name] for name in names])


HEADER = (
    *("model", "flags", "batch", "TF signature us", "TF session us", "chosen us", "servable us", "chosen"),
    *("TF / chosen", "session / chosen", "full rows: TF / chosen"),
)


def table_rows(rows: Sequence[Row]) -> list[tuple]:
    return [
        (
            *(row.model, row.flags, str(row.batch)),
            *(row.tf_signature_us, row.tf_session_us, row.chosen_us, row.servable_us, row.chosen),
            f"{row.speedup:.2f}x",
            f"{row.tf_session_us / row.chosen_us:.2f}x" if row.tf_session_us else None,
            f"{row.tf_full_us / row.full_us:.2f}x" if row.tf_full_us and row.full_us else None,
        )
        for row in rows
    ]


def handover(rows: Sequence[Row]) -> dict[str, float | None]:
    """ns before the first row and after the last one, the least and the most of them all; None where it is unknown."""
    read = [ns for row in rows for ns in row.handover_ns]
    known = [ns for ns in read if ns is not None]
    least, most = (min(known), max(known)) if known else (None, None)
    return {"before": read[0], "after": read[-1], "least": least, "most": most} if rows else {}


def handover_line(rows: Sequence[Row]) -> str:
    told = {name: "unknown" if ns is None else f"{ns:.0f} ns" for name, ns in handover(rows).items()}
    return (
        f"a cache line from core to core: {told['before']} before the first row, {told['after']} after the last, "
        f"{told['least']} to {told['most']} among them (README.md, How to read it)"
    )


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
