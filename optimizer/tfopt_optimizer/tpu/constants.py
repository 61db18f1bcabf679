"""Which inputs that compilers must know when they compile are computed from what only a call knows. Pure.

    for demand in Constants(model.functions).demands("f"): ...

Calls, branches and loops are entered: what they get is as known as their caller knows it. What changes from one round
of a loop to the next is known to nobody, even where it begins with a constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# By input, -1 the last. Each was seen to fail with "must be a compile-time constant" when XLA of TensorFlow 2.21 got it
# as an argument; StridedSlice's begin and end, Slice's size and TopKV2's k were not.
CONSTANT_INPUTS = {
    "Reshape": (1,), "Range": (0, 1, 2), "Fill": (0,), "Tile": (1,), "BroadcastTo": (1,), "Pad": (1,), "PadV2": (1,),
    "OneHot": (1,), "Transpose": (1,), "ConcatV2": (-1,), "ExpandDims": (1,), "Sum": (1,), "Mean": (1,), "Max": (1,),
    "ArgMax": (1,), "Split": (0,), "SplitV": (1,), "GatherV2": (2,), "LinSpace": (2,), "ResizeBilinear": (1,),
    "Cumsum": (1,), "UnsortedSegmentSum": (2,), "ReverseV2": (1,), "RandomUniform": (0,), "DenseBincount": (1,),
    "Prod": (1,), "Min": (1,), "All": (1,), "ArgMin": (1,), "MirrorPad": (1,), "Cumprod": (1,), "ScatterNd": (2,),
    "BatchToSpaceND": (1,), "MatrixDiagV3": (1,), "MatrixSetDiagV3": (2,), "StatelessRandomUniformV2": (0,),
    "ResizeNearestNeighbor": (1,), "BroadcastArgs": (0, 1), "RandomStandardNormal": (0,), "Empty": (0,), "Roll": (2,),
    "StridedSlice": (3,), "Conv2DBackpropInput": (0,),
}  # fmt: skip
# Their results are known whatever the values of their input are.
STATIC = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_BRANCHES = {"If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch"),
             "Case": ("branches",), "StatelessCase": ("branches",)}  # fmt: skip
_LOOPS = frozenset({"While", "StatelessWhile"})

# The number of an argument, or a loop (its node) whose rounds a value differs in.
Root = int | str
Roots = frozenset[Root]


@dataclasses.dataclass(frozen=True)
class Demand:
    """Input number `input` of an operation. `path`: (function, node) from the outermost call to the operation itself;
    `roots`: what it is computed from, nothing of which is known at compile time."""

    path: tuple[tuple[str, str], ...]
    op: str
    input: int
    roots: Roots


@dataclasses.dataclass(frozen=True)
class _Summary:
    """`results`: what each result is computed from. `passed`: the argument that each result is, or None."""

    results: tuple[Roots, ...]
    passed: tuple[int | None, ...]
    demands: tuple[Demand, ...]


_NOTHING: Roots = frozenset()


class Constants:
    """`functions`: FunctionDefs by name."""

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self._functions = functions
        self._known: dict[str, _Summary] = {}
        self._open: set[str] = set()

    def demands(self, name: str) -> tuple[Demand, ...]:
        return self._summary(name).demands

    def _summary(self, name: str) -> _Summary:
        if name in self._open:  # a recursion: nothing is known of it
            signature = self._functions[name].signature
            everything = frozenset[Root](range(len(signature.input_arg)))
            count = len(signature.output_arg)
            return _Summary((everything,) * count, (None,) * count, ())
        if name not in self._known:
            self._open.add(name)
            self._known[name] = _Body(self, self._functions[name]).summary()
            self._open.discard(name)
        return self._known[name]

    def called(self, node: Any, attrs: Sequence[str]) -> list[_Summary]:
        """Summaries of the functions that a node calls by these attributes."""
        named = [f for a in attrs for f in (node.attr[a].func, *node.attr[a].list.func)]
        return [self._summary(f.name) for f in named if f.name in self._functions]


class _Body:
    """One function on its way to a summary."""

    def __init__(self, constants: Constants, function: Any) -> None:
        self._constants, self._function = constants, function
        self._name = str(function.signature.name)
        self._arguments = {a.name: i for i, a in enumerate(function.signature.input_arg)}
        self._nodes = {n.name: n for n in function.node_def}
        self._roots: dict[str, Sequence[Roots]] = {}  # by node; one entry where all results have the same
        self._demands: list[Demand] = []

    def summary(self) -> _Summary:
        for node in _in_order(self._function.node_def, self._nodes):
            self._roots[node.name] = self._visit(node)
        ends = [self._function.ret[a.name] for a in self._function.signature.output_arg]
        return _Summary(tuple(self._of(e) for e in ends), tuple(self._argument(e) for e in ends), tuple(self._demands))

    def _visit(self, node: Any) -> Sequence[Roots]:
        given = [self._of(edge) for edge in _data(node)]
        if node.op in _LOOPS:
            return self._loop(node, given)
        if node.op in _BRANCHES:
            branches = self._constants.called(node, _BRANCHES[node.op])
            return [given[0] | roots for roots in self._merged(node, branches, given[1:])] or [_union(given)]
        if node.op in _CALLS:
            return self._merged(node, self._constants.called(node, ("f",)), given) or [_union(given)]
        wanted = CONSTANT_INPUTS.get(node.op, ())
        for i in sorted({i % len(given) for i in wanted if -len(given) <= i < len(given)}):
            if given[i]:
                self._demands.append(Demand(((self._name, node.name),), node.op, i, given[i]))
        return [_NOTHING if node.op in STATIC else _union(given)]

    def _merged(self, node: Any, called: Sequence[_Summary], given: Sequence[Roots]) -> list[Roots]:
        """The results of one of several functions, each with the arguments `given`; their demands are this one's."""
        for summary in called:
            self._take_over(node, summary, given)
        results = [[_put(roots, given) for roots in summary.results] for summary in called]
        return [_union(each) for each in zip(*results, strict=True)] if results else []

    def _loop(self, node: Any, given: Sequence[Roots]) -> Sequence[Roots]:
        bodies, tests = (self._constants.called(node, (attr,)) for attr in ("body", "cond"))
        if not bodies:
            return [_union(given)]
        changing = frozenset[Root]({node.name})
        passed = bodies[0].passed
        inside = [roots if passed[i] == i else changing for i, roots in enumerate(given)]
        for summary in (*bodies, *tests):
            self._take_over(node, summary, inside)
        return inside

    def _take_over(self, node: Any, summary: _Summary, given: Sequence[Roots]) -> None:
        for demand in summary.demands:
            roots = _put(demand.roots, given)
            if roots:
                path = ((self._name, node.name), *demand.path)
                self._demands.append(dataclasses.replace(demand, path=path, roots=roots))

    def _of(self, edge: str) -> Roots:
        name, index = _split(edge)
        if name in self._arguments:
            return frozenset({self._arguments[name]})
        found = self._roots.get(name, [_NOTHING])
        return found[index] if index < len(found) else found[-1]

    def _argument(self, edge: str) -> int | None:
        """The argument that an edge carries unchanged. Calls are not looked through: XLA does not either."""
        name, _ = _split(edge)
        while name in self._nodes and self._nodes[name].op == "Identity":
            name, _ = _split(_data(self._nodes[name])[0])
        return self._arguments.get(name)


def _put(roots: Roots, given: Sequence[Roots]) -> Roots:
    """What a called function's roots are to its caller."""
    return _union(given[r] if isinstance(r, int) else frozenset[Root]({r}) for r in roots)


def _union(several: Iterable[Roots]) -> Roots:
    return frozenset[Root]().union(*several)


def _data(node: Any) -> list[str]:
    return [edge for edge in node.input if not edge.startswith("^")]


def _split(edge: str) -> tuple[str, int]:
    """ "node:output:2" -> the node and which of the results with that name; an argument has no colon."""
    name, _, rest = edge.partition(":")
    return name, int(rest.rpartition(":")[2] or 0)


def _in_order(nodes: Iterable[Any], by_name: Mapping[str, Any]) -> Iterator[Any]:
    """Every node after those that it reads."""
    done: set[str] = set()
    for first in nodes:
        todo = [(first, False)]
        while todo:
            node, ready = todo.pop()
            if ready:
                yield node
            elif node.name not in done:
                done.add(node.name)
                todo.append((node, True))
                todo += [(by_name[n], False) for e in _data(node) if (n := _split(e)[0]) in by_name]
