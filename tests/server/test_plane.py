"""The dataplane as the faces see it, and how settings become one; no model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.plan import Fingerprint, Plan
from tfopt_server import layers, plane
from tfopt_server.batching_parameters import BatchingParameters, BatchingParametersError
from tfopt_server.dataplane import Dataplane, Layered, ModelSpec
from tfopt_server.errors import Code, ServingError
from tfopt_server.executor import Executor
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import Event, State
from tfopt_server.loading import Schedule
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadOptions
from tfopt_server.registry import Loaded, Registry, VersionStatus
from tfopt_server.settings import Settings, parse
from tfopt_server.tasks import Result

from tests.server.fakes import Runner, x


def settings(*flags: str) -> Settings:
    return parse(["--model_base_path=/models/m", *flags], {"HOME": "/home/me"})[0]


class TestSettings:
    def test_defaults(self) -> None:
        assert plane.load_options(settings()) == LoadOptions(
            OptimizerFlags(), Path("/home/me/.cache/tfopt/plans"), ("serve",), 3600.0, True, 1, None, False
        )
        assert plane.schedule(settings()) == Schedule(1.0, 5, 60.0)

    def test_every_flag_arrives(self) -> None:
        options = plane.load_options(
            settings(
                "--allow_precompilation", "--allow_compression", "--nouse_tfrt", "--disable_optimizer",
                "--allowed_batch_sizes=1,8", "--candidate_timeout_s=7", "--lossless_max_rel_error=0.001",
                "--tensorflow_intra_op_parallelism=3", "--tensorflow_inter_op_parallelism=4", "--plan_cache_dir=/plans",
                "--saved_model_tags=serve,tpu", "--optimize_timeout_s=9", "--optimize_budget_s=5",
                "--optimize_for=throughput",
                "--noenable_model_warmup",
                "--num_request_iterations_for_warmup=5", "--enable_batching", "--enable_per_model_batching_parameters",
                "--lossy_mean_rel_error=0.002", "--lossy_max_rel_error=0.03", "--lossy_top1=0.9",
                "--compression_requires_records",
            )
        )  # fmt: skip
        flags = OptimizerFlags(
            True, True, False, True, (1, 8), 7.0, 5.0, 0.001, 3, 4,
            lossy_mean_rel_error=0.002, lossy_max_rel_error=0.03, lossy_top1=0.9, compression_requires_records=True,
            optimize_for="throughput",
        )  # fmt: skip
        batching = BatchingParameters()
        assert options == LoadOptions(flags, Path("/plans"), ("serve", "tpu"), 9.0, False, 5, batching, True)

    def test_when_to_look_and_to_try_again(self) -> None:
        flags = ("--max_num_load_retries=2", "--load_retry_interval_micros=1500000")
        assert plane.schedule(settings("--file_system_poll_wait_seconds=7", *flags)) == Schedule(7.0, 2, 1.5)
        for never in (0, -1):
            assert plane.schedule(settings(f"--file_system_poll_wait_seconds={never}")).poll_s is None

    def test_a_batching_file(self, tmp_path: Path) -> None:
        path = tmp_path / "batching.txt"
        path.write_text("max_batch_size { value: 16 } num_batch_threads { value: 3 }")
        given = settings("--enable_batching", f"--batching_parameters_file={path}")
        assert plane.parameters(given) == BatchingParameters(max_batch_size=16, num_batch_threads=3)
        path.write_text("max_batch_size { value: 0 }")
        with pytest.raises(BatchingParametersError, match="max_batch_size must be positive; was 0"):
            plane.build(given, Metrics())

    def test_the_threads_of_the_batching_file_are_the_runners(self, tmp_path: Path) -> None:
        path = tmp_path / "batching.txt"
        path.write_text("num_batch_threads { value: 3 }")
        metrics = Metrics()
        dataplane, _, _ = plane.build(settings("--enable_batching", f"--batching_parameters_file={path}"), metrics)
        assert dataplane._executor.runners == 3
        assert not dataplane.ready()
        assert dataplane.failure() == ""
        assert dataplane.drain(10)


def test_the_plan_says_how_many_run_at_a_time() -> None:
    dataplane, loader, _ = plane.build(settings(), Metrics())
    plan = Plan(Fingerprint("", "", {}, {}), "cpu", "session", "none", (), (), "", 0.0, runners=1)
    loader._loaded(Loaded(None, {}, plan, "a fake", {}))  # type: ignore[arg-type]
    assert dataplane._executor.runners == 1


def test_threads_that_the_operator_named_count_more_than_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "batching.txt"
    path.write_text("num_batch_threads { value: 3 }")
    dataplane, loader, _ = plane.build(settings("--enable_batching", f"--batching_parameters_file={path}"), Metrics())
    plan = Plan(Fingerprint("", "", {}, {}), "cpu", "session", "none", (), (), "", 0.0, runners=1)
    loader._loaded(Loaded(None, {}, plan, "a fake", {}))  # type: ignore[arg-type]
    assert dataplane._executor.runners == 3


@pytest.fixture
def served() -> Dataplane:
    """Model m, version 4, signatures serving_default and other, by a fake engine."""
    metrics, registry = Metrics(), Registry(["m"])
    version = registry.add("m", 4, Path("/models/m/4"))
    registry.move(version, Event.LOAD)
    lanes = {key: Lane("m", Runner(1.0, key=key), metrics, parameters=None) for key in ("serving_default", "other")}
    version.loaded = Loaded(None, lanes, None, "a fake", {"serving_default": "its proto"})  # type: ignore[arg-type]
    registry.move(version, Event.READY)
    return Dataplane(registry, Executor(metrics, 1), metrics)


def test_a_request_from_its_name_to_its_answer(served: Dataplane) -> None:
    with served.resolve(ModelSpec("m")) as handle:
        assert (handle.name, handle.version) == ("m", 4)
        for key, expected in (("", "serving_default"), ("other", "other"), ("absent", None)):
            info = served.signature(handle, key)
            assert (info.key if info else None) == expected
        answer = served.start(handle, "", x(1, 2), ["y"], None, "GRPC")
        assert isinstance(answer, Result)
        assert answer.outputs["y"].tolist() == [[2.0, 2.0], [4.0, 4.0]]
        assert served.metadata(handle) == {"serving_default": "its proto"}
        assert served.steps(handle, "") is served.steps(handle, "serving_default")


def test_how_things_stand(served: Dataplane) -> None:
    assert served.live
    assert served.ready()
    assert served.status("m") == served.status("m", 4) == (VersionStatus(4, State.AVAILABLE, Code.OK, ""),)
    assert (served.plans(), served.why()) == ({("m", 4): None}, {("m", 4): "a fake"})
    assert served.optimized() == (("m", 4, "a fake", None, None, False),)
    with pytest.raises(ServingError, match=r"Servable not found for request: Specific\(m, 5\)"):
        served.resolve(ModelSpec("m", 5))


class Unloading:
    """A version that somebody unloads while it is looked at."""

    name, number = "m", 4

    def __init__(self, loaded: object) -> None:
        self._seen = [loaded, None]

    @property
    def loaded(self) -> object:
        return self._seen.pop(0)


def test_a_version_that_goes_away_while_it_is_shown(served: Dataplane, monkeypatch: pytest.MonkeyPatch) -> None:
    (there,) = served._registry.available()
    gone = Unloading(None)
    monkeypatch.setattr(served._registry, "available", lambda: (Unloading(there.loaded), gone))
    assert served.optimized() == (("m", 4, "a fake", None, None, False),)


def test_versions_that_are_still_loading_are_shown_too(served: Dataplane, tmp_path: Path) -> None:
    """They were missing until they served: minutes in which somebody may want to know."""
    registry = served._registry
    later, failed = registry.add("m", 6, tmp_path), registry.add("m", 5, tmp_path)
    for version in (later, failed):
        registry.move(version, Event.LOAD)
    registry.move(failed, Event.RETRY, Code.INTERNAL, "the disk is away")
    assert served.optimized() == (
        ("m", 6, "it is being loaded", None, None, True),
        ("m", 5, "it is being loaded again, after: the disk is away", None, None, True),
        ("m", 4, "a fake", None, None, False),
    )
    registry.move(failed, Event.FAIL, Code.INTERNAL, "the disk is away")
    assert [o.number for o in served.optimized()] == [6, 4]


def test_leaving_is_not_ready_and_still_answers(served: Dataplane) -> None:
    served.leave()
    assert not served.ready()
    with served.resolve(ModelSpec("m")) as handle:
        assert isinstance(served.start(handle, "", x(1)), Result)
    assert served.drain(5)


def test_only_what_flags_add_stands_around_a_request(tmp_path: Path) -> None:
    bare = plane.build(settings(), Metrics())[0]
    assert type(bare) is Dataplane
    recording = plane.build(settings("--record_warmup=5"), Metrics(), tmp_path)[0]
    assert type(recording) is Layered
    recording.drain(1)
    caching = plane.build(settings("--response_cache_bytes=1000"), Metrics(), tmp_path)[0]
    caching.drain(1)
    assert [each.reads_inputs for each in (bare, recording, caching)] == [False, False, True]
    assert [layers._first(tmp_path, "m-1"), layers._first(tmp_path, "m-1"), layers._first(None, "m-1")] == [
        True, False, True,
    ]  # fmt: skip
