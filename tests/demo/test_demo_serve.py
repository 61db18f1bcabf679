"""The curl line of `make serve`: what it posts, and that it survives a shell."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from demo import held_out, serve


def posted(line: str):
    """The command's words, and the JSON it would post, as a shell would take the line apart."""
    words = shlex.split(line)
    return words[:-1], json.loads(words[-1])


def test_a_single_input_is_posted_as_bare_values():
    row = {"image": np.array([[[0.0, 16.0], [0.5, 1e-7]]], np.float32)}
    words, body = posted(serve.curl("http://localhost:1/v1/models/m:predict", row))
    assert words == ["curl", "-s", "http://localhost:1/v1/models/m:predict", "-d"]
    assert body == {"instances": [[[0, 16], [0.5, 1e-7]]]}


def test_several_inputs_are_posted_by_name_and_quotes_survive_the_shell():
    awkward = 'it\'s "quoted" $HOME `x` \\ \u00e9'
    row = {
        "word": np.array([awkward.encode()], object),
        "raw": np.array([b"\xff\xfe"], object),
        "count": np.array([3], np.int64),
        "yes": np.array([True]),
    }
    line = serve.curl("http://localhost:1/v1/models/m:predict", row)
    assert "\n" not in line
    assert posted(line)[1] == {"instances": [{"word": awkward, "raw": {"b64": "//4="}, "count": 3, "yes": True}]}


@pytest.mark.parametrize("value", [0.1, 14.05, 1e-12, 3.4e38, -7.0, 0.0])
def test_a_posted_float32_is_read_back_as_the_same_float32(value):
    assert np.float32(json.loads(json.dumps(serve.plain(np.float32(value))))) == np.float32(value)


def test_the_hint_names_a_real_row_and_its_true_answer(tmp_path: Path):
    answers = np.array([b"benign", b"malignant"], object)
    held_out.write(tmp_path, held_out.HeldOut({"x": np.array([[1.5], [2.5]], np.float32)}, answers))
    text = serve.hint(tmp_path, 8501)
    assert "the true answer is 'benign'" in text
    assert posted(text.split("\n\n")[1])[1] == {"instances": [[1.5]]}


def test_a_model_without_rows_gets_a_line_that_asks_for_its_metadata(tmp_path: Path):
    assert f"curl -s http://localhost:8501/v1/models/{tmp_path.name}/metadata" in serve.hint(tmp_path, 8501)


def test_a_model_that_is_not_there_is_named(tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        serve.main(["--model", str(tmp_path / "absent")])
    assert f"there is no folder {tmp_path / 'absent'}" in capsys.readouterr().err


def test_flags_of_the_server_are_passed_on():
    command = serve.server_command(Path("/m/digits"), 9001, ["--allow_precompilation"])
    assert command[1:] == [
        "serve",
        "--model_name=digits",
        "--model_base_path=/m/digits",
        "--rest_api_port=9001",
        "--port=9000",
        "--health_route=/health",
        "--allow_precompilation",
    ]


def test_held_out_rows_come_back_as_they_were_written(tmp_path: Path):
    inputs = {"n": np.array([[1, 2], [3, 4]], np.float32), "word": np.array([b"a", b"longer"], object)}
    held_out.write(tmp_path, held_out.HeldOut(inputs, np.array([4, 5])))
    found = held_out.read(tmp_path)
    assert {name: (array.dtype, array.tolist()) for name, array in found.inputs.items()} == {
        name: (array.dtype, array.tolist()) for name, array in inputs.items()
    }
    assert found.answer.tolist() == [4, 5]
    assert found.rows(1, 2)["word"].tolist() == [b"longer"]
