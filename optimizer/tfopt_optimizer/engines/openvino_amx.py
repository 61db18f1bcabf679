"""Float32 matrix products as bfloat16 ones, for processors whose matrix unit takes bfloat16 alone (AMX).

A float32 is the sum of two bfloat16 up to 2^-16 of it: x = xh + xl, W = Wh + Wl. Of the four products the least, xl Wl,
is left out; the other three are one product of three times the depth, [xh xh xl] [Wh Wl Wh], whose sums are kept in
float32. (oneMKL offers the same as `float_to_bf16x2`.) The matrix unit is more than three times as fast as the vector
units: BERT-small at batch 8 takes 0.8 of the time; its largest error is 6e-6 of the output's magnitude, where float32's
own is 5e-7.

OpenVINO's MatMul of bfloat16 gives bfloat16. Its CPU plugin's own FullyConnected can give float32; it is an extension
that the plugin exports, private to the pinned version; tests/optimizer/test_openvino_amx.py holds it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from tfopt_optimizer import cpu
from tfopt_optimizer.errors import NotLowerable

LEAST = 64  # rows and columns of weights that are worth it
_PLUGIN = "libopenvino_intel_cpu_plugin.so"


def usable() -> bool:
    return "amx_bf16" in cpu.processor().get("isa", "").split()


def split_products(openvino: Any, model: Any) -> None:
    """Replaces the products with constant weights. NotLowerable when there are none, or the operation is missing."""
    operations = openvino.opset13
    products = [node for node in model.get_ordered_ops() if _weights(node) is not None]
    if not products:
        raise NotLowerable("it has no matrix products of float32 with constant weights")
    make = _fully_connected(openvino)
    halves: dict[str, Any] = {}
    for node in products:
        weights, source = _weights(node), node.input_value(0)
        assert weights is not None
        name = f"{source.get_node().get_name()}:{source.get_index()}"
        if name not in halves:  # queries, keys and values are products of the same
            high = operations.convert(source, "bf16")
            low = operations.convert(operations.subtract(source, operations.convert(high, "f32")), "bf16")
            halves[name] = operations.concat([high, high, low], -1)
        bias = operations.constant(np.zeros(len(weights), np.float32))
        found = make(halves[name], _constant(openvino, stacked(weights)), bias)
        node.output(0).replace(found.output(0))


def stacked(weights: np.ndarray) -> np.ndarray:
    """float32 [columns, depth] -> bfloat16 [columns, 3 x depth]."""
    import ml_dtypes

    high = weights.astype(ml_dtypes.bfloat16)
    low = (weights - high.astype(np.float32)).astype(ml_dtypes.bfloat16)
    return np.concatenate([high, low, high], axis=1)


def _weights(node: Any) -> np.ndarray | None:
    """A product's weights as [columns, depth]; None where it is none, or too small."""
    if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_a"]:
        return None
    constant = node.input_value(1).get_node()
    if constant.get_type_name() != "Constant" or constant.get_element_type().get_type_name() != "f32":
        return None
    if len(constant.get_output_shape(0)) != 2 or node.input_value(0).get_partial_shape().rank.get_length() < 2:
        return None
    weights: np.ndarray = np.asarray(constant.data)
    if min(weights.shape) < LEAST:
        return None
    return weights if node.get_attributes()["transpose_b"] else weights.T


def _fully_connected(openvino: Any) -> Any:
    from openvino.utils.node_factory import NodeFactory

    try:
        factory = NodeFactory()
        factory.add_extension(str(Path(openvino.__file__).parent / "libs" / _PLUGIN))
    except RuntimeError as error:
        raise NotLowerable("this OpenVINO does not export its FullyConnected") from error
    return functools.partial(_make, factory)


def _make(factory: Any, left: Any, right: Any, bias: Any) -> Any:
    inputs = [left.output(0), right.output(0), bias.output(0)]
    return factory.create("FullyConnected", inputs, {"output_type": "f32"})


def _constant(openvino: Any, array: np.ndarray) -> Any:
    """A bfloat16 array as OpenVINO's constant; numpy knows the type only as two bytes."""
    tensor = openvino.Tensor(openvino.Type.bf16, openvino.Shape(list(array.shape)))
    tensor.data.view(np.uint16)[...] = array.view(np.uint16)
    return openvino.op.Constant(tensor)
