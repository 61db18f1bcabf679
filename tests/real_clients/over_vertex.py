"""Run by the Python that has google-cloud-aiplatform: its local classes ask a real server; prints what they understood.

    python over_vertex.py MODEL_DIR PORT COMMAND...

LocalEndpoint starts its container through the Docker client; the stand-in for that one client starts COMMAND with the
environment that Vertex AI's own code made. PrivateEndpoint is made of the resource that the API would return, whose
addresses are those of the same server.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform
from google.cloud.aiplatform.docker_utils.utils import DEFAULT_MOUNTED_MODEL_DIRECTORY
from google.cloud.aiplatform.prediction import LocalEndpoint
from google.cloud.aiplatform_v1.types import DeployedModel, Endpoint, PrivateEndpoints

ROWS = {"instances": [[1.0], [5.0]]}
ROUTE = "/v1/models/default"  # as a prebuilt image is configured


class Container:
    """A process in place of a container: what Vertex AI's code asks of it."""

    def __init__(self, command: list[str], environment: dict[str, Any], volumes: list[str], ports: dict[str, Any]):
        self.environment = {name: str(value) for name, value in environment.items()}
        # Nothing is mounted and no port mapped: the process is told where both are on this host.
        host, mounted = volumes[0].split(":")
        folder = host.removesuffix(mounted.removeprefix(DEFAULT_MOUNTED_MODEL_DIRECTORY))
        own = {"AIP_STORAGE_URI": folder, "AIP_HTTP_PORT": str(next(iter(ports.values())))}
        clean = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
        self.process = subprocess.Popen(command, env=clean | self.environment | own, stdout=sys.stderr)

    @property
    def status(self) -> str:
        return "running" if self.process.poll() is None else "exited"

    def reload(self) -> None:
        """Docker's client remembers a state until it is told to look again."""

    def logs(self) -> bytes:
        return b""

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


class Docker:
    def __init__(self, command: list[str]) -> None:
        self._command, self.containers = command, self

    def run(self, _image: str, *, environment: Any, volumes: Any, ports: Any, command: Any, **_: Any) -> Container:
        return Container([*self._command, *(command or ())], environment, volumes, ports)


def over_local(endpoint: LocalEndpoint, folder: Path) -> dict[str, Any]:
    body = folder / "request.json"
    body.write_text(json.dumps(ROWS))
    refused = endpoint.predict(request=json.dumps({"rows": []}), headers={"Content-Type": "application/json"})
    return {
        "environment": {k: v for k, v in endpoint.container.environment.items() if k.startswith("AIP_")},
        "health": endpoint.run_health_check().status_code,
        "predict": endpoint.predict(request=json.dumps(ROWS)).json(),
        "file": endpoint.predict(request_file=str(body), headers={"Content-Type": "application/json"}).json(),
        "refused": [refused.status_code, refused.json()],
    }


def over_private(port: int) -> dict[str, Any]:
    base = f"http://127.0.0.1:{port}{ROUTE}"
    addresses = PrivateEndpoints(
        predict_http_uri=f"{base}:predict", explain_http_uri=f"{base}:explain", health_http_uri=base
    )
    resource = Endpoint(
        name="projects/1/locations/us-central1/endpoints/2", network="projects/1/global/networks/n",
        deployed_models=[DeployedModel(id="3", private_endpoints=addresses)],
        create_time=datetime.datetime.now(datetime.UTC),  # without one it asks the API for the rest
    )  # fmt: skip
    endpoint = aiplatform.PrivateEndpoint._construct_sdk_resource_from_gapic(
        resource, project="p", location="us-central1", credentials=AnonymousCredentials()
    )
    answer = endpoint.predict(instances=ROWS["instances"])
    raw = endpoint.raw_predict(body=json.dumps(ROWS).encode(), headers={"Content-Type": "application/json"})
    try:
        endpoint.predict(instances=[["a"]])
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    return {
        "health": endpoint.health_check(),
        "predict": answer.predictions,
        "deployed": answer.deployed_model_id,
        "raw": json.loads(raw.data),
        "refused": refused,
    }


def main(model: str, port: str, *command: str) -> None:
    with mock.patch("docker.from_env", return_value=Docker(list(command))):
        endpoint = LocalEndpoint(
            "tfopt:cpu", artifact_uri=model, serving_container_predict_route=f"{ROUTE}:predict",
            serving_container_health_route=ROUTE, serving_container_args=["--disable_optimizer"],
            serving_container_ports=[8080], host_port=port, container_ready_timeout=120,
        )  # fmt: skip
        with endpoint:
            found = {"local": over_local(endpoint, Path.cwd()), "private": over_private(int(port))}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
