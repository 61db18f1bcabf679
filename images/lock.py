"""Renews the locks of the images: `make lock`. Every dependency by hash, so that a build gets these bytes or none.

    python images/lock.py [cpu/litert ...]      # all of them, or these

images/DEVICE/NAME.txt is what the build argument LOCK=NAME installs. A release lock holds one TensorFlow release (the
newest two are kept building), `nightly` the newest of everything, and a runtime lock only what serves plans that were
made elsewhere. images/tools.txt is what describes an image while it is built. A lock never names where its files came
from.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = "3.13"
PLATFORM = "x86_64-manylinux_2_31"
# Without TensorFlow: an engine alone, and all of them.
RUNTIMES = ("litert", "openvino", "onnxruntime", "xla", "runtime")
OVERRIDES = ROOT / "images" / "overrides.txt"


@dataclass(frozen=True)
class Lock:
    """`extras` of pyproject.toml; `overrides` replace what they and their dependencies ask for."""

    device: str
    name: str
    extras: tuple[str, ...]
    overrides: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return ROOT / "images" / self.device / f"{self.name}.txt"


def locks() -> Iterator[Lock]:
    for device in ("cpu", "gpu", "tpu"):
        yield Lock(device, "tf-2.21", (device,))
        yield Lock(device, "tf-2.20", (device,), ("tensorflow-cpu==2.20.*",))
    yield Lock("cpu", "nightly", ("cpu",), ("tensorflow-cpu", "jax", "jaxlib", "openvino", "ai-edge-litert"))
    yield Lock("", "tools", ("image-tools",))
    for name in RUNTIMES:
        yield Lock("cpu", name, (name,))


def renew(lock: Lock) -> None:
    lock.path.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.write("\n".join((OVERRIDES.read_text(), *lock.overrides, "")))
        overrides.flush()
        command = [
            *("uv", "pip", "compile", "--quiet", "--upgrade", "--generate-hashes", "--no-header", "--no-annotate"),
            *("--python-version", PYTHON, "--python-platform", PLATFORM, "--override", overrides.name),
            *(word for extra in lock.extras for word in ("--extra", extra)),
            *("pyproject.toml", "--output-file", str(lock.path)),
        ]
        subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], cwd=ROOT, check=True)
    print(lock.path.relative_to(ROOT))


def main(wanted: Sequence[str]) -> int:
    found = {each.path.relative_to(ROOT / "images").with_suffix("").as_posix(): each for each in locks()}
    if unknown := sorted(set(wanted) - set(found)):
        sys.stderr.write(f"expected some of {', '.join(found)}, received {', '.join(unknown)}\n")
        return 2
    for name in wanted or found:
        renew(found[name])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
