"""Magnitude pruning of an OpenVINO model: the smallest weights of its fully connected layers become zeros.

Only there do zeros save time: OpenVINO's 8-bit products on AMX skip them (CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE).
NNCF prunes PyTorch models alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def prune(openvino: Any, model: Any, sparsity: float) -> int:
    """Sets this share of each layer's weights to zero, in place; returns the number of layers.

    One that has as many zeros already stays as it is.
    """
    layers = 0
    for node in model.get_ops():
        if node.get_type_name() != "MatMul":
            continue
        constant = node.input_value(1).get_node()
        if constant.get_type_name() != "Constant" or constant.get_element_type().get_type_name() != "f32":
            continue
        weights = np.array(constant.data)
        sizes = np.abs(weights)
        weights[sizes <= np.quantile(sizes, sparsity)] = 0.0
        thinned = openvino.opset13.constant(weights)
        node.input(1).replace_source_output(thinned.output(0))
        layers += 1
    return layers
