"""The image as its users start it: TensorFlow Serving's way, Vertex AI's way, hardened, limited, stopped under load."""

from __future__ import annotations

import json
import subprocess
import threading

import pytest

from .conftest import free_port, volume

pytestmark = pytest.mark.image


def test_a_bare_run_serves_the_model_as_a_serving_image_does(start, models, subject):
    port = free_port()
    container = start(
        f"--rest_api_port={port}",
        f"--port={free_port()}",
        options=(volume(models), f"--env=MODEL_NAME={subject.name}"),
        port=port,
    )
    container.wait_until_ready()
    (found,) = container.predict(subject.predict, [subject.row])
    assert subject.right(found)
    assert container.complaints() == []
    assert container.stop() == 0


@pytest.mark.parametrize("entry", ["/usr/bin/tensorflow_model_server", "/usr/bin/tf_serving_entrypoint.sh"])
def test_the_programs_of_a_serving_image_are_there(start, models, entry):
    port = free_port()
    container = start(
        *(f"--port={free_port()}", f"--rest_api_port={port}", "--model_name=d", "--model_base_path=/models/digits"),
        options=(volume(models), f"--entrypoint={entry}"),
        port=port,
    )
    container.wait_until_ready(route="/v1/models/d")
    assert container.stop() == 0


def test_on_vertex_the_environment_is_enough(start, models, subject):
    port = free_port()
    environ = {
        "AIP_HTTP_PORT": port,
        "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
        "AIP_STORAGE_URI": f"/models/{subject.name}/1",
        "AIP_MODE": "PREDICTION",
    }
    options = (volume(models), *(f"--env={name}={value}" for name, value in environ.items()))
    container = start(f"--port={free_port()}", options=options, port=port)
    container.wait_until_ready(route=environ["AIP_HEALTH_ROUTE"])
    assert subject.right(container.predict(environ["AIP_PREDICT_ROUTE"], [subject.row])[0])


def test_it_runs_as_nobody_special_on_a_read_only_root(start, models):
    port = free_port()
    container = start(
        f"--rest_api_port={port}",
        f"--port={free_port()}",
        options=(volume(models), "--env=MODEL_NAME=digits"),
        port=port,
    )
    container.wait_until_ready()
    assert container.exec("id", "-u").stdout.strip() == "10001"
    assert container.exec("touch", "/opt/tfopt/x").returncode != 0


def test_an_image_says_what_is_inside(program, image, pytestconfig):
    def read(name: str) -> str:
        command = [program, "run", "--rm", "--no-healthcheck", "--entrypoint=cat", image, f"/opt/tfopt/{name}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    bill = json.loads(read("sbom.cdx.json"))
    versions = {c["name"]: c["version"] for c in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert {"tfopt", "numpy", "gunicorn"} <= set(versions)
    device = pytestconfig.getoption("--device")
    for package in ("numpy", *{"gpu": ["nvidia-cudnn-cu12"], "tpu": ["libtpu"]}.get(device, [])):
        assert f"{package} {versions[package]}" in read("versions.txt")
    licences = {
        cells[1].strip(): cells[3].strip()
        for line in read("licenses.md").splitlines()[2:]
        if (cells := line.split("|"))
    }
    assert set(licences) >= {"numpy", "gunicorn"}
    assert {name for name, licence in licences.items() if licence in ("", "UNKNOWN")} == set()


def test_the_healthcheck_command_is_a_probe(start, models):
    port = free_port()
    container = start(
        *(f"--rest_api_port={port}", f"--port={free_port()}", "--model_base_path=/models/none"),
        options=(volume(models),),
        port=port,
    )
    done = container.exec("tfopt", "healthcheck", f"--rest_api_port={port}")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith(f"http://127.0.0.1:{port}/health: "), container.log_text()
    other = free_port()
    ready = start(
        *(f"--rest_api_port={other}", f"--port={free_port()}", "--model_base_path=/models/digits"),
        options=(volume(models),),
        port=other,
    )
    ready.wait_until_ready()
    done = ready.exec("tfopt", "healthcheck", f"--rest_api_port={other}")
    assert done.returncode == 0, done.stderr + ready.log_text()


def test_every_mistake_comes_at_once_with_an_exit_code(start):
    container = start("--rest_api_port=nine", "--workers=0", "--model_base_path=")
    assert container.exit_code() == 255
    text = container.log_text()
    assert "--rest_api_port" in text
    assert "--workers" in text


def test_a_model_that_is_none_ends_with_a_clear_error(start, tmp_path):
    folder = tmp_path / "bad" / "1"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"no protobuf")
    for path in [tmp_path, *tmp_path.parents[:3], tmp_path / "bad", folder]:
        path.chmod(0o755)
    container = start(
        *(f"--rest_api_port={free_port()}", f"--port={free_port()}", "--max_num_load_retries=0"),
        *("--model_base_path=/models/bad",),
        options=(f"--volume={tmp_path}:/models:ro",),
    )
    assert container.exit_code() == 255
    assert "Failed to start server" in container.log_text()


def test_threads_follow_the_containers_share_of_the_processors(start, models):
    port = free_port()
    container = start(
        *(f"--rest_api_port={port}", f"--port={free_port()}", "--model_base_path=/models/digits"),
        options=(volume(models), "--cpus=1", "--memory=2g"),
        port=port,
    )
    container.wait_until_ready()
    cores = container.exec("/opt/tfopt/bin/python", "-c", "from tfopt_optimizer import cpu; print(cpu.usable_cores())")
    assert cores.stdout.strip() == "1"


def test_sigterm_under_load_loses_nothing(start, models, subject):
    port = free_port()
    container = start(
        f"--rest_api_port={port}",
        f"--port={free_port()}",
        options=(volume(models), f"--env=MODEL_NAME={subject.name}"),
        port=port,
    )
    container.wait_until_ready()
    answered, lost = [], []

    def client() -> None:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"instances": [subject.row]})
        while True:
            try:
                connection.request("POST", subject.predict, body)
                answer = connection.getresponse()
                answer.read()
            except ConnectionRefusedError:
                return  # it has gone, and took nothing with it
            except OSError as error:
                lost.append(error)
                return
            answered.append(answer.status)
            if answer.getheader("connection") == "close":
                return

    clients = [threading.Thread(target=client) for _ in range(8)]
    for each in clients:
        each.start()
    threading.Event().wait(1.0)
    assert container.stop() == 0
    for each in clients:
        each.join()
    assert lost == []
    assert set(answered) == {200}
    assert len(answered) > 100
