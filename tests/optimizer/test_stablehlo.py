"""Weights that are constants of the graph: stored once for all buckets, and answers that stay right."""

from __future__ import annotations

import numpy as np
import pytest
from enginecases import save
from tfopt_optimizer import saved_model
from tfopt_optimizer.engines import artifacts, stablehlo, weights, xla
from tfopt_optimizer.engines.base import Place, Target

pytestmark = pytest.mark.tensorflow
WEIGHTS = np.random.default_rng(4).standard_normal((256, 128)).astype(np.float32)


def test_constants_are_stored_once_for_all_buckets(tmp_path):
    save(tmp_path / "model", lambda tf, module, x: {"y": tf.nn.relu(tf.matmul(x, WEIGHTS))}, x=([None, 256], "float32"))
    place = Place(tmp_path / "model", tmp_path / "plan", ("serve",), 2, 2)
    place.plan_dir.mkdir()
    lowerer, worker = stablehlo.Lowerer(), xla.Worker()
    lowerer.open(place)
    worker.open(place)
    (info,) = saved_model.read_signatures(tmp_path / "model")
    for rows in (2, 5):
        wanted = Target(info, "pjrt", {"x": (rows, 256)}, f"s0/b{rows}", rows)
        lowerer.prepare(wanted)
        worker.prepare(wanted)
        x = np.random.default_rng(rows).standard_normal((rows, 256)).astype(np.float32)
        np.testing.assert_allclose(worker.runner(wanted)({"x": x})["y"], np.maximum(x @ WEIGHTS, 0), atol=1e-4)
    (stored,) = weights.read(place.plan_dir)
    assert np.array_equal(stored, WEIGHTS)
    for rows in (2, 5):
        folder = place.plan_dir / "s0" / f"b{rows}"
        assert artifacts.read_meta(folder).weights == (0,)
        assert (folder / artifacts.MODULE).stat().st_size < WEIGHTS.nbytes / 10
