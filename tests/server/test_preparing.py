"""One version from its folder to a warmed servable, with real SavedModels and a real optimizer process."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from tfopt_optimizer import plan as plans
from tfopt_optimizer.engines import compilations
from tfopt_optimizer.errors import OptimizeError, OutOfMemory
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.servable import Servable
from tfopt_server.batching_parameters import BatchingParameters, BatchingParametersError
from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import Code
from tfopt_server.executor import Executor
from tfopt_server.lifecycle import State
from tfopt_server.loading import Loader, ModelConfig, Schedule
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import (
    LoadError,
    LoadOptions,
    Source,
    count_compilations,
    dropped_for,
    parameters_for,
    prepare,
)
from tfopt_server.registry import Loaded, Registry
from tfopt_warmup import records

Copy = Callable[..., Path]
XLA = OptimizerFlags(allow_precompilation=True, allowed_batch_sizes=(1, 4), engines=("openvino", "xla"))
PLAIN = OptimizerFlags(disable_optimizer=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One plan cache for the module: a plan is made once and found from then on."""
    return tmp_path_factory.mktemp("plans")


def load(folder: Path, options: LoadOptions, metrics: Metrics | None = None, **more: object) -> Loaded:
    return prepare(Source("m", 1, folder), options, metrics or Metrics(), **more)  # type: ignore[arg-type]


def why_not(folder: Path, options: LoadOptions, metrics: Metrics | None = None) -> tuple[Code, str]:
    with pytest.raises(LoadError) as caught:
        load(folder, options, metrics)
    return caught.value.code, caught.value.message


def half_plus_two(loaded: Loaded, *values: float) -> list[float]:
    runner = loaded.servable.signatures["serving_default"]
    return [float(v) for v in runner.run({"x": np.array(values, np.float32)[:, None]})["y"][:, 0]]


def warm(folder: Path, *logs: object) -> Path:
    records.write(records.path_in(folder), logs)
    return folder


def request(signature: str = "", **feeds: np.ndarray) -> object:
    return records.predict_log("m", signature, feeds)


ONE = np.ones([1, 1], np.float32)


@pytest.mark.tensorflow
class TestPlans:
    def test_a_plan_is_made_by_a_process_of_its_own_and_found_the_next_time(
        self, savedmodel: Callable[[str], Path], cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        metrics = Metrics()
        loaded = load(savedmodel("half_plus_two"), LoadOptions(XLA, cache), metrics)
        assert half_plus_two(loaded, 2.0, 4.0, 6.0) == [3.0, 4.0, 5.0]
        assert loaded.plan is not None
        assert loaded.why.startswith("made in ")
        assert loaded.lanes["serving_default"].rule.limit == 4
        assert "serving_default" in loaded.signature_defs
        told = [r.getMessage() for r in caplog.records if r.name == "tfopt_server.preparing"]
        assert [line for line in told if line.endswith(" chosen")] == [
            x for x in loaded.plan.log if x.endswith(" chosen")
        ]
        page = metrics.render().decode()
        chosen = loaded.plan.signatures[0].buckets[0]
        labels = f'model="m",version="1",signature="serving_default",bucket="1",engine="{chosen.engine}"'
        assert f"tfopt_plan_info{{{labels}," in page
        assert f'load_attempt_count{{model_path="{savedmodel("half_plus_two")}",status="success"}} 1' in page
        loaded.servable.close()
        again = load(savedmodel("half_plus_two"), LoadOptions(XLA, cache), optimize=None)
        assert again.why.startswith("found in the cache, made ")
        assert again.plan == loaded.plan
        again.servable.close()

    def test_a_plan_that_came_with_the_model_is_used_and_one_for_another_machine_is_named(
        self, savedmodel_copy: Copy, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        folder = savedmodel_copy("half_plus_two")
        flags = OptimizerFlags(allowed_batch_sizes=(1,), engines=("openvino",))
        command = [
            sys.executable,
            "-m",
            "tfopt_server",
            "optimize",
            str(folder),
            "--in_place",
            "--allowed_batch_sizes=1",
            "--engines=openvino",
        ]
        subprocess.run([*command, "--optimize_budget_s=1"], check=True, capture_output=True)
        (place,) = (folder / "assets.extra" / "tfopt").iterdir()
        other = place.with_name("0-other")
        shutil.copytree(place, other)
        text = (other / "plan.json").read_text()
        features = plans.read(place).fingerprint.hardware["features"]
        (other / "plan.json").write_text(text.replace(features, "avx9"))

        def nobody(*_: object) -> None:
            raise AssertionError("no plan is to be made")

        loaded = load(folder, LoadOptions(flags, tmp_path), optimize=nobody)
        assert half_plus_two(loaded, 2.0, 4.0) == [3.0, 4.0]
        assert loaded.why.startswith(f"it came with the model (assets.extra/tfopt/{place.name}), made ")
        passed_over = "plan assets.extra/tfopt/0-other is passed over: it is for something else: hardware."
        assert passed_over in caplog.text
        loaded.servable.close()

    def test_a_bucket_without_memory_is_dropped_before_the_version_is_available(
        self, savedmodel: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(feeds: object, outputs: object = None) -> dict[str, np.ndarray]:
            raise OutOfMemory("Out of memory allocating 17179869184 bytes.")

        def opened(*args: object, **more: object) -> Servable:
            servable = open_servable(*args, **more)  # type: ignore[arg-type]
            runner = servable.signatures["serving_default"]
            one, four = (runner.bucket_for(n) for n in (1, 4))
            runner._set([one, dataclasses.replace(four, run=full)])
            return servable

        open_servable, metrics = Servable.open, Metrics()
        monkeypatch.setattr(Servable, "open", opened)
        loaded = load(savedmodel("half_plus_two"), LoadOptions(XLA, cache), metrics)
        assert loaded.servable.signatures["serving_default"].buckets == (1,)
        assert loaded.lanes["serving_default"].rule.limit == 1
        assert loaded.warning.startswith(
            "serving_default x 4 is dropped, the device has no memory for it: Out of memory"
        )
        page = metrics.render().decode()
        assert 'tfopt_buckets_dropped_total{model="m",signature="serving_default",bucket="4"} 1' in page
        assert half_plus_two(loaded, 2.0, 4.0, 6.0) == [3.0, 4.0, 5.0]
        loaded.servable.close()

    def test_a_model_whose_plan_cannot_be_made_runs_on_plain_tensorflow_and_says_so(
        self, savedmodel: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def crash(*_: object) -> None:
            raise OptimizeError("the optimizer died with exit code -9")

        metrics = Metrics()
        loaded = load(savedmodel("half_plus_two"), LoadOptions(XLA, tmp_path), metrics, optimize=crash)
        assert half_plus_two(loaded, 2.0) == [3.0]
        assert (loaded.plan, loaded.why) == (None, "no plan could be made: the optimizer died with exit code -9")
        assert loaded.warning == loaded.why
        assert "plain TensorFlow serves the model: the optimizer died with exit code -9" in caplog.text
        assert metrics.optimizer_failures.labels("m").value == 1
        loaded.servable.close()

    def test_what_the_operator_must_not_miss_is_a_warning(
        self, savedmodel: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)

        def optimize(_job: object, _cache: Path, say: Callable[[str], None], _timeout_s: float) -> object:
            say("WARNING: allow_compression WITHOUT WARMUP RECORDS: lossy candidates are compared on made-up inputs")
            say("serving_default: rows are independent")
            raise OptimizeError("that is all")

        load(savedmodel("half_plus_two"), LoadOptions(OptimizerFlags(), tmp_path), optimize=optimize)
        told = {r.getMessage(): r.levelname for r in caplog.records}
        assert told["serving_default: rows are independent"] == "INFO"
        loud = "allow_compression WITHOUT WARMUP RECORDS: lossy candidates are compared on made-up inputs"
        assert told[loud] == "WARNING"

    @pytest.mark.tensorflow
    def test_a_model_that_is_not_to_be_optimized_runs_as_it_is(
        self, savedmodel: Callable[[str], Path], tmp_path: Path
    ) -> None:
        loaded = load(savedmodel("half_plus_two"), LoadOptions(PLAIN, tmp_path))
        assert half_plus_two(loaded, 2.0, 4.0) == [3.0, 4.0]
        assert (loaded.plan, loaded.why, loaded.warning) == (None, "the optimizer is switched off", "")
        assert list(tmp_path.iterdir()) == []
        loaded.servable.close()


@pytest.mark.tensorflow
class TestWarmup:
    def test_records_are_replayed_and_counted(self, savedmodel_copy: Copy, tmp_path: Path) -> None:
        folder = warm(savedmodel_copy("half_plus_two"), request(x=ONE), request("serving_default", x=ONE))
        metrics = Metrics()
        load(folder, LoadOptions(PLAIN, tmp_path, warmup_iterations=3), metrics).servable.close()
        assert metrics.warmup_records.labels(folder, "OK").value == 2
        assert metrics.warmup_latency.labels(folder, "OK").count == 1

    def test_a_request_that_the_model_refuses_fails_the_load(self, savedmodel_copy: Copy, tmp_path: Path) -> None:
        folder = warm(savedmodel_copy("half_plus_two"), request(x=ONE), request(x=np.array([b"text"], object)))
        metrics = Metrics()
        code, message = why_not(folder, LoadOptions(PLAIN, tmp_path), metrics)
        assert code is Code.INVALID_ARGUMENT
        assert "string" in message
        assert metrics.warmup_latency.labels(folder, "INVALID_ARGUMENT").count == 1
        assert metrics.load_attempts.labels(folder, "fail").value == 1
        load(folder, LoadOptions(PLAIN, tmp_path, warmup=False)).servable.close()

    def test_a_signature_that_is_not_there_fails_the_load(self, savedmodel_copy: Copy, tmp_path: Path) -> None:
        folder = warm(savedmodel_copy("half_plus_two"), request("other", x=ONE))
        expected = (Code.FAILED_PRECONDITION, 'Serving signature key "other" not found.')
        assert why_not(folder, LoadOptions(PLAIN, tmp_path)) == expected

    def test_a_file_that_is_no_record_file_fails_the_load(self, savedmodel_copy: Copy, tmp_path: Path) -> None:
        folder = savedmodel_copy("half_plus_two")
        path = records.path_in(folder)
        path.parent.mkdir()
        path.write_text("these are not records, whoever put them here")
        code, message = why_not(folder, LoadOptions(PLAIN, tmp_path))
        assert code is Code.DATA_LOSS
        assert message.endswith("Please verify your warmup data is in TFRecord format.")

    def test_one_record_too_many_fails_the_load(self, savedmodel_copy: Copy, tmp_path: Path) -> None:
        folder = warm(savedmodel_copy("half_plus_two"), *[request(x=ONE)] * 1001)
        code, message = why_not(folder, LoadOptions(PLAIN, tmp_path))
        assert code is Code.INVALID_ARGUMENT
        assert message.startswith("Number of warmup records exceeds the maximum (1000) at ")


class TestWhatIsNoModel:
    def test_an_empty_folder(self, tmp_path: Path) -> None:
        code, message = why_not(tmp_path, LoadOptions(PLAIN, tmp_path))
        assert code is Code.NOT_FOUND
        assert message.startswith("Specified file path does not appear to contain a SavedModel bundle")

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff not a protobuf")
        code, message = why_not(tmp_path, LoadOptions(PLAIN, tmp_path))
        assert (code, "is not a SavedModel" in message) == (Code.UNKNOWN, True)

    def test_tags_that_no_graph_has(self, savedmodel: Callable[[str], Path], tmp_path: Path) -> None:
        code, message = why_not(savedmodel("half_plus_two"), LoadOptions(PLAIN, tmp_path, tags=("serve", "tpu")))
        assert code is Code.NOT_FOUND
        assert message.startswith("Could not find meta graph def matching supplied tags: { serve tpu }")


class TestBatchingParameters:
    def test_flags_come_before_the_file_beside_the_model(self, tmp_path: Path) -> None:
        options = LoadOptions(PLAIN, tmp_path)
        assert parameters_for(tmp_path, options) is None
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "batching_parameters_config").write_text("max_batch_size { value: 7 }")
        assert parameters_for(tmp_path, options) == BatchingParameters(max_batch_size=7)
        asked = LoadOptions(PLAIN, tmp_path, parameters=BatchingParameters(max_batch_size=9))
        assert parameters_for(tmp_path, asked) == BatchingParameters(max_batch_size=9)

    def test_per_model_files_replace_the_flags_and_their_absence_means_no_batching(self, tmp_path: Path) -> None:
        options = LoadOptions(PLAIN, tmp_path, parameters=BatchingParameters(), per_model_parameters=True)
        assert parameters_for(tmp_path, options) is None
        (tmp_path / "batching_params.pbtxt").write_text("max_batch_size { value: 3 }")
        assert parameters_for(tmp_path, options) == BatchingParameters(max_batch_size=3)
        (tmp_path / "batching_params.pbtxt").write_text("max_batch_size { value: 0 }")
        with pytest.raises(BatchingParametersError):
            parameters_for(tmp_path, options)


def test_what_compiles_outside_of_a_load_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    end = count_compilations(metrics)
    compilations.tell("xla")
    end()
    compilations.tell("xla")
    assert metrics.compiles_after_ready.labels().value == 1
    assert [r.getMessage() for r in caplog.records] == [
        "xla compiles outside of a load: a request may be waiting for it"
    ]


def test_reasons_become_few_words() -> None:
    given = {
        ("chosen", ""): "",
        ("slower", "xla is as fast or faster"): "slower",
        ("skipped", "lost by more than 2x"): "skipped",
        ("rejected", "no answer within 300 s, killed"): "timeout",
        ("rejected", "the xla worker died (SIGSEGV)"): "crash",
        ("rejected", "max error 0.02 is above 0.0001"): "wrong",
        ("rejected", "XLA does not compile it: Unsupported op"): "unsupported",
    }
    assert {key: dropped_for(*key) for key in given} == given


class Clients:
    """Threads that send requests without a pause and check every answer."""

    def __init__(self, plane: Dataplane, threads: int) -> None:
        self.plane = plane
        self.versions: set[int] = set()
        self.failures: list[object] = []
        self.sent = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]

    def _run(self, index: int) -> None:
        number = 0.0
        while not self._stop.is_set():
            number += 1.0
            face = "GRPC" if index % 2 else "REST"
            try:
                with self.plane.resolve(ModelSpec("m")) as handle:
                    started = self.plane.start(handle, "", {"x": np.full([1, 1], number, np.float32)}, face=face)
                    result = started.result(30) if isinstance(started, Future) else started
                    self.versions.add(handle.version)
                if result.outputs["y"].tolist() != [[number / 2 + 2]]:
                    self.failures.append((number, result))
            except Exception as error:
                self.failures.append(error)
            self.sent += 1

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


@pytest.fixture
def house(tmp_path: Path, cache: Path) -> Iterator[tuple[Dataplane, Loader, Metrics]]:
    """A loader that polls ten times a second, and no second attempt for what is broken."""
    metrics, registry = Metrics(), Registry(["m"])
    executor = Executor(metrics, 2)
    loader = Loader(
        [ModelConfig("m", tmp_path / "half_plus_two")], registry, LoadOptions(XLA, cache), Schedule(0.1, 0), metrics
    )
    plane = Dataplane(registry, executor, metrics, loader)
    yield plane, loader, metrics
    assert plane.drain(30)


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.tensorflow
def test_versions_roll_over_under_load_without_a_failed_request(
    house: tuple[Dataplane, Loader, Metrics], savedmodel_copy: Copy, tmp_path: Path
) -> None:
    plane, loader, metrics = house
    savedmodel_copy("half_plus_two", 1)
    assert not plane.ready()
    loader.start()
    eventually(plane.ready)
    with Clients(plane, 4) as clients:
        eventually(lambda: clients.sent > 200)
        savedmodel_copy("half_plus_two", 2)
        eventually(lambda: [s.state for s in plane.status("m")] == [State.AVAILABLE, State.END])
        before = clients.sent
        eventually(lambda: clients.sent > before + 200)
        broken = tmp_path / "half_plus_two" / "3"
        broken.mkdir()
        (broken / "saved_model.pb").write_bytes(b"\xff\xff not a protobuf")
        eventually(lambda: plane.status("m", 3)[0].state is State.END if len(plane.status("m")) == 3 else False)
        before = clients.sent
        eventually(lambda: clients.sent > before + 200)
    assert clients.failures == []
    assert clients.versions == {1, 2}
    newest = plane.status("m")[0]
    assert (newest.version, newest.code, "is not a SavedModel" in newest.message) == (3, Code.UNKNOWN, True)
    assert plane.ready()
    assert plane.failure() == ""
    assert list(plane.plans()) == [("m", 2)]
    assert plane.why()["m", 2].startswith("found in the cache")
    assert sum(c.value for c in metrics.requests.children().values()) == clients.sent
    assert b"\ntfopt_compiles_after_ready_total{} 0\n" in metrics.render()
