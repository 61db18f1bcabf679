"""Reads a signature into OpenVINO and writes it in OpenVINO's own format, without TensorFlow.

OpenVINO's SavedModel reader knows the signature `serving_default` alone, and not every way to keep variables. What it
cannot read is asked for once more as a frozen graph, in which variables are constants (openvino_freeze.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer import whole
from tfopt_optimizer.engines import (
    openvino,
    openvino_blocked,
    openvino_packed,
    openvino_pools,
    openvino_requests,
    rewritten,
)
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.errors import NeedsConversion, NotLowerable
from tfopt_optimizer.plan import SignatureInfo, TensorInfo

GRAPH, NAMES = "frozen.pb", "frozen.json"
# OpenVINO computes 64-bit types in 32 bits. Who asks for a double wants its digits; integers are held to what fits
# (openvino_graph.py).
_TYPES = frozenset({"float", "half", "bool", "int8", "uint8", "int16", "uint16", "int32", "int64"})


def write_model(device: openvino.Device, place: Place, target: Target, folder: Path) -> None:
    """Writes model.xml and model.bin into `folder`. NotLowerable says why not, NeedsConversion asks for a graph."""
    signature = target.signature
    inputs = (*signature.inputs, *(openvino_packed.INPUTS if target.lengths is not None else ()))
    refuse_types(signature)
    graph, ends = _graph(place, target, folder)
    frozen = graph.exists()
    if not frozen and (signature.key != "serving_default" or place.tags != ("serve",)):
        raise NeedsConversion("OpenVINO reads serving_default alone")
    try:
        model = device.core.read_model(str(graph if frozen else place.model_dir))
    except RuntimeError as error:
        why = openvino_requests.reason(error)
        if frozen or "no conversion rule" in why:
            raise NotLowerable(why) from error
        raise NeedsConversion(why) from error
    names = json.loads(ends.read_text()) if frozen else {"inputs": {}, "outputs": {}}
    try:
        rename(model.inputs, inputs, openvino_packed.NAMES | names["inputs"])
        rename(model.outputs, signature.outputs, names["outputs"], all_needed=True)
    except KeyError as error:
        raise (NotLowerable if frozen else NeedsConversion)(f"OpenVINO finds no tensor for {error}") from error
    openvino_pools.fold(device.openvino, model)
    with whole.files(folder, openvino.WEIGHTS, openvino.MODEL) as part:
        device.openvino.save_model(model, str(part / openvino.MODEL), compress_to_fp16=False)
        openvino_blocked.wish(part / openvino.MODEL)
    for name in (GRAPH, NAMES):
        (folder / name).unlink(missing_ok=True)


def _graph(place: Place, target: Target, folder: Path) -> tuple[Path, Path]:
    """A frozen graph with the names of its ends: what stands for the signature, else what is there once it was asked
    for."""
    if target.lengths is not None:
        graph = place.plan_dir / target.source / rewritten.PACKED_GRAPH
        if not graph.exists():
            raise NotLowerable("no product can leave filling out")
        return graph, place.plan_dir / target.source / rewritten.META
    if target.source:
        return place.plan_dir / target.source / rewritten.GRAPH, place.plan_dir / target.source / rewritten.META
    return folder / GRAPH, folder / NAMES


def refuse_types(signature: SignatureInfo) -> None:
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            if tensor.dtype not in _TYPES:
                raise NotLowerable(
                    f"{kind} {tensor.name!r} is of type {tensor.dtype}, which OpenVINO has no exact form of"
                )


def rename(
    ports: Sequence[Any], tensors: Sequence[TensorInfo], names: Mapping[str, str], all_needed: bool = False
) -> None:
    """Leaves every port with the signature's names alone. `names`: signature name -> name in the model, if another.

    KeyError names the tensor that has no counterpart. Inputs that nothing depends on may be gone from the model;
    outputs that the signature does not have are left without a name.
    """
    missing = {t.name for t in tensors}
    for port in ports:
        ours = {t.name for t in tensors if names.get(t.name, t.name) in port.get_names()}
        if not ours and not all_needed:
            raise KeyError(min(port.get_names(), default="an input without a name"))
        port.get_tensor().set_names(ours)
        missing -= ours
    if missing and all_needed:
        raise KeyError(min(missing))
