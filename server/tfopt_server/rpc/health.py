"""grpc.health.v1.Health: is the server fit for traffic, once (Check) or from now on (Watch).

Source: github.com/grpc/grpc/blob/master/doc/health-checking.md. The names are those of the services, TensorFlow
Serving's short ones, and "" for the server as a whole; all have one state: readiness is a property of the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from tfopt_protos import messages

from tfopt_server import predict_message as codec
from tfopt_server.errors import Code, ServingError, not_found, unavailable
from tfopt_server.rpc.methods import Conversation, Method

SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
# How often a watched state is looked at: readiness has no events, and platforms probe every few seconds.
LOOK_S = 0.2


class Health:
    """`fit`: whether the server takes traffic now; `names`: the services that may be asked about besides ""."""

    def __init__(self, fit: Callable[[], bool], names: frozenset[str]) -> None:
        self._fit = fit
        self._names = names | {""}

    def methods(self) -> Mapping[bytes, Method]:
        check, watch = f"/{SERVICE}/Check", f"/{SERVICE}/Watch"
        return {check.encode(): Method(check, self.check), watch.encode(): Method(watch, streaming=self.watch)}

    def check(self, data: bytes, _deadline: float | None) -> bytes:
        state = self._state(data)
        if state == SERVICE_UNKNOWN:
            raise not_found("unknown service")
        return _answer(state)

    async def watch(self, conversation: Conversation) -> AsyncIterator[bytes]:
        request = None
        async for message in conversation.requests():
            if request is not None:
                raise ServingError(Code.UNIMPLEMENTED, "Watch takes one message; received more")
            request = message
        if request is None:
            raise ServingError(Code.UNIMPLEMENTED, "Watch takes one message; received none")
        said = None
        while True:
            state = self._state(request)
            if state != said:
                said = state
                yield _answer(state)
            if not await conversation.pause(LOOK_S):
                if said == SERVING:
                    yield _answer(NOT_SERVING)
                raise unavailable("The server is shutting down")

    def _state(self, request: bytes) -> int:
        service = codec.parse("grpc.health.v1.HealthCheckRequest", request).service
        if service not in self._names:
            return SERVICE_UNKNOWN
        return SERVING if self._fit() else NOT_SERVING


def _answer(state: int) -> bytes:
    return bytes(messages.message("grpc.health.v1.HealthCheckResponse")(status=state).SerializeToString())
