"""The cut as policy: what stays on the host and why, levels, packing. No TensorFlow: graphs are written by hand."""

from __future__ import annotations

import pytest
from tfopt_optimizer.split import packing
from tfopt_optimizer.split.graph import Graph, Node, Tensor, needed, numeric_shapes, ordered
from tfopt_optimizer.split.partition import host_reason, partition, without_passing

KERNELS = {"MatMul", "Relu", "GatherV2", "AddV2", "Cast", "Where", "While", "Const", "Identity", "ReadVariableOp"}
STRING, LONG, FLOAT = Tensor("string", (None,)), Tensor("int64", None), Tensor("float", (None, 4))
RESOURCE = Tensor("resource", ())


def graph(*nodes, inputs, outputs, variables=("weights",), tables=("table",)):
    """Nodes are (name, op, inputs, output tensor); a "weights" variable and a "table" are there."""
    found = {n: Node(n, "Placeholder", (), (RESOURCE,)) for n in ("weights", "table")}
    found |= {name: Node(name, op, tuple(ins), (tensor,)) for name, op, ins, tensor in nodes}
    return Graph(found, inputs, outputs, frozenset(variables), frozenset(tables))


def fed(name, tensor):
    return (name, "Placeholder", (), tensor)


def look_up(name, keys):
    return (name, "LookupTableFindV2", ("table:0", keys, "default:0"), LONG)


DEFAULT = ("default", "Const", (), Tensor("int64", ()))
WEIGHTS = ("read", "ReadVariableOp", ("weights:0",), FLOAT)


def tabular():
    """Two words are looked up, gathered and multiplied; the best row's name is looked up in the end."""
    return graph(
        fed("a", STRING),
        fed("b", STRING),
        DEFAULT,
        WEIGHTS,
        look_up("id_a", "a:0"),
        look_up("id_b", "b:0"),
        ("vector_a", "GatherV2", ("read:0", "id_a:0"), FLOAT),
        ("vector_b", "GatherV2", ("read:0", "id_b:0"), FLOAT),
        ("sum", "AddV2", ("vector_a:0", "vector_b:0"), FLOAT),
        ("label", "LookupTableFindV2", ("table:0", "sum:0", "default:0"), STRING),
        inputs={"a": "a:0", "b": "b:0"},
        outputs={"label": "label:0", "score": "sum:0"},
    )


def shape_of(cut):
    return [(s.where, s.nodes) for s in cut.segments]


def test_strings_and_tables_stay_on_the_host_and_the_rest_is_one_device_segment():
    cut = partition(tabular(), KERNELS, lambda node: False)
    assert shape_of(cut) == [
        ("host", ("id_a", "id_b")),
        ("device", ("vector_a", "vector_b", "sum")),
        ("host", ("label",)),
    ]
    assert cut.segments[1].inputs == ("id_a:0", "id_b:0")
    assert cut.segments[1].outputs == ("sum:0",)
    assert cut.reasons == dict.fromkeys(("id_a", "id_b", "label"), "LookupTableFindV2 reads a table")


def test_a_string_operation_in_the_middle_makes_two_device_segments():
    middle = graph(
        fed("x", FLOAT),
        WEIGHTS,
        ("first", "MatMul", ("x:0", "read:0"), FLOAT),
        ("text", "AsString", ("first:0",), STRING),
        ("number", "StringToNumber", ("text:0",), FLOAT),
        ("second", "MatMul", ("number:0", "read:0"), FLOAT),
        inputs={"x": "x:0"},
        outputs={"y": "second:0"},
    )
    cut = partition(middle, KERNELS, lambda node: False)
    assert shape_of(cut) == [("device", ("first",)), ("host", ("text", "number")), ("device", ("second",))]


def test_a_device_part_without_heavy_work_returns_to_a_host_that_can_run_it():
    light = graph(
        fed("x", FLOAT),
        ("sum", "AddV2", ("x:0", "x:0"), FLOAT),
        inputs={"x": "x:0"},
        outputs={"y": "sum:0"},
    )
    assert shape_of(partition(light, KERNELS, lambda node: True)) == [("host", ("sum",))]
    assert shape_of(partition(light, KERNELS, lambda node: False)) == [("device", ("sum",))]


def test_an_operation_that_a_compiler_refused_moves_to_the_host_with_its_words():
    cut = partition(tabular(), KERNELS, lambda node: False, {"vector_a": "XLA says no"})
    assert cut.segments[0].nodes == ("id_a", "id_b", "vector_a")
    assert cut.reasons["vector_a"] == "XLA says no"


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (("n", "Where", ("x:0",), LONG), "the shape of Where's result depends on values"),
        (("n", "Assert", ("x:0",), FLOAT), "Assert acts beyond its result"),
        (("n", "Print", ("x:0",), FLOAT), "Print acts beyond its result"),
        (("n", "SegmentSum", ("x:0",), FLOAT), "compilers have no kernel for SegmentSum"),
        (("n", "Relu", ("s:0",), FLOAT), "Relu works on string tensors"),
        (("n", "Relu", ("x:0",), STRING), "Relu works on string tensors"),
        (("n", "GatherV2", ("table:0", "x:0"), FLOAT), "GatherV2 reads a table"),
        (("n", "ReadVariableOp", ("weights:0",), FLOAT), ""),
        (("n", "Relu", ("x:0",), FLOAT), ""),
    ],
)
def test_why_an_operation_is_on_the_host(node, reason):
    found = graph(fed("x", FLOAT), fed("s", STRING), node, inputs={"x": "x:0", "s": "s:0"}, outputs={"y": "n:0"})
    assert host_reason(found, found.nodes["n"], KERNELS) == reason


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ({"AddV2", "PartitionedCall"}, ""),
        ({"AddV2", "StringJoin"}, "compilers have no kernel for StringJoin"),
        ({"Where"}, "While has Where inside"),
    ],
)
def test_a_loop_goes_where_all_that_it_holds_can_go(inner, reason):
    loop = Node("loop", "While", ("x:0",), (FLOAT,), frozenset(inner))
    found = Graph({"x": Node("x", "Placeholder", (), (FLOAT,)), "loop": loop}, {"x": "x:0"}, {"y": "loop:0"})
    assert host_reason(found, loop, KERNELS) == reason


def test_a_graph_that_runs_in_a_circle_is_refused():
    """TF1's loops do: sorting them must not go on for ever."""
    loop = [("merge", "Merge", ("x:0", "next:0"), FLOAT), ("next", "NextIteration", ("merge:0",), FLOAT)]
    found = graph(fed("x", FLOAT), *loop, inputs={"x": "x:0"}, outputs={"y": "merge:0"})
    with pytest.raises(ValueError, match="the graph runs in a circle through merge"):
        ordered(found)
    again = graph(fed("x", FLOAT), ("b", "AddV2", ("a:0", "x:0"), FLOAT), ("a", "Relu", ("x:0",), FLOAT),
                  ("c", "AddV2", ("b:0", "a:0"), FLOAT), inputs={"x": "x:0"}, outputs={"y": "c:0"})  # fmt: skip
    assert [n for n in ordered(again).nodes if len(n) == 1] == ["x", "a", "b", "c"]


def test_an_effect_is_kept_although_no_output_asks_for_it():
    found = graph(
        fed("x", FLOAT),
        ("fine", "Relu", ("x:0",), Tensor("bool", ())),
        ("check", "Assert", ("fine:0",), FLOAT),
        ("y", "MatMul", ("x:0", "x:0"), FLOAT),
        ("unused", "MatMul", ("x:0", "x:0"), FLOAT),
        inputs={"x": "x:0"},
        outputs={"y": "y:0"},
    )
    found = needed(Graph(found.nodes, found.inputs, found.outputs, effects=("check",)))
    assert "unused" not in found.nodes
    assert shape_of(partition(found, KERNELS, lambda node: False)) == [
        ("device", ("fine", "y")),
        ("host", ("check",)),
    ]


def test_the_shape_of_strings_is_taken_from_numbers_that_are_like_them():
    found = numeric_shapes(
        graph(
            fed("words", Tensor("string", (None, None))),
            DEFAULT,
            ("shape", "Shape", ("words:0",), Tensor("int32", (2,))),
            look_up("ids", "words:0"),
            inputs={"words": "words:0"},
            outputs={"shape": "shape:0", "ids": "ids:0"},
        )
    )
    assert found.nodes["shape"].inputs == ("ids:0",)
    assert list(found.nodes).index("ids") < list(found.nodes).index("shape")


def test_passing_operations_are_skipped_up_to_the_resource():
    found = without_passing(
        graph(
            fed("words", STRING),
            DEFAULT,
            ("handle", "Identity", ("table:0",), RESOURCE),
            ("ids", "LookupTableFindV2", ("handle:0", "words:0", "default:0"), LONG),
            ("end", "Identity", ("ids:0",), LONG),
            inputs={"words": "words:0"},
            outputs={"ids": "end:0"},
        )
    )
    assert found.nodes["ids"].inputs == ("table:0", "words:0", "default:0")
    assert found.outputs == {"ids": "ids:0"}


class TestPacking:
    def pack(self, found, *tensors, fits=()):
        return [
            (i.dtype, i.shape, i.parts, i.widths) for i in packing.pack(found, tensors, lambda tensor: tensor in fits)
        ]

    def test_look_ups_lie_in_one_matrix_and_narrow_when_their_values_are_known(self):
        found = tabular()
        assert self.pack(found, "id_a:0", "id_b:0", fits=("id_a:0", "id_b:0")) == [
            ("int32", (None, 2), ("id_a:0", "id_b:0"), (1, 1))
        ]
        assert self.pack(found, "id_a:0", "id_b:0") == [("int64", (None, 2), ("id_a:0", "id_b:0"), (1, 1))]

    def test_types_are_kept_apart_and_inner_dimensions_are_flattened(self):
        found = graph(
            fed("a", Tensor("float", (None,))),
            fed("b", Tensor("float", (None, 2, 3))),
            fed("c", Tensor("int32", (None,))),
            fed("d", Tensor("int32", (None,))),  # numbers that may be looked up: each has its range checked
            inputs={"a": "a:0", "b": "b:0", "c": "c:0", "d": "d:0"},
            outputs={},
        )
        assert self.pack(found, "a:0", "b:0", "c:0", "d:0") == [
            ("float", (None, 7), ("a:0", "b:0"), (1, 6)),
            ("int32", (None,), ("c:0",), ()),
            ("int32", (None,), ("d:0",), ()),
        ]

    def test_what_has_no_rows_for_sure_goes_alone(self):
        found = graph(
            fed("a", Tensor("float", (None,))),
            fed("b", Tensor("float", (None, None))),
            fed("c", Tensor("float", (3,))),
            ("d", "Reshape", ("a:0",), Tensor("float", (None,))),
            inputs={"a": "a:0", "b": "b:0", "c": "c:0"},
            outputs={},
        )
        assert [parts for _, _, parts, _ in self.pack(found, "a:0", "b:0", "c:0", "d:0")] == [
            ("a:0",),
            ("b:0",),
            ("c:0",),
            ("d:0",),
        ]
