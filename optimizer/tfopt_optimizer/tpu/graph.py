"""A SavedModel's meta graph as the converter edits it: its functions, who calls whom, and moving callers to another.

Protobuf only, no TensorFlow. Function names are those of the file (TensorFlow renames functions when it loads them).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from tfopt_protos import messages

from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_optimizer.tpu.options import ALIAS, CONCRETE, JIT, SIGNATURE, Chosen

DT_FLOAT, DT_STRING, DT_RESOURCE, DT_VARIANT, DT_BFLOAT16 = 1, 7, 20, 21, 14
MUST_COMPILE = "_XlaMustCompile"
# Functions that saving and loading use; nobody means these.
_OWN = tuple(f"__inference_{n}" for n in ("_traced_", "_creator", "_initializer", "_destroyer"))
_CALL_OPS = frozenset({"StatefulPartitionedCall", "PartitionedCall"})


class ModelGraph:
    """A MetaGraphDef of the private pool, changed in place."""

    def __init__(self, meta: Any) -> None:
        self.meta = meta
        self.functions: dict[str, Any] = {f.signature.name: f for f in self.library.function}

    @property
    def library(self) -> Any:
        return self.meta.graph_def.library

    @property
    def objects(self) -> Any:
        return self.meta.object_graph_def

    def add(self, function: Any) -> Any:
        """Takes a new function into the library; returns the library's own copy of it."""
        if function.signature.name in self.functions:
            raise ConversionError(
                f"the model has a function {function.signature.name!r} already: was it converted before?"
            )
        added = self.library.function.add()
        added.CopyFrom(function)
        self.functions[added.signature.name] = added
        return added

    def called_by(self, name: str) -> set[str]:
        """Functions that the body of `name` calls itself."""
        return {f.name for node in self.functions[name].node_def for f in calls(node) if f.name in self.functions}

    def callers(self, name: str) -> set[str]:
        return {f for f in self.functions if name in self.called_by(f)}

    def reachable(self, name: str) -> set[str]:
        """Functions that run when `name` does, itself excluded."""
        found: set[str] = set()
        todo = [name]
        while todo:
            for callee in self.called_by(todo.pop()) - found:
                found.add(callee)
                todo.append(callee)
        return found

    def captures(self, name: str) -> int:
        """How many of the last arguments the function captured (variables, tables); callers of it bring the others."""
        concrete = self.objects.concrete_functions
        if name in concrete:
            return len(concrete[name].bound_inputs)
        count = 0
        for arg in reversed(self.functions[name].signature.input_arg):
            if arg.type != DT_RESOURCE:
                break
            count += 1
        return count

    def redirect(self, old: str, new: str, leave: Collection[str]) -> int:
        """Calls of `old` become calls of `new`: in the main graph, all functions but `leave`, and for Python callers.

        Returns how many call nodes changed.
        """
        bodies = [f.node_def for name, f in self.functions.items() if name not in leave]
        changed = 0
        for nodes in (self.meta.graph_def.node, *bodies):
            for node in nodes:
                called = [f for f in calls(node) if f.name == old]
                for function in called:
                    function.name = new
                if called:
                    node.attr.pop(MUST_COMPILE, None)  # XLA compiles what is on the TPU, not the call of it
                    changed += 1
        self._redirect_objects(old, new)
        return changed

    def _redirect_objects(self, old: str, new: str) -> None:
        objects = self.objects
        if old not in objects.concrete_functions:
            return
        objects.concrete_functions[new].CopyFrom(objects.concrete_functions[old])
        for node in objects.nodes:
            names = node.function.concrete_functions
            for i in [i for i, name in enumerate(names) if name == old]:
                names[i] = new
            bare = node.bare_concrete_function
            if node.HasField("bare_concrete_function") and bare.concrete_function_name == old:
                bare.concrete_function_name = new


def calls(node: Any) -> Iterator[Any]:
    """The NameAttrList of every function that a node calls."""
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func
        yield from value.list.func


def refuse_tf1(graph: ModelGraph) -> None:
    """TF1 graphs hold no functions to choose from. ConversionError with the reason and what to do."""
    if graph.meta.HasField("object_graph_def") and graph.functions:
        return
    raise ConversionError(
        "this is a TF1 SavedModel: it has no functions and no object graph, so there is nothing to name in "
        "tpu_functions; load it with tf.compat.v1.saved_model.load or tf.saved_model.load inside a tf.Module, call its "
        "signature in a tf.function, and save it with TensorFlow 2"
    )


def choose(graph: ModelGraph, chosen: Iterable[Chosen]) -> dict[str, Chosen]:
    """Names of the functions to place, each with the option that chose it. ConversionError lists all that is wrong."""
    found: dict[str, Chosen] = {}
    wrong: list[str] = []
    for one in chosen:
        names = resolve(graph, one.kind, one.name)
        if not names:
            wrong.append(f"tpu_functions, line {one.line}: {_no_such(graph, one)}")
        for name in names:
            if name in found and found[name].kind != JIT and one.kind != JIT:
                wrong.append(f"tpu_functions, line {one.line}: {one} is the function that {found[name]} names already")
            elif name not in found or found[name].kind == JIT:
                found[name] = one
    if wrong:
        raise ConversionError(wrong)
    return _without_inner_jit(graph, found)


def resolve(graph: ModelGraph, kind: str, name: str) -> list[str]:
    """The functions that an option means: an alias has one per trace, jit_compile_functions any number."""
    if kind == ALIAS:
        aliases = graph.meta.meta_info_def.function_aliases
        return sorted(function for function, alias in aliases.items() if alias == name and function in graph.functions)
    if kind == CONCRETE:
        return [name] if name in graph.functions else []
    if kind == SIGNATURE:
        return signature_functions(graph, name)
    assert kind == JIT, kind
    return sorted(_jit_compiled(graph))


def signature_functions(graph: ModelGraph, key: str) -> list[str]:
    """The function that the main graph calls for the outputs of a signature."""
    if key not in graph.meta.signature_def:
        return []
    nodes = {node.name: node for node in graph.meta.graph_def.node}
    found: list[str] = []
    for output in graph.meta.signature_def[key].outputs.values():
        name, _, port = output.name.partition(":")
        node = nodes.get(name)
        while node is not None and node.op in ("Identity", "IdentityN"):  # the second in what the quantizer writes
            name, _, port = node.input[int(port or 0)].partition(":")
            node = nodes.get(name)
        if node is not None and node.op in _CALL_OPS:
            found += [f.name for f in calls(node) if f.name not in found]
    return found


def check_indirect_calls(graph: ModelGraph, placed: Collection[str]) -> None:
    """A function on the TPU may call another one directly (both run there), never through one that is not on it."""
    wrong = []
    for outer in sorted(placed):
        for between in sorted(graph.called_by(outer) - set(placed)):
            inner = sorted((graph.reachable(between) | {between}) & set(placed))
            wrong += [
                f"indirect function call: the TPU function {outer!r} calls {between!r}, which is no TPU function and "
                f"calls the TPU function {name!r}; name {between!r} in tpu_functions too, or leave {name!r} out"
                for name in inner
            ]
    if wrong:
        raise ConversionError(wrong)


def _jit_compiled(graph: ModelGraph) -> set[str]:
    found = {name for name, f in graph.functions.items() if f.attr[MUST_COMPILE].b}
    bodies = [f.node_def for f in graph.functions.values()]
    for nodes in (graph.meta.graph_def.node, *bodies):
        for node in nodes:
            if MUST_COMPILE in node.attr and node.attr[MUST_COMPILE].b:
                found |= {f.name for f in calls(node) if f.name in graph.functions}
    return found


def _without_inner_jit(graph: ModelGraph, found: dict[str, Chosen]) -> dict[str, Chosen]:
    """jit_compile functions that only run inside another one that is placed are on the TPU by that already."""
    outer = {name: graph.reachable(name) for name in found}

    def inside(name: str) -> bool:
        callers = graph.callers(name)
        covered = {f for other, inner in outer.items() if other != name and name in inner for f in inner | {other}}
        return bool(callers) and callers <= covered and name not in graph.objects.concrete_functions

    return {name: one for name, one in found.items() if one.kind != JIT or not inside(name)}


def _no_such(graph: ModelGraph, one: Chosen) -> str:
    there: Iterable[str]
    if one.kind == ALIAS:
        there = set(graph.meta.meta_info_def.function_aliases.values())
    elif one.kind == SIGNATURE:
        there = (key for key in graph.meta.signature_def if not key.startswith("__saved_model_"))
    elif one.kind == CONCRETE:
        there = (
            name
            for name in graph.functions
            if not name.startswith(
                ("__inference__traced_", "__inference__creator", "__inference__init", "__inference__destroyer")
            )
        )
    else:
        return "the model has no function with jit_compile=True"
    listed = ", ".join(sorted(there)[:20]) or "none"
    hint = "; give it one with tf.saved_model.SaveOptions(function_aliases=...)" if one.kind == ALIAS else ""
    return f"the model has no {one}; it has: {listed}{hint}"


def copy_of(function: Any) -> Any:
    """A FunctionDef with the same content, not in any library."""
    copied = messages.message("tensorflow.FunctionDef")()
    copied.CopyFrom(function)
    return copied
