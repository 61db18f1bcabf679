"""Signatures that compute the same: Keras exports every model as `serve` and as `serving_default`.

Twins share one study, one set of executables and one line of evidence, and a record for one is a record for the other.
Two signatures are twins when their inputs and outputs have the same names, types and shapes, and their graphs are the
same operations with the same attributes on the same variables, function bodies included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer import saved_model
from tfopt_optimizer.plan import SignatureInfo, TensorInfo


def elders(model_dir: Path, tags: Sequence[str], signatures: Sequence[SignatureInfo]) -> dict[str, str]:
    """Signature key -> key of the signature that it shares its plan with; `serving_default` is the eldest."""
    graph = saved_model.meta_graph(model_dir, tags)
    digests = _Digests(graph)
    eldest: dict[str, str] = {}
    found: dict[str, str] = {}
    for info in sorted(signatures, key=lambda s: (s.key != "serving_default", s.key)):
        name = digests.signature(info)
        found[info.key] = eldest.setdefault(name, info.key)
    return found


class _Digests:
    """Digests of nodes and functions, each computed once."""

    def __init__(self, graph: Any) -> None:
        self._nodes = {node.name: node for node in graph.graph_def.node}
        self._bodies = {f.signature.name: f for f in graph.graph_def.library.function}
        self._functions: dict[str, str] = {}

    def signature(self, info: SignatureInfo) -> str:
        fed = {t.tensor: f"input {t.name}" for t in info.inputs}
        parts = [_face(t) for t in info.inputs]
        parts += [f"{_face(t)}={self._tensor(t.tensor, fed)}" for t in info.outputs]
        return _digest(*parts)

    def _tensor(self, name: str, fed: Mapping[str, str]) -> str:
        """The digest of what a tensor is computed from. Without recursion: graphs are deeper than Python's stack.

        TF1's loops are circles in the graph (NextIteration leads back to Merge): where one closes, the name stands.
        """
        done: dict[str, str] = {}
        begun = set[str]()  # those on the way from `name` to the current one
        todo = [_node(name)]
        while todo:
            current = todo[-1]
            if current in done:
                todo.pop()
                continue
            node = self._nodes.get(current)
            inputs = list(node.input) if node is not None else []
            missing = [n for i in inputs if _full(i) not in fed and (n := _node(i)) not in done and n not in begun]
            if missing:
                begun.add(current)
                todo += missing
                continue
            todo.pop()
            begun.discard(current)
            done[current] = self._digest_node(node, current, [_edge(i, fed, done) for i in inputs])
        return _edge(name, fed, done)

    def _digest_node(self, node: Any, name: str, edges: Sequence[str]) -> str:
        if node is None:
            return _digest("missing", name)
        # A node that is given nothing is a variable, a table or a constant: for the first two the name is the identity.
        given = any(not i.startswith("^") for i in node.input)
        own = name if not given and node.op != "Const" else ""
        return _digest(node.op, own, self._attributes(node), *edges)

    def _attributes(self, node: Any) -> str:
        parts = []
        for name in sorted(node.attr):
            value = node.attr[name]
            if name.startswith("_") or name == "config_proto":
                continue
            if value.HasField("func"):
                parts.append(f"{name}={self._function(value.func.name)}")
            elif value.list.func:
                parts.append(f"{name}={','.join(self._function(f.name) for f in value.list.func)}")
            else:
                parts.append(f"{name}={value.SerializeToString(deterministic=True)!r}")
        return ";".join(parts)

    def _function(self, name: str) -> str:
        found = self._functions.get(name)
        if found is None:
            body = self._bodies.get(name)
            if body is None:
                return name
            self._functions[name] = name  # a recursive function refers to itself by name
            nodes = sorted(f"{n.name}|{n.op}|{list(n.input)}|{self._attributes(n)}" for n in body.node_def)
            arguments = [f"{a.name}:{a.type}" for a in body.signature.input_arg]
            found = self._functions[name] = _digest(*arguments, *nodes, str(sorted(body.ret.items())))
        return found


def _face(tensor: TensorInfo) -> str:
    return f"{tensor.name}|{tensor.dtype}|{tensor.shape}"


def _node(tensor: str) -> str:
    return tensor.lstrip("^").split(":")[0]


def _full(tensor: str) -> str:
    """A tensor's name with its port, as signatures write it."""
    return tensor if ":" in tensor or tensor.startswith("^") else f"{tensor}:0"


def _edge(tensor: str, fed: Mapping[str, str], done: Mapping[str, str]) -> str:
    """What a node receives: a fed input by the signature's name for it, else the port of a digested node."""
    full = _full(tensor)
    if full in fed:
        return fed[full]
    port = "control" if full.startswith("^") else full.partition(":")[2]
    node = _node(full)
    return f"{done.get(node) or f'back to {node}'} {port}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
