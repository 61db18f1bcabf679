"""Unpacking a request body: gzip as TensorFlow Serving's net_http treats it."""

from __future__ import annotations

import zlib

GUNZIPPED_LIMIT = 100 * 1024 * 1024  # net_http's own
LONG_PACKED = 4096  # gzip unfolds a thousandfold at worst: 4 MB, 10 ms on the event loop


def gunzip(body: bytes) -> bytes:
    """The unpacked body; empty when it is not gzip, is cut short or is longer than GUNZIPPED_LIMIT.

    TensorFlow Serving reads such a body as empty too, and then says that the document is empty.
    """
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(body, GUNZIPPED_LIMIT + 1)
    except zlib.error:
        return b""
    return unpacked if unpacker.eof and len(unpacked) <= GUNZIPPED_LIMIT else b""
