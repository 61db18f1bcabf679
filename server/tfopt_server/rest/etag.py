"""A page that a client has already is not sent again: ETag and If-None-Match (RFC 9110, sections 8.8.3 and 13.1.2)."""

from __future__ import annotations

import hashlib

from tfopt_server.http import Header, Response

# A client asks every time, and is told in a few bytes that nothing changed.
_ASK: Header = (b"cache-control", b"no-cache")


def tagged(answer: Response, known: bytes) -> Response:
    """The answer with its tag; 304 without a body where `known`, the request's If-None-Match, names it."""
    tag = b'"%b"' % hashlib.blake2b(answer.body, digest_size=12).hexdigest().encode()
    headers = (*answer.headers, (b"etag", tag), _ASK)
    if known.strip() == b"*" or tag in (_strong(part) for part in known.split(b",")):
        return Response(b"", 304, content_type=None, headers=headers)
    return answer._replace(headers=headers)


def _strong(tag: bytes) -> bytes:
    """If-None-Match compares weakly: a proxy that packs an answer weakens its tag."""
    return tag.strip().removeprefix(b"W/")
