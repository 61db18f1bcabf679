"""The gate on a trained detector: real quantized models, planted ones, and what is served of those that passed."""

from __future__ import annotations

import dataclasses
import re

import detectors
import numpy as np
import pytest
from paced import PLAIN_US, paced
from tfopt_optimizer import testing, verify
from tfopt_optimizer.engines import table
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.servable import Servable

pytestmark = pytest.mark.tensorflow
PLANTED = ("OneScale", "ScaleOfEachColumn", "OverConfident")
# What a quantizer that knows nothing of boxes reaches on a model of 70,000 weights.
GATE = {"lossy_mean_rel_error": 0.006, "lossy_max_rel_error": 0.06, "lossy_top1": 0.9}


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "1"
    detectors.build(folder)
    return folder


def tournament(detector, plan_dir, entrants, fastest, **flags):
    images, _, _ = detectors.pictures(48, 7)
    samples = {"serving_default": tuple({"image": images[i : i + 1]} for i in range(len(images)))}
    flags = OptimizerFlags(allow_compression=True, allowed_batch_sizes=(4,), optimize_budget_s=600.0, **flags)
    job = OptimizeJob(detector, plan_dir, ("serve",), flags, samples, "warmup")
    with paced(lambda label: PLAIN_US / 10 if label == fastest else PLAIN_US / 2):
        plan = optimize(job, lambda _: None, entrants=entrants)
    return plan, flags


def lossy(name):
    return dataclasses.replace(testing.planted(name), precision="int8")


def test_the_model_finds_what_it_was_trained_on(detector):
    servable = Servable.open(detector)
    images, boxes, kinds = detectors.pictures(64, 99)
    found = servable.signatures["serving_default"].run({"image": images})["detections"]
    best = found[np.arange(64), found[:, :, 4:].max(-1).argmax(1)]
    assert np.mean(best[:, 4:].argmax(1) == kinds) > 0.9
    assert np.abs(best[:, :4] - boxes).mean() < 60  # of 640
    servable.close()


def test_wrong_columns_are_refused_by_name_and_right_ones_pass(detector, tmp_path):
    plan, _ = tournament(detector, tmp_path / "plan", [lossy(n) for n in PLANTED], "none", **GATE)
    (bucket,) = plan.signature("serving_default").buckets
    found = {c.engine: c for c in bucket.candidates if c.variant == "planted"}
    assert found["scaleofeachcolumn"].status in ("chosen", "slower"), found["scaleofeachcolumn"].reason
    off = r"output 'detections': column [4-6] of axis 2 is off by (1|0\.\d+) of its own largest value, above 0\.5"
    assert re.fullmatch(off, found["onescale"].reason)
    # No score is off by half, and the mean of all is nothing beside 640 pixels.
    mean = r"output 'detections': column [4-6] of axis 2 is off by 0\.09 of its own largest value on the average, .*"
    assert re.fullmatch(mean, found["overconfident"].reason)


@pytest.mark.slow
@pytest.mark.parametrize("fastest", ["litert/t1+int8-weights", "litert/t1+int8-dynamic", "openvino/int8-weights"])
def test_what_is_served_in_8_bits_agrees_on_pictures_that_no_record_had(detector, tmp_path, fastest):
    engine, _, variant = fastest.partition("/")
    everything, _ = table.entrants(OptimizerFlags(allow_compression=True))
    entrants = [
        e for e in everything if (e.engine, e.variant) in ((engine, variant), ("litert", "t1"), ("openvino", "f32"))
    ]
    plan, flags = tournament(detector, tmp_path / "plan", entrants, fastest, **GATE)
    (bucket,) = plan.signature("serving_default").buckets
    assert (bucket.engine, bucket.variant) == (engine, variant), bucket.why
    servable = Servable.open(detector, tmp_path / "plan", plan)
    runner = servable.signatures["serving_default"]
    images, _, _ = detectors.pictures(40, 1234)
    expected, found = runner.run_reference({"image": images}), runner.run({"image": images})
    verdict = verify.check(expected, found, flags.lossy())
    assert verdict.reason == ""
    assert verdict.agreement.max_rel_error > 1e-4  # it is the one in 8 bits
    assert np.abs(expected["scores"] - found["scores"]).max() < 0.06
    servable.close()
