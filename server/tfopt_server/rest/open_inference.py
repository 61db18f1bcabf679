"""The Open Inference Protocol's REST routes, version 2, with Triton's binary tensors and model repository.

    GET  /v2                                              what this server is
    GET  /v2/health/live, /v2/health/ready
    GET  /v2/models/NAME[/versions/V][/ready]             metadata, or whether it serves
    POST /v2/models/NAME[/versions/V]/infer
    POST /v2/repository/index
    POST /v2/repository/models/NAME/load, .../unload      with --enable_model_repository

V is a number or a label. Errors are `{"error": text}` with the HTTP codes of TensorFlow Serving's routes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import ServingError, invalid, not_found
from tfopt_server.http import Answer, Request, Response
from tfopt_server.oip import model
from tfopt_server.oip.document import Asked, answer
from tfopt_server.oip.repository import Repository
from tfopt_server.registry import Handle
from tfopt_server.rest.call import Handler
from tfopt_server.rest.parse import read
from tfopt_server.rest.pending import LONG_BODY, Pending, end, through
from tfopt_server.tasks import LONG_ANSWER, Result, is_long

PREFIX = "/v2"

BINARY = b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer))?")
_REPOSITORY = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")
# Triton's name for how long a request may wait, in microseconds.
_TIMEOUT = "timeout"


class OpenInference:
    def __init__(self, plane: Dataplane, timeout_s: float, repository: Repository) -> None:
        self._plane, self._timeout_s, self._repository = plane, timeout_s, repository
        self._fixed: dict[str, tuple[str, Handler]] = {
            "/v2": ("GET", self._server),
            "/v2/health/live": ("GET", lambda _: _json({"live": True})),
            "/v2/health/ready": ("GET", self._ready),
            "/v2/repository/index": ("POST", self._index),
        }

    def find(self, method: str, path: str) -> Handler:
        """What answers `method` on `path` (still percent-encoded, without its query)."""
        path = path.rstrip("/") or path
        if path in self._fixed:
            expected, handler = self._fixed[path]
        elif found := _REPOSITORY.fullmatch(path):
            expected, handler = "POST", partial(self._control, unquote(found[1]), found[2])
        elif found := _MODEL.fullmatch(path):
            asked = (unquote(found[1]), unquote(found[2] or ""))
            expected = "POST" if found[3] == "infer" else "GET"
            answers: dict[str | None, Handler] = {
                "infer": partial(self._infer, asked), "ready": partial(self._model_ready, asked),
            }  # fmt: skip
            handler = answers.get(found[3], partial(self._metadata, asked))
        else:
            return partial(_refuse, not_found(f"Not Found: {method} {path}"))
        if method != expected:
            return partial(_not_allowed, method, path, expected)
        return handler

    # --- The server and its models ------------------------------------------------------------------------------------

    def _server(self, _request: Request) -> Response:
        return _json({"name": "tfopt", "version": model.server_version(), "extensions": model.EXTENSIONS})

    def _ready(self, _request: Request) -> Response:
        """KServe's client reads the body, Triton's the status."""
        ready = self._plane.ready()
        return _json({"ready": ready}, 200 if ready else 503)

    def _model_ready(self, asked: tuple[str, str], request: Request) -> Response:
        request.model = asked[0]
        ready = model.is_ready(self._plane, model.spec(*asked))
        return _json({"name": asked[0], "ready": ready}, 200 if ready else 404)

    def _metadata(self, asked: tuple[str, str], request: Request) -> Response:
        request.model, request.entrypoint = asked[0], ""
        found = model.metadata(self._plane, model.spec(*asked))
        return _json(
            {
                "name": found.name,
                "versions": found.versions,
                "platform": model.PLATFORM,
                "inputs": [each._asdict() for each in found.inputs],
                "outputs": [each._asdict() for each in found.outputs],
            }
        )

    # --- The repository -----------------------------------------------------------------------------------------------

    def _index(self, request: Request) -> Response:
        body = read(request.body) if request.body else {}
        if type(body) is not dict or type(body.get("ready", False)) is not bool:
            raise invalid("expected an object with ready: true or false, or no body")
        return _json([each._asdict() for each in model.index(self._plane, body.get("ready", False))])

    def _control(self, name: str, verb: str, request: Request) -> Awaitable[Answer]:
        request.model = name
        body = read(request.body) if request.body else {}
        parameters = body.get("parameters") or {} if type(body) is dict else None
        if type(parameters) is not dict:
            raise invalid("expected an object, with parameters as an object if any, or no body")
        begin = self._repository.load if verb == "load" else self._repository.unload
        return _controlled(begin(name, parameters))

    # --- Inference ----------------------------------------------------------------------------------------------------

    def _infer(self, asked: tuple[str, str], request: Request) -> Answer | Awaitable[Answer]:
        request.model, request.entrypoint = asked[0], "infer"
        spec = model.spec(*asked)
        length = _json_length(request)
        if length >= LONG_BODY or len(request.body) >= LONG_ANSWER:
            return through(partial(self._begin, spec, length, request))
        begun = self._begin(spec, length, request)
        return begun if isinstance(begun, Response) else end(begun)

    def _begin(self, spec: ModelSpec, length: int, request: Request) -> Response | Pending:
        """Decodes and runs; writes the answer too where there is one at once and it is short."""
        plane = self._plane
        whole = memoryview(request.body)
        sent = Asked.read(read(bytes(whole[:length])), whole[length:])
        model.refuse_extensions(sent.parameters, "request")
        deadline = time.monotonic() + _timeout(sent.parameters, self._timeout_s)
        handle = plane.resolve(spec)
        keep = False
        try:
            key, signature = model.signature(plane, handle, sent.parameters)
            defaults = plane.metadata(handle)[key].defaults if signature.defaults else {}
            feeds = model.completed(sent.feeds(signature), signature, defaults)
            outputs = sent.wanted(signature)
            job = _Job(handle, key, sent, outputs or tuple(o.name for o in signature.outputs))
            plane.steps(handle, key).decode.observe(time.perf_counter() - request.began)
            result = plane.start(handle, key, feeds, outputs, deadline, "REST", api="ModelInfer")
            if keep := isinstance(result, Future) or is_long(result):
                return Pending(handle, result, deadline, partial(self._written, job))
            return self._written(job, result)
        finally:
            if not keep:
                handle.release()

    def _written(self, job: _Job, result: Result) -> Response:
        began = time.perf_counter()
        handle = job.handle
        written = answer(handle.name, handle.version, job.asked, result.outputs, job.outputs)
        self._plane.steps(handle, job.key).encode.observe(time.perf_counter() - began)
        if written.json_length is None:
            return Response(written.body)
        lengths = ((HEADER_LENGTH, b"%d" % written.json_length),)
        return Response(written.body, content_type=BINARY, headers=lengths)


class _Job(NamedTuple):
    """`outputs`: the names in the order of the answer."""

    handle: Handle
    key: str
    asked: Asked
    outputs: tuple[str, ...]


def _json_length(request: Request) -> int:
    """How much of the body is JSON; the rest are binary tensors."""
    sent = request.header(HEADER_LENGTH)
    if not sent:
        return len(request.body)
    if not sent.isdigit() or not 0 < int(sent) <= len(request.body):
        raise invalid(
            f"Inference-Header-Content-Length: expected 1 to {len(request.body)}, the size of the body; received "
            f"{sent[:40].decode('latin-1')!r}"
        )
    return int(sent)


def _timeout(parameters: Any, most_s: float) -> float:
    sent = parameters.get(_TIMEOUT, 0)
    if type(sent) is not int or sent < 0:
        raise invalid(f"parameters.{_TIMEOUT}: expected microseconds, 0 or more; received {str(sent)[:40]!r}")
    return min(sent * 1e-6, most_s) if sent else most_s


async def _controlled(done: Future[None]) -> Response:
    await asyncio.wrap_future(done)
    return Response(b"", content_type=None)


def _json(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status)


def _refuse(error: ServingError, _request: Request) -> Response:
    raise error


def _not_allowed(method: str, path: str, expected: str, _request: Request) -> Response:
    text = orjson.dumps({"error": f"Method Not Allowed: {method} {path}; expected {expected}"})
    return Response(text, 405, headers=((b"allow", expected.encode()),))
