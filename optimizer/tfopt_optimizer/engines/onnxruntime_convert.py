"""Converts signatures to ONNX through tf2onnx, with TensorFlow in a process of its own.

Freeze; rewrite what ONNX has no operation for, or computes otherwise (passes/); convert with the unknown dimensions
kept; refuse what ONNX Runtime computes otherwise than TensorFlow. tf2onnx finds Keras's loops over time and makes LSTM
and GRU operations of them, which is what this engine is for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tfopt_optimizer import whole
from tfopt_optimizer.engines import onnxruntime, rewritten
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place, Prepared, Runner, Target
from tfopt_optimizer.engines.freeze import Frozen, freeze
from tfopt_optimizer.errors import NotLowerable, first_line
from tfopt_optimizer.passes import erfc, floors, indices, log1p, sums
from tfopt_optimizer.plan import SignatureInfo

OPSET = 18  # the newest that tf2onnx 1.17 writes
PASSES = (erfc, log1p, floors, sums)
TYPES = frozenset({"float", "double", "half", "bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint32"})
# Integer division by zero is an error in TensorFlow and ends the process in ONNX Runtime.
_DIVIDING = frozenset({"Div", "Mod"})
_INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 12, 13})  # onnx.TensorProto's numbers


class Converter:
    """The conversion step in a worker process; it has no runners."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place = place
        self._model = tensorflow_engine.open_model(place, tensorflow_engine.FUNCTION)
        self._refused: dict[str, str] = {}
        return {"onnx": ""}

    def prepare(self, target: Target) -> Prepared:
        """Writes the ONNX model for all shapes of the signature. NotLowerable says why not."""
        key = target.signature.key
        if key in self._refused:
            raise NotLowerable(self._refused[key])
        try:
            self._write(target)
        except NotLowerable as error:
            self._refused[key] = str(error)
            raise
        return Prepared()

    def _write(self, target: Target) -> None:
        refuse_types(target.signature)
        assert isinstance(self._model, tensorflow_engine.FunctionModel)
        if target.source:
            frozen = rewritten.read(self._model.tf, self._place.plan_dir, target)
        else:
            frozen = freeze(self._model, target.signature)
        for rewrite in PASSES:
            rewrite.run(frozen.graph)
        indices.run(frozen.graph, [tensor.partition(":")[0] for tensor in frozen.inputs.values()])
        model = convert(frozen)
        folder = self._place.plan_dir / onnxruntime.folder(target)
        folder.mkdir(parents=True, exist_ok=True)
        onnxruntime.write_meta(folder, onnxruntime.Meta(frozen.inputs, frozen.outputs))
        whole.write(
            folder / onnxruntime.MODEL, model.SerializeToString()
        )  # last: its presence says that both are there

    def runner(self, target: Target) -> Runner:
        raise NotLowerable("the conversion step runs nothing")

    def release(self, target: Target) -> None:
        """Models are files in the plan."""


def refuse_types(signature: SignatureInfo) -> None:
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            if tensor.dtype not in TYPES:
                raise NotLowerable(f"{kind} {tensor.name!r} is of type {tensor.dtype}, which is not converted to ONNX")


def convert(frozen: Frozen) -> Any:
    """The ModelProto. NotLowerable names the operations that ONNX has no form of."""
    from tf2onnx import convert as tf2onnx

    quiet = logging.getLogger("tf2onnx")
    quiet.setLevel(logging.CRITICAL)  # what it complains about is in the reason
    try:
        model, _ = tf2onnx.from_graph_def(
            frozen.graph,
            input_names=list(frozen.inputs.values()),
            output_names=list(frozen.outputs.values()),
            opset=OPSET,
            custom_op_handlers={"Select": (_chosen, []), "SelectV2": (_chosen, []), "TopKV2": (_best, [])},
        )
    except Exception as error:
        # tf2onnx raises whatever its handlers meet: it all means "not this way".
        raise NotLowerable(f"tf2onnx cannot convert it: {first_line(error)}") from error
    if missing := unknown_operations(model):
        raise NotLowerable(f"ONNX has no operation for {', '.join(missing)}")
    if dividing := unsafe_divisions(model):
        raise NotLowerable(
            f"it divides integers by what comes in ({dividing}): a zero would end ONNX Runtime's process"
        )
    return model


def _chosen(context: Any, node: Any, name: str, args: Any) -> None:
    """tf2onnx makes `condition * x + (1 - condition) * y` of most choices, which is NaN where the other value is NaN or
    infinite, as in tf.where(x > 0, tf.math.log(x), 0). Told that there may be such, it makes a choice of it."""
    from tf2onnx.onnx_opset.controlflow import Select

    node.set_attr("handles_nan", True)
    Select.version_9(context, node)


def _best(context: Any, node: Any, name: str, args: Any) -> None:
    """tf2onnx compares all types as floats, of which float32 holds whole numbers up to 2^24."""
    from onnx import TensorProto
    from tf2onnx.onnx_opset.tensor import TopKV2

    node.type, given = "TopK", node.output_dtypes[0]
    exact = given in (TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)
    if exact:
        context.set_dtype(node.output[0], TensorProto.FLOAT)  # which it leaves as it is
    TopKV2.version_13(context, node)
    if exact:
        context.set_dtype(node.output[0], given)


def _graphs(graph: Any) -> list[Any]:
    """A graph and those inside it (loops and branches)."""
    found = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _graphs(attribute.g)
    return found


def unknown_operations(model: Any) -> list[str]:
    """tf2onnx leaves what it does not know in the model, under TensorFlow's name."""
    import onnx

    nodes = [node for graph in _graphs(model.graph) for node in graph.node if node.domain in ("", "ai.onnx")]
    return sorted({node.op_type for node in nodes if not onnx.defs.has(node.op_type, max_inclusive_version=OPSET)})


def unsafe_divisions(model: Any) -> str:
    """The first integer division whose divisor is no constant without a zero; "" if there is none."""
    import onnx

    try:
        typed = onnx.shape_inference.infer_shapes(model, data_prop=False)
    except onnx.shape_inference.InferenceError as error:
        raise NotLowerable(f"ONNX finds the converted model wrong: {first_line(error)}") from error
    for graph in _graphs(typed.graph):
        values = [*graph.value_info, *graph.input, *graph.output]
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        constants = {tensor.name: tensor for tensor in graph.initializer}
        types |= {name: tensor.data_type for name, tensor in constants.items()}
        for node in graph.node:
            if node.op_type not in _DIVIDING or types.get(node.input[1], 7) not in _INTEGERS:
                continue
            divisor = constants.get(node.input[1])
            if divisor is None or not onnx.numpy_helper.to_array(divisor).all():
                return str(node.op_type)
    return ""
