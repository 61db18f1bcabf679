"""The test models are what their builders say, so that a test that fails on one accuses the right thing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import savedmodels

pytestmark = pytest.mark.tensorflow

# In a process of its own: TF1 and TF2 loading mix badly with whatever else a test process holds.
PROBE = """
import json, sys
from tfopt_optimizer.absent import absent
with absent("jax", "sklearn"):  # half of its time
    import tensorflow as tf
paths, answers = json.load(sys.stdin), {}
def call(model, signature="serving_default", **feeds):
    loaded = tf.saved_model.load(paths[model])
    found = loaded.signatures[signature](**{k: tf.constant(v) for k, v in feeds.items()})
    as_text = lambda v: v.astype(str).tolist() if v.dtype == object else v.tolist()
    answers[f"{model}/{signature}"] = {k: as_text(v.numpy()) for k, v in sorted(found.items())}
def session(model, signature, **feeds):
    with tf.Graph().as_default(), tf.compat.v1.Session() as s:
        meta = tf.compat.v1.saved_model.load(s, ["serve"], paths[model])
        found = meta.signature_def[signature]
        out = {k: v.name for k, v in found.outputs.items()}
        answers[f"{model}/{signature}"] = {
            k: v.astype(str).tolist() if v.dtype == object else v.tolist()
            for k, v in sorted(s.run(out, {found.inputs[k].name: v for k, v in feeds.items()}).items())
        }
example = tf.train.Example()
example.features.feature["x"].float_list.value.append(4.0)
call("half_plus_two", x=[[1.0], [2.0]])
for model in ("half_plus_two_v1", "half_plus_two_v1_ref"):
    session(model, "serving_default", x=[[1.0]])
    session(model, "classify_x_to_y", inputs=[example.SerializeToString()])
    session(model, "regress_x_to_y2", inputs=[example.SerializeToString()])
call("strings", text=[b"AbC"])
call("row_dependent", x=[[1.0, 1, 1, 1], [3.0, 3, 3, 3]])
call("scalar", x=3.0)
call("no_batch_outputs", x=[[1.0, 2, 3, 4], [1.0, 2, 3, 4]])
call("counter", step=[1.0, 2.0])
session("defaults", "serving_default", x=[[1.0, 2.0]], scale=[[3.0]])
print(json.dumps(answers))
"""


def test_models_answer_as_their_builders_say(savedmodel: Callable[[str], Path]) -> None:
    paths = {name: str(savedmodel(name)) for name in savedmodels.names()}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, input=json.dumps(paths), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    example_forms = {
        "serving_default": {"y": [[2.5]]},
        "classify_x_to_y": {"classes": [["4"]], "scores": [[4.0]]},
        "regress_x_to_y2": {"outputs": [[5.0]]},
    }
    assert json.loads(done.stdout) == {
        "half_plus_two/serving_default": {"y": [[2.5], [3.0]]},
        **{f"half_plus_two_v1/{k}": v for k, v in example_forms.items()},
        **{f"half_plus_two_v1_ref/{k}": v for k, v in example_forms.items()},
        "strings/serving_default": {"length": [3], "lower": ["abc"], "lower_bytes": ["abc"]},
        "row_dependent/serving_default": {"centered": [[-1.0] * 4, [1.0] * 4]},
        "scalar/serving_default": {"y": 6.0},
        "no_batch_outputs/serving_default": {"columns": [2.0, 4.0, 6.0, 8.0], "total": 20.0},
        "counter/serving_default": {"count": [3.0, 3.0]},
        "defaults/serving_default": {"y": [[3.0, 6.0]]},
    }


def test_every_model_is_a_version_folder(savedmodel: Callable[[str], Path]) -> None:
    for name in savedmodels.names():
        assert (savedmodel(name) / "saved_model.pb").is_file()
        assert savedmodel(name).name == "1"


def test_a_copy_may_be_changed(savedmodel_copy: Callable[..., Path], savedmodel: Callable[[str], Path]) -> None:
    mine = savedmodel_copy("half_plus_two", version=7)
    (mine / "saved_model.pb").unlink()
    assert (savedmodel("half_plus_two") / "saved_model.pb").exists()
    assert mine.name == "7"


def test_unknown_models_are_named() -> None:
    with pytest.raises(KeyError, match="no model 'nothing'; there are half_plus_two"):
        savedmodels.path("nothing")
