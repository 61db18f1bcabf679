"""Who is killed while it writes a model leaves none: the next who looks asks for it again."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from enginecases import Prepared, target
from tfopt_optimizer import whole
from tfopt_optimizer.engines import (
    litert,
    litert_convert,
    onnxruntime,
    onnxruntime_convert,
    openvino,
    openvino_freeze,
    stablehlo,
    xla,
)


class Killed(BaseException):
    """No worker sees it: as SIGKILL."""


def half(path: Path, content: bytes | str) -> None:
    """Writes half of it and is killed."""
    data = content.encode() if isinstance(content, str) else content
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise Killed


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", half)
        with pytest.raises(Killed):
            whole.write(tmp_path / "model", b"content")
    assert not (tmp_path / "model").exists()
    whole.write(tmp_path / "model", b"content")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"model": b"content"}


def test_files_that_belong_together_come_together(tmp_path):
    def write(*names):
        with whole.files(tmp_path / "s0", "weights", "model") as part:
            for name in names:
                (part / name).write_text(name)
            if "model" not in names:
                raise Killed

    with pytest.raises(Killed):
        write("weights")
    assert list((tmp_path / "s0").iterdir()) == []
    (tmp_path / "s0" / ".part").mkdir()  # of one that was killed
    write("weights", "model")
    assert sorted(p.name for p in (tmp_path / "s0").iterdir()) == ["model", "weights"]


def killed_at(number, folder, patched):
    """Path's writing, which is killed in the middle of a file of `folder`: of the first, the second ..."""
    own, writes = {name: getattr(Path, name) for name in ("write_bytes", "write_text")}, itertools.count()

    def killing(how):
        def write(path, content):
            dies = folder in path.parents and next(writes) == number
            return half(path, content) if dies else own[how](path, content)

        return write

    for how in own:
        patched.setattr(Path, how, killing(how))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("worker", "converter", "aim"),
    [
        (litert.Worker, litert_convert.Converter, ("mlp_keras", "serving_default", "t1")),
        (onnxruntime.Worker, onnxruntime_convert.Converter, ("mlp_keras", "serving_default", "t1")),
        (openvino.Worker, openvino_freeze.Converter, ("shared", "v2/top:1", "f32")),  # not read by OpenVINO itself
        (xla.Worker, stablehlo.Lowerer, ("mlp_keras", "serving_default", "pjrt")),
    ],
    ids=["litert", "onnxruntime", "openvino", "xla"],
)
def test_a_converter_that_is_killed_is_asked_again(tmp_path, monkeypatch, worker, converter, aim):
    """Half a model that a killed one had left was read by the next bucket's candidate, which failed."""
    name, wanted = aim[0], target(*aim, 1)
    for number in itertools.count():
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            with monkeypatch.context() as patched:
                killed_at(number, folder, patched)
                Prepared(name, folder, worker(), converter).runner(wanted)
            break
        except Killed:
            Prepared(name, folder, worker(), converter).check(wanted)
    assert number > 0


@pytest.mark.tensorflow
def test_half_an_openvino_model_is_none(tmp_path, monkeypatch):
    wanted = target("mlp_keras", "serving_default", "f32", 1)
    first = Prepared("mlp_keras", tmp_path, openvino.Worker(), openvino_freeze.Converter)

    def save(model, path, **options):
        Path(path).write_text("<net")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(first.worker._device.openvino, "save_model", save)
        with pytest.raises(Killed):
            first.runner(wanted)
    prepared = Prepared("mlp_keras", tmp_path, openvino.Worker(), openvino_freeze.Converter)
    prepared.check(wanted)
    assert sorted(p.name for p in (tmp_path / "s0" / "openvino").iterdir()) == ["model.bin", "model.xml"]
