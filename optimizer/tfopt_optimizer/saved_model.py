"""Reads what a SavedModel declares, without TensorFlow: its signatures, their defaults, and what they do to state."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.text_format import ParseError
from tfopt_protos import dtypes, messages, tensors

from tfopt_optimizer import branching, graphs
from tfopt_optimizer.plan import SignatureInfo, TensorInfo

DEFAULT_TAGS = ("serve",)
# Keys that TensorFlow writes for itself (`__saved_model_init_op`): no one can call them.
_INTERNAL = "__saved_model_"


class SavedModelError(Exception):
    """A folder that cannot be read as a SavedModel, or that a loader refuses; a text for the operator."""


def read_signatures(model_dir: Path, tags: Sequence[str] = DEFAULT_TAGS) -> tuple[SignatureInfo, ...]:
    """The signatures of the meta graph with exactly these tags, by key; inputs and outputs by name.

    (The proto keeps them in maps, so the model has no order of its own; TensorFlow sorts by name too.)
    """
    return signatures_of(meta_graph(model_dir, tags))


def signatures_of(graph: Any) -> tuple[SignatureInfo, ...]:
    """The same of a MetaGraphDef that is already read."""
    return tuple(_signature(key, d) for key, d in sorted(graph.signature_def.items()) if is_callable(key))


def signature_defs(model_dir: Path, tags: Sequence[str] = DEFAULT_TAGS) -> dict[str, Any]:
    """The SignatureDef messages (private pool), internal ones included, as GetModelMetadata answers them."""
    return dict(meta_graph(model_dir, tags).signature_def)


def signature_defaults(model_dir: Path, key: str, tags: Sequence[str] = DEFAULT_TAGS) -> dict[str, np.ndarray]:
    """Values of the inputs that a request may leave out."""
    found = signature_defs(model_dir, tags)[key]
    return {name: tensors.to_numpy(value) for name, value in found.defaults.items()}


def meta_graph(model_dir: Path, tags: Sequence[str] = DEFAULT_TAGS) -> Any:
    """The MetaGraphDef whose tags are exactly `tags`. SavedModelError says which tag sets there are."""
    saved_model = read(Path(model_dir))
    wanted = set(tags)
    for graph in saved_model.meta_graphs:
        if set(graph.meta_info_def.tags) == wanted:
            return graph
    there = ", ".join("{" + " ".join(sorted(g.meta_info_def.tags)) + "}" for g in saved_model.meta_graphs)
    raise SavedModelError(
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }} in {model_dir}; "
        f"it has: {there or 'none'}"
    )


def read(model_dir: Path) -> Any:
    """The SavedModel message with all its graphs (private pool)."""
    binary, text = model_dir / "saved_model.pb", model_dir / "saved_model.pbtxt"
    path = binary if binary.exists() else text
    try:
        stat = path.stat()
    except OSError as error:
        raise SavedModelError(
            f"Specified file path does not appear to contain a SavedModel bundle "
            f"(should have a file called `saved_model.pb` or `saved_model.pbtxt`)\nSpecified file path: {model_dir}"
        ) from error
    return _parse(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2)  # one model is read several times while it is loaded; parsing BERT takes 0.1 s
def _parse(path: Path, _mtime: int, _size: int) -> Any:
    try:
        if path.suffix == ".pb":
            return messages.message("tensorflow.SavedModel").FromString(path.read_bytes())
        return messages.from_text("tensorflow.SavedModel", path.read_text())
    except (DecodeError, ParseError, UnicodeDecodeError) as error:
        raise SavedModelError(f"{path} is not a SavedModel: {error}") from error
    except OSError as error:
        raise SavedModelError(f"{path} cannot be read: {error}") from error


def variables_bytes(model_dir: Path) -> int:
    """Size of the variables on disk."""
    return sum(p.stat().st_size for p in model_dir.glob("variables/variables.data-*"))


def is_callable(key: str) -> bool:
    return not key.startswith(_INTERNAL)


def _signature(key: str, definition: Any) -> SignatureInfo:
    return SignatureInfo(
        key=key,
        method_name=definition.method_name,
        inputs=tuple(_tensor(name, info) for name, info in sorted(definition.inputs.items())),
        outputs=tuple(_tensor(name, info) for name, info in sorted(definition.outputs.items())),
        defaults=tuple(sorted(definition.defaults)),
    )


def _tensor(name: str, info: Any) -> TensorInfo:
    shape = None
    if info.HasField("tensor_shape") and not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else int(dim.size) for dim in info.tensor_shape.dim)
    return TensorInfo(name, _dtype(name, info.dtype), shape, info.name)


def _dtype(name: str, number: int) -> str:
    """ "invalid" for composite tensors (sparse, ragged), which stand for several and have no type of their own."""
    try:
        return dtypes.name(number) if number else "invalid"
    except dtypes.DtypeError as error:
        raise SavedModelError(f"tensor {name!r}: {error}") from error


@dataclasses.dataclass(frozen=True)
class State:
    """What a signature does beyond computing its rows: the operations that write state, those whose results are random,
    the branches that a whole batch takes together, as its values decide (branching.py), and those that read files."""

    writes: tuple[str, ...] = ()
    random: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


# Operations that change what a later call sees, or the world outside.
_WRITES = re.compile(
    r"Assign(Add|Sub)?(VariableOp|Variable)?|Scatter(Nd)?(Add|Sub|Mul|Div|Min|Max|Update)"
    r"|Resource(Scatter.*|Strided.*|Apply.*|SparseApply.*|AccumulatorApply.*|CountUpTo)|(Sparse)?Apply[A-Z].*"
    r"|StridedSliceAssign|CountUpTo|DestroyResourceOp|DestroyTemporaryVariable"
    r"|(Mutable.*)?LookupTable(Insert|Import|Remove)(V2)?"
    r"|(FIFO|Random|Priority|Padding)?Queue(En|De)queue.*|QueueClose.*|Stack(Push|Pop).*|(Ordered)?Map(Unn)?[sS]tage.*"
    r"|Unstage|Stage|Iterator(V2)?|IteratorGetNext.*|OptionalGetValue|OneShotIterator|Reader.*|WriteFile|SaveV2|Print(V2)?"
    r"|PyFunc.*|EagerPyFunc|Barrier.*|.*Summary(Writer.*)?|Write.*Summary|TensorListPushBackBatchResource"
    r"|AssignVariableXlaConcatND|(Resource|Sparse)?Accumulator(ApplyGradient|TakeGradient|SetGlobalStep)|(Ordered)?MapClear"
    r"|StageClear|MultiDeviceIteratorGetNextFromShard|GetSessionHandle(V2)?|DeleteSessionTensor|Save(Slices|Dataset.*)?"
    r"|DistributedSave|MergeV2Checkpoints|(Experimental)?DatasetToTFRecord|DumpTensor|CalibrationStatisticsSaver|NegTrain"
    r"|BoostedTrees(Create.*|UpdateEnsemble.*|CenterBias|.*Deserialize.*|.*Flush.*|.*AddSummaries)|Rpc.*|Abort"
)
_RANDOM = re.compile(
    r"Random(Uniform|UniformInt|StandardNormal|Shuffle|Poisson|PoissonV2|Gamma|Crop)|TruncatedNormal|ParameterizedTruncatedNormal"
    r"|Multinomial|Stateful(Uniform|StandardNormal|Truncated|Random).*|Rng(Skip|ReadAndSkip)|StatefulRandomBinomial"
    r"|(All|LogUniform|Uniform|LearnedUnigram|ThreadUnsafeUnigram|FixedUnigram)CandidateSampler|RecordInput|Timestamp"
    r"|SampleDistortedBoundingBox(V2)?|Anonymous(Random)?SeedGenerator|NonDeterministicInts|Skipgram|Fractional(Max|Avg)Pool"
    r"|(Experimental)?RandomDataset(V2)?|Shuffle(AndRepeat)?Dataset(V2|V3)?|GlobalIterId"
)
# What lies outside the model may change between two calls, without any call's doing.
_READS = re.compile(
    r"ReadFile|MatchingFiles|Restore(V2|Slice)?|LoadAndRemapMatrix|GetSessionTensor|DataServiceDataset.*|LoadDataset"
    r"|(Experimental)?(TextLine|TFRecord|FixedLengthRecord|CSV|LMDB|Sql|MatchingFiles)Dataset(V2)?|SnapshotDataset.*"
)


def writes_state(op: str) -> bool:
    """Whether an operation of this kind changes what a later call sees, or the world outside."""
    return _WRITES.fullmatch(op) is not None


def states(model_dir: Path, tags: Sequence[str] = DEFAULT_TAGS) -> Mapping[str, State]:
    """Per signature key: the writing, random and reading operations below its outputs, through all functions."""
    graph = meta_graph(model_dir, tags)
    nodes = {node.name: node for node in graph.graph_def.node}
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    indexed = graphs.Graph(graph)
    found = {}
    for key, definition in graph.signature_def.items():
        ops = _operations(nodes, functions, [info.name for info in definition.outputs.values()])
        outputs = [info.name for info in definition.outputs.values()]
        fed = [info.name for info in definition.inputs.values()]
        found[key] = dataclasses.replace(effects(ops), decided=branching.decided(indexed, outputs, fed))
    return found


def effects(ops: Iterable[str]) -> State:
    """Which of these kinds of operations write state, which draw random numbers, and which read files."""
    kinds = sorted(set(ops))
    return State(
        writes=tuple(op for op in kinds if _WRITES.fullmatch(op)),
        random=tuple(op for op in kinds if _RANDOM.fullmatch(op)),
        reads=tuple(op for op in kinds if _READS.fullmatch(op)),
    )


def _operations(nodes: Mapping[str, Any], functions: Mapping[str, Any], outputs: Iterable[str]) -> set[str]:
    """Kinds of the operations below `outputs`; a called function counts with all of its body."""
    ops: set[str] = set()
    called: set[str] = set()
    seen: set[str] = set()
    todo = [_node_of(name) for name in outputs]
    while todo:
        name = todo.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        todo += [_node_of(i) for i in nodes[name].input]
        ops.add(nodes[name].op)
        called.update(_calls(nodes[name]))
    entered: set[str] = set()
    while called:
        name = called.pop()
        if name in entered or name not in functions:
            continue
        entered.add(name)
        for node in functions[name].node_def:
            ops.add(node.op)
            called.update(_calls(node))
    return ops


def _node_of(tensor: str) -> str:
    return tensor.lstrip("^").split(":")[0]


def _calls(node: Any) -> Iterable[str]:
    yield node.op  # a function may be called by its name as the operation
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (f.name for f in value.list.func)
