"""The gRPC face with a trace of every unary call that runs a model: what reads a call's headers wraps its method.

Whichever service it is of: a call without a step (metadata, status) leaves no trace, unless it failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from tfopt_server.errors import Code, ServingError
from tfopt_server.rpc.head import Head
from tfopt_server.rpc.http2.headers import Header
from tfopt_server.rpc.methods import Pending, Unary
from tfopt_server.tracing import Note, Tracing

Read = Callable[[Sequence[Header]], Head]


def reader(read: Read, tracing: Tracing) -> Read:
    """`read`, whose methods are traced, but for gRPC's own (health, reflection)."""

    def traced(headers: Sequence[Header]) -> Head:
        head = read(headers)
        method = head.method
        if head.refusal is not None or method.unary is None or method.path.startswith("/grpc."):
            return head
        fields = dict(headers)
        parent = fields.get(b"traceparent", b""), fields.get(b"tracestate", b"")
        unary = partial(_call, tracing, parent, method.path, method.unary)
        return head._replace(method=method._replace(unary=unary))

    return traced


def _call(  # noqa: PLR0917 - made by partial
    tracing: Tracing, parent: tuple[bytes, bytes], path: str, unary: Unary, data: bytes, deadline: float | None
) -> bytes | Pending:
    note = tracing.begin(*parent)
    with note:
        try:
            answer = unary(data, deadline)
        except Exception as error:
            _refused(tracing, note, path, error)
            raise
    if isinstance(answer, bytes):
        _end(tracing, note, path, 0)
        return answer
    return _Waiting(tracing, note, path, answer)


class _Waiting:
    """A Pending whose answer ends the trace."""

    def __init__(self, tracing: Tracing, note: Note, path: str, pending: Pending) -> None:
        self._tracing, self._note, self._path, self._pending = tracing, note, path, pending
        self.future: Future[Any] = pending.future

    def long(self) -> bool:
        return self._pending.long()

    def answer(self) -> bytes:
        with self._note:
            try:
                found = self._pending.answer()
            except Exception as error:
                _refused(self._tracing, self._note, self._path, error)
                raise
        _end(self._tracing, self._note, self._path, 0)
        return found


def _refused(tracing: Tracing, note: Note, path: str, error: Exception) -> None:
    code = error.code if isinstance(error, ServingError) else Code.INTERNAL
    _end(tracing, note, path, int(code), code.name)


def _end(tracing: Tracing, note: Note, path: str, code: int, error: str = "") -> None:
    if not note.steps and not error:
        return
    service, _, method = path.strip("/").partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, "rpc.grpc.status_code": code}
    tracing.end(note, path.strip("/"), attributes, error)
