"""Containers for tests: `make test/image/cpu` builds nothing, it runs the image that `make image/cpu` built."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ports import free_port

ROOT = Path(__file__).parents[2]


def script(name: str):
    """A module of images/, which is no package: its files run on any Python, before anything is installed."""
    spec = importlib.util.spec_from_file_location(f"tfopt_images_{name}", ROOT / "images" / f"{name}.py")
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


build, lock = script("build"), script("lock")


class Subject(NamedTuple):
    """A demo model that the image can serve, a row of it, and whether a prediction for that row is right."""

    name: str
    row: Any
    right: Callable[[Any], bool]

    @property
    def predict(self) -> str:
        return f"/v1/models/{self.name}:predict"


TABULAR = Subject(
    "tabular",
    json.loads(Path(__file__).with_name("tabular_row.json").read_text()),
    lambda found: found["label"] == "benign",
)
BLANK = Subject("digits", [[0.0] * 8] * 8, lambda found: abs(sum(found) - 1.0) < 1e-3)


def volume(models: Path, at: str = "/models") -> str:
    return f"--volume={models}:{at}:ro"


class Container:
    """One running container of the image, on the host's network. Removed at the end of the test."""

    def __init__(self, program: str, image: str, args: list[str], options: list[str], port: int) -> None:
        self.port, self.image = port, image
        self._program = program
        self.name = f"tfopt-test-{os.getpid()}-{port}"
        quiet = ["--no-healthcheck"]  # timers need a service manager; tests ask by themselves
        self._run("run", "--detach", "--name", self.name, "--network=host", *quiet, *options, image, *args)

    def _run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # Where the memory limit ends a container, podman's monitor leaves a file called "oom" in its working directory.
        done = subprocess.run(
            [self._program, *words], capture_output=True, text=True, timeout=120, check=False, cwd=tempfile.gettempdir()
        )
        if check and done.returncode:
            raise AssertionError(f"{words}: {done.stderr}")
        return done

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def predict(self, path: str, instances: list) -> list:
        status, body = self.request("POST", path, json.dumps({"instances": instances}).encode())
        assert status == 200, body
        return json.loads(body)["predictions"]

    def wait_until_ready(self, seconds: float = 300.0, route: str = "/health") -> float:
        """Seconds until the first 200."""
        began = asked = time.monotonic()
        while (now := time.monotonic()) - began < seconds:
            try:
                if self.request("GET", route)[0] == 200:
                    return time.monotonic() - began
            except OSError:
                pass
            if now - asked > 1.0:  # asking podman costs more than the server's own start
                assert self.running(), self.log_text()
                asked = time.monotonic()
            time.sleep(0.02)
        raise AssertionError(f"not ready after {seconds} s: {self.log_text()}")

    def running(self) -> bool:
        return self._run("inspect", "--format", "{{.State.Running}}", self.name).stdout.strip() == "true"

    def exec(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self._run("exec", self.name, *words, check=False)

    def stop(self, seconds: int = 30) -> int:
        """SIGTERM as a platform sends it; the exit code."""
        self._run("stop", "--time", str(seconds), self.name)
        return self.exit_code()

    def exit_code(self) -> int:
        return int(self._run("wait", self.name).stdout)

    def log_text(self) -> str:
        done = self._run("logs", self.name)
        return done.stdout + done.stderr

    def log(self) -> list[dict]:
        """Every line of the log, which must be JSON."""
        return [json.loads(line) for line in self.log_text().splitlines()]

    def complaints(self) -> list[dict]:
        """The lines that a healthy life does not write. On a machine without its device an image may say so."""
        lines = [line for line in self.log() if line["severity"] not in ("DEBUG", "INFO")]
        device = self.image.rpartition("/tfopt-")[2].partition(":")[0]
        absent = f"--device={device}: serving on the cpu ("
        return [line for line in lines if device == "cpu" or not line["message"].startswith(absent)]

    def remove(self) -> None:
        self._run("rm", "--force", self.name, check=False)


@pytest.fixture(scope="session")
def program() -> str:
    found = build.engine(os.environ)
    if not found:
        pytest.skip("needs podman or docker")
    return found


@pytest.fixture(scope="session")
def image(program, pytestconfig) -> str:
    device, lock = pytestconfig.getoption("--device"), pytestconfig.getoption("--lock")
    name = build.tag(device, lock)
    if subprocess.run([program, "image", "inspect", name], capture_output=True, check=False).returncode:
        pytest.fail(f"there is no image {name}: run `make image/{device}` first")
    return name


@pytest.fixture(scope="session")
def runtime(pytestconfig) -> str:
    """The lock when it holds no TensorFlow, else ""."""
    name = pytestconfig.getoption("--lock")
    return name if name in lock.RUNTIMES else ""


@pytest.fixture(scope="session")
def subject(runtime) -> Subject:
    """The tabular model, whose strings OpenVINO alone cannot read."""
    return BLANK if runtime == "openvino" else TABULAR


@pytest.fixture(scope="session")
def models(tmp_path_factory, runtime) -> Path:
    """The demo models, readable by the image's user; with their plans in them where the image cannot make any."""
    folder = tmp_path_factory.mktemp("models")
    for parent in folder.parents[:3]:
        parent.chmod(0o755)
    for name in ("digits", "tabular"):
        shutil.copytree(ROOT / "demo" / "models" / name, folder / name)
        if runtime and not (runtime == "openvino" and name == TABULAR.name):
            optimize(folder / name, runtime)
    readable(folder)
    return folder


def optimize(model: Path, runtime: str) -> None:
    """Makes a plan for a runtime image, with the TensorFlow of the tests."""
    command = [sys.executable, "-m", "tfopt_server", "optimize", str(model), "--in_place", "--without_tensorflow"]
    engines = [] if runtime == "runtime" else [f"--engines={runtime}"]
    done = subprocess.run([*command, *engines, *flags_for(runtime)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def flags_for(runtime: str) -> list[str]:
    """What a server is told so that a plan of this engine may be used."""
    return ["--allow_precompilation"] if runtime == "xla" else []


def readable(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def start(program, image, runtime) -> Iterator:
    started: list[Container] = []

    def go(*args: str, options: tuple[str, ...] = (), port: int = 0, hardened: bool = True) -> Container:
        safe = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges") if hardened else ()
        words = [*args, *flags_for(runtime)]
        container = Container(program, image, words, [*safe, *options], port or free_port())
        started.append(container)
        return container

    yield go
    for container in started:
        container.remove()
