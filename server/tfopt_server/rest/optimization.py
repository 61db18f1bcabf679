"""GET /optimization: the plan of every version, as JSON for programs, a log for terminals, a page for browsers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import orjson

from tfopt_server.dataplane import Dataplane
from tfopt_server.http import JSON, Request, Response
from tfopt_server.rest.accept import negotiate

if TYPE_CHECKING:
    from tfopt_optimizer.plan import Plan
    from tfopt_optimizer.tpu.report import Report

TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"
_VARY = ((b"vary", b"Accept"),)
_FORMS = ("application/json", "text/plain", "text/html")


class Shown(NamedTuple):
    """What the page calls a Version; the page is loaded when somebody asks for it."""

    name: str
    number: int
    why: str
    plan: Plan | None
    converted: Report | None


class Optimization:
    def __init__(self, plane: Dataplane) -> None:
        self._plane = plane

    async def answer(self, request: Request) -> Response:
        """In a thread: a plan of many buckets takes tens of milliseconds to write out."""
        why, converted = self._plane.why(), self._plane.converted()
        found = [Shown(*key, why[key], plan, converted.get(key)) for key, plan in self._plane.plans().items()]
        form = negotiate(request.header(b"accept"), _FORMS)
        write, kind = {"text/plain": (_log, TEXT), "text/html": (_page, HTML)}.get(form, (_json, JSON))
        return Response(await asyncio.to_thread(write, found), content_type=kind, headers=_headers(kind))


def _headers(kind: bytes) -> tuple[tuple[bytes, bytes], ...]:
    if kind != HTML:
        return _VARY
    from tfopt_optimizer.page.page import POLICY

    return (*_VARY, (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"))


def _json(versions: Sequence[Shown]) -> bytes:
    models = [
        {"name": v.name, "version": v.number, "why": v.why, "plan": v.plan and dataclasses.asdict(v.plan)}
        | ({"conversion": dataclasses.asdict(v.converted)} if v.converted else {})
        for v in versions
    ]
    return orjson.dumps({"models": models}, option=orjson.OPT_INDENT_2)


def _log(versions: Sequence[Shown]) -> bytes:
    lines = []
    for v in versions:
        lines.append(f"{v.name} version {v.number}: {v.why}\n")
        lines += [f"  {line}\n" for line in (v.plan.log if v.plan is not None else ())]
        lines += [f"  {line}\n" for line in _converted(v)]
    return "".join(lines).encode()


def _converted(version: Shown) -> list[str]:
    if version.converted is None:
        return []
    from tfopt_optimizer.tpu import report

    return [f"conversion: {line}" for line in report.lines(version.converted)]


def _page(versions: Sequence[Shown]) -> bytes:
    from tfopt_optimizer.page import page

    return page.render([page.Version(*v) for v in versions]).encode()
