"""The gRPC methods that are served: what each request means, in bytes and out bytes.

PredictionService: Predict, GetModelMetadata (the others stand in inferences.py). ModelService: GetModelStatus (the
other stands in reload.py). Health has a file of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple, TypeVar

from tfopt_optimizer.plan import SignatureInfo
from tfopt_protos import messages

from tfopt_server import predict_message as codec
from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import Code, ServingError, invalid
from tfopt_server.faces import Meter, failure
from tfopt_server.metrics import Metrics, Steps
from tfopt_server.registry import Handle
from tfopt_server.rows import Feeds
from tfopt_server.rpc.known import Known, Memory
from tfopt_server.rpc.methods import Method, Pending, Unary
from tfopt_server.tasks import Result, is_long

T = TypeVar("T")

PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
# What health may be asked about: the services, and the short names that TensorFlow Serving registers.
NAMES = frozenset({"ModelService", "PredictionService", MODEL, PREDICTION})


class _Asked(NamedTuple):
    """A request's bytes, what is known of such bytes, and where nothing is, the message that they parse to."""

    data: bytes
    known: Known | None
    message: Any

    @classmethod
    def read(cls, data: bytes, memory: Memory) -> _Asked:
        known = memory.find(data)
        return cls(data, known, None if known is not None else _parsed(data))

    @property
    def model(self) -> str:
        return str(self.message.model_spec.name) if self.known is None else self.known.spec.name


def _parsed(data: bytes) -> Any:
    return codec.parse("tensorflow.serving.PredictRequest", data)


class Services:
    """Every method on raw bytes. `content`: answers carry tensor_content instead of typed fields."""

    def __init__(self, plane: Dataplane, metrics: Metrics, model: str, content: bool) -> None:
        self._plane = plane
        self._meter = Meter(metrics, "GRPC", model)
        self._content = content
        self._memory = Memory()

    def methods(self) -> Mapping[bytes, Method]:
        """By path."""
        paths: dict[str, Unary] = {
            f"/{PREDICTION}/Predict": self.predict,
            f"/{PREDICTION}/GetModelMetadata": self.metadata,
            f"/{MODEL}/GetModelStatus": self.status,
        }
        return {path.encode(): Method(path, unary) for path, unary in paths.items()}

    def predict(self, data: bytes, deadline: float | None) -> bytes | Pending:
        began = time.perf_counter()
        asked = _Asked.read(data, self._memory)
        try:
            return self._predict(asked, deadline, began)
        except Exception as error:
            refused = self.failed(asked.model, error)
            raise refused from (None if refused is error else error)

    def _predict(self, asked: _Asked, deadline: float | None, began: float) -> bytes | Pending:
        plane, known = self._plane, asked.known
        spec = model_spec(asked.message) if known is None else known.spec
        handle = plane.resolve(spec)
        kept = False
        try:
            key = known.key if known is not None else asked.message.model_spec.signature_name or codec.DEFAULT_SIGNATURE
            signature = plane.signature(handle, key)
            if signature is None:
                raise codec.unknown_signature(key)
            feeds: Feeds
            if known is not None and known.signature is signature:
                feeds, outputs = known.feeds(asked.data), known.outputs
            else:
                feeds, outputs = self._read(asked, handle, spec, key, signature)
            steps = plane.steps(handle, key)
            steps.decode.observe(time.perf_counter() - began)
            result = plane.start(handle, key, feeds, outputs, deadline, "GRPC")
            if isinstance(result, Future) or is_long(result):
                kept = True
                return _Prediction(self, handle, key, steps, result, deadline, began)
            return self.written(handle, key, steps, result, began)
        finally:
            if not kept:
                handle.release()

    def _read(
        self, asked: _Asked, handle: Handle, spec: ModelSpec, key: str, signature: SignatureInfo
    ) -> tuple[Feeds, Sequence[str] | None]:
        """Protobuf's way, with every check; the next request of this look may go without."""
        request = _parsed(asked.data) if asked.message is None else asked.message
        default = lambda alias: self._plane.metadata(handle)[key].defaults[alias]  # noqa: E731
        feeds = codec.feeds(request.inputs, signature, default)
        outputs = codec.wanted(request.output_filter, signature) if request.output_filter else None
        self._memory.learn(asked.data, spec, key, signature, feeds, outputs)
        return feeds, outputs

    def written(self, handle: Handle, key: str, steps: Steps, result: Result, began: float) -> bytes:
        """The serialized answer; the call is counted as done."""
        encoding = time.perf_counter()
        answer = codec.answer(handle.name, handle.version, key, result.outputs, self._content)
        steps.encode.observe(time.perf_counter() - encoding)
        self._meter.done(handle.name, "Predict", began)
        return answer

    def failed(self, name: str, error: BaseException) -> ServingError:
        refused = failure(error, "Predict")
        self._meter.failed(name, refused.code)
        return refused

    def metadata(self, data: bytes, _deadline: float | None) -> bytes:
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
        with self._plane.resolve(model_spec(request)) as handle:
            for key, proto in self._plane.metadata(handle).items():
                signatures.signature_def[key].CopyFrom(proto)
            answer.model_spec.name = request.model_spec.name
            answer.model_spec.version.value = handle.version
        answer.metadata["signature_def"].Pack(signatures)
        return bytes(answer.SerializeToString())

    def status(self, data: bytes, _deadline: float | None) -> bytes:
        spec = codec.parse("tensorflow.serving.GetModelStatusRequest", data).model_spec
        version = spec.version.value if spec.HasField("version") else None
        answer = messages.GetModelStatusResponse()
        for each in self._plane.status(spec.name, version):
            added = answer.model_version_status.add(version=each.version, state=each.state.value)
            added.status.error_code = int(each.code)
            added.status.error_message = each.message
        return bytes(answer.SerializeToString())


class _Prediction:
    """A Predict call that waits for its model, or whose answer is long. The handle is held until `answer`."""

    def __init__(  # noqa: PLR0917 - one caller
        self, services: Services, handle: Handle, key: str, steps: Steps, result: Result | Future[Result],
        deadline: float | None, began: float,
    ) -> None:  # fmt: skip
        self._services, self._handle, self._key, self._steps = services, handle, key, steps
        self._deadline, self._began = deadline, began
        self.future: Future[Result] = result if isinstance(result, Future) else done(result)

    def long(self) -> bool:
        return self.future.exception() is None and is_long(self.future.result())

    def answer(self) -> bytes:
        handle = self._handle
        try:
            return self._services.written(handle, self._key, self._steps, self._result(), self._began)
        except Exception as error:
            refused = self._services.failed(handle.name, error)
            raise refused from (None if refused is error else error)
        finally:
            handle.release()

    def _result(self) -> Result:
        return result_of(self.future, self._deadline)


def result_of(future: Future[T], deadline: float | None) -> T:
    """What a future that is done holds; a cancelled one is the client's deadline or its wish."""
    try:
        return future.result()
    except CancelledError as error:
        if deadline is not None and time.monotonic() >= deadline:
            raise ServingError(Code.DEADLINE_EXCEEDED, "Run() timed out") from error
        raise ServingError(Code.CANCELLED, "The client cancelled the call") from error


def done(result: Result) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def model_spec(request: Any) -> ModelSpec:
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
