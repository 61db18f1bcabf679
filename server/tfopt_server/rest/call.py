"""What answers a route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tfopt_server.http import Answer, Request

# The answer, or what to await for it. Raises ServingError for what the client did wrong.
Handler = Callable[[Request], Answer | Awaitable[Answer]]
