"""A signature as one GraphDef whose variables are constants: what other engines' converters read. Needs TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.errors import NotLowerable, first_line
from tfopt_optimizer.plan import SignatureInfo

LARGEST = 1 << 31  # bytes of a serialized graph


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
        frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
        graph = frozen.graph.as_graph_def()
    except Exception as error:
        # Freezing raises whatever its passes meet: it all means "not this way".
        raise NotLowerable(f"TensorFlow cannot freeze it: {first_line(error)}") from error
    ends = {}
    for number, (name, tensor) in enumerate(zip(outputs, frozen.outputs, strict=True)):
        # A node of our own: OpenVINO takes what no other node reads as the model's outputs.
        end = graph.node.add(op="Identity", name=f"tfopt_output_{number}", input=[tensor.name])
        end.attr["T"].type = tensor.dtype.as_datatype_enum
        ends[name] = f"{end.name}:0"
    if graph.ByteSize() >= LARGEST:
        raise NotLowerable(f"{graph.ByteSize() / 1e9:.1f} GB of constants do not fit into a frozen graph")
    return Frozen(graph, {name: f"tfopt_input_{i}:0" for i, name in enumerate(names)}, ends)
