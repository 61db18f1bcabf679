"""What a client is told about a request that only TensorFlow could answer, where TensorFlow is not installed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer.errors import EngineError
from tfopt_optimizer.plan import Shape, SignatureInfo

# Why a request left the plan whose shapes and types were right.
DECLINED = "its engine declines the values"


def refusal(signature: SignatureInfo, feeds: Mapping[str, np.ndarray[Any, Any]], reason: str) -> EngineError:
    """INVALID_ARGUMENT for what the signature itself rules out, UNIMPLEMENTED for what a plan could have covered."""
    if wrong := _wrong(signature, feeds):
        return EngineError("INVALID_ARGUMENT", wrong)
    return EngineError(
        "UNIMPLEMENTED",
        f"signature {signature.key!r}: {reason or DECLINED}; requests outside the plan need TensorFlow, which is not "
        "installed on this server",
    )


def _wrong(signature: SignatureInfo, feeds: Mapping[str, np.ndarray[Any, Any]]) -> str:
    for tensor in signature.inputs:
        array = feeds.get(tensor.name)
        if array is None:
            if tensor.name in signature.defaults:
                continue
            return f"input {tensor.name!r}: expected {tensor.dtype}, received nothing"
        if array.dtype != dtypes.to_numpy(tensor.dtype):
            return f"input {tensor.name!r}: expected {tensor.dtype}, received {array.dtype}"
        if not _compatible(tensor.shape, array.shape):
            return f"input {tensor.name!r}: expected shape {_shown(tensor.shape)}, received {list(array.shape)}"
    unknown = sorted(set(feeds) - {tensor.name for tensor in signature.inputs})
    return f"there is no input {unknown[0]!r}" if unknown else ""


def _compatible(declared: Shape | None, shape: tuple[int, ...]) -> bool:
    if declared is None:
        return True
    return len(declared) == len(shape) and all(d in (None, s) for d, s in zip(declared, shape, strict=True))


def _shown(shape: Shape | None) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape or ()) + "]"
