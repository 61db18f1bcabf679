"""The signatures that a SavedModel declares, read from saved_model.pb(txt) without TensorFlow: enough to synthesize.

The optimizer has its own, fuller reader; the two packages do not know each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tfopt_protos import dtypes, messages

_INIT_OP = "__saved_model_init_op"  # TF2's initializer, written as if it were a signature


class ModelError(ValueError):
    """A folder without a readable SavedModel; the text names it (for the operator)."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input; `shape` has None for unknown dimensions and is None itself for an unknown rank.

    `dtype` is "invalid" for sparse and composite tensors, which stand for several tensors.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    tensor: str


@dataclasses.dataclass(frozen=True)
class Signature:
    key: str
    method_name: str
    inputs: tuple[Tensor, ...]


def read(model_dir: Path, tags: Sequence[str] = ("serve",)) -> tuple[Signature, ...]:
    """The signatures of the MetaGraph with exactly these tags, by key. ModelError when there is none."""
    model = _load(model_dir)
    for graph in model.meta_graphs:
        if set(graph.meta_info_def.tags) == set(tags):
            items = sorted(graph.signature_def.items())
            return tuple(_signature(key, proto) for key, proto in items if key != _INIT_OP)
    found = "; ".join(",".join(graph.meta_info_def.tags) for graph in model.meta_graphs)
    raise ModelError(f"{model_dir}: no MetaGraph has the tags {','.join(tags)}; there are: {found or 'none'}")


def _load(model_dir: Path) -> Any:
    binary, text = model_dir / "saved_model.pb", model_dir / "saved_model.pbtxt"
    try:
        if binary.is_file():
            return messages.SavedModel.FromString(binary.read_bytes())
        if text.is_file():
            return messages.from_text("tensorflow.SavedModel", text.read_bytes())
    except (DecodeError, text_format.ParseError) as error:
        raise ModelError(f"{model_dir}: saved_model.pb(txt) cannot be parsed: {error}") from error
    raise ModelError(f"{model_dir}: there is no saved_model.pb or saved_model.pbtxt here")


def _signature(key: str, proto: Any) -> Signature:
    inputs = tuple(_tensor(name, info) for name, info in sorted(proto.inputs.items()))
    return Signature(key, proto.method_name, inputs)


def _tensor(name: str, info: Any) -> Tensor:
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
    return Tensor(name, dtypes.name(info.dtype) if info.dtype else "invalid", sizes, info.name)
