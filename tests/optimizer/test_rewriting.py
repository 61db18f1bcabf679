"""Models of a fixed length: engines are given a graph whose length is open, and rows run at their own lengths."""

from __future__ import annotations

import itertools
import re
from unittest import mock

import numpy as np
import pytest
from enginecases import save
from tfopt_optimizer import shortening
from tfopt_optimizer.engines import table
from tfopt_optimizer.errors import EngineError
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.plan import read
from tfopt_optimizer.servable import Servable

pytestmark = pytest.mark.tensorflow
LENGTH, WIDTH, HEADS, WORDS = 32, 16, 2, 40
random = np.random.default_rng(3)


def weight(*shape):
    return (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


TABLE, PLACES = weight(WORDS, WIDTH) * 4, weight(LENGTH, WIDTH) * 4
BLOCKS = [
    [weight(WIDTH, WIDTH) for _ in range(4)] + [weight(WIDTH, 4 * WIDTH), weight(4 * WIDTH, WIDTH)] for _ in range(2)
]
HEAD = weight(WIDTH, 3)


def norm(tf, x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-6)


def heads(tf, x):
    return tf.transpose(tf.reshape(x, [-1, LENGTH, HEADS, WIDTH // HEADS]), [0, 2, 1, 3])


def encoded(tf, ids, mask):
    """BERT's arithmetic at a length of 32."""
    x = norm(tf, tf.gather(TABLE, ids) + PLACES)
    hidden = (1.0 - tf.cast(mask[:, None, None, :], tf.float32)) * -10000.0
    for query, key, value, out, wide, narrow in BLOCKS:
        scores = tf.matmul(heads(tf, x @ query), heads(tf, x @ key), transpose_b=True) / np.float32(3.0) + hidden
        mixed = tf.matmul(tf.nn.softmax(scores), heads(tf, x @ value))
        x = norm(tf, x + tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, LENGTH, WIDTH]) @ out)
        x = norm(tf, x + tf.nn.gelu(x @ wide) @ narrow)
    return x


def classified(tf, module, ids, mask):
    return {"logits": encoded(tf, ids, mask)[:, 0] @ HEAD}


def pooled(tf, module, ids, mask):
    """The mean over tokens, padding left out."""
    real = tf.cast(mask, tf.float32)[:, :, None]
    return {"logits": tf.reduce_sum(encoded(tf, ids, mask) * real, 1) / tf.reduce_sum(real, 1) @ HEAD}


def pointing(tf, module, ids, mask):
    """That mean as a direction, as sentence encoders give it; of no token at all it is zeros."""
    real = tf.cast(mask, tf.float32)[:, :, None]
    mean = tf.reduce_sum(encoded(tf, ids, mask) * real, 1) / tf.maximum(tf.reduce_sum(real, 1), 1e-9)
    return {"logits": mean * tf.minimum(tf.math.rsqrt(tf.reduce_sum(mean * mean, -1, keepdims=True)), 1e7)}


def averaged(tf, module, ids, mask):
    """The mean over all positions: padding counts."""
    return {"logits": tf.reduce_mean(encoded(tf, ids, mask), 1) @ HEAD}


def whole(tf, module, ids, mask):
    return {"states": encoded(tf, ids, mask)}


def texts(lengths, seed=0):
    mask = (np.arange(LENGTH)[None] < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.random.default_rng(seed).integers(1, WORDS, mask.shape).astype(np.int32) * mask
    return {"ids": ids, "mask": mask}


SAMPLES = tuple(
    texts(lengths, seed) for seed, lengths in enumerate([[5], [7], [15], [32], [3, 30, 14, 8], [16, 6, 9, 2]])
)


def by_length(us=lambda rows, length: rows * length):
    """A measured time is by decree that of the rows and the length, and ten times as long on plain TensorFlow."""

    def compare(reference, candidates, left_s=None):
        def times(name, run):
            found = re.fullmatch(r"s0/b(\d+)(?:x(\d+))?/.*", name)
            if found is None:
                return np.full(3, 2e5)  # another way into plain TensorFlow
            rows, length = found.groups()
            return np.full(3, us(int(rows), int(length or LENGTH)) if np.isfinite(run(0.0, 1)).all() else np.inf)

        reference(0.0, 1)
        return np.full(3, 9e3), {name: times(name, run) for name, run in candidates.items()}

    def saturate(runs, cores, left_s=None):
        return dict.fromkeys(runs, (1000.0, 1))

    return mock.patch.multiple("tfopt_optimizer.measure", compare=compare, saturate=saturate)


def planned(compute, tmp_path, engine="litert", variant="t1", *, samples=SAMPLES, pace=None, twin=(), **flags):
    model, folder = tmp_path / "model", tmp_path / "plan"
    keys = ("serving_default", "twin") if twin else ("serving_default",)
    save(model, compute, keys, ids=([None, LENGTH], "int32"), mask=([None, LENGTH], "int32"))
    flags = {"allow_precompilation": engine == "xla", "intra_op_threads": 2, **flags}
    chosen = OptimizerFlags(allowed_batch_sizes=(1, 4), engines=(engine,), optimize_budget_s=600.0, **flags)
    given = {"serving_default": samples, "twin": twin}
    job = OptimizeJob(model, folder, ("serve",), chosen, given, "warmup", made_up=("twin",))
    entrants = [e for e in table.entrants(chosen)[0] if e.variant in (variant, "f32")]
    with pace or by_length():
        plan = optimize(job, lambda line: None, entrants=entrants)
    assert read(folder) == plan
    return model, folder, plan


def same(runner, feeds):
    found, expected = runner.run(feeds), runner.run_reference(feeds)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)


ENGINES = [
    ("litert", "t1"),
    ("openvino", "f32"),
    pytest.param("onnxruntime", "t1", marks=pytest.mark.slow),
    ("xla", "pjrt"),
]


@pytest.mark.parametrize(("engine", "variant"), ENGINES)
def test_texts_run_at_the_lengths_that_they_have_and_are_answered_as_before(tmp_path, engine, variant):
    model, folder, plan = planned(classified, tmp_path, engine, variant)
    signature = plan.signature("serving_default")
    takes_any = engine in ("openvino", "onnxruntime")  # with one model for all lengths there are more of them
    shorter = (8, 16, 24) if takes_any else (8, 16)
    assert (signature.shortening.size, signature.shortening.lengths) == (LENGTH, shorter)
    assert {(f.name, f.value, f.needed) for f in signature.shortening.inputs} == {("ids", 0, True), ("mask", 0, True)}
    assert [(b.batch, b.inner, b.engine) for b in signature.buckets] == [
        *((rows, (length,), engine) for length in (32, *reversed(shorter)) for rows in (1, 4)),
    ]
    open_ = [(b.batch, b.inner) for b in signature.buckets if not b.static]  # alone a row has a model of its length
    assert open_ == ([(1, (24,)), (4, (24,)), (4, (16,)), (4, (8,))] if takes_any else [])
    assert signature.buckets[-1].shapes == {"ids": (4, 8), "mask": (4, 8)}
    assert "products are computed for the positions that are read alone" in signature.rewritten

    servable = Servable.open(model, folder, plan)
    runner = servable.signatures["serving_default"]
    ran = counted(runner)
    asked = [[1], [2], [8], [9], [31], [32], [3, 30, 9], [1] * 7, [5, 6, 20], list(range(1, 33))]
    for seed, lengths in enumerate(asked):
        same(runner, texts(lengths, 50 + seed))
    assert set(ran) == {*shorter, 32}
    servable.close()


def test_rows_of_all_lengths_run_side_by_side_on_streams(tmp_path):
    pace = by_length(lambda rows, length: rows * length * (1.0 if rows == 1 else 0.6))
    model, folder, plan = planned(classified, tmp_path, "openvino", "f32-s2p1", pace=pace)
    signature = plan.signature("serving_default")
    assert {(b.batch, b.variant, b.static) for b in signature.buckets if b.inner != (LENGTH,)} == {
        (1, "f32", True), (1, "f32", False), (4, "f32-s2p1", False),
    }  # fmt: skip
    servable = Servable.open(model, folder, plan)
    runner, calls = servable.signatures["serving_default"], []
    side = runner.shortened._planned[1]
    side.each = lambda given, outputs, inside=side.each: calls.append(len(given)) or inside(given, outputs)
    for seed, lengths in enumerate([[3, 30, 9], [1] * 7, [5, 6, 20], [4], [32, 2, 3], list(range(1, 33))]):
        same(runner, texts(lengths, 70 + seed))
    assert calls[:4] == [2, 7, 3, 2]
    servable.close()


def counted(runner):
    """How many rows ran at each length from now on."""
    ran = {}
    for length, one in runner.shortened.runners.items():

        def run(bucket, feeds, rows, outputs, *, length=length, inside=one.run_in_bucket):
            ran[length] = ran.get(length, 0) + rows
            return inside(bucket, feeds, rows, outputs)

        one.run_in_bucket = run
    return ran


def test_who_says_something_behind_the_text_or_nothing_at_all_is_computed_in_full(tmp_path):
    model, folder, plan = planned(classified, tmp_path)
    servable = Servable.open(model, folder, plan)
    runner = servable.signatures["serving_default"]
    ran = counted(runner)
    behind = texts([4, 4])
    behind["ids"][0, 20] = 7
    nothing = texts([4, 4])
    nothing["mask"][0] = 0
    holes = texts([6, 6])
    holes["mask"][0, 2:4] = 0
    for feeds in (behind, nothing, holes):
        same(runner, feeds)
    assert ran == {32: 2, 8: 4}
    servable.close()


def test_what_is_made_up_for_a_twin_does_not_count_beside_records(tmp_path):
    """Keras exports each model twice, and clients have used one of the two: rows of any ids and mask are full."""
    full = tuple(texts([LENGTH], seed) for seed in range(30))
    model, folder, plan = planned(classified, tmp_path, twin=full)
    for key in ("serving_default", "twin"):
        assert plan.signature(key).shortening.lengths == (8, 16)
        assert plan.signature(key).shortening.reason == "62% of the records' 32 positions are filling"
    servable = Servable.open(model, folder, plan)
    same(servable.signatures["twin"], texts([5, 30, 12]))
    servable.close()


def test_who_sends_another_shape_is_refused_as_plain_tensorflow_does(tmp_path):
    model, folder, plan = planned(classified, tmp_path)
    servable, plain = Servable.open(model, folder, plan), Servable.open(model)
    text = texts([5])
    for feeds in (
        {name: array[:, :5] for name, array in text.items()},
        {name: array[0] for name, array in text.items()},
        {name: np.int32(3) for name in text},
        {name: array.astype("S4").astype(object) for name, array in text.items()},
    ):
        said = []
        for one in (plain, servable):
            with pytest.raises(EngineError) as refused:
                one.signatures["serving_default"].run(feeds)
            said.append(refused.value.code)
        assert said == ["INVALID_ARGUMENT"] * 2
    servable.close()
    plain.close()


def test_records_filled_up_in_front_or_with_nothing_in_them_keep_no_others_from_being_shortened(tmp_path):
    front = {name: np.ascontiguousarray(array[:, ::-1]) for name, array in texts([5]).items()}
    samples = (front, *SAMPLES, texts([0]))
    model, folder, plan = planned(classified, tmp_path, "openvino", "f32", samples=samples)
    assert plan.signature("serving_default").shortening.lengths == (8, 16, 24)
    servable = Servable.open(model, folder, plan)
    runner = servable.signatures["serving_default"]
    ran = counted(runner)
    for feeds in (front, texts([0]), texts([0, 5, 12, 0, 32])):
        same(runner, feeds)
    assert ran == {32: 5, 8: 1, 16: 1}
    servable.close()


def bounded(below):
    """What Hugging Face's models say of their ids; the table has as many rows."""

    def compute(tf, module, ids, mask):
        if not hasattr(module, "inside"):
            module.table = tf.Variable(TABLE)

            @tf.function(autograph=False)
            def inside(ids, mask):
                tf.debugging.assert_less(ids, below)
                x = norm(tf, tf.gather(module.table, ids) + PLACES)
                scores = tf.matmul(x, x, transpose_b=True)
                scores += (1.0 - tf.cast(mask[:, None, :], tf.float32)) * -10000.0
                return tf.matmul(tf.nn.softmax(scores), x)[:, 0] @ HEAD

            module.inside = inside
        return {"logits": module.inside(ids, mask)}

    return compute


def test_an_assertion_that_a_look_up_makes_as_well_keeps_no_length_fixed(tmp_path):
    model, folder, plan = planned(bounded(WORDS), tmp_path)
    assert plan.signature("serving_default").shortening.lengths == (8, 16)
    assert {b.engine for b in plan.signature("serving_default").buckets} == {"litert"}
    servable = Servable.open(model, folder, plan)
    runner = servable.signatures["serving_default"]
    for lengths in ([1], [5, 12, 32]):
        same(runner, texts(lengths, 9))
    beyond = texts([5, 12], 9)
    beyond["ids"][1, 3] = WORDS
    with pytest.raises(EngineError, match=r"assertion failed|indices"):
        runner.run(beyond)
    servable.close()


@pytest.mark.parametrize("engine", [("litert", "t1"), ("xla", "pjrt")])
def test_an_assertion_of_something_else_keeps_engines_out_and_nothing_is_rewritten(tmp_path, engine):
    _, _, plan = planned(bounded(WORDS - 1), tmp_path, *engine)
    signature = plan.signature("serving_default")
    assert (signature.shortening, signature.rewritten) == (None, "")
    assert {b.engine for b in signature.buckets} == {"tensorflow"}


@pytest.mark.parametrize("compute", [pooled])
def test_a_mean_over_the_tokens_alone_is_shortened(tmp_path, compute):
    model, folder, plan = planned(compute, tmp_path)
    assert plan.signature("serving_default").shortening.lengths == (8, 16)
    servable = Servable.open(model, folder, plan)
    for lengths in ([1], [5, 12, 32]):
        same(servable.signatures["serving_default"], texts(lengths, 9))
    servable.close()


def test_a_text_without_tokens_points_nowhere(tmp_path):
    model, folder, plan = planned(pointing, tmp_path)
    assert {b.engine for b in plan.signature("serving_default").buckets} == {"litert"}
    servable = Servable.open(model, folder, plan)
    runner, nothing = servable.signatures["serving_default"], texts([4, 4, 0])
    nothing["mask"][0] = 0
    same(runner, nothing)
    assert (runner.run(nothing)["logits"][[0, 2]] == 0).all()
    servable.close()


def test_a_mean_over_everything_is_computed_in_full_and_the_log_says_why(tmp_path):
    model, folder, plan = planned(averaged, tmp_path)
    signature = plan.signature("serving_default")
    assert signature.shortening is None
    assert [(b.batch, b.inner) for b in signature.buckets] == [(1, ()), (4, ())]
    said = "serving_default: engines are not given a graph in which lengths are opened: on the first 1 positions of "
    assert any(line.startswith(f"{said}records it answers otherwise: max error ") for line in plan.log)
    servable = Servable.open(model, folder, plan)
    same(servable.signatures["serving_default"], texts([5, 12], 9))
    servable.close()


def test_an_output_of_the_whole_length_keeps_it(tmp_path):
    _, _, plan = planned(whole, tmp_path)
    assert plan.signature("serving_default").shortening is None
    assert any("rows are computed at their full length, though" in line and "'states'" in line for line in plan.log)


def test_records_without_padding_shorten_nothing_and_the_slice_is_still_used(tmp_path):
    samples = (texts([32]), texts([32, 31, 32, 32]))
    _, _, plan = planned(classified, tmp_path, samples=samples)
    signature = plan.signature("serving_default")
    assert signature.shortening is None
    assert signature.rewritten.endswith("requests gave plain TensorFlow's answers")
    assert [b.inner for b in signature.buckets] == [(), ()]


def test_a_length_keeps_the_buckets_that_pay(tmp_path):
    pace = by_length(lambda rows, length: rows * (length if rows == 1 or length > 8 else 30))
    _, _, plan = planned(classified, tmp_path, pace=pace)
    signature = plan.signature("serving_default")
    assert [(b.batch, *b.inner) for b in signature.buckets] == [(1, 32), (4, 32), (1, 16), (4, 16), (1, 8)]


def test_a_length_that_does_not_pay_has_no_bucket(tmp_path):
    pace = by_length(lambda rows, length: rows * (16 if length == 8 else length))
    _, _, plan = planned(classified, tmp_path, pace=pace)
    assert plan.signature("serving_default").shortening.lengths == (16,)
    assert {b.inner for b in plan.signature("serving_default").buckets} == {(32,), (16,)}
    said = "serving_default: rows are computed at 16 of 32 positions where they are no longer; 8 would not pay"
    assert said in plan.log


def test_lengths_that_nobody_is_tried_at_do_not_keep_memory_from_deciding(tmp_path):
    _, _, plan = planned(classified, tmp_path, optimize_for="memory")
    assert plan.signature("serving_default").shortening.lengths == (8, 16)
    assert any(line.startswith("serving_default: for memory: ") for line in plan.log)


@pytest.mark.slow
def test_compression_is_checked_on_rows_that_it_was_not_calibrated_on(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("tfopt_optimizer.shortening.rows_of_level", recorded(seen, shortening.rows_of_level))
    lengths = itertools.cycle([5, 7, 15, 32, 3, 30, 14, 8, 16, 6, 9, 2])
    samples = tuple(texts([next(lengths)], seed) for seed in range(40))
    _, _, plan = planned(
        classified, tmp_path, "openvino", "int8-weights", samples=samples,
        allow_compression=True, lossy_max_rel_error=0.5, lossy_mean_rel_error=0.5,
    )  # fmt: skip
    for bucket in plan.signature("serving_default").buckets:
        lossy = next(c for c in bucket.candidates if c.variant == "int8-weights")
        assert lossy.agreement is not None, lossy.reason
    assert 0 < seen["rows"] < 40


def recorded(seen, function):
    def call(plan, rows, size, below):
        seen["rows"] = rows.count
        return function(plan, rows, size, below)

    return call
