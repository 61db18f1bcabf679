"""What the form of a predict body costs: `python -m benchmarks.bodies [--seconds=5]`.

The REST face with a model that hands its input back, from the request's bytes to the answer's, in turn: JSON, protobuf
(tensor_content, answered by typed fields) and .npy. No socket, no engine: what is left is reading and writing.
"""

from __future__ import annotations

import argparse
import asyncio
import io
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_protos import messages, tensors
from tfopt_server import settings
from tfopt_server.http import Request
from tfopt_server.metrics import Metrics
from tfopt_server.rest.app import App

from benchmarks import table
from benchmarks.interleave import interleave
from benchmarks.stats import percentile

SHAPES = {"a row of 32": (1, 32), "32 rows of 32": (32, 32), "an image": (1, 224, 224, 3)}
HEADER = ("input and answer", "form", "body KiB", "us", "of JSON")
_TENSOR = TensorInfo("x", "float", None, "x:0")
_SIGNATURE = SignatureInfo("serving_default", "tensorflow/serving/predict", (_TENSOR,), (_TENSOR,))


class Echo:
    """As much of a dataplane as predicting asks for."""

    reads_inputs = False

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._handle = SimpleNamespace(name="m", version=1, release=lambda: None)

    def resolve(self, spec: Any) -> Any:
        return self._handle

    def signature(self, handle: Any, key: str) -> SignatureInfo:
        return _SIGNATURE

    def metadata(self, handle: Any) -> dict[str, Any]:
        return {}

    def steps(self, handle: Any, key: str) -> Any:
        return self.metrics.steps("m", key)

    def start(self, handle: Any, key: str, feeds: Any, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(outputs=dict(feeds))


def bodies(array: np.ndarray) -> dict[str, tuple[bytes, bytes]]:
    """Content-Type and body by form."""
    request = messages.PredictRequest()
    tensors.fill(request.inputs["x"], array, True)
    file = io.BytesIO()
    np.save(file, array)
    return {
        "JSON": (b"application/json", orjson.dumps({"instances": array.tolist()})),
        "protobuf": (b"application/x-protobuf", request.SerializeToString()),
        ".npy": (b"application/octet-stream", file.getvalue()),
    }


def measure(seconds: float) -> list[tuple[str, str, float, float, float]]:
    plane = Echo()
    configured = settings.parse(["--model_name=m", "--model_base_path=/m"], {})[0]
    app = App(plane, configured, plane.metrics)  # type: ignore[arg-type]
    rows = []
    with asyncio.Runner() as loop:
        for shape, sizes in SHAPES.items():
            array = np.random.default_rng(0).random(sizes, np.float32)
            forms = bodies(array)
            times = interleave(
                {form: _call(app, loop, *each) for form, each in forms.items()}, 1000, seconds / len(SHAPES)
            )
            medians = {form: percentile(sorted(found), 50) for form, found in times.items()}
            rows += [
                (shape, form, len(forms[form][1]) / 1024, median, median / medians["JSON"])
                for form, median in medians.items()
            ]
    return rows


def _call(app: App, loop: asyncio.Runner, kind: bytes, body: bytes) -> Callable[[], object]:
    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"content-type", kind)]

    async def waited(answer: Awaitable[Any]) -> Any:
        return await answer

    def call() -> object:
        answer = app(Request("POST", "/v1/models/m:predict", headers, body))
        if isinstance(answer, Awaitable):
            answer = loop.run(waited(answer))
        assert getattr(answer, "status", 0) == 200, answer
        return answer

    return call


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bodies", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    print(table.render(HEADER, measure(parser.parse_args().seconds), "Reading a predict body and writing its answer"))


if __name__ == "__main__":
    main()
