"""What a plan is valid for: the model's bytes, the flags, the records, the versions, the processor. No heavy import."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import google_crc32c
import numpy as np

from tfopt_optimizer import cpu
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.plan import FORMAT_VERSION, PROOF_VERSION, Fingerprint

Samples = Mapping[str, tuple[dict[str, np.ndarray], ...]]
_PACKAGES = (
    "tfopt",
    "tensorflow-cpu",
    "tensorflow",
    "jax",
    "jaxlib",
    "ai-edge-litert",
    "openvino",
    "onnxruntime",
    "tf2onnx",
    "nncf",
    "ai-edge-quantizer",
    "numpy",
)
# Those of an accelerator's runtime. They count where its device is used.
_RUNTIMES = {"gpu": ("jax-cuda12-plugin", "jax-cuda12-pjrt"), "tpu": ("libtpu",)}
_BLOCK = 1 << 22


def fingerprint(model_dir: Path, flags: OptimizerFlags, tags: Sequence[str], samples: Samples) -> Fingerprint:
    """Equal fingerprints mean an equal plan would come out. OSError when the model cannot be read."""
    versions = {"plan": str(FORMAT_VERSION), "proof": str(PROOF_VERSION), "python": platform.python_version()}
    for package in (*_PACKAGES, *_RUNTIMES.get(flags.device, ())):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # not installed here; its presence elsewhere is a difference by itself
    processor = cpu.processor()
    hardware = {
        "machine": platform.machine(),
        "processor": processor.get("model", ""),
        "features": " ".join(cpu.features(processor.get("isa", ""))),
        "cores": str(cpu.usable_cores()),
    }
    if flags.device_kind:
        hardware["device"] = f"{flags.device} {flags.device_kind}"
    chosen = json.dumps({**dataclasses.asdict(flags), "tags": sorted(tags)}, sort_keys=True)
    return Fingerprint(f"{_model(model_dir)}+{_records(samples)}", chosen, versions, hardware)


def digest(fingerprint: Fingerprint) -> str:
    """A folder name."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(fingerprint), sort_keys=True).encode()).hexdigest()[:24]


def _model(model_dir: Path) -> str:
    """Every file's name and content, except assets.extra: what lies there (warmup records) comes in as samples.

    Content by CRC-32C per block: it finds changes, which is all that is asked, at 20 GB/s where SHA-256 does 1 GB/s. A
    start with a cached plan reads all weights for this.
    """
    found = hashlib.sha256()
    for path in _files(model_dir):
        name = path.relative_to(model_dir).as_posix()
        if name.startswith("assets.extra/"):
            continue
        found.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(google_crc32c.value(block).to_bytes(4, "little"))
    return found.hexdigest()[:32]


def _files(folder: Path) -> list[Path]:
    """Also those behind links to folders, which is how models are mounted and how converted ones are kept."""
    found = (Path(place) / name for place, _, names in os.walk(folder, followlinks=True) for name in names)
    return sorted(path for path in found if path.is_file())


def _records(samples: Samples) -> str:
    found = hashlib.sha256()
    for key in sorted(samples):
        for feeds in samples[key]:
            for name in sorted(feeds):
                array = feeds[name]
                found.update(f"{key}\0{name}\0{array.dtype}\0{array.shape}\0".encode())
                found.update(_content(array))
    return found.hexdigest()[:16]


def _content(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return b"".join(len(v).to_bytes(8, "little") + v for v in array.ravel())
