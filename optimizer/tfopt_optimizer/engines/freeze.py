"""A signature as one GraphDef whose variables are constants: what other engines' converters read. Needs TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfopt_optimizer import wording
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.errors import NotLowerable, first_line
from tfopt_optimizer.plan import SignatureInfo

LARGEST = 1 << 31  # bytes of a serialized graph


def refuse(size: int) -> None:
    """NotLowerable for a graph of so many bytes that it cannot be written."""
    if size >= LARGEST:
        raise NotLowerable(f"{wording.size(size)} of constants do not fit into a frozen graph")


@dataclasses.dataclass(frozen=True)
class Frozen:
    """`inputs` and `outputs`: the signature's names -> tensor names in `graph` (a GraphDef of TensorFlow's pool)."""

    graph: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def freeze(model: tensorflow_engine.FunctionModel, info: SignatureInfo) -> Frozen:
    """NotLowerable when TensorFlow cannot freeze it, or it does not fit into a graph."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    concrete = one_function(model, info)
    # Before they are copied: 2.2 GB took 12 GB, and the process was killed before it could say why.
    refuse(sum(bytes_of(model.tf, value) for value in concrete.captured_inputs))
    try:
        frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
        graph = frozen.graph.as_graph_def()
    except Exception as error:
        # Freezing raises whatever its passes meet: it all means "not this way".
        raise NotLowerable(f"TensorFlow cannot freeze it: {first_line(error)}") from error
    found = with_ends(graph, info, frozen.outputs)
    refuse(graph.ByteSize())
    return found


def one_function(model: tensorflow_engine.FunctionModel, info: SignatureInfo) -> Any:
    """The signature as a function of `tfopt_input_<i>`, its results in the order of their names."""
    tf, signature = model.tf, model.signature(info.key)
    names = [t.name for t in info.inputs]

    def call(*values: object) -> list[object]:
        found = signature(**dict(zip(names, values, strict=True)))
        return [tf.identity(found[name]) for name in sorted(signature.structured_outputs)]

    specs = [tf.TensorSpec(t.shape, t.dtype, name=f"tfopt_input_{i}") for i, t in enumerate(info.inputs)]
    try:
        return tf.function(call, autograph=False).get_concrete_function(*specs)
    except Exception as error:
        # Tracing raises whatever the signature's function does: it all means "not this way".
        raise NotLowerable(f"TensorFlow cannot freeze it: {first_line(error)}") from error


def with_ends(graph: Any, info: SignatureInfo, outputs: Sequence[Any]) -> Frozen:
    """A graph of `one_function` with nodes of our own at its end: OpenVINO takes what no other node reads as the
    model's outputs. `outputs`: its tensors."""
    ends = {}
    for number, (name, tensor) in enumerate(zip(sorted(t.name for t in info.outputs), outputs, strict=True)):
        end = graph.node.add(op="Identity", name=f"tfopt_output_{number}", input=[tensor.name])
        end.attr["T"].type = tensor.dtype.as_datatype_enum
        ends[name] = f"{end.name}:0"
    return Frozen(graph, {t.name: f"tfopt_input_{i}:0" for i, t in enumerate(info.inputs)}, ends)


def bytes_of(tf: Any, captured: Any) -> int:
    """Of a variable or a constant that a function reads; 0 for a table, and where the shape is not known."""
    if captured.dtype != tf.resource:
        return int(captured.shape.num_elements() or 0) * int(captured.dtype.size)
    handle = getattr(captured, "_handle_data", None)
    if handle is None or not handle.is_set or len(handle.shape_and_type) != 1:
        return 0
    shape, dtype = tf.TensorShape(handle.shape_and_type[0].shape), tf.dtypes.as_dtype(handle.shape_and_type[0].dtype)
    return int(shape.num_elements() or 0) * int(dtype.size)
