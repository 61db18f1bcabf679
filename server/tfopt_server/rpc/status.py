"""Canonical codes -> gRPC statuses. The one place that knows both."""

from __future__ import annotations

import grpc

from tfopt_server.errors import Code

TEXT_LIMIT = 1024  # bytes; ToGRPCStatus in TensorFlow Serving's grpc_status_util.cc
TRUNCATED = "...TRUNCATED"

_STATUS = {code: next(s for s in grpc.StatusCode if s.value[0] == code) for code in Code}


def grpc_code(code: Code) -> grpc.StatusCode:
    return _STATUS[code]


def details(message: str) -> str:
    """The text of a status: long ones are cut, because they travel in a header."""
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= TEXT_LIMIT:
        return encoded.decode()
    return encoded[:TEXT_LIMIT].decode("utf-8", "ignore") + TRUNCATED
