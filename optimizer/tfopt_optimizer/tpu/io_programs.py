"""Weighs the forms of io_shapes.py with the TPU's compiler: a program that does nothing but bring rank 1 into shape.

Its arguments and results are the bytes that cross the link in either form, its modelled time is what the TPU pays (the
compiler's model has the same for the way back).
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tfopt_optimizer.tpu import ahead, io_shapes
from tfopt_optimizer.tpu.ahead import Program
from tfopt_optimizer.tpu.io_shapes import Costs, Function, Parcel, Weigh

_MLIR = {
    "float": "f32", "double": "f64", "half": "f16", "bfloat16": "bf16", "bool": "i1", "int8": "i8", "int16": "i16",
    "int32": "i32", "int64": "i64", "uint8": "ui8", "uint16": "ui16", "uint32": "ui32", "uint64": "ui64",
    "complex64": "complex<f32>",
}  # fmt: skip


def compiled(functions: Sequence[Function], topology: str) -> Weigh:
    """Compiles what may have to be weighed; what has no modelled time is weighed by arithmetic. AheadUnavailable."""
    found: dict[tuple[Parcel, int], Costs] = {}
    keys = [
        (parcel, rows)
        for parcel, rows in dict.fromkeys(c for function in functions for c in io_shapes.candidates(function))
        if parcel.tensors[0].dtype in _MLIR
    ]
    with tempfile.TemporaryDirectory(prefix="tfopt-io-shapes-") as folder:
        programs = [program(Path(folder, f"{i}.stablehlo"), *key) for i, key in enumerate(keys)]
        for key, made in zip(keys, ahead.compile_all(programs, topology), strict=True):
            if not made.error and made.optimal_s is not None:
                found[key] = Costs(made.outputs, made.arguments, made.optimal_s, topology)
    return lambda parcel, rows: found.get((parcel, rows)) or io_shapes.estimate(parcel, rows)


def text(parcel: Parcel, rows: int) -> str:
    """StableHLO: from rank 1 to the tensors of a parcel."""
    kind = _MLIR[parcel.tensors[0].dtype]

    def typed(shape: Sequence[int]) -> str:
        return f"tensor<{''.join(f'{d}x' for d in shape)}{kind}>"

    shapes = [t.sized(rows) for t in parcel.tensors]
    whole = (parcel.values(rows),)
    table = (rows, parcel.row) if parcel.by_rows else whole
    lines = [f"%all = stablehlo.reshape %x : ({typed(whole)}) -> {typed(table)}"]
    ends = list(itertools.accumulate(t.row for t in parcel.tensors))
    for i, (tensor, shape, end) in enumerate(zip(parcel.tensors, shapes, ends, strict=True)):
        cut = (rows, tensor.row) if parcel.by_rows else (tensor.row,)
        where = f"0:{rows}, {end - tensor.row}:{end}" if parcel.by_rows else f"{end - tensor.row}:{end}"
        lines.append(f"%s{i} = stablehlo.slice %all [{where}] : ({typed(table)}) -> {typed(cut)}")
        lines.append(f"%t{i} = stablehlo.reshape %s{i} : ({typed(cut)}) -> {typed(shape)}")
    results = ", ".join(map(typed, shapes))
    named = ", ".join(f"%t{i}" for i in range(len(shapes)))
    body = "\n  ".join([*lines, f"return {named} : {results}"])
    return f"func.func public @main(%x: {typed(whole)}) -> ({results}) {{\n  {body}\n}}\n"


def program(path: Path, parcel: Parcel, rows: int) -> Program:
    from jax._src.interpreters import mlir
    from jaxlib.mlir.dialects import stablehlo

    with mlir.make_ir_context():
        version = stablehlo.get_current_version()
        path.write_bytes(stablehlo.serialize_portable_artifact_str(text(parcel, rows), version))
    return Program(path.name, module=str(path))
