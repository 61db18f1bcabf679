"""The option language of the converter: what it means, and mistakes with their lines."""

from __future__ import annotations

import pytest
from tfopt_optimizer.tpu import options
from tfopt_optimizer.tpu.batch_rules import BatchOptions
from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_optimizer.tpu.options import Bfloat16, Chosen, Options, Sharding
from tfopt_protos import messages

BATCH = "num_batch_threads: 2 max_batch_size: 8 batch_timeout_micros: 5000"


def refused(text: str) -> list[str]:
    with pytest.raises(ConversionError) as error:
        options.parse(text)
    return [p.removeprefix("converter_options_string: ") for p in error.value.problems]


def test_every_documented_field_is_read() -> None:
    text = """
        tpu_functions { function_alias: "tpu_func" }
        tpu_functions { concrete_function_name: "__inference_f_12" }
        tpu_functions { signature_name: "raw" }
        tpu_functions { jit_compile_functions: true }   # a comment with tpu_functions { in it
        batch_options {
          num_batch_threads: 2
          max_batch_size: 8
          batch_timeout_micros: 5000
          allowed_batch_sizes: 2
          allowed_batch_sizes: [4, 8]
          max_enqueued_batches: 10
          disable_large_batch_splitting: true
          experimental { signature_name: "raw" }
        }
        io_shape_optimization: DISABLED
        bfloat16_optimization: ENABLED
        bfloat16_optimization_options { scope: ALL skip_safety_checks: true filterlist: "Softmax" filterlist: "Mean" }
        xla_sharding_options { num_cores_per_replica: 2 device_assignment: [0, 0, 0, 0, 1, 0, 0, 0] topology: "t" }
        external_feature_configs { quantization_options { tags: "serve" } }
    """
    read = options.parse(text)
    quantization = messages.message("tensorflow.quantization.QuantizationOptions")(tags=["serve"])
    assert read == Options(
        functions=(
            Chosen("function_alias", "tpu_func", 2),
            Chosen("concrete_function_name", "__inference_f_12", 3),
            Chosen("signature_name", "raw", 4),
            Chosen("jit_compile_functions", "", 5),
        ),
        batching=(BatchOptions(6, ("signature_name", "raw"), 2, 8, 5000, (2, 4, 8), 10, False),),
        bfloat16=Bfloat16(True, True, "ALL", True, frozenset({"Softmax", "Mean"})),
        io_shapes=False,
        sharding=Sharding(2, (0, 0, 0, 0, 1, 0, 0, 0), b"t"),
        quantization=quantization.SerializeToString(),
    )


def test_the_documented_field_numbers() -> None:
    def numbers(name: str) -> dict[str, int]:
        return {f.name: f.number for f in messages.message(f"tfopt.tpu.{name}").DESCRIPTOR.fields}

    converter = numbers("ConverterOptions")
    del converter["external_feature_configs"]  # the documentation's listing leaves it out
    assert converter == {
        "tpu_functions": 1,
        "batch_options": 100,
        "io_shape_optimization": 200,
        "bfloat16_optimization": 201,
        "disable_default_optimizations": 202,
        "bfloat16_optimization_options": 203,
        "xla_sharding_options": 204,
    }
    assert numbers("TpuFunction") == {
        "function_alias": 1,
        "concrete_function_name": 3,
        "jit_compile_functions": 4,
        "signature_name": 5,
    }
    assert numbers("BatchOptions") == {
        "num_batch_threads": 1,
        "max_batch_size": 2,
        "batch_timeout_micros": 3,
        "allowed_batch_sizes": 4,
        "max_enqueued_batches": 5,
        "disable_large_batch_splitting": 6,
        "experimental": 7,
    }


@pytest.mark.parametrize(
    ("text", "on", "demanded"),
    [
        ("", True, False),
        ("disable_default_optimizations: true", False, False),
        ("disable_default_optimizations: true bfloat16_optimization: ENABLED", True, True),
        ("bfloat16_optimization: DISABLED", False, False),
        ("bfloat16_optimization: DEFAULT", True, False),
    ],
)
def test_default_optimizations(text: str, on: bool, demanded: bool) -> None:
    read = options.parse(text).bfloat16
    assert (read.enabled, read.demanded) == (on, demanded)


def test_a_function_named_twice_is_an_error() -> None:
    text = "\n".join(f'tpu_functions {{ function_alias: "{name}" }}' for name in "fgf")
    assert refused(text) == ['line 3: function_alias "f" is given more than once: name each function a single time']


def test_syntax_errors_name_line_and_column() -> None:
    assert refused("\ntpu_function { }") == [
        'converter_options_string:2:1 : Message type "tfopt.tpu.ConverterOptions" has no field named "tpu_function".'
    ]


def test_all_mistakes_come_together() -> None:
    text = """tpu_functions { }
        tpu_functions { jit_compile_functions: false }
        batch_options { num_batch_threads: 0 }
        xla_sharding_options { num_cores_per_replica: 2 device_assignment: [0, 0] }"""
    expected = "function_alias, concrete_function_name, signature_name, jit_compile_functions: true"
    assert refused(text) == [
        f"line 1: tpu_functions names no function: expected one of {expected}",
        f"line 2: tpu_functions names no function: expected one of {expected}",
        "line 3: batch_options: num_batch_threads: expected at least 1, received 0",
        "xla_sharding_options.device_assignment: expected 4 coordinates for each of 2 cores (8 numbers), received 2",
    ]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            "allowed_batch_sizes: [4, 2, 8]",
            '"allowed_batch_sizes entries must be monotonically increasing", received [4, 2, 8]',
        ),
        (
            "allowed_batch_sizes: [2, 4] disable_large_batch_splitting: true",
            '"final entry in allowed_batch_sizes must equal max_batch_size when enable_large_batch_splitting is '
            'False", received 4 and 8',
        ),
        (
            "allowed_batch_sizes: [2, 16]",
            "max_batch_size: expected at least the largest of allowed_batch_sizes (16), received 8",
        ),
        ("max_enqueued_batches: 0", "max_enqueued_batches: expected at least 1, received 0"),
    ],
)
def test_batching_that_the_first_request_would_fail(given: str, problem: str) -> None:
    assert refused(f"batch_options {{ {BATCH} {given} }}") == [f"line 1: batch_options: {problem}"]


def test_splitting_allows_requests_larger_than_a_batch() -> None:
    (read,) = options.parse(f"batch_options {{ {BATCH} allowed_batch_sizes: [2, 4] }}").batching
    assert read.allowed_batch_sizes == (2, 4)


def test_batching_one_component_twice_is_an_error() -> None:
    text = f'batch_options {{ {BATCH} }} batch_options {{ {BATCH} experimental {{ function_alias: "f" }} }}\n'
    assert len(options.parse(text).batching) == 2
    assert refused(text + f"batch_options {{ {BATCH} }}") == [
        "line 2: batch_options for all TPU functions are given 2 times"
    ]


def test_lines_of_a_list_are_those_of_its_name() -> None:
    text = '\ntpu_functions: [{ function_alias: "a{" }, \n { function_alias: "b" }]'
    assert [c.line for c in options.parse(text).functions] == [2, 2]
