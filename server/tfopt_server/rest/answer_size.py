"""Answers that are larger than whoever stands in front lets through: refused with a text, or pointed out once.

A platform's proxy answers such a request with an error of its own, which says nothing about the cause. Vertex AI does
not tell a container which kind of endpoint it serves: shared public ones pass 1.5 MB, all others 10 MB, each way.
"""

from __future__ import annotations

import logging

from tfopt_server.errors import Code, ServingError

log = logging.getLogger(__name__)

SHARED_ENDPOINT = 1_572_864  # 1.5 MB, of request and answer each
OTHER_ENDPOINTS = 10 * 1024 * 1024


class AnswerSize:
    """`limit`: --max_answer_bytes, 0 without one."""

    def __init__(self, limit: int, on_vertex: bool) -> None:
        self._limit = limit
        # What is to be pointed out, the larger first.
        self._notices = [OTHER_ENDPOINTS, SHARED_ENDPOINT] if on_vertex and not limit else []
        self.looked_at = bool(limit or self._notices)

    def look(self, body: bytes) -> ServingError | None:
        """Why an answer with this body must not go out, if it must not."""
        size = len(body)
        if self._limit and size > self._limit:
            return ServingError(
                Code.OUT_OF_RANGE,
                f"The answer has {size} bytes, and --max_answer_bytes allows {self._limit}: ask for fewer rows or "
                "outputs in one request, or for a stream (Accept: text/event-stream)",
            )
        for notice in self._notices:
            if size > notice:
                self._say(size, notice)
                break
        return None

    def _say(self, size: int, notice: int) -> None:
        self._notices = [each for each in self._notices if each > notice]
        self.looked_at = bool(self._notices)
        kinds = "shared public" if notice == SHARED_ENDPOINT else "Vertex AI's"
        log.warning(
            "an answer has %d bytes; %s endpoints pass %d: clients then see an error of the platform "
            "(--max_answer_bytes makes it one with a text)", size, kinds, notice,
        )  # fmt: skip
