"""The whole tournament on real SavedModels. Every run pays for a TensorFlow process (3 s): each tells a long story."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tfopt_optimizer import plan as plans
from tfopt_optimizer import plan_files, testing
from tfopt_optimizer.cache import optimize_cached
from tfopt_optimizer.engines import table
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.servable import Servable
from tfopt_protos import messages

pytestmark = pytest.mark.tensorflow
XLA = OptimizerFlags(allow_precompilation=True, allowed_batch_sizes=(1, 4), engines=("xla",))
rng = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    """Who is faster by how much is tested elsewhere; here a few calls are enough."""
    monkeypatch.setattr("tfopt_optimizer.measure.ROUNDS", 2)


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def job(model, plan_dir, samples, flags=XLA):
    if not isinstance(samples, dict) or "serving_default" not in samples:
        samples = {"serving_default": (samples,)}
    return OptimizeJob(model, plan_dir, ("serve",), flags, samples, "warmup")


def statuses(bucket):
    return {(c.engine, c.variant): c.status for c in bucket.candidates}


def test_an_mlp_becomes_an_xla_plan(mlp):
    plan, folder = mlp.plan, mlp.folder
    assert plans.read(folder) == plan
    plan_files.verify(plan, folder)
    assert set(plan.log) <= set(mlp.lines)

    signature = plan.signature("serving_default")
    assert (signature.row_independent, signature.merge) == (True, True)
    assert [(b.batch, b.engine, b.variant, b.static) for b in signature.buckets] == [
        (1, "xla", "pjrt", True),
        (4, "xla", "pjrt", True),
    ]
    for bucket in signature.buckets:
        chosen = next(c for c in bucket.candidates if c.status == "chosen")
        assert chosen.agreement.max_rel_error < 1e-4
        assert chosen.agreement.rows >= 9
        assert "plain TF" in bucket.why
    # `serve` computes the same: it has the same buckets and no files of its own
    assert plan.signature("serve").buckets == signature.buckets
    assert plan.weights_bytes == sum(4 * n for n in (32 * 64, 64, 64 * 64, 64, 64 * 10, 10))
    assert sorted(p.name for p in folder.iterdir()) == ["plan.json", "s0", "weights.bin", "weights.json"]


def test_an_xla_plan_is_served_without_tensorflow_and_soon(mlp, tmp_path):
    np.save(tmp_path / "x.npy", mlp.x)
    code = """
import sys, time, json
started = time.perf_counter()
import numpy as np
from pathlib import Path
from tfopt_optimizer import plan as plans
from tfopt_optimizer.servable import Servable
model, folder, x = Path(sys.argv[1]), Path(sys.argv[2]), np.load(sys.argv[3])
servable = Servable.open(model, folder, plans.read(folder))
runner = servable.signatures["serving_default"]
answer = runner.run({"features": x})                      # 9 rows: two buckets of 4, one of 1
seconds = time.perf_counter() - started
print(json.dumps({
    "seconds": seconds,
    "rows": [len(array) for array in answer.values()],
    "notes": servable.notes,
    "tensorflow": "tensorflow" in sys.modules or servable.tensorflow_loaded,
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(mlp.model), str(mlp.folder), str(tmp_path / "x.npy")],
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told.pop("seconds") < 10  # 0.7 s on an idle machine
    assert told == {"rows": [9], "notes": [], "tensorflow": False}


def test_a_converter_that_was_too_slow_once_is_not_waited_for_again(savedmodel, tmp_path):
    slow = dataclasses.replace(testing.planted("Unconverted"), converter=testing.planted("Hangs").worker)
    others = [dataclasses.replace(slow, variant="other"), testing.planted("Right")]
    flags = OptimizerFlags(allowed_batch_sizes=(1, 4), candidate_timeout_s=2)
    records = {"x": np.full([2, 1], 0.5, np.float32)}
    plan = optimize(
        job(savedmodel("half_plus_two"), tmp_path / "plan", records, flags), lambda line: None, entrants=[*others, slow]
    )
    first, second = plan.signature("serving_default").buckets
    reasons = [{c.variant: c.reason for c in b.candidates if c.engine == "unconverted"} for b in (first, second)]
    again = "converting it takes more than 2 s"
    assert reasons == [{"other": "no answer within 2 s, killed", "planted": again}, {"other": again, "planted": again}]


def test_planted_candidates_are_dropped_each_with_its_reason(savedmodel, tmp_path, monkeypatch):
    monkeypatch.setattr("tfopt_optimizer.contest.LARGE", 0)
    monkeypatch.setattr("tfopt_optimizer.contest.LIGHT_US", 0.0)
    unconverted = dataclasses.replace(testing.planted("Unconverted"), converter="nobody:Starts", heavy=True)
    light = dataclasses.replace(testing.planted("Right"), engine="light", light=True)
    names = ("Right", "Nan", "OffByTwoPercent", "Leaks", "Slow", "Crashes", "Hangs", "Refuses", "NeverStarts")
    names = (*names, "CrashesLater", "HangsLater", "CrashesAtTheEnd", "HangsAtTheEnd", "StopsWhileItAnswers")
    monkeypatch.setattr("tfopt_optimizer.frames.STALL_S", 3.0)
    monkeypatch.setattr("tfopt_optimizer.contest.CLOSING_S", 3.0)
    flags = OptimizerFlags(allowed_batch_sizes=(4,), candidate_timeout_s=3)
    lines = []
    plan = optimize(
        job(savedmodel("half_plus_two"), tmp_path / "plan", {"x": np.full([2, 1], 0.5, np.float32)}, flags),
        lines.append,
        entrants=[unconverted, light, *(testing.planted(n) for n in names)],
    )
    (bucket,) = plan.signature("serving_default").buckets
    reasons = {c.engine: (c.status, c.reason) for c in bucket.candidates if c.variant == "planted"}
    assert reasons.pop("crashes")[1].startswith("the crashes worker died (signal SIGSEGV)")
    assert reasons.pop("crasheslater")[1].startswith("the crasheslater worker died (signal SIGSEGV)")
    end = "closing it: the crashesattheend worker died (signal SIGSEGV)"
    assert reasons.pop("crashesattheend")[1].startswith(end)
    assert reasons.pop("right")[0] in ("chosen", "slower")  # numpy and a TensorFlow session tie on an addition
    status, why = reasons.pop("unconverted")
    assert status == "skipped"
    assert re.fullmatch(r"not converted: 0 MB would take long, and \w+ is [\d.]+x faster than plain TF already", why)
    slow = reasons.pop("slow")
    assert slow[0] == "slower"
    assert reasons == {
        "nan": ("rejected", "output 'y' has nan at [3, 0], plain TensorFlow 2.25 (1 such values)"),
        "offbytwopercent": ("rejected", "max error 0.02 is above 0.0001"),
        "leaks": ("rejected", reasons["leaks"][1]),
        "hangs": ("rejected", "no answer within 3 s, killed"),
        "hangslater": ("rejected", "no answer within 3 s, killed"),
        "hangsattheend": ("rejected", "closing it: no answer within 3 s, killed"),
        "stopswhileitanswers": ("rejected", "it stopped in the middle of its answer (no byte for 3 s), killed"),
        "refuses": ("rejected", "operation Foo has no kernel"),
        "light": ("skipped", "for calls of less than 0 ms"),
    }
    assert reasons["leaks"][1].startswith("other rows change the first one: max error ")
    assert "neverstarts cannot take part: ModuleNotFoundError: No module named 'foo'" in plan.log
    decision = next(line for line in plan.log if line.startswith("serving_default x 4: "))
    assert "slow 1" in decision
    assert "loses to tensorflow" in decision
    chosen = next(c for c in bucket.candidates if c.status == "chosen")
    reference = bucket.candidates[0]
    assert chosen.measured.median_us <= 1.05 * reference.measured.median_us


def test_strings_stay_on_tensorflow_by_the_cheaper_loader_and_the_plan_says_why(savedmodel, tmp_path):
    model = savedmodel("tabular")
    record = {
        "color": np.array([b"red", b"BLUE", b"other"], dtype=object),
        "city": np.array([b"lima", b"oslo", b"nowhere"], dtype=object),
        "age": floats(3),
        "income": floats(3, 2),
    }
    wanted = job(model, tmp_path / "plan", record)
    whole, _ = table.entrants(wanted.flags)  # without the engines that take the device segments of a split one
    plan = optimize(wanted, lambda _: None, entrants=whole)
    assert plan.loader == "session"
    assert plan.weights_bytes == 0
    assert [p.name for p in (tmp_path / "plan").iterdir()] == ["plan.json"]
    signature = plan.signature("serving_default")
    assert signature.row_independent
    for bucket in signature.buckets:
        assert (bucket.engine, bucket.static, bucket.artifact) == ("tensorflow", False, "")
        assert statuses(bucket)["xla", "pjrt"] == "rejected"
        assert "xla rejected: input 'city' is of type string, which XLA does not compute with" in bucket.why

    servable = Servable.open(model, tmp_path / "plan", plan)
    assert servable.tensorflow_loaded
    runner = servable.signatures["serving_default"]
    whole, alone = runner.run(record), runner.run({n: a[2:] for n, a in record.items()})
    np.testing.assert_allclose(whole["scores"][2:], alone["scores"], rtol=1e-5)
    servable.close()


def test_rows_that_change_with_their_company_are_never_merged(savedmodel, tmp_path):
    model, x = savedmodel("row_dependent"), floats(3, 4)
    plan = optimize(job(model, tmp_path / "plan", {"x": x}), lambda _: None)
    signature = plan.signature("serving_default")
    assert not signature.row_independent
    assert not signature.merge
    assert [(b.batch, b.shapes) for b in signature.buckets] == [(None, {"x": (3, 4)})]
    assert [c.reason for c in signature.buckets[0].candidates if c.status == "rejected"] == []
    servable = Servable.open(model, tmp_path / "plan", plan)
    runner = servable.signatures["serving_default"]
    assert runner.buckets == ()
    for rows in (3, 2):
        route = runner.route({"x": x[:rows]})
        assert route.reference is (rows != 3)
        assert route.group is None
        np.testing.assert_allclose(
            runner.run({"x": x[:rows]})["centered"], x[:rows] - x[:rows].mean(0), rtol=1e-4, atol=1e-5
        )
    servable.close()


def test_a_model_that_writes_state_runs_on_one_loader_only(savedmodel, tmp_path):
    model = savedmodel("counter")
    plan = optimize(job(model, tmp_path / "plan", {"step": np.ones([2], np.float32)}), lambda _: None)
    assert (
        "only plain TF takes part: serving_default writes state (AssignAddVariableOp) that others may read" in plan.log
    )
    for signature in plan.signatures:
        (bucket,) = signature.buckets
        assert (bucket.batch, bucket.shapes, bucket.engine, bucket.variant) == (None, {}, "tensorflow", plan.loader)
    servable = Servable.open(model, tmp_path / "plan", plan)
    count, get = servable.signatures["serving_default"], servable.signatures["get"]
    assert not count.route({"step": np.ones([2], np.float32)}).reference
    assert count.run({"step": np.ones([2], np.float32)})["count"].tolist() == [2, 2]
    assert count.run_reference({"step": np.ones([1], np.float32)})["count"].tolist() == [3]
    assert get.run({})["count"] == 3
    servable.close()


def test_what_a_session_cannot_load_the_function_loader_serves(savedmodel, tmp_path):
    lines = []
    flags = OptimizerFlags(allow_precompilation=True, use_tfrt=False, allowed_batch_sizes=(2,), engines=("xla",))
    plan = optimize(
        job(savedmodel("mlp_keras_saved"), tmp_path / "plan", {"inputs": floats(2, 32)}, flags), lines.append
    )
    assert plan.loader == "function"
    refusal = "tensorflow/session cannot be used: session loader: 6 variables stay uninitialized in a TF1 session"
    assert any(line.startswith(refusal) for line in plan.log)
    (bucket,) = plan.signature("serving_default").buckets
    assert statuses(bucket).keys() == {("tensorflow", "function"), ("xla", "jit")}
    assert bucket.artifact == ""


@pytest.mark.slow
def test_two_candidates_of_every_dtype_agree(savedmodel, tmp_path):
    record = {
        "i32": np.arange(6, dtype=np.int32).reshape(2, 3),
        "i64": np.array([1 << 40, -3]),
        "flag": np.array([[True, False], [False, False]]),
        "f64": np.array([1.0, 1e-300]),
        "u8": np.arange(8, dtype=np.uint8).reshape(2, 4),
        "f16": np.array([1.5, -2], np.float16),
    }
    flags = OptimizerFlags(allow_precompilation=True, allowed_batch_sizes=(2,), engines=("xla",))
    plan = optimize(job(savedmodel("dtypes"), tmp_path / "plan", record, flags), lambda _: None)
    (bucket,) = plan.signature("serving_default").buckets
    assert [c.reason for c in bucket.candidates if c.status == "rejected"] == []
    assert {c.agreement.max_rel_error for c in bucket.candidates if c.agreement} == {0.0}


def test_without_flags_only_lossless_engines_run(savedmodel, tmp_path):
    flags = OptimizerFlags(allowed_batch_sizes=(1,))
    plan = optimize(
        job(savedmodel("half_plus_two_v1_ref"), tmp_path / "plan", {"x": floats(2, 1)}, flags), lambda _: None
    )
    candidates = [c for s in plan.signatures for b in s.buckets for c in b.candidates]
    tried = {c.engine for c in candidates}
    assert {c.precision for c in candidates} == {""}
    assert tried == {"tensorflow", "litert", "openvino", "onnxruntime"}
    classify = plan.signature("classify_x_to_y")
    assert "there are no records for it: add warmup records" in classify.buckets[0].why


def test_a_second_start_uses_the_plan_of_the_first(savedmodel, tmp_path):
    lines = []
    one = job(
        savedmodel("scalar"), tmp_path / "unused", {"x": np.float32(3).reshape(())}, OptimizerFlags(engines=("litert",))
    )
    first, folder = optimize_cached(one, tmp_path / "cache", lines.append)
    lines.clear()
    second, same = optimize_cached(one, tmp_path / "cache", lines.append)
    assert (second, same) == (first, folder)
    assert len(lines) == 1
    assert first.signature("serving_default").buckets[0].shapes == {"x": ()}


def test_when_time_is_up_the_likeliest_candidate_is_tried_and_what_is_left_runs_on_plain_tensorflow(
    savedmodel, tmp_path
):
    flags = OptimizerFlags(optimize_budget_s=0.0, allowed_batch_sizes=(1, 2, 4), engines=("litert", "openvino"))
    plan = optimize(job(savedmodel("half_plus_two"), tmp_path / "plan", {"x": floats(2, 1)}, flags), lambda _: None)
    signature = plan.signature("serving_default")
    assert "serving_default: no time left for 2 of 3 buckets" in plan.log
    assert [(b.batch, b.engine) for b in signature.buckets] == [(1, "litert"), (2, "tensorflow"), (4, "tensorflow")]
    tried = {(c.engine, c.status) for c in signature.buckets[0].candidates}
    assert ("openvino", "skipped") in tried
    assert signature.buckets[1].candidates[0].measured.calls == 0
    assert signature.row_independent


def test_a_search_for_memory_that_runs_out_of_time_says_that_it_chose_by_latency(savedmodel, tmp_path):
    flags = OptimizerFlags(
        optimize_budget_s=0.0, allowed_batch_sizes=(1, 2, 4), optimize_for="memory", engines=("litert",)
    )
    plan = optimize(job(savedmodel("half_plus_two"), tmp_path / "plan", {"x": floats(2, 1)}, flags), lambda _: None)
    told = "chosen by latency, not for memory: 2 of 3 buckets were not opened (--optimize_budget_s)"
    assert f"serving_default: {told}" in plan.log


@pytest.mark.slow
def test_for_throughput_candidates_are_measured_with_all_cores_busy(savedmodel, tmp_path):
    flags = OptimizerFlags(optimize_for="throughput", allowed_batch_sizes=(4,), engines=("litert", "openvino"))
    plan = optimize(job(savedmodel("cnn"), tmp_path / "plan", {"image": floats(4, 16, 16, 3)}, flags), lambda _: None)
    (bucket,) = plan.signature("serving_default").buckets
    measured = {(c.engine, c.variant): c.measured for c in bucket.candidates if c.measured}
    chosen = measured[bucket.engine, bucket.variant]
    assert chosen.rate * 1.06 > max(m.rate for m in measured.values())
    assert sum(m.rate > 0 for m in measured.values()) >= 2
    assert plan.runners == chosen.callers
    assert f"when requests queue, {plan.runners} run at a time" in plan.log


def test_what_cannot_be_read_is_an_error_for_the_operator(tmp_path):
    with pytest.raises(OptimizeError, match="does not appear to contain a SavedModel bundle"):
        optimize(job(tmp_path, tmp_path / "plan", {}), lambda _: None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").touch()
    with pytest.raises(OptimizeError, match="holds files that are no plan"):
        optimize(job(tmp_path, tmp_path / "full", {}), lambda _: None)


def test_a_model_without_a_signature_is_an_error_that_leaves_the_plan_that_is_there(tmp_path, savedmodel):
    model, plan_dir = tmp_path / "model", tmp_path / "plan"
    shutil.copytree(savedmodel("half_plus_two"), model)
    saved = messages.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].signature_def.clear()
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    plan_dir.mkdir()
    (plan_dir / plans.FILE_NAME).write_text('{"format_version": 1}')
    with pytest.raises(OptimizeError, match="has no signature that a client could call"):
        optimize(job(model, plan_dir, {}), lambda _: None)
    assert (plan_dir / plans.FILE_NAME).exists()


def test_an_engine_that_hangs_while_it_is_imported_costs_itself(savedmodel, tmp_path, monkeypatch):
    monkeypatch.setattr("tfopt_optimizer.optimize.OPEN_S", 5.0)
    flags = OptimizerFlags(allowed_batch_sizes=(1,), candidate_timeout_s=3)
    plan = optimize(
        job(savedmodel("half_plus_two"), tmp_path / "plan", {"x": np.full([2, 1], 0.5, np.float32)}, flags),
        lambda _: None,
        entrants=[testing.planted("HangsAtTheStart")],
    )
    assert "hangsatthestart cannot take part: no answer within 5 s, killed" in plan.log
    assert [b.engine for b in plan.signature("serving_default").buckets] == ["tensorflow"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"plan.json": '{"terraform_version": "1.9"}'}, "holds files that are no plan"),
        ({"plan.json": "[1]"}, "holds files that are no plan"),
        ({"plan.json": '{"format_version": 1}', "s0": "", "thesis.tex": ""}, "holds 'thesis.tex' beside a plan"),
        ({"plan.json.part": "", "s0": ""}, "SavedModel"),  # of a run that was killed
        ({"plan.json": '{"format_version": 0}', "weights.bin": "", "s12": ""}, "SavedModel"),
    ],
)
def test_only_what_is_a_plan_is_overwritten(tmp_path, files, why):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(OptimizeError, match=why):
        optimize(job(tmp_path / "none", tmp_path, {}), lambda _: None)
    assert {path.name for path in tmp_path.iterdir()} == set(files)
