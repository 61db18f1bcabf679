"""A gRPC client on raw bytes, and a face over the fake plane on a UNIX socket: no ports."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faceplane
import grpc
import numpy as np
import uvloop
from ports import free_port
from tfopt_protos import messages, tensors
from tfopt_server.errors import Code
from tfopt_server.rpc import server

PREDICTION = "/tensorflow.serving.PredictionService/"
MODEL = "/tensorflow.serving.ModelService/"
HEALTH = "/grpc.health.v1.Health/"


@dataclass(frozen=True)
class Refusal:
    code: Code
    text: str


class Client:
    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    def call(self, method: str, request: Any, timeout: float = 10) -> bytes | Refusal:
        """`request`: a message, or its bytes."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        try:
            return self.channel.unary_unary(method)(data, timeout=timeout)
        except grpc.RpcError as error:
            return Refusal(Code(error.code().value[0]), error.details())

    def predict(self, request: Any, timeout: float = 10) -> Any:
        """The PredictResponse, or why there is none."""
        answer = self.call(PREDICTION + "Predict", request, timeout)
        return answer if isinstance(answer, Refusal) else messages.PredictResponse.FromString(answer)

    def outputs(self, request: Any, timeout: float = 10) -> dict[str, np.ndarray]:
        answer = self.predict(request, timeout)
        assert not isinstance(answer, Refusal), answer
        return {name: tensors.to_numpy(proto) for name, proto in answer.outputs.items()}


def predict_request(
    feeds: Mapping[str, Any], signature: str = "", output_filter: Sequence[str] = (), content: bool = False, **spec: Any
) -> Any:
    """`spec`: fields of ModelSpec besides the name."""
    request = messages.PredictRequest(model_spec={"name": "m", "signature_name": signature, **spec})
    for name, array in feeds.items():
        tensors.fill(request.inputs[name], np.asarray(array), content)
    request.output_filter.extend(output_filter)
    return request


class Loop(threading.Thread):
    """An event loop on a thread of its own, as a worker's is for its clients."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.loop = uvloop.new_event_loop()
        self.start()

    def run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def do(self, work: Coroutine[Any, Any, Any], timeout: float = 20) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.join(5)


class Running:
    """A face that listens; `drain` from any thread."""

    def __init__(self, loop: Loop, face: server.RpcServer) -> None:
        self._loop, self.face = loop, face

    def drain(self, timeout: float) -> None:
        self._loop.do(self.face.drain(timeout), timeout + 5)

    def open_calls(self) -> int:
        return sum(len(each.core.streams) for each in tuple(self.face.shared.connections))

    def connections_seen(self) -> int:
        return self.face.shared.accepted


def until(true: Callable[[], Any], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextmanager
def served_port(*argv: str) -> Iterator[int]:
    """The TCP port of a face over a fake plane."""
    plane, loop, port = faceplane.plane(), Loop(), free_port()
    running = Running(loop, loop.do(server.start(plane, faceplane.configured(f"--port={port}", *argv), plane.metrics)))
    try:
        yield port
    finally:
        running.drain(1)
        loop.end()


@contextmanager
def face(folder: Path, plane: Any = None, *argv: str) -> Iterator[tuple[Client, Any, Running]]:
    """(client, plane, server) for a face that listens on a socket in `folder`; drained at the end."""
    plane = plane or faceplane.plane()
    settings = faceplane.configured("--port=0", f"--grpc_socket_path={folder}/s", *argv)
    loop = Loop()
    running = Running(loop, loop.do(server.start(plane, settings, plane.metrics)))
    client = Client(f"unix:{folder}/s")
    try:
        yield client, plane, running
    finally:
        client.channel.close()
        running.drain(1)
        loop.end()
