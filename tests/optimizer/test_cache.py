"""Plans kept by fingerprint: reuse, damage, replicas that start together."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time

import numpy as np
import pytest
from tfopt_optimizer import plan as plans
from tfopt_optimizer import plan_files
from tfopt_optimizer.cache import cached, optimize_cached
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.fingerprint import fingerprint
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob
from tfopt_optimizer.plan import Plan


class Maker:
    """Stands for optimize(): writes a plan with one artifact; counts its calls."""

    def __init__(self, pause=0.0, fail=False):
        self.made, self._pause, self._fail = 0, pause, fail

    def __call__(self, job, progress):
        time.sleep(self._pause)
        (job.plan_dir / "weights.bin").write_bytes(b"weights")
        if self._fail:
            raise OptimizeError("TensorFlow cannot load it")
        self.made += 1
        progress("made")
        plan = Plan(
            fingerprint(job.model_dir, job.flags, job.tags, job.samples),
            "cpu",
            "function",
            job.records,
            (),
            ("made",),
            "2026-11-22T05:00:00+00:00",
            1.5,
            files=plan_files.checksums(job.plan_dir),
        )
        plans.write(plan, job.plan_dir)
        return plan


@pytest.fixture
def job(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    samples = {"serving_default": ({"x": np.ones([1, 2], np.float32)},)}
    return OptimizeJob(model, tmp_path / "unused", ("serve",), OptimizerFlags(), samples, "warmup")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_plan_is_made_once_and_found_again(job, cache):
    make, lines = Maker(), []
    plan, folder = optimize_cached(job, cache, lines.append, make)
    again, same = optimize_cached(job, cache, lines.append, make)
    assert (make.made, again, same) == (1, plan, folder)
    assert lines == [
        f"no plan for {job.model_dir} in {cache}",
        "made",
        f"plan {folder.name}: found in the cache, made 2026-11-22T05:00:00+00:00 in 1.5 s",
    ]
    found = cached(job, cache)
    assert found is not None
    assert found[:2] == (plan, folder)


def test_another_flag_makes_another_plan_and_says_what_differs(job, cache):
    make, lines = Maker(), []
    optimize_cached(job, cache, lines.append, make)
    other = dataclasses.replace(job, flags=OptimizerFlags(allow_precompilation=True))
    assert cached(other, cache) is None
    optimize_cached(other, cache, lines.append, make)
    assert make.made == 2
    assert "one for the same model differs: flags: " in lines[2]
    assert cached(job, cache) is not None


def test_a_damaged_plan_is_named_and_made_again(job, cache):
    make, lines = Maker(), []
    _, folder = optimize_cached(job, cache, lines.append, make)
    (folder / "weights.bin").write_bytes(b"w")
    assert cached(job, cache) is None
    optimize_cached(job, cache, lines.append, make)
    assert make.made == 2
    assert lines[2].startswith("the cached plan is damaged and made again: ")
    assert "weights.bin: damaged" in lines[2]
    assert cached(job, cache) is not None


def test_a_failed_attempt_leaves_nothing_behind(job, cache):
    with pytest.raises(OptimizeError):
        optimize_cached(job, cache, lambda _: None, Maker(fail=True))
    assert list(cache.iterdir()) == []
    assert optimize_cached(job, cache, lambda _: None, Maker())[0].log == ("made",)


def test_replicas_that_start_together_optimize_once(job, cache):
    make, lines, found = Maker(pause=0.3), [], []

    def start():
        found.append(optimize_cached(job, cache, lines.append, make))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make.made == 1
    assert len({folder for _, folder in found}) == 1
    assert sum("another process makes this plan" in line for line in lines) == 3


def test_what_a_killed_optimizer_left_is_removed_by_the_next(job, cache):
    _, folder = optimize_cached(job, cache, lambda _: None, Maker())
    folder.rename(cache / f"{folder.name}.part.killed")
    optimize_cached(job, cache, lambda _: None, Maker())
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == [folder.name]


def test_who_was_taken_for_dead_uses_the_plan_that_was_made_meanwhile(job, cache):
    """A frozen process wakes up: its lock, its folder and its turn are gone."""
    other, lines = Maker(), []

    def frozen(one, progress):
        (lock,) = cache.glob("*.lock")
        lock.unlink()
        optimize_cached(job, cache, lines.append, other)
        return Maker()(one, progress)

    plan, folder = optimize_cached(job, cache, lines.append, frozen)
    assert other.made == 1
    assert plans.read(folder) == plan
    assert cached(job, cache) is not None
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_who_was_taken_for_dead_waits_for_the_plan_that_is_being_made(job, cache):
    """A frozen process wakes up while another one is at work: its own folder is gone, which is not the end."""
    other, lines, found = Maker(pause=1.0), [], []
    second = threading.Thread(target=lambda: found.append(optimize_cached(job, cache, lines.append, other)))

    def frozen(one, progress):
        (lock,) = cache.glob("*.lock")
        lock.unlink()
        second.start()
        while one.plan_dir.exists():
            time.sleep(0.01)
        return Maker()(one, progress)

    found.append(optimize_cached(job, cache, lines.append, frozen))
    second.join()
    assert found[0] == found[1]
    assert other.made == 1
    assert sum("another process makes this plan" in line for line in lines) == 1
    assert [path.name for path in cache.iterdir()] == [found[0][1].name]


def test_what_is_not_whole_is_not_published_by_who_was_taken_for_dead(job, cache):
    """It went on in a folder that was cleared away behind it and that an engine made anew."""
    other = Maker()

    def frozen(one, progress):
        (lock,) = cache.glob("*.lock")
        lock.rename(cache / "kept")
        shutil.rmtree(one.plan_dir)
        (one.plan_dir / "s0").mkdir(parents=True)
        plan = dataclasses.replace(Maker()(one, progress), log=("half",))
        plans.write(plan, one.plan_dir)
        return plan

    makers = iter((frozen, other))

    def make(one, progress):
        return next(makers)(one, progress)

    plan, _ = optimize_cached(job, cache, lambda _: None, make)
    assert plan.log == ("made",)
    assert other.made == 1


def test_an_optimizer_that_is_killed_at_every_start_does_not_fill_the_disk(job, cache):
    _, folder = optimize_cached(job, cache, lambda _: None, Maker())
    folder.rename(cache / f"{folder.name}.part.killed")
    there = []

    def make(one, progress):
        there.extend(path.name for path in cache.iterdir() if path.is_dir() and path != one.plan_dir)
        (cache / f"{folder.name}.part.killed").mkdir()  # by a worker that has not seen yet that it is alone
        return Maker()(one, progress)

    optimize_cached(job, cache, lambda _: None, make)
    assert there == []
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_a_plan_that_another_process_replaces_while_it_is_looked_at_is_looked_at_again(job, cache, monkeypatch):
    make, lines = Maker(), []
    optimize_cached(job, cache, lines.append, make)
    whole, first = plan_files.checksums, iter([True])

    def gone(folder):
        if next(first, False):
            raise FileNotFoundError(2, "gone", str(folder / "weights.bin"))
        return whole(folder)

    monkeypatch.setattr(plan_files, "checksums", gone)
    optimize_cached(job, cache, lines.append, make)
    assert make.made == 1  # the second look, under the lock, finds it
    assert lines[-1].endswith("in 1.5 s")


def test_plans_that_vanish_while_they_are_listed_cost_nothing(job, cache, monkeypatch):
    monkeypatch.setattr(plans, "folders", lambda parent: [parent / "gone"])
    assert optimize_cached(job, cache, lambda _: None, Maker())[0].log == ("made",)


def test_a_plan_of_which_only_half_arrived_is_not_one(job, cache):
    """As a bucket shows it while another host uploads."""
    _, folder = optimize_cached(job, cache, lambda _: None, Maker())
    (folder / "plan.json").unlink()
    assert cached(job, cache) is None
