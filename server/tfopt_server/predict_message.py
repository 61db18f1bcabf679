"""Serialized PredictRequests <-> feeds and outputs, with the checks and texts of TensorFlow Serving.

Sources: RunPredict and PreProcessPrediction in servables/tensorflow/predict_util.cc, GetInputValues in TensorFlow's
cc/saved_model/util.cc. Requests are parsed by protobuf (4 us); answers are written as wire bytes, because a message
would copy every tensor once more and cost 10 us for a small one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from tfopt_optimizer.plan import SignatureInfo
from tfopt_protos import dtypes, messages, tensors
from tfopt_protos.tensors import to_varint

from tfopt_server.errors import Code, ServingError, invalid

Array = npt.NDArray[Any]

DEFAULT_SIGNATURE = "serving_default"
REMEMBERED = 1024  # looks of answers


def parse(full_name: str, data: bytes) -> Any:
    """A message from its bytes; INVALID_ARGUMENT for what is none (gRPC itself would say INTERNAL)."""
    try:
        return messages.message(full_name).FromString(data)
    except DecodeError as error:
        raise invalid(f"The request is no {full_name}: {error}") from error


def unknown_signature(key: str) -> ServingError:
    return ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.')


def feeds(sent: Mapping[str, Any], signature: SignatureInfo, default: Callable[[str], Any]) -> dict[str, Array]:
    """The arrays of a request's TensorProtos in the signature's order; `default` gives the TensorProto of a default."""
    inputs = signature.inputs
    if len(sent) != len(inputs) and (len(sent) > len(inputs) or not signature.defaults):
        raise invalid(_size_mismatch(set(sent), {i.name for i in inputs}))
    found: dict[str, Array] = {}
    used = 0
    for index, tensor in enumerate(inputs):
        name = tensor.name
        if name in sent:
            used += 1
            found[name] = array(name, sent[name], tensor.dtype, index)
        elif name in signature.defaults:
            found[name] = array(name, default(name), tensor.dtype, index)
        else:
            raise invalid(
                f"Signature input alias: {name}(feed name: {tensor.tensor}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {{{_joined(sent)}}}, or default input alias set: "
                f"{_joined(signature.defaults)}"
            )
    if used != len(sent):
        names = {i.name for i in inputs}
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {_joined(n for n in sent if n in names)}, request "
            f"input: {_joined(sent)}"
        )
    return found


def array(name: str, proto: Any, declared: str, index: int) -> Array:
    """The array of input `name`, whose dtype must be the `declared` one; `index` is its place, for the text."""
    try:
        array = tensors.to_numpy(proto)
    except tensors.TensorError as error:
        raise invalid(f"tensor parsing error: {name}") from error
    if array.dtype is not _numpy(declared):
        given = dtypes.from_numpy(array.dtype)
        if given != declared:
            raise invalid(f"Expects arg[{index}] to be {declared} but {given} is provided")
    return array


@functools.cache
def _numpy(name: str) -> np.dtype[Any] | None:
    try:
        return dtypes.to_numpy(name)
    except dtypes.DtypeError:
        return None  # a resource, say: whatever is sent, the names differ


def _size_mismatch(sent: Collection[str], wanted: Collection[str]) -> str:
    return (
        f"input size does not match signature: {len(sent)}!={len(wanted)} len({{{_joined(sent)}}}) != "
        f"len({{{_joined(wanted)}}}). Sent extra: {{{_joined(set(sent) - set(wanted))}}}. Missing but required: "
        f"{{{_joined(set(wanted) - set(sent))}}}."
    )


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def wanted(output_filter: Iterable[str], signature: SignatureInfo) -> tuple[str, ...]:
    """The outputs to run, as an output_filter that is not empty names them."""
    names = tuple(output_filter)
    known = {o.name for o in signature.outputs}
    for i, name in enumerate(names):
        if name not in known:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{_joined(known)}}}."
            )
        if name in names[:i]:
            raise invalid(f"duplicate output tensor alias: {name}")
    return names


def answer(name: str, version: int, signature: str, outputs: Mapping[str, Array], content: bool) -> bytes:
    """A serialized PredictResponse. `content`: tensors as raw bytes instead of typed fields.

    Answers of one look differ in nothing but the tensors' memory, so what stands around it is kept.
    """
    look = (name, version, signature, content, *[(alias, a.dtype, a.shape) for alias, a in outputs.items()])
    around = _AROUND.get(look)
    if around is not None:
        parts: list[bytes] = []
        for before, array in zip(around, outputs.values(), strict=False):
            parts += (before, array.tobytes())
        parts.append(around[-1])
        return b"".join(parts)
    entries = [_entry(alias, tensors.encode(array, content)) for alias, array in outputs.items()]
    spec = _model_spec(name, version, signature)
    if all(tensors.is_plain(array, content) for array in outputs.values()):
        if len(_AROUND) >= REMEMBERED:
            _AROUND.clear()
        sizes = (array.nbytes for array in outputs.values())
        _AROUND[look] = (*(entry[: len(entry) - size] for entry, size in zip(entries, sizes, strict=True)), spec)
    return b"".join((*entries, spec))


# By look: the bytes before each output's values, and those after the last.
_AROUND: dict[tuple[Any, ...], tuple[bytes, ...]] = {}


# PredictResponse (apis/predict.proto): map<string, TensorProto> outputs = 1; ModelSpec model_spec = 2. A map entry is a
# message with the key as field 1 and the value as field 2.
def _entry(alias: str, tensor: bytes) -> bytes:
    key = _key(alias)
    size = to_varint(len(tensor))
    return b"\x0a" + to_varint(len(key) + 1 + len(size) + len(tensor)) + key + b"\x12" + size + tensor


@functools.lru_cache(maxsize=1024)
def _key(alias: str) -> bytes:
    encoded = alias.encode()
    return b"\x0a" + to_varint(len(encoded)) + encoded


@functools.lru_cache(maxsize=1024)
def _model_spec(name: str, version: int, signature: str) -> bytes:
    spec = messages.ModelSpec(name=name, signature_name=signature)
    spec.version.value = version
    encoded = spec.SerializeToString()
    return b"\x12" + to_varint(len(encoded)) + bytes(encoded)
