"""`tfopt healthcheck`: for exec probes. Asks the server that the same flags and environment would start."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping, Sequence

from tfopt_server.commands import HELP
from tfopt_server.settings import Settings, SettingsErrors, parse

TIMEOUT_S = 10.0  # Vertex AI's own limit for a health answer
_SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """0 when the server is ready for traffic, else 1 with the reason on stderr."""
    if any(a in HELP for a in argv):
        sys.stdout.write("usage: tfopt healthcheck [the server's flags]\n\nExit 0: ready for traffic. 1: not.\n")
        return 0
    try:
        # A path is needed for settings, not for asking: probes run with the environment, not with the arguments.
        settings, _ = parse([*argv, "--model_base_path=/"], environ)
    except SettingsErrors as errors:
        sys.stderr.write(f"{errors}\n")
        return 1
    problem = _ask_http(settings) if settings.http_ports else _ask_grpc(settings)
    if problem:
        sys.stderr.write(f"{problem}\n")
    return 1 if problem else 0


def _ask_http(settings: Settings) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", settings.http_port, timeout=TIMEOUT_S)
    where = f"http://127.0.0.1:{settings.http_port}{settings.health_route}"
    try:
        connection.request("GET", settings.health_route)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"{where}: {error}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"{where}: {answer.status} {body}"


def _ask_grpc(settings: Settings) -> str:
    from tfopt_server.rpc import probe, tls

    where = f"gRPC port {settings.port}"
    try:
        answer = probe.call(settings.port, "/grpc.health.v1.Health/Check", b"", TIMEOUT_S, settings.ssl_config_file)
    except (OSError, probe.ProbeError, tls.TlsError) as error:
        return f"{where}: {error}"
    return "" if answer == _SERVING else f"{where}: not serving"
