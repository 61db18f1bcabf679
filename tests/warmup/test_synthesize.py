"""Made-up inputs: deterministic, safe, different from row to row; and honest refusals."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import savedmodels
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_warmup import signatures, synthesize


def signature(*inputs: TensorInfo, method: str = "tensorflow/serving/predict") -> SignatureInfo:
    """The optimizer's own type: synthesize takes it without knowing it."""
    return SignatureInfo("serving_default", method, inputs, ())


def one(dtype: str, shape: tuple[int | None, ...] | None, name: str = "x", batch: int = 4) -> np.ndarray[Any, Any]:
    made = synthesize.feeds(signature(TensorInfo(name, dtype, shape)), batch)
    assert made is not None
    return made[name]


def rows(array: np.ndarray[Any, Any]) -> set[bytes]:
    return {repr(row.tolist()).encode() for row in array}


@pytest.mark.parametrize(
    "dtype",
    [
        "float",
        "double",
        "half",
        "bfloat16",
        "int8",
        "int32",
        "int64",
        "uint8",
        "uint64",
        "bool",
        "complex64",
        "string",
        "int4",
    ],
)
def test_every_dtype_is_made_and_rows_differ(dtype: str) -> None:
    array = one(dtype, (None, 3), batch=8)
    assert array.shape == (8, 3)
    assert len(rows(array)) == 8
    if dtype == "string":
        assert all(isinstance(value, bytes) for value in array.ravel())
    elif dtype not in ("complex64", "bool", "uint8"):
        assert (array >= 0).all()
        assert (array <= 8).all()


def test_the_same_seed_gives_the_same_arrays_and_another_does_not() -> None:
    info = signature(TensorInfo("x", "float", (None, 2)), TensorInfo("n", "int32", (None, 4)))
    first, again, other = (synthesize.feeds(info, 4, seed) for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert all(np.array_equal(first[name], again[name]) for name in ("x", "n"))
    assert not np.array_equal(first["x"], other["x"])


def test_shapes_follow_the_signature() -> None:
    assert one("float", (None, 2, 3)).shape == (4, 2, 3)
    assert one("float", (None,)).shape == (4,)
    assert one("float", ()).shape == ()
    assert one("float", (7, 3)).shape == (7, 3)
    assert one("int32", (), batch=9).shape == ()
    assert one("string", ()).shape == ()


def test_integers_stay_small_and_known_kinds_of_input_stay_in_their_range() -> None:
    assert one("int64", (None, 50), batch=30).max() < 8
    assert set(one("int32", (None, 50), "segment_ids").ravel()) == {0, 1}
    assert set(one("int32", (None, 50), "input_type_ids").ravel()) == {0, 1}
    assert set(one("int32", (None, 50), "input_mask").ravel()) == {1}
    assert set(one("float", (None, 50), "attention_mask").ravel()) == {1.0}
    assert one("uint8", (None, 500)).max() > 100


def test_unknown_inner_dimensions_are_refused_unless_a_size_is_given() -> None:
    info = signature(TensorInfo("tokens", "int32", (None, None)))
    assert synthesize.feeds(info, 2) is None
    assert synthesize.why_not(info) == (
        "signature 'serving_default', input 'tokens': its shape [?, ?] has an unknown dimension besides the batch; "
        "record warmup requests for it"
    )
    made = synthesize.feeds(info, 2, unknown_dim=5)
    assert made is not None
    assert made["tokens"].shape == (2, 5)
    assert synthesize.why_not(info, unknown_dim=5) == ""


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (signature(TensorInfo("x", "float", None)), "its rank is unknown"),
        (signature(TensorInfo("x", "resource", ())), "data type resource has no numpy array"),
        (signature(TensorInfo("x", "invalid", None)), "its rank is unknown"),
        (signature(TensorInfo("x", "invalid", (None,))), "it is a sparse or composite tensor"),
        (
            signature(TensorInfo("inputs", "string", (None,)), method="tensorflow/serving/classify"),
            "it takes serialized tf.Example messages, whose features cannot be guessed",
        ),
        (
            signature(TensorInfo("inputs", "string", (None,), "tf_example:0")),
            "it takes serialized tf.Example messages, whose features cannot be guessed",
        ),
    ],
)
def test_what_cannot_be_guessed_is_refused_with_a_reason(info: SignatureInfo, reason: str) -> None:
    assert synthesize.feeds(info, 1) is None
    assert f"input {info.inputs[0].name!r}: {reason}; record warmup requests" in synthesize.why_not(info)


@pytest.mark.tensorflow
def test_image_strings_are_images_that_tensorflow_decodes() -> None:
    tf = pytest.importorskip("tensorflow")
    images = one("string", (None,), "image_bytes", batch=3)
    decoded = [tf.io.decode_image(image, channels=3).numpy() for image in images]
    assert [image.shape for image in decoded] == [(32, 32, 3)] * 3
    assert not np.array_equal(decoded[0], decoded[1])
    assert tf.io.decode_jpeg(images[0], channels=3).shape == (32, 32, 3)


RUN = """
import sys
import numpy as np
from tfopt_optimizer.absent import absent
with absent("jax", "sklearn"):  # half of its time
    import tensorflow as tf
model, archive = sys.argv[1:]
feeds = dict(np.load(archive, allow_pickle=True))
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    found = tf.compat.v1.saved_model.load(session, ["serve"], model).signature_def["serving_default"]
    session.run([v.name for v in found.outputs.values()], {found.inputs[k].name: v for k, v in feeds.items()})
"""


@pytest.mark.tensorflow
def test_tensorflow_takes_what_is_made_up_for_real_models(savedmodel: Callable[[str], Path], tmp_path: Path) -> None:
    """One process for all models: the made-up feeds run without an error in plain TensorFlow."""
    jobs = []
    for name in savedmodels.names():
        if name == "mlp_keras_saved":
            continue  # TF1 sessions cannot load it
        (default,) = [s for s in signatures.read(savedmodel(name)) if s.key == "serving_default"]
        made = synthesize.feeds(default, batch=3, unknown_dim=5)
        assert made is not None, synthesize.why_not(default)
        buffer = io.BytesIO()
        np.savez(buffer, **made)  # type: ignore[arg-type]
        (tmp_path / f"{name}.npz").write_bytes(buffer.getvalue())
        jobs.append([str(savedmodel(name)), str(tmp_path / f"{name}.npz")])
    code = (
        f"import sys, json\nfor job in json.loads(sys.stdin.read()):\n    sys.argv = ['-', *job]\n    exec({RUN!r})\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
