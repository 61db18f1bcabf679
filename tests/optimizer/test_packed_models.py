"""Text models through the whole optimizer, where OpenVINO leaves filling out: answered as plain TensorFlow does."""

from __future__ import annotations

import re
from unittest import mock

import numpy as np
import pytest
from enginecases import save
from textencoders import POSITIONS, encoder
from tfopt_optimizer.engines import openvino_packed, table
from tfopt_optimizer.errors import EngineError
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.servable import Servable

pytestmark = pytest.mark.tensorflow
WORDS = 30


def texts(lengths, kind=np.int32, seed=0):
    mask = (np.arange(POSITIONS)[None] < np.array(lengths)[:, None]).astype(kind)
    return {"ids": np.random.default_rng(seed).integers(1, WORDS, mask.shape).astype(kind) * mask, "mask": mask}


def kept(module, variable):
    module.weights = [*getattr(module, "weights", ()), variable]
    return variable


def first(tf, module, ids, mask):
    """A vector of the first token's."""
    if not hasattr(module, "encoded"):
        with tf.init_scope(), tf.variable_creator_scope(lambda make, **given: kept(module, make(**given))):
            module.encoded, module.head = encoder()
    return {"logits": module.head(module.encoded(ids, mask)[:, 0])}


def keras_means(tf, module, ids, mask):
    """The mean over tokens, of Keras' layers."""
    import keras

    if not hasattr(module, "model"):
        with tf.init_scope():
            module.model = keras_model(keras)
    return {"logits": module.model([ids, mask], training=False)}


def keras_model(keras):
    layers, ops = keras.layers, keras.ops
    ids, mask = (keras.Input([POSITIONS], dtype="int64", name=name) for name in ("ids", "mask"))
    real = ops.cast(mask, "bool")
    x = layers.Embedding(WORDS, 16)(ids) + layers.Embedding(POSITIONS, 16)(ops.arange(POSITIONS)[None])
    for _ in range(2):
        mixed = layers.MultiHeadAttention(2, 8)(x, x, attention_mask=real[:, None, :])
        x = layers.LayerNormalization()(x + mixed)
        x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, "gelu")(x)))
    return keras.Model([ids, mask], layers.Dense(3)(layers.GlobalAveragePooling1D()(x, mask=real)))


def by_positions():
    """A measured time is by decree that of the rows and the length, a third of it where filling is left out."""

    def compare(reference, candidates, left_s=None):
        def times(name, run):
            found = re.fullmatch(r"s0/b(\d+)(?:x(\d+))?/.*", name)
            if found is None:
                return np.full(3, 2e5)  # another way into plain TensorFlow
            us = int(found[1]) * int(found[2] or POSITIONS) * (0.3 if "packed" in name else 1.0)
            return np.full(3, us if np.isfinite(run(0.0, 1)).all() else np.inf)

        reference(0.0, 1)
        return np.full(3, 9e3), {name: times(name, run) for name, run in candidates.items()}

    def saturate(runs, cores, left_s=None):
        return dict.fromkeys(runs, (1000.0, 1))

    return mock.patch.multiple("tfopt_optimizer.measure", compare=compare, saturate=saturate)


RECORDS = ((3, 16, 1, 9, 5, 2, 12, 7), (4,), (16, 2), (8, 6, 5, 1))


def planned(compute, kind, tmp_path, lengths=RECORDS, variant="f32-packed"):
    model, folder = tmp_path / "model", tmp_path / "plan"
    save(model, compute, ids=([None, POSITIONS], kind), mask=([None, POSITIONS], kind))
    chosen = OptimizerFlags(
        allowed_batch_sizes=(1, 8), engines=("openvino",), optimize_budget_s=600.0, intra_op_threads=2
    )
    samples = tuple(texts(each, np.dtype(kind), seed) for seed, each in enumerate(lengths))
    job = OptimizeJob(model, folder, ("serve",), chosen, {"serving_default": samples}, "warmup")
    entrants = [e for e in table.entrants(chosen)[0] if e.variant in ("f32", variant)]
    with by_positions():
        plan = optimize(job, lambda line: None, entrants=entrants)
    return plan.signature("serving_default"), Servable.open(model, folder, plan)


def answered(runner, feeds):
    """How many calls left filling out for it."""
    expected = runner.run_reference(feeds)["logits"]
    run, calls = openvino_packed.PackedRequest.run, []

    def counted(self, given, outputs):
        calls.append(len(given["ids"]))
        return run(self, given, outputs)

    with mock.patch.object(openvino_packed.PackedRequest, "run", counted):
        found = runner.run(feeds)["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.nanmax(np.abs(expected), initial=1e-9))
    return calls


def said(run, feeds):
    with pytest.raises(EngineError) as refused:
        run(feeds)
    return refused.value.code


@pytest.mark.parametrize(("compute", "kind"), [(first, "int32"), (first, "int64"), (keras_means, "int64")])
def test_rows_of_all_lengths_are_answered_together(tmp_path, compute, kind):
    signature, servable = planned(compute, kind, tmp_path)
    assert {(b.variant, b.positions > 0) for b in signature.buckets if b.batch == 8} == {("f32-packed", True)}
    runner, random = servable.signatures["serving_default"], np.random.default_rng(6)
    for rows in range(2, 21):
        lengths = random.integers(0 if compute is first else 1, POSITIONS + 1, rows)
        # A row without a token is computed in full where every record has some.
        assert sum(answered(runner, texts(lengths, np.dtype(kind), rows))) == rows
    for length in (1, 5, 8, POSITIONS):
        assert answered(runner, texts([length] * 8, np.dtype(kind))) == [8]
    servable.close()


def test_streams_share_the_rows_of_a_call(tmp_path):
    signature, servable = planned(first, "int32", tmp_path, variant="f32-packed-s2")
    assert {b.variant for b in signature.buckets if b.batch == 8} == {"f32-packed-s2"}
    runner, random = servable.signatures["serving_default"], np.random.default_rng(7)
    assert runner.shortened.runners[POSITIONS].bucket_for(8).run.streams == 2
    for rows in (2, 3, 8, 8, 13):
        answered(runner, texts(random.integers(0, POSITIONS + 1, rows), np.int32, rows))
    assert answered(runner, texts([16, 3, 9, 1, 12, 2, 7, 4])) == [8]
    servable.close()


def test_where_weights_are_large_one_model_runs_all_rows(tmp_path):
    """Single ones too, and no length has a model of its own."""
    with mock.patch("tfopt_optimizer.contest.LARGE", 0), mock.patch("tfopt_optimizer.settle.LARGE", 0):
        signature, servable = planned(first, "int32", tmp_path)
    assert [(b.batch, b.variant, b.inner) for b in signature.buckets] == [
        (rows, "f32-packed", (POSITIONS,)) for rows in (1, 8)
    ]
    assert signature.shortening.lengths == ()
    assert [path.name for path in (tmp_path / "plan" / "s0").iterdir()] == ["openvino-f32-packed"]
    runner = servable.signatures["serving_default"]
    for lengths in ([3], [POSITIONS], [0], [5, 16, 1], list(range(1, 12))):
        assert sum(answered(runner, texts(lengths))) == len(lengths)
    servable.close()


@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_ids_outside_of_the_table_are_refused_wherever_they_stand(tmp_path, kind):
    _, servable = planned(first, kind, tmp_path)
    runner = servable.signatures["serving_default"]
    wrong = [(1, 3, WORDS), (2, 0, -1), (0, POSITIONS - 1, WORDS), (0, POSITIONS - 1, -5)]
    wrong += [(0, POSITIONS - 1, 2**32 + 1), (1, 2, 2**40)] if kind == "int64" else []
    for row, place, value in wrong:
        feeds = texts([4, 9, 16], np.dtype(kind))
        feeds["ids"][row, place] = value
        assert [said(runner.run_reference, feeds), said(runner.run, feeds)] == ["INVALID_ARGUMENT"] * 2
        assert answered(runner, texts([4, 9, 16], np.dtype(kind))) == [3]
    behind = texts([4, 9, 16], np.dtype(kind))
    behind["ids"][0, 12] = 7
    assert answered(runner, behind) == [3]
    servable.close()


def test_where_all_records_are_full_nothing_is_left_out(tmp_path):
    signature, servable = planned(first, "int32", tmp_path, [[POSITIONS] * 8, [POSITIONS]])
    assert {b.variant for b in signature.buckets} == {"f32"}
    assert answered(servable.signatures["serving_default"], texts([3, 9])) == []
    servable.close()


def test_an_answer_per_position_is_computed_in_full(tmp_path):
    def states(tf, module, ids, mask):
        first(tf, module, ids, mask)
        return {"logits": module.encoded(ids, mask)}

    signature, servable = planned(states, "int32", tmp_path)
    assert (signature.shortening, {b.variant for b in signature.buckets}) == (None, {"f32"})
    assert answered(servable.signatures["serving_default"], texts([3, 9])) == []
    servable.close()
