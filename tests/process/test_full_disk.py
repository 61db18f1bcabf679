"""Disks that are full while a model is optimized: one line says which, no half plan stays, the server serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import smalldisk

from .servers import free_port, running

pytestmark = [pytest.mark.process, pytest.mark.mount, pytest.mark.tensorflow]

BODY = json.dumps({"instances": [[1.0], [2.0]]}).encode()
BUCKETS = ("--allowed_batch_sizes=1", "--engines=openvino")


@pytest.fixture(autouse=True)
def _needed():
    smalldisk.needed()


def optimize(size: str, folder: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`tfopt optimize` with a disk of `size` at `folder`; each file left on it is a line "left: ..."."""
    folder.mkdir(exist_ok=True)
    command = smalldisk.command(size, folder, [sys.executable, "-m", "tfopt_server", "optimize", *args], listed=True)
    clean = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(command, capture_output=True, text=True, env=clean, timeout=240, check=False)


@pytest.mark.parametrize("flag", ["--out={}/plan", "--plan_cache_dir={}"])
def test_optimize_ends_with_one_line_and_leaves_nothing(savedmodel, tmp_path, flag):
    disk = tmp_path / "disk"
    done = optimize("64k", disk, str(savedmodel("half_plus_two")), flag.format(disk), *BUCKETS)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"no space left in {disk}/")
    assert re.search(r" \([\d.]+ kB of 65.5 kB are free\); the model's variables alone are \d+ B$", line), line
    assert "left: " not in done.stdout


def test_a_server_serves_without_a_plan_and_says_where_there_is_no_space(savedmodel, tmp_path):
    disk, port = tmp_path / "plans", free_port()
    disk.mkdir()
    command = [
        sys.executable, "-m", "tfopt_server", f"--rest_api_port={port}", "--port=0", *BUCKETS,
        f"--model_base_path={savedmodel('half_plus_two').parent}", f"--plan_cache_dir={disk}",
    ]  # fmt: skip
    with running(smalldisk.command("64k", disk, command), port, tmp_path / "log", {"HOME": str(tmp_path)}) as server:
        server.wait_for_health(200, 90)
        status, body = server.get("/v1/models/default:predict", "POST", BODY)
        assert (status, json.loads(body)) == (200, {"predictions": [[2.5], [3.0]]})
        seen = Path(f"/proc/{server.process.pid}/root{disk}")
        assert list(seen.iterdir()) == []
        (warning,) = [line["message"] for line in server.lines() if line["severity"] != "INFO"]
    assert warning.startswith(f"no plan could be made, plain TensorFlow serves the model: no space left in {disk}/")


def test_a_plan_in_the_model_leaves_nothing_in_it(savedmodel, tmp_path):
    disk = tmp_path / "assets.extra"
    model = Path(shutil.copytree(savedmodel("half_plus_two"), tmp_path / "model"))
    (model / "assets.extra").symlink_to(disk)
    done = optimize("64k", disk, str(model), "--in_place", *BUCKETS)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"no space left in {model}/assets.extra/tfopt/")
    assert "left: " not in done.stdout
