"""Plans that servers leave for each other in a bucket."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from bucketstub import Bucket
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_server import plane, preparing, uris
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadOptions, Source
from tfopt_server.settings import SettingsErrors, parse
from tfopt_server.storage import plans

PLAN = {"plan.json": b"{}", "engine/segment": b"weights" * 100, "zz": b""}


def made(cache: Path, name: str = "abc", files: dict[str, bytes] | None = None) -> Path:
    for path, data in (files or PLAN).items():
        (cache / name / path).parent.mkdir(parents=True, exist_ok=True)
        (cache / name / path).write_bytes(data)
    return cache / name


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("cloud", ["gs", "s3", "az"])
def test_a_plan_goes_from_one_server_to_another(cloud: str, tmp_path: Path, bucket: Bucket) -> None:
    uri, said = uris.parse(f"{cloud}://bucket/plans"), list[str]()
    plans.push(uri, made(tmp_path / "one"), said.append, anew=False)
    assert list(bucket.objects) == ["plans/abc/engine/segment", "plans/abc/zz", "plans/abc/plan.json"]
    (tmp_path / "two").mkdir()
    assert plans.pull(uri, "abc", tmp_path / "two", said.append)
    assert {p.name: content(p) for p in (tmp_path / "two").iterdir()} == {"abc": PLAN}
    assert said == [f"plan abc is in {uri} for other servers", f"plan abc came from {uri}"]


def test_the_first_plan_of_a_name_stays_unless_it_is_damaged(tmp_path: Path, bucket: Bucket) -> None:
    uri = uris.parse("gs://bucket/plans")
    bucket.objects["plans/abc/plan.json"] = b"first"
    plans.push(uri, made(tmp_path), print, anew=False)
    assert bucket.objects == {"plans/abc/plan.json": b"first"}
    plans.push(uri, tmp_path / "abc", print, anew=True)
    assert bucket.objects["plans/abc/plan.json"] == b"{}"


def test_half_a_plan_is_none(tmp_path: Path, bucket: Bucket) -> None:
    bucket.objects["plans/abc/engine/segment"] = b"x"
    assert not plans.pull(uris.parse("gs://bucket/plans"), "abc", tmp_path, print)
    assert list(tmp_path.iterdir()) == []


def test_the_plan_that_is_there_stays_until_the_one_from_the_bucket_has_its_place(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was killed between removing the one and renaming the other had neither."""
    uri, there = uris.parse("gs://bucket/plans"), {"plan.json": b"{}", "engine/segment": b"damaged"}
    plans.push(uri, made(tmp_path / "one"), print, anew=False)
    cache = made(tmp_path / "two", files=there).parent

    def killed(*_names: object) -> None:
        assert content(cache / "abc") == there
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tfopt_optimizer.exchange._swap", killed)
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            plans.pull(uri, "abc", cache, print)
    assert content(cache / "abc") == there
    assert plans.pull(uri, "abc", cache, print)
    assert {p.name: content(p) for p in cache.iterdir()} == {"abc": PLAN}


def test_a_bucket_that_is_away_costs_a_line_and_no_model(tmp_path: Path, bucket: Bucket, caplog) -> None:
    bucket.denied = True
    uri = uris.parse("gs://bucket/plans")
    assert not plans.pull(uri, "abc", tmp_path, print)
    plans.push(uri, made(tmp_path), print, anew=False)
    assert [r.message.split(":")[0] for r in caplog.records if r.levelname == "WARNING"] == [
        "the plan in the bucket is not used", "the plan was not put into the bucket",
    ]  # fmt: skip


def test_the_flag() -> None:
    settings, _ = parse(["--model_base_path=/m", "--plan_cache_dir=gs://b/plans"], {"HOME": "/home/me"})
    options = plane.load_options(settings)
    assert (options.plan_bucket, options.plan_cache_dir) == (
        uris.parse("gs://b/plans"), Path("/home/me/.cache/tfopt/plans"),
    )  # fmt: skip
    with pytest.raises(SettingsErrors, match="--plan_cache_dir: expected a folder, gs://, s3:// or az://"):
        parse(["--model_base_path=/m", "--plan_cache_dir=hdfs://b"], {})


def test_a_load_asks_the_bucket_before_it_searches_and_leaves_there_what_it_made(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the loading of a version, with the search and the reading of plans stood in for."""
    monkeypatch.setattr("tfopt_optimizer.cache.name_of", lambda _job: "abc")
    searches = []

    def search(_job: object, cache: Path, _say: object, _seconds: float) -> tuple[SimpleNamespace, Path]:
        searches.append(cache)
        return SimpleNamespace(optimize_s=1.0, log=[]), made(cache)

    def load(cache: Path) -> str:
        options = LoadOptions(OptimizerFlags(), cache, plan_bucket=uris.parse("gs://bucket/plans"))
        load = preparing._Preparation(Source("m", 1, tmp_path), options, Metrics(), search)
        found = (SimpleNamespace(log=[]), cache / "abc", "found in the cache")
        load._found = lambda _job, _cache: found if (cache / "abc" / "plan.json").exists() else None
        return load._found_or_made(None, cache)[2]

    for server in ("one", "two"):
        (tmp_path / server).mkdir()
    assert load(tmp_path / "one") == "made in 1.0 s"
    assert load(tmp_path / "two") == "found in the cache"
    assert searches == [tmp_path / "one"]
    assert content(tmp_path / "two" / "abc") == PLAN
