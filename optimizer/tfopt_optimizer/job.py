"""What the optimizer is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tfopt_optimizer.fingerprint import Samples
from tfopt_optimizer.flags import OptimizerFlags


@dataclasses.dataclass(frozen=True)
class OptimizeJob:
    """One SavedModel to optimize into `plan_dir` (made when missing). `records` says where `samples` came from:
    "warmup" or "synthesized". Samples are feeds as they came, of any batch size, per signature key. `made_up`: the
    signatures whose samples no client sent; where a twin (twins.py) has records they do not count."""

    model_dir: Path
    plan_dir: Path
    tags: tuple[str, ...]
    flags: OptimizerFlags
    samples: Samples
    records: str
    made_up: tuple[str, ...] = ()
