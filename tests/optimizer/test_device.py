"""The device as a setting. The accelerators here are host devices in disguise (tests/standin), seen by whole processes;
what only CUDA or a TPU can show is not shown: their compilers, their memory, their speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax._src.interpreters import mlir
from jaxlib.mlir.dialects import stablehlo
from paced import PLAIN_US, paced
from tfopt_optimizer import device
from tfopt_optimizer.device import Device, Found
from tfopt_optimizer.engines import modules, pjrt, probe, table
from tfopt_optimizer.fingerprint import fingerprint
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize

STANDIN = str(Path(__file__).parents[1] / "standin")
GPU = OptimizerFlags(device="gpu", device_kind="cpu", allowed_batch_sizes=(1, 4), engines=("xla",))


@pytest.fixture
def standin(monkeypatch):
    """Processes started from here on find two gpus."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([STANDIN, *sys.path]))


class TestFinding:
    def test_a_gpu_that_is_there(self, standin):
        assert device.find("gpu") == Found(Device("gpu", "cpu", 2), {})

    def test_nothing_is_looked_for_on_a_cpu(self, monkeypatch):
        monkeypatch.setattr(device, "_ask", lambda *_: pytest.fail("a process was started"))
        assert device.find("cpu") == Found(Device(), {})

    def test_what_is_not_there_is_named_and_the_cpu_serves(self):
        assert device.find("gpu") == Found(Device(), {"gpu": "no gpu is visible"})

    def test_auto_takes_what_is_there_the_gpu_first(self, monkeypatch):
        there = {"gpu": {"missing": "no gpu"}, "tpu": {"kind": "TPU v5 lite", "count": 4}}
        monkeypatch.setattr(device, "_ask", lambda name, _: there[name])
        assert device.find("auto") == Found(Device("tpu", "TPU v5 lite", 4), {"gpu": "no gpu"})

    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            ("import os, sys; print('terminate called', file=sys.stderr, flush=True); os.abort()",
             "its runtime ended with -6: terminate called"),
            ("import time; time.sleep(60)", "its runtime gave no answer within 0.5 s"),
        ],
    )  # fmt: skip
    def test_a_runtime_that_aborts_or_hangs_harms_nobody(self, monkeypatch, tmp_path, script, reason):
        program = tmp_path / "python"
        program.write_text(f"#!{sys.executable}\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        assert device.find("tpu", timeout_s=0.5 if "sleep" in script else 20).missing == {"tpu": reason}

    def test_a_runtime_that_is_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "jax", None)
        assert str(probe.look("gpu")["missing"]).startswith("jax is not installed (")


@pytest.mark.parametrize(
    ("wanted", "before", "after"),
    [
        (Device("gpu"), {}, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
        (Device("gpu"), {"XLA_PYTHON_CLIENT_PREALLOCATE": "true", "XLA_CLIENT_MEM_FRACTION": ".5"},
         {"XLA_PYTHON_CLIENT_PREALLOCATE": "true", "XLA_CLIENT_MEM_FRACTION": ".5"}),
        (Device("gpu", memory_fraction=0.3), {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"},
         {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_CLIENT_MEM_FRACTION": "0.3",
          "XLA_PYTHON_CLIENT_MEM_FRACTION": ""}),
        (Device("gpu", memory_fraction=0.3, reserve=True), {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
         {"XLA_PYTHON_CLIENT_PREALLOCATE": "true", "XLA_CLIENT_MEM_FRACTION": "0.3",
          "XLA_PYTHON_CLIENT_MEM_FRACTION": ""}),
        (Device(), {}, {}),
    ],
)  # fmt: skip
def test_memory_is_taken_as_the_flag_or_the_operators_variables_say(monkeypatch, wanted, before, after):
    monkeypatch.setattr(os, "environ", dict(before))
    pjrt._share_memory(wanted)
    assert os.environ == after


def variants(**flags):
    return [(e.variant, e.precision) for e in table.entrants(OptimizerFlags(engines=("xla",), **flags))[0]]


def test_an_accelerator_needs_no_other_flag_and_its_own_rounding_does():
    assert variants() == []
    assert variants(allow_precompilation=True) == [("pjrt", "")]
    assert variants(device="gpu") == variants(device="gpu", allow_precompilation=True) == [("gpu", "")]
    assert variants(device="gpu", allow_compression=True) == [("gpu", ""), ("gpu+tf32", "tf32")]
    assert variants(device="tpu", allow_compression=True) == [("tpu", ""), ("tpu+bf16-products", "bf16-products")]
    engines = {e.engine for e in table.entrants(OptimizerFlags(device="gpu"))[0]}
    assert {"litert", "openvino", "xla"} <= engines


def test_a_plan_fits_one_kind_of_device_only(savedmodel):
    prints = [
        fingerprint(savedmodel("half_plus_two"), flags, ("serve",), {})
        for flags in (OptimizerFlags(), GPU, OptimizerFlags(**{**vars(GPU), "device_kind": "NVIDIA H100"}))
    ]
    assert "hardware.device: gpu cpu != gpu NVIDIA H100" in prints[1].differences(prints[2])
    assert "hardware.device: None != gpu cpu" in prints[0].differences(prints[1])


PRODUCT = """
func.func public @main(%x: tensor<2x3xf32>, %w: tensor<3x4xf32>) -> tensor<2x4xf32> {
  %y = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x3xf32>, tensor<3x4xf32>)
       -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}
"""


def text_of(module):
    with mlir.make_ir_context() as context:
        return str(stablehlo.deserialize_portable_artifact(context, module))


def test_an_accelerators_module_keeps_float32_products_and_gives_its_inputs_away():
    with mlir.make_ir_context():
        module = stablehlo.serialize_portable_artifact_str(PRODUCT, stablehlo.get_current_version())
    exact, rounding = (text_of(modules.for_accelerator(module, 1, exact=e)) for e in (True, False))
    assert "precision = [HIGHEST, HIGHEST]" in exact
    assert "HIGHEST" not in rounding
    for text in (exact, rounding):
        assert "%arg0: tensor<2x3xf32> {jax.buffer_donor = true}, %arg1: tensor<3x4xf32>)" in text


SERVE = """
import json, sys
import numpy as np
from pathlib import Path
from tfopt_optimizer import plan as plans
from tfopt_optimizer.device import Device
from tfopt_optimizer.servable import Servable
model, folder, rows = Path(sys.argv[1]), Path(sys.argv[2]), np.array(json.loads(sys.argv[3]), np.float32)
servable = Servable.open(model, folder, plans.read(folder), device=Device("gpu", "cpu", int(sys.argv[4])))
runner = servable.signatures["serving_default"]
given = rows.copy()
found = [runner.run({"features": rows}) for _ in range(3)]
bucket = runner.bucket_for(4)
print(json.dumps({
    "found": [next(iter(f.values())).tolist() for f in found],
    "engine": bucket.engine,
    "places": [[str(w.device) for w in r.weights[:1]] for r in bucket.run._replicas],
    "unchanged": bool((rows == given).all()),
    "tensorflow": "tensorflow" in sys.modules,
    "notes": servable.notes,
}))
"""


@pytest.mark.tensorflow
def test_a_plan_is_made_on_a_gpu_and_served_by_all_of_them_in_turn(standin, mlp, tmp_path):
    lines: list[str] = []
    samples = {"serving_default": ({"features": mlp.x},)}
    job = OptimizeJob(mlp.model, tmp_path / "plan", ("serve",), GPU, samples, "warmup")
    with paced(lambda label: PLAIN_US / 10 if label == "xla/gpu" else PLAIN_US):
        made = optimize(job, lines.append)
    assert (made.device, made.device_kind, made.where) == ("gpu", "cpu", "gpu (cpu)")
    assert {(b.engine, b.variant) for b in made.signatures[0].buckets} == {("xla", "gpu")}, lines
    command = [sys.executable, "-c", SERVE, str(mlp.model), str(job.plan_dir), json.dumps(mlp.x.tolist()), "2"]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert told["engine"] == "xla/gpu"
    assert told["places"] == [["cpu:0"], ["cpu:1"]]
    assert (told["unchanged"], told["tensorflow"], told["notes"]) == (True, False, [])
    from tfopt_optimizer.servable import Servable

    plain = Servable.open(mlp.model)
    (expected,) = plain.signatures["serving_default"].run({"features": mlp.x}).values()
    plain.close()
    for found in told["found"]:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
