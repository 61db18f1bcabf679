"""Memory comes back when versions go: many of them through one real server, under traffic."""

from __future__ import annotations

import json
import shutil
import statistics

import psutil
import pytest

from .servers import Client, Server, until
from .test_serve import serve

pytestmark = [pytest.mark.process, pytest.mark.tensorflow, pytest.mark.slow]

ROLLS = 24
BODY = json.dumps({"instances": [[1.0], [2.0]]}).encode()


def served(server: Server) -> tuple[str, str, int]:
    """The newest version, its state, and how many are not gone."""
    statuses = json.loads(server.get("/v1/models/default")[1])["model_version_status"]
    return statuses[0]["version"], statuses[0]["state"], sum(s["state"] != "END" for s in statuses)


@pytest.mark.parametrize("flags", [("--disable_optimizer",), ("--optimize_budget_s=2",)], ids=["tensorflow", "plan"])
def test_versions_that_went_leave_no_memory_behind(tmp_path, savedmodel, flags):
    """Seen: 714 to 715 MB on plain TensorFlow, 65 to 66 MB on a plan, over 24 versions."""
    base = tmp_path / "m"
    shutil.copytree(savedmodel("half_plus_two"), base / "1")
    resident = []
    with serve(tmp_path, f"--model_base_path={base}", *flags) as (server, _):
        server.wait_for_health(200, 120)
        _, wanted = server.get("/predict", "POST", BODY)
        client = Client(server.port, True, "/predict", BODY, wanted)
        client.start()
        worker = psutil.Process(server.workers()[0])
        for number in range(2, ROLLS + 2):
            shutil.copytree(savedmodel("half_plus_two"), base / f"{number}.part")
            (base / f"{number}.part").rename(base / str(number))
            shutil.rmtree(base / str(number - 1))
            until(lambda wanted=str(number): served(server) == (wanted, "AVAILABLE", 1), 90, server.text)
            resident.append(worker.memory_info().rss / 1e6)
        assert server.stop() == 0
        client.join(20)
    assert client.lost == []
    early, late = statistics.median(resident[6:12]), statistics.median(resident[-6:])
    assert late - early < 15, resident
