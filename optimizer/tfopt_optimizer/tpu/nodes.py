"""Writes nodes and wrapper functions in FunctionDef form: the small vocabulary that placement and batching share.

Node names begin with a capital letter: a function's arguments share one namespace with its nodes and never do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tfopt_protos import dtypes, messages

from tfopt_optimizer.tpu.batch_rules import Shape

# What a wrapper keeps of the function it stands for: signature, argument attributes, input shapes.
_KEPT_ATTRS = ("_input_shapes", "_construction_context")


def value(given: bool | int | str | bytes) -> Any:
    """An AttrValue of a plain value."""
    attr = messages.message("tensorflow.AttrValue")()
    if isinstance(given, bool):
        attr.b = given
    elif isinstance(given, int):
        attr.i = given
    else:
        attr.s = given.encode() if isinstance(given, str) else given
    return attr


def dtype(number: int) -> Any:
    return messages.message("tensorflow.AttrValue")(type=number)


def types(numbers: Iterable[int]) -> Any:
    attr = messages.message("tensorflow.AttrValue")()
    attr.list.SetInParent()
    attr.list.type.extend(numbers)
    return attr


def ints(numbers: Iterable[int] = ()) -> Any:
    attr = messages.message("tensorflow.AttrValue")()
    attr.list.SetInParent()
    attr.list.i.extend(numbers)
    return attr


def int32s(numbers: int | Sequence[int]) -> Any:
    """The value of a constant: a scalar, or rank 1."""
    attr = messages.message("tensorflow.AttrValue")()
    attr.tensor.dtype = dtypes.NUMBERS["int32"]
    attr.tensor.tensor_shape.SetInParent()
    if isinstance(numbers, int):
        numbers = [numbers]
    else:
        attr.tensor.tensor_shape.dim.add(size=len(numbers))
    attr.tensor.int_val.extend(numbers)
    return attr


def function(name: str) -> Any:
    attr = messages.message("tensorflow.AttrValue")()
    attr.func.name = name
    return attr


def shape(sizes: Shape) -> Any:
    attr = messages.message("tensorflow.AttrValue")()
    if sizes is None:
        attr.shape.unknown_rank = True
        return attr
    attr.shape.SetInParent()
    for size in sizes:
        attr.shape.dim.add(size=-1 if size is None else size)
    return attr


def add(body: Any, op: str, name: str, inputs: Sequence[str] = (), **attrs: Any) -> Any:
    """Appends a node to a FunctionDef."""
    node = body.node_def.add(op=op, name=name)
    node.input.extend(inputs)
    for key, attr in attrs.items():
        node.attr[key].CopyFrom(attr)
    return node


def shell(original: Any, name: str) -> Any:
    """A FunctionDef with the arguments and results of `original` and no body yet."""
    made = messages.message("tensorflow.FunctionDef")()
    made.signature.CopyFrom(original.signature)
    made.signature.name = name
    made.signature.is_stateful = True
    # Control outputs name nodes of the old body; a name without its node fails the load.
    del made.signature.control_output[:]
    for index, attrs in original.arg_attr.items():
        made.arg_attr[index].CopyFrom(attrs)
    for index, unique in original.resource_arg_unique_id.items():
        made.resource_arg_unique_id[index] = unique
    for key in _KEPT_ATTRS:
        if key in original.attr:
            made.attr[key].CopyFrom(original.attr[key])
    return made


def finish(body: Any, call: str, results: Sequence[str], shapes: Sequence[Shape]) -> None:
    """Results of a wrapper: what its node `call` answers (edges), with the shapes that the called function had.

    TPUPartitionedCall and BatchFunction have no shape function: without EnsureShape the signatures lose their shapes.
    """
    for i, (arg, result, sizes) in enumerate(zip(body.signature.output_arg, results, shapes, strict=True)):
        if sizes is None:
            body.ret[arg.name] = result
            continue
        add(body, "EnsureShape", f"EnsureShape_{i}", [result], T=dtype(arg.type), shape=shape(sizes))
        body.ret[arg.name] = f"EnsureShape_{i}:output:0"
    body.signature.control_output.append(call)
    body.control_ret[call] = call
