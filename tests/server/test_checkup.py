"""The doctor beside a running server: lines of the log, later, and nothing else."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import savedmodels
from tfopt_server import checkup
from tfopt_warmup import records


def lines(folder: Path, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    with caplog.at_level(logging.INFO):
        checkup.log_in_background(folder, ("serve",), {"model": "m", "version": 1}).join(60)
    assert all((r.model, r.version) == ("m", 1) for r in caplog.records)
    return [(r.levelname, r.getMessage()) for r in caplog.records]


def test_errors_and_warnings_become_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    found = lines(savedmodels.path("sick_training"), caplog)
    assert found[0] == (
        "WARNING", "doctor: error serving-default: there is no signature serving_default (logits; loss; queued)"
    )  # fmt: skip
    assert (
        "INFO",
        "doctor: warning optimizer-slots: 4 variables of an optimizer in the checkpoint, 56 B of 80 B (w/Adam 24 B; "
        "w/Adam_1 24 B; beta1_power 4 B and 1 more)",
    ) in found
    assert {level for level, _ in found} == {"WARNING", "INFO"}
    assert not any("several-graphs" in text for _, text in found)


def test_what_cannot_be_examined_is_one_line(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    ((level, text),) = lines(tmp_path, caplog)
    assert (level, text.startswith(f"the doctor could not look at {tmp_path}: ")) == ("INFO", True)


def test_of_several_workers_one_examines_a_version(tmp_path: Path, savedmodel_copy: Callable[..., Path]) -> None:
    first, second = savedmodel_copy("scalar", 1), savedmodel_copy("scalar", 2)
    assert [checkup.claim(tmp_path, folder) for folder in (first, first, second, first)] == [True, False, True, False]
    assert [checkup.claim(None, first), checkup.claim(None, first)] == [True, True]
    os.utime(first / "saved_model.pb", (1, 1))  # another model under the same number
    assert checkup.claim(tmp_path, first)
    assert checkup.claim(tmp_path / "gone", second)


def test_the_warmup_file_is_examined_too(savedmodel_copy: Callable[..., Path]) -> None:
    folder = savedmodel_copy("half_plus_two")
    records.write(records.path_in(folder), [records.predict_log("m", "serving_defualt", {})])
    (found,) = checkup.examine(folder, ("serve",))[:1]
    assert (found.check, found.evidence) == (
        "warmup-valid", ("signature 'serving_defualt'; the model has serving_default",)
    )  # fmt: skip
    records.path_in(folder).write_bytes(b"not a TFRecord file at all")
    (found,) = checkup.examine(folder, ("serve",))[:1]
    assert (found.finding, found.evidence[0][:10]) == ("the warmup file fails the load", "DATA_LOSS:")
