"""Canonical codes -> HTTP answers. The one place that knows both."""

from __future__ import annotations

import math

import orjson

from tfopt_server.errors import Code, ServingError
from tfopt_server.http import Header, Response

# ToHTTPStatusCode in TensorFlow Serving's model_servers/http_server.cc.
HTTP_STATUS: dict[Code, int] = {
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INTERNAL: 500,
    Code.DATA_LOSS: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


def refusal(error: ServingError) -> Response:
    headers = () if error.retry_after_s is None else (retry_after(error.retry_after_s),)
    return Response(error_body(error.message), HTTP_STATUS[error.code], headers=headers)


def retry_after(seconds: float) -> Header:
    """RFC 9110, 10.2.3: whole seconds."""
    return b"retry-after", b"%d" % max(1, math.ceil(seconds))


def error_body(message: str) -> bytes:
    """`{"error": message}` laid out as RapidJSON's PrettyWriter does."""
    text = message.encode("utf-8", "replace").decode()
    return b'{\n    "error": ' + orjson.dumps(text) + b"\n}"
