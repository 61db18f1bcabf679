"""What HTTP/1.1 requests are: read, answered, refused, wherever their bytes are cut."""

from __future__ import annotations

import json
import re

import pytest
from h1wire import CHUNKED, GET, POST, Wire, answers
from hypothesis import given, settings
from hypothesis import strategies as st
from tfopt_server.http import Response
from tfopt_server.process.connections import HEAD_LIMIT


def test_a_request_as_the_app_sees_it_and_its_answer():
    ((status, headers, body),) = answers(Wire()(POST))
    assert json.loads(body) == ["POST", "/p", {"host": "h", "x-name": "Value", "content-length": "5"}, "hello"]
    assert (status, headers["content-type"], "connection" in headers) == (200, "application/json", False)
    ((_, _, body),) = answers(Wire()(GET))
    assert json.loads(body)[:2] == ["GET", "/a?b=%20c"]
    ((_, _, body),) = answers(Wire()(CHUNKED))
    assert json.loads(body)[2:] == [{"host": "h", "transfer-encoding": "chunked"}, "hello"]


@given(st.lists(st.sampled_from([GET, POST, CHUNKED]), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_it_does_not_matter_where_the_bytes_are_cut(requests, data):
    whole = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    cut = [(status, body) for status, _, body in answers(Wire()(*parts))]
    assert cut == [(status, body) for each in requests for status, _, body in answers(Wire()(each))]


@pytest.mark.parametrize(
    ("request_", "closes", "header"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", False, None),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", True, "close"),
        (b"GET / HTTP/1.0\r\n\r\n", True, "close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False, "keep-alive"),
    ],
)
def test_who_keeps_the_connection(request_, closes, header):
    wire = Wire()
    ((_, headers, _),) = answers(wire(request_))
    assert (wire.closed, headers.get("connection")) == (closes, header)


@pytest.mark.parametrize(
    "bad",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"GET / HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nName: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)
def test_what_cannot_be_read_in_one_way_only_is_refused_and_ends_the_connection(bad):
    wire = Wire()
    ((status, headers, body),) = answers(wire(bad).removesuffix(b"<EOF>"))
    assert (status, headers["connection"], wire.closed) == (400, "close", True)
    assert json.loads(body)["error"].startswith("Bad Request: ")
    assert wire(GET) == b""


def test_probes_of_http_1_0_need_no_host_and_an_empty_one_is_one():
    assert answers(Wire()(b"GET /health HTTP/1.0\r\n\r\n"))[0][0] == 200
    assert answers(Wire()(b"GET /health HTTP/1.1\r\nHost:\r\n\r\n"))[0][0] == 200


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_bring_it_down(noise):
    wire = Wire()
    wire(POST[:-2], noise)
    assert len(wire.connection._waiting) == 0


def test_heads_without_end():
    wire = Wire()
    sent = wire(b"GET / HTTP/1.1\r\nHost: h\r\n", *[b"x: " + b"y" * 1000 + b"\r\n"] * (HEAD_LIMIT // 1000 + 1))
    ((status, _, _),) = answers(sent.removesuffix(b"<EOF>"))
    assert (status, wire.closed) == (431, True)
    in_one_piece = Wire()(b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"y" * (HEAD_LIMIT + 1) + b"\r\n\r\n")
    assert [status for status, _, _ in answers(in_one_piece.removesuffix(b"<EOF>"))] == [431]
    trailers = Wire()(CHUNKED.removesuffix(b"\r\n"), *[b"x: " + b"y" * 1000 + b"\r\n"] * (HEAD_LIMIT // 1000 + 3))
    assert [status for status, _, _ in answers(trailers.removesuffix(b"<EOF>"))] == [431]


@pytest.mark.parametrize(
    "parts",
    [
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n",),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", b"6\r\nsix...\r\n", b"6\r\nsix...\r\n"),
    ],
)
def test_bodies_beyond_the_operators_limit(parts):
    wire = Wire(limit=10)
    ((status, headers, body),) = answers(wire(*parts).removesuffix(b"<EOF>"))
    assert (status, headers["connection"], wire.closed) == (413, "close", True)
    assert json.loads(body)["error"] == "The request body is larger than 10 bytes (--max_body_bytes)."
    assert answers(Wire(limit=10)(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789"))[0][0] == 200


def test_who_asks_before_sending_is_told_to_go_on_unless_it_is_too_much():
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    wire = Wire()
    assert wire(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answers(wire(b"hello"))[0][0] == 200
    assert answers(Wire(limit=4)(head).removesuffix(b"<EOF>"))[0][0] == 413
    assert Wire()(head.replace(b"HTTP/1.1", b"HTTP/1.0")) == b""


def test_a_head_request_has_the_length_and_no_body():
    sent = Wire()(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert re.search(rb"content-length: [1-9]", sent)
    assert sent.endswith(b"\r\n\r\n")


def test_an_answer_that_the_client_has_claims_no_length():
    def unchanged(_request):
        return Response(b"", 304, content_type=None, headers=((b"etag", b'"a"'),))

    wire = Wire(app=unchanged)
    sent = wire(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") + wire(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert sent.count(b"HTTP/1.1 304 ") == sent.count(b'etag: "a"\r\n') == 2
    assert b"content-length" not in sent
    assert sent.endswith(b"\r\n\r\n")


def test_an_upgrade_is_not_taken_and_the_request_answered():
    """Java's HttpClient asks for h2c with its first request."""
    asking = POST.replace(b"X-Name: Value", b"Connection: Upgrade\r\nUpgrade: h2c")
    many = answers(Wire()(asking * 3000))  # no depth of calls that bytes can choose
    assert [status for status, _, _ in many] == [200] * 3000
    leaving = Wire()
    leaving(asking.replace(b"Connection: Upgrade", b"Connection: close, upgrade"))
    assert leaving.closed
    found = answers(Wire()(asking + POST))
    assert [json.loads(body)[3] for _, _, body in found] == ["hello", "hello"]
    assert [
        body for _, _, body in answers(Wire()(GET.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost")))
    ]
