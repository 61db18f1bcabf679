"""The gate in front of the REST face: health by phase, everything else passes."""

from __future__ import annotations

import json

from tfopt_server.health import STATUS, Gate, phase
from tfopt_server.http import Request, Response


def test_phases():
    table = {(r, d): (phase(r, d), STATUS[phase(r, d)]) for r in (False, True) for d in (False, True)}
    assert table == {
        (False, False): ("starting", 503),
        (True, False): ("ready", 200),
        (False, True): ("draining", 503),
        (True, True): ("draining", 503),
    }


def app(request: Request) -> Response:
    return Response(b'{"from": "app"}')


def ask(gate: Gate, path: str, method: str = "GET") -> tuple[int, dict]:
    answer = gate(Request(method, path, [], b""))
    assert isinstance(answer, Response)
    return answer.status, json.loads(answer.body)


def test_the_life_of_a_gate():
    gate, ready = Gate("/health"), [False]
    starting, draining = (503, {"status": "starting"}), (503, {"status": "draining"})
    assert (ask(gate, "/health"), ask(gate, "/x")) == (starting, (503, {"error": "The server is starting."}))
    assert gate(Request("GET", "/x", [], b"")).headers == ((b"retry-after", b"1"),)
    gate.open(app, lambda: ready[0])
    assert (ask(gate, "/health"), ask(gate, "/x")) == (starting, (200, {"from": "app"}))
    ready[0] = True
    assert (ask(gate, "/health"), ask(gate, "/health", "HEAD")) == ((200, {"status": "ready"}),) * 2
    assert ask(gate, "/health", "POST") == (200, {"from": "app"})
    gate.drain()
    assert (ask(gate, "/health"), ask(gate, "/x")) == (draining, (200, {"from": "app"}))


def test_a_status_route_as_health_route_keeps_its_body():
    """Prebuilt images are probed at /v1/models/default: 503 until it serves, then TensorFlow Serving's own answer."""
    gate, ready = Gate("/v1/models/default"), [False]
    gate.open(app, lambda: ready[0])
    assert ask(gate, "/v1/models/default") == (503, {"status": "starting"})
    ready[0] = True
    assert ask(gate, "/v1/models/default") == (200, {"from": "app"})
