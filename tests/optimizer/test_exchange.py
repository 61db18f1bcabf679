"""A folder takes another's place: whoever looks, and whoever is killed meanwhile, has one of the two."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tfopt_optimizer import exchange


def made(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(text)
    return folder


def names(folder: Path) -> dict[str, str]:
    return {path.name: (path / "file").read_text() for path in folder.iterdir()}


@pytest.fixture(params=["in one step", "by two renames"])
def way(request, monkeypatch):
    if request.param == "by two renames":
        monkeypatch.setattr(exchange, "_renameat2", lambda: None)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("old", [True, False])
def test_the_new_one_has_the_name_and_the_old_one_is_gone(tmp_path, old):
    if old:
        made(tmp_path / "final", "old")
    exchange.replace(made(tmp_path / "part", "new"), tmp_path / "final")
    assert names(tmp_path) == {"final": "new"}


def test_a_reader_always_finds_one(tmp_path):
    final, stop, seen = made(tmp_path / "final", "old"), threading.Event(), set()

    def read():
        while not stop.is_set():
            seen.add(final.is_dir())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(300):
        exchange.replace(made(tmp_path / "part", "new"), final)
    stop.set()
    reader.join()
    assert seen == {True}


def test_what_cannot_take_the_place_leaves_it_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    made(tmp_path / "final", "old")
    with pytest.raises(FileNotFoundError):
        exchange.replace(tmp_path / "nothing", tmp_path / "final")
    assert names(tmp_path) == {"final": "old"}
