"""The REST face with a trace of every request that runs a model: an app around the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from tfopt_server.http import Answer, App, Request, Response, Streamed
from tfopt_server.tracing import Note, Tracing


class Traced:
    def __init__(self, app: App, tracing: Tracing) -> None:
        self._app, self._tracing = app, tracing

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        note = self._tracing.begin(request.header(b"traceparent"), request.header(b"tracestate"))
        with note:
            answer = self._app(request)
        if isinstance(answer, Response):
            self._end(note, request, answer.status)
            return answer
        return self._later(note, request, answer)

    async def _later(self, note: Note, request: Request, pending: Streamed | Awaitable[Answer]) -> Answer:
        with note:
            try:
                answer = pending if isinstance(pending, Streamed) else await pending
            except BaseException:  # cancelled: the client has left
                self._end(note, request, 499)
                raise
        if isinstance(answer, Streamed):
            return answer._replace(parts=_Parts(answer.parts, note, lambda: self._end(note, request, answer.status)))
        self._end(note, request, answer.status)
        return answer

    def _end(self, note: Note, request: Request, status: int) -> None:
        if not request.entrypoint:  # pages, status, metadata
            return
        path = request.target.partition("?")[0]
        attributes = {
            "http.request.method": request.method,
            "url.path": path,
            "http.response.status_code": status,
            "tfopt.model": request.model,
        }
        error = str(status) if status >= 400 else ""
        self._tracing.end(note, f"{request.method} {request.entrypoint}", attributes, error)


class _Parts:
    """The parts of a streamed answer; the trace ends with the last one, or when the client leaves."""

    def __init__(self, parts: AsyncIterator[bytes], note: Note, end: Any) -> None:
        self._parts, self._note, self._end = parts, note, end
        self._ended = False

    def __aiter__(self) -> _Parts:
        return self

    async def __anext__(self) -> bytes:
        with self._note:
            try:
                return await anext(self._parts)
            except BaseException:
                self._finish()
                raise

    async def aclose(self) -> None:
        if close := getattr(self._parts, "aclose", None):
            await close()
        self._finish()

    def _finish(self) -> None:
        if not self._ended:
            self._ended = True
            self._end()
