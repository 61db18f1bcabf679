"""Two runs on equal inputs make equal plans, and equal files for what they chose."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
import savedmodels
from tfopt_optimizer import plan as plans

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
# Of the machine and the moment: they decide nothing here, where the times of calls are given.
MOMENTARY = {"created", "optimize_s", "compile_s", "memory_bytes"}

# Hashes of strings differ between the two processes, and with them the order of every set.
RUN = """
import sys, pathlib
import test_split_plan as case
from paced import paced
from tfopt_optimizer.engines import table
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize

model, folder, wanted = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
flags = OptimizerFlags(
    allow_precompilation=True, engines=("litert", "openvino", "xla"), allowed_batch_sizes=(1, 4),
    optimize_budget_s=600.0,
)
samples = {"serving_default": tuple(case.record(rows) for rows in (1, 4, 7))}
job = OptimizeJob(model, folder, ("serve",), flags, samples, "warmup")
whole = [e for e in table.entrants(flags)[0] if e.variant in ("t1", "f32", "pjrt")]
with paced(lambda label: 10.0 if label == wanted else 20.0 + len(label)):
    optimize(job, lambda _: None, entrants=[*whole, *table.splits(whole)])
"""


def made(folder, wanted, seed):
    path = os.pathsep.join(["tests", "tests/optimizer", "."])
    subprocess.run(
        [sys.executable, "-c", RUN, str(savedmodels.path("tabular")), str(folder), wanted],
        env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
        check=True,
        timeout=900,
    )
    return plans.read(folder)


def lasting(value):
    """Of XLA's executables the length alone: its code generator does not write the same bytes twice."""
    if isinstance(value, dict):
        short = {key: each.partition(":")[0] if key.endswith(".pjrt") else lasting(each) for key, each in value.items()}
        return {key: each for key, each in short.items() if key not in MOMENTARY}
    return [lasting(each) for each in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("wanted", ["host+xla/pjrt", "host+openvino/f32", "host+litert/t1"])
def test_equal_inputs_make_equal_plans_and_files(savedmodel, tmp_path, wanted):
    """Paths differ, hash seeds differ, processes differ."""
    savedmodel("tabular")
    first, second = made(tmp_path / "a", wanted, 1), made(tmp_path / "elsewhere" / "b", wanted, 2)
    assert {f"{b.engine}/{b.variant}" for b in first.signatures[0].buckets} == {wanted}
    assert lasting(dataclasses.asdict(first)) == lasting(dataclasses.asdict(second))
