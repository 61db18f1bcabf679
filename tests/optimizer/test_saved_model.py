"""Reading SavedModels without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tfopt_optimizer import saved_model, twins
from tfopt_optimizer.saved_model import SavedModelError, State
from tfopt_protos import messages


def test_signatures_are_read_by_name(savedmodel):
    (found,) = saved_model.read_signatures(savedmodel("multi"))
    assert found.key == "serving_default"
    assert found.method_name == "tensorflow/serving/predict"
    assert [(t.name, t.dtype, t.shape) for t in found.inputs] == [("a", "float", (None, 4)), ("b", "float", (None, 3))]
    assert [(t.name, t.dtype) for t in found.outputs] == [("big", "bool"), ("product", "float"), ("total", "float")]


def test_defaults_and_internal_signatures(savedmodel):
    (found,) = saved_model.read_signatures(savedmodel("defaults"))
    assert found.defaults == ("scale",)
    assert saved_model.signature_defaults(savedmodel("defaults"), "serving_default")["scale"].tolist() == [[10.0]]
    assert "__saved_model_init_op" in saved_model.signature_defs(savedmodel("multi"))
    assert [s.key for s in saved_model.read_signatures(savedmodel("shared"))] == [
        "embed",
        "probabilities",
        "serving_default",
        "v2/top:1",
    ]


def test_reading_needs_no_tensorflow(savedmodel):
    code = (
        "import sys; from pathlib import Path; from tfopt_optimizer import saved_model\n"
        "saved_model.read_signatures(Path(sys.argv[1])); saved_model.states(Path(sys.argv[1]))\n"
        "assert not {'tensorflow', 'jax', 'jaxlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(savedmodel("tabular"))], check=True)


def test_state_that_a_signature_writes_is_found_inside_functions(savedmodel):
    states = saved_model.states(savedmodel("counter"))
    assert states["serving_default"] == State(writes=("AssignAddVariableOp",))
    assert states["get"] == State()
    # reading tables, parsing and restoring variables is no state of a signature
    assert saved_model.states(savedmodel("tabular"))["serving_default"] == State()
    assert saved_model.states(savedmodel("half_plus_two_v1_ref"))["serving_default"] == State()


def test_files_and_random_numbers_that_a_signature_reads_are_found(savedmodel):
    states = saved_model.states(savedmodel("outside"))
    assert states["serving_default"] == State(reads=("ReadFile",))
    assert states["sampled"] == State(random=("LogUniformCandidateSampler",))
    assert states["lines"].reads == ("TextLineDataset",)
    assert states["plain"] == State()


def test_what_is_no_saved_model_says_so(tmp_path, savedmodel):
    with pytest.raises(SavedModelError, match="does not appear to contain a SavedModel bundle"):
        saved_model.read_signatures(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(SavedModelError, match=r"saved_model\.pb is not a SavedModel"):
        saved_model.read_signatures(tmp_path)
    with pytest.raises(SavedModelError, match=r"supplied tags: \{ train \} .* it has: \{serve\}"):
        saved_model.read_signatures(savedmodel("multi"), ("train",))


def test_keras_twins_share_a_plan_and_others_do_not(savedmodel):
    def elders(name):
        folder = savedmodel(name)
        return twins.elders(folder, ("serve",), saved_model.read_signatures(folder))

    assert elders("mlp_keras") == {"serving_default": "serving_default", "serve": "serving_default"}
    assert elders("shared") == {k: k for k in ("embed", "probabilities", "serving_default", "v2/top:1")}
    v1 = elders("half_plus_two_v1")
    assert v1 == {k: k for k in v1}


def test_a_scalar_has_a_shape_without_dimensions(savedmodel):
    (found,) = saved_model.read_signatures(savedmodel("scalar"))
    assert {t.name: t.shape for t in found.inputs} == {"x": ()}


def test_a_tf1_loop_is_a_circle_in_the_graph_and_no_hindrance():
    """NextIteration leads back to Merge; the search for twins must come to an end there."""
    folder = Path(__file__).parents[1] / "old_models" / "2.12" / "tf1_reference_variables" / "1"
    assert twins.elders(folder, ("serve",), saved_model.read_signatures(folder)) == {
        "serving_default": "serving_default"
    }


def test_two_variables_that_wait_for_the_same_operation_are_no_twins(tmp_path):
    """A TF1 variable or table of no shared name is known by its node's name alone, whatever runs before it."""
    saved = messages.SavedModel()
    meta, keys = saved.meta_graphs.add(), ("serving_default", "other")
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.node.add(name="before", op="NoOp")
    for key in keys:
        meta.graph_def.node.add(name=key, op="VariableV2", input=["^before"])
        meta.signature_def[key].outputs["y"].name = f"{key}:0"
        meta.signature_def[key].outputs["y"].dtype = 1
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    found = twins.elders(tmp_path, ("serve",), saved_model.read_signatures(tmp_path))
    assert found == {key: key for key in keys}
