"""Which form of a page a client gets."""

from __future__ import annotations

import pytest
from tfopt_server.rest.accept import negotiate

OFFERED = ("application/json", "text/plain", "text/html")
BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", "application/json"),
        (b"*/*", "application/json"),
        (BROWSER, "text/html"),
        (b"application/json, text/plain, */*", "application/json"),  # axios
        (b"text/plain", "text/plain"),
        (b"text/plain, */*;q=0.1", "text/plain"),
        (b"TEXT/HTML", "text/html"),
        (b"text/*", "text/plain"),
        (b"text/*, text/plain;q=0.1", "text/html"),
        (b"text/html;q=0.2, text/plain;q=0.3", "text/plain"),
        (b"text/html;level=1;q=0.9", "text/html"),
        (b"text/html;q=0, */*", "application/json"),
        (b"application/json;q=0, */*;q=0.5", "text/plain"),
        (b"image/png", "application/json"),
        (b"text/html;q=x", "application/json"),
        (b";;,,/,*", "application/json"),
        (b"\xff\xfe", "application/json"),
    ],
)
def test_the_form_that_a_client_prefers(accept: bytes, expected: str) -> None:
    assert negotiate(accept, OFFERED) == expected
