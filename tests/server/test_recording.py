"""--record_warmup: which requests get into the file, where it lies, and that the request never waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from tfopt_server.commands import record, warmup
from tfopt_server.dataplane import Layered, ModelSpec
from tfopt_server.errors import ServingError
from tfopt_server.executor import Executor
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import Event
from tfopt_server.metrics import Metrics
from tfopt_server.recording import Recorder
from tfopt_server.registry import Loaded, Registry
from tfopt_warmup import records

from tests.server.fakes import POISON, Runner, x


class Served:
    """Model m, version 4, at `folder`, recorded; requests run on runner threads as they would."""

    def __init__(self, folder: Path, count: int = 3, **options: Any) -> None:
        metrics, registry = Metrics(), Registry(["m"])
        version = registry.add("m", 4, folder)
        registry.move(version, Event.LOAD)
        lanes = {key: Lane("m", Runner(1.0, key=key), metrics, parameters=None) for key in ("serving_default", "other")}
        version.loaded = Loaded(None, lanes, None, "a fake", {})  # type: ignore[arg-type]
        registry.move(version, Event.READY)
        self.recorder = Recorder(count, options.pop("every", 1), options.pop("directory", None), **options)
        self.plane = Layered(registry, Executor(metrics, 1), metrics, None, [self.recorder.around], self.recorder.close)

    def predict(self, *rows: float, key: str = "", api: str = "Predict") -> Any:
        with self.plane.resolve(ModelSpec("m")) as handle:
            answer = self.plane.start(handle, key, x(*rows), api=api)
            return answer.result(10) if isinstance(answer, Future) else answer


def recorded(path: Path) -> list[tuple[str, list[float]]]:
    return [(r.runs[0].signature, r.runs[0].feeds["x"][:, 0].tolist()) for r in records.read(path)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "m" / "4"
    found.mkdir(parents=True)
    return found


def test_requests_that_were_answered_are_in_the_models_own_file(folder: Path, caplog: Any) -> None:
    served = Served(folder)
    with caplog.at_level(logging.INFO):
        served.predict(1)
        with pytest.raises(ServingError, match="poisoned"):
            served.predict(POISON)
        served.predict(1)  # the same again
        served.predict(2, 3, key="other")
        served.predict(5, api="Explain")  # a perturbed row
        served.predict(4)
        served.predict(6)  # one too many
        served.plane.drain(5)
    path = records.path_in(folder)
    assert recorded(path) == [("serving_default", [1.0]), ("other", [2.0, 3.0]), ("serving_default", [4.0])]
    assert f"3 requests are recorded in {path}" in caplog.text


def test_fewer_than_asked_for_are_written_at_the_end(folder: Path) -> None:
    served = Served(folder, count=1000)
    served.predict(1)
    served.plane.drain(5)
    assert recorded(records.path_in(folder)) == [("serving_default", [1.0])]


def test_another_folder(folder: Path, tmp_path: Path) -> None:
    served = Served(folder, directory=tmp_path / "records")
    served.predict(1)
    served.plane.drain(5)
    assert recorded(records.path_in(tmp_path / "records" / "m" / "4")) == [("serving_default", [1.0])]
    assert not records.path_in(folder).exists()


def test_a_version_that_has_a_file_is_left_alone(folder: Path, caplog: Any) -> None:
    path = records.path_in(folder)
    records.write(path, [records.predict_log("m", "s", x(9))])
    served = Served(folder)
    with caplog.at_level(logging.INFO):
        served.predict(1)
        served.plane.drain(5)
    assert recorded(path) == [("s", [9.0])]
    assert caplog.text.count("is there already") == 1


def test_a_folder_that_cannot_be_written_is_named_once_and_requests_go_on(
    folder: Path, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr("tfopt_server.recording.os.access", lambda *_: False)
    served = Served(folder)
    for _ in range(3):
        assert served.predict(1).outputs["y"][0, 0] == 2.0
    served.plane.drain(5)
    assert caplog.text.count(f"{folder} cannot be written to; --record_warmup_dir names another folder") == 1
    assert not records.path_in(folder).exists()


def test_another_worker_records(folder: Path) -> None:
    claims: list[str] = []

    def claim(what: str) -> bool:
        claims.append(what)
        return False

    served = Served(folder, claim=claim)
    served.predict(1)
    served.predict(2)
    served.plane.drain(5)
    assert (claims, records.path_in(folder).exists()) == (["m-4"], False)


def test_a_request_does_not_wait_for_the_file(folder: Path, monkeypatch: Any) -> None:
    gate = threading.Event()
    write: Callable[..., None] = records.write

    def slow(*args: Any) -> None:
        gate.wait(10)
        write(*args)

    monkeypatch.setattr("tfopt_server.recording.records.write", slow)
    served = Served(folder, count=1)
    for i in range(5):
        assert served.predict(i).outputs["y"][0, 0] == 2.0 * i
    gate.set()
    served.plane.drain(5)
    assert len(recorded(records.path_in(folder))) == 1


LINES = """
{"instances": [1, 2]}
{"inputs": {"x": [3]}, "signature_name": "serving_default"}
5
{"x": 6}
{"instances": [1, 2]}
"""


def test_requests_that_were_written_down(savedmodel_copy: Any, tmp_path: Path, capsys: Any) -> None:
    model = savedmodel_copy("half_plus_two")
    lines = tmp_path / "lines"
    lines.write_text(LINES)
    assert warmup.main(["record", str(model.parent), f"--requests={lines}", "--in_place", "--model_name=m"], {}) == 0
    assert capsys.readouterr().out == f"{records.path_in(model)}: 4 records\n"
    found = [(r.model_name, r.runs[0].feeds["x"].tolist()) for r in records.read(records.path_in(model))]
    assert found == [("m", [1.0, 2.0]), ("m", [3.0]), ("m", [5.0]), ("m", [6.0])]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ('{"instances": ["a"]}', "line 1: Failed to process element: 0 of 'instances' list."),
        ('\n{"instances": [1], "signature_name": "nope"}', "line 2: no signature 'nope'; there are "),
        ("{", "line 1: JSON Parse error: "),
        ("\n\n", "holds no request"),
    ],
)
def test_lines_that_are_no_requests(savedmodel: Any, tmp_path: Path, capsys: Any, lines: str, text: str) -> None:
    (tmp_path / "lines").write_text(lines)
    argv = [str(savedmodel("half_plus_two")), f"--requests={tmp_path / 'lines'}", f"--out={tmp_path / 'out'}"]
    assert record.main(argv) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
