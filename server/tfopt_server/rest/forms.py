"""In which form a predict request comes and its answer goes: JSON, protobuf, .npy, or events. Pure.

The body's Content-Type and the client's Accept decide. Without a preference the answer has the body's form; JSON is
what everything unknown means, because TensorFlow Serving looks at neither header.
"""

from __future__ import annotations

import enum
import functools
from typing import NamedTuple

from tfopt_server.rest.accept import negotiate


class Form(enum.Enum):
    """The value is the media type that answers carry."""

    JSON = "application/json"
    PROTOBUF = "application/x-protobuf"
    NPY = "application/octet-stream"
    EVENTS = "text/event-stream"


_BODIES = {
    "application/x-protobuf": Form.PROTOBUF,
    "application/protobuf": Form.PROTOBUF,
    "application/octet-stream": Form.NPY,
    "application/x-npy": Form.NPY,
}
# In the order in which they are preferred where a client would take several; the body's own form comes before them.
_ANSWERS = {
    "application/json": Form.JSON,
    "application/x-protobuf": Form.PROTOBUF,
    "application/protobuf": Form.PROTOBUF,
    "application/octet-stream": Form.NPY,
    "application/x-npy": Form.NPY,
    "text/event-stream": Form.EVENTS,
}


class Forms(NamedTuple):
    """`answer` is what the client asked for, or the body's form."""

    body: Form
    answer: Form


@functools.lru_cache(maxsize=256)
def forms_of(content_type: bytes, accept: bytes) -> Forms | None:
    """None for JSON both ways, which is what nearly all requests are."""
    kind = content_type.decode("latin-1").partition(";")[0].strip().lower()
    body = _BODIES.get(kind, Form.JSON)
    answer = _ANSWERS[negotiate(accept, (body.value, *_ANSWERS))] if accept else body
    return None if body is answer is Form.JSON else Forms(body, answer)
