"""The three Dockerfiles and their locks, read as text: what no build is needed to see."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from tfopt_server.commands import healthcheck
from tfopt_server.settings import parse

ROOT = Path(__file__).parents[2]
DEVICES = ("cpu", "gpu", "tpu")
LOCKS = sorted(p for p in (ROOT / "images").glob("*/*.txt"))


def dockerfile(device: str) -> str:
    return (ROOT / f"Dockerfile.{device}").read_text()


@pytest.mark.parametrize("device", DEVICES)
def test_dockerfiles_differ_in_the_devices_name_only(device):
    assert dockerfile(device) == re.sub(r"\bcpu\b", device, dockerfile("cpu"))


@pytest.mark.parametrize("device", DEVICES)
def test_make_builds_each_image_and_runs_its_tests(device):
    """Targets that are declared phony find no pattern rule."""

    def would_run(target):
        command = ["make", "--dry-run", "--no-print-directory", target, "LOCK=litert"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    assert would_run(f"image/{device}") == [f"python3 images/build.py {device} --lock=litert"]
    assert would_run(f"test/image/{device}")[-1].endswith(f"tests/images --device={device} --lock=litert")


def test_an_image_sets_no_variable_of_the_platform_and_does_not_run_as_root():
    text = dockerfile("cpu")
    assert "AIP_" not in text
    assert re.search(r"^USER 10001$", text, re.MULTILINE)


@pytest.mark.parametrize("device", DEVICES)
def test_an_image_serves_on_its_device_by_default(device):
    settings, _ = parse(["--model_base_path=/m"], environment(device))
    assert settings.device == device


def test_a_health_check_waits_for_a_first_start_and_for_its_own_command():
    (options,) = re.findall(r"^HEALTHCHECK (.*) CMD", dockerfile("cpu"), re.MULTILINE)
    seconds = {name: int(value) for name, value in re.findall(r"--([a-z-]+)=(\d+)s", options)}
    assert seconds["timeout"] > healthcheck.TIMEOUT_S  # else nobody reads why it is ill
    probe = manifest_probe()
    assert seconds["start-period"] == probe["periodSeconds"] * probe["failureThreshold"]


def manifest_probe() -> dict[str, int]:
    """The startup probe of the Kubernetes manifest."""
    deployment = next(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "tfopt.yaml").read_text()))
    return deployment["spec"]["template"]["spec"]["containers"][0]["startupProbe"]


def environment(device: str) -> dict[str, str]:
    """The variables that a Dockerfile sets."""
    (text,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", dockerfile(device), re.MULTILINE)
    return dict(word.split("=", 1) for word in text.replace("\\", " ").split())


def test_nothing_ties_an_image_to_one_processor():
    assert not re.search(r"amd64|x86|arm64|aarch64|--platform", dockerfile("cpu"))


def test_there_are_locks():
    assert {p.relative_to(ROOT / "images").as_posix() for p in LOCKS} >= {f"{d}/tf-2.21.txt" for d in DEVICES}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_requirement_of_a_lock_has_one_version_and_hashes(lock):
    text = lock.read_text()
    requirements = re.findall(r"^([a-z0-9][^\n]*?)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", text, re.MULTILINE)
    assert requirements
    assert [spec for spec, hashes in requirements if "==" not in spec or not hashes] == []
    assert "://" not in text


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_no_lock_brings_in_what_a_server_never_uses(lock):
    names = set(re.findall(r"^([a-z0-9-]+)==", lock.read_text(), re.MULTILINE))
    assert not names & {"tensorflow", "openvino-telemetry", "keras", "libclang", "scipy"}


def test_a_runtime_lock_holds_one_engine_and_no_tensorflow():
    for engine, package in (("litert", "ai-edge-litert"), ("openvino", "openvino")):
        names = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / f"images/cpu/{engine}.txt").read_text(), re.MULTILINE))
        assert names & {"tensorflow-cpu", "jax", "ai-edge-litert", "openvino", "onnxruntime"} == {package}
