"""Takes the forms of parcels.py out again: for those who run a converted model where no host link is to be spared.

Engines need not see that one reshape undoes another (OpenVINO compiled for minutes), and the optimizer packs what
crosses to its own devices itself. For models after emulate.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tfopt_optimizer.tpu import nodes
from tfopt_optimizer.tpu.graph import ModelGraph, copy_of
from tfopt_optimizer.tpu.parcels import GIVE, MARK, TAKE
from tfopt_optimizer.tpu.place import CALL

_END = re.compile(rf"(?:.*/)?({TAKE}|{GIVE})(\d+)Reshape(\d+)")  # a tensor of a parcel, in its own shape
_RESULT = ("OutputIdentity_{}", "Output_{}", "OutputShard_{}")


def unpack(meta: Any) -> None:
    """Changes the MetaGraphDef: calls of placed functions bring and get every tensor by itself, in its own shape."""
    model = ModelGraph(meta)
    for function in model.functions.values():
        call = next((n for n in function.node_def if n.name == CALL), None)
        inner = model.functions.get(call.attr["f"].func.name) if call is not None else None
        if call is not None and inner is not None and any(MARK in n.attr for n in inner.node_def):
            _outside(function, call, _arguments(inner), _results(inner), inner.signature)


def _arguments(inner: Any) -> list[int | None]:
    """Every parcel's argument becomes one for each of its tensors. Gives the parcel of each argument that there was."""
    names = {n.name: n for n in inner.node_def}
    takes = _ends(inner, TAKE)
    parcel_of, gone, renamed = dict[str, int](), set[str](), dict[str, str]()
    for parcel, ends in takes.items():
        way = list(_back(ends[0], names))
        parcel_of[way[-1].input[0]] = parcel
        gone |= {n.name for n in way}
        renamed |= {f"{n.name}:output:0": f"tfopt_part_{parcel}_{j}" for j, n in enumerate(ends)}
    before = copy_of(inner)
    found = [parcel_of.get(a.name) for a in before.signature.input_arg]
    del inner.signature.input_arg[:]
    inner.arg_attr.clear()
    inner.resource_arg_unique_id.clear()
    for i, (argument, of) in enumerate(zip(before.signature.input_arg, found, strict=True)):
        if of is None:
            _keep(inner, before, i)
        for j in range(len(takes.get(of, ())) if of is not None else 0):
            inner.signature.input_arg.add(name=f"tfopt_part_{of}_{j}", type=argument.type)
    _rewire(inner, renamed, gone | {n.name for n in inner.node_def if MARK in n.attr and TAKE in n.name})
    return found


def _keep(inner: Any, before: Any, index: int) -> None:
    """An argument of before, with what is said of it."""
    now = len(inner.signature.input_arg)
    inner.signature.input_arg.add().CopyFrom(before.signature.input_arg[index])
    if index in before.arg_attr:
        inner.arg_attr[now].CopyFrom(before.arg_attr[index])
    if index in before.resource_arg_unique_id:
        inner.resource_arg_unique_id[now] = before.resource_arg_unique_id[index]


def _results(inner: Any) -> list[int]:
    """Every parcel's result becomes one for each of its tensors. Gives how many those of before are each."""
    ends = _ends(inner, GIVE)
    before = [(a.name, a.type, inner.ret[a.name]) for a in inner.signature.output_arg]
    gone = {name.format(parcel) for parcel in ends for name in _RESULT}
    del inner.signature.output_arg[:]
    inner.ret.clear()
    counts = []
    for i, (name, kind, edge) in enumerate(before):
        parts = [n.input[0] for n in ends[i]] if i in ends else [edge]
        counts.append(len(parts))
        for j, part in enumerate(parts):
            new = f"{name}_{j}" if i in ends else name
            inner.signature.output_arg.add(name=new, type=kind)
            inner.ret[new] = part
    _rewire(inner, {}, gone | {n.name for n in inner.node_def if MARK in n.attr})
    return counts


def _outside(function: Any, call: Any, parcels: list[int | None], counts: list[int], signature: Any) -> None:
    """`parcels`: of each argument that there was; `counts`: how many results each one that there was is now."""
    given, taken = _ends(function, GIVE), _ends(function, TAKE)
    data = [e for e in call.input if not e.startswith("^")]
    waits = [e for e in call.input if e.startswith("^")]
    edges = [
        edge
        for old, parcel in zip(data, parcels, strict=True)
        for edge in ([n.input[0] for n in given[parcel]] if parcel is not None else [old])
    ]
    del call.input[:]
    call.input.extend([*edges, *waits])
    call.attr["Tin"].CopyFrom(nodes.types(a.type for a in signature.input_arg))
    call.attr["Tout"].CopyFrom(nodes.types(a.type for a in signature.output_arg))
    renamed, start = dict[str, str](), 0
    for i, count in enumerate(counts):
        for j, node in enumerate(taken.get(i, [])):
            renamed[f"{node.name}:output:0"] = f"{call.name}:output:{start + j}"
        renamed.setdefault(f"{call.name}:output:{i}", f"{call.name}:output:{start}")
        start += count
    _rewire(function, renamed, {n.name for n in function.node_def if MARK in n.attr})


def _ends(function: Any, kind: str) -> dict[int, list[Any]]:
    """Parcel -> the nodes that reshape each of its tensors, in order."""
    found: dict[int, dict[int, Any]] = {}
    for node in function.node_def:
        match = _END.fullmatch(node.name) if MARK in node.attr else None
        if match and match[1] == kind:
            found.setdefault(int(match[2]), {})[int(match[3])] = node
    return {parcel: [ends[j] for j in sorted(ends)] for parcel, ends in found.items()}


def _back(node: Any, names: Mapping[str, Any]) -> Iterator[Any]:
    """The node and those before it, up to the one that an argument goes into."""
    while True:
        yield node
        if ":" not in node.input[0]:
            return
        node = names[node.input[0].split(":")[0]]


def _rewire(function: Any, renamed: Mapping[str, str], gone: set[str]) -> None:
    kept = [type(n).FromString(n.SerializeToString()) for n in function.node_def if n.name not in gone]
    for node in kept:
        edges = [renamed.get(e, e) for e in node.input if e.removeprefix("^").split(":")[0] not in gone or e in renamed]
        del node.input[:]
        node.input.extend(edges)
    del function.node_def[:]
    function.node_def.extend(kept)
    for name, edge in list(function.ret.items()):
        function.ret[name] = renamed.get(edge, edge)
