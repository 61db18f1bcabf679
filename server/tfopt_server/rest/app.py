"""The REST face: a raw ASGI callable. Bodies in, one table of routes, errors mapped in one place.

No web framework: TensorFlow Serving's URLs are two regular expressions whose rules (see tfs.py) would be exceptions in
any router. Looked up in this order: the fixed paths (the platform's predict route among them), everything under /v1/,
else 404. What a path leads to is remembered, so that a request costs one dict look-up before its handler runs. Health
is answered before this app is reached (health.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from tfopt_server.dataplane import Dataplane
from tfopt_server.faces import Meter, failure
from tfopt_server.metrics import Metrics
from tfopt_server.rest import bodies, status, vertex
from tfopt_server.rest.call import Call, Handler
from tfopt_server.rest.pages import Pages, metrics_paths
from tfopt_server.rest.predict import Predict
from tfopt_server.rest.status import Response
from tfopt_server.rest.tfs import PREFIX, Routes
from tfopt_server.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REMEMBERED = 1024  # far more paths than a deployment uses, and little memory for one that is scanned

_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)


class App:
    def __init__(self, dataplane: Dataplane, settings: Settings, metrics: Metrics) -> None:
        self._meter = Meter(metrics, "REST", settings.model_name)
        self._limit = settings.max_body_bytes
        self._cors = _CORS if settings.rest_api_enable_cors_support else ()
        predict = Predict(dataplane, settings.rest_api_timeout_in_ms / 1000)
        pages = Pages(dataplane, metrics)
        self._serving = Routes(dataplane, predict)
        platform = vertex.route(settings.predict_route, settings.model_name, predict, self._serving)
        self._fixed: dict[str, dict[str, Handler]] = {
            "/optimization": {"GET": pages.optimization},
            **{path: {"GET": pages.metrics} for path in metrics_paths(settings.monitoring_config_file)},
            settings.predict_route: {"POST": platform},
        }
        self._remembered: dict[tuple[str, bytes, bytes], Handler] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} connections here")
        call: Call | None = None
        try:
            body = await bodies.read(receive, scope["headers"], self._limit)
            call = Call(scope["headers"], body)
            key = (scope["method"], scope["raw_path"], scope["query_string"])
            handler = self._remembered.get(key) or self._find(*key)
            pending = handler(call)
            response = pending if isinstance(pending, Response) else await pending
            if call.entrypoint is not None:
                self._meter.done(call.model, call.entrypoint, call.began)
        except bodies.ClientGone:
            return
        except Exception as error:
            response = self._refused(scope, call, error)
        headers = [(b"content-length", b"%d" % len(response.body)), *response.headers, *self._cors]
        if response.content_type is not None:
            headers.append((b"content-type", response.content_type))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    def _refused(self, scope: Scope, call: Call | None, error: Exception) -> Response:
        """The answer to a request that failed, and its count: the one place where errors become HTTP."""
        if isinstance(error, bodies.TooLarge):
            return Response(status.error_body(str(error)), 413)
        refused = failure(error, f"{scope['method']} {scope['path']}")
        if call is not None and call.entrypoint is not None:
            self._meter.failed(call.model, refused.code)
        return status.refusal(refused)

    def _find(self, method: str, raw_path: bytes, query: bytes) -> Handler:
        path = raw_path.decode("latin-1")
        whole = f"{path}?{query.decode('latin-1')}" if query else path
        handler = self._route(method, path, whole)
        if len(self._remembered) < REMEMBERED:
            self._remembered[method, raw_path, query] = handler
        return handler

    def _route(self, method: str, path: str, whole: str) -> Handler:
        """`path` and `whole` (with its query) are still percent-encoded."""
        serving = whole.lower().startswith(PREFIX)
        fixed = self._fixed.get(whole if serving else path, {})
        if method in fixed:
            return fixed[method]
        if method == "OPTIONS":
            return _options
        if method == "TRACE":
            return partial(_plain, 501, "Not Implemented: TRACE", ())
        if serving:
            return self._serving.find(method, whole)
        if fixed:
            allow = ((b"allow", ", ".join(fixed).encode()),)
            return partial(_plain, 405, f"Method Not Allowed: {method} {path}", allow)
        return partial(_plain, 404, f"Not Found: {method} {path}", ())


def _plain(code: int, text: str, headers: tuple[tuple[bytes, bytes], ...], _call: Call) -> Response:
    return Response(status.error_body(text), code, headers=headers)


def _options(call: Call) -> Response:
    """TensorFlow Serving's answer to a CORS preflight, with or without the CORS flag."""
    origin = call.header(b"origin")
    known = b"http://" in origin or b"https://" in origin
    return Response(b"", 200 if known else 400, content_type=None)
