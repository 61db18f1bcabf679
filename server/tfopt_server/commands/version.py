"""`tfopt version`: this version and those of the engines and their devices' runtimes, without importing them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import metadata

PACKAGES = (
    *("tfopt", "tensorflow", "tensorflow-cpu", "jax", "jaxlib", "ai-edge-litert", "openvino", "onnxruntime"),
    *("libtpu", "jax-cuda12-plugin", "nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12"),
    *("numpy", "grpcio", "gunicorn"),
)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    for package in PACKAGES:
        try:
            sys.stdout.write(f"{package} {metadata.version(package)}\n")
        except metadata.PackageNotFoundError:
            continue  # only what is installed has a version
    return 0
