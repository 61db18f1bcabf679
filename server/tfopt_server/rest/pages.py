"""What operators read: the Prometheus page."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tfopt_protos import messages

from tfopt_server.http import Request, Response
from tfopt_server.metrics import CONTENT_TYPE, Metrics

METRICS_PATH = "/monitoring/prometheus/metrics"  # TensorFlow Serving's default


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
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def metrics(self, request: Request) -> Response:
        """In a thread: with several workers the page is gathered from all of them."""
        page = await asyncio.to_thread(self._metrics.render)
        return Response(page, content_type=CONTENT_TYPE.encode())
