"""A signature's graph after passes that change what is computed and not what comes of it. Needs TensorFlow.

It lies in the plan while that is made, frozen, in `Target.source`, and stands there for the SavedModel's signature:
converters read it instead. Two passes, each of which may find nothing to do: slices go before what treats positions
separately (passes/unread.py), and a fixed length becomes open (passes/lengths.py). Beside what is open lies the same
with inputs more, which leaves filling out (passes/packing.py).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt_optimizer import whole
from tfopt_optimizer.engines import inferred, weightless
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Target
from tfopt_optimizer.engines.freeze import Frozen
from tfopt_optimizer.engines.weightless import Weightless
from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.passes import lengths, packing, unread
from tfopt_optimizer.plan import SignatureInfo

GRAPH, META = "graph.pb", "graph.json"
PACKED_GRAPH = "packed.pb"  # ... in which filling is left out, where that can be


@dataclasses.dataclass(frozen=True)
class Meta:
    """`inputs`, `outputs`: as Frozen's. `smaller`: products that a slice made smaller. `opened`: the inputs whose
    length is open now, with the axis; `refusal`: why it stayed fixed, though it was asked for. `packed`: products that
    are smaller in the packed graph."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    smaller: int = 0
    opened: Mapping[str, int] = dataclasses.field(default_factory=dict)
    refusal: str = ""
    packed: int = 0


def make(
    model: tensorflow_engine.FunctionModel, info: SignatureInfo, wanted: SignatureInfo, folder: Path
) -> tuple[Meta, Weightless]:
    """Writes what came of it into `folder`. NotLowerable where nothing did. `info` is the model's own signature; where
    `wanted` leaves a dimension open that it has fixed, that is to be opened."""
    axes, light = _axes(info, wanted), weightless.of(model, info)
    frozen, tf = light.frozen, model.tf
    smaller = unread.run(frozen.graph, inferred.of_tensors(tf, frozen.graph), _nodes(frozen.outputs))
    meta = Meta(frozen.inputs, frozen.outputs, smaller)
    packed = None
    if axes:
        light, meta, packed = _opened(tf, info, axes, light, meta)
    if not (meta.smaller or meta.opened):
        raise NotLowerable(meta.refusal or "every position of it is read")
    folder.mkdir(parents=True, exist_ok=True)
    weightless.write(tf, light, folder / GRAPH)
    if packed is not None:
        weightless.write(tf, packed, folder / PACKED_GRAPH)
    whole.write(folder / META, json.dumps(dataclasses.asdict(meta)))
    return meta, light


def _nodes(ends: Mapping[str, str]) -> dict[str, str]:
    """Nodes with the names that the signature has for them."""
    return {tensor.partition(":")[0]: name for name, tensor in ends.items()}


def _opened(
    tf: Any, info: SignatureInfo, axes: Mapping[str, int], light: Weightless, meta: Meta
) -> tuple[Weightless, Meta, Weightless | None]:
    """What is open, what is said of it, and the packed graph where that computes less."""
    frozen = light.frozen
    graph = type(frozen.graph)()
    graph.CopyFrom(frozen.graph)
    (size,) = {t.shape[axes[t.name]] for t in info.inputs if t.name in axes and t.shape is not None}
    assert size is not None
    placed = {node: axes[name] for node, name in _nodes(frozen.inputs).items() if name in axes}
    try:
        opening = lengths.run(graph, inferred.of_tensors(tf, graph), placed, _nodes(frozen.outputs), size)
    except NotLowerable as error:
        return light, dataclasses.replace(meta, refusal=str(error)), None
    open_graph = type(graph)()
    open_graph.CopyFrom(graph)
    opened = dataclasses.replace(light, frozen=dataclasses.replace(frozen, graph=open_graph))
    count = packing.run(graph, opening, _nodes(frozen.outputs))
    packed = dataclasses.replace(light, frozen=dataclasses.replace(frozen, graph=graph)) if count else None
    return opened, dataclasses.replace(meta, opened=dict(axes), packed=count), packed


def _axes(info: SignatureInfo, wanted: SignatureInfo) -> dict[str, int]:
    found = {}
    for own, other in zip(info.inputs, wanted.inputs, strict=True):
        for axis, (size, asked) in enumerate(zip(own.shape or (), other.shape or (), strict=True)):
            if size is not None and asked is None:
                found[own.name] = axis
    return found


def read_meta(folder: Path) -> Meta:
    return Meta(**json.loads((folder / META).read_text()))


def read(tf: Any, plan_dir: Path, target: Target, *, pinned: bool = False) -> Frozen:
    """The graph that stands for the target's signature; `pinned`: at the length of the target's shapes alone."""
    meta = read_meta(plan_dir / target.source)
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString((plan_dir / target.source / GRAPH).read_bytes())
    if pinned and meta.opened and target.shapes is not None:
        name, axis = next(iter(meta.opened.items()))
        lengths.pin(graph, target.shapes[name][axis])
    return Frozen(graph, meta.inputs, meta.outputs)


def function(tf: Any, plan_dir: Path, target: Target, *, pinned: bool = False) -> Any:
    """The same as a function that is called, and tells of itself, as a SavedModel's signature does."""
    return callable_of(tf, Weightless(read(tf, plan_dir, target, pinned=pinned), {}))


def callable_of(tf: Any, light: Weightless) -> Any:
    frozen = light.frozen
    nodes = {node.name: node for node in frozen.graph.node}
    ends = {name: nodes[tensor.partition(":")[0]].attr for name, tensor in frozen.inputs.items()}
    outputs = list(frozen.outputs)

    def call(**feeds: Any) -> Any:
        given = {frozen.inputs[name]: tensor for name, tensor in feeds.items()}
        given |= {f"{name}:0": weightless.value_of(tf, light, name) for name in light.weights if name in nodes}
        found = tf.graph_util.import_graph_def(frozen.graph, given, [frozen.outputs[name] for name in outputs], name="")
        return dict(zip(outputs, found, strict=True))

    specs = {
        name: tf.TensorSpec(tf.TensorShape(attr["shape"].shape), tf.dtypes.as_dtype(attr["dtype"].type), name=name)
        for name, attr in ends.items()
    }
    return tf.function(call, autograph=False).get_concrete_function(**specs)
