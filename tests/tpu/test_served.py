"""A converted model on the server: the original's answers, its placement in the cut, its batching in the queue."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.tpu import convert, files, options, placed, runnable
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_server import converted
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.executor import Executor
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadOptions, Source, prepare
from tfopt_warmup import records

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("optimized_here")]
ROWS = np.random.default_rng(3).standard_normal((4, 10)).astype(np.float32)
TEXT = np.array([",".join(f"{v:.4f}" for v in row).encode() for row in ROWS], object)
OPTIONS = """
disable_default_optimizations: true
tpu_functions { function_alias: "tpu_func" }
batch_options { num_batch_threads: 2 max_batch_size: 8 batch_timeout_micros: 3000 allowed_batch_sizes: [2, 4]
  max_enqueued_batches: 7 }
"""
ASKED = BatchingParameters(
    max_batch_size=8, batch_timeout_micros=3000, max_enqueued_batches=7, num_batch_threads=2,
    allowed_batch_sizes=(2, 4),
    enable_large_batch_splitting=True, max_execution_batch_size=4,
)  # fmt: skip
XLA = OptimizerFlags(allow_precompilation=True, engines=("xla",))


@pytest.fixture(scope="module")
def model(tpu_model, tmp_path_factory):
    """toy, converted, with warmup records of its string signature."""
    folder = tmp_path_factory.mktemp("converted") / "1"
    convert.convert(ConversionJob(tpu_model("toy"), folder, options.parse(OPTIONS), {}, "none"))
    logs = [records.predict_log("m", "serving_default", {"text": TEXT[n : n + 2]}) for n in range(3)]
    logs += [records.predict_log("m", "raw", {"x": ROWS[n : n + 2]}) for n in range(3)]
    records.write(records.path_in(folder), logs)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="module")
def loaded(model, cache):
    found = prepare(Source("m", 1, model), LoadOptions(XLA, cache), Metrics())
    yield found
    found.servable.close()


@pytest.fixture(scope="module")
def expected(tpu_model):
    import tensorflow as tf

    original = tf.saved_model.load(str(tpu_model("toy"))).signatures
    return {
        "serving_default": original["serving_default"](text=tf.constant(TEXT.tolist()))["y"].numpy(),
        "raw": original["raw"](x=ROWS)["y"].numpy(),
    }


def test_it_gives_the_originals_answers(loaded, expected):
    for key, feeds in (("serving_default", {"text": TEXT}), ("raw", {"x": ROWS})):
        found = loaded.servable.signatures[key].run(feeds)["y"]
        np.testing.assert_allclose(found, expected[key], rtol=1e-4, atol=1e-5)
        assert loaded.servable.signatures[key].buckets == (2, 4)
    assert loaded.warning == ""


def test_requests_are_batched_as_its_batch_op_says(loaded, expected):
    for lane in loaded.lanes.values():
        assert lane.rule.merge
        assert (lane.rule.wait_s, lane.rule.limit) == (0.003, 4)
    executor, lane = Executor(Metrics(), 1), loaded.lanes["raw"]
    answers = [executor.start(lane, {"x": ROWS[n : n + 1]}) for n in range(4)]
    assert all(isinstance(a, Future) for a in answers)
    found = [a.result(20) for a in answers]
    np.testing.assert_allclose(np.concatenate([f.outputs["y"] for f in found]), expected["raw"], rtol=1e-4, atol=1e-5)
    assert max(f.timings.batch for f in found) > 1
    executor.finish(10)


def test_what_it_places_is_the_device_part(loaded):
    signature = loaded.plan.signature("serving_default")
    device = [s for s in signature.segments if s.where == "device"]
    assert [dict(s.kinds) for s in device] == [{"MatMul": 2, "AddV2": 1, "Relu": 1, "EnsureShape": 2}]
    hosts = [o for s in signature.segments if s.where == "host" for o in s.operations]
    assert {o.op for o in hosts} == {"StringSplitV2", "StridedSlice", "RaggedTensorToTensor", "StringToNumber"}
    assert {o.why for o in hosts} == {"the converted model does not place it"}


def test_the_operators_batching_comes_first(model, cache):
    own = BatchingParameters(max_batch_size=4, allowed_batch_sizes=(4,))
    asked = []

    def nobody(job, *_):
        asked.append(job.flags.allowed_batch_sizes)
        raise OptimizeError("not here")

    found = prepare(Source("m", 1, model), LoadOptions(XLA, cache, parameters=own), Metrics(), nobody)
    found.servable.close()
    assert (asked, found.parameters) == ([(4,)], own)


def test_as_it_is_the_models_own_batch_ops_go_on(model, cache, expected):
    found = prepare(Source("m", 1, model), LoadOptions(OptimizerFlags(disable_optimizer=True), cache), Metrics())
    np.testing.assert_allclose(found.servable.signatures["raw"].run({"x": ROWS})["y"], expected["raw"], atol=1e-5)
    found.servable.close()
    place, _ = runnable.of(model, cache, batched=True)
    assert b"BatchFunction" in (place / "saved_model.pb").read_bytes()


def test_what_it_says_is_read_once_and_follows_the_model(model, cache, tmp_path):
    lines: list[str] = []
    found = converted.of(model, cache, lines.append, as_it_is=False)
    assert found.batching == {"raw": ASKED, "serving_default": ASKED}
    assert found.sizes == (2, 4)
    assert found.report is not None
    assert found.report.link[0].rows == 2
    assert [line.split(":")[0] for line in lines] == ["converted model"] * 3
    assert converted.of(model, cache, lines.append, as_it_is=False).folder == found.folder
    assert sorted(p.name for p in found.folder.parent.iterdir() if ".part" in p.name) == []
    assert placed.read(files.read(found.folder).meta_graphs[0]) is None


def test_a_damaged_report_costs_a_line(model, cache, tmp_path):
    from tfopt_optimizer.tpu import report

    files.link(model, files.read(model), tmp_path / "copy")
    (tmp_path / "copy" / "assets.extra").unlink()
    (tmp_path / "copy" / "assets.extra").mkdir()
    (tmp_path / "copy" / report.FILE).write_text("[]")
    lines: list[str] = []
    found = converted.of(tmp_path / "copy", cache, lines.append, as_it_is=False)
    assert found.batching
    assert found.report is None
    assert lines[-1].startswith("the report of the conversion is not shown: ")


def test_a_cache_that_cannot_be_written_costs_a_line_and_one_copy(model, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / "file").write_text("")
    lines: list[str] = []
    first, second = (converted.of(model, tmp_path / "file", lines.append, as_it_is=False) for _ in range(2))
    assert first.folder == second.folder != model
    assert "cannot be written" in lines[0]
    (place,) = temporary.iterdir()
    assert place.stat().st_mode & 0o777 == 0o700
    assert first.folder.is_relative_to(place)


@pytest.mark.parametrize("spoilt", ["writable", "link", "file"])
def test_nothing_is_loaded_from_a_temporary_folder_that_others_could_write_to(tmp_path, monkeypatch, spoilt):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = converted.shelter()
    assert converted.shelter() == place
    place.rmdir()
    if spoilt == "writable":
        place.mkdir()
        place.chmod(0o777)
    elif spoilt == "link":
        (tmp_path / "theirs").mkdir(0o700)
        place.symlink_to(tmp_path / "theirs")
    else:
        place.touch()
    assert converted.shelter() != place


def test_other_models_are_served_from_where_they_are(tpu_model, cache):
    assert converted.of(tpu_model("toy"), cache, pytest.fail, as_it_is=False) == converted.Model(tpu_model("toy"))


def test_weights_behind_links_are_part_of_a_fingerprint(model, cache, tmp_path):
    from tfopt_optimizer.fingerprint import fingerprint

    place, _ = runnable.of(model, cache)
    before = fingerprint(place, XLA, ("serve",), {})
    (data,) = model.glob("variables/variables.data-*")
    content = data.read_bytes()
    try:
        data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert fingerprint(place, XLA, ("serve",), {}).model != before.model
    finally:
        data.write_bytes(content)
