"""schemathesis against a running server: what /openapi.json promises is what comes, whatever is sent."""

from __future__ import annotations

import sys

import pytest
import savedmodels
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from .servers import free_port, running

pytestmark = [pytest.mark.process, pytest.mark.tensorflow]
EXAMPLES = 4  # per operation; `make test/slow` has time for more
CHECKS = [
    not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
    checks.response_schema_conformance,
]  # fmt: skip


def conform(base: str, examples: int) -> int:
    """Sends requests that the document allows, for every operation; the number that was sent."""
    schema, sent = schemathesis.openapi.from_url(f"{base}/openapi.json"), 0
    quick = settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    for result in schema.get_all_operations():

        @quick
        @given(case=result.ok().as_strategy())
        def send(case: schemathesis.Case) -> None:
            nonlocal sent
            sent += 1
            case.call_and_validate(base_url=base, checks=CHECKS)

        send()
    return sent


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    place, port = tmp_path_factory.mktemp("openapi"), free_port()
    command = [
        sys.executable, "-m", "tfopt_server", f"--rest_api_port={port}", f"--port={free_port()}", "--disable_optimizer",
        "--model_name=lookup", f"--model_base_path={savedmodels.path('lookup').parent}",
    ]  # fmt: skip
    with running(command, port, place / "log", {"HOME": str(place)}) as server:
        server.wait_for_health(200, 90)
        yield f"http://127.0.0.1:{port}"


def test_schemathesis_finds_nothing(base):
    assert conform(base, EXAMPLES) > 50


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_a_long_run(base):
    assert conform(base, 500) > 2000
