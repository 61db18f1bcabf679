"""One HTTP request as handlers see it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from tfopt_server.rest.status import Response


@dataclass(slots=True)
class Call:
    """`body` is unpacked; `began` is time.perf_counter() when it was complete.

    Handlers name what is counted: `model` as the client wrote it, `entrypoint` as TensorFlow Serving labels it
    ("predict", "" for GET), None for a page that is not counted.
    """

    headers: Iterable[tuple[bytes, bytes]]
    body: bytes
    began: float = field(default_factory=time.perf_counter)
    model: str = ""
    entrypoint: str | None = None

    def header(self, name: bytes) -> bytes:
        """The first header of this (lower-case) name, b"" without one."""
        return next((value for each, value in self.headers if each == name), b"")


# The answer, or what to await for it.
Handler = Callable[[Call], Response | Awaitable[Response]]
