"""Request bodies, built once before any clock runs: what a client would send for rows of a benchmark model."""

from __future__ import annotations

import numpy as np
import orjson
from tfopt_protos import messages, tensors

from benchmarks.models import SIGNATURE, Feeds, Model

MODEL_NAME = "bench"
REST_PATH = f"/v1/models/{MODEL_NAME}:predict"
GRPC_METHOD = "/tensorflow.serving.PredictionService/Predict"
# Different rows per request, so that no cache between the socket and the kernel can answer twice.
DISTINCT = 16


def rest(model: Model, batch: int = 1) -> tuple[bytes, ...]:
    """TensorFlow Serving's row format."""
    return tuple(_json(model.rows(batch, seed)) for seed in range(_distinct(model)))


def grpc(model: Model, batch: int = 1) -> tuple[bytes, ...]:
    """PredictRequests as the usual client writes them: numbers as tensor_content, strings as string_val."""
    return tuple(_predict(model.rows(batch, seed)) for seed in range(_distinct(model)))


def _distinct(model: Model) -> int:
    return DISTINCT if model.calls > 50 else 2  # an image is a megabyte as JSON


def _json(feeds: Feeds) -> bytes:
    columns = {name: _column(array) for name, array in feeds.items()}
    if len(columns) == 1:
        return orjson.dumps({"instances": next(iter(columns.values()))})
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return orjson.dumps({"instances": [dict(zip(names, row, strict=True)) for row in rows]})


def _column(array: np.ndarray) -> list:
    return [text.decode() for text in array] if array.dtype == object else array.tolist()


def _predict(feeds: Feeds) -> bytes:
    request = messages.message("tensorflow.serving.PredictRequest")()
    request.model_spec.name = MODEL_NAME
    request.model_spec.signature_name = SIGNATURE
    for name, array in feeds.items():
        request.inputs[name].CopyFrom(tensors.from_numpy(array, content=True))
    return request.SerializeToString()
