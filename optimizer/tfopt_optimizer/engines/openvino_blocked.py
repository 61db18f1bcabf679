"""Convolutions on blocked layouts: as many channels side by side as a register holds (nChw16c, nChw8c with AVX2).

OpenVINO takes oneDNN's kernels for channels-last tensors wherever they fit. The older ones for blocked layouts are the
faster where a pixel has few channels, in depthwise convolutions above all, and where several rows share what a core
has read of the weights: MobileNetV2 at batch 8 takes 37 ms instead of 50 on two cores with AVX2 (docs/decisions/0195).
Their results differ by float32 rounding.

OpenVINO reads the wish from an attribute of an operation in the model's file (PrimitivesPriority) and takes another
kernel where the one wished for does not fit. Its Python binding can delete that attribute and not set it: so the file
of every model has the wishes, and the other variants delete them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfopt_optimizer import cpu
from tfopt_optimizer.errors import NotLowerable

_DEPTHWISE, _POINTWISE, _ANY = "_dw", "_1x1", ""
_NAME, _VERSION = "primitives_priority", "0"
_KINDS = ("Convolution", "GroupConvolution")
_FEW = 4  # colours, and how opaque


def family() -> str:
    """How oneDNN calls this processor's kernels for blocked layouts; "" where it has none."""
    isa = cpu.processor().get("isa", "").split()
    return "jit_avx512" if "avx512bw" in isa else "jit_avx2" if "avx2" in isa else ""


def wish(path: Path) -> None:
    """Adds the wishes to the model of a file, in place."""
    kernels = family()
    if not kernels:
        return
    tree = ET.parse(path)
    for layer in [layer for layer in tree.iter("layer") if layer.get("type") in _KINDS]:
        kernel = _kernel(layer)
        if kernel is not None:
            told = layer.find("rt_info")
            if told is None:
                told = ET.Element("rt_info")
                layer.insert(list(layer).index(_child(layer, "input")), told)
            ET.SubElement(told, "attribute", name=_NAME, version=_VERSION, value=f"cpu:{kernels}{kernel}")
    tree.write(path)


def wishes(model: Any) -> list[Any]:
    """The operations that have one."""
    return [node for node in model.get_ops() if f"{_NAME}_{_VERSION}" in node.get_rt_info()]


def without(model: Any, but: Callable[[Any], bool] = lambda node: False) -> Any:
    """The model, its wishes deleted but those of some operations."""
    for node in wishes(model):
        if not but(node):
            del node.get_rt_info()[f"{_NAME}_{_VERSION}"]
    return model


def of_an_image(node: Any) -> bool:
    """Whether it is a convolution of few channels, which fill a part of a register where they lie side by side."""
    return bool(node.get_type_name() == "Convolution" and node.get_input_shape(1)[1] <= _FEW)


def _kernel(layer: ET.Element) -> str | None:
    """The wish for a convolution; None for groups of several channels, which would get a slow kernel by it."""
    weights = _child(layer, "input").findall("port")[1]
    sizes = [dimension.text for dimension in weights.findall("dim")]
    if layer.get("type") == "GroupConvolution":  # groups, outputs and inputs of each, then the window
        return _DEPTHWISE if sizes[1:3] == ["1", "1"] else None
    return _POINTWISE if set(sizes[2:]) == {"1"} else _ANY


def _child(layer: ET.Element, name: str) -> ET.Element:
    found = layer.find(name)
    if found is None:
        raise NotLowerable(f"OpenVINO's file says nothing of {layer.get('name')!r}'s {name}")
    return found
