"""A pipeline's elements as tensors, and tensors as answers: no model, no Beam."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_server.beam import elements
from tfopt_server.beam.elements import ElementError


def signature(*inputs, outputs=(("y", "float", (None, 3)),), defaults=()):
    return SignatureInfo(
        "serving_default", "", tuple(TensorInfo(*i) for i in inputs), tuple(TensorInfo(*o) for o in outputs), defaults
    )


ONE = signature(("x", "float", (None, 2)))
TWO = signature(("word", "string", (None,)), ("id", "int64", (None,)))
WHOLE = signature(("x", "float", (None, 2)), ("scale", "float", ()))
LENGTHS = signature(("tokens", "int32", (None, None)))


def refusal(element, info):
    with pytest.raises(ElementError) as caught:
        elements.read(element, info, 3)
    return str(caught.value)


@pytest.mark.parametrize(
    "element", [[1.0, 2.0], {"x": [1, 2]}, {"x": np.array([1.0, 2.0])}, np.array([1, 2], np.uint8)], ids=repr
)
def test_a_row_is_a_mapping_or_the_one_input_itself(element):
    found = elements.read(element, ONE, 0)
    assert found["x"].dtype == np.float32
    assert found["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("word", ["é", "é".encode(), {"b64": "w6k="}, np.str_("é"), np.bytes_("é".encode())], ids=repr)
def test_strings_are_text_bytes_or_base64(word):
    found = elements.read({"word": word, "id": np.int32(7)}, TWO, 0)
    assert found["word"].item() == "é".encode()
    assert found["id"].dtype == np.int64
    assert found["id"].item() == 7


def test_a_serialized_example_is_an_element_where_it_is_the_only_input():
    info = signature(("examples", "string", (None,)))
    assert elements.read(b"\n\0", info, 0)["examples"].item() == b"\n\0"
    assert elements.read({"b64": "CgA="}, info, 0)["examples"].item() == b"\n\0"


@pytest.mark.parametrize(
    ("element", "info", "text"),
    [
        ([1.0], ONE, "element 3: input 'x': expected float[2], received [1.0]"),
        (np.zeros([2, 2], np.float32), ONE, "element 3: input 'x': expected float[2], received float32[2, 2]"),
        (["a", "b"], ONE, "element 3: input 'x': expected float[2], received ['a', 'b']"),
        (np.array(["a", "b"]), ONE, "element 3: input 'x': expected float[2], received <U1[2]"),
        ({"word": "a"}, TWO, "element 3: expected the inputs ['word', 'id'], received one without 'id'"),
        (
            {"word": "a", "id": 1, "ix": 1},
            TWO,
            "element 3: expected the inputs ['word', 'id'], received one with 'ix'",
        ),
        ("a", TWO, "element 3: expected a mapping with the inputs ['word', 'id'], received str"),
        ({"word": 1, "id": 1}, TWO, "element 3: input 'word': expected string[], received 1"),
        ({"word": "a", "id": 1.5}, TWO, "element 3: input 'id': expected int64[], received 1.5"),
        ({"word": "a", "id": np.float32(1)}, TWO, "element 3: input 'id': expected int64[], received float32[]"),
        ({"word": "a", "id": b"1"}, TWO, "element 3: input 'id': expected int64[], received b'1'"),
        ([[1, 2]], LENGTHS, "element 3: input 'tokens': expected int32['any'], received [[1, 2]]"),
        (
            np.array([2**31]),
            LENGTHS,
            "element 3: input 'tokens': expected int32['any'], received int64[1]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_element_that_does_not_fit_is_named_with_what_was_expected_and_what_came(element, info, text):
    assert refusal(element, info) == text


def test_an_input_with_a_default_may_be_left_out():
    info = signature(("x", "float", (None, 2)), ("bias", "float", (None,)), defaults=("bias",))
    assert set(elements.read({"x": [1.0, 2.0]}, info, 0)) == {"x"}


def grouped(batch, info, *, apart=False):
    feeds = {place: elements.read(element, info, place) for place, element in enumerate(batch)}
    return [(g.places, {n: a.tolist() for n, a in g.feeds.items()}) for g in elements.groups(feeds, info, apart=apart)]


def test_elements_of_one_shape_share_a_call():
    assert grouped([[1, 2], [3], [4, 5]], LENGTHS) == [
        ((0, 2), {"tokens": [[1, 2], [4, 5]]}),
        ((1,), {"tokens": [[3]]}),
    ]


def test_rows_that_are_not_independent_go_alone():
    assert grouped([[1], [2]], LENGTHS, apart=True) == [((0,), {"tokens": [[1]]}), ((1,), {"tokens": [[2]]})]


def test_where_an_input_has_no_rows_an_element_is_a_whole_request():
    batch = [{"x": [[1.0, 2.0], [3.0, 4.0]], "scale": 2.0}, {"x": [[5.0, 6.0]], "scale": 1.0}]
    assert grouped(batch, WHOLE) == [
        ((0,), {"x": [[1.0, 2.0], [3.0, 4.0]], "scale": 2.0}),
        ((1,), {"x": [[5.0, 6.0]], "scale": 1.0}),
    ]
    (answer,) = elements.answers({"y": np.zeros([2, 3])}, 1, WHOLE)
    assert answer["y"].shape == (2, 3)


def test_every_element_gets_its_row():
    first, second = elements.answers({"y": np.arange(6.0).reshape(2, 3)}, 2, ONE)
    assert first["y"].tolist() == [0.0, 1.0, 2.0]
    assert second["y"].tolist() == [3.0, 4.0, 5.0]


def test_an_output_without_rows_is_whole_for_one_element_and_an_error_for_two():
    info = signature(("x", "float", (None, 2)), outputs=(("total", "float", ()), ("columns", "float", (1,))))
    outputs = {"total": np.float32(3.0).reshape([]), "columns": np.zeros(1)}
    (answer,) = elements.answers(outputs, 1, info)
    assert {name: array.shape for name, array in answer.items()} == {"total": (), "columns": (1,)}
    with pytest.raises(ElementError, match=r"output 'columns': expected 2 rows for 2 elements, received \[1\]"):
        elements.answers(outputs, 2, info)
