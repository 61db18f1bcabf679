"""What the optimizer chose for the demo models agrees with plain TensorFlow on held-out rows, at every bucket."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.plan import Plan
from tfopt_optimizer.servable import Servable
from tfopt_server import explaining, shapley
from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.executor import Executor
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import Event
from tfopt_server.metrics import Metrics
from tfopt_server.registry import Loaded, Registry
from tfopt_server.rest import features
from tfopt_server.rest.explanation_spec import Output, Spec
from tfopt_server.rest.features import Target
from tfopt_warmup import records

from demo import build, held_out

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("forked_workers")]

GATE = OptimizerFlags().lossless_max_rel_error


@dataclasses.dataclass(frozen=True)
class Optimized:
    """A demo model with a plan, and plain TensorFlow's answers to all of its held-out rows."""

    name: str
    flags: OptimizerFlags
    model_dir: Path
    plan_dir: Path
    plan: Plan
    data: held_out.HeldOut
    expected: dict[str, np.ndarray]


# The default gate of compression lets no 8-bit answer of these models in (mean 0.04 % at best): here a wider one.
FLAGS = {
    "default": OptimizerFlags(),
    "precompiled": OptimizerFlags(allow_precompilation=True),
    "compressed": OptimizerFlags(allow_compression=True, lossy_mean_rel_error=2e-3, lossy_max_rel_error=5e-2),
}
CASES = [(name, flags) for name in build.NAMES for flags in FLAGS]
# A plan with precompilation has been contested by all lossless engines too; that XLA takes no strings is also in
# tests/optimizer/test_optimize.py.
QUICK = {("digits", "precompiled"), ("tabular", "default")}


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, id="-".join(case), marks=[] if case in QUICK else [pytest.mark.slow]) for case in CASES],
)
def optimized(request, demo_models, tmp_path_factory) -> Optimized:
    name, flags = request.param[0], FLAGS[request.param[1]]
    model_dir, plan_dir = demo_models / name / "1", tmp_path_factory.mktemp(name)
    runs = [run for record in records.read(records.path_in(model_dir)) for run in record.runs]
    samples = {build.SIGNATURE: tuple(run.feeds for run in runs)}
    plan = optimize(OptimizeJob(model_dir, plan_dir, ("serve",), flags, samples, "warmup"), lambda line: None)
    data = held_out.read(demo_models / name)
    return Optimized(name, flags, model_dir, plan_dir, plan, data, build.plain_outputs(demo_models / name, data))


def in_steps(optimized: Optimized, runner, step: int) -> dict[str, np.ndarray]:
    """Runs all held-out rows, `step` at a time (the last step is shorter: it is padded or a smaller bucket)."""
    rows = range(0, len(optimized.data.answer), step)
    found = [runner.run(optimized.data.rows(start, start + step)) for start in rows]
    return {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}


def test_every_chosen_runner_agrees_with_plain_tensorflow_on_held_out_rows(optimized):
    servable = Servable.open(optimized.model_dir, optimized.plan_dir, optimized.plan)
    try:
        runner = servable.signatures[build.SIGNATURE]
        lossy = any(c.precision for c in chosen(optimized))
        gate, lost = (optimized.flags.lossy_max_rel_error, 1 - optimized.flags.lossy_top1) if lossy else (GATE, 0.0)
        assert servable.notes == ()
        assert runner.row_independent
        # Those that do not pay on this machine are left out, never the largest.
        assert set(runner.buckets) <= set(build.RECORD_BATCHES)
        assert runner.buckets[-1] == max(build.RECORD_BATCHES)
        for step in (*runner.buckets, 5, runner.buckets[-1] + 9):
            found = in_steps(optimized, runner, step)
            assert found.keys() == optimized.expected.keys()
            for name, expected in optimized.expected.items():
                assert error(found[name], expected) <= gate, f"{name} in steps of {step}"
            right = (build.answers(found) == optimized.data.answer).mean()
            assert right == pytest.approx((build.answers(optimized.expected) == optimized.data.answer).mean(), abs=lost)
    finally:
        servable.close()


def chosen(optimized: Optimized) -> list:
    buckets = optimized.plan.signature(build.SIGNATURE).buckets
    return [c for bucket in buckets for c in bucket.candidates if c.status == "chosen"]


def test_every_compressed_candidate_passes_or_is_rejected_with_its_numbers(optimized):
    buckets = optimized.plan.signature(build.SIGNATURE).buckets
    lossy = [c for bucket in buckets for c in bucket.candidates if c.precision]
    if not optimized.flags.allow_compression:
        assert lossy == []
        return
    assert optimized.plan.log[0].startswith("allow_compression: lossy candidates take part; on the warmup records")
    judged = [c for c in lossy if c.agreement]
    assert {"int8-dynamic", "int8-weights"} <= {c.precision for c in judged}
    for candidate in judged:
        agreement, flags = candidate.agreement, optimized.flags
        inside = (
            agreement.max_rel_error <= flags.lossy_max_rel_error
            and agreement.mean_rel_error <= flags.lossy_mean_rel_error
            and (agreement.top1 is None or agreement.top1 >= flags.lossy_top1)
        )
        assert inside or candidate.status == "rejected"
        assert candidate.reason if candidate.status == "rejected" else sum(agreement.histogram) > 0
    assert any(c.status in ("chosen", "slower") for c in judged)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """The gate's measure: largest difference, relative to the output's largest magnitude; strings agree or do not."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if expected.dtype == object:
        return float((found != expected).any())
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_xla_takes_part_where_it_is_allowed_and_the_plan_says_how_it_went(optimized):
    buckets = optimized.plan.signature(build.SIGNATURE).buckets
    trials = [candidate for bucket in buckets for candidate in bucket.candidates if candidate.engine == "xla"]
    assert all(bucket.why for bucket in buckets)
    if not optimized.flags.allow_precompilation:
        assert trials == []
    elif optimized.name == "tabular":  # its words cannot leave the host
        assert {trial.status for trial in trials} <= {"rejected", "skipped"}
        assert all("string" in trial.reason for trial in trials)
    else:  # right wherever it was tried; whether it is also the fastest is up to the machine
        assert len(trials) == len(buckets)
        assert {trial.status for trial in trials} <= {"chosen", "slower", "skipped"}
        ends = (trials[0], trials[-1])  # the smallest and the largest bucket are tried in any case
        assert all(trial.measured and trial.agreement for trial in ends)
        assert all("lost by more than 2x" in trial.reason for trial in trials if trial.status == "skipped")


def test_attributions_of_the_plan_are_near_the_exact_ones(optimized):
    """Sampled over nine numeric and categorical features, against every coalition."""
    if (optimized.name, optimized.flags) != ("tabular", FLAGS["default"]):
        pytest.skip("attributions are compared on the plan of tabular without flags")
    metrics, registry = Metrics(), Registry(["m"])
    version = registry.add("m", 1, optimized.model_dir)
    registry.move(version, Event.LOAD)
    with contextlib.closing(Servable.open(optimized.model_dir, optimized.plan_dir, optimized.plan)) as servable:
        lanes = {key: Lane("m", runner, metrics, parameters=None) for key, runner in servable.signatures.items()}
        version.loaded = Loaded(servable, lanes, optimized.plan, "", {})
        registry.move(version, Event.READY)
        plane = Dataplane(registry, Executor(metrics, 1), metrics)
        feeds = optimized.data.rows(0, 4)
        found = {}
        with plane.resolve(ModelSpec("m")) as handle:
            players = features.features(Spec(), plane.signature(handle, build.SIGNATURE), feeds, frozenset())
            run = explaining.Run(plane, handle, build.SIGNATURE, time.monotonic() + 60, lambda: False)
            assert run.batch > 1
            predicted = run.outputs(feeds)
            picked = features.picked(Spec(), Target("p", "probabilities", Output()), predicted, 4)
            for design in ("sampled", "exact"):
                with pytest.MonkeyPatch.context() as patch:
                    if design == "exact":
                        patch.setattr(shapley, "of", lambda players, paths: shapley.Exact(players))
                    job = features.job(players, feeds, paths=50)
                    found[design] = explaining.explain(run, job, predicted, picked)
    for i in range(4):
        sampled, exact = (found[design].attributions[i] for design in ("sampled", "exact"))
        difference = found["exact"].instance[i] - found["exact"].baseline[i]
        np.testing.assert_allclose(sampled.values.sum(axis=0), difference, atol=1e-5)
        np.testing.assert_allclose(exact.values.sum(axis=0), difference, atol=1e-5)
        off = np.linalg.norm(sampled.values - exact.values)
        assert off <= 4 * sampled.errors[0] * np.linalg.norm(sampled.values) + 1e-6
