"""Compressed models: made of the float ones by real quantizers, gated on real SavedModels, served from their plans."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from enginecases import Prepared, feeds, plain, save, target
from tfopt_optimizer import compression, cpu, testing, verify
from tfopt_optimizer.engines import calibration, litert, litert_compress, litert_convert, openvino, openvino_compress
from tfopt_optimizer.engines import openvino_freeze as freeze
from tfopt_optimizer.errors import NeedsConversion, NotLowerable
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.servable import Servable
from tfopt_optimizer.verify import Gate, Tolerance

pytestmark = pytest.mark.tensorflow
ROUGH = Tolerance(max_rel_error=0.3, mean_rel_error=0.1, top1=0.0)  # it is the same model, no more than that
KEY = "serving_default"


def close(name, wanted, runner, least=1e-6, seed=1):
    """Near TensorFlow's answers, and not the float model's."""
    given = feeds(wanted, seed)
    verdict = verify.check(plain(name, wanted, given), runner(given), ROUGH)
    assert verdict.reason == ""
    assert verdict.agreement.max_rel_error >= least
    return verdict.agreement


@pytest.mark.parametrize("variant", ["int8", "int8-weights", "int4-weights", "bf16"])
def test_openvino_models_of_every_precision(tmp_path, variant):
    float_model = Prepared("cnn", tmp_path, openvino.Worker(), freeze.Converter)
    float_model.runner(target("cnn", KEY, "f32", 4))
    calibration.write(tmp_path / "s0", [feeds(target("cnn", KEY, "f32", 4), seed) for seed in range(4)], ROUGH)
    prepared = Prepared("cnn", tmp_path, openvino.Worker(), openvino_compress.Converter)
    computes = variant != "bf16" or not compression.unfit("bf16", cpu.processor()["isa"].split())
    for batch in (1, 5):
        wanted = target("cnn", KEY, variant, batch)
        # Where the processor has no bfloat16, OpenVINO takes float32 for it, and no tournament offers it.
        close("cnn", wanted, prepared.runner(wanted), least=1e-6 if computes else 0.0)
    assert prepared.converted == (variant != "bf16")  # one model for all buckets; bfloat16 is the float one
    folder = "openvino" if variant == "bf16" else f"openvino-{variant}"
    assert prepared.prepared.artifact == f"s0/{folder}"
    sizes = {f: (tmp_path / "s0" / f / "model.bin").stat().st_size for f in ("openvino", folder)}
    assert variant == "bf16" or sizes[folder] < 0.6 * sizes["openvino"]


@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-weights"])
@pytest.mark.parametrize("name", ["lookup", "mlp_keras"])  # strings are no obstacle; small tables stay as they are
def test_litert_models_of_every_precision(tmp_path, name, precision):
    float_model = Prepared(name, tmp_path, litert.Worker(), litert_convert.Converter)
    float_model.runner(target(name, KEY, "t1", 4))
    prepared = Prepared(name, tmp_path, litert.Worker(), litert_compress.Converter)
    for threads, batch in (("t1", 1), ("t2", 5)):
        wanted = target(name, KEY, f"{threads}+{precision}", batch)
        close(name, wanted, prepared.runner(wanted), least=0.0 if name == "lookup" else 1e-6)
    assert prepared.converted == 1
    sizes = [(tmp_path / "s0" / f / "model.tflite").stat().st_size for f in ("litert", f"litert-{precision}")]
    assert name == "lookup" or sizes[1] < 0.8 * sizes[0]


@pytest.mark.parametrize(
    ("worker", "converter", "variant", "reason"),
    [
        (openvino.Worker, openvino_compress.Converter, "int8", "OpenVINO has no float32 model to make it of"),
        (litert.Worker, litert_compress.Converter, "t1+int8-dynamic", "there is no float LiteRT model to make it of"),
    ],
)
def test_there_must_be_a_float_model_first(tmp_path, worker, converter, variant, reason):
    prepared, wanted = Prepared("cnn", tmp_path, worker(), converter), target("cnn", KEY, variant, 1)
    with pytest.raises(NeedsConversion):
        prepared.worker.prepare(wanted)
    with pytest.raises(NotLowerable, match=reason):
        prepared.runner(wanted)


def test_static_ranges_need_records(tmp_path):
    Prepared("cnn", tmp_path, openvino.Worker(), freeze.Converter).runner(target("cnn", KEY, "f32", 4))
    prepared = Prepared("cnn", tmp_path, openvino.Worker(), openvino_compress.Converter)
    with pytest.raises(NotLowerable, match="there are no records to calibrate on"):
        prepared.runner(target("cnn", KEY, "int8", 4))


@pytest.fixture
def sparse(tmp_path, monkeypatch):
    """sparse(share): a model of two layers with this share of zeros, prepared in float32, and its records."""

    def make(share):
        rng = np.random.default_rng(4)

        def layer(tf):
            weights = rng.standard_normal((64, 64)).astype(np.float32)
            weights[rng.random((64, 64)) < share] = 0.0
            return tf.constant(weights / 4)

        def compute(tf, module, x):
            return {"y": tf.matmul(tf.nn.relu(tf.matmul(x, layer(tf))), layer(tf))}

        save(tmp_path / f"sparse{share}", compute, x=([None, 64], "float32"))
        monkeypatch.setattr("savedmodels.path", lambda wanted: tmp_path / wanted)
        name, plan = f"sparse{share}", tmp_path / "plan"
        Prepared(name, plan, openvino.Worker(), freeze.Converter).runner(target(name, KEY, "f32", 4))
        gate = Tolerance(max_rel_error=0.05, mean_rel_error=0.01, top1=0.9)
        calibration.write(plan / "s0", [feeds(target(name, KEY, "f32", 4), seed) for seed in range(4)], gate)
        return name, Prepared(name, plan, openvino.Worker(), openvino_compress.Converter)

    return make


def test_a_model_that_was_trained_sparse_is_pruned_as_far_as_the_gate_allows(sparse):
    name, prepared = sparse(0.85)
    wanted = target(name, KEY, "int8-pruned", 4)
    close(name, wanted, prepared.runner(wanted))
    assert prepared.prepared.artifact == "s0/openvino-int8-pruned"


def test_a_dense_model_is_not_pruned_and_the_numbers_say_why(sparse):
    name, prepared = sparse(0.0)
    with pytest.raises(NotLowerable, match=r"^max error 0\.\d+ is above 0\.05 with 70% zeros$"):
        prepared.runner(target(name, KEY, "int8-pruned", 4))


X = np.linspace(-3, 3, 400, dtype=np.float32)[:, None]


def planted(name):
    return dataclasses.replace(testing.planted(name), precision="int8")


def half_plus_two(savedmodel, plan_dir, entrants, records="warmup", **flags):
    samples = {KEY: tuple({"x": X[i : i + 1]} for i in range(len(X)))}
    job = OptimizeJob(
        savedmodel("half_plus_two"), plan_dir, ("serve",),
        OptimizerFlags(allow_compression=True, allowed_batch_sizes=(200,), **flags), samples, records,
    )  # fmt: skip
    return optimize(job, lambda _: None, entrants=entrants)


def test_wrong_lossy_candidates_are_caught_and_a_close_one_passes(savedmodel, tmp_path):
    names = ("Close", "Nan", "OffByTwoPercent", "OffByHalfAPercent", "Crashes", "Leaks")
    plan = half_plus_two(savedmodel, tmp_path / "plan", [planted(n) for n in names])
    (bucket,) = plan.signature(KEY).buckets
    found = {c.engine: c for c in bucket.candidates if c.precision == "int8"}
    assert found["close"].status in ("chosen", "slower")
    assert 1e-4 < found["close"].agreement.max_rel_error <= 0.01
    assert found["close"].agreement.rows == 200  # the other half may have calibrated it
    assert sum(found["close"].agreement.histogram) == 200
    wrong = {name: c.reason for name, c in found.items() if name != "close"}
    assert {c.status for name, c in found.items() if name in wrong} == {"rejected"}
    assert wrong["nan"].startswith("output 'y' has nan at")
    assert wrong["offbytwopercent"].startswith("max error 0.02 is above 0.01")
    assert wrong["offbyhalfapercent"].startswith("mean error 0.00")
    assert wrong["crashes"].startswith("the crashes worker died (signal SIGSEGV)")
    assert wrong["leaks"]


@pytest.mark.slow
def test_the_gates_flags_move_it(savedmodel, tmp_path):
    flags = {"lossy_mean_rel_error": 0.05, "lossy_max_rel_error": 0.05}
    plan = half_plus_two(savedmodel, tmp_path / "plan", [planted("OffByTwoPercent"), planted("Nan")], **flags)
    found = {c.engine: c.status for c in plan.signature(KEY).buckets[0].candidates if c.precision}
    assert found["offbytwopercent"] in ("chosen", "slower")
    assert found["nan"] == "rejected"


def test_without_records_they_are_checked_loudly_or_refused(savedmodel, tmp_path):
    entrants = [planted("Close")]
    loud = half_plus_two(savedmodel, tmp_path / "loud", entrants, "synthesized")
    assert loud.log[0].startswith("WARNING: allow_compression WITHOUT WARMUP RECORDS")
    assert loud.records == "synthesized"
    assert any(c.precision for c in loud.signature(KEY).buckets[0].candidates)
    refused = half_plus_two(savedmodel, tmp_path / "no", entrants, "synthesized", compression_requires_records=True)
    assert refused.log[0].startswith("WARNING: allow_compression: lossy candidates are refused")
    assert not any(c.precision for c in refused.signature(KEY).buckets[0].candidates)


@pytest.mark.slow
def test_a_compressed_plan_is_small_and_served(savedmodel, tmp_path, monkeypatch):
    """The exact engines are out of the way, so that a compressed model is chosen."""

    def hostile(contest, candidate):
        exact = candidate.entrant.engine != "tensorflow" and not candidate.entrant.precision
        return Gate(Tolerance(-1.0, -1.0, 0.0) if exact else ROUGH)

    monkeypatch.setattr("tfopt_optimizer.contest.Contest._gate", hostile)
    wanted = target("mlp_keras", KEY, "f32", 64)
    rows = feeds(wanted)
    flags = OptimizerFlags(allow_compression=True, allowed_batch_sizes=(8,), engines=("litert", "openvino"))
    job = OptimizeJob(savedmodel("mlp_keras"), tmp_path / "plan", ("serve",), flags, {KEY: (rows,)}, "warmup")
    plan = optimize(job, lambda _: None)
    (bucket,) = plan.signature(KEY).buckets
    assert next(c for c in bucket.candidates if c.status == "chosen").precision
    assert {c.precision for c in bucket.candidates if c.status in ("chosen", "slower") and c.precision} >= {
        "int8",
        "int8-dynamic",
        "int8-weights",
    }
    assert not (tmp_path / "plan" / "s0" / "calibration").exists()
    servable = Servable.open(job.model_dir, tmp_path / "plan", plan)
    answer = servable.signatures[KEY].run({n: a[:11] for n, a in rows.items()})
    verdict = verify.check({n: a[:11] for n, a in plain("mlp_keras", wanted, rows).items()}, answer, ROUGH)
    assert verdict.reason == ""
    assert verdict.agreement.max_rel_error > 1e-6  # it is the compressed one that answered
    servable.close()


@pytest.mark.slow
def test_for_memory_the_smallest_runner_serves_all_buckets(savedmodel, tmp_path):
    wanted = target("mlp_keras", KEY, "f32", 32)
    flags = OptimizerFlags(allowed_batch_sizes=(1, 8), engines=("litert", "openvino"), optimize_for="memory")
    job = OptimizeJob(savedmodel("mlp_keras"), tmp_path / "plan", ("serve",), flags, {KEY: (feeds(wanted),)}, "warmup")
    buckets = optimize(job, lambda _: None).signature(KEY).buckets
    assert len({(b.engine, b.variant) for b in buckets}) == 1
    assert all(b.engine != "tensorflow" for b in buckets)
    for bucket in buckets:
        (chosen,) = (c for c in bucket.candidates if c.status == "chosen")
        assert chosen.memory_bytes is not None
        assert chosen.artifact_bytes > 0
