"""A method on behalf of a request that has an id: whatever is logged meanwhile names it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from tfopt_server import logs
from tfopt_server.faces import failure
from tfopt_server.rpc.methods import Conversation, Method, Pending, Streaming, Unary


def named(method: Method, name: str) -> Method:
    if method.unary is not None:
        return method._replace(unary=partial(_call, method.unary, method.path, name))
    if method.streaming is not None:
        return method._replace(streaming=partial(_talk, method.streaming, name))
    return method


def _call(unary: Unary, path: str, name: str, data: bytes, deadline: float | None) -> bytes | Pending:
    with logs.naming(name):
        try:
            answer = unary(data, deadline)
        except Exception as error:
            raise failure(error, path) from error  # here, where the line that it may cost has the name
    return answer if isinstance(answer, bytes) else _Waiting(answer, path, name)


class _Waiting:
    def __init__(self, pending: Pending, path: str, name: str) -> None:
        self._pending, self._path, self._name = pending, path, name
        self.future: Future[Any] = pending.future

    def long(self) -> bool:
        return self._pending.long()

    def answer(self) -> bytes:
        with logs.naming(self._name):
            try:
                return self._pending.answer()
            except Exception as error:
                raise failure(error, self._path) from error


async def _talk(streaming: Streaming, name: str, conversation: Conversation) -> AsyncIterator[bytes]:
    logs.request_id.set(name)  # of the call's own task
    async for message in streaming(conversation):
        yield message
