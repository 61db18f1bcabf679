"""A checkpoint with some of its tensors in bfloat16: the same keys, half the bytes. Needs TensorFlow."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tfopt_optimizer.tpu import objects

_SHARD = 1 << 30  # bytes held in memory at a time


def rewrite(model: Path, changed: Collection[int]) -> tuple[int, int]:
    """Rewrites the checkpoint of the SavedModel in `model`, ours to change. `changed`: numbers of objects.

    Returns the bytes of all tensors before and after.
    """
    import tensorflow as tf

    folder = model / objects.VARIABLES.parent
    reader: Any = tf.train.load_checkpoint(str(model / objects.VARIABLES))
    smaller = {key for key, number in objects.checkpoint_keys(model).items() if number in changed}
    before, after, prefixes = 0, 0, []
    for i, group in enumerate(_groups(reader)):
        names = list(group)
        tensors = [tf.constant(reader.get_tensor(name)) for name in names]
        saved = [tf.cast(t, tf.bfloat16) if n in smaller else t for n, t in zip(names, tensors, strict=True)]
        before += sum(t.dtype.size * int(tf.size(t)) for t in tensors)
        after += sum(t.dtype.size * int(tf.size(t)) for t in saved)
        prefixes.append(str(folder / f"shard_{i}"))
        tf.raw_ops.SaveV2(prefix=prefixes[-1], tensor_names=names, shape_and_slices=[""] * len(names), tensors=saved)
    made = folder / "made"
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=prefixes, destination_prefix=str(made / objects.VARIABLES.name), delete_old_dirs=False
    )
    for old in folder.glob(f"{objects.VARIABLES.name}.*"):
        old.unlink()
    for new in made.iterdir():
        new.rename(folder / new.name)
    shutil.rmtree(made)
    return before, after


def _groups(reader: Any) -> Iterator[list[str]]:
    """Names of tensors that fit into memory together."""
    shapes: Mapping[str, list[int]] = reader.get_variable_to_shape_map()
    group, held = list[str](), 0
    for name in sorted(shapes):
        group.append(name)
        size = 1
        for n in shapes[name]:
            size *= n
        held += size * 8
        if held > _SHARD:
            yield group
            group, held = [], 0
    if group:
        yield group
