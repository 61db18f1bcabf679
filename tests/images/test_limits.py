"""The image where its platform is strict: liveness probes, time, memory, processors, users, file systems."""

from __future__ import annotations

import json
import os
import socket
import threading
import time

import pytest

from .conftest import BLANK, free_port, volume

pytestmark = pytest.mark.image

# Vertex AI connects to the port up to four times, 10 s apart, and then restarts the container.
LIVENESS_S = 40.0
# A bucket's contest takes about a second, whatever the processor: it is measured in rounds of fixed length.
MANY_BUCKETS = ("--allowed_batch_sizes=" + ",".join(map(str, range(1, 81))), "--optimize_budget_s=90")


@pytest.fixture(autouse=True)
def _only_where_plans_are_made(request, runtime):
    if runtime and request.node.get_closest_marker("tensorflow"):
        pytest.skip("an image without TensorFlow makes no plans")


def quick(*, port: int) -> tuple[str, ...]:
    """Its ports, and no long search: how good the plan is does not matter here."""
    return f"--rest_api_port={port}", f"--port={free_port()}", "--optimize_budget_s=2"


class Probe(threading.Thread):
    """Connects to the port as a liveness probe does, more often than one; `failures` in a row at worst."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.failures, self.over = port, 0, threading.Event()

    def run(self) -> None:
        in_a_row = 0
        while not self.over.wait(1.0):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=10).close()
                in_a_row = 0
            except OSError:
                in_a_row += 1
                self.failures = max(self.failures, in_a_row)


@pytest.mark.tensorflow
def test_a_model_that_takes_minutes_to_compile_is_alive_meanwhile_and_healthy_after(start, models):
    port = free_port()
    environ = {"AIP_HTTP_PORT": port, "AIP_HEALTH_ROUTE": "/h", "AIP_PREDICT_ROUTE": "/p", "AIP_MODE": "PREDICTION"}
    options = (volume(models), "--env=AIP_STORAGE_URI=/models/digits", *(f"--env={n}={v}" for n, v in environ.items()))
    container = start(f"--port={free_port()}", "--allow_precompilation", *MANY_BUCKETS, options=options, port=port)
    probe = Probe(port)
    until(lambda: listening(port), 10)
    probe.start()
    assert container.request("GET", "/h")[0] == 503
    began = time.monotonic()
    container.wait_until_ready(400, route="/h")
    assert time.monotonic() - began > LIVENESS_S, "it was over too soon to prove anything"
    probe.over.set()
    assert probe.failures == 0
    assert BLANK.right(container.predict("/p", [BLANK.row])[0])
    assert container.complaints() == []


@pytest.mark.tensorflow
def test_sigterm_ends_a_start_that_still_compiles(start, models):
    port = free_port()
    container = start(
        f"--rest_api_port={port}",
        f"--port={free_port()}",
        *MANY_BUCKETS,
        "--model_base_path=/models/digits",
        options=(volume(models),),
    )
    until(lambda: "[2/" in container.log_text(), 90)
    began = time.monotonic()
    assert container.stop() == 0
    assert time.monotonic() - began < 25  # else it was killed, and the code would be 137
    assert container.complaints() == []


@pytest.mark.tensorflow
def test_an_optimizer_that_the_memory_limit_kills_costs_the_plan_and_not_the_server(start, models):
    port = free_port()
    limits = ("--memory=300m", "--memory-swap=300m")
    container = start(
        *quick(port=port), "--model_base_path=/models/digits", options=(volume(models), *limits), port=port
    )
    container.wait_until_ready()
    (found,) = container.predict("/v1/models/model:predict", [BLANK.row])
    assert BLANK.right(found)
    (line,) = container.complaints()
    assert line["message"].startswith("no plan could be made, plain TensorFlow serves the model: ")
    assert "SIGKILL" in line["message"]


def test_any_user_may_run_it(start, models, subject):
    """As on platforms that give every project user ids of its own."""
    port = free_port()
    options = (volume(models), f"--env=MODEL_NAME={subject.name}", "--user=1234567:0")
    container = start(*quick(port=port), options=options, port=port)
    container.wait_until_ready()
    assert subject.right(container.predict(subject.predict, [subject.row])[0])
    assert container.exec("id", "-u").stdout.strip() == "1234567"
    assert container.complaints() == []


def test_the_files_that_tensorflow_serving_reads_are_read(start, models, subject, tmp_path):
    """A swapped image keeps its arguments: several models, batching, monitoring, each in a text file."""
    texts = {
        "models.config": f'model_config_list {{ config {{ name: "a" base_path: "/models/{subject.name}" '
        'model_platform: "tensorflow" model_version_policy { specific { versions: 1 } } '
        'version_labels { key: "stable" value: 1 } } }',
        "batching.config": "max_batch_size { value: 8 } batch_timeout_micros { value: 1000 } "
        "num_batch_threads { value: 2 }",
        "monitoring.config": 'prometheus_config { enable: true path: "/m" }',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        parent.chmod(0o755)
    port = free_port()
    container = start(
        *quick(port=port),
        "--model_config_file=/config/models.config",
        "--allow_version_labels_for_unavailable_models",
        "--enable_batching=true",
        "--batching_parameters_file=/config/batching.config",
        "--monitoring_config_file=/config/monitoring.config",
        *("--tensorflow_session_parallelism=2", "--file_system_poll_wait_seconds=0", "--rest_api_num_threads=16"),
        options=(volume(models), f"--volume={tmp_path}:/config:ro"),
        port=port,
    )
    container.wait_until_ready()
    (found,) = container.predict("/v1/models/a/labels/stable:predict", [subject.row])
    assert subject.right(found)
    assert b":tensorflow:serving:request_count" in container.request("GET", "/m")[1]
    assert container.complaints() == []


def test_every_core_that_the_container_may_use_and_no_more(start, models, subject):
    """Threads of the engines too: the process has as many as one processor asks for, not as the host has."""
    port = free_port()
    options = (volume(models), f"--env=MODEL_NAME={subject.name}", "--cpus=1", "--cpuset-cpus=0")
    container = start(*quick(port=port), options=options, port=port)
    container.wait_until_ready()
    page = json.loads(container.request("GET", "/optimization")[1])
    (model,) = page["models"]
    if model["why"].startswith("made"):
        assert model["plan"]["fingerprint"]["hardware"]["cores"] == "1"
    assert subject.right(container.predict(subject.predict, [subject.row])[0])


@pytest.mark.tensorflow
@pytest.mark.skipif(os.cpu_count() == 1, reason="needs a host with more than one core")
def test_the_pool_that_computes_is_as_large_as_the_quota_and_not_as_the_host(start, models):
    """TensorFlow by itself looks at the affinity alone, which a quota (`--cpus`) leaves as it is."""
    port = free_port()
    words = (*quick(port=port), "--disable_optimizer", "--model_base_path=/models/digits")
    container = start(*words, options=(volume(models), "--cpus=1"), port=port)
    container.wait_until_ready()
    assert BLANK.right(container.predict("/v1/models/model:predict", [BLANK.row])[0])
    script = "import glob; print(*(open(f).read().strip() for f in glob.glob('/proc/[0-9]*/task/*/comm')), sep='\\n')"
    threads = container.exec("/opt/tfopt/bin/python", "-c", script).stdout.splitlines()
    assert threads.count("tf_Compute") == 1, threads


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def until(true, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
