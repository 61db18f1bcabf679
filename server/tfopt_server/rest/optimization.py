"""GET /optimization: the plan of every version, as JSON for programs, a log for terminals, a page for browsers."""

from __future__ import annotations

import asyncio
import dataclasses

import orjson
from tfopt_optimizer.plan import Plan

from tfopt_server.dataplane import Dataplane
from tfopt_server.http import JSON, Request, Response
from tfopt_server.rest.accept import negotiate

TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"
_VARY = ((b"vary", b"Accept"),)
_FORMS = ("application/json", "text/plain", "text/html")

Plans = dict[tuple[str, int], tuple[Plan | None, str]]


class Optimization:
    def __init__(self, plane: Dataplane) -> None:
        self._plane = plane

    async def answer(self, request: Request) -> Response:
        """In a thread: a plan of many buckets takes tens of milliseconds to write out."""
        plans, why = self._plane.plans(), self._plane.why()
        found = {key: (plan, why[key]) for key, plan in plans.items()}
        form = negotiate(request.header(b"accept"), _FORMS)
        write, kind = {"text/plain": (_log, TEXT), "text/html": (_page, HTML)}.get(form, (_json, JSON))
        return Response(await asyncio.to_thread(write, found), content_type=kind, headers=_headers(kind))


def _headers(kind: bytes) -> tuple[tuple[bytes, bytes], ...]:
    if kind != HTML:
        return _VARY
    from tfopt_optimizer.page.page import POLICY

    return (*_VARY, (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"))


def _json(plans: Plans) -> bytes:
    models = [
        {"name": name, "version": version, "why": why, "plan": plan and dataclasses.asdict(plan)}
        for (name, version), (plan, why) in plans.items()
    ]
    return orjson.dumps({"models": models}, option=orjson.OPT_INDENT_2)


def _log(plans: Plans) -> bytes:
    lines = []
    for (name, version), (plan, why) in plans.items():
        lines.append(f"{name} version {version}: {why}\n")
        lines += [f"  {line}\n" for line in (plan.log if plan is not None else ())]
    return "".join(lines).encode()


def _page(plans: Plans) -> bytes:
    from tfopt_optimizer.page import page

    return page.render([page.Version(*key, why, plan) for key, (plan, why) in plans.items()]).encode()
