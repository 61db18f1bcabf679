"""Runs the converted model on this CPU beside the original: does every TPU function compile, and how far is it off.

The TPU operations are taken out again (emulate.py) and the functions are compiled by XLA with the shapes of the
samples, so that what the TPU's compiler would refuse is refused before anything is written.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt_optimizer import verify
from tfopt_optimizer.plan import Agreement
from tfopt_optimizer.tpu import advice, files
from tfopt_optimizer.tpu.emulate import emulate
from tfopt_optimizer.tpu.errors import CompilerError

Feeds = Mapping[str, np.ndarray[Any, Any]]
Samples = Mapping[str, Sequence[Feeds]]


@dataclasses.dataclass(frozen=True)
class Tried:
    """One signature on `calls` samples: how far the converted model's outputs are from the original's, all together and
    each by itself.

    `refused`: why the original itself does not take the samples (made-up strings are often no dates or numbers), or "".
    """

    signature: str
    calls: int
    agreement: Agreement | None
    refused: str = ""
    outputs: Mapping[str, Agreement] = dataclasses.field(default_factory=dict)


class _Refused(Exception):
    """The original fails on a sample."""


def run(source: Path, converted: Path, saved_model: Any, samples: Samples, workplace: Path) -> list[Tried]:
    """Every signature that has samples. CompilerError explains what does not compile.

    `converted` holds the variables that `saved_model` (the converted message) is read with.
    """
    if not any(samples.values()):
        return []
    import tensorflow as tf

    emulated = copy.deepcopy(saved_model)
    for meta in emulated.meta_graphs:
        emulate(meta, compiled=True)
    folder = workplace / "emulated"
    files.link(converted, emulated, folder)
    original, changed = tf.saved_model.load(str(source)), tf.saved_model.load(str(folder))
    wrong: dict[str, str] = {}
    tried = []
    for key, calls in sorted(samples.items()):
        if not calls:
            continue
        try:
            found = [_compare(tf, original.signatures[key], changed.signatures[key], feeds) for feeds in calls]
        except _Refused as error:
            tried.append(Tried(key, 0, None, str(error)))
            continue
        except tf.errors.OpError as error:
            wrong[key] = error.message
            continue
        tried.append(_added_up(key, found))
    if wrong:
        raise CompilerError([f"signature {key!r}: {advice.explain(words)}" for key, words in wrong.items()], wrong)
    return tried


def _added_up(signature: str, calls: Sequence[Mapping[str, Agreement]]) -> Tried:
    outputs = {name: verify.add_calls(call[name] for call in calls) for name in calls[0]}
    together = verify.add_calls(verify.worst(list(call.values())) for call in calls)
    return Tried(signature, len(calls), together, outputs=outputs)


def _compare(tf: Any, original: Any, changed: Any, feeds: Feeds) -> dict[str, Agreement]:
    """By output, without bounds: these are for people to judge, for bfloat16 is asked for, and how much is too much
    depends on the model."""
    tensors = {
        name: tf.constant(feeds[name], dtype=spec.dtype)
        for name, spec in original.structured_input_signature[1].items()
        if name in feeds
    }
    try:
        wanted = {name: value.numpy() for name, value in original(**tensors).items()}
    except tf.errors.OpError as error:
        raise _Refused(advice.explain(error.message)) from error
    given = {name: value.numpy() for name, value in changed(**tensors).items()}
    return {name: verdict.agreement for name, verdict in verify.by_output(wanted, given).items()}
