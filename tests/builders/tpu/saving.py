"""How the models that the converter converts are saved: with aliases of functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from builders.registry import normal


def weights(seed: int, *shape: int) -> Any:
    return normal(np.random.default_rng(seed), *shape)


def save(module: Any, to: Path, signatures: Any, aliases: Any) -> None:
    import tensorflow as tf

    options = tf.saved_model.SaveOptions(function_aliases=aliases)
    tf.saved_model.save(module, str(to), signatures=signatures, options=options)
