"""Shapes that cannot be batched, with TensorFlow's own words."""

from __future__ import annotations

from tfopt_optimizer.tpu import batch_rules


def test_rows_of_inputs_and_outputs_pass() -> None:
    assert batch_rules.shapes({"x": (None, 10), "n": None, "m": (None,)}, {"y": (None, 4), "z": None}) == []


def test_a_scalar_input_has_no_batch_dimension() -> None:
    (problem,) = batch_rules.shapes({"x": (None, 2), "scale": ()}, {"y": (None,)})
    assert problem.startswith("\"Batching input tensors must have at least one dimension\": input 'scale' is a scalar")


def test_inputs_of_different_fixed_rows() -> None:
    (problem,) = batch_rules.shapes({"a": (3, 2), "b": (4, 2)}, {"y": (None,)})
    assert problem == f"\"{batch_rules.UNEQUAL_ROWS}\": {{'a': 3, 'b': 4}}"


def test_a_fixed_batch_size_cannot_be_merged() -> None:
    (problem,) = batch_rules.shapes({"x": (1, 2)}, {"y": (None,)})
    assert "the first dimension of the inputs is fixed to 1" in problem


def test_an_output_without_the_rows_of_the_inputs() -> None:
    assert batch_rules.shapes({"x": (None, 2)}, {"columns": (2,), "total": ()}) == [
        f"\"{batch_rules.NO_OUTPUT_DIMENSION}\": output 'total' is a scalar; keep it out of the batched function",
        f"\"{batch_rules.UNEQUAL_OUTPUT}\": output 'columns' always has 2 rows",
    ]


def test_lengths_that_differ_between_requests_are_a_caution() -> None:
    (caution,) = batch_rules.cautions({"tokens": (None, None), "x": (None, 3)})
    assert caution.startswith("input 'tokens' has shape (None, None): requests that differ there")
    assert '"Dimensions of inputs should match"' in caution
