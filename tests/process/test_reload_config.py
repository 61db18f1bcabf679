"""HandleReloadConfigRequest on a whole server: every worker follows, also one that is started later."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from tfopt_protos import messages

from .servers import Server, until
from .test_serve import established, serve

pytestmark = [pytest.mark.process, pytest.mark.tensorflow]

STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


def config(base: Path, *names: str) -> str:
    listed = [f'config {{ name: "{n}" base_path: "{base / n}" model_platform: "tensorflow" }}' for n in names]
    return f"model_config_list {{ {' '.join(listed)} }}"


def through_stubs(rpc: int, text: str) -> list:
    command = [sys.executable, str(Path(__file__).with_name("stub_reload.py")), f"127.0.0.1:{rpc}", text]
    return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)


def reload(rpc: int, text: str) -> str:
    request = messages.message("tensorflow.serving.ReloadConfigRequest")()
    request.config.CopyFrom(messages.from_text("tensorflow.serving.ModelServerConfig", text))
    with grpc.insecure_channel(f"127.0.0.1:{rpc}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            channel.unary_unary(RELOAD)(request.SerializeToString(), timeout=60)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return "OK"


def states(server: Server, rpc: int, model: str) -> dict[int, str]:
    """What each worker says of a model, asked until each has been."""
    request = messages.GetModelStatusRequest(model_spec={"name": model}).SerializeToString()
    found: dict[int, str] = {}

    def ask() -> bool:
        workers = server.workers()
        with grpc.insecure_channel(f"127.0.0.1:{rpc}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                answer = channel.unary_unary(STATUS)(request, timeout=10)
                said = messages.GetModelStatusResponse.FromString(answer).model_version_status[0].state
            except grpc.RpcError as error:
                said = error.code().name
            for pid in workers:
                if established(pid, rpc):
                    found[pid] = str(said)
        return found.keys() == set(server.workers())

    until(ask, 30, lambda: found)
    return found


@pytest.mark.slow
def test_every_worker_serves_what_a_client_configures_and_so_does_a_replacement(tmp_path, savedmodel):
    base = tmp_path / "models"
    for name in ("first", "second"):
        shutil.copytree(savedmodel("half_plus_two"), base / name / "1")
    (base / "broken" / "1").mkdir(parents=True)
    (base / "broken" / "1" / "saved_model.pb").write_bytes(b"not a SavedModel \xff")
    flags = (f"--model_base_path={base / 'first'}", "--model_name=first", "--disable_optimizer", "--workers=2")
    with serve(tmp_path, *flags, "--max_num_load_retries=0") as (server, rpc):
        server.wait_for_health(200, 90)
        assert through_stubs(rpc, config(base, "first", "second")) == ["OK", "", 0, [1]]
        assert list(states(server, rpc, "second").values()) == ["30", "30"]

        killed = server.workers()[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(server.workers()) == 2 and killed not in server.workers(), 20, server.text)
        until(lambda: server.text().count("ready after") == 3, 60, server.text)
        assert list(states(server, rpc, "second").values()) == ["30", "30"]

        assert reload(rpc, config(base, "second")) == "OK"
        failed = reload(rpc, config(base, "second", "broken"))
        assert failed.startswith(
            "UNKNOWN: 1 model(s) did not become available: {{{name: broken version: 1} due to error: "
        )
        assert server.health() == 200
        assert list(states(server, rpc, "first").values()) == ["50", "50"]
        assert server.get("/v1/models/second:predict", "POST", b'{"instances": [[1.0]]}')[0] == 200
        assert reload(rpc, "custom_model_config {}").startswith(
            "INVALID_ARGUMENT: ServerModelConfig type not supported"
        )
        assert server.stop() == 0
