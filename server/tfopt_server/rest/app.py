"""The REST face: a request in, an answer out. One table of routes, errors mapped in one place.

No web framework: TensorFlow Serving's URLs are two regular expressions whose rules (see tfs.py) would be exceptions in
any router. Looked up in this order: the fixed paths (the platform's predict route among them), everything under /v1/,
else 404. What a path leads to is remembered, so that a request costs one dict look-up before its handler runs. Health
is answered before this app is reached (health.py), and what is not HTTP/1.1 before that (process/connections.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

from tfopt_server import logs
from tfopt_server.dataplane import Dataplane
from tfopt_server.faces import Meter, failure
from tfopt_server.http import CONTENT_ENCODING, REQUEST_ID, Answer, Header, Request, Response, Streamed
from tfopt_server.metrics import Metrics
from tfopt_server.oip.repository import Repository
from tfopt_server.rest import status, vertex
from tfopt_server.rest.answer_size import AnswerSize
from tfopt_server.rest.bodies import LONG_PACKED, gunzip
from tfopt_server.rest.call import Handler
from tfopt_server.rest.exchange import Exchange
from tfopt_server.rest.explain import Explain
from tfopt_server.rest.explorer import Explorer
from tfopt_server.rest.infer import Infer
from tfopt_server.rest.open_inference import PREFIX as OPEN
from tfopt_server.rest.open_inference import OpenInference
from tfopt_server.rest.optimization import Optimization
from tfopt_server.rest.pages import Pages, metrics_paths
from tfopt_server.rest.predict import Predict
from tfopt_server.rest.tfs import PREFIX, Routes
from tfopt_server.settings import Settings

# Far more paths than a deployment uses, and little memory for one that is scanned.
REMEMBERED = 1024
LONGEST_TARGET = 1024

_WHOLE = (Response, Streamed)

_CORS: tuple[Header, ...] = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)


class App:
    def __init__(self, dataplane: Dataplane, settings: Settings, metrics: Metrics) -> None:
        self._meter = Meter(metrics, "REST", settings.model_name)
        self._cors = _CORS if settings.rest_api_enable_cors_support else ()
        timeout_s = settings.rest_api_timeout_in_ms / 1000
        exchange = Exchange(dataplane, timeout_s, settings.enable_serialization_as_tensor_content)
        predict = Predict(dataplane, timeout_s, exchange)
        infer = Infer(dataplane, timeout_s, settings.enable_signature_method_name_check)
        pages, metrics_at = Pages(metrics), metrics_paths(settings.monitoring_config_file)
        explorer = Explorer(dataplane, settings, metrics_at)
        explain = Explain(dataplane, timeout_s, settings.explanation_spec_file, settings.max_explain_rows)
        self._serving = Routes(dataplane, predict, infer, explain)
        repository = Repository(dataplane, settings.enable_model_repository)
        self._open = OpenInference(dataplane, timeout_s, repository)
        explains = vertex.explain_path(settings.predict_route)
        platform = vertex.route(settings.predict_route, settings.model_name, predict, self._serving, self._open)
        self._fixed: dict[str, dict[str, Handler]] = {
            "/optimization": {"GET": Optimization(dataplane).answer},
            "/openapi.json": {"GET": explorer.document},
            "/docs": {"GET": explorer.page},
            **{path: {"GET": pages.metrics} for path in metrics_at},
            settings.predict_route: {"POST": platform},
            explains: {"POST": vertex.explain_route(explains, settings.model_name, explain, self._serving)},
        }
        for methods in self._fixed.values():
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]  # the connection leaves the body out
        self._remembered: dict[tuple[str, str], Handler] = {}
        self._size = AnswerSize(settings.max_answer_bytes, settings.on_vertex)

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        """Never raises; what it returns never does either, but for being cancelled."""
        name = request.noted.get(REQUEST_ID)
        if not name or len(name) > logs.LONGEST_ID:
            return self._begin(request)
        with logs.naming(name.decode("latin-1")):
            found = self._begin(request)
        return found if isinstance(found, Response) else self._named(name.decode("latin-1"), found)

    async def _named(self, name: str, pending: Streamed | Awaitable[Answer]) -> Answer:
        """In the request's own task, whose lines have its name to the end, those of a stream's parts too."""
        logs.request_id.set(name)
        return pending if isinstance(pending, Streamed) else await pending

    def _begin(self, request: Request) -> Answer | Awaitable[Answer]:
        try:
            packing = request.noted.get(CONTENT_ENCODING)
            if packing and b"gzip" in packing.lower():
                if len(request.body) >= LONG_PACKED:
                    return self._unpacked(request)
                request.body = gunzip(request.body)
            found = self._handler(request)(request)
        except Exception as error:
            return self._refused(request, error)
        return self._answered(request, found) if isinstance(found, _WHOLE) else self._later(request, found)

    async def _unpacked(self, request: Request) -> Answer:
        try:
            request.body = await asyncio.to_thread(gunzip, request.body)
            found = self._handler(request)(request)
        except Exception as error:
            return self._refused(request, error)
        return self._answered(request, found) if isinstance(found, _WHOLE) else await self._later(request, found)

    async def _later(self, request: Request, pending: Awaitable[Answer]) -> Answer:
        try:
            return self._answered(request, await pending)
        except Exception as error:
            return self._refused(request, error)

    def _answered(self, request: Request, answer: Answer) -> Answer:
        """Where the size of answers matters, `answer` may still be refused."""
        if self._size.looked_at and isinstance(answer, Response) and (refused := self._size.look(answer.body)):
            return self._refused(request, refused)
        if request.entrypoint is not None:
            self._meter.done(request.model, request.entrypoint, request.began)
        return self._marked(request, answer)

    def _refused(self, request: Request, error: Exception) -> Answer:
        """The answer to a request that failed, and its count: the one place where errors become HTTP."""
        refused = failure(error, f"{request.method} {request.target.partition('?')[0]}")
        if request.entrypoint is not None:
            self._meter.failed(request.model, refused.code)
        return self._marked(request, status.refusal(refused))

    def _marked(self, request: Request, answer: Answer) -> Answer:
        """With the headers that any answer may carry: the client's own id of the request, and CORS."""
        name = request.noted.get(REQUEST_ID)
        marks: tuple[Header, ...] = (
            ((b"x-request-id", name), *self._cors) if name and len(name) <= logs.LONGEST_ID else self._cors
        )
        return answer._replace(headers=(*answer.headers, *marks)) if marks else answer

    def _handler(self, request: Request) -> Handler:
        key = request.method, request.target
        handler = self._remembered.get(key)
        if handler is None:
            handler = self._route(request.method, request.target.partition("?")[0], request.target)
            if len(self._remembered) < REMEMBERED and len(request.target) <= LONGEST_TARGET:
                self._remembered[key] = handler
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
        if path == OPEN or path.startswith(f"{OPEN}/"):
            return self._open.find(method, path)
        if fixed:
            allow = ((b"allow", ", ".join(fixed).encode()),)
            return partial(_plain, 405, f"Method Not Allowed: {method} {path}", allow)
        return partial(_plain, 404, f"Not Found: {method} {path}", ())


def _plain(code: int, text: str, headers: tuple[Header, ...], _request: Request) -> Response:
    return Response(status.error_body(text), code, headers=headers)


def _options(request: Request) -> Response:
    """TensorFlow Serving's answer to a CORS preflight, with or without the CORS flag."""
    origin = request.header(b"origin")
    known = b"http://" in origin or b"https://" in origin
    return Response(b"", 200 if known else 400, content_type=None)
