"""The heads of HTTP/1.1 answers, but for their length."""

from __future__ import annotations

import email.utils
import functools
import http
import time

from tfopt_server.http import Header


def head(status: int, content_type: bytes | None, headers: tuple[Header, ...], closes: bool, modern: bool) -> bytes:
    """Status line and headers but for the length and the date. What a client can vary is not kept."""
    fixed = _fixed(status, content_type, closes, modern)
    return fixed + b"".join(b"%b: %b\r\n" % header for header in headers) if headers else fixed


@functools.lru_cache(maxsize=512)
def _fixed(status: int, content_type: bytes | None, closes: bool, modern: bool) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b"Unknown"
    lines = [b"HTTP/1.1 %d %b" % (status, phrase)]
    if content_type is not None:
        lines.append(b"content-type: " + content_type)
    if closes:
        lines.append(b"connection: close")
    elif not modern:
        lines.append(b"connection: keep-alive")
    return b"\r\n".join(lines) + b"\r\n"


_dated: tuple[float, bytes] = (0.0, b"")


def date() -> bytes:
    """The Date header (RFC 9110, 6.6.1), made once a second."""
    global _dated
    now = time.time()
    if now >= _dated[0]:
        whole = float(int(now))
        _dated = whole + 1.0, b"date: " + email.utils.formatdate(whole, usegmt=True).encode() + b"\r\n"
    return _dated[1]
