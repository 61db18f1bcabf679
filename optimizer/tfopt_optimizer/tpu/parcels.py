"""Writes the forms of io_shapes.py into the graph: what the host does before and after a TPU call, and the TPU inside.

    host    ids [n, 3], more ids [n, 1] -> Reshape [-1, 3], [-1, 1] -> ConcatV2 -> Reshape [-1]  -> the call
    TPU     [4 n] -> Reshape [-1, 4] -> SplitV 3, 1 -> Reshape to each one's shape               -> the function

All shapes are constants, whatever n is. Results go the same way in the other direction.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tfopt_protos import dtypes, messages

from tfopt_optimizer.tpu import nodes
from tfopt_optimizer.tpu.io_shapes import Border, Parcel, Tensor

# Marks all that is added here, for those who run the model without such a link (unpack.py).
MARK = "_tfopt_io_shape"
_PACKED = "tfopt_packed"  # arguments and results that are several of the original's
TAKE, GIVE = "TfoptTake", "TfoptGive"
_INDEXED = ("arg_attr", "resource_arg_unique_id")


def inside(body: Any, border: Border) -> Any:
    """A FunctionDef that takes and gives parcels instead of the tensors of `body`."""
    made = messages.message("tensorflow.FunctionDef")()
    made.CopyFrom(body)
    _arguments(made, body, border)
    flat = [(i, p) for i, p in enumerate(border.to_tpu) if p.flat]
    edges = {t.name: edge for i, p in flat for t, edge in _open(made, p, f"{TAKE}{i}", p_name(i, p))}
    edges |= {f"^{name}": f"^{edge.split(':')[0]}" for name, edge in edges.items()}
    for node in itertools.islice(made.node_def, len(body.node_def)):
        replaced = [edges.get(e, e) for e in node.input]
        del node.input[:]
        node.input.extend(replaced)
    del made.signature.output_arg[:]
    made.ret.clear()
    for i, parcel in enumerate(border.from_tpu):
        given = [edges.get(body.ret[t.name], body.ret[t.name]) for t in parcel.tensors]
        name = p_name(i, parcel)
        made.signature.output_arg.add(name=name, type=dtypes.number(parcel.tensors[0].dtype))
        made.ret[name] = _close(made, parcel, f"{GIVE}{i}", given) if parcel.flat else given[0]
    made.attr.pop("_input_shapes", None)
    return made


def p_name(index: int, parcel: Parcel) -> str:
    return parcel.tensors[0].name if len(parcel.tensors) == 1 else f"{_PACKED}_{index}"


def sent(made: Any, border: Border) -> list[str]:
    """In the host's function `made`: adds what packs, and gives the edges of the call's arguments in order."""
    packed = {p.tensors[0].index: _sent(made, i, p) for i, p in enumerate(border.to_tpu)}
    gone = {t.index for p in border.to_tpu for t in p.tensors[1:]}
    arguments = enumerate(made.signature.input_arg)
    return [packed.get(i, a.name) for i, a in arguments if i not in gone]


def received(made: Any, border: Border, results: Sequence[str]) -> list[str]:
    """`results`: the call's, a parcel each. Gives the edges of the function's own results in order."""
    edges: dict[int, str] = {}
    for i, (parcel, result) in enumerate(zip(border.from_tpu, results, strict=True)):
        opened = _open(made, parcel, f"{TAKE}{i}", result) if parcel.flat else [(parcel.tensors[0], result)]
        edges |= {t.index: edge for t, edge in opened}
    return [edges[i] for i in sorted(edges)]


def _sent(made: Any, index: int, parcel: Parcel) -> str:
    names = [t.name for t in parcel.tensors]
    return _close(made, parcel, f"{GIVE}{index}", names) if parcel.flat else names[0]


def _arguments(made: Any, body: Any, border: Border) -> None:
    first = {p.tensors[0].index: (i, p) for i, p in enumerate(border.to_tpu)}
    gone = {t.index for p in border.to_tpu for t in p.tensors[1:]}
    kept = [i for i in range(len(body.signature.input_arg)) if i not in gone]
    del made.signature.input_arg[:]
    for i in kept:
        argument = made.signature.input_arg.add()
        argument.CopyFrom(body.signature.input_arg[i])
        if i in first:
            argument.name = p_name(*first[i])
    for field in _INDEXED:
        old, new = getattr(body, field), getattr(made, field)
        new.clear()
        for now, before in enumerate(kept):
            if before not in old or (before in first and first[before][1].flat):
                continue
            if field == "arg_attr":
                new[now].CopyFrom(old[before])
            else:
                new[now] = old[before]


def _open(made: Any, parcel: Parcel, prefix: str, edge: str) -> list[tuple[Tensor, str]]:
    """Rank 1 to each tensor in its shape."""
    write = _Writer(made, prefix, parcel)
    if len(parcel.tensors) == 1:
        (tensor,) = parcel.tensors
        return [(tensor, write.reshape(0, edge, tensor.shape or ()))]
    apart = write.split(write.reshape("All", edge, (None, parcel.row)) if parcel.by_rows else edge)
    return [(t, write.reshape(i, e, t.shape or ())) for i, (t, e) in enumerate(zip(parcel.tensors, apart, strict=True))]


def _close(made: Any, parcel: Parcel, prefix: str, edges: Sequence[str]) -> str:
    write = _Writer(made, prefix, parcel)
    if len(parcel.tensors) == 1:
        return write.reshape(0, edges[0], (None,))
    rows = [
        write.reshape(i, edge, (None, t.row) if parcel.by_rows else (None,))
        for i, (t, edge) in enumerate(zip(parcel.tensors, edges, strict=True))
    ]
    together = write.concat(rows)
    return write.reshape("All", together, (None,)) if parcel.by_rows else together


class _Writer:
    """Appends the nodes of one parcel to a FunctionDef."""

    def __init__(self, made: Any, prefix: str, parcel: Parcel) -> None:
        self._made, self._prefix, self._parcel = made, prefix, parcel
        self._type = nodes.dtype(dtypes.number(parcel.tensors[0].dtype))
        self._index = nodes.dtype(dtypes.NUMBERS["int32"])
        self._axis = 1 if parcel.by_rows else 0

    def reshape(self, label: int | str, edge: str, shape: Sequence[int | None]) -> str:
        name = f"{self._prefix}Reshape{label}"
        to = self._const(f"{name}Shape", [-1 if d is None else d for d in shape])
        self._add("Reshape", name, [edge, to], T=self._type, Tshape=self._index)
        return f"{name}:output:0"

    def concat(self, edges: Sequence[str]) -> str:
        name, count = f"{self._prefix}Concat", nodes.value(len(edges))
        axis = self._const(f"{name}Axis", self._axis)
        self._add("ConcatV2", name, [*edges, axis], N=count, T=self._type, Tidx=self._index)
        return f"{name}:output:0"

    def split(self, edge: str) -> list[str]:
        name, tensors = f"{self._prefix}Split", self._parcel.tensors
        sizes = self._const(f"{name}Sizes", [t.row for t in tensors])
        axis = self._const(f"{name}Axis", self._axis)
        self._add(
            "SplitV", name, [edge, sizes, axis], num_split=nodes.value(len(tensors)), T=self._type, Tlen=self._index
        )
        return [f"{name}:output:{i}" for i in range(len(tensors))]

    def _const(self, name: str, value: int | list[int]) -> str:
        self._add("Const", name, [], value=nodes.int32s(value), dtype=self._index)
        return f"{name}:output:0"

    def _add(self, op: str, name: str, inputs: Sequence[str], **attrs: Any) -> None:
        nodes.add(self._made, op, name, inputs, **attrs, **{MARK: nodes.value(True)})
