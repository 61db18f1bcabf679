"""What stays of a plan's folder once the winners are known."""

from __future__ import annotations

import shutil
from pathlib import Path

from tfopt_optimizer.engines import artifacts, weights


def tidy(plan_dir: Path, kept: set[str]) -> int:
    """Removes artifacts that lost; returns the bytes of the weights that are needed, wherever an engine keeps them."""
    for folder in plan_dir.glob("s*/*"):
        if folder.relative_to(plan_dir).as_posix() not in kept:
            shutil.rmtree(folder)
    for parent in plan_dir.glob("s*"):
        if not any(parent.iterdir()):
            parent.rmdir()
    if not any(plan_dir.glob(f"s*/*/{artifacts.META}")):  # no module is left that takes its weights from there
        for name in (weights.DATA, weights.INDEX):
            (plan_dir / name).unlink(missing_ok=True)
    kinds = ("model.bin", "model.tflite", "model.onnx", weights.DATA)
    holders = [plan_dir / weights.DATA, *(path for kind in kinds for path in plan_dir.glob(f"s*/**/{kind}"))]
    return sum(path.stat().st_size for path in holders if path.exists())
