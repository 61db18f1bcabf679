"""What `tfopt inspect` finds in real models: both sides of a graph, and which variable is read by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import enginecases
import pytest
import savedmodels
from tfopt_optimizer.doctor import patient
from tfopt_optimizer.inspection import Inspection, inspect


def look(name: str) -> Inspection:
    return inspect(patient.read(savedmodels.path(name)))


def test_strings_and_tables_stay_on_the_host() -> None:
    (view,) = look("tabular").signatures
    assert view.host == {"HashTableV2": 2, "LookupTableFindV2": 2, "StringLower": 1}
    assert view.device["MatMul"] == 2
    assert view.device.keys() & view.host.keys() == set()
    assert [(r.why, r.count) for r in view.reasons] == [
        ("HashTableV2 has no compiled kernel", 2),
        ("LookupTableFindV2 has no compiled kernel", 2),
        ("StringLower has no compiled kernel", 1),
    ]


def test_segments_in_the_order_in_which_they_run() -> None:
    (view,) = look("tabular").signatures
    assert [(p.where, set(p.kinds) & {"LookupTableFindV2", "MatMul"}) for p in view.parts] == [
        ("host", {"LookupTableFindV2"}),
        ("device", {"MatMul"}),
    ]
    (view,) = look("lookup").signatures
    assert [(p.where, p.kinds) for p in view.parts] == [
        ("host", {"LookupTableFindV2": 2}),
        ("device", {"ResourceGather": 2, "AddV2": 1}),
    ]
    (view,) = look("strings").signatures
    assert [p.where for p in view.parts] == ["host"]
    assert [p.where for v in look("half_plus_two_v1").signatures for p in v.parts if p.where == "device"] == []
    view = look("recurrent").signatures[0]
    assert [p.where for p in view.parts] == ["device"]


@pytest.mark.tensorflow
def test_text_in_the_middle_makes_four_segments(tmp_path: Path) -> None:
    def compute(tf: Any, module: Any, text: Any) -> Any:
        x = tf.gather(tf.ones([50, 4]), tf.strings.to_hash_bucket_fast(text, 50))
        number = tf.strings.to_number(tf.strings.as_string(x[:, 0]))
        return {"y": (x + number[:, None]) @ tf.ones([4, 2])}

    enginecases.save(tmp_path / "model", compute, text=([None], "string"))
    (view,) = inspect(patient.read(tmp_path / "model")).signatures
    assert [p.where for p in view.parts] == ["host", "device", "host", "device"]
    assert [max(p.kinds) for p in view.parts][::2] == ["StringToHashBucketFast", "StringToNumber"]


def test_constants_and_variables_count_on_neither_side() -> None:
    (view,) = look("lookup").signatures
    assert view.host == {"HashTableV2": 2, "LookupTableFindV2": 2}
    assert view.device == {"AddV2": 1, "ResourceGather": 2}


def test_what_is_not_below_a_signature_is_not_counted() -> None:
    found = {v.signature.key: v for v in look("half_plus_two_v1").signatures}
    assert found["serving_default"].host == {}  # x is fed behind the parsing
    assert found["regress_x_to_y"].host == {"ParseExampleV2": 1}
    assert found["classify_x_to_y"].host == {"AsString": 1, "ParseExampleV2": 1}


def test_variables_with_sizes_and_readers() -> None:
    found = look("shared")
    rows = {v.key.partition("/.")[0]: (v.shape, v.bytes, v.read_by) for v in found.variables}
    everyone = ("embed", "probabilities", "serving_default", "v2/top:1")
    assert rows == {
        "hidden": ((8, 16), 512, everyone),
        "out": ((16, 4), 256, ("probabilities", "serving_default", "v2/top:1")),
    }
    assert [v.bytes for v in found.variables] == [512, 256]
    assert {v.key: v.read_by for v in look("half_plus_two_v1").variables}["c"] == (
        "regress_x2_to_y3",
        "regress_x_to_y2",
    )
    assert {v.name: v.read_by for v in look("half_plus_two_v1_ref").variables}["b"] == (
        "classify_scores_only", "classify_x_to_y", "regress_x_to_y", "serving_default"
    )  # fmt: skip


def test_the_rest() -> None:
    found = look("scalar")
    assert (found.tags, found.variables, found.checkpoint_problem) == (("serve",), (), "")
    assert found.bytes == sum(found.files.values()) > 0
    assert "saved_model.pb" in found.files
