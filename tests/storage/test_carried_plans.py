"""The plans that lie in a bucket's model, read without bringing the model."""

from __future__ import annotations

import json
import logging

import pytest
from bucketstub import Bucket
from tfopt_server.beam import carried_plans

PLAN = {
    "fingerprint": {"model": "", "flags": "", "versions": {}, "hardware": {}}, "device": "cpu", "loader": "session",
    "records": "none", "signatures": [], "log": [], "created": "", "optimize_s": 1.5, "format_version": 1,
}  # fmt: skip


@pytest.mark.parametrize("cloud", ["gs", "s3", "az"])
def test_the_plans_of_every_version_are_read_and_nothing_else(cloud: str, bucket: Bucket) -> None:
    folder = "models/m/1/assets.extra/tfopt/abc"
    bucket.objects[f"{folder}/plan.json"] = json.dumps(PLAN).encode()
    bucket.objects[f"{folder}/s0/plan.json"] = b"an artifact"
    bucket.objects["models/m/1/saved_model.pb"] = b"graph" * 1000
    for place in ("models/m", "models/m/1"):
        (plan,) = carried_plans.read(f"{cloud}://bucket/{place}")
        assert plan.optimize_s == 1.5
    assert bucket.sent == 2 * len(bucket.objects[f"{folder}/plan.json"])


def test_a_bucket_that_is_away_is_said(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    bucket.denied = True
    with caplog.at_level(logging.WARNING):
        assert list(carried_plans.read("gs://bucket/models/m")) == []
    assert "the plans of gs://bucket/models/m cannot be read here" in caplog.text
