"""What a plan that was made elsewhere needs here, and what not."""

from __future__ import annotations

import dataclasses
import json

import pytest
from tfopt_optimizer import fitness
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.plan import BucketPlan, Fingerprint, Plan, Segment, SignatureInfo, SignaturePlan

VERSIONS = {
    "plan": "1", "python": "3.11.2", "tfopt": "0.1.0", "tensorflow-cpu": "2.21.0", "jaxlib": "0.10.2",
    "ai-edge-litert": "2.3.0", "openvino": "2026.4.1", "numpy": "2.4.6",
}  # fmt: skip
HARDWARE = {"machine": "x86_64", "processor": "Foo 9", "features": "avx2 avx512f fma", "cores": "4"}


def flags(**changed):
    return json.dumps({**dataclasses.asdict(OptimizerFlags(**changed)), "tags": ["serve"]}, sort_keys=True)


MADE = Fingerprint("m+r", flags(), VERSIONS, HARDWARE)


def signature(*engines, segments=()):
    buckets = [BucketPlan(n, {}, e, v, e != "tensorflow", "", (), "") for n, (e, v) in enumerate(engines, 1)]
    return SignaturePlan(SignatureInfo("s", "", (), ()), True, "", True, "", tuple(buckets), segments)


def plan(*engines, made=MADE, segments=()):
    return Plan(made, "cpu", "function", "warmup", (signature(*engines, segments=segments),), (), "now", 1.0)


LITERT = ("litert", "t1")


@pytest.mark.parametrize(
    ("engines", "needs"),
    [
        ([LITERT], ("ai-edge-litert",)),
        ([LITERT, ("litert", "t2+int8-dynamic")], ("ai-edge-litert",)),
        ([("openvino", "f32-amx"), ("onnxruntime", "t1")], ("onnxruntime", "openvino")),
        ([("xla", "pjrt")], ("jaxlib",)),
        ([("xla", "jit")], ("tensorflow",)),
        ([LITERT, ("tensorflow", "inline")], ("ai-edge-litert", "tensorflow")),
        ([("host+litert", "t1")], ("ai-edge-litert", "tfopt")),
    ],
)
def test_what_the_chosen_runners_load(engines, needs):
    assert fitness.needs(plan(*engines)) == needs


def test_a_host_segment_that_runs_on_tensorflow_needs_it():
    segments = (Segment("host", "tensorflow", {}),)
    assert fitness.needs(plan(("host+litert", "t1"), segments=segments)) == ("ai-edge-litert", "tensorflow", "tfopt")
    assert fitness.needs(plan(LITERT, segments=segments)) == ("ai-edge-litert",)


@pytest.mark.parametrize(
    "gone", ["tensorflow-cpu", "jaxlib", "openvino", "python", "numpy", "tfopt"], ids=lambda name: f"another {name}"
)
def test_only_the_winners_versions_count(gone):
    without = {name: version for name, version in VERSIONS.items() if name != gone}
    for versions in (without, {**VERSIONS, gone: "9"}):
        here = dataclasses.replace(MADE, versions=versions)
        assert fitness.unfit(plan(LITERT), here, replaceable=True) == []


def test_a_plan_that_an_earlier_proof_let_through_is_not_taken():
    here = dataclasses.replace(MADE, versions={**VERSIONS, "proof": "2"})
    said = ["its rows were proven independent in another way; make it anew"]
    assert fitness.unfit(plan(LITERT), here, replaceable=True) == said


@pytest.mark.parametrize(
    ("engines", "versions", "said"),
    [
        ([LITERT], {"ai-edge-litert": "2.4.0"}, ["versions.ai-edge-litert: 2.3.0 != 2.4.0"]),
        ([LITERT], {"openvino": "2026.4.1"}, ["it needs ai-edge-litert 2.3.0, which is not installed"]),
        ([("tensorflow", "session")], {}, ["it needs tensorflow 2.21.0, which is not installed"]),
        ([("tensorflow", "session")], {"tensorflow": "2.21.0"}, []),  # the same by another name
        ([("tensorflow", "session")], {"tensorflow": "2.20.0"}, ["versions.tensorflow: 2.21.0 != 2.20.0"]),
        ([("host+litert", "t1")], {"ai-edge-litert": "2.3.0", "tfopt": "0.2.0"}, ["versions.tfopt: 0.1.0 != 0.2.0"]),
    ],
)
def test_what_a_winner_needs_is_named(engines, versions, said):
    here = dataclasses.replace(MADE, versions=versions)
    assert fitness.unfit(plan(*engines), here, replaceable=True) == said


@pytest.mark.parametrize(
    ("hardware", "replaceable", "said"),
    [
        ({"cores": "8"}, True, ["hardware.cores: 4 != 8"]),
        ({"cores": "8", "processor": "Bar"}, False, []),
        ({"features": "avx2 avx512f avx9 fma"}, True, ["hardware.features: nothing != avx9"]),
        ({"features": "avx2 avx512f avx9 fma"}, False, []),
        ({"features": "avx2 fma"}, False, ["this processor lacks avx512f"]),
        ({"machine": "aarch64", "features": "asimd"}, False, ["hardware.machine: x86_64 != aarch64"]),
    ],
)
def test_the_processor_must_be_the_same_where_another_plan_can_be_made_and_able_where_none_can(
    hardware, replaceable, said
):
    here = dataclasses.replace(MADE, hardware={**HARDWARE, **hardware})
    assert fitness.unfit(plan(LITERT), here, replaceable=replaceable) == said


def test_a_plan_that_does_not_say_what_it_was_made_with_is_not_risked():
    made = dataclasses.replace(MADE, hardware={"machine": "x86_64"})
    told = ["it does not say which instruction sets it was made with"]
    assert fitness.unfit(plan(LITERT, made=made), MADE, replaceable=False) == told


@pytest.mark.parametrize(
    ("made", "here", "said"),
    [
        ({"optimize_budget_s": 900.0}, {}, []),
        ({"engines": ("litert",), "without_tensorflow": True}, {}, []),
        ({}, {"engines": ("litert",)}, ["flags.engines: [] != ['litert']"]),
        ({"allow_compression": True}, {}, ["flags.allow_compression: True != False"]),
        ({"allowed_batch_sizes": (1, 8)}, {}, ["flags.allowed_batch_sizes: [1, 8] != []"]),
    ],
)
def test_how_widely_was_searched_binds_only_who_says_so(made, here, said):
    there = dataclasses.replace(MADE, flags=flags(**made))
    wanted = dataclasses.replace(MADE, flags=flags(**here))
    assert fitness.unfit(plan(LITERT, made=there), wanted, replaceable=True) == said


def test_other_threads_are_no_reason_where_no_other_plan_can_be_made():
    """As another processor: the answers are the same, another engine might be faster."""
    here = dataclasses.replace(MADE, flags=flags(intra_op_threads=2, allow_compression=True))
    threads, compression = "flags.intra_op_threads: 0 != 2", "flags.allow_compression: False != True"
    assert fitness.unfit(plan(LITERT), here, replaceable=True) == [compression, threads]
    assert fitness.unfit(plan(LITERT), here, replaceable=False) == [compression]
    assert fitness.elsewhere(plan(LITERT), here) == threads


def test_a_flag_that_the_plan_does_not_know_yet_had_its_default_then():
    known = {name: value for name, value in json.loads(MADE.flags).items() if name != "lossy_top1"}
    there = dataclasses.replace(MADE, flags=json.dumps(known))
    assert fitness.unfit(plan(LITERT, made=there), MADE, replaceable=True) == []
    here = dataclasses.replace(MADE, flags=flags(lossy_top1=0.5))
    assert fitness.unfit(plan(LITERT, made=there), here, replaceable=True) == ["flags.lossy_top1: 0.99 != 0.5"]


def test_another_model_is_another_model():
    here = dataclasses.replace(MADE, model="n+r")
    assert fitness.unfit(plan(LITERT), here, replaceable=False) == ["model: m+r != n+r"]
