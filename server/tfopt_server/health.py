"""Is the server fit for traffic: 503 until every configured model serves, 200 then, 503 again once it is told to stop.

`Gate` is the app that connections call. It stands in front of the REST face because it must answer before
there is a face (imports, optimizing and warming take from seconds to minutes while a platform already probes), and
because readiness is a property of the process, not of a route. Everything else passes through untouched.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Literal

from tfopt_server.errors import RETRY_AFTER_S
from tfopt_server.http import Answer, App, Request, Response

Phase = Literal["starting", "ready", "draining"]


def phase(ready: bool, draining: bool) -> Phase:
    """Draining wins: a server that was told to stop takes no new traffic, however well it is."""
    return "draining" if draining else "ready" if ready else "starting"


_ASKING = ("GET", "HEAD")
_RETRY = ((b"retry-after", b"%d" % RETRY_AFTER_S),)
STATUS: dict[Phase, int] = {"starting": 503, "ready": 200, "draining": 503}


class Gate:
    """The health route, and 503 for everything as long as there is no app behind it."""

    def __init__(self, route: str) -> None:
        self._route = route
        self._app: App | None = None
        self._ready: Callable[[], bool] = lambda: False
        self._draining = False

    def open(self, app: App, ready: Callable[[], bool]) -> None:
        """From now on `app` answers, and `ready` decides about health; both are called on the event loop."""
        self._app, self._ready = app, ready

    def drain(self) -> None:
        self._draining = True

    @property
    def phase(self) -> Phase:
        return phase(self._ready(), self._draining)

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        app = self._app
        if request.method in _ASKING and request.target.partition("?")[0] == self._route:
            now = self.phase
            # A health route that is also a TensorFlow Serving status route (`/v1/models/default`, as prebuilt images
            # are configured) keeps the status as its body.
            if now != "ready" or app is None or not self._route.lower().startswith("/v1/models"):
                return _json(STATUS[now], {"status": now})
        if app is not None:
            return app(request)
        return _json(503, {"error": "The server is starting."})._replace(headers=_RETRY)


def _json(status: int, body: dict[str, str]) -> Response:
    return Response(json.dumps(body).encode(), status)
