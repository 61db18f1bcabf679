"""What every file of builders has: a table of functions that each write a SavedModel, and small means for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Build = Callable[[Path], None]


class Builders(dict[str, Build]):
    """By name. As a decorator it enters a function, which says in its docstring what the model takes and gives."""

    def __call__(self, build: Build) -> Build:
        self[build.__name__] = build
        return build


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def seeded() -> np.random.Generator:
    return np.random.default_rng(7)


def save(module: Any, to: Path, **signatures: Any) -> None:
    import tensorflow as tf

    tf.saved_model.save(module, str(to), signatures=signatures)
