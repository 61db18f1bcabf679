"""Replay: order, iterations, counts, and errors that pass through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfopt_warmup import records
from tfopt_warmup.records import Record, Run, WarmupError
from tfopt_warmup.replay import ReplayReport, replay


def record(*signatures: str) -> Record:
    return Record("predict" if signatures else "none", tuple(Run(s, {"x": np.ones(2)}) for s in signatures))


def clock(*times: float) -> Any:
    return iter(times).__next__


def test_records_run_in_order_each_so_many_times() -> None:
    seen: list[str] = []
    report = replay(
        [record("a"), record(), record("b", "c")],
        lambda signature, feeds: seen.append(f"{signature}{feeds['x'].sum():.0f}"),
        iterations=2,
        clock=clock(10.0, 12.5),
    )
    assert seen == ["a2", "a2", "b2", "c2", "b2", "c2"]
    assert report == ReplayReport(records=3, runs=6, skipped=1, seconds=2.5)


def test_the_models_error_ends_the_replay() -> None:
    seen: list[str] = []

    def run(signature: str, feeds: Any) -> None:
        seen.append(signature)
        if signature == "b":
            raise RuntimeError("the graph says no")

    with pytest.raises(RuntimeError, match="the graph says no"):
        replay([record("a"), record("b"), record("c")], run)
    assert seen == ["a", "b"]


def test_a_reading_error_comes_after_what_was_read() -> None:
    def broken() -> Iterator[Record]:
        yield record("a")
        raise WarmupError("DATA_LOSS", "cut")

    seen: list[str] = []
    with pytest.raises(WarmupError, match="cut"):
        replay(broken(), lambda signature, feeds: seen.append(signature))
    assert seen == ["a"]


def test_a_file_replays(tmp_path: Path) -> None:
    path = records.path_in(tmp_path)
    records.write(path, [records.predict_log("m", "s", {"x": np.float32([n])}) for n in range(3)])
    seen: list[float] = []
    report = replay(records.read(path), lambda signature, feeds: seen.append(float(feeds["x"][0])))
    assert seen == [0, 1, 2]
    assert (report.records, report.runs, report.skipped) == (3, 3, 0)
