"""A checkpoint's index, read without TensorFlow, is what TensorFlow reads; damage is an error that names the file."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import savedmodels
from tfopt_optimizer import checkpoint, ops
from tfopt_optimizer.checkpoint import CheckpointError, read_index

ROOT = Path(__file__).parents[2]
PROBE = """
import json, sys
import numpy as np
from tfopt_optimizer.absent import absent
with absent("jax", "sklearn"):  # half of its time
    import tensorflow as tf
prefix, many = sys.argv[1:]
tensors = {f"layer_{i:04}/kernel": np.full((i % 7 + 1, 3), i, np.float32) for i in range(3000)}
tensors["word"] = np.array([b"a", b"bcd"], object)
names = sorted(tensors)
slices = [""] * len(names)
tf.raw_ops.SaveV2(prefix=many, tensor_names=names, shape_and_slices=slices, tensors=[tensors[n] for n in names])
def describe(path):
    reader = tf.train.load_checkpoint(path)
    shapes, kinds = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    return {n: [kinds[n].name, shapes[n]] for n in shapes}
print(json.dumps([describe(prefix), describe(many)]))
"""


@pytest.mark.tensorflow
def test_the_index_is_what_tensorflow_reads(tmp_path: Path) -> None:
    ours = savedmodels.path("mlp_keras") / "variables" / "variables"
    many = tmp_path / "many"
    command = [sys.executable, "-c", PROBE, str(ours), str(many)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for prefix, expected in zip((ours, many), json.loads(done.stdout.splitlines()[-1]), strict=True):
        expected.pop(checkpoint.OBJECT_GRAPH, None)
        found = read_index(prefix)
        kinds = {"float": "float32", "string": "string"}
        assert {k: [kinds[e.dtype], list(e.shape)] for k, e in found.items()} == expected
        end = max(e.offset + e.size for e in found.values())
        assert {n: p.stat().st_size >= end for n, p in checkpoint.data_files(prefix).items()} == {0: True}
    assert len(found) == 3001  # several blocks


@pytest.mark.parametrize("size", [0, 10, 47, 60, -1, -20, -60])
def test_a_damaged_index_is_an_error_that_names_it(savedmodel_copy, size: int) -> None:
    prefix = savedmodel_copy("mlp_keras") / "variables" / "variables"
    path = prefix.with_name("variables.index")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"variables\.index: damaged"):
        read_index(prefix)


def test_every_changed_byte_is_an_error_or_still_an_index(savedmodel_copy) -> None:
    prefix = savedmodel_copy("half_plus_two") / "variables" / "variables"
    path = prefix.with_name("variables.index")
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 0xFF,)) + whole[at + 1 :])
        with contextlib.suppress(CheckpointError):
            read_index(prefix)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_list_of_operations_is_that_of_the_installed_tensorflow(tmp_path: Path) -> None:
    fresh = tmp_path / "ops.txt"
    subprocess.run(
        [sys.executable, str(ROOT / "optimizer/extract_ops.py"), "--out", str(fresh)], check=True, capture_output=True
    )
    assert fresh.read_text() == (ROOT / "optimizer/tfopt_optimizer/ops.txt").read_text()
    registry = ops.registry()
    assert {"MatMul", "Conv2D"} <= registry.compiled < registry.names
    assert "StringLower" in registry.names - registry.compiled
