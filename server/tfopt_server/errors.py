"""What can go wrong for a client, in the canonical codes that every face translates.

Rules: the core raises ServingError with one of these codes and a text a client may read. Faces translate the code
(REST: TensorFlow Serving's ToHTTPStatusCode table; gRPC: the same numbers) and never show anything else. An exception
that is not a ServingError is INTERNAL: logged in full for the operator, named only by an id for the client.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """google.rpc.Code numbers, which are also the gRPC status numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# How soon who heard UNAVAILABLE may ask again, where nothing better is known: a server that ends or starts, a peer's.
RETRY_AFTER_S = 1.0


class ServingError(Exception):
    """A failure with a canonical code and a text meant for the client. `retry_after_s`: the same request may be sent
    again, not before so long; None: another attempt would do no better. UNAVAILABLE always has one."""

    def __init__(self, code: Code, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = RETRY_AFTER_S if code is Code.UNAVAILABLE and retry_after_s is None else retry_after_s


def invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    return ServingError(Code.NOT_FOUND, message)


def unavailable(message: str, retry_after_s: float = RETRY_AFTER_S) -> ServingError:
    return ServingError(Code.UNAVAILABLE, message, retry_after_s)
