"""Reading TensorFlow Serving's BatchingParameters."""

from __future__ import annotations

from pathlib import Path

import pytest
from tfopt_server.batching_parameters import BatchingParameters, BatchingParametersError, parse, read


def test_every_field() -> None:
    text = """
        max_batch_size { value: 32 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 7 }
        num_batch_threads { value: 3 } thread_pool_name { value: "pool" } allowed_batch_sizes: 2
        allowed_batch_sizes: 16 pad_variable_length_inputs: true enable_large_batch_splitting { value: true }
        max_execution_batch_size { value: 16 }
    """
    assert parse(text) == BatchingParameters(32, 500, 7, 3, "pool", (2, 16), True, True, 16)


def test_an_empty_file_gives_the_defaults_of_tensorflow_serving() -> None:
    assert parse("") == BatchingParameters(1000, 0, 10, None, "batch_threads", (), False, False, None)
    assert parse("batch_timeout_micros { value: 0 }").execution_limit == 1000


def test_everything_that_is_wrong_is_said_at_once() -> None:
    text = """max_batch_size { value: 8 } batch_timeout_micros { value: -1 } num_batch_threads { value: 0 }
              allowed_batch_sizes: 4 allowed_batch_sizes: 2"""
    with pytest.raises(BatchingParametersError) as caught:
        parse(text, "here")
    assert caught.value.problems == (
        "num_batch_threads must be positive; was 0",
        "batch_timeout_micros must be non-negative; was -1",
        "allowed_batch_sizes entries must be positive and increasing; were [4, 2]",
        "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 2; expected 8",
    )
    assert str(caught.value).startswith("here: ")


def test_splitting_has_its_own_limits() -> None:
    text = "max_batch_size { value: 8 } enable_large_batch_splitting { value: true } "
    assert parse(text + "max_enqueued_batches { value: 1 }").execution_limit == 8
    for more, problem in [
        ("max_enqueued_batches {}", "max_enqueued_batches must be positive; was 0"),
        (
            "max_execution_batch_size { value: 9 }",
            "max_batch_size must be greater than or equal to max_execution_batch",
        ),
        ("max_execution_batch_size { value: 4 } allowed_batch_sizes: 8", "must match max_execution_batch_size; last"),
    ]:
        with pytest.raises(BatchingParametersError, match=problem):
            parse(text + more)


def test_a_text_that_is_no_such_message(tmp_path: Path) -> None:
    with pytest.raises(BatchingParametersError, match='has no field named "batch_size"'):
        parse("batch_size { value: 1 }")
    with pytest.raises(BatchingParametersError, match=r"absent\.txt: cannot be read"):
        read(tmp_path / "absent.txt")
    path = tmp_path / "batching.txt"
    path.write_text("max_batch_size { value: 5 }")
    assert read(path) == BatchingParameters(max_batch_size=5)
