"""Freezes a signature for OpenVINO, with TensorFlow in a process of its own: a graph whose variables are constants."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tfopt_optimizer.engines import openvino_read
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place, Prepared, Runner, Target
from tfopt_optimizer.engines.openvino import FOLDER
from tfopt_optimizer.errors import NotLowerable, first_line

LARGEST = 1 << 31  # bytes of a serialized graph


class Converter:
    """The conversion step in a worker process; it has no runners."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place = place
        self._model = tensorflow_engine.open_model(place, tensorflow_engine.FUNCTION)
        return {"frozen": ""}

    def prepare(self, target: Target) -> Prepared:
        """Writes the frozen graph and the names of its ends. NotLowerable when TensorFlow cannot freeze it."""
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        assert isinstance(self._model, tensorflow_engine.FunctionModel)
        tf, signature = self._model.tf, self._model.signature(target.signature.key)
        names = [t.name for t in target.signature.inputs]
        outputs = sorted(signature.structured_outputs)

        def call(*values: object) -> list[object]:
            found = signature(**dict(zip(names, values, strict=True)))
            return [tf.identity(found[name]) for name in outputs]

        specs = [
            tf.TensorSpec(t.shape, t.dtype, name=f"tfopt_input_{i}") for i, t in enumerate(target.signature.inputs)
        ]
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
        folder = (self._place.plan_dir / target.folder).parent / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        starts = {name: f"tfopt_input_{i}:0" for i, name in enumerate(names)}
        (folder / openvino_read.NAMES).write_text(json.dumps({"inputs": starts, "outputs": ends}))
        (folder / openvino_read.GRAPH).write_bytes(graph.SerializeToString())
        return Prepared()

    def runner(self, target: Target) -> Runner:
        raise NotLowerable("the conversion step runs nothing")

    def release(self, target: Target) -> None:
        """Graphs are files in the plan, until OpenVINO has read them."""
