"""Split signatures on real engines: the same answers as TensorFlow's, without TensorFlow in the runner."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import enginecases
import numpy as np
import pytest
from tfopt_optimizer import plan as plans
from tfopt_optimizer import verify
from tfopt_optimizer.engines import calibration, split, split_convert
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.errors import NeedsConversion, NotLowerable
from tfopt_optimizer.split import program

pytestmark = pytest.mark.tensorflow

ENGINES = [("litert", "t1"), ("openvino", "f32"), ("xla", "pjrt")]


class Split:
    """A model's worker and converter, in this process."""

    def __init__(self, model_dir, plan_dir):
        self.place = Place(model_dir, plan_dir, ("serve",), 2, 2)
        self.worker, self.converter = split.Worker(), split_convert.Converter()
        self.worker.open(self.place)
        self.converter.open(self.place)

    def runner(self, target):
        for _ in range(3):
            try:
                self.prepared = self.worker.prepare(target)
                return self.worker.runner(target)
            except NeedsConversion:
                self.converter.prepare(target)
        raise AssertionError("it asks again and again")


def target(name, engine, variant, batch, key="serving_default"):
    found = enginecases.target(name, key, variant, batch)
    return Target(found.signature, variant, found.shapes, found.folder, batch, f"host+{engine}")


@pytest.fixture(scope="module")
def splits(savedmodel, tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = Split(savedmodel(name), tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.mark.parametrize(("engine", "variant"), ENGINES)
@pytest.mark.parametrize("name", ["tabular", "lookup"])
def test_every_engine_agrees_with_tensorflow_on_every_batch_size(splits, name, engine, variant):
    for batch in (1, 3):
        wanted = target(name, engine, variant, batch)
        runner = splits(name).runner(wanted)
        for seed in range(3):
            given = enginecases.feeds(wanted, seed)
            enginecases.agree(enginecases.plain(name, wanted, given), runner(given))


def test_the_cut_is_few_inputs_and_says_why(splits):
    split_model = splits("tabular")
    split_model.runner(target("tabular", "litert", "t1", 1))
    host, device = split.shown(split_model.place.plan_dir, "s0")
    assert (host.where, host.runs_on, host.kinds) == ("host", "python", {"LookupTableFindV2": 2, "StringLower": 1})
    whys = {o.op: o.why for o in host.operations}
    assert whys == {
        "LookupTableFindV2": "LookupTableFindV2 reads a table",
        "StringLower": "StringLower works on string tensors",
    }
    assert sorted((t.dtype, t.shape, len(t.parts)) for t in device.takes) == [
        ("float", (None, 3), 2),
        ("int32", (None, 2), 2),
    ]
    assert device.kinds["MatMul"] == 2


def test_outputs_may_be_asked_for_by_name(splits):
    wanted = target("lookup", "litert", "t1", 3)
    runner, given = splits("lookup").runner(wanted), enginecases.feeds(wanted)
    assert list(runner(given, ["index"])) == ["index"]


def test_a_signature_without_host_work_is_not_split(splits):
    with pytest.raises(NotLowerable, match="no operation has to stay on the host"):
        splits("cnn").runner(target("cnn", "litert", "t1", 1))


def test_a_signature_without_device_work_is_not_split(splits):
    with pytest.raises(NotLowerable, match="no part of it is worth a device"):
        splits("strings").runner(target("strings", "litert", "t1", 1))


OPEN = """
import sys, json, pickle
from pathlib import Path
from tfopt_optimizer.engines.split import Opener
place, target, feeds = pickle.load(open(sys.argv[1], "rb"))
runner = Opener(place, None).runner(target, print)
print(json.dumps([float(v) for v in runner(feeds)["scores"].ravel()]))
print(json.dumps("tensorflow" in sys.modules))
"""


def test_a_server_opens_it_from_the_artifact_alone_without_tensorflow(splits, tmp_path):
    import pickle

    made, wanted = splits("tabular"), target("tabular", "litert", "t1", 3)
    runner, given = made.runner(wanted), enginecases.feeds(wanted, 5)
    artifact = made.prepared.artifact
    shutil.copytree(made.place.plan_dir / artifact, tmp_path / artifact)
    place = dataclasses.replace(made.place, plan_dir=tmp_path, model_dir=tmp_path / "nowhere")
    call = tmp_path / "call.pickle"
    call.write_bytes(pickle.dumps((place, dataclasses.replace(wanted, folder=artifact), given)))
    done = subprocess.run([sys.executable, "-c", OPEN, str(call)], capture_output=True, text=True, check=True)
    scores, loaded = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    np.testing.assert_allclose(scores, runner(given)["scores"].ravel(), rtol=1e-6)
    assert not loaded


@pytest.mark.parametrize(
    ("engine", "exact", "variant"), [("litert", "t1", "t2+int8-weights"), ("openvino", "f32", "int8")]
)
def test_device_segments_are_compressed_and_calibrated_on_what_the_host_makes_of_records(
    splits, engine, exact, variant
):
    made, wanted = splits("tabular"), target("tabular", engine, variant, 3)
    records = [enginecases.feeds(wanted, seed) for seed in range(6)]
    calibration.write(made.place.plan_dir / "s0", records, verify.lossless(0.1))
    made.runner(target("tabular", engine, exact, 3))
    runner = made.runner(wanted)
    given = enginecases.feeds(wanted, 9)
    expected, found = enginecases.plain("tabular", wanted, given)["scores"], runner(given)["scores"]
    assert 0 < np.abs(found - expected).max() < 0.05
    home = made.place.plan_dir / f"s0/split-{engine}"
    seen = calibration.read(home / "d1/s/calibration/feeds.npz")
    assert [sorted(a.shape for a in call.values()) for call in seen] == [[(3, 2), (3, 3)]] * 6

    models = {f.name for f in (home / "d1/s").iterdir()}
    own = {m for m in models if m.startswith(engine)}
    assert len(own) == 2
    assert 0 < made.prepared.artifact_bytes < sum(f.stat().st_size for f in home.rglob("*") if f.is_file())
    bucket = plans.BucketPlan(3, wanted.shapes, f"host+{engine}", variant, True, f"s0/split-{engine}", (), "")
    shutil.copytree(home, home.parent / "copy")
    split.trim(made.place.plan_dir, [dataclasses.replace(bucket, artifact="s0/copy")])
    kept = home.parent / "copy"
    assert [len(list(kept.glob(g))) for g in ("ready-*", "d1/s/*", "split.json")] == [1, 1, 1]
    shutil.rmtree(kept)


def test_a_program_is_read_as_it_was_written(splits, tmp_path):
    made = splits("tabular")
    made.runner(target("tabular", "litert", "t1", 1))
    found = program.read(made.place.plan_dir / "s0/split")
    program.write(found, tmp_path)
    assert program.read(tmp_path) == found


def test_calls_at_the_same_time_do_not_mix(splits):
    wanted = target("tabular", "litert", "t1", 3)
    runner = splits("tabular").runner(wanted)
    given = [enginecases.feeds(wanted, seed) for seed in range(4)]
    expected = [runner(f)["scores"].copy() for f in given]

    def call(i):
        np.testing.assert_array_equal(runner(given[i])["scores"], expected[i])

    enginecases.hammer([lambda i=i: call(i) for i in range(4)])
