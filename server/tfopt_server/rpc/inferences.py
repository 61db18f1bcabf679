"""PredictionService's Classify, Regress and MultiInference: their messages around inference.py.

A MultiInference runs one signature per task, together where the executor lets them; TensorFlow Serving feeds all of
them in one run of its session. Texts: multi_inference.cc.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from tfopt_protos import messages
from tfopt_warmup.records import WarmupError, serialized_examples

from tfopt_server import inference
from tfopt_server import predict_message as codec
from tfopt_server.dataplane import Dataplane
from tfopt_server.errors import Code, ServingError, invalid
from tfopt_server.faces import Meter, failure
from tfopt_server.inference import APIS, METHOD_NAMES, Answer, Array, Ask, Classified, Method
from tfopt_server.metrics import Metrics
from tfopt_server.registry import Handle
from tfopt_server.rpc.methods import Method as Served
from tfopt_server.rpc.methods import Pending
from tfopt_server.rpc.services import PREDICTION, model_spec
from tfopt_server.tasks import Result, is_long

MULTI = "MultiInference"
# Checks a call against the model; what it asks for, and of which examples.
Prepare = Callable[[Handle], tuple[list[Ask], Array]]
# Writes the answers of a call's asks, in order.
Write = Callable[[Handle, Sequence[tuple[Ask, Answer]]], Any]


class Inferences:
    """`by_name`: a signature's method_name must be the method's (--enable_signature_method_name_check)."""

    def __init__(self, plane: Dataplane, metrics: Metrics, model: str, by_name: bool) -> None:
        self._plane, self._metrics, self._by_name = plane, metrics, by_name
        self.meter = Meter(metrics, "GRPC", model)

    def methods(self) -> Mapping[bytes, Served]:
        """By path."""
        found = {"Classify": self.classify, "Regress": self.regress, MULTI: self.multi}
        paths = {f"/{PREDICTION}/{name}": unary for name, unary in found.items()}
        return {path.encode(): Served(path, unary) for path, unary in paths.items()}

    def classify(self, data: bytes, deadline: float | None) -> bytes | Pending:
        return self._single(inference.CLASSIFY, "tensorflow.serving.ClassificationRequest", data, deadline)

    def regress(self, data: bytes, deadline: float | None) -> bytes | Pending:
        return self._single(inference.REGRESS, "tensorflow.serving.RegressionRequest", data, deadline)

    def _single(self, method: Method, message: str, data: bytes, deadline: float | None) -> bytes | Pending:
        began = time.perf_counter()
        request = codec.parse(message, data)
        call = _Call(self, request.model_spec.name, APIS[method], deadline, began, _single_answer)

        def prepare(handle: Handle) -> tuple[list[Ask], Array]:
            ask = Ask.of(request.model_spec.signature_name, method)
            inference.check(ask, self._plane, handle, by_name=self._by_name)
            return [ask], _examples(request.input)

        return self._begin(call, request, prepare)

    def multi(self, data: bytes, deadline: float | None) -> bytes | Pending:
        began = time.perf_counter()
        request = codec.parse("tensorflow.serving.MultiInferenceRequest", data)
        first = request.tasks[0] if request.tasks else messages.message("tensorflow.serving.InferenceTask")()
        if not first.HasField("model_spec"):
            raise invalid("ModelSpec has no name specified.")
        name = first.model_spec.name
        call = _Call(self, name, MULTI, deadline, began, _multi_answer)

        def prepare(handle: Handle) -> tuple[list[Ask], Array]:
            asks: list[Ask] = []
            for task in request.tasks:
                asks.append(self._task(task, name, asks, handle))
            examples = _examples(request.input)
            self._metrics.example_counts.labels(name).observe(len(examples))
            self._metrics.example_count_total.labels(name).inc(len(examples))
            return asks, examples

        return self._begin(call, first, prepare)

    def _task(self, task: Any, name: str, before: Sequence[Ask], handle: Handle) -> Ask:
        """What a task asks for. INVALID_ARGUMENT, or UNIMPLEMENTED for a method that is neither of the two."""
        spec = task.model_spec
        if not spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if spec.name != name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        method = METHOD_NAMES.get(task.method_name, inference.CLASSIFY)
        ask = Ask.of(spec.signature_name, method)
        if ask.key in {other.key for other in before}:
            raise invalid(f"Duplicate evaluation of signature: {ask.key}")
        unknown = "Requested signature not found in model graph: "
        if self._plane.signature(handle, ask.key) is None:
            raise invalid(unknown + ask.key)
        if task.method_name not in METHOD_NAMES:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        inference.check(ask, self._plane, handle, by_name=self._by_name, unknown=unknown)
        return ask

    def _begin(self, call: _Call, request: Any, prepare: Prepare) -> bytes | Pending:
        """Starts every ask of a call on the version that `request.model_spec` names."""
        try:
            call.handle = self._plane.resolve(model_spec(request))
            try:
                call.asks, examples = prepare(call.handle)
                call.count = len(examples)
                plane = self._plane
                for ask in call.asks:
                    plane.steps(call.handle, ask.key).decode.observe(time.perf_counter() - call.began)
                    call.add(inference.start(plane, call.handle, ask, examples, call.deadline, "GRPC", api=call.api))
            except BaseException:
                call.give_up()
                raise
        except Exception as error:
            refused = self.failed(call, error)
            raise refused from (None if refused is error else error)
        call.all_started()
        return call.answer() if call.future.done() and not call.long() else call

    def failed(self, call: _Call, error: BaseException) -> ServingError:
        refused = failure(error, call.api)
        if call.api != MULTI:  # TensorFlow Serving's request_count leaves it out
            self.meter.failed(call.model, refused.code)
        return refused

    def succeeded(self, call: _Call) -> None:
        if call.api != MULTI:
            self.meter.done(call.model, call.api, call.began)


class _Call:
    """A call from its first start to its answer; a Pending where that takes a wait. `future` settles with the last run;
    cancelling it cancels those that wait."""

    def __init__(  # noqa: PLR0917 - one caller
        self, owner: Inferences, model: str, api: str, deadline: float | None, began: float, write: Write
    ) -> None:
        self._owner, self.model, self.api, self.deadline, self.began, self._write = (
            owner, model, api, deadline, began, write,
        )  # fmt: skip
        self.handle: Handle | None = None
        self.asks: list[Ask] = []
        self.count = 0
        self.future: Future[None] = Future()
        self._runs: list[Result | Future[Result]] = []
        self._left = 1  # one more than runs that are not done: nothing settles before all have started
        self._lock = threading.Lock()

    def add(self, run: Result | Future[Result]) -> None:
        self._runs.append(run)
        if isinstance(run, Future):
            with self._lock:
                self._left += 1
            run.add_done_callback(lambda _: self._one_less())

    def all_started(self) -> None:
        self.future.add_done_callback(self._cancel)
        self._one_less()

    def _one_less(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last and self.future.set_running_or_notify_cancel():
            self.future.set_result(None)

    def _cancel(self, future: Future[None]) -> None:
        if future.cancelled():
            self._cancel_runs()

    def _cancel_runs(self) -> None:
        for run in self._runs:
            if isinstance(run, Future):
                run.cancel()

    def give_up(self) -> None:
        """A start failed: what has started already is not waited for."""
        self._cancel_runs()
        if self.handle is not None:
            self.handle.release()

    def long(self) -> bool:
        done = [r for r in self._runs if not isinstance(r, Future) or (r.done() and not r.cancelled())]
        return any(is_long(r) for r in done if not isinstance(r, Future)) or any(
            is_long(r.result()) for r in done if isinstance(r, Future) and r.exception() is None
        )

    def answer(self) -> bytes:
        assert self.handle is not None
        try:
            found = [
                (ask, inference.read(ask, self._result(run).outputs, self.count))
                for ask, run in zip(self.asks, self._runs, strict=True)
            ]
            encoded = bytes(self._write(self.handle, found).SerializeToString())
        except Exception as error:
            refused = self._owner.failed(self, error)
            raise refused from (None if refused is error else error)
        finally:
            self.handle.release()
        self._owner.succeeded(self)
        return encoded

    def _result(self, run: Result | Future[Result]) -> Result:
        if not isinstance(run, Future):
            return run
        if not run.done() or run.cancelled():
            if self.deadline is not None and time.monotonic() >= self.deadline:
                raise ServingError(Code.DEADLINE_EXCEEDED, "Run() timed out")
            raise ServingError(Code.CANCELLED, "The client cancelled the call")
        return run.result()


def _examples(sent: Any) -> Array:
    try:
        return serialized_examples(sent)
    except WarmupError as error:
        raise ServingError(Code[error.code], error.message) from error


def _single_answer(handle: Handle, found: Sequence[tuple[Ask, Answer]]) -> Any:
    ((ask, answer),) = found
    kind = "ClassificationResponse" if isinstance(answer, Classified) else "RegressionResponse"
    response = messages.message(f"tensorflow.serving.{kind}")()
    _fill(response.result, answer)
    _name(response.model_spec, handle, ask)
    return response


def _multi_answer(handle: Handle, found: Sequence[tuple[Ask, Answer]]) -> Any:
    response = messages.message("tensorflow.serving.MultiInferenceResponse")()
    for ask, answer in found:
        result = response.results.add()
        _name(result.model_spec, handle, ask)
        _fill(result.classification_result if isinstance(answer, Classified) else result.regression_result, answer)
    return response


def _name(spec: Any, handle: Handle, ask: Ask) -> None:
    spec.name, spec.signature_name = handle.name, ask.key
    spec.version.value = handle.version


def _fill(result: Any, answer: Answer) -> None:
    result.SetInParent()
    if not isinstance(answer, Classified):
        for value in answer.values.tolist():
            result.regressions.add(value=value)
        return
    rows, width = answer.shape
    for i in range(rows):
        classes = result.classifications.add().classes
        for c in range(width):
            each = classes.add()
            if answer.labels is not None:
                # A label that is not UTF-8 would be no message that clients can read.
                each.label = answer.labels[i, c].decode("utf-8", "replace")
            if answer.scores is not None:
                each.score = answer.scores[i, c]
