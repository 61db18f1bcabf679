"""A server whose model is in a bucket, as Vertex AI starts it: versions come and go there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bucketstub
import pytest
from bucketstub import Bucket

from .servers import Server, free_port, running, until

pytestmark = [pytest.mark.process, pytest.mark.tensorflow]


def put(bucket: Bucket, folder: str, model: Path) -> None:
    # saved_model.pb last, as TensorFlow writes it.
    files = sorted((p for p in model.rglob("*") if p.is_file()), key=lambda p: p.name == "saved_model.pb")
    for path in files:
        bucket.objects[f"{folder}/{path.relative_to(model)}"] = path.read_bytes()


def newest(server: Server) -> tuple[str, str]:
    first = json.loads(server.get("/v1/models/default")[1])["model_version_status"][0]
    return first["version"], first["state"]


def test_a_model_in_a_bucket(tmp_path, savedmodel):
    bucket, port = Bucket("models"), free_port()
    put(bucket, "two/1", savedmodel("half_plus_two"))
    bucket.broken = 1
    command = [
        sys.executable, "-m", "tfopt_server", f"--rest_api_port={port}", "--port=0", "--disable_optimizer",
        "--storage_poll_wait_seconds=1",
    ]  # fmt: skip
    with bucketstub.serving(bucket) as address:
        environ = bucketstub.environment(address) | {"HOME": str(tmp_path), "AIP_STORAGE_URI": "gs://models/two"}
        with running(command, port, tmp_path / "log", environ) as server:
            server.wait_for_health(200, 90)
            status, body = server.get("/v1/models/default:predict", "POST", b'{"instances": [[1.0]]}')
            assert (status, json.loads(body)) == (200, {"predictions": [[2.5]]})
            assert any(m.startswith("downloaded gs://models/two/1 to ") for m in server.messages())
            put(bucket, "two/2", savedmodel("half_plus_two"))
            until(lambda: newest(server) == ("2", "AVAILABLE"), 60, server.text)
            (cached,) = (tmp_path / ".cache" / "tfopt" / "models").iterdir()
            until(lambda: [p.name for p in cached.iterdir() if p.name[0] != "."] == ["2"], 20, server.text)
            assert server.stop() == 0


def test_a_bucket_that_is_not_there_is_waited_for_and_named(tmp_path):
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "tfopt_server",
        f"--rest_api_port={port}",
        "--port=0",
        "--model_base_path=s3://m/x",
    ]
    with bucketstub.serving(Bucket("models")) as address:
        environ = bucketstub.environment(address) | {"HOME": str(tmp_path)}
        with running(command, port, tmp_path / "log", environ) as server:
            until(lambda: "s3://m/x: there is no bucket 'm' in S3" in server.text(), 30, server.text)
            assert server.health() == 503
            assert server.stop() == 0
