"""--device from the outside: a server on two gpus (host devices in disguise, tests/standin), and one that needs one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from .servers import free_port, running, tfopt

pytestmark = pytest.mark.process
STANDIN = Path(__file__).parents[1] / "standin"
BODY = json.dumps({"instances": [[1.0], [2.0], [3.0]]}).encode()


def command(model: Path, port: int, tmp_path: Path, *flags: str) -> list[str]:
    return [
        sys.executable, "-m", "tfopt_server", f"--rest_api_port={port}", "--port=0",
        f"--model_base_path={model.parent}",
        f"--plan_cache_dir={tmp_path / 'plans'}", "--allowed_batch_sizes=1,4", "--optimize_budget_s=1", *flags,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_server_on_gpus(savedmodel, tmp_path):
    port, paths = free_port(), os.pathsep.join([str(STANDIN), *sys.path])
    environ = {"HOME": str(tmp_path), "PYTHONPATH": paths, "TFOPT_DEVICE": "gpu"}
    with running(command(savedmodel("half_plus_two"), port, tmp_path), port, tmp_path / "log", environ) as server:
        server.wait_for_health(200, 300)
        assert server.messages().count("device: gpu (cpu), 2 of 2") == 1
        answer = server.get("/v1/models/default:predict", "POST", BODY)
        assert (answer[0], json.loads(answer[1])) == (200, {"predictions": [[2.5], [3.0], [3.5]]})
        plan = json.loads(server.get("/optimization")[1])["models"][0]["plan"]
        assert (plan["device"], plan["device_kind"]) == ("gpu", "cpu")
        candidates = {(c["engine"], c["variant"]) for c in plan["signatures"][0]["buckets"][0]["candidates"]}
        assert ("xla", "gpu") in candidates
        assert b'tfopt_device_info{device="gpu",kind="cpu"} 2' in server.get("/monitoring/prometheus/metrics")[1]
        assert [line for line in server.lines() if line["severity"] not in ("INFO", "NOTICE")] == []


def test_a_gpu_that_is_required_and_not_there_ends_the_start(savedmodel, tmp_path):
    port = free_port()
    done = tfopt(*command(savedmodel("half_plus_two"), port, tmp_path, "--device=gpu", "--require_device")[3:])
    assert done.returncode == 255
    assert "--require_device: expected --device=gpu to be there: gpu: no gpu is visible" in done.stderr
