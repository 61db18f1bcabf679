"""One model over several devices. The devices are host devices in disguise (tests/standin), seen by whole processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paced import PLAIN_US, paced
from tfopt_optimizer import sharding
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize

STANDIN = str(Path(__file__).parents[1] / "standin")


@pytest.mark.parametrize(
    ("shape", "itemsize", "parts", "axis", "text"),
    [
        ((256, 512), 4, 4, 1, "{devices=[1,4]<=[4]}"),
        ((1024, 512), 4, 2, 0, "{devices=[2,1]<=[2]}"),
        ((512, 512), 4, 2, 1, "{devices=[1,2]<=[2]}"),
        ((513, 510), 4, 2, 1, "{devices=[1,2]<=[2]}"),
        ((30000,), 4, 4, 0, "{devices=[4]<=[4]}"),
        ((3, 3, 64, 65), 4, 4, 2, "{devices=[1,1,4,1]<=[4]}"),
        ((513, 511), 4, 2, None, "{replicated}"),
        ((64, 64), 4, 2, None, "{replicated}"),  # too small
        ((), 4, 2, None, "{replicated}"),
        ((256, 512), 4, 1, None, "{replicated}"),
    ],
)  # fmt: skip
def test_a_large_weight_is_cut_along_its_largest_dimension_that_divides(shape, itemsize, parts, axis, text):
    found = sharding.axis(shape, int(np.prod(shape)) * itemsize, parts)
    assert found == axis
    assert sharding.text(len(shape), found, parts) == text


SERVE = """
import json, sys
import numpy as np
from pathlib import Path
from tfopt_optimizer import plan as plans
from tfopt_optimizer.device import Device
from tfopt_optimizer.servable import Servable
model, folder, rows = Path(sys.argv[1]), Path(sys.argv[2]), np.load(sys.argv[3])
servable = Servable.open(model, folder, plans.read(folder), device=Device("gpu", "cpu", 4, per_replica=2))
runner = servable.signatures["serving_default"]
found = [runner.run({"x": rows})["y"] for _ in range(3)]
bucket = runner.bucket_for(4)
replicas = bucket.run._replicas
print(json.dumps({
    "found": [f.tolist() for f in found],
    "engine": bucket.engine,
    "places": [sorted(str(d) for d in r.weights[0].sharding.device_set) for r in replicas],
    "bytes": [[w.nbytes, w.addressable_shards[0].data.nbytes] for w in replicas[0].weights],
    "tensorflow": "tensorflow" in sys.modules,
    "notes": servable.notes,
}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tanh(x W + b) V, whose W and V take hundreds of kilobytes."""
    import tensorflow as tf

    random, folder = np.random.default_rng(4), tmp_path_factory.mktemp("wide") / "1"
    module = tf.Module()
    module.w, module.b, module.v = (
        tf.Variable(random.standard_normal(shape).astype(np.float32) / 16) for shape in ((256, 512), (512,), (512, 64))
    )

    @tf.function(input_signature=[tf.TensorSpec([None, 256], tf.float32, name="x")])
    def serve(x):
        return {"y": tf.tanh(x @ module.w + module.b) @ module.v}

    tf.saved_model.save(module, str(folder), signatures=serve)
    return folder


@pytest.mark.tensorflow
def test_a_plan_is_made_and_served_with_its_weights_in_parts(monkeypatch, model, tmp_path):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([STANDIN, *sys.path]))
    monkeypatch.setenv("STANDIN_DEVICES", "4")
    lines: list[str] = []
    rows = np.random.default_rng(5).standard_normal((5, 256)).astype(np.float32)
    flags = OptimizerFlags(
        device="gpu", device_kind="cpu", devices_per_replica=2, allowed_batch_sizes=(1, 4), engines=("xla",)
    )
    job = OptimizeJob(model, tmp_path / "plan", ("serve",), flags, {"serving_default": ({"x": rows},)}, "warmup")
    with paced(lambda label: PLAIN_US / 10 if label == "xla/gpu" else PLAIN_US):
        made = optimize(job, lines.append)
    assert {(b.engine, b.variant) for b in made.signatures[0].buckets} == {("xla", "gpu")}, lines

    np.save(tmp_path / "x.npy", rows)
    command = [sys.executable, "-c", SERVE, str(model), str(job.plan_dir), str(tmp_path / "x.npy")]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert told["engine"] == "xla/gpu"
    assert told["places"] == [["cpu:0", "cpu:1"], ["cpu:2", "cpu:3"]]
    assert told["bytes"] == [[524_288, 262_144], [2_048, 2_048], [131_072, 65_536]]
    assert (told["tensorflow"], told["notes"]) == (False, [])
    from tfopt_optimizer.servable import Servable

    plain = Servable.open(model)
    expected = plain.signatures["serving_default"].run({"x": rows})["y"]
    plain.close()
    for found in told["found"]:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
