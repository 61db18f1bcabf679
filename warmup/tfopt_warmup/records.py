"""Warmup records: a SavedModel's assets.extra/tf_serving_warmup_requests, a TFRecord file of PredictionLog messages.

    for record in read(path_in(model_dir)):
        for run in record.runs:
            servable.run(run.signature, run.feeds)

Rules, limits and error texts are TensorFlow Serving's (servables/tensorflow/saved_model_warmup*.cc): any error fails
the model's load, requests alone count (their responses are ignored), model name and version are not looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tfopt_protos import messages, tensors

from tfopt_warmup import tfrecord

FILE_NAME = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
DEFAULT_SIGNATURE = "serving_default"

PREDICT, CLASSIFY, REGRESS, MULTI_INFERENCE = "predict", "classify", "regress", "multi_inference"
NONE = "none"  # a record without a request: skipped, yet counted

_METHODS = frozenset({"tensorflow/serving/classify", "tensorflow/serving/regress"})

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]


class WarmupError(Exception):
    """A warmup file that fails its model's load. `code` is a canonical status name ("DATA_LOSS", ...)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of one signature. Strings in `feeds` are object arrays of bytes; `outputs` () means all of them."""

    signature: str
    feeds: Feeds
    outputs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Record:
    """One log: a run per request, or one per task of a multi-inference request. kind NONE has no runs."""

    kind: str
    runs: tuple[Run, ...]
    model_name: str = ""


def path_in(model_dir: Path) -> Path:
    """Where the warmup file of a SavedModel (its version folder) is, whether or not it exists."""
    return model_dir / FILE_NAME


def read(path: Path, limit: int = MAX_RECORDS) -> Iterator[Record]:
    """The records in order. As in TensorFlow Serving the one past `limit` is still given out before it is an error.

    WarmupError codes: NOT_FOUND, DATA_LOSS (no TFRecord file, damaged), INVALID_ARGUMENT (not a PredictionLog, too many
    records, bad tensors or inputs), UNIMPLEMENTED (streamed and session-run logs).
    """
    for count, data in enumerate(_raw(path), start=1):
        yield _record(_parse(data, path))
        if count > limit:
            raise WarmupError("INVALID_ARGUMENT", f"Number of warmup records exceeds the maximum ({limit}) at {path}")


def write(path: Path, logs: Iterable[Any]) -> None:
    """Writes PredictionLog messages (ours or TensorFlow Serving's own), making the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tfrecord.write(path, (log.SerializeToString() for log in logs))


def predict_log(model_name: str, signature: str, feeds: Mapping[str, Array]) -> Any:
    """A PredictionLog with one Predict request."""
    log = messages.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, array in feeds.items():
        # Numbers as tensor_content: shorter and faster to read; strings are plainer as string_val.
        tensors.fill(request.inputs[name], array, content=array.dtype.kind not in "OSU")
    return log


def serialized_examples(input_proto: Any) -> Array:
    """A tensorflow.serving.Input as an object array [n] of serialized tf.Examples, the context merged into each one.

    Concatenated messages merge, and the later value of a feature wins: the example's own over the context's.
    """
    if input_proto.WhichOneof("kind") == "example_list_with_context":
        with_context = input_proto.example_list_with_context
        prefix, examples = with_context.context.SerializeToString(), with_context.examples
    else:
        prefix, examples = b"", input_proto.example_list.examples
    if not examples:
        raise WarmupError("INVALID_ARGUMENT", "Input is empty.")
    array = np.empty(len(examples), object)
    array[:] = [prefix + example.SerializeToString() for example in examples]
    return array


def _raw(path: Path) -> Iterator[bytes]:
    try:
        yield from tfrecord.read(path)
    except FileNotFoundError as error:
        raise WarmupError("NOT_FOUND", f"{path}: there is no such file") from error
    except OSError as error:
        code = "PERMISSION_DENIED" if isinstance(error, PermissionError) else "UNKNOWN"
        raise WarmupError(code, f"{path}: {error.strerror}") from error
    except tfrecord.CorruptError as error:
        hint = "Please verify your warmup data is in TFRecord format."
        raise WarmupError("DATA_LOSS", f"{path}: {error}. {hint}") from error


def _parse(data: bytes, path: Path) -> Any:
    try:
        return messages.PredictionLog.FromString(data)
    except DecodeError as error:
        shown = data[:100].decode("utf-8", "backslashreplace")
        raise WarmupError("INVALID_ARGUMENT", f"Failed to parse warmup record: {shown} from {path}") from error


def _record(log: Any) -> Record:
    kind = log.WhichOneof("log_type")
    if kind is None:
        return Record(NONE, ())
    if kind == "predict_log":
        return _predict(log.predict_log.request)
    if kind == "classify_log":
        return _examples(CLASSIFY, log.classify_log.request)
    if kind == "regress_log":
        return _examples(REGRESS, log.regress_log.request)
    if kind == "multi_inference_log":
        return _multi_inference(log.multi_inference_log.request)
    number = log.DESCRIPTOR.fields_by_name[kind].number
    raise WarmupError("UNIMPLEMENTED", f"Unsupported log_type for warmup: {number}")


def _predict(request: Any) -> Record:
    feeds = {name: _array(name, proto) for name, proto in sorted(request.inputs.items())}
    run = Run(request.model_spec.signature_name or DEFAULT_SIGNATURE, feeds, tuple(request.output_filter))
    return Record(PREDICT, (run,), request.model_spec.name)


def _array(name: str, proto: Any) -> Array:
    try:
        return tensors.to_numpy(proto)
    except tensors.TensorError as error:
        raise WarmupError("INVALID_ARGUMENT", f"tensor parsing error: {name}: {error}") from error


def _examples(kind: str, request: Any) -> Record:
    feeds = {"inputs": serialized_examples(request.input)}
    run = Run(request.model_spec.signature_name or DEFAULT_SIGNATURE, feeds)
    return Record(kind, (run,), request.model_spec.name)


def _multi_inference(request: Any) -> Record:
    """With the checks that TensorFlow Serving makes before it looks at the model (multi_inference.cc)."""
    signatures: list[str] = []
    first = request.tasks[0].model_spec.name if request.tasks else ""
    for task in request.tasks:
        if not task.model_spec.name:
            raise WarmupError("INVALID_ARGUMENT", "Found ModelSpec with an empty model name.")
        if task.model_spec.name != first:
            message = "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            raise WarmupError("INVALID_ARGUMENT", message)
        signature = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if signature in signatures:
            raise WarmupError("INVALID_ARGUMENT", f"Duplicate evaluation of signature: {signature}")
        if task.method_name not in _METHODS:
            raise WarmupError("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
        signatures.append(signature)
    feeds = {"inputs": serialized_examples(request.input)}
    return Record(MULTI_INFERENCE, tuple(Run(signature, feeds) for signature in signatures), first)
