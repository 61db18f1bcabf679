"""`tfopt warmup inspect` and `synthesize`, on real models and without TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfopt_protos import messages
from tfopt_warmup import cli, records

Copy = Callable[..., Path]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Runs the command; the exit code and the lines of stdout and stderr."""

    def call(*argv: Any) -> tuple[int, list[str], list[str]]:
        code = cli.main([str(argument) for argument in argv])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    return call


def shapes(path: Path) -> list[tuple[str, dict[str, tuple[int, ...]]]]:
    return [(run.signature, {k: v.shape for k, v in run.feeds.items()}) for r in records.read(path) for run in r.runs]


def test_synthesize_then_inspect(run: Any, savedmodel_copy: Copy) -> None:
    model = savedmodel_copy("multi")
    path = records.path_in(model)
    made = run("synthesize", model, "--in_place", "--batch_sizes=8,1", "--count=2")
    assert made == (0, [f"{path}: 4 records for serving_default"], [])
    assert run("inspect", model) == (
        0,
        [
            "runs  kind     signature        inputs",
            "   2  predict  serving_default  a float[1, 4], b float[1, 3]",
            "   2  predict  serving_default  a float[8, 4], b float[8, 3]",
            f"{path}: 4 records, 4 runs, 0 without a request",
        ],
        [],
    )
    assert run("inspect", path) == run("inspect", model) == run("inspect", model.parent)


def test_records_of_one_signature_and_batch_differ_by_seed(run: Any, savedmodel: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("synthesize", savedmodel("half_plus_two"), "--out", out, "--count=3", "--seed=5")[0] == 0
    values = [record.runs[0].feeds["x"].tolist() for record in records.read(out)]
    assert len({str(value) for value in values}) == 3
    first = out.read_bytes()
    run("synthesize", savedmodel("half_plus_two"), "--out", out, "--count=3", "--seed=5")
    assert out.read_bytes() == first


def test_signatures_can_be_chosen(run: Any, savedmodel: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("synthesize", savedmodel("shared"), f"--out={out}", "--signatures=embed,v2/top:1")[0] == 0
    assert shapes(out) == [("embed", {"x": (1, 8)}), ("v2/top:1", {"x": (1, 8)})]
    code, _, said = run("synthesize", savedmodel("shared"), f"--out={out}", "--signatures=embed,embedd")
    assert (code, said) == (
        1,
        ["tfopt warmup: no signature 'embedd'; the model has embed, probabilities, serving_default, v2/top:1"],
    )


def test_signatures_that_cannot_be_made_up_are_named(run: Any, savedmodel: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, said = run("synthesize", savedmodel("half_plus_two_v1"), "--out", out)
    assert (code, len(said)) == (0, 5)
    assert said[0].startswith(
        "tfopt warmup: left out: signature 'classify_scores_only', input 'inputs': it takes serial"
    )
    assert shapes(out) == [("serving_default", {"x": (1, 1)})]
    out.unlink()
    code, _, said = run("synthesize", savedmodel("half_plus_two_v1"), "--out", out, "--signatures=regress_x_to_y")
    assert (code, len(said), out.exists()) == (1, 1, False)


def test_unknown_dimensions_need_a_size(run: Any, savedmodel: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, said = run("synthesize", savedmodel("sequence"), "--out", out)
    assert code == 1
    assert said[-1] == "tfopt warmup: inputs cannot be made up for any signature of this model"
    assert run("synthesize", savedmodel("sequence"), "--out", out, "--unknown_dim=12", "--batch_sizes=2")[0] == 0
    assert shapes(out) == [("serving_default", {"tokens": (2, 12)})]


def test_more_records_than_a_server_takes_are_refused(run: Any, savedmodel: Any, tmp_path: Path) -> None:
    code, _, said = run("synthesize", savedmodel("scalar"), "--out", tmp_path / "out", "--count=1001")
    assert (code, said) == (1, ["tfopt warmup: 1001 records are more than a server takes (1000); lower --count"])
    assert not (tmp_path / "out").exists()


def test_inspect_as_json_counts_every_kind(run: Any, tmp_path: Path) -> None:
    classify = messages.PredictionLog()
    classify.classify_log.request.input.example_list.examples.add()
    predict = records.predict_log("m", "", {"s": np.array([b"a"], object)})
    path = tmp_path / "f"
    records.write(path, [predict, classify, messages.PredictionLog(), predict])
    code, said, _ = run("inspect", "--json", path)
    assert code == 0
    assert json.loads(said[0]) == {
        "path": str(path),
        "records": 4,
        "skipped": 1,
        "groups": [
            {
                "runs": 1,
                "kind": "classify",
                "signature": "serving_default",
                "inputs": {"inputs": {"dtype": "string", "shape": [1]}},
            },
            {
                "runs": 2,
                "kind": "predict",
                "signature": "serving_default",
                "inputs": {"s": {"dtype": "string", "shape": [1]}},
            },
        ],
        "error": None,
    }


def test_inspect_shows_what_was_readable_and_then_the_error(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "f"
    records.write(path, [records.predict_log("m", "", {"x": np.float32(1)})] * 2)
    path.write_bytes(path.read_bytes()[:-1])
    code, said, wrong = run("inspect", path)
    assert code == 1
    assert said[-1] == f"{path}: 1 records, 1 runs, 0 without a request"
    assert wrong[0].startswith(f"tfopt warmup: DATA_LOSS: {path}: truncated record at ")
    assert json.loads(run("inspect", path, "--json")[1][0])["error"]["code"] == "DATA_LOSS"


def test_missing_models_and_files_are_one_line(run: Any, tmp_path: Path, savedmodel: Any) -> None:
    code, _, said = run("synthesize", tmp_path / "none", "--in_place")
    assert (code, said) == (1, [f"tfopt warmup: {tmp_path}/none: there is no saved_model.pb or saved_model.pbtxt here"])
    code, _, said = run("synthesize", savedmodel("scalar"), "--out", tmp_path / "o", "--saved_model_tags=serve,tpu")
    assert (code, said) == (
        1,
        [f"tfopt warmup: {savedmodel('scalar')}: no MetaGraph has the tags serve,tpu; there are: serve"],
    )
    code, _, said = run("inspect", tmp_path / "none")
    assert (code, said) == (1, [f"tfopt warmup: NOT_FOUND: {tmp_path}/none: there is no such file"])


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(
    run: Any, savedmodel: Any, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    for out, why in ((tmp_path / "taken", "Is a directory"), (tmp_path / "file" / "records", "File exists")):
        code, _, told = run("synthesize", savedmodel("half_plus_two"), "--out", out)
        assert code == 1
        assert len(told) == 1
        assert told[0].startswith("tfopt warmup: ")
        assert why in told[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


def test_text_models_and_broken_models(run: Any, savedmodel_copy: Copy, tmp_path: Path) -> None:
    model = savedmodel_copy("scalar")
    binary = model / "saved_model.pb"
    (model / "saved_model.pbtxt").write_text(messages.to_text(messages.SavedModel.FromString(binary.read_bytes())))
    binary.unlink()
    assert run("synthesize", model, "--out", tmp_path / "out")[0] == 0
    assert shapes(tmp_path / "out") == [("serving_default", {"x": ()})]
    binary.write_bytes(b"\xff\xff\xff")
    code, _, said = run("synthesize", model, "--out", tmp_path / "out")
    assert code == 1
    assert said[0].startswith(f"tfopt warmup: {model}: saved_model.pb(txt) cannot be parsed:")


def test_wrong_flags_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["synthesize", "m"], ["synthesize", "m", "--in_place", "--batch_sizes=0"], ["polish"], []):
        with pytest.raises(SystemExit) as caught:
            cli.main(argv)
        assert caught.value.code == 2
    assert "argument --batch_sizes" in capsys.readouterr().err


def test_no_engine_is_imported(savedmodel: Any, tmp_path: Path) -> None:
    code = f"""
import sys
from tfopt_warmup import cli
assert cli.main(["synthesize", {str(savedmodel("cnn"))!r}, "--out", {str(tmp_path / "o")!r}]) == 0
assert cli.main(["inspect", {str(tmp_path / "o")!r}]) == 0
heavy = {{"tensorflow", "jax", "grpc", "tfopt_optimizer", "tfopt_server"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
