"""plan.json and the artifacts beside it: round trip, damage, older and newer formats."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tfopt_optimizer import plan as plans
from tfopt_optimizer import plan_files
from tfopt_optimizer.plan import (
    Agreement,
    BucketPlan,
    Candidate,
    Fingerprint,
    Measured,
    Plan,
    PlanError,
    SignatureInfo,
    SignaturePlan,
    TensorInfo,
)


def make(directory: Path) -> Plan:
    info = SignatureInfo(
        "serving_default",
        "tensorflow/serving/predict",
        (TensorInfo("x", "float", (None, 32), "x:0"), TensorInfo("any", "string", None)),
        (TensorInfo("y", "float", (None, 3)),),
        ("any",),
    )
    candidates = (
        Candidate("tensorflow", "function", "slower", "", Measured(402, 450.5, 300)),
        Candidate(
            "xla", "pjrt", "chosen", "", Measured(71, 80, 600), Agreement(3e-7, 1e-8, 8, 1.0), 0.2, memory_bytes=4096
        ),
        Candidate("foo", "bar", "rejected", "it died", agreement=Agreement(float("inf"), float("inf"), 1)),
    )
    bucket = BucketPlan(8, {"x": (8, 32)}, "xla", "pjrt", True, "s0/b8", candidates, "why")
    return Plan(
        fingerprint=Fingerprint("m", "{}", {"jaxlib": "0.10.2"}, {"cores": "2"}),
        device="cpu",
        loader="function",
        records="warmup",
        signatures=(SignaturePlan(info, True, "proven", True, "pays", (bucket,)),),
        log=("a line", "another"),
        created="2026-11-22T05:00:00+00:00",
        optimize_s=3,
        files=plan_files.checksums(directory),
    )


@pytest.fixture
def written(tmp_path: Path) -> tuple[Plan, Path]:
    (tmp_path / "s0" / "b8").mkdir(parents=True)
    (tmp_path / "s0" / "b8" / "executable.pjrt").write_bytes(b"machine code")
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    plan = make(tmp_path)
    plans.write(plan, tmp_path)
    return plan, tmp_path


def test_a_plan_reads_as_it_was_written(written):
    plan, directory = written
    assert plans.read(directory) == plan
    plan_files.verify(plan, directory)
    assert plan.engines() == {"xla"}
    assert list(plan.files) == ["s0/b8/executable.pjrt", "weights.bin"]


def test_damage_is_named(written):
    plan, directory = written
    weights = directory / "weights.bin"
    weights.write_bytes(bytes(999) + b"!")
    with pytest.raises(PlanError, match=r"weights\.bin: damaged: size and checksum are 1000:"):
        plan_files.verify(plan, directory)
    weights.unlink()
    with pytest.raises(PlanError, match=r"weights\.bin: missing"):
        plan_files.verify(plan, directory)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda d: d.update(format_version=99), "format_version: expected 1, received 99"),
        (lambda d: d.pop("loader"), "missing field 'loader'"),
        (lambda d: d.update(colour="red"), "unknown field 'colour'"),
        (lambda d: d.update(optimize_s="fast"), "optimize_s: expected float, received 'fast'"),
        (
            lambda d: d["signatures"][0]["buckets"][0].update(batch=True),
            r"signatures\[0\]\.buckets\[0\]\.batch: expected int, received True",
        ),
    ],
)
def test_a_plan_that_cannot_be_read_says_where(written, edit, text):
    _, directory = written
    data = json.loads((directory / plans.FILE_NAME).read_text())
    edit(data)
    (directory / plans.FILE_NAME).write_text(json.dumps(data))
    with pytest.raises(PlanError, match=text):
        plans.read(directory)


def test_half_a_plan_is_no_plan(tmp_path):
    with pytest.raises(PlanError, match="there is no plan here"):
        plans.read(tmp_path)
    (tmp_path / plans.FILE_NAME).write_text('{"format_version": 1, "log": [')
    with pytest.raises(PlanError, match="not valid JSON"):
        plans.read(tmp_path)


def test_a_plan_written_before_checksums_still_loads(written):
    plan, directory = written
    data = json.loads((directory / plans.FILE_NAME).read_text())
    del data["files"]
    (directory / plans.FILE_NAME).write_text(json.dumps(data))
    assert plans.read(directory) == dataclasses.replace(plan, files={})


def test_fingerprints_tell_their_differences():
    one = Fingerprint("m", "f", {"jaxlib": "1", "tfopt": "1"}, {"cores": "2"})
    other = Fingerprint("m", "g", {"jaxlib": "2"}, {"cores": "2"})
    assert one.differences(other) == ["flags: f != g", "versions.jaxlib: 1 != 2", "versions.tfopt: 1 != None"]
    assert one.differences(one) == []


@pytest.mark.parametrize(
    ("engine", "variant", "runs_on", "needs"),
    [
        ("tensorflow", "inline", "", True),
        ("xla", "jit", "", True),
        ("xla", "pjrt", "tensorflow", False),  # the cut is another bucket's
        ("host+xla", "pjrt", "python", False),
        ("host+xla", "pjrt", "tensorflow", True),
    ],
)
def test_a_plan_says_whether_a_server_needs_tensorflow(
    tmp_path: Path, engine: str, variant: str, runs_on: str, needs: bool
) -> None:
    plan = make(tmp_path)
    (signature,) = plan.signatures
    bucket = dataclasses.replace(signature.buckets[0], engine=engine, variant=variant)
    segments = (plans.Segment("host", runs_on, {}), plans.Segment("device", "", {}))
    signature = dataclasses.replace(signature, buckets=(bucket,), segments=segments)
    assert dataclasses.replace(plan, signatures=(signature,)).needs_tensorflow is needs
