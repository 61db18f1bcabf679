"""What a worker is made of: metrics, the dataplane and the two faces, as the settings say.

Heavy modules are imported by what this imports; the arbiter never imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfopt_optimizer.errors import DeviceMissing

from tfopt_server import http, plane
from tfopt_server.batching_parameters import BatchingParametersError
from tfopt_server.metrics import Metrics
from tfopt_server.model_config import ModelConfigError
from tfopt_server.process.backend import CannotStart, Shared
from tfopt_server.process.listeners import turn_deaf
from tfopt_server.rest.app import App
from tfopt_server.rest.explain import ExplanationSpecError
from tfopt_server.rest.traced import Traced
from tfopt_server.settings import Settings
from tfopt_server.tracing import TracingError

# What ends the start with a text for the operator.
_BAD_SETTINGS = (
    BatchingParametersError, ExplanationSpecError, ModelConfigError, DeviceMissing, TracingError, OSError,
)  # fmt: skip

if TYPE_CHECKING:
    from tfopt_server.rpc.server import RpcServer


class Served:
    """The Backend of the real server; backend.py says what each method promises."""

    def __init__(self, settings: Settings, shared: Shared) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._rpc: RpcServer | None = None
        self._unix = shared.unix
        if shared.run_dir is not None:
            self._metrics.share(shared.run_dir)
        place = plane.Place(shared.board, shared.seat)
        first = plane.first_of(settings, shared.board)
        settings = plane.with_platforms_model(settings, first.models)
        self._dataplane, self._loader, self._calls = plane.build(settings, self._metrics, shared.run_dir, place, first)
        self.app: http.App = App(self._dataplane, settings, self._metrics)
        if self._dataplane.tracing is not None:
            self.app = Traced(self.app, self._dataplane.tracing)

    def start(self) -> None:
        # Loading begins before the gRPC face is imported: on a second start it is what readiness waits for.
        self._loader.start()
        self._calls.start()
        import tfopt_server.rpc.server

        self._start_rpc = tfopt_server.rpc.server.start

    async def open_rpc(self) -> None:
        try:
            self._rpc = await self._start_rpc(self._dataplane, self._settings, self._metrics, self._unix)
        except (OSError, ValueError) as error:  # an address that is taken, a TLS file that is none
            raise CannotStart(str(error)) from error

    def ready(self) -> bool:
        return self._dataplane.ready()

    def failure(self) -> str:
        return self._dataplane.failure()

    def leave(self) -> None:
        self._dataplane.leave()

    async def drain_rpc(self, timeout_s: float) -> None:
        if self._rpc is None:
            return
        turn_deaf(self._rpc.sockets)
        await self._rpc.drain(timeout_s)

    def drain(self, timeout_s: float) -> None:
        self._calls.stop()
        self._dataplane.drain(timeout_s)
        self._metrics.close()


def build(settings: Settings, shared: Shared) -> Served:
    """A Served that has started. CannotStart for a bad batching or model config file, a required device that is not
    there, or a run_dir that cannot hold a socket."""
    try:
        served = Served(settings, shared)
        served.start()
    except _BAD_SETTINGS as error:
        raise CannotStart(str(error)) from error
    return served
