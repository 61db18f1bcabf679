"""Predict requests that are not JSON both ways: protobuf, .npy, and answers as server-sent events.

    application/x-protobuf      a PredictRequest, as on gRPC; the path names the model, its model_spec need not
    application/octet-stream    an .npy file: the one input of the default signature
    Accept: text/event-stream   rows as they are ready (events.py)

A body that begins as a JSON object is JSON whatever its Content-Type says: TensorFlow Serving does not look at it, and
clients that send JSON often call it something else. No PredictRequest and no .npy file begins with a brace.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tfopt_server import predict_message
from tfopt_server.dataplane import DEFAULT_SIGNATURE, Dataplane, ModelSpec
from tfopt_server.errors import invalid
from tfopt_server.http import Answer, Request, Response
from tfopt_server.registry import Handle
from tfopt_server.rest import codec, npy
from tfopt_server.rest.codec import Layout
from tfopt_server.rest.events import Events
from tfopt_server.rest.forms import Form, Forms
from tfopt_server.rest.pending import LONG_BODY, Pending, end, through
from tfopt_server.rows import Feeds
from tfopt_server.tasks import Result, is_long
from tfopt_server.threads import on_thread

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo


class Job(NamedTuple):
    """A request that was decoded for the version that `handle` holds. `outputs` None: all of them."""

    handle: Handle
    key: str
    feeds: Feeds
    outputs: Sequence[str] | None
    layout: Layout
    form: Form


class _Asked(Protocol):
    """What a body asks for, before the model is known."""

    key: str

    def spec(self, path: ModelSpec) -> ModelSpec: ...

    def read(self, signature: SignatureInfo, defaults: Any) -> tuple[Feeds, Sequence[str] | None, Layout]: ...


class _Json:
    def __init__(self, body: bytes, in_parameters: bool) -> None:
        self._asked = codec.Request.read(body, in_parameters)
        self.key = self._asked.signature

    def spec(self, path: ModelSpec) -> ModelSpec:
        return path

    def read(self, signature: SignatureInfo, defaults: Any) -> tuple[Feeds, Sequence[str] | None, Layout]:
        feeds, layout = codec.feeds(self._asked, signature)
        return feeds, None, layout


class _Protobuf:
    def __init__(self, body: bytes) -> None:
        self._message = predict_message.parse("tensorflow.serving.PredictRequest", body)
        self.key = self._message.model_spec.signature_name or DEFAULT_SIGNATURE

    def spec(self, path: ModelSpec) -> ModelSpec:
        """The path's model; a version or label of the message where the path has none."""
        sent = self._message.model_spec
        if sent.name and sent.name != path.name:
            raise invalid(f"model_spec.name: expected {path.name!r}, as the path says, or none; received {sent.name!r}")
        which = sent.WhichOneof("version_choice")
        if which is None or path.version is not None or path.label is not None:
            return path
        if which == "version":
            return ModelSpec(path.name, version=sent.version.value)
        return ModelSpec(path.name, label=sent.version_label)

    def read(self, signature: SignatureInfo, defaults: Any) -> tuple[Feeds, Sequence[str] | None, Layout]:
        names = self._message.output_filter
        outputs = predict_message.wanted(names, signature) if names else None
        return predict_message.feeds(self._message.inputs, signature, defaults), outputs, Layout.COLUMNS


class _Npy:
    key = DEFAULT_SIGNATURE

    def __init__(self, body: bytes) -> None:
        self._body = body

    def spec(self, path: ModelSpec) -> ModelSpec:
        return path

    def read(self, signature: SignatureInfo, defaults: Any) -> tuple[Feeds, Sequence[str] | None, Layout]:
        inputs = [i for i in signature.inputs if i.name not in signature.defaults] or signature.inputs
        if len(inputs) != 1:
            names = ", ".join(i.name for i in inputs)
            raise invalid(f"An .npy file holds one input, and signature {signature.key} has {len(inputs)}: {names}")
        feeds = {inputs[0].name: npy.array(self._body, inputs[0])}
        left = [i for i in signature.inputs if i.name not in feeds]
        feeds |= {i.name: predict_message.array(i.name, defaults(i.name), i.dtype, at) for at, i in enumerate(left)}
        return feeds, None, Layout.COLUMNS


class Exchange:
    """`content`: protobuf answers carry tensors as raw bytes instead of typed fields."""

    def __init__(self, plane: Dataplane, timeout_s: float, content: bool) -> None:
        self._plane, self._timeout_s, self._content = plane, timeout_s, content

    def answer(
        self, spec: ModelSpec, in_parameters: bool, request: Request, forms: Forms
    ) -> Response | Awaitable[Answer]:
        if forms.answer is Form.EVENTS:
            return self._events(spec, in_parameters, request, forms)
        # Numbers in .npy files are not looked at, however many there are, unless a layer does.
        npy_file = not self._plane.reads_inputs and _body_form(forms, request.body) is Form.NPY
        unread = npy_file and npy.at_once(request.body)
        if len(request.body) >= LONG_BODY and not unread:
            return through(partial(self._begin, spec, in_parameters, request, forms))
        begun = self._begin(spec, in_parameters, request, forms)
        return begun if isinstance(begun, Response) else end(begun)

    async def _events(self, spec: ModelSpec, in_parameters: bool, request: Request, forms: Forms) -> Answer:
        job = await on_thread(
            partial(self._decode, spec, in_parameters, request, forms), lambda unwanted: unwanted.handle.release()
        )
        events = Events(self._plane, job.handle, job.key, job.feeds, job.outputs, job.layout, self._timeout_s)
        return await events.begin()

    def _begin(self, spec: ModelSpec, in_parameters: bool, request: Request, forms: Forms) -> Response | Pending:
        deadline = time.monotonic() + self._timeout_s
        job = self._decode(spec, in_parameters, request, forms)
        keep = False
        try:
            result = self._plane.start(job.handle, job.key, job.feeds, job.outputs, deadline, "REST")
            if keep := isinstance(result, Future) or is_long(result):
                return Pending(job.handle, result, deadline, partial(self._written, job))
            return self._written(job, result)
        finally:
            if not keep:
                job.handle.release()

    def _decode(self, spec: ModelSpec, in_parameters: bool, request: Request, forms: Forms) -> Job:
        """The handle of what it returns is held. Checks stand in the order of JSON requests."""
        plane = self._plane
        asked = _asked(_body_form(forms, request.body), request.body, in_parameters)
        handle = plane.resolve(asked.spec(spec))
        keep = False
        try:
            signature = plane.signature(handle, asked.key)
            if signature is None:
                raise invalid(f'Serving signature name: "{asked.key}" not found in signature def')
            feeds, outputs, layout = asked.read(signature, lambda n: plane.metadata(handle)[signature.key].defaults[n])
            _fits(forms.answer, outputs or [o.name for o in signature.outputs])
            plane.steps(handle, asked.key).decode.observe(time.perf_counter() - request.began)
            keep = True
            return Job(handle, asked.key, feeds, outputs, layout, forms.answer)
        finally:
            if not keep:
                handle.release()

    def _written(self, job: Job, result: Result) -> Response:
        began = time.perf_counter()
        outputs = result.outputs
        if job.form is Form.PROTOBUF:
            body = predict_message.answer(job.handle.name, job.handle.version, job.key, outputs, self._content)
        elif job.form is Form.NPY:
            body = npy.written(next(iter(outputs.values())))
        else:
            body = codec.answer(outputs, job.layout)
        self._plane.steps(job.handle, job.key).encode.observe(time.perf_counter() - began)
        return Response(body, content_type=job.form.value.encode())


def _asked(form: Form, body: bytes, in_parameters: bool) -> _Asked:
    if form is Form.PROTOBUF:
        return _Protobuf(body)
    return _Npy(body) if form is Form.NPY else _Json(body, in_parameters)


def _body_form(forms: Forms, body: bytes) -> Form:
    """JSON for what begins as an object, behind white space too, with which a PredictRequest may begin (a newline)."""
    start = body[:64].lstrip() if forms.body is Form.NPY else body
    return Form.JSON if start.startswith(b"{") else forms.body


def _fits(form: Form, outputs: Sequence[str]) -> None:
    if form is Form.NPY and len(outputs) != 1:
        raise invalid(
            f"An .npy file holds one output, and there are {len(outputs)}: {', '.join(outputs)}; ask for "
            "application/x-protobuf or application/json in Accept"
        )
