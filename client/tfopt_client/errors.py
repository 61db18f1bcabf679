"""Why a call has no answer, in the canonical codes of google.rpc.Code, whichever protocol it went by."""

from __future__ import annotations

import http.client
import ssl

CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
# TensorFlow Serving's ToHTTPStatusCode the other way round; several codes share 400, 409 and 500.
_OF_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED",
    413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 501: "UNIMPLEMENTED",
    502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


def of_status(status: int) -> str:
    """The code of an HTTP status; UNKNOWN for one that no inference server sends."""
    return _OF_STATUS.get(status, "UNKNOWN")


def untrusted(error: OSError | http.client.HTTPException) -> bool:
    """Whether one end does not take the other's certificate, or its TLS at all: that does not mend itself. A connection
    that merely ends in the middle of a handshake is a server that ends."""
    return isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))


class PredictError(Exception):
    """A call that failed for good. `code`: one of CODES; `attempts`: how often it was sent."""

    def __init__(self, code: str, message: str, attempts: int = 1) -> None:
        super().__init__(f"{code}: {message}" + (f" (after {attempts} attempts)" if attempts > 1 else ""))
        self.code, self.message, self.attempts = code, message, attempts


class Failure(Exception):
    """One attempt that failed. `unseen`: the server says, or the connection shows, that nobody ran the request.
    `temporary`: another attempt may do better. `retry_after_s`: what the server asked for."""

    def __init__(
        self, code: str, message: str, *, unseen: bool = False, temporary: bool = False,
        retry_after_s: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.code, self.message = code, message
        self.unseen, self.temporary = unseen, temporary or unseen
        self.retry_after_s = retry_after_s
