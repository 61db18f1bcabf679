"""Which results are computed from a kind of operation: through functions result by result, loops and branches whole."""

from __future__ import annotations

import pytest
from tfopt_optimizer.graphs import Graph
from tfopt_optimizer.lineage import Lineage
from tfopt_protos import messages


def graph(nodes, **functions):
    """`nodes`: name -> (op, inputs, function it calls). `functions`: name -> (arguments, results, nodes)."""
    made = messages.message("tensorflow.MetaGraphDef")()
    fill(made.graph_def.node, nodes)
    for name, (arguments, results, body) in functions.items():
        function = made.graph_def.library.function.add()
        function.signature.name = name
        for argument in arguments:
            function.signature.input_arg.add(name=argument)
        for result, edge in results.items():
            function.signature.output_arg.add(name=result)
            function.ret[result] = edge
        fill(function.node_def, body)
    return Graph(made)


def fill(repeated, nodes):
    for name, (op, inputs, *called) in nodes.items():
        node = repeated.add(name=name, op=op, input=inputs)
        for key, function in zip(("f", "else_branch"), called, strict=False):
            node.attr[key].func.name = function


INNER = (["a", "b"], {"p": "cast:y:0", "q": "b"}, {"cast": ("Cast", ["a"])})
# Gives its first result on, and calls the inner function with its arguments changed round.
OUTER = (["c", "d"], {"r": "call:output:1", "s": "call:output:0"}, {"call": ("PartitionedCall", ["c", "d"], "inner")})
NODES = {
    "x": ("Placeholder", []), "y": ("Placeholder", []), "early": ("Cast", ["y"]),
    "call": ("StatefulPartitionedCall", ["x", "x", "^early"], "outer"),
    "after": ("StatefulPartitionedCall", ["x", "early"], "outer"),
    "named": ("inner", ["x", "x"]), "branch": ("If", ["x", "x"], "inner", "outer"), "loop": ("Merge", ["x", "back"]),
    "back": ("NextIteration", ["loop"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        ("x:0", False), ("early:0", True), ("call:0", False), ("call:1", True), ("after:0", True), ("after:1", True),
        ("named", True), ("named:1", False), ("branch:0", True), ("loop:0", False),
    ],
)  # fmt: skip
def test_each_result_by_itself(tensor, expected):
    lineage = Lineage(graph(NODES, inner=INNER, outer=OUTER), lambda node: node.op == "Cast")
    assert lineage.below(tensor, ["x:0", "y:0"]) == expected
    assert not lineage.below(tensor, ["x:0", tensor])


def test_a_function_that_calls_itself_has_an_end():
    again = (["a"], {"p": "call:output:0"}, {"call": ("PartitionedCall", ["a"], "again")})
    found = graph({"x": ("Placeholder", []), "call": ("PartitionedCall", ["x"], "again")}, again=again)
    assert not Lineage(found, lambda node: node.op == "Cast").below("call:0", [])
