"""How near two cores are: both partners really take turns, and a reader finds in which mode a run was."""

from __future__ import annotations

import argparse
import json
import os

import pytest
from tfopt_optimizer import cpu

from benchmarks import __main__ as command
from benchmarks import bars, cores, inprocess, machine
from tests.benchmarks.test_bench_bars import row

two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")


@two_cores
def test_every_round_that_was_asked_was_answered_once(monkeypatch):
    monkeypatch.setattr(cores, "LIMIT_S", 60.0)  # beside other tests
    before = os.sched_getaffinity(0)
    game = cores.play(min(before), max(before))
    assert game is not None
    assert game.asked == game.answered > cores.BATCH
    assert game.ns > 0
    assert os.sched_getaffinity(0) == before


@two_cores
def test_who_finds_no_time_is_told_nothing(monkeypatch):
    monkeypatch.setattr(cores, "LIMIT_S", 0.0)
    assert cores.handover() is None


@two_cores
def test_a_core_that_the_system_refuses_is_no_error(monkeypatch, capfd):
    monkeypatch.setattr(cores, "LIMIT_S", 60.0)
    assert cores.play(100_000, 100_000) is None
    assert "sched_setaffinity" in capfd.readouterr().err


def test_one_core_has_nobody_to_hand_over_to(monkeypatch):
    monkeypatch.setattr(cores, "play", lambda first, last: pytest.fail("played"))
    monkeypatch.setattr(cpu, "usable_cores", lambda: 1)
    assert cores.handover() is None


def test_without_affinity_nothing_is_known(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    assert cores.handover() is None


ROWS = (row(handover_ns=(41.0, None)), row(batch=32, handover_ns=(40.2, 187.1)))


def test_the_json_and_the_report_say_in_which_mode_a_run_was(tmp_path):
    found = bars.Measurements(inprocess=ROWS)
    place = command.write(machine.describe(), found, (), argparse.Namespace(results=tmp_path, quick=True))
    written = json.loads(place.read_text())
    assert written["handover_ns"] == {"before": 41.0, "after": 187.1, "least": 40.2, "most": 187.1}
    assert [one["handover_ns"] for one in written["inprocess"]] == [[41.0, None], [40.2, 187.1]]
    assert command.report(found, ()).endswith(
        "\n\na cache line from core to core: 41 ns before the first row, 187 ns after the last, "
        "40 ns to 187 ns among them (README.md, How to read it)"
    )


def test_where_it_is_unknown_the_report_says_so():
    line = inprocess.handover_line([row()])
    assert "unknown before the first row, unknown after the last, unknown to unknown" in line
