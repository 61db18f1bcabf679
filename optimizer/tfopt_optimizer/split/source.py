"""A signature's graph out of TensorFlow, with all calls inlined, and the values behind it: variables and tables.

For the cutter's process alone. Two ways in: `tf.saved_model.load`, and for TF1 models that it refuses (reference
variables) a TF1 session, whose variables are frozen to constants.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer.engines import freeze
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place
from tfopt_optimizer.errors import NotLowerable, first_line
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.saved_model import SavedModelError
from tfopt_optimizer.split import graph as graphs
from tfopt_optimizer.split.graph import Graph, Node, Tensor, node_of
from tfopt_optimizer.split.partition import EFFECTS, without_passing

# TF1 models hold variables and tables in the graph itself, where only a session has their values.
_TABLES = frozenset({"HashTableV2", "MutableHashTableV2", "MutableHashTableOfTensorsV2", "MutableDenseHashTableV2"})
_HELD_IN_GRAPH = frozenset({"VariableV2", "Variable", "VarHandleOp"}) | _TABLES
# A loop of TF1 runs through the graph itself, and its branches hang on values: no cut may go through them.
# The first kind of tables is a reference.
_TF1 = frozenset({
    "Switch", "RefSwitch", "Merge", "RefMerge", "Enter", "RefEnter", "Exit", "NextIteration", "HashTable",
    "MutableHashTable",
})  # fmt: skip
# What a table that nothing is looked up in directly may hold.
_TABLE_TYPES = tuple((k, v) for k in ("string", "int64", "int32") for v in ("int64", "string", "float", "int32"))


@dataclasses.dataclass(frozen=True)
class Source:
    """`graph` is what the policy sees of `definition` (a GraphDef). `variable(node)` and `table(node)` read values: the
    keys of a table, and its values in the same order. NotLowerable when a resource is none that can be read."""

    graph: Graph
    definition: Any
    variable: Callable[[str], np.ndarray]
    table: Callable[[str], tuple[np.ndarray, np.ndarray]]

    @functools.cached_property
    def definitions(self) -> Mapping[str, Any]:
        """Node name -> NodeDef."""
        return {node.name: node for node in self.definition.node}

    def shape(self, variable: str) -> tuple[int, ...]:
        if variable not in self._shapes:
            self._shapes[variable] = self.variable(variable).shape
        return self._shapes[variable]

    @functools.cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def copy(self, name: str, renamed: Mapping[str, str]) -> Any:
        """A node's NodeDef as `graph` has it, on no device and without control edges. `renamed`: tensors -> tensors."""
        node, seen = type(self.definitions[name])(), self.graph.nodes[name]
        node.CopyFrom(self.definitions[name])
        node.device = ""
        node.attr.pop("_class", None)
        if node.op in graphs.SHAPES:  # graph.numeric_shapes may have given it another type
            node.attr["T"].type = dtypes.NUMBERS[self.graph.tensor(seen.inputs[0]).dtype]
        del node.input[:]
        node.input.extend(renamed.get(t, t) for t in seen.inputs)
        return node


class Sources:
    """One model, loaded once by whichever way takes it."""

    def __init__(self, place: Place) -> None:
        self._place, self.tf = place, tensorflow_engine.tensorflow(place)
        self._models: dict[str, Any] = {}

    def _model(self, loader: str) -> Any:
        if loader not in self._models:
            self._models[loader] = tensorflow_engine.open_model(self._place, loader)
        return self._models[loader]

    def of(self, signature: SignatureInfo) -> Source:
        """NotLowerable when TensorFlow cannot inline it."""
        try:
            return self._read(signature)
        except NotLowerable:
            raise
        except Exception as error:
            # Inlining raises whatever its passes meet: it all means "not this way".
            raise NotLowerable(f"TensorFlow cannot inline it: {first_line(error)}") from error

    def _read(self, signature: SignatureInfo) -> Source:
        try:
            function = self._model(tensorflow_engine.FUNCTION).signature(signature.key)
        except SavedModelError:
            return _from_session(self.tf, self._model(tensorflow_engine.SESSION), signature)
        found = _from_function(self.tf, function, signature)
        if any(node.op in _HELD_IN_GRAPH for node in found.graph.nodes.values()):
            return _from_session(self.tf, self._model(tensorflow_engine.SESSION), signature)
        return found


def _from_function(tf: Any, function: Any, info: SignatureInfo) -> Source:
    from tensorflow.python.framework.convert_to_constants import _run_inline_graph_optimization

    names, outputs = [t.name for t in info.inputs], sorted(function.structured_outputs)

    def call(*values: Any) -> list[Any]:
        found = function(**dict(zip(names, values, strict=True)))
        return [tf.identity(found[name]) for name in outputs]

    specs = [tf.TensorSpec(t.shape, t.dtype, name=f"tfopt_input_{i}") for i, t in enumerate(info.inputs)]
    concrete = tf.function(call, autograph=False).get_concrete_function(*specs)
    definition = _run_inline_graph_optimization(concrete, lower_control_flow=False, aggressive_inlining=True)
    inputs = dict(zip(names, (t.name for t in concrete.inputs), strict=False))
    ends = dict(zip(outputs, (t.name for t in concrete.outputs), strict=True))
    captured = {
        t.op.name: value
        for t, value in zip(concrete.inputs[len(names) :], concrete.captured_inputs, strict=True)
        if value.dtype == tf.resource
    }
    variables = {name for name, value in captured.items() if _is_variable(value)}
    seen = read(tf, definition, inputs, ends, variables=variables, tables=set(captured) - variables)
    _refuse_tf1(kind for node in seen.nodes.values() for kind in node.inner)
    return Source(
        seen,
        definition,
        lambda node: _variable(tf, captured[node]),
        lambda node: _table(tf, node, seen, lambda types: _exported(tf, captured[node], types)),
    )


def _refuse_tf1(kinds: Iterable[str]) -> None:
    """A function with such operations is not inlined, a session's graph holds them itself."""
    old = sorted(_TF1.intersection(kinds))
    if old:
        raise NotLowerable(f"its graph is TF1's ({old[0]}), which is not cut")


def _is_variable(handle: Any) -> bool:
    data = getattr(handle, "_handle_data", None)
    return bool(data is not None and data.is_set and len(data.shape_and_type) == 1)  # tables have keys and values


def _variable(tf: Any, handle: Any) -> np.ndarray:
    dtype = tf.dtypes.as_dtype(handle._handle_data.shape_and_type[0].dtype)
    return np.asarray(tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype).numpy())


def _exported(tf: Any, handle: Any, types: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    keys, values = (dtypes.NUMBERS[t] for t in types)
    found = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=keys, Tvalues=values)
    return found.keys.numpy(), found.values.numpy()


def _table(tf: Any, node: str, graph: Graph, export: Callable[[tuple[str, str]], Any]) -> Any:
    """What `export` finds for the types that the table is looked up with, or that it turns out to have.

    In the order of the keys: TensorFlow's is another in every process, and equal tables are stored once.
    """
    for types in _table_types(graph, node):
        try:
            keys, values = export(types)
        except tf.errors.OpError as error:
            reason = first_line(error)
            continue
        order = np.argsort(keys, kind="stable") if keys.ndim == 1 else slice(None)
        return keys[order], values[order]
    raise NotLowerable(f"{node} cannot be read as a table: {reason}")


def _table_types(graph: Graph, table: str) -> Sequence[tuple[str, str]]:
    for node in graph.nodes.values():
        if node.op == "LookupTableFindV2" and node_of(node.inputs[0]) == table:
            return [(graph.tensor(node.inputs[1]).dtype, node.outputs[0].dtype)]
    return _TABLE_TYPES


def _from_session(tf: Any, model: tensorflow_engine.SessionModel, info: SignatureInfo) -> Source:
    session = model.session
    inputs = {t.name: t.tensor for t in info.inputs}
    outputs = {t.name: t.tensor for t in info.outputs}
    ends = sorted({node_of(t) for t in outputs.values()})
    whole = session.graph.as_graph_def()
    freeze.refuse(_variables_bytes(tf, tf.compat.v1.graph_util.extract_sub_graph(whole, ends)))
    frozen = tf.compat.v1.graph_util.convert_variables_to_constants(session, whole, ends)
    freeze.refuse(frozen.ByteSize())
    _refuse_tf1(node.op for node in frozen.node)
    tables = {n.name for n in frozen.node if n.op in _TABLES}
    seen = read(tf, frozen, inputs, outputs, variables=set(), tables=tables)

    def export(node: str, types: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
        handle, (keys, values) = session.graph.get_tensor_by_name(f"{node}:0"), (dtypes.NUMBERS[t] for t in types)
        with session.graph.as_default():
            found = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=keys, Tvalues=values)
        exported = session.run([found.keys, found.values])
        return exported[0], exported[1]

    def variable(node: str) -> np.ndarray:
        raise KeyError(node)

    return Source(seen, frozen, variable, lambda node: _table(tf, node, seen, lambda types: export(node, types)))


def _variables_bytes(tf: Any, graph: Any) -> int:
    found = [n for n in graph.node if n.op in _HELD_IN_GRAPH - _TABLES]
    sizes = (tf.TensorShape(n.attr["shape"].shape).num_elements() or 0 for n in found)
    return sum(size * tf.dtypes.as_dtype(n.attr["dtype"].type).size for n, size in zip(found, sizes, strict=True))


def read(
    tf: Any,
    definition: Any,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    *,
    variables: set[str],
    tables: set[str],
) -> Graph:
    """The GraphDef as the policy sees it: without what nothing depends on, without Identity on the way."""
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(definition, name="")
    bodies = {f.signature.name: f for f in definition.library.function}
    nodes, controls = {}, {}
    for op in graph.get_operations():
        kinds = frozenset(_inside(op.node_def, bodies))
        tensors = tuple(Tensor(_dtype(t), _shape(t)) for t in op.outputs)
        nodes[op.name] = Node(op.name, op.type, tuple(t.name for t in op.inputs), tensors, kinds)
        controls[op.name] = [c.name for c in op.control_inputs]
    found = graphs.ordered(Graph(nodes, inputs, outputs, frozenset(variables), frozenset(tables)))
    reached = _reached(found, controls)
    effects = tuple(n for n in found.nodes if n in reached and nodes[n].op in EFFECTS)
    found = dataclasses.replace(without_passing(found), effects=effects)
    return graphs.needed(graphs.numeric_shapes(graphs.needed(found)))


def _reached(graph: Graph, controls: Mapping[str, list[str]]) -> set[str]:
    """What the outputs depend on, by data or by order."""
    seen: set[str] = set()
    todo = [node_of(t) for t in graph.outputs.values()]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [node_of(t) for t in graph.nodes[name].inputs] + controls[name]
    return seen


def _inside(node: Any, bodies: Mapping[str, Any]) -> set[str]:
    kinds: set[str] = set()
    todo, seen = list(_calls(node)), set[str]()
    while todo:
        name = todo.pop()
        if name in seen or name not in bodies:
            continue
        seen.add(name)
        for inner in bodies[name].node_def:
            kinds.add(inner.op)
            todo += _calls(inner)
    return kinds


def _calls(node: Any) -> list[str]:
    found = [v.func.name for v in node.attr.values() if v.HasField("func")]
    return found + [f.name for v in node.attr.values() for f in v.list.func]


def _dtype(tensor: Any) -> str:
    return dtypes.name(tensor.dtype.base_dtype.as_datatype_enum)


def _shape(tensor: Any) -> tuple[int | None, ...] | None:
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
