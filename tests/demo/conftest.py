"""The trained demo models; `make setup` builds them, a bare pytest run builds what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_TIMEOUT_S = 300


@pytest.fixture(scope="session")
def demo_models() -> Path:
    place = ROOT / "demo" / "models"
    for name in ("digits", "tabular"):
        if not (place / name / "held_out.npz").exists():
            command = [sys.executable, "-m", "demo.build", "--only", name]
            subprocess.run(command, check=True, cwd=ROOT, timeout=BUILD_TIMEOUT_S)
    return place
