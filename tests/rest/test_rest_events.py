"""Answers as server-sent events: when rows are sent, what fails where, and that nothing stays held."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import faceplane
import numpy as np
import pytest
import restclient
from tfopt_server.errors import Code, ServingError
from tfopt_server.http import Request, Streamed
from tfopt_server.rest.app import App
from tfopt_server.rest.events import EVENT_BYTES

EVENTS = "text/event-stream"


class Face:
    def __init__(self, *argv: str, batch: int = 0, more: tuple[faceplane.Signature, ...] = ()) -> None:
        self.plane = faceplane.FakePlane({("m", 1): (*faceplane.many_signatures(), *more)})
        self.plane.batch = batch
        self.app = App(self.plane, faceplane.configured(*argv), self.plane.metrics)

    def post(self, body: Any, target: str = "/predict") -> restclient.Answer:
        return restclient.call(self.app, "POST", target, body, {"accept": EVENTS})

    def sizes(self) -> list[int]:
        """Rows of every run."""
        return [len(next(iter(call[2].values()))) for call in self.plane.calls]


def events(answer: restclient.Answer) -> list[Any]:
    assert (answer.status, answer.headers["content-type"]) == (200, EVENTS)
    parts = answer.body.decode().split("\n\n")
    assert parts.pop() == ""
    return [json.loads(part.removeprefix("data: ")) for part in parts]


@pytest.mark.parametrize("target", ["/predict", "/v1/models/m:predict"])
def test_rows_are_sent_batch_by_batch(target: str) -> None:
    face = Face(batch=4)
    found = events(face.post({"instances": list(range(10))}, target))
    assert [len(e["predictions"]) for e in found] == [4, 4, 2]
    assert [y for e in found for y in e["predictions"]] == [x / 2 + 2 for x in range(10)]
    assert face.sizes() == [4, 4, 2]
    assert face.plane.held == 0


def test_rows_that_depend_on_each_other_run_together_and_large_answers_are_cut() -> None:
    face = Face()
    rows = 3 * EVENT_BYTES // 400
    found = events(face.post({"instances": [[0.5] * 100] * rows}))
    assert len(found) > 2
    assert sum(len(e["predictions"]) for e in found) == rows
    assert face.sizes() == [rows]


def test_columns_are_one_event() -> None:
    face = Face(batch=2)
    assert events(face.post({"inputs": [1, 2, 3]})) == [{"outputs": [2.5, 3.0, 3.5]}]


@pytest.mark.parametrize("key", ["refuses", "later_refuses"])
def test_what_fails_before_the_first_event_is_an_http_error(key: str) -> None:
    face = Face(batch=1)
    answer = face.post({"instances": [1, 2], "signature_name": key})
    assert (answer.status, answer.error) == (400, "Matrix size-incompatible: In[0]: [1,3], In[1]: [2,1]")
    assert face.post({"instances": 5}).status == 400
    assert face.post({"instances": [1]}, "/v1/models/other:predict").status == 404
    assert face.plane.held == 0


def _until_three(x: np.ndarray) -> dict[str, np.ndarray]:
    if x[0] >= 3:
        raise ServingError(Code.INVALID_ARGUMENT, "three is too much")
    return {"y": x}


def test_what_fails_later_is_the_last_event() -> None:
    breaks = faceplane.signature("breaks", _until_three, {"x": "float"}, {"y": "float"})
    face = Face(batch=1, more=(breaks,))
    answer = face.post({"instances": [1, 2, 3, 4], "signature_name": "breaks"})
    assert answer.body.decode().split("\n\n") == [
        'data: {"predictions":[1.0]}', 'data: {"predictions":[2.0]}',
        'event: error\ndata: {"error":"three is too much"}', "",
    ]  # fmt: skip
    assert face.plane.held == 0


def test_every_batch_has_the_whole_time_limit() -> None:
    face = Face("--rest_api_timeout_in_ms=400", batch=1)
    assert len(events(face.post({"instances": [0.15] * 4, "signature_name": "slow"}))) == 4
    assert face.post({"instances": [5], "signature_name": "slow"}).status == 504


async def _streamed(face: Face, body: Any) -> Streamed:
    headers = [(b"accept", EVENTS.encode())]
    found = face.app(Request("POST", "/predict", headers, json.dumps(body).encode()))
    assert not isinstance(found, Streamed)
    answer = await found
    assert isinstance(answer, Streamed)
    return answer


def test_nothing_runs_that_nobody_takes() -> None:
    """A client that leaves after the first event: the rest is not run, and the version is let go."""
    face = Face(batch=1)

    async def leave() -> None:
        answer = await _streamed(face, {"instances": [1, 2, 3]})
        assert await anext(answer.parts) == b'data: {"predictions":[2.5]}\n\n'
        assert face.plane.held == 1
        await answer.parts.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    assert (face.sizes(), face.plane.held) == ([1], 0)


def test_a_client_that_leaves_while_the_first_batch_runs_holds_nothing() -> None:
    gate = threading.Event()

    def wait(x: np.ndarray) -> dict[str, np.ndarray]:
        gate.wait(10)
        return {"y": x}

    face = Face(more=(faceplane.signature("waits", wait, {"x": "float"}, {"y": "float"}, later=True),))

    async def leave() -> None:
        task = asyncio.ensure_future(_streamed(face, {"instances": [1], "signature_name": "waits"}))
        while not face.plane.calls:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()

    asyncio.run(leave())
    assert face.plane.held == 0
