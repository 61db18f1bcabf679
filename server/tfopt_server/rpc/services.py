"""The gRPC methods that are served: what each request means, in bytes and out bytes.

PredictionService: Predict, GetModelMetadata. ModelService: GetModelStatus. grpc.health.v1: Check. The other methods of
these services answer UNIMPLEMENTED by name; Health.Watch too, which tells clients to stop watching.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, NoReturn, Protocol

import grpc
from tfopt_protos import messages

from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import Code, ServingError, invalid, not_found
from tfopt_server.faces import Meter, failure
from tfopt_server.metrics import Metrics
from tfopt_server.registry import Handle
from tfopt_server.rpc import codec
from tfopt_server.rpc.gate import Gate
from tfopt_server.rpc.pool import Pool
from tfopt_server.rpc.status import details, grpc_code
from tfopt_server.tasks import Result


class Context(Protocol):
    """The part of grpc.ServicerContext that handlers use."""

    def time_remaining(self) -> float | None: ...
    def add_callback(self, callback: Callable[[], Any]) -> bool: ...
    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn: ...


Work = Callable[[bytes, Context], bytes]

# The dataplane lets a face that owns its threads run long requests on them. Handler threads are few and shared
# (pool.py): a long request must reach the executor's queue, or it could neither be merged nor make room for others.
_FACE = "REST"

_PREDICTION = "tensorflow.serving.PredictionService"
_MODEL = "tensorflow.serving.ModelService"
_HEALTH = "grpc.health.v1.Health"
# "" is the server as a whole; the short names are what TensorFlow Serving registers.
_HEALTH_NAMES = frozenset({
    "", "ModelService", "PredictionService", _MODEL, _PREDICTION,
})  # fmt: skip
_SERVING, _NOT_SERVING = 1, 2
_LONGEST_S = 365 * 86400.0


class Services:
    """Every method on raw bytes. `content`: answers carry tensor_content instead of typed fields."""

    def __init__(  # noqa: PLR0917 - one caller
        self, plane: Dataplane, metrics: Metrics, pool: Pool, gate: Gate, model: str, content: bool
    ) -> None:
        self._plane = plane
        self._meter = Meter(metrics, "GRPC", model)
        self._pool = pool
        self._content = content
        self._gate = gate

    def methods(self) -> Mapping[str, Mapping[str, Work]]:
        """By service and method."""
        served: dict[str, dict[str, Work | None]] = {
            _PREDICTION: {
                "Predict": self.predict, "GetModelMetadata": self.metadata,
                "Classify": None, "Regress": None, "MultiInference": None,
            },
            _MODEL: {"GetModelStatus": self.status, "HandleReloadConfigRequest": None},
            _HEALTH: {"Check": self.health, "Watch": None},
        }  # fmt: skip
        return {
            service: {name: self._guarded(f"/{service}/{name}", work) for name, work in methods.items()}
            for service, methods in served.items()
        }

    def _guarded(self, name: str, served: Work | None) -> Work:
        """A method, with whatever it raises turned into a status: the one place where that happens."""

        work = served or _unimplemented(name)

        def call(data: bytes, context: Context) -> bytes:
            self._gate.entered()
            try:
                answer = work(data, context)
            except Exception as error:
                refused = failure(error, name)
            else:
                self._gate.leave()
                return answer
            self._gate.leave()
            return context.abort(grpc_code(refused.code), details(refused.message))  # raises

        return call

    def predict(self, data: bytes, context: Context) -> bytes:
        began = time.perf_counter()
        request = codec.parse("tensorflow.serving.PredictRequest", data)
        name = request.model_spec.name
        try:
            with self._plane.resolve(_spec(request)) as handle:
                key = request.model_spec.signature_name or codec.DEFAULT_SIGNATURE
                answer = self._answer(request, handle, key, context, began)
        except Exception as error:
            refused = failure(error, "Predict")
            self._meter.failed(name, refused.code)
            raise refused from (None if refused is error else error)
        self._meter.done(name, "Predict", began)
        return answer

    def _answer(self, request: Any, handle: Handle, key: str, context: Context, began: float) -> bytes:
        plane = self._plane
        signature = plane.signature(handle, key)
        if signature is None:
            raise codec.unknown_signature(key)
        feeds = codec.feeds(request.inputs, signature, lambda alias: plane.metadata(handle)[key].defaults[alias])
        outputs = codec.wanted(request.output_filter, signature) if request.output_filter else None
        left = _remaining(context)
        steps = plane.steps(handle, key)
        steps.decode.observe(time.perf_counter() - began)
        result = plane.start(handle, key, feeds, outputs, None if left is None else time.monotonic() + left, _FACE)
        if isinstance(result, Future):
            result = self._wait(result, context, left)
        encoding = time.perf_counter()
        answer = codec.answer(handle.name, handle.version, key, result.outputs, self._content)
        steps.encode.observe(time.perf_counter() - encoding)
        return answer

    def _wait(self, future: Future[Result], context: Context, left: float | None) -> Result:
        """The result; a call that its client gives up on leaves the queue if it still stands there."""
        context.add_callback(future.cancel)
        try:
            with self._pool.waiting():
                return future.result(left)
        except TimeoutError as error:
            if future.done():
                raise
            raise ServingError(Code.DEADLINE_EXCEEDED, "Run() timed out") from error
        except CancelledError as error:
            raise ServingError(Code.CANCELLED, "The client cancelled the call") from error

    def metadata(self, data: bytes, context: Context) -> bytes:
        request = codec.parse("tensorflow.serving.GetModelMetadataRequest", data)
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        signatures = messages.SignatureDefMap()
        answer = messages.GetModelMetadataResponse()
        with self._plane.resolve(_spec(request)) as handle:
            for key, proto in self._plane.metadata(handle).items():
                signatures.signature_def[key].CopyFrom(proto)
            answer.model_spec.name = request.model_spec.name
            answer.model_spec.version.value = handle.version
        answer.metadata["signature_def"].Pack(signatures)
        return bytes(answer.SerializeToString())

    def status(self, data: bytes, context: Context) -> bytes:
        spec = codec.parse("tensorflow.serving.GetModelStatusRequest", data).model_spec
        version = spec.version.value if spec.HasField("version") else None
        answer = messages.GetModelStatusResponse()
        for each in self._plane.status(spec.name, version):
            added = answer.model_version_status.add(version=each.version, state=each.state.value)
            added.status.error_code = int(each.code)
            added.status.error_message = each.message
        return bytes(answer.SerializeToString())

    def health(self, data: bytes, context: Context) -> bytes:
        service = codec.parse("grpc.health.v1.HealthCheckRequest", data).service
        if service not in _HEALTH_NAMES:
            raise not_found("unknown service")
        fit = self._plane.ready() and not self._gate.closing
        reply = messages.message("grpc.health.v1.HealthCheckResponse")(status=_SERVING if fit else _NOT_SERVING)
        return bytes(reply.SerializeToString())


def _spec(request: Any) -> ModelSpec:
    """What the request's ModelSpec asks for; there must be one, with a name."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    which = spec.WhichOneof("version_choice")
    return ModelSpec(
        spec.name,
        spec.version.value if which == "version" else None,
        spec.version_label if which == "version_label" else None,
    )


def _remaining(context: Context) -> float | None:
    """Seconds until the client's deadline; None without one (grpcio may then say centuries, which no wait accepts)."""
    left = context.time_remaining()
    return None if left is None or left > _LONGEST_S else left


def _unimplemented(name: str) -> Work:
    def work(_data: bytes, _context: Context) -> bytes:
        raise ServingError(Code.UNIMPLEMENTED, f"{name} is not served.")

    return work
