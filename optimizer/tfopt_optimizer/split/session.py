"""The host part that TensorFlow alone can run (Example parsing, sparse operations, splitting strings): its graph, and
the session that runs it.

The graph lies in `host.pb`: the operations of all such host segments, with a placeholder for every tensor that comes
from elsewhere. What its tables and variables hold lies among the program's arrays (stored.py) and is put into the
session when it opens, so 26 columns of one vocabulary are on disk once. Operations run on the caller's thread, as the
engine tensorflow/inline runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tfopt_optimizer.engines import freeze
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place
from tfopt_optimizer.errors import Declined, NotLowerable, first_line
from tfopt_optimizer.split.graph import node_of
from tfopt_optimizer.split.program import Resource
from tfopt_optimizer.split.source import Source

# Functions of this process, which a file does not have.
UNSAVED = frozenset({"PyFunc", "EagerPyFunc", "PyFuncStateless"})
Arrays = Callable[[int], np.ndarray]


class Store(Protocol):
    """Keeps arrays and gives each a number."""

    def add(self, array: np.ndarray) -> int: ...


class GraphWriter:
    """Collects the parts of a source that a session is to run. NotLowerable says what cannot be written."""

    def __init__(self, source: Source, store: Store) -> None:
        self._source, self._store = source, store
        self._graph = type(source.definition)()
        self._graph.versions.CopyFrom(source.definition.versions)
        self._graph.library.CopyFrom(source.definition.library)
        self._placeholders: dict[str, str] = {}
        self._written: set[str] = set()
        self._resources: list[Resource] = []

    @property
    def resources(self) -> tuple[Resource, ...]:
        return tuple(self._resources)

    def add(self, inputs: Sequence[str], outputs: Sequence[str], effects: Sequence[str] = ()) -> dict[str, str]:
        """What computes `outputs`, and the nodes `effects`, of `inputs`. Returns placeholder -> the input it is for."""
        for tensor in inputs:
            if tensor not in self._placeholders:
                self._placeholders[tensor] = f"tfopt_in_{len(self._placeholders)}"
                node = self._graph.node.add(op="Placeholder", name=self._placeholders[tensor])
                node.attr["dtype"].type = _number(self._source.graph.tensor(tensor).dtype)
        renamed = {t: f"{self._placeholders[t]}:0" for t in inputs}
        todo = [*effects, *(node_of(t) for t in outputs if t not in renamed)]
        while todo:
            name = todo.pop()
            if name not in self._written:
                self._written.add(name)
                self._add(name, renamed)
                todo += [node_of(t) for t in self._source.graph.nodes[name].inputs if t not in renamed]
        return {self._placeholders[t]: t for t in inputs}

    def _add(self, name: str, renamed: Mapping[str, str]) -> None:
        graph = self._source.graph
        if name in graph.tables:
            self._table(name, *self._source.table(name))
        elif name in graph.variables:
            self._variable(name, self._source.variable(name))
        elif graph.nodes[name].op in UNSAVED:
            raise NotLowerable(f"{graph.nodes[name].op} calls a function of the process that made the model")
        else:
            self._graph.node.add().CopyFrom(self._source.copy(name, renamed))

    def _table(self, name: str, keys: np.ndarray, values: np.ndarray) -> None:
        if keys.ndim != 1:
            raise NotLowerable(f"the keys of table {name} are {keys.ndim - 1}-dimensional")
        node = self._graph.node.add(op="HashTableV2" if values.ndim == 1 else "MutableHashTableOfTensorsV2", name=name)
        node.attr["shared_name"].s = f"tfopt/{name}".encode()
        node.attr["key_dtype"].type, node.attr["value_dtype"].type = _kind(keys), _kind(values)
        for size in values.shape[1:]:
            node.attr["value_shape"].shape.dim.add(size=size)
        self._resources.append(Resource(name, (self._store.add(keys), self._store.add(values))))

    def _variable(self, name: str, value: np.ndarray) -> None:
        node = self._graph.node.add(op="VarHandleOp", name=name)
        node.attr["shared_name"].s = f"tfopt/{name}".encode()
        node.attr["dtype"].type = _kind(value)
        node.attr["shape"].shape.SetInParent()
        for size in value.shape:
            node.attr["shape"].shape.dim.add(size=size)
        self._resources.append(Resource(name, (self._store.add(value),)))

    def graph(self) -> bytes:
        freeze.refuse(self._graph.ByteSize())
        text: bytes = self._graph.SerializeToString(deterministic=True)
        return text


class HostSession:
    """A written graph, ready to run. Thread-safe."""

    def __init__(self, place: Place, graph: bytes, resources: Sequence[Resource], arrays: Arrays) -> None:
        self._tf = tf = tensorflow_engine.tensorflow(place)
        from tensorflow.core.protobuf import config_pb2

        self._config = config_pb2
        definition = tf.compat.v1.GraphDef.FromString(graph)
        self._session = tf.compat.v1.Session(
            graph=tf.Graph(),
            config=config_pb2.ConfigProto(
                intra_op_parallelism_threads=place.intra_op_threads,
                inter_op_parallelism_threads=place.inter_op_threads,
                device_count={"GPU": 0},  # the device is the other segments'
            ),
        )
        with self._session.graph.as_default():
            tf.graph_util.import_graph_def(definition, name="")
            fills = [self._fill(resource, arrays) for resource in resources]
        self._session.graph.finalize()
        for fill, values in fills:
            self._session.run(fill, values)

    def _fill(self, resource: Resource, arrays: Arrays) -> tuple[Any, dict[Any, np.ndarray]]:
        """What puts the values in, and what it is fed. All are made before the first one runs: a graph that has grown
        since is prepared anew, 20 ms for each of a network's 262 variables."""
        tf, values = self._tf, [arrays(number) for number in resource.arrays]
        handle = self._session.graph.get_tensor_by_name(f"{resource.node}:0")
        given = [tf.compat.v1.placeholder(v.dtype if v.dtype != np.object_ else tf.string, v.shape) for v in values]
        if len(given) == 1:
            fill = tf.raw_ops.AssignVariableOp(resource=handle, value=given[0])
        else:
            fill = tf.raw_ops.LookupTableImportV2(table_handle=handle, keys=given[0], values=given[1])
        return fill, dict(zip(given, values, strict=True))

    def part(
        self, feeds: Mapping[str, str], outputs: Sequence[str], effects: Collection[str] = ()
    ) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
        """A function of tensors by name: takes those of `feeds` and returns `outputs`. It declines what TensorFlow
        refuses: the whole signature in plain TensorFlow then says so in its own words."""
        # Two outputs may be one tensor, and a callable takes each once.
        fetches = list(dict.fromkeys(outputs))
        options = self._config.CallableOptions(feed=[f"{p}:0" for p in feeds], fetch=fetches, target=sorted(effects))
        options.run_options.inter_op_thread_pool = -1  # DirectSession: run on the caller's thread
        call, names, errors = self._session._make_callable_from_options(options), list(feeds.values()), self._tf.errors

        def run(tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            try:
                found = call(*[tensors[name] for name in names])
            except errors.OpError as error:
                said = tensorflow_engine.tensorflow_error(error)
                raise Declined(said.code, f"the host part: {said.message}") from error
            except (TypeError, ValueError) as error:  # UnicodeDecodeError: TensorFlow quotes what a client sent
                raise Declined("INVALID_ARGUMENT", f"the host part: {first_line(error)}") from error
            return [tensorflow_engine.as_array(value) for value in found]

        return run

    def close(self) -> None:
        self._session.close()


def _number(dtype: str) -> int:
    from tfopt_protos import dtypes

    return dtypes.NUMBERS[dtype]


def _kind(array: np.ndarray) -> int:
    """The DataType of an array's values."""
    from tensorflow import dtypes

    found: int = dtypes.as_dtype(array.dtype).as_datatype_enum
    return found if array.dtype != np.object_ else _number("string")
