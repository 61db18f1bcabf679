"""The benchmark models: which there are, their rows, and where their SavedModels lie (built once, then cached).

Importing this module needs no TensorFlow; building runs in a child process (`python -m benchmarks.build_models NAME`).
Weights are random: these models are for speed, the demo models are for accuracy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE / "models"
SIGNATURE = "serving_default"
TOKENS = 128
TEXTS = 12  # calls of different texts
WORDS = 1000  # entries per look-up table of the tabular model
VOCABULARY = 30522  # BERT's
BUILD_TIMEOUT_S = 600
FIRST_SAMPLE = 1000  # seed; measurements use the ones below, so that no model is measured on rows it was warmed with

Feeds = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Model:
    """`buckets`: the batch sizes that are measured; `rows(batch, seed)` makes feeds whose rows all differ.

    `quick`: part of `--quick`. `calls`: about how many calls at batch 1 fit into a second on two cores with plain
    TensorFlow, to choose counts by. `flop`: floating-point operations of a row's matrix products, where they are nearly
    all of the work and the machine's own rate for them is the limit; else 0. `full`: makes feeds that are filled up
    nowhere, of a model whose rows are; what a row costs then depends on what it says, so many are measured in turn.
    """

    name: str
    about: str
    buckets: tuple[int, ...]
    rows: Callable[[int, int], Feeds]
    quick: bool
    calls: int
    flop: float = 0.0
    full: Callable[[int, int], Feeds] | None = None

    def drawn(self, batch: int) -> tuple[Feeds, ...]:
        """What is measured, in turn."""
        return tuple(self.rows(batch, seed) for seed in range(1 if self.full is None else TEXTS))

    def samples(self) -> tuple[Feeds, ...]:
        """What the warmup records hold: some single rows and two batches of every bucket's size."""
        return tuple(self.rows(b, FIRST_SAMPLE + seed) for b in self.buckets for seed in range(4 if b == 1 else 2))

    @property
    def base(self) -> Path:
        """The base path for a server; the SavedModel itself is in its version folder "1"."""
        return ROOT / self.name

    @property
    def saved_model(self) -> Path:
        return self.base / "1"


def _mlp_rows(batch: int, seed: int) -> Feeds:
    return {"x": np.random.default_rng(seed).standard_normal((batch, 32), dtype=np.float32)}


def word(index: int) -> bytes:
    return b"word_%03d" % index


def _tabular_rows(batch: int, seed: int) -> Feeds:
    random = np.random.default_rng(seed)
    feeds: Feeds = {"numbers": random.exponential(3.0, (batch, 13)).astype(np.float32)}
    for i in range(26):
        chosen = random.integers(0, WORDS, batch)
        feeds[f"word_{i:02d}"] = np.array([word(k) for k in chosen], object)
    return feeds


def _text_rows(batch: int, seed: int) -> Feeds:
    """Token ids of texts with 32 to 128 tokens; the mask is 1 where there is a token."""
    random = np.random.default_rng(seed)
    lengths = random.integers(TOKENS // 4, TOKENS + 1, batch)
    mask = (np.arange(TOKENS)[None, :] < lengths[:, None]).astype(np.int32)
    ids = random.integers(1, VOCABULARY, (batch, TOKENS)).astype(np.int32) * mask
    return {"input_ids": ids, "attention_mask": mask}


def _full_text_rows(batch: int, seed: int) -> Feeds:
    """Token ids of texts with 128 tokens."""
    ids = np.random.default_rng(seed).integers(1, VOCABULARY, (batch, TOKENS)).astype(np.int32)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def bert_flop(depth: int, width: int) -> float:
    """Per text of 128 tokens: 12 weights of width x width per block and token, and the attention's two products.

    Of the last block keys and values of all tokens, and the rest for the one token that is read.
    """
    token = 24.0 * width**2 + 4.0 * TOKENS * width
    return (depth - 1) * TOKENS * token + token + (TOKENS - 1) * 4.0 * width**2


def _image_rows(batch: int, seed: int) -> Feeds:
    return {"image": np.random.default_rng(seed).uniform(-1, 1, (batch, 224, 224, 3)).astype(np.float32)}


MODELS = {
    model.name: model
    for model in (
        Model("mlp", "MLP 32-64-64-3", (1, 8, 32), _mlp_rows, True, 4000),
        Model("tabular", "13 numbers + 26 look-ups, MLP 1024-1024-512-256", (1, 8, 32), _tabular_rows, True, 700),
        Model("bert_small", "BERT 4x256, 128 tokens", (1, 8), _text_rows, True, 70, full=_full_text_rows),
        Model("mobilenet_v2", "MobileNetV2, 224x224", (1, 8), _image_rows, True, 50),
        Model("resnet50", "ResNet50, 224x224", (1, 8), _image_rows, False, 15),
        Model(
            "bert_base", "BERT 12x768, 128 tokens", (1, 8), _text_rows, False, 6, bert_flop(12, 768), _full_text_rows
        ),
    )
}


def select(names: list[str] | None, quick: bool) -> tuple[Model, ...]:
    """The models named, else all (`--quick`: those that build and run fast). KeyError's text is for the user."""
    if names:
        if unknown := [name for name in names if name not in MODELS]:
            raise KeyError(f"unknown model {unknown[0]!r}; there are: {', '.join(MODELS)}")
        return tuple(MODELS[name] for name in names)
    return tuple(model for model in MODELS.values() if model.quick or not quick)


def ensure(model: Model) -> Path:
    """Returns the base path of the model, building it when it is absent or the code that builds it has changed."""
    stamp, recipe = model.base / ".recipe", _recipe()
    if stamp.exists() and stamp.read_text() == recipe:
        return model.base
    print(f"building {model.name} ({model.about}) ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.build_models", model.name]
    subprocess.run(command, check=True, timeout=BUILD_TIMEOUT_S, cwd=HERE.parent)
    stamp.write_text(recipe)
    return model.base


def _recipe() -> str:
    sources = b"".join((HERE / name).read_bytes() for name in ("models.py", "build_models.py"))
    return hashlib.sha256(sources).hexdigest()
