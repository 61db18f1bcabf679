"""GET /openapi.json, and /docs: a page to try requests that loads nothing but that document."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources

import orjson
from tfopt_optimizer.plan import SignatureInfo

from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import ServingError
from tfopt_server.http import Header, Request, Response
from tfopt_server.oip.model import server_version
from tfopt_server.rest import openapi
from tfopt_server.rest.openapi import Served
from tfopt_server.rest.vertex import explain_path
from tfopt_server.settings import Settings

HTML = b"text/html; charset=utf-8"


class Explorer:
    def __init__(self, plane: Dataplane, settings: Settings, metrics_paths: tuple[str, ...]) -> None:
        self._plane, self._settings, self._metrics_paths = plane, settings, metrics_paths

    def document(self, request: Request) -> Response:
        """Written anew each time: models come and go."""
        return Response(orjson.dumps(openapi.document(self.served()), option=orjson.OPT_INDENT_2))

    def page(self, request: Request) -> Response:
        return Response(_page(), content_type=HTML, headers=_headers())

    def served(self) -> Served:
        settings = self._settings
        return Served(
            version=server_version(),
            health_route=settings.health_route,
            predict_route=settings.predict_route,
            explain_route=explain_path(settings.predict_route),
            metrics_paths=self._metrics_paths,
            default_model=settings.model_name,
            models={name: found for name, _ in self._plane.plans() if (found := self._signatures(name))},
        )

    def _signatures(self, name: str) -> dict[str, SignatureInfo]:
        """Of the version that answers requests without one; none when it went away in between."""
        try:
            with self._plane.resolve(ModelSpec(name)) as handle:
                keys = self._plane.metadata(handle)
                found = {key: self._plane.signature(handle, key) for key in keys}
        except ServingError:
            return {}
        return {key: info for key, info in found.items() if info is not None}


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _page() -> bytes:
    script, style = _file("docs.js"), _file("docs.css")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>Requests · tfopt</title>\n'
        f'<style>{style}</style>\n</head>\n<body>\n<main id="main"><noscript>The document is at /openapi.json; this '
        f"page needs its script to send requests.</noscript></main>\n<script>{script}</script>\n</body>\n</html>\n"
    ).encode()


@functools.cache
def _headers() -> tuple[Header, ...]:
    """Only this script runs, and it may only talk to this server."""
    digest = base64.b64encode(hashlib.sha256(_file("docs.js").encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return ((b"content-security-policy", policy.encode()), (b"x-content-type-options", b"nosniff"))
