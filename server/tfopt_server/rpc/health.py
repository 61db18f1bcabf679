"""grpc.health.v1.Health: is the server fit for traffic, once (Check) or from now on (Watch).

Source: github.com/grpc/grpc/blob/master/doc/health-checking.md. The names are those of the services, TensorFlow
Serving's short ones, and "" for the server as a whole; all have one state: readiness is a property of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from tfopt_protos import messages

from tfopt_server import predict_message as codec
from tfopt_server.errors import Code, ServingError, not_found, unavailable
from tfopt_server.rpc.methods import Conversation, Method

SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
# How often the state is looked at while anybody watches, once for all of them: readiness is made of many parts that
# tell nobody, and platforms probe every few seconds.
LOOK_S = 0.2


class Health:
    """`fit`: whether the server takes traffic now; `names`: the services that may be asked about besides ""."""

    def __init__(self, fit: Callable[[], bool], names: frozenset[str]) -> None:
        self._fit = fit
        self._names = names | {""}
        # While it is watched; all on one event loop.
        self._known = False
        self._changed = asyncio.Event()
        self._watchers = 0
        self._looking: asyncio.Task[None] | None = None

    def methods(self) -> Mapping[bytes, Method]:
        check, watch = f"/{SERVICE}/Check", f"/{SERVICE}/Watch"
        return {check.encode(): Method(check, self.check), watch.encode(): Method(watch, streaming=self.watch)}

    def check(self, data: bytes, _deadline: float | None) -> bytes:
        state = self._state(data, self._fit())
        if state == SERVICE_UNKNOWN:
            raise not_found("unknown service")
        return _answer(state)

    def _look(self) -> None:
        """Wakes everybody who watches when the state is another."""
        if (now := self._fit()) != self._known:
            self._known = now
            woken, self._changed = self._changed, asyncio.Event()
            woken.set()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._look()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self._watchers += 1
        self._look()
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._keep_looking())
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def watch(self, conversation: Conversation) -> AsyncIterator[bytes]:
        request = None
        async for message in conversation.requests():
            if request is not None:
                raise ServingError(Code.UNIMPLEMENTED, "Watch takes one message; received more")
            request = message
        if request is None:
            raise ServingError(Code.UNIMPLEMENTED, "Watch takes one message; received none")
        said = None
        with self._watched():
            while True:
                changed = self._changed  # before the state is read: a change while it is told must not be missed
                state = self._state(request, self._known)
                if state != said:
                    said = state
                    yield _answer(state)
                if not await conversation.until(changed):
                    if said == SERVING:
                        yield _answer(NOT_SERVING)
                    raise unavailable("The server is shutting down")

    def _state(self, request: bytes, fit: bool) -> int:
        service = codec.parse("grpc.health.v1.HealthCheckRequest", request).service
        if service not in self._names:
            return SERVICE_UNKNOWN
        return SERVING if fit else NOT_SERVING


def _answer(state: int) -> bytes:
    return bytes(messages.message("grpc.health.v1.HealthCheckResponse")(status=state).SerializeToString())
