"""GET /optimization: the plan of every version, and which are still loading, as JSON for programs, a log for
terminals, a page for browsers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from tfopt_server.dataplane import Dataplane, Optimized
from tfopt_server.http import JSON, Request, Response
from tfopt_server.rest.accept import negotiate
from tfopt_server.rest.etag import tagged

TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"
_VARY = ((b"vary", b"Accept"),)
_FORMS = ("application/json", "text/plain", "text/html")


class Optimization:
    def __init__(self, plane: Dataplane) -> None:
        self._plane = plane

    async def answer(self, request: Request) -> Response:
        """In a thread: a plan of many buckets takes tens of milliseconds to write out."""
        form = negotiate(request.header(b"accept"), _FORMS)
        write, kind = {"text/plain": (_log, TEXT), "text/html": (_page, HTML)}.get(form, (_json, JSON))
        body = await asyncio.to_thread(write, self._plane.optimized())
        answer = Response(body, content_type=kind, headers=_headers(kind))
        return tagged(answer, request.header(b"if-none-match"))


def _headers(kind: bytes) -> tuple[tuple[bytes, bytes], ...]:
    if kind != HTML:
        return _VARY
    from tfopt_optimizer.page.page import POLICY

    return (*_VARY, (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"))


def _json(versions: Sequence[Optimized]) -> bytes:
    models = [
        {"name": v.name, "version": v.number, "why": v.why, "plan": v.plan}
        | ({"conversion": v.converted} if v.converted else {})
        | ({"loading": True} if v.loading else {})
        for v in versions
    ]
    return orjson.dumps({"models": models}, option=orjson.OPT_INDENT_2)


def _log(versions: Sequence[Optimized]) -> bytes:
    from tfopt_optimizer.wording import plain

    lines = []
    for v in versions:
        lines.append(f"{v.name} version {v.number}: {v.why}")
        lines += [f"  {line}" for line in (v.plan.log if v.plan is not None else ())]
        lines += [f"  {line}" for line in _converted(v)]
    return "".join(f"{plain(line)}\n" for line in lines).encode()


def _converted(version: Optimized) -> list[str]:
    if version.converted is None:
        return []
    from tfopt_optimizer.tpu import report

    return [f"conversion: {line}" for line in report.lines(version.converted)]


def _page(versions: Sequence[Optimized]) -> bytes:
    from tfopt_optimizer.page import page

    found = [page.Version(v.name, v.number, v.why, v.plan, v.converted) for v in versions]
    return page.render(found).encode()
