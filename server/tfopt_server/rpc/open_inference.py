"""The Open Inference Protocol's gRPC service, version 2: inference.GRPCInferenceService.

Tensors come and go as raw bytes or in typed contents: an answer has the form of its request, but for outputs of FP16 or
BF16, which only raw bytes can carry, and requests without inputs, whose answers are raw.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tfopt_protos import messages

from tfopt_server import predict_message as codec
from tfopt_server.dataplane import Dataplane
from tfopt_server.errors import ServingError, invalid
from tfopt_server.faces import Meter, failure
from tfopt_server.metrics import Metrics
from tfopt_server.oip import datatypes, model
from tfopt_server.oip.repository import Repository
from tfopt_server.registry import Handle
from tfopt_server.rpc.methods import Conversation, Method, Pending
from tfopt_server.rpc.services import done, result_of
from tfopt_server.tasks import Result, is_long
from tfopt_server.threads import on_thread

Array = npt.NDArray[Any]

SERVICE = "inference.GRPCInferenceService"
_API = "ModelInfer"
LONG_REQUEST = 64 * 1024  # of a stream: read on a thread
# The typed field of each datatype; FP16 and BF16 have none.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class _Job(NamedTuple):
    """A request that was decoded. `outputs`: the names in the order of the answer."""

    handle: Handle
    key: str
    id: str
    outputs: tuple[str, ...]
    raw: bool
    deadline: float | None
    began: float


class OpenInference:
    def __init__(self, plane: Dataplane, metrics: Metrics, model_name: str, repository: Repository) -> None:
        self._plane, self._repository = plane, repository
        self._meter = Meter(metrics, "GRPC", model_name)

    def methods(self) -> Mapping[bytes, Method]:
        """By path."""
        unary: dict[str, Callable[[bytes, float | None], bytes | Pending]] = {
            "ServerLive": lambda _, __: _encoded("ServerLiveResponse", live=True),
            "ServerReady": lambda _, __: _encoded("ServerReadyResponse", ready=self._plane.ready()),
            "ServerMetadata": lambda _, __: _encoded(
                "ServerMetadataResponse", name="tfopt", version=model.server_version(), extensions=model.EXTENSIONS
            ),
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.infer,
            "RepositoryIndex": self.index,
            "RepositoryModelLoad": self.load,
            "RepositoryModelUnload": self.unload,
        }
        found = [Method(f"/{SERVICE}/{name}", work) for name, work in unary.items()]
        found.append(Method(f"/{SERVICE}/ModelStreamInfer", streaming=self.stream))
        return {method.path.encode(): method for method in found}

    def model_ready(self, data: bytes, _deadline: float | None) -> bytes:
        request = _parsed("ModelReadyRequest", data)
        spec = model.spec(request.name, request.version)
        return _encoded("ModelReadyResponse", ready=model.is_ready(self._plane, spec))

    def model_metadata(self, data: bytes, _deadline: float | None) -> bytes:
        request = _parsed("ModelMetadataRequest", data)
        found = model.metadata(self._plane, model.spec(request.name, request.version))
        return _encoded(
            "ModelMetadataResponse", name=found.name, versions=found.versions, platform=model.PLATFORM,
            inputs=[each._asdict() for each in found.inputs], outputs=[each._asdict() for each in found.outputs],
        )  # fmt: skip

    # --- The repository -----------------------------------------------------------------------------------------------

    def index(self, data: bytes, _deadline: float | None) -> bytes:
        found = model.index(self._plane, _parsed("RepositoryIndexRequest", data).ready)
        return _encoded("RepositoryIndexResponse", models=[each._asdict() for each in found])

    def load(self, data: bytes, deadline: float | None) -> Pending:
        request = _parsed("RepositoryModelLoadRequest", data)
        waiting = self._repository.load(request.model_name, _plain(request.parameters))
        return _Controlling(waiting, deadline, "RepositoryModelLoad")

    def unload(self, data: bytes, deadline: float | None) -> Pending:
        request = _parsed("RepositoryModelUnloadRequest", data)
        waiting = self._repository.unload(request.model_name, _plain(request.parameters))
        return _Controlling(waiting, deadline, "RepositoryModelUnload")

    # --- Inference ----------------------------------------------------------------------------------------------------

    async def stream(self, conversation: Conversation) -> AsyncIterator[bytes]:
        """One answer for each request, in their order; what one is refused for is said in its answer, and the stream
        goes on."""
        answer: Any = messages.message("inference.ModelStreamInferResponse")
        async for data in conversation.requests():
            try:
                said = answer()
                said.infer_response.MergeFromString(await self._streamed(data, conversation.deadline))
            except ServingError as error:
                said = answer(error_message=error.message)
                said.infer_response.id = _parsed("ModelInferRequest", data).id
            yield bytes(said.SerializeToString())

    async def _streamed(self, data: bytes, deadline: float | None) -> bytes:
        if len(data) < LONG_REQUEST:
            work = self.infer(data, deadline)
        else:
            work = await on_thread(partial(self.infer, data, deadline), _unwanted)
        if isinstance(work, bytes):
            return work
        try:
            await asyncio.wait([asyncio.wrap_future(work.future)])
        except asyncio.CancelledError:  # the client left
            _unwanted(work)
            raise
        return await asyncio.to_thread(work.answer) if work.long() else work.answer()

    def infer(self, data: bytes, deadline: float | None) -> bytes | Pending:
        began = time.perf_counter()
        request = _parsed("ModelInferRequest", data)
        try:
            return self._infer(request, deadline, began)
        except Exception as error:
            refused = self.failed(request.model_name, error)
            raise refused from (None if refused is error else error)

    def _infer(self, request: Any, deadline: float | None, began: float) -> bytes | Pending:
        plane = self._plane
        parameters = _plain(request.parameters)
        model.refuse_extensions(parameters, "request")
        handle = plane.resolve(model.spec(request.model_name, request.model_version))
        kept = False
        try:
            key, signature = model.signature(plane, handle, parameters)
            defaults = plane.metadata(handle)[key].defaults if signature.defaults else {}
            feeds = model.completed(_feeds(request, signature), signature, defaults)
            for each in request.outputs:
                model.refuse_extensions(_plain(each.parameters), f"output {each.name!r}")
            wanted = model.outputs([each.name for each in request.outputs], signature)
            typed = any(each.HasField("contents") for each in request.inputs)
            job = _Job(
                handle, key, request.id, wanted or tuple(o.name for o in signature.outputs), not typed, deadline, began
            )
            plane.steps(handle, key).decode.observe(time.perf_counter() - began)
            result = plane.start(handle, key, feeds, wanted, deadline, "GRPC", api=_API)
            if isinstance(result, Future) or is_long(result):
                kept = True
                return _Inference(self, job, result)
            return self.written(job, result)
        finally:
            if not kept:
                handle.release()

    def written(self, job: _Job, result: Result) -> bytes:
        """The serialized answer; the call is counted as done."""
        encoding = time.perf_counter()
        handle, outputs = job.handle, result.outputs
        answer = messages.message("inference.ModelInferResponse")(
            model_name=handle.name, model_version=str(handle.version), id=job.id
        )
        raw = job.raw or any(datatypes.name_of(outputs[name]) not in _CONTENTS for name in job.outputs)
        for name in job.outputs:
            array = outputs[name]
            datatype = datatypes.name_of(array)
            if datatype not in datatypes.DATATYPES:
                raise invalid(f"output {name!r} is of type {array.dtype}, which the protocol cannot carry")
            added = answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
            if raw:
                answer.raw_output_contents.append(datatypes.raw(array))
            else:
                getattr(added.contents, _CONTENTS[datatype]).extend(array.ravel().tolist())
        encoded = bytes(answer.SerializeToString())
        self._plane.steps(handle, job.key).encode.observe(time.perf_counter() - encoding)
        self._meter.done(handle.name, _API, job.began)
        return encoded

    def failed(self, name: str, error: BaseException) -> ServingError:
        refused = failure(error, _API)
        self._meter.failed(name, refused.code)
        return refused


class _Inference:
    """A call that waits for its model, or whose answer is long. The handle is held until `answer`."""

    def __init__(self, owner: OpenInference, job: _Job, result: Result | Future[Result]) -> None:
        self._owner, self._job = owner, job
        self.future: Future[Result] = result if isinstance(result, Future) else done(result)

    def long(self) -> bool:
        return not self.future.cancelled() and self.future.exception() is None and is_long(self.future.result())

    def answer(self) -> bytes:
        try:
            return self._owner.written(self._job, result_of(self.future, self._job.deadline))
        except Exception as error:
            refused = self._owner.failed(self._job.handle.name, error)
            raise refused from (None if refused is error else error)
        finally:
            self._job.handle.release()


class _Controlling:
    """A load or an unload under way, whose answer is empty."""

    def __init__(self, future: Future[None], deadline: float | None, name: str) -> None:
        self.future, self._deadline, self._name = future, deadline, name

    def long(self) -> bool:
        return False

    def answer(self) -> bytes:
        try:
            result_of(self.future, self._deadline)
        except Exception as error:
            refused = failure(error, self._name)
            raise refused from (None if refused is error else error)
        return b""


def _unwanted(work: bytes | Pending) -> None:
    """Nobody waits for this answer any more; what it holds is given back."""
    if not isinstance(work, bytes):
        work.future.add_done_callback(lambda _: _dropped(work))
        work.future.cancel()


def _dropped(work: Pending) -> None:
    with contextlib.suppress(ServingError):
        work.answer()


def _feeds(request: Any, signature: Any) -> dict[str, Array]:
    """The arrays by name, in the order that they were sent in."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid(f"raw_input_contents: expected {len(request.inputs)}, one for each input; received {len(raw)}")
    found: dict[str, Array] = {}
    for i, sent in enumerate(request.inputs):
        wanted = model.input_of(signature, sent.name)
        if sent.name in found:
            raise invalid(f"inputs: expected each name once; received {sent.name!r} again")
        datatypes.check(sent.name, sent.datatype, wanted.dtype)
        shape = datatypes.shape_of(sent.name, list(sent.shape))
        model.refuse_extensions(_plain(sent.parameters), f"input {sent.name!r}")
        if raw and sent.HasField("contents"):
            raise invalid(f"input {sent.name!r}: expected contents or raw_input_contents, received both")
        found[sent.name] = datatypes.array(raw[i], sent.datatype, shape, sent.name) if raw else _typed(sent, shape)
    return found


def _typed(sent: Any, shape: tuple[int, ...]) -> Array:
    field = _CONTENTS.get(sent.datatype)
    if field is None:
        raise invalid(f"input {sent.name!r}: {sent.datatype} needs raw_input_contents; no contents field carries it")
    values = getattr(sent.contents, field)
    count = int(np.prod(shape, dtype=object)) if shape else 1
    others = [
        name for name in sent.contents.DESCRIPTOR.fields_by_name if name != field and getattr(sent.contents, name)
    ]
    if others or len(values) != count:
        received = f"{len(values)} in {field}" + "".join(f", {len(getattr(sent.contents, o))} in {o}" for o in others)
        raise invalid(
            f"input {sent.name!r}: expected {count} values in {field} for shape {list(shape)}, received {received}"
        )
    if field == "bytes_contents":
        return datatypes.objects(list(values)).reshape(shape)
    dtype = datatypes.numpy_of(sent.datatype)
    found = np.array(values)
    if dtype.itemsize < found.dtype.itemsize and dtype.kind in "iu" and count:
        limits = np.iinfo(dtype)
        if found.min() < limits.min or found.max() > limits.max:
            raise invalid(
                f"input {sent.name!r}: expected integers from {limits.min} to {limits.max} for {sent.datatype}, "
                f"received {found.min() if found.min() < limits.min else found.max()}"
            )
    return found.astype(dtype).reshape(shape)


def _plain(parameters: Any) -> dict[str, Any]:
    """Parameters as Python values, None for one that holds nothing."""
    found = {}
    for name, each in parameters.items():
        which = each.WhichOneof("parameter_choice")
        found[name] = None if which is None else getattr(each, which)
    return found


def _parsed(name: str, data: bytes) -> Any:
    return codec.parse(f"inference.{name}", data)


def _encoded(name: str, /, **fields: Any) -> bytes:
    return bytes(messages.message(f"inference.{name}")(**fields).SerializeToString())
