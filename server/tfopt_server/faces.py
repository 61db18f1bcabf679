"""What the REST and the gRPC face share: how failures become codes, and what they count. No transport type in here."""

from __future__ import annotations

import logging
import secrets
import time

from tfopt_server.errors import Code, ServingError
from tfopt_server.instruments import Counter, Histogram
from tfopt_server.metrics import Metrics

log = logging.getLogger(__name__)

# TensorFlow Serving labels its request counter with whatever name a client sends. Beyond this many names that no model
# has, they share one label, so that a scan of the port does not grow the metrics page for ever.
UNKNOWN_NAMES = 100
LONGEST_NAME = 256  # over gRPC a name may be as long as a message, and a label stays for ever
OTHER = "(other)"


def failure(error: BaseException, what: str) -> ServingError:
    """`error` as the client may see it. What is no ServingError is our fault: the log gets it all, the client an id."""
    if isinstance(error, ServingError):
        return error
    incident = secrets.token_hex(4)
    log.error("%s failed (incident %s)", what, incident, exc_info=error)
    return ServingError(Code.INTERNAL, f"Internal error (incident {incident}); the server's log has the details.")


class Meter:
    """TensorFlow Serving's request_count and request_latency for one face ("REST" or "GRPC")."""

    def __init__(self, metrics: Metrics, face: str, *models: str) -> None:
        self._metrics = metrics
        self._face = face
        self._succeeded: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._models = set(models)
        self._room = UNKNOWN_NAMES

    def done(self, model: str, entrypoint: str, began: float) -> None:
        """A request that began at time.perf_counter() `began` was answered with OK; `model` is a name that exists."""
        found = self._succeeded.get((model, entrypoint))
        if found is None:
            found = self._succeeded[model, entrypoint] = self._instruments(model, entrypoint)
        found[0].inc()
        found[1].observe((time.perf_counter() - began) * 1e6)

    def _instruments(self, model: str, entrypoint: str) -> tuple[Counter, Histogram]:
        self._models.add(model)
        latency = self._metrics.request_latency.labels(model, self._face, entrypoint)
        return self._metrics.request_count.labels(model, Code.OK.name), latency

    def failed(self, model: str, code: Code) -> None:
        """A request for `model`, a name as the client wrote it, was refused."""
        if model not in self._models:
            if self._room and len(model) <= LONGEST_NAME:
                self._room -= 1
                self._models.add(model)
            else:
                model = OTHER
        self._metrics.request_count.labels(model, code.name).inc()
