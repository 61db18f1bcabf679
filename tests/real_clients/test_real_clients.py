"""KServe's clients and Vertex AI's local endpoint classes against a real server, each in a Python of its own: their
dependencies do not go with ours (make test/clients)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import savedmodels
from process.servers import free_port
from process.test_serve import serve

pytestmark = [pytest.mark.process, pytest.mark.tensorflow, pytest.mark.slow]
HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parents[1] / ".clients"


def understood(client: str, cwd: Path, *argv: object) -> dict[str, Any]:
    """What `over_CLIENT.py` prints, run by that client's Python."""
    python = CLIENTS / client / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{client} is not installed: make test/clients")
    command = [str(python), str(HERE / f"over_{client}.py"), *map(str, argv)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def attribution(value: float) -> dict[str, Any]:
    one = {
        "baselineOutputValue": 2.0, "instanceOutputValue": 2.0 + value, "featureAttributions": {"x": [value]},
        "outputName": "y", "outputIndex": [0], "approximationError": 0.0,
    }  # fmt: skip
    return {"attributions": [one]}


def test_kserves_clients(tmp_path: Path) -> None:
    config = "".join(
        f'config {{ name: "{name}" base_path: "{savedmodels.path(model).parent}" model_platform: "tensorflow" }}\n'
        for name, model in (("half", "half_plus_two"), ("words", "lookup"))
    )
    (tmp_path / "models.config").write_text(f"model_config_list {{ {config} }}")
    with serve(tmp_path, f"--model_config_file={tmp_path / 'models.config'}", "--disable_optimizer") as (server, rpc):
        server.wait_for_health(200, 120)
        found = understood("kserve", tmp_path, f"http://127.0.0.1:{server.port}", f"127.0.0.1:{rpc}")
    v2, v1, grpc = found["v2"], found["v1"], found["rpc"]
    assert [v2["live"], v2["ready"], v2["model ready"], v2["none ready"]] == [True, True, True, False]
    assert [grpc["live"], grpc["ready"], grpc["model ready"]] == [True, True, True]
    halves = [*v2["half"], *grpc["half"]]
    assert [(each["id"], each["model"], each["outputs"]) for each in halves] == [
        ("a-1", "half", {"y": ["FP32", [2.5, 4.5]]})
    ] * 4
    assert [each["outputs"] for each in (*v2["words"], *grpc["words"])] == [v2["words"][0]["outputs"]] * 3
    assert v2["words"][0]["outputs"]["name"][0] == "BYTES"
    assert v2["refused"].startswith("Servable not found for request: Latest(none), '404 Not Found'")
    assert grpc["refused"] == "Servable not found for request: Latest(none)"
    predictions = {"predictions": [[2.5], [4.5]]}
    assert v1["predict"] == predictions
    assert v1["explain"] == {"explanations": [attribution(0.5), attribution(2.5)], **predictions}
    assert v1["refused"].startswith("Missing 'inputs' or 'instances' key, '400 Bad Request'")


def test_vertex_ais_local_and_private_endpoints(tmp_path: Path) -> None:
    model, port = savedmodels.path("half_plus_two").parent, free_port()
    found = understood("vertex", tmp_path, model, port, sys.executable, "-m", "tfopt_server")
    local, private = found["local"], found["private"]
    assert local["environment"]["AIP_HEALTH_ROUTE"] == "/v1/models/default"
    predictions = {"predictions": [[2.5], [4.5]]}
    assert (local["health"], local["predict"], local["file"]) == (200, predictions, predictions)
    assert local["refused"] == [400, {"error": "Missing 'inputs' or 'instances' key"}]
    assert (private["health"], private["predict"], private["deployed"]) == (True, predictions["predictions"], "3")
    assert private["raw"] == predictions
    assert private["refused"].startswith("400 - Failed to make request")
    assert "is not of expected type: float" in private["refused"]
