"""What operators read: the Prometheus page, and the plan and log of every optimized version."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import orjson
from tfopt_optimizer.plan import Plan
from tfopt_protos import messages

from tfopt_server.dataplane import Dataplane
from tfopt_server.http import Request, Response
from tfopt_server.metrics import CONTENT_TYPE, Metrics

METRICS_PATH = "/monitoring/prometheus/metrics"  # TensorFlow Serving's default
TEXT = b"text/plain; charset=utf-8"


def metrics_paths(config: Path | None) -> tuple[str, ...]:
    """Where the Prometheus page is: TensorFlow Serving's path, and the one that its MonitoringConfig names.

    Unlike there the page needs no configuration; one that leaves it disabled does switch it off.
    """
    if config is None:
        return (METRICS_PATH,)
    prometheus = messages.from_text("tensorflow.serving.MonitoringConfig", config.read_text()).prometheus_config
    if not prometheus.enable:
        return ()
    return tuple(dict.fromkeys((METRICS_PATH, prometheus.path or METRICS_PATH)))


class Pages:
    def __init__(self, plane: Dataplane, metrics: Metrics) -> None:
        self._plane = plane
        self._metrics = metrics

    async def metrics(self, request: Request) -> Response:
        """In a thread: with several workers the page is gathered from all of them."""
        page = await asyncio.to_thread(self._metrics.render)
        return Response(page, content_type=CONTENT_TYPE.encode())

    def optimization(self, request: Request) -> Response:
        """The plans as JSON, or their logs as text where Accept asks for text/plain."""
        plans, why = self._plane.plans(), self._plane.why()
        if b"text/plain" in request.header(b"accept"):
            return Response(
                "".join(_log(*key, plan, why[key]) for key, plan in plans.items()).encode(), content_type=TEXT
            )
        models = [
            {"name": key[0], "version": key[1], "why": why[key], "plan": plan and dataclasses.asdict(plan)}
            for key, plan in plans.items()
        ]
        return Response(orjson.dumps({"models": models}, option=orjson.OPT_INDENT_2))


def _log(name: str, version: int, plan: Plan | None, why: str) -> str:
    lines = plan.log if plan is not None else ()
    return f"{name} version {version}: {why}\n" + "".join(f"  {line}\n" for line in lines)
