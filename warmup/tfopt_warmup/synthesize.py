"""Inputs made up from a signature's dtypes and shapes, for models that come without warmup records.

    why_not(signature)              # "" or the reason why nothing can be made up
    feeds(signature, batch=8)       # {"x": float32 [8, 32]} or None

They warm up, measure and compare engines. They prove less than real requests do: a made-up row exercises few
branches and vocabularies, so recorded requests always come first. The same arguments give the same arrays.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from tfopt_protos import dtypes

Array = np.ndarray[Any, Any]

# Categories, token ids and indexes: small enough to fall inside most tables. CPU kernels fail on an index outside.
_INTEGERS = 8
_EXAMPLE_METHODS = ("tensorflow/serving/classify", "tensorflow/serving/regress")
_EXAMPLE_WORDS = ("tf_example", "tfexample", "serialized", "input_example_tensor")
_IMAGE_WORDS = ("image", "img", "jpeg", "jpg", "png", "photo")
_WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")


class TensorLike(Protocol):
    """One input, as tfopt_optimizer.plan.TensorInfo."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int | None, ...] | None: ...
    @property
    def tensor(self) -> str: ...


class SignatureLike(Protocol):
    """A signature, as tfopt_optimizer.plan.SignatureInfo."""

    @property
    def key(self) -> str: ...
    @property
    def method_name(self) -> str: ...
    @property
    def inputs(self) -> Sequence[TensorLike]: ...


def why_not(signature: SignatureLike, unknown_dim: int | None = None) -> str:
    """Why no inputs can be made up for a signature, for the operator; "" when they can."""
    for tensor in signature.inputs:
        if reason := _obstacle(signature, tensor, unknown_dim):
            return f"signature {signature.key!r}, input {tensor.name!r}: {reason}; record warmup requests for it"
    return ""


def feeds(
    signature: SignatureLike, batch: int, seed: int = 0, unknown_dim: int | None = None
) -> dict[str, Array] | None:
    """An array per input, or None where why_not() has a reason.

    An unknown first dimension becomes `batch` and its rows differ; a fixed one stays. Other unknown dimensions become
    `unknown_dim`; without it they are a reason to refuse, because a guessed length would be measured and never sent.
    """
    if why_not(signature, unknown_dim):
        return None
    rng = np.random.default_rng([seed, batch, zlib.crc32(signature.key.encode())])
    return {tensor.name: _values(tensor, _sizes(tensor, batch, unknown_dim), rng) for tensor in signature.inputs}


def _obstacle(signature: SignatureLike, tensor: TensorLike, unknown_dim: int | None) -> str:
    if tensor.shape is None:
        return "its rank is unknown"
    if unknown_dim is None and None in tensor.shape[1:]:
        shown = ", ".join("?" if size is None else str(size) for size in tensor.shape)
        return f"its shape [{shown}] has an unknown dimension besides the batch"
    if tensor.dtype == "string" and _takes_examples(signature, tensor):
        return "it takes serialized tf.Example messages, whose features cannot be guessed"
    if tensor.dtype == "invalid":
        return "it is a sparse or composite tensor"
    try:
        dtypes.to_numpy(tensor.dtype)
    except dtypes.DtypeError as error:
        return str(error)
    return ""


def _takes_examples(signature: SignatureLike, tensor: TensorLike) -> bool:
    names = (tensor.name.lower(), tensor.tensor.lower())
    return signature.method_name in _EXAMPLE_METHODS or any(w in n for w in _EXAMPLE_WORDS for n in names)


def _sizes(tensor: TensorLike, batch: int, unknown_dim: int | None) -> tuple[int, ...]:
    assert tensor.shape is not None
    first = [batch if size is None else size for size in tensor.shape[:1]]
    rest = [unknown_dim if size is None else size for size in tensor.shape[1:]]
    return (*first, *[size for size in rest if size is not None])


def _values(tensor: TensorLike, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    dtype, name = dtypes.to_numpy(tensor.dtype), tensor.name.lower()
    if tensor.dtype == "string":
        return _strings(shape, rng, image=_looks_like_image(tensor))
    if tensor.dtype == "bool":
        return _distinct(rng.integers(0, 2, shape), 2).astype(bool)
    if tensor.dtype == "uint8":
        return _distinct(rng.integers(0, 256, shape), 256).astype(np.uint8)  # pixels, nearly always
    if dtype.kind in "iu" or tensor.dtype in ("int4", "uint4", "int2", "uint2"):
        if "mask" in name:
            return np.ones(shape).astype(dtype)
        limit = 2 if "segment" in name or "type_id" in name or tensor.dtype.endswith("2") else _INTEGERS
        return _distinct(rng.integers(0, limit, shape), limit).astype(dtype)
    if "mask" in name:
        return np.ones(shape).astype(dtype)
    # [0, 1): safe under logarithms, roots and divisions more often than a normal distribution.
    real = rng.random(shape)
    return (real + 1j * rng.random(shape)).astype(dtype) if dtype.kind == "c" else real.astype(dtype)


def _distinct(values: Array, limit: int) -> Array:
    """Numbers the rows in their first entries, to base `limit`, as far as there is room: random rows may coincide."""
    if values.ndim == 0 or not values.size:
        return values
    rows = values.reshape(values.shape[0], -1)
    number = np.arange(rows.shape[0])
    for column in range(rows.shape[1]):
        if not number.any():
            break
        rows[:, column] = (rows[0, column] + number) % limit
        number = number // limit
    return rows.reshape(values.shape)


def _looks_like_image(tensor: TensorLike) -> bool:
    return any(word in tensor.name.lower() for word in _IMAGE_WORDS)


def _strings(shape: tuple[int, ...], rng: np.random.Generator, image: bool) -> Array:
    array = np.empty(shape, object)
    picks = rng.integers(0, len(_WORDS), max(array.size, 1))
    values = [_png(i) if image else f"{_WORDS[picks[i]]} {i}".encode() for i in range(array.size)]
    array.reshape(-1)[:] = values
    return array


def _png(number: int, side: int = 32) -> bytes:
    """A gray-gradient RGB image that TensorFlow's decoders take, whatever format the model was written for."""
    rows = b"".join(
        b"\0" + b"".join(bytes(((x * 8 + number) % 256, y * 8 % 256, number % 256)) for x in range(side))
        for y in range(side)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
