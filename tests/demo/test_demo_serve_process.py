"""`make serve` as a person sees it: start, read the line, paste it into a shell, stop with a signal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from ports import free_ports

from demo import build, held_out

pytestmark = [pytest.mark.process, pytest.mark.tensorflow]

READY_TIMEOUT_S = 180
STOP_TIMEOUT_S = 40


def curl_line(process: subprocess.Popen[str]) -> str:
    """The first line on standard output that is a curl command."""
    watchdog = threading.Timer(READY_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            if line.startswith("curl "):
                return line
    finally:
        watchdog.cancel()
    raise AssertionError(f"the server ended with {process.wait()} before it was ready")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the printed line needs curl")
def test_the_printed_line_works_in_a_shell_and_sigterm_ends_the_server_cleanly(demo_models, tmp_path):
    place = demo_models / "tabular"
    _, port = free_ports()  # gRPC takes the one below
    command = [sys.executable, "-m", "demo.serve", "--model", str(place), "--port", str(port)]
    flags = [f"--plan_cache_dir={tmp_path}", "--log_format=json", "--engines=litert", "--allowed_batch_sizes=1,4"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command + flags, stdout=subprocess.PIPE, stderr=log, text=True, cwd=place.parents[2], start_new_session=True
        )
    try:
        line = curl_line(process)
        answer = subprocess.run(["bash", "-c", line], capture_output=True, check=True, timeout=60).stdout
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_TIMEOUT_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
    data = held_out.read(place)
    expected = build.plain_outputs(place, held_out.HeldOut(data.rows(0, 1), data.answer[:1]))
    [prediction] = json.loads(answer)["predictions"]
    assert prediction["label"] == expected["label"][0].decode() == data.answer[0].decode()
    assert prediction["probabilities"] == pytest.approx(expected["probabilities"][0].tolist(), rel=1e-4)
    assert code == 0
