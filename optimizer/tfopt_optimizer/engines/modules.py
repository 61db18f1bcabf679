"""StableHLO modules read and rewritten with jaxlib's MLIR: result types, large constants, precision, donated inputs,
shardings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer import sharding

LARGE_CONSTANT = 64 << 10  # bytes
_HOISTED = ("f32", "f64", "i32", "i64")
_PRODUCTS = ("stablehlo.dot_general", "stablehlo.dot", "stablehlo.convolution")


def results(module: bytes) -> list[str]:
    """The types of what a serialized module gives, as MLIR writes them: ["tensor<4x3xf32>"]. A "?" is a dimension that
    only running decides: TensorFlow lowers such results (Where, Unique), XLA then gives them a wrong shape."""
    from jax._src.interpreters import mlir
    from jaxlib.mlir.dialects import stablehlo

    with mlir.make_ir_context() as context:
        for operation in stablehlo.deserialize_portable_artifact(context, module).body.operations:
            if operation.attributes["sym_name"].value == "main":
                return [str(t) for t in operation.attributes["function_type"].value.results]
    raise ValueError("the module has no main function")


def hoisted(module: bytes, least: int = LARGE_CONSTANT) -> tuple[bytes, list[np.ndarray]]:
    """The module with its large constants as further parameters, behind those it has, and the constants in their order.

    A model whose weights are constants of its graph would hold them in every bucket's module and executable.
    """
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    found: list[np.ndarray] = []
    with mlir.make_ir_context() as context, ir.Location.unknown():
        parsed = stablehlo.deserialize_portable_artifact(context, module)
        main = next(f for f in parsed.body.operations if f.attributes["sym_name"].value == "main")
        body, kind = main.regions[0].blocks[0], ir.FunctionType(main.attributes["function_type"].value)
        inputs, results = list(kind.inputs), list(kind.results)
        for operation in [op.operation for op in body.operations if op.operation.name == "stablehlo.constant"]:
            value, result = operation.attributes["value"], operation.results[0]
            if (
                value.is_splat
                or str(value.type.element_type) not in _HOISTED
                or (array := np.array(value)).nbytes < least
            ):
                continue
            found.append(array)
            inputs.append(result.type)
            result.replace_all_uses_with(body.add_argument(result.type, ir.Location.unknown()))
            operation.erase()
        if not found:
            return module, []
        main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, results))
        if "arg_attrs" in main.attributes:
            attributes = [*main.attributes["arg_attrs"], *[ir.DictAttr.get({})] * len(found)]
            main.attributes["arg_attrs"] = ir.ArrayAttr.get(attributes)
        parsed.operation.verify()
        return bytes(stablehlo.serialize_portable_artifact(parsed, stablehlo.get_current_version())), found


def for_accelerator(module: bytes, inputs: int, *, exact: bool) -> bytes:
    """The module as a gpu or tpu compiles it: the first `inputs` parameters may be overwritten once they are read.

    `exact`: products are computed in float32. By itself a GPU rounds their inputs to TF32 (10 bits), a TPU to bfloat16
    (7 bits).
    """
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    with mlir.make_ir_context() as context, ir.Location.unknown():
        parsed = stablehlo.deserialize_portable_artifact(context, module)
        main = next(f for f in parsed.body.operations if f.attributes["sym_name"].value == "main")
        given = list(main.attributes["arg_attrs"]) if "arg_attrs" in main.attributes else []
        given += [ir.DictAttr.get({})] * (
            len(ir.FunctionType(main.attributes["function_type"].value).inputs) - len(given)
        )
        donor = {"jax.buffer_donor": ir.BoolAttr.get(True)}
        given[:inputs] = [ir.DictAttr.get({**{a.name: a.attr for a in old}, **donor}) for old in given[:inputs]]
        main.attributes["arg_attrs"] = ir.ArrayAttr.get(given)
        if exact:
            highest = ir.ArrayAttr.get([stablehlo.PrecisionAttr.get("HIGHEST")] * 2)
            for operation in _operations(parsed.operation):
                if operation.name in _PRODUCTS:
                    operation.attributes["precision_config"] = highest
        parsed.operation.verify()
        return bytes(stablehlo.serialize_portable_artifact(parsed, stablehlo.get_current_version()))


def partitioned(module: bytes, parts: int, shardings: Sequence[str]) -> bytes:
    """The module for GSPMD over `parts` devices: a sharding for each parameter, every result whole on each device."""
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    with mlir.make_ir_context() as context, ir.Location.unknown():
        parsed = stablehlo.deserialize_portable_artifact(context, module)
        main = next(f for f in parsed.body.operations if f.attributes["sym_name"].value == "main")
        kind = ir.FunctionType(main.attributes["function_type"].value)
        wanted = [[*shardings], [sharding.WHOLE] * len(kind.results)]
        for name, texts in zip(("arg_attrs", "res_attrs"), wanted, strict=True):
            given = list(main.attributes[name]) if name in main.attributes else [ir.DictAttr.get({})] * len(texts)
            main.attributes[name] = ir.ArrayAttr.get(
                [
                    ir.DictAttr.get({**{a.name: a.attr for a in old}, "mhlo.sharding": ir.StringAttr.get(text)})
                    for old, text in zip(given, texts, strict=True)
                ]
            )
        number = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), parts)
        parsed.operation.attributes["mhlo.num_partitions"] = number
        parsed.operation.verify()
        return bytes(stablehlo.serialize_portable_artifact(parsed, stablehlo.get_current_version()))


def parsed(module: bytes, use: Callable[[Any], Any]) -> Any:
    """What `use` makes of the module as jaxlib's MLIR, which lives no longer than this call."""
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    with mlir.make_ir_context() as context, ir.Location.unknown():
        return use(stablehlo.deserialize_portable_artifact(context, module))


def _operations(operation: Any) -> Iterator[Any]:
    """All operations below one, in loops and branches too."""
    for region in operation.regions:
        for block in region:
            for inner in block:
                yield inner.operation
                yield from _operations(inner.operation)
