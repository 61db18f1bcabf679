"""What makes a plan invalid, and what does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tfopt_optimizer.fingerprint import digest, fingerprint
from tfopt_optimizer.flags import OptimizerFlags

FLAGS = OptimizerFlags(allow_precompilation=True)
SAMPLES = {"serving_default": ({"x": np.ones([2, 3], np.float32), "s": np.array([b"a", b"bc"], dtype=object)},)}


@pytest.fixture
def model(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "variables" / "data").write_bytes(b"weights")
    (tmp_path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"records")
    return tmp_path


def take(model, flags=FLAGS, tags=("serve",), samples=SAMPLES):
    return fingerprint(model, flags, tags, samples)


def test_the_same_job_has_the_same_fingerprint_wherever_the_model_lies(model, tmp_path_factory):
    first = take(model)
    other = tmp_path_factory.mktemp("elsewhere") / "1"
    model.rename(other)
    assert take(other) == first
    assert digest(take(other)) == digest(first)


def test_weights_flags_tags_and_records_count(model):
    first = take(model)
    assert first.differences(take(model, dataclasses.replace(FLAGS, use_tfrt=False)))[0].startswith("flags:")
    assert first.differences(take(model, tags=("serve", "gpu")))[0].startswith("flags:")
    changed = {"serving_default": ({**SAMPLES["serving_default"][0], "s": np.array([b"ab", b"c"], dtype=object)},)}
    assert first.differences(take(model, samples=changed))[0].startswith("model:")
    (model / "variables" / "data").write_bytes(b"WEIGHTS")
    assert first.differences(take(model))[0].startswith("model:")


def test_the_warmup_file_counts_only_by_its_records(model):
    first = take(model)
    (model / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"the same records in another order of bytes")
    assert take(model) == first


def test_versions_and_hardware_are_named(model):
    found = take(model)
    assert {"tfopt", "jaxlib", "numpy", "plan", "python"} <= set(found.versions)
    assert set(found.hardware) == {"machine", "processor", "features", "cores"}
