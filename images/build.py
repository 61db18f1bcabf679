"""Builds one image with podman or docker: `python3 images/build.py cpu [--lock=tf-2.21]`.

What is not the Dockerfile's business happens here: which engine is there, labels from git, and the host's certificates
as a build secret, for networks that sign TLS anew. BASE=... takes another base image than the Dockerfile's.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEVICES = ("cpu", "gpu", "tpu")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def engine(environ: Mapping[str, str]) -> str:
    """What builds and runs containers: $CONTAINER_ENGINE, else podman, else docker; "" when none is there."""
    wanted = environ.get("CONTAINER_ENGINE")
    return next((name for name in ((wanted,) if wanted else ("podman", "docker")) if shutil.which(name)), "")


def tag(device: str, lock: str) -> str:
    return f"localhost/tfopt-{device}:{lock}"


def command(program: str, device: str, lock: str, *, base: str, certificates: bool) -> list[str]:
    """The build's argument vector, to be run in ROOT."""
    labels = {"LOCK": lock, "VERSION": version(), "REVISION": revision()} | ({"BASE": base} if base else {})
    words = [program, "build", "--file", f"Dockerfile.{device}", "--tag", tag(device, lock)]
    if program == "podman":
        # Docker's format: OCI's has no HEALTHCHECK. Layers: else every build starts at the first line.
        words += ["--format", "docker", "--layers"]
    for name, value in labels.items():
        words += ["--build-arg", f"{name}={value}"]
    if certificates:
        words += ["--secret", f"id=ca_bundle,src={CERTIFICATES}"]
    return [*words, "."]


def version() -> str:
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return found[1] if found else "0"


def revision() -> str:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="images/build.py")
    parser.add_argument("device", choices=DEVICES)
    parser.add_argument("--lock", default="tf-2.21", help="a file of images/DEVICE/ without its .txt")
    args = parser.parse_args(argv)
    if not (ROOT / "images" / args.device / f"{args.lock}.txt").is_file():
        known = ", ".join(
            sorted(p.stem for p in (ROOT / "images" / args.device).glob("*.txt") if p.stem != "overrides")
        )
        parser.error(f"--lock: expected one of {known or 'no lock at all: make lock'}, received {args.lock!r}")
    program = engine(environ)
    if not program:
        parser.error("expected podman or docker on the PATH, found neither (Debian: apt-get install podman)")
    words = command(program, args.device, args.lock, base=environ.get("BASE", ""), certificates=CERTIFICATES.is_file())
    print(" ".join(words), flush=True)
    settings = {**environ, "DOCKER_BUILDKIT": "1"}
    return subprocess.run(words, cwd=ROOT, env=settings, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
