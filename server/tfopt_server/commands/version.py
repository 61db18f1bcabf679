"""`tfopt version`: this version and those of the engines, without importing them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import metadata

PACKAGES = (
    *("tfopt", "tensorflow", "tensorflow-cpu", "jax", "jaxlib", "ai-edge-litert", "openvino", "onnxruntime"),
    *("numpy", "grpcio", "gunicorn"),
)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    for package in PACKAGES:
        try:
            sys.stdout.write(f"{package} {metadata.version(package)}\n")
        except metadata.PackageNotFoundError:
            continue  # only what is installed has a version
    return 0
