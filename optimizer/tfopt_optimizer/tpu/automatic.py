"""Chooses what runs on the TPU when no function is named: each signature is cut as the optimizer cuts it (split/).

    serve            (host)  ...strings, tables, parsing... -> part of serve, cut 0 -> ...labels...
    tfopt_tpu_part_serve_0   the device segment as a function of its own, with the variables that it reads

The signature's function stays under its name, with calls of its parts in their place; placing them, batching them and
everything else goes on as if somebody had named them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfopt_protos import dtypes, messages

from tfopt_optimizer import ops
from tfopt_optimizer.split import partition, source
from tfopt_optimizer.split.graph import Graph, Node, node_of
from tfopt_optimizer.split.partition import DEVICE, Cut, Segment
from tfopt_optimizer.split.session import UNSAVED
from tfopt_optimizer.split.source import Source
from tfopt_optimizer.tpu import advice, bf16, graph, inline
from tfopt_optimizer.tpu.constants import CONSTANT_INPUTS, STATIC
from tfopt_optimizer.tpu.graph import DT_RESOURCE, ModelGraph
from tfopt_optimizer.tpu.inline import Flat
from tfopt_optimizer.tpu.options import Chosen

BY_ITSELF = "the converter's own cut of signature"
_TRIES = 30


@dataclasses.dataclass(frozen=True)
class Parted:
    """`chosen`: functions for the TPU. `whole_on_host`: signature -> why no part of it goes there. `reasons`: per
    signature, why operations stay on the host -> how many. `moved`: what a compiler refused, in words."""

    chosen: Mapping[str, Chosen]
    whole_on_host: Mapping[str, str]
    reasons: Mapping[str, Mapping[str, int]]
    moved: tuple[str, ...] = ()


Moved = Mapping[str, Mapping[str, str]]  # signature -> node -> why it has to stay on the host


def choose(model: ModelGraph, variables: Mapping[tuple[str, int], bool], moved: Moved | None = None) -> Parted:
    """Changes the graph. `variables`: (function, number of an argument) -> whether it is a variable (or a table).
    `moved`: operations that a compiler refused before."""
    chosen: dict[str, Chosen] = {}
    on_host: dict[str, str] = {}
    reasons: dict[str, dict[str, int]] = {}
    done: set[str] = set()
    for key in sorted(k for k in model.meta.signature_def if not k.startswith("__saved_model_")):
        functions = graph.signature_functions(model, key)
        if len(functions) != 1:
            on_host[key] = f"its outputs come from {len(functions)} functions, expected one"
        elif functions[0] not in done:
            done.add(functions[0])
            parts, told = _signature(model, key, functions[0], variables, (moved or {}).get(key, {}))
            chosen |= {part: Chosen(BY_ITSELF, key) for part in parts}
            reasons[key] = told
            if not parts:
                on_host[key] = _most(told, (moved or {}).get(key, {}))
    lines = (f"{node} of signature {key}: {why}" for key, found in (moved or {}).items() for node, why in found.items())
    return Parted(chosen, on_host, reasons, tuple(lines))


def _most(told: Mapping[str, int], moved: Mapping[str, str]) -> str:
    """Why nothing of a signature is on the TPU: what a compiler refused, or else the most frequent reason."""
    if moved:
        return "; ".join(dict.fromkeys(moved.values()))
    return max(told, key=lambda why: told[why], default="it has no operation worth a trip")


def _signature(
    model: ModelGraph, key: str, name: str, variables: Mapping[tuple[str, int], bool], moved: Mapping[str, str]
) -> tuple[list[str], dict[str, int]]:
    if written := bf16.writes(model, name):
        return [], {f"it writes state ({', '.join(written)})": 1}
    flat = inline.flat(model, name, effects=True)
    seen = _seen(model, flat, name, variables)
    cut = _cut(seen, moved)
    told: dict[str, int] = {}
    for why in cut.reasons.values():
        told[why] = told.get(why, 0) + 1
    segments = [s for s in cut.segments if s.where == DEVICE]
    if not segments:
        return [], told
    read = Source(seen, flat.definition, _unread, _unread)
    label = re.sub(r"\W", "_", key)
    parts = [_part(read, f"tfopt_tpu_part_{label}_{i}", segment) for i, segment in enumerate(segments)]
    for part in parts:
        model.add(part.function)
    model.functions[name].CopyFrom(_host(read, flat, cut, parts))
    return [part.name for part in parts], told


@dataclasses.dataclass(frozen=True)
class _Part:
    """A device segment as a FunctionDef (private pool) of what comes in, then the variables `held` (nodes)."""

    function: Any
    segment: Segment
    held: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.function.signature.name)

    @property
    def call(self) -> str:
        return f"Call_{self.name}"


def _unread(node: str) -> Any:
    raise AssertionError(f"values of {node} are not needed to cut a graph")


def _seen(model: ModelGraph, flat: Flat, name: str, variables: Mapping[tuple[str, int], bool]) -> Graph:
    import tensorflow as tf

    arguments = list(enumerate(flat.proto.signature.input_arg))
    held = {a.name for i, a in arguments if a.type == DT_RESOURCE and variables.get((name, i), False)}
    tables = {a.name for _, a in arguments if a.type == DT_RESOURCE} - held
    inputs = {a.name: f"{a.name}:0" for _, a in arguments if a.type != DT_RESOURCE}
    names = [a.name for a in flat.proto.signature.output_arg]
    ends = {n: t if ":" in t else f"{t}:0" for n, t in zip(names, flat.results, strict=True)}
    acting = _acting(model, flat)
    asked = ends | {f"effect of {node}": f"{node}:0" for node in acting}
    seen = source.read(tf, flat.definition, inputs, asked, variables=held, tables=tables)
    outputs = {n: t for n, t in seen.outputs.items() if n in ends}
    return dataclasses.replace(seen, outputs=outputs, effects=tuple(dict.fromkeys((*seen.effects, *acting))))


def _acting(model: ModelGraph, flat: Flat) -> list[str]:
    """Branches and loops with an effect inside, as tf.debugging writes its assertions."""
    found = []
    for node in flat.definition.node:
        bodies = [f.name for f in graph.calls(node) if f.name in model.functions]
        gives = any(key in node.attr and node.attr[key].list.type for key in ("Tout", "T"))  # branches, loops
        if gives and any(partition.EFFECTS & bf16.operations(model, f) for f in bodies):
            found.append(node.name)
    return found


def _cut(seen: Graph, moved: Mapping[str, str]) -> Cut:
    """The optimizer's cut, with what would need a value at compile time on the host, and what was `moved` there."""
    forced = {node: why for node, why in moved.items() if node in seen.nodes}
    for _ in range(_TRIES):
        cut = partition.partition(seen, ops.registry().compiled, _host_takes, forced)
        late = {n: why for s in cut.segments if s.where == DEVICE for n, why in _late(seen, s).items()}
        if not late:
            return cut
        forced |= late
    return partition.partition(seen, (), _host_takes, forced)


def _host_takes(node: Node) -> bool:
    return node.op not in UNSAVED


def _late(seen: Graph, segment: Segment) -> dict[str, str]:
    """Nodes whose shape is computed from values that come into the segment: compilers must know it before."""
    found = {}
    for name in segment.nodes:
        node = seen.nodes[name]
        wanted = [node.inputs[i] for i in CONSTANT_INPUTS.get(node.op, ()) if -len(node.inputs) <= i < len(node.inputs)]
        if any(_from_values(seen, segment, t) for t in wanted):
            found[name] = advice.late(node.op)
    return found


def _from_values(seen: Graph, segment: Segment, tensor: str) -> bool:
    todo, done = [tensor], set[str]()
    while todo:
        one = todo.pop()
        if one in segment.inputs:
            return True
        name = node_of(one)
        if name not in done and seen.nodes[name].op not in STATIC:
            done.add(name)
            todo += seen.nodes[name].inputs
    return False


def _needed(seen: Graph, own: Sequence[str], outputs: Sequence[str], stop: Mapping[str, str]) -> list[str]:
    """Nodes that compute `outputs`, in order; beyond `own` only what is the same in every call."""
    found, todo = set[str](), [node_of(t) for t in outputs if t not in stop]
    while todo:
        name = todo.pop()
        if name not in found:
            assert name in own or name not in seen.bound or name in seen.fed, name
            found.add(name)
            todo += [node_of(t) for t in seen.nodes[name].inputs if t not in stop]
    return [name for name in seen.nodes if name in found]


def _part(read: Source, name: str, segment: Segment) -> _Part:
    import tensorflow as tf
    from tensorflow.python.framework import graph_to_function_def

    seen = read.graph
    renamed = {t: f"tfopt_input_{i}:0" for i, t in enumerate(segment.inputs)}
    needed = _needed(seen, segment.nodes, segment.outputs, renamed)
    held = tuple(n for n in needed if n in seen.variables)
    renamed |= {f"{n}:0": f"tfopt_variable_{i}:0" for i, n in enumerate(held)}
    definition = _empty(read)
    for tensor, new in renamed.items():
        placeholder = definition.node.add(op="Placeholder", name=node_of(new))
        placeholder.attr["dtype"].type = dtypes.NUMBERS[seen.tensor(tensor).dtype]
        _shape(seen, tensor, placeholder.attr["shape"].shape)
    for node in needed:
        if node not in held:
            definition.node.add().CopyFrom(read.copy(node, renamed))
    with tf.Graph().as_default() as made:
        tf.graph_util.import_graph_def(definition, name="")
        outputs = [tf.identity(made.as_graph_element(t)) for t in segment.outputs]
        inputs = [made.as_graph_element(t) for t in renamed.values()]
        operations = [op for op in made.get_operations() if op.type != "Placeholder"]
        function = graph_to_function_def.graph_to_function_def(made, operations, inputs, outputs)
    function.signature.name = name
    function.signature.is_stateful = True
    for node in function.node_def:  # errors would name the nodes of the functions that these were inlined from
        node.ClearField("experimental_debug_info")
    for i, tensor in enumerate(renamed):
        _shape(seen, tensor, function.arg_attr[i].attr["_output_shapes"].list.shape.add())
    found = messages.message("tensorflow.FunctionDef").FromString(function.SerializeToString())
    return _Part(found, segment, held)


def _host(read: Source, flat: Flat, cut: Cut, parts: Sequence[_Part]) -> Any:
    """The signature's function with calls in the place of its device segments."""
    seen = read.graph
    renamed = {t: f"{part.call}:{i}" for part in parts for i, t in enumerate(part.segment.outputs)}
    own = [n for s in cut.segments if s.where != DEVICE for n in s.nodes]
    effects = [n for n in seen.effects if n in own]
    asked = [*effects, *(t for p in parts for t in (*p.segment.inputs, *p.held)), *seen.outputs.values()]
    needed = set(_needed(seen, own, asked, renamed))
    definition = _empty(read)
    for part in parts:
        definition.library.function.add().ParseFromString(part.function.SerializeToString())
        _add_call(definition, part, renamed)
    for node in flat.definition.node:
        if node.op == "Placeholder":
            definition.node.add().CopyFrom(node)
        elif node.name in needed:
            definition.node.add().CopyFrom(read.copy(node.name, renamed))
    function = inline.function(Flat(definition, flat.proto, [renamed.get(t, t) for t in seen.outputs.values()]))
    function.signature.is_stateful = True
    for effect in effects:
        function.signature.control_output.append(effect)
        function.control_ret[effect] = effect
    return function


def _add_call(definition: Any, part: _Part, renamed: Mapping[str, str]) -> None:
    call = definition.node.add(op="StatefulPartitionedCall", name=part.call)
    call.input.extend(renamed.get(t, t) for t in part.segment.inputs)
    call.input.extend(part.held)
    call.attr["f"].func.name = part.name
    call.attr["Tin"].list.type.extend(a.type for a in part.function.signature.input_arg)
    call.attr["Tout"].list.type.extend(a.type for a in part.function.signature.output_arg)


def _empty(read: Source) -> Any:
    """A GraphDef with the functions that control flow calls, and no node."""
    definition = type(read.definition)()
    definition.versions.CopyFrom(read.definition.versions)
    definition.library.CopyFrom(read.definition.library)
    return definition


def _shape(seen: Graph, tensor: str, to: Any) -> None:
    shape = () if node_of(tensor) in seen.variables else seen.shape(tensor)
    to.unknown_rank = shape is None
    for size in shape or ():
        to.dim.add(size=-1 if size is None else size)
