"""A signature as one GraphDef whose variables are constants: what other engines' converters read. Needs TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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

    tf, signature = model.tf, model.signature(info.key)
    names = [t.name for t in info.inputs]
    outputs = sorted(signature.structured_outputs)

    def call(*values: object) -> list[object]:
        found = signature(**dict(zip(names, values, strict=True)))
        return [tf.identity(found[name]) for name in outputs]

    specs = [tf.TensorSpec(t.shape, t.dtype, name=f"tfopt_input_{i}") for i, t in enumerate(info.inputs)]
    try:
        concrete = tf.function(call, autograph=False).get_concrete_function(*specs)
        # Before they are copied: 2.2 GB took 12 GB, and the process was killed before it could say why.
        refuse(sum(_bytes(tf, value) for value in concrete.captured_inputs))
        frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
        graph = frozen.graph.as_graph_def()
    except NotLowerable:
        raise
    except Exception as error:
        # Freezing raises whatever its passes meet: it all means "not this way".
        raise NotLowerable(f"TensorFlow cannot freeze it: {first_line(error)}") from error
    ends = {}
    for number, (name, tensor) in enumerate(zip(outputs, frozen.outputs, strict=True)):
        # A node of our own: OpenVINO takes what no other node reads as the model's outputs.
        end = graph.node.add(op="Identity", name=f"tfopt_output_{number}", input=[tensor.name])
        end.attr["T"].type = tensor.dtype.as_datatype_enum
        ends[name] = f"{end.name}:0"
    refuse(graph.ByteSize())
    return Frozen(graph, {name: f"tfopt_input_{i}:0" for i, name in enumerate(names)}, ends)


def _bytes(tf: Any, captured: Any) -> int:
    """Of a variable or a constant that a function reads; 0 for a table, and where the shape is not known."""
    if captured.dtype != tf.resource:
        return int(captured.shape.num_elements() or 0) * int(captured.dtype.size)
    handle = getattr(captured, "_handle_data", None)
    if handle is None or not handle.is_set or len(handle.shape_and_type) != 1:
        return 0
    shape, dtype = tf.TensorShape(handle.shape_and_type[0].shape), tf.dtypes.as_dtype(handle.shape_and_type[0].dtype)
    return int(shape.num_elements() or 0) * int(dtype.size)
