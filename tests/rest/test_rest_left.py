"""Clients that leave while a thread still reads their long request: the version that it is for must not stay held."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import faceplane
import pytest
from tfopt_server.http import Request, Response, Streamed
from tfopt_server.rest.app import App

ROWS = [0.125] * 20_000
PREDICT = "/v1/models/m:predict"


def infer() -> bytes:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [len(ROWS)], "data": ROWS}]
    return json.dumps({"inputs": inputs, "parameters": {"signature_name": "slow"}}).encode()


@pytest.mark.parametrize(
    ("target", "body", "headers"),
    [
        (PREDICT, json.dumps({"instances": ROWS, "signature_name": "slow"}).encode(), {}),
        (PREDICT, json.dumps({"instances": ROWS}).encode(), {"accept": "text/event-stream"}),
        (PREDICT, json.dumps({"instances": ROWS, "signature_name": "slow"}).encode(),
         {"content-type": "application/x-protobuf"}),
        ("/v2/models/m/infer", infer(), {}),
    ],
    ids=["json", "events", "exchange", "open inference"],
)  # fmt: skip
def test_nothing_stays_held(target: str, body: bytes, headers: dict[str, str]) -> None:
    plane = faceplane.plane()
    reading, go_on = threading.Event(), threading.Event()
    resolve = plane.resolve

    def slowly(spec: Any) -> Any:
        reading.set()
        go_on.wait(10)
        return resolve(spec)

    plane.resolve = slowly  # type: ignore[method-assign]
    app = App(plane, faceplane.configured(), plane.metrics)

    async def leave() -> None:
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        answer = app(Request("POST", target, sent, body))
        assert not isinstance(answer, Response | Streamed)
        task = asyncio.ensure_future(answer)
        await asyncio.to_thread(reading.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await asyncio.get_running_loop().shutdown_default_executor()  # the thread has come back
        for _ in range(10):  # and the event loop has heard of it
            await asyncio.sleep(0)

    asyncio.run(leave())
    assert plane.held == 0
