"""What was the converter asked to do: `--converter_options_string` into frozen, checked values.

    >>> parse('tpu_functions { function_alias: "tpu_func" } batch_options { num_batch_threads: 2 max_batch_size: 8 }')

The language is the ConverterOptions text format that Google's Cloud TPU Inference Converter documents
(protos/tfopt_protos/tpu_converter.proto). All mistakes are reported together, each with its line.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.text_format import ParseError
from tfopt_protos import messages

from tfopt_optimizer.tpu.batch_rules import BatchOptions, problems_of
from tfopt_optimizer.tpu.errors import ConversionError

ALIAS, CONCRETE, SIGNATURE, JIT = "function_alias", "concrete_function_name", "signature_name", "jit_compile_functions"
_DISABLED, _ENABLED = 2, 1
_SCOPES = {0: "TPU", 1: "TPU", 2: "ALL"}


@dataclasses.dataclass(frozen=True)
class Chosen:
    """One entry of tpu_functions: `kind` is its field's name; `name` is "" for jit_compile_functions."""

    kind: str
    name: str
    line: int = 0

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}"' if self.name else self.kind


@dataclasses.dataclass(frozen=True)
class Bfloat16:
    """`scope` "TPU" (the chosen functions) or "ALL" (every function); `keep` are kinds of operations left in float32.

    `demanded`: ENABLED was written, so that a model that cannot have it is an error instead of a line in the log.
    """

    enabled: bool = True
    demanded: bool = False
    scope: str = "TPU"
    skip_safety_checks: bool = False
    keep: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Sharding:
    """Over how many cores one call runs. `topology` is a serialized tensorflow.tpu.TopologyProto, or empty."""

    num_cores_per_replica: int = 1
    device_assignment: tuple[int, ...] = ()
    topology: bytes = b""


@dataclasses.dataclass(frozen=True)
class Options:
    """No function and no quantization given means: the converter partitions the model by itself."""

    functions: tuple[Chosen, ...] = ()
    batching: tuple[BatchOptions, ...] = ()
    bfloat16: Bfloat16 = Bfloat16()
    io_shapes: bool = True
    sharding: Sharding = Sharding()
    quantization: bytes | None = None  # a serialized tensorflow.quantization.QuantizationOptions


def parse(text: str) -> Options:
    """Reads the option string. ConversionError lists every mistake, with its line where it stands on one."""
    try:
        proto = messages.from_text("tfopt.tpu.ConverterOptions", text)
    except ParseError as error:
        raise ConversionError(f"converter_options_string:{error}") from error
    functions, wrong = _functions(proto, lines_of(text, "tpu_functions", len(proto.tpu_functions)))
    lines = lines_of(text, "batch_options", len(proto.batch_options))
    batching = tuple(_batch(b, n) for b, n in zip(proto.batch_options, lines, strict=True))
    wrong += problems_of(batching)
    sharding, more = _sharding(proto.xla_sharding_options)
    if wrong or more:
        raise ConversionError([f"converter_options_string: {problem}" for problem in wrong + more])
    return Options(
        functions=functions,
        batching=batching,
        bfloat16=_bfloat16(proto),
        io_shapes=_is_on(proto, "io_shape_optimization"),
        sharding=sharding,
        quantization=_quantization(proto),
    )


def lines_of(text: str, field: str, count: int) -> list[int]:
    """The line (from 1) of each of the `count` values of a top-level field; a list's values are on its name's line.

    0 for all of them where the text is too odd to be scanned (lines are for messages, never for meaning).
    """
    found = [line for line, name in _top_level(text) if name == field]
    return found if len(found) == count else [0] * count


def _top_level(text: str) -> Iterator[tuple[int, str]]:
    """Line and name of every message at depth 0, those in a list `name: [{...}, {...}]` included."""
    depth, listed, last = 0, 0, ("", 0)
    for match in re.finditer(r"#[^\n]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[\w.]+|\S", text):
        token, line = match[0], text.count("\n", 0, match.start()) + 1
        if token[0] in "#\"'":
            continue
        if token in "{<":
            if depth == listed:
                yield (last[1], last[0])
            depth += 1
        elif token in "}>":
            depth -= 1
        elif token in "[]":
            if depth == listed:
                listed = depth = int(token == "[")
        elif depth == 0 and re.match(r"[A-Za-z_]", token):
            last = (token, line)


def _functions(proto: Any, lines: Sequence[int]) -> tuple[tuple[Chosen, ...], list[str]]:
    found, wrong = [], []
    for entry, line in zip(proto.tpu_functions, lines, strict=True):
        kind = entry.WhichOneof("name")
        name = "" if kind in (None, JIT) else getattr(entry, kind)
        if not (entry.jit_compile_functions if kind == JIT else name):
            expected = f"{ALIAS}, {CONCRETE}, {SIGNATURE}, {JIT}: true"
            wrong.append(f"line {line}: tpu_functions names no function: expected one of {expected}")
            continue
        found.append(Chosen(kind, name, line))
    seen: set[str] = set()
    for chosen in found:
        if str(chosen) in seen:
            wrong.append(f"line {chosen.line}: {chosen} is given more than once: name each function a single time")
        seen.add(str(chosen))
    return tuple(found), wrong


def _batch(proto: Any, line: int) -> BatchOptions:
    def given(field: str) -> int | None:
        return int(getattr(proto, field)) if proto.HasField(field) else None

    component = proto.experimental.WhichOneof("batch_component")
    return BatchOptions(
        line=line,
        component=(component, getattr(proto.experimental, component)) if component else None,
        num_batch_threads=given("num_batch_threads"),
        max_batch_size=given("max_batch_size"),
        batch_timeout_micros=given("batch_timeout_micros"),
        allowed_batch_sizes=tuple(proto.allowed_batch_sizes),
        max_enqueued_batches=given("max_enqueued_batches"),
        splitting=not proto.disable_large_batch_splitting if proto.HasField("disable_large_batch_splitting") else None,
    )


def _is_on(proto: Any, field: str) -> bool:
    """DEFAULT is on, unless disable_default_optimizations; ENABLED is on even then."""
    state = getattr(proto, field)
    return bool(state == _ENABLED or (state != _DISABLED and not proto.disable_default_optimizations))


def _bfloat16(proto: Any) -> Bfloat16:
    given = proto.bfloat16_optimization_options
    return Bfloat16(
        enabled=_is_on(proto, "bfloat16_optimization"),
        demanded=proto.bfloat16_optimization == _ENABLED,
        scope=_SCOPES[given.scope],
        skip_safety_checks=given.skip_safety_checks,
        keep=frozenset(given.filterlist),
    )


def _sharding(given: Any) -> tuple[Sharding, list[str]]:
    """TensorFlow wants device_assignment as 4 coordinates (x, y, z, core) per core of a replica."""
    cores = given.num_cores_per_replica if given.HasField("num_cores_per_replica") else 1
    assignment = tuple(given.device_assignment)
    wrong = []
    if cores < 1:
        wrong.append(f"xla_sharding_options.num_cores_per_replica: expected at least 1, received {cores}")
    elif assignment and len(assignment) != 4 * cores:
        wrong.append(
            f"xla_sharding_options.device_assignment: expected 4 coordinates for each of {cores} cores "
            f"({4 * cores} numbers), received {len(assignment)}"
        )
    return Sharding(cores, assignment, given.topology.encode()), wrong


def _quantization(proto: Any) -> bytes | None:
    if not proto.external_feature_configs.HasField("quantization_options"):
        return None
    return bytes(proto.external_feature_configs.quantization_options.SerializeToString())
