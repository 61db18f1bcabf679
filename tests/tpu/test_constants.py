"""What compilers must know before any call: followed through calls, branches and loops as XLA follows it."""

from __future__ import annotations

import pytest
from tfopt_optimizer.tpu.constants import CONSTANT_INPUTS, Constants, Demand
from tfopt_protos import messages

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def cases():
    """name -> a traced function of x [4, 4], s int32 [2], n int32 []."""
    import tensorflow as tf

    variable = tf.Variable([2, 8])

    def reshaped(x, s):
        return tf.reduce_sum(tf.reshape(x, s))

    called = tf.function(reshaped)
    twice = tf.function(lambda x, s: called(x, s) + 1.0)
    same = tf.function(tf.identity)

    def rounds(x, s, n):
        total, i = 0.0, 0
        while i < n:
            total, i = total + reshaped(x, s), i + 1
        return total

    def counted(x, s, n):
        total = 0.0
        for i in tf.range(3):
            total += tf.reduce_sum(tf.fill([i + 1], 2.0))
        return total

    def handed_on(x, s, n):
        shape, i = tf.shape(x), 0
        while i < n:
            shape, i = same(shape), i + 1
        return reshaped(x, shape)

    def after(x, s, n):
        return tf.fill(tf.while_loop(lambda i: i[0] < 4, lambda i: i + 1, [tf.constant([0])])[0], 1.0)

    def switched(x, s, n):
        return tf.switch_case(n, [lambda: tf.reduce_sum(tf.reshape(x, [n, -1])), lambda: 0.0])

    return {
        "call": lambda x, s, n: called(x, s),
        "call of a call": lambda x, s, n: twice(x, s),
        "call with a constant": lambda x, s, n: called(x, tf.constant([2, 8])),
        "call with a shape": lambda x, s, n: called(x, tf.shape(x)[::-1]),
        "call with the shape of an argument": lambda x, s, n: called(x, tf.zeros_like(s) + 4),
        "branch": lambda x, s, n: tf.cond(n > 0, lambda: reshaped(x, s), lambda: 0.0),
        "branch with a shape": lambda x, s, n: tf.cond(n > 0, lambda: reshaped(x, tf.shape(x)), lambda: 0.0),
        "what a branch gives": lambda x, s, n: tf.fill([tf.cond(n > 0, lambda: 2, lambda: 3)], 1.0),
        "what a known branch gives": lambda x, s, n: tf.fill([tf.cond(tf.size(x) > 0, lambda: 2, lambda: 3)], 1.0),
        "case": switched,
        "loop": rounds,
        "loop with a shape": lambda x, s, n: rounds(x, tf.shape(x), n),
        "loop variable": counted,
        "loop variable that a call hands on": handed_on,
        "after a loop": after,
        "variable": lambda x, s, n: tf.reshape(x, variable),
    }


NAMES = {"x": "x", "s": "s", "n": "n"}
KNOWN = ["call with a constant", "call with a shape", "call with the shape of an argument", "branch with a shape",
         "what a known branch gives", "loop with a shape"]  # fmt: skip
UNKNOWN = {
    "call": ("Reshape", {"s"}), "call of a call": ("Reshape", {"s"}), "branch": ("Reshape", {"s"}),
    "what a branch gives": ("Fill", {"n"}), "case": ("Reshape", {"n"}), "loop": ("Reshape", {"s"}),
    "loop variable": ("Fill", {"while"}), "after a loop": ("Fill", {"while"}),
    "loop variable that a call hands on": ("Reshape", {"while"}), "variable": ("Reshape", {"variable"}),
}  # fmt: skip


@pytest.mark.parametrize("case", [*KNOWN, *UNKNOWN])
def test_what_it_says_is_what_xla_says(cases, case) -> None:
    import tensorflow as tf

    specs = [tf.TensorSpec([4, 4], name="x"), tf.TensorSpec([2], tf.int32, "s"), tf.TensorSpec([], tf.int32, "n")]
    function = tf.function(cases[case], jit_compile=True, autograph=True)
    found = demands(function.get_concrete_function(*specs))
    assert found == ([] if case in KNOWN else [UNKNOWN[case]])
    if case in KNOWN:
        assert function.experimental_get_compiler_ir(*specs)(stage="stablehlo")
    else:
        with pytest.raises(Exception, match="must be a compile-time constant"):
            function.experimental_get_compiler_ir(*specs)(stage="stablehlo")


def demands(concrete) -> list[tuple[str, set[str]]]:
    """(operation, names of what it is computed from), loops and variables without their numbers."""
    graph = concrete.graph.as_graph_def()
    own = concrete.function_def
    read = messages.message("tensorflow.FunctionDef").FromString
    functions = {f.signature.name: read(f.SerializeToString()) for f in (*graph.library.function, own)}
    arguments = [a.name for a in own.signature.input_arg]
    plain = {a: a if a in NAMES else "variable" for a in arguments}
    found = Constants(functions).demands(own.signature.name)
    return [(d.op, {r if isinstance(r, str) else plain[arguments[r]] for r in d.roots}) for d in found]


def test_the_path_leads_from_the_call_to_the_operation() -> None:
    library = messages.message("tensorflow.FunctionDefLibrary")()
    inner, outer = library.function.add(), library.function.add()
    inner.signature.name, outer.signature.name = "inner", "outer"
    for function in (inner, outer):
        function.signature.input_arg.add(name="x", type=1)
        function.signature.input_arg.add(name="size", type=3)
        function.signature.output_arg.add(name="y", type=1)
    inner.node_def.add(op="Reshape", name="Reshape").input.extend(["x", "size"])
    inner.ret["y"] = "Reshape:output:0"
    call = outer.node_def.add(op="PartitionedCall", name="Call")
    call.input.extend(["x", "size"])
    call.attr["f"].func.name = "inner"
    outer.ret["y"] = "Call:output:0"
    found = Constants({f.signature.name: f for f in library.function}).demands("outer")
    assert found == (Demand((("outer", "Call"), ("inner", "Reshape")), "Reshape", 1, frozenset({1})),)


def test_a_function_that_calls_itself_comes_to_an_end() -> None:
    function = messages.message("tensorflow.FunctionDef")()
    function.signature.name = "f"
    function.signature.input_arg.add(name="size", type=3)
    function.signature.output_arg.add(name="y", type=1)
    call = function.node_def.add(op="PartitionedCall", name="Call")
    call.input.append("size")
    call.attr["f"].func.name = "f"
    function.node_def.add(op="Fill", name="Fill").input.extend(["Call:output:0", "size"])
    function.ret["y"] = "Fill:output:0"
    assert [d.op for d in Constants({"f": function}).demands("f")] == ["Fill"]


def test_every_kind_names_inputs_that_the_operation_has() -> None:
    from tensorflow.python.framework import op_def_registry

    for op, inputs in CONSTANT_INPUTS.items():
        count = len(op_def_registry.get(op).input_arg)
        assert all(-count <= i < count for i in inputs), op
