"""What OpenVINO computes inside a loop or a branch, as graphs of their own (Loop, TensorIterator, If).

A body's arguments are what is handed in. What a loop hands from turn to turn may grow: how far is found by turning it
until nothing grows any more, and what still does after a few turns is taken for as large as its type, or as the loop's
condition allows (`i < 20`). Values that only a loop's turns decide are the same in every call, unless inputs decide how
often it turns, or whether it is reached at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from tfopt_optimizer.engines import spans
from tfopt_optimizer.engines.indices import Graph, Selection
from tfopt_optimizer.engines.limits import Limits, Part, narrow

LOOPS, BRANCHES = frozenset({"Loop", "TensorIterator"}), frozenset({"If"})
PATIENCE = 3  # turns after which what still grows is taken for as large as it can be
_COMPARED = {"Less": 1, "LessEqual": 0, "Greater": 1, "GreaterEqual": 0}  # how far apart they are at least


@dataclasses.dataclass(frozen=True)
class Argument:
    """`tensor`: what is handed in, "" for the number of the turn; `result`: what the next turn is given, "" for the
    same again."""

    tensor: str
    result: str = ""
    sliced: bool = False


@dataclasses.dataclass(frozen=True)
class Body:
    """`arguments` by the names of their nodes, `outputs`: number of the operation's result -> the body's, `used`: the
    nodes that something is made of (every tf.while_loop counts its turns, most for nobody), `unread`: whether a result
    is of what the turns before do not decide, in a loop that may not turn at all."""

    graph: Any
    arguments: Mapping[str, Argument]
    outputs: Mapping[int, str]
    used: frozenset[str]
    unread: bool = False

    def span(self, number: int) -> Limits | None:
        """Of a result of the operation, where it is this body's; after no turn at all it is what was handed in."""
        result = self.outputs[number]
        starts = [self.graph.span(f"{name}:0") for name, given in self.arguments.items() if given.result == result]
        return _hull([self.graph.span(result), *starts])

    def hand_out(self, outer: Graph, held: Mapping[Part, Limits], limits: dict[Part, Limits]) -> bool:
        """Narrows what inputs may be so that the arguments are `held` in every turn; False where that is impossible."""
        return all(self._handed(outer, part, limit, limits) for part, limit in held.items())

    def _handed(self, outer: Graph, part: Part, limit: Limits, limits: dict[Part, Limits]) -> bool:
        given = self.arguments[part.name]
        if spans.within(self.graph.span(f"{part.name}:0"), limit):
            return True
        if given.result or not given.tensor:
            return False
        selection = None if part.axis is None or given.sliced else Selection(part.axis, part.start, part.stop)
        carried, computed = outer.inputs_of(given.tensor, limit, selection)
        for each, own in carried.items():
            narrow(limits, each, own)
        return not computed


def span(bodies: list[Body], number: int) -> Limits | None:
    """Of a result of the operation that these are the bodies of."""
    return _hull([body.span(number) for body in bodies])


def of(outer: Any, node: Any) -> list[Body]:
    """The bodies of a node of `outer`, an openvino_graph.ModelGraph."""
    operation = node.operation
    if node.op in BRANCHES:
        hidden = outer.hidden or outer.depends(node.input[0])
        return [_branch(outer, node, operation, number, hidden) for number in (0, 1)]
    return [_loop(outer, node, operation)] if node.op in LOOPS else []


def _branch(outer: Any, node: Any, operation: Any, number: int, hidden: bool) -> Body:
    model = operation.get_function(number)
    told = operation.get_input_descriptions(number)
    arguments = dict(_arguments(node, model, told))
    outputs = {d.output_index: _result(model, d.body_value_index) for d in operation.get_output_descriptions(number)}
    graph = outer.inside(model, *_given(outer, arguments), hidden)
    return Body(graph, arguments, outputs, frozenset(graph.nodes))


def _loop(outer: Any, node: Any, operation: Any) -> Body:
    model = operation.get_function()
    arguments = dict(_arguments(node, model, operation.get_input_descriptions()))
    outputs = {d.output_index: _result(model, d.body_value_index) for d in operation.get_output_descriptions()}
    condition = ""
    decided = outer.hidden
    if node.op == "Loop":
        place = operation.get_special_body_ports()[1]
        condition = _result(model, place) if place >= 0 else ""
        decided = decided or any(outer.depends(tensor) for tensor in node.input[:2])
    names, known = _given(outer, arguments)
    inputs = _carried_on(outer.inside(model, names, known, outer.hidden), arguments, set(names), condition, decided)
    graph = _settled(outer, model, arguments, inputs, known, condition)
    taken = [outputs[port.get_index()] for port in operation.outputs() if port.get_target_inputs()]
    ends = [*taken, condition] if condition else taken
    used, values = _used(graph, arguments, ends), _used(graph, arguments, ends, shapes=False)
    unread = _may_not_turn(outer, node) and not set(taken) <= {
        given.result or f"{name}:0" for name, given in arguments.items() if name in values
    }
    return Body(graph, arguments, outputs, used, unread)


def _may_not_turn(outer: Any, node: Any) -> bool:
    """Whether what is sent, or a branch that no record took, may decide that a loop does not turn."""
    if node.op != "Loop":
        return False
    fixed = outer.maker(node.input[1])
    known = fixed.op == "Const" and bool(fixed.operation.get_data().all())
    return not known and (outer.hidden or any(outer.depends(tensor) for tensor in node.input[:2]))


def _arguments(node: Any, model: Any, told: Any) -> Iterator[tuple[str, Argument]]:
    parameters = model.get_parameters()
    described = {each.body_parameter_index: each for each in told}
    for number, parameter in enumerate(parameters):
        name, each = str(parameter.get_name()), described.get(number)
        if each is None:
            yield name, Argument("")
            continue
        result = _result(model, each.body_value_index) if hasattr(each, "body_value_index") else ""
        kept = result.partition(":")[0] == name
        yield name, Argument(node.input[each.input_index], "" if kept else result, hasattr(each, "axis"))


def _result(model: Any, number: int) -> str:
    source = model.get_results()[number].input_value(0)
    return f"{source.get_node().get_name()}:{source.get_index()}"


def _given(outer: Any, arguments: Mapping[str, Argument]) -> tuple[dict[str, str], dict[str, Limits]]:
    """The arguments that depend on what is sent, and what is known of all."""
    handed = {name: given.tensor for name, given in arguments.items() if given.tensor}
    known = {name: held for name, tensor in handed.items() if (held := outer.span(tensor)) is not None}
    return {name: name for name, tensor in handed.items() if outer.depends(tensor)}, known


def _carried_on(
    graph: Any, arguments: Mapping[str, Argument], found: set[str], condition: str, decided: bool
) -> dict[str, str]:
    """Which arguments depend on what is sent once a loop has turned often enough."""
    changing = {name for name, given in arguments.items() if given.result or not given.tensor}
    while True:
        inner = Graph(graph.nodes, {name: name for name in found}, {})
        decided = decided or bool(condition and inner.depends(condition))
        more = {name for name, given in arguments.items() if given.result and inner.depends(given.result)}
        more |= changing if decided else set()
        if more <= found:
            return {name: name for name in found}
        found |= more


def _settled(  # noqa: PLR0917
    outer: Any,
    model: Any,
    arguments: Mapping[str, Argument],
    inputs: Mapping[str, str],
    known: dict[str, Limits],
    condition: str,
) -> Any:
    """The body with intervals that hold in every turn."""
    turn, carried = 0, {name: given.result for name, given in arguments.items() if given.result}
    while True:
        graph = outer.inside(model, inputs, known, outer.hidden)
        allowed = _allowed(graph, condition) if condition else {}
        grown = dict(known)
        for name, result in carried.items():
            if name in known:
                own = graph.own(f"{name}:0")
                grown[name] = _grown(known[name], graph.span(result), own, allowed.get(result), turn >= PATIENCE)
        if grown == known:
            return graph
        known, turn = grown, turn + 1


def _grown(known: Limits, back: Limits | None, own: Limits | None, allowed: Limits | None, impatient: bool) -> Limits:
    assert own is not None
    most = own if allowed is None else (max(own[0], allowed[0]), min(own[1], allowed[1]))
    low, high = back if back is not None and own[0] <= back[0] and back[1] <= own[1] else own  # it wraps around
    low, high = max(low, most[0]), min(high, most[1])
    if low > high:  # it never turns again
        return known
    if impatient:
        low, high = most[0] if low < known[0] else low, most[1] if high > known[1] else high
    return (min(low, known[0]), max(high, known[1]))


def _used(graph: Any, arguments: Mapping[str, Argument], results: list[str], shapes: bool = True) -> frozenset[str]:
    """The nodes that results are made of, in whichever turn; not those whose shapes alone are."""
    found, todo = set[str](), list(results)
    while todo:
        node = graph.maker(todo.pop())
        if node.name in found:
            continue
        found.add(node.name)
        todo += node.input if shapes or node.op != "Shape" else []
        if node.name in arguments and arguments[node.name].result:
            todo.append(arguments[node.name].result)
    return frozenset(found)


def _allowed(graph: Any, condition: str) -> dict[str, Limits]:
    """What tensors are where the condition is true, as far as their comparison with something known tells."""
    found: dict[Part, Limits] = {}
    todo = [condition]
    while todo:
        node = graph.maker(todo.pop())
        if node.op == "LogicalAnd":
            todo += node.input
        if node.op not in _COMPARED:
            continue
        (left, right), by = node.input, _COMPARED[node.op]
        less = node.op.startswith("Less")
        for tensor, other, below in ((left, right, less), (right, left, not less)):
            bound, own = graph.span(other), graph.own(tensor)
            if bound is None or own is None:
                continue
            narrow(found, Part(tensor), (own[0], bound[1] - by) if below else (bound[0] + by, own[1]))
    return {part.name: limit for part, limit in found.items()}


def _hull(found: list[Limits | None]) -> Limits | None:
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    return (min(low for low, _ in known), max(high for _, high in known))
