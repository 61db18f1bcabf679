"""Exported models and the sweep over them, on a small model and this machine's CPU."""

from __future__ import annotations

import json

import pytest
from enginecases import save

from benchmarks import exported, models, sweep


def test_peaks_are_those_of_the_precision_and_unknown_for_other_chips():
    assert sweep.peak("NVIDIA H100 80GB HBM3", "gpu") == 67e12
    assert sweep.peak("NVIDIA H100 80GB HBM3", "gpu+tf32") == 495e12
    assert sweep.peak("", "pjrt") is None


@pytest.mark.tensorflow
def test_a_sweep_from_the_model_to_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "ROOT", tmp_path / "models")
    monkeypatch.setattr(models, "ensure", lambda model: model.base)
    save(tmp_path / "models" / "mlp" / "1", lambda tf, module, x: {"y": tf.nn.relu(x) * 2.0}, x=([None, 32], "float32"))
    assert exported.main(["--models=mlp", "--batches=1,3", f"--out={tmp_path / 'out'}"]) == 0
    found = [(model.name, target.rows, dict(target.shapes)) for model, _, target in exported.read(tmp_path / "out")]
    assert found == [("mlp", 1, {"x": (1, 32)}), ("mlp", 3, {"x": (3, 32)})]
    arguments = [str(tmp_path / "out"), "--device=cpu", "--seconds=0.01", f"--out={tmp_path}"]
    assert sweep.main(arguments) == 0
    (path,) = tmp_path.glob("*-sweep-cpu.json")
    told = json.loads(path.read_text())
    assert [(r["model"], r["batch"], r["variant"], r["error"]) for r in told["rows"]] == [
        ("mlp", 1, "pjrt", ""), ("mlp", 3, "pjrt", "")
    ]  # fmt: skip
    for row in told["rows"]:
        assert 0 < row["call_ms"] <= row["call_p90_ms"]
        assert row["rows_per_s"] > 0
        assert row["share_of_peak"] is None
    assert "rows/s" in capsys.readouterr().out
    assert sweep.main([*arguments, "--device=gpu"]) == 1
