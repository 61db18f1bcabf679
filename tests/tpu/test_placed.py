"""A converted model read back: what stands on the TPU, how it is batched, and the model without its TPU operations."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.tpu import convert, files, options, placed
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_optimizer.tpu.options import Sharding

pytestmark = pytest.mark.tensorflow

TEXT = """
disable_default_optimizations: true
tpu_functions { function_alias: "tpu_func" }
batch_options { num_batch_threads: 2 max_batch_size: 8 batch_timeout_micros: 5000 allowed_batch_sizes: [2, 8] }
xla_sharding_options { num_cores_per_replica: 2 }
"""


@pytest.fixture
def converted(tpu_model, tmp_path):
    convert.convert(ConversionJob(tpu_model("toy"), tmp_path / "tpu", options.parse(TEXT), {}, "none"))
    return tmp_path / "tpu"


def test_placement_batching_and_cores_are_read_back(converted) -> None:
    found = placed.read(files.read(converted).meta_graphs[0])
    assert found is not None
    (function,) = found.functions
    assert function.startswith("__inference_tpu_func_")
    assert found.functions[function] == Sharding(2, (), b"")
    assert found.signatures == {"raw", "serving_default"}
    assert {k: b.allowed_batch_sizes for k, b in found.batching.items()} == {"raw": (2, 8), "serving_default": (2, 8)}
    assert found.batching["raw"].batch_timeout_micros == 5000


def test_a_model_that_was_not_converted_is_none(tpu_model, tmp_path) -> None:
    assert placed.unplace(tpu_model("toy"), tmp_path / "plain") is None
    assert not (tmp_path / "plain").exists()


def test_without_its_tpu_operations_it_answers_as_before(converted, tpu_model, tmp_path) -> None:
    import tensorflow as tf

    assert placed.unplace(converted, tmp_path / "plain") is not None
    x = np.random.default_rng(0).standard_normal((3, 10)).astype(np.float32)
    answers = [tf.saved_model.load(str(m)).signatures["raw"](x=x)["y"] for m in (tmp_path / "plain", tpu_model("toy"))]
    np.testing.assert_allclose(*answers, rtol=1e-6)
