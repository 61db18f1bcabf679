"""The litert engine: what it takes and refuses, and how its runners behave under many threads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from enginecases import Prepared, agree, feeds, hammer, place, plain, save, steps_of_another_thread, target
from tfopt_optimizer.engines import litert, litert_convert, tensorflow
from tfopt_optimizer.engines.base import Target
from tfopt_optimizer.errors import Declined, NotLowerable

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def engine(tmp_path):
    return lambda name: Prepared(name, tmp_path / name, litert.Worker(), litert_convert.Converter)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cnn", "serving_default"),
        ("multi", "serving_default"),
        ("scalar", "serving_default"),
        ("no_batch_outputs", "serving_default"),
        ("shared", "v2/top:1"),
        ("lookup", "serving_default"),
        ("mlp_keras", "serving_default"),
        ("mlp_keras_saved", "serving_default"),  # two handles per variable
        ("half_plus_two_v1_ref", "serving_default"),  # TF1's reference variables
    ],
)
def test_one_model_file_serves_every_bucket_as_plain_tensorflow_does(engine, name, key):
    prepared = engine(name)
    for batch in (1, 3, 8, 1):
        prepared.check(target(name, key, "t1", batch), seed=batch)
    prepared.check(target(name, key, "t2", 3))
    assert prepared.converted == 1
    assert prepared.prepared.artifact == "s0/litert"


def test_what_needs_static_shapes_has_a_model_per_bucket(engine):
    prepared = engine("sequence")
    for batch in (1, 4):
        prepared.check(target("sequence", "serving_default", "t1", batch))
        assert prepared.prepared.artifact == f"s0/litert-b{batch}"
    assert prepared.converted == 2


def test_strings_are_bytes_of_any_kind_in_and_out(engine):
    wanted = target("lookup", "serving_default", "t1", 5)
    words = np.array([b"red", b"blu\0e", b"", b"\xff\xfe", "grün".encode()], dtype=object)
    found = engine("lookup").runner(wanted)({"word": words, "id": np.arange(5)})
    assert found["index"].tolist() == [1, 3, 4, 99, 99]
    assert found["name"].tolist() == [b"uno", b"tres", b"?", b"?", b"?"]
    assert found["name"].dtype == object


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("strings", "LiteRT has no builtin operation for StringLength, StringLower of these types and shapes"),
        ("tabular", "LiteRT has no builtin operation for StringLower of these types and shapes"),
        ("dtypes", "LiteRT has no builtin operation for Mul, RealDiv of these types and shapes"),
    ],
)
def test_a_refusal_names_the_operations_and_is_remembered(tmp_path, monkeypatch, name, reason):
    converter = litert_convert.Converter()
    converter.open(place(name, tmp_path))
    for batch in (1, 2):
        with pytest.raises(NotLowerable) as refused:
            converter.prepare(target(name, "serving_default", "t1", batch))
        assert str(refused.value) == reason
        # Asked again it must not try again: without this method it would fail with another reason.
        monkeypatch.delattr(litert_convert.Converter, "_any_shape", raising=False)
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_a_flatbuffer_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(litert_convert, "LARGEST", 100)
    converter = litert_convert.Converter()
    converter.open(place("cnn", tmp_path))
    with pytest.raises(NotLowerable, match=r"0\.0 GB of variables do not fit into a LiteRT model"):
        converter.prepare(target("cnn", "serving_default", "t1", 1))


def test_a_lone_row_whose_dimension_litert_loses_runs_as_two(engine, tmp_path, monkeypatch):
    def embedded(tf, module, word):
        rows = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([-1, 2], tf.int64))
        module.words = tf.lookup.StaticHashTable(rows, 0)
        index = module.words.lookup(word)
        index = tf.where(index < 0, index + 5, index)
        return {"vector": tf.gather(tf.reshape(tf.range(10.0), [5, 2]), index)}

    save(tmp_path / "embedded", embedded, word=([None], "string"))
    monkeypatch.setattr("savedmodels.path", lambda name: tmp_path / name)
    wanted, word = target("embedded", "serving_default", "t1", 1), {"word": np.array([b"a"], dtype=object)}
    prepared = engine("embedded")
    assert prepared.runner(wanted)(word)["vector"].shape == (2,)  # rows are not known to be independent
    runner = prepared.runner(dataclasses.replace(wanted, rows=1))
    assert runner(word)["vector"].tolist() == [[8.0, 9.0]]
    assert isinstance(runner, litert.TwoRows)
    assert not isinstance(prepared.runner(target("embedded", "serving_default", "t1", 2)), litert.TwoRows)


@pytest.mark.parametrize(("variant", "batches"), [("t1", (1, 4, 1, 7)), ("t2", (1, 4, 1, 7)), ("s2", (4, 7, 2))])
def test_threads_with_requests_of_different_sizes_share_the_interpreters(engine, variant, batches):
    prepared, calls = engine("mlp_keras"), []
    for batch in batches:
        wanted = target("mlp_keras", "serving_default", variant, batch)
        given = feeds(wanted, seed=batch)
        expected, runner = plain("mlp_keras", wanted, given), prepared.runner(wanted)
        calls.append(lambda r=runner, g=given, e=expected: agree(e, r(g)))
    hammer(calls)


def test_a_batch_runs_as_parts_on_interpreters_of_one_thread_each(engine, monkeypatch):
    made, session = [], litert.Session
    monkeypatch.setattr(litert, "Session", lambda path, threads: made.append(threads) or session(path, threads))
    runner = engine("cnn").check(target("cnn", "serving_default", "s2", 5))
    assert made == [1, 1]
    assert list(runner(feeds(target("cnn", "serving_default", "s2", 5)), ["scores"]))


def test_what_has_fewer_rows_than_parts_or_inputs_without_them_is_not_cut(engine, tmp_path):
    with pytest.raises(NotLowerable, match="are not cut into 2 parts"):
        engine("cnn").runner(target("cnn", "serving_default", "s2", 1))
    with pytest.raises(NotLowerable, match="are not cut into 2 parts"):
        engine("scalar").runner(target("scalar", "serving_default", "s2", 4))


def test_a_part_that_is_declined_declines_the_batch_and_harms_no_later_one(engine):
    wanted = target("lookup", "serving_default", "s2", 4)
    runner, good = engine("lookup").runner(wanted), feeds(wanted)
    for place_ in (0, 3):
        ids = good["id"].copy()
        ids[place_] = 1000
        with pytest.raises(Declined, match="gather index out of bounds"):
            runner({**good, "id": ids})
        agree(plain("lookup", wanted, good), runner(good))


def test_a_call_lets_other_threads_run(engine):
    wanted = target("cnn", "serving_default", "t1", 1024)
    runner, given = engine("cnn").runner(wanted), feeds(wanted)
    assert steps_of_another_thread(lambda: runner(given)) > 0


def test_values_that_litert_cannot_take_are_declined_and_do_no_harm(engine):
    wanted = target("lookup", "serving_default", "t1", 1)
    runner, good = engine("lookup").runner(wanted), feeds(wanted)
    with pytest.raises(Declined, match="gather index out of bounds"):
        runner({**good, "id": np.array([1000])})
    agree(plain("lookup", wanted, good), runner(good))
    assert list(runner(good, ["index"])) == ["index"]


def test_a_file_that_is_missing_or_broken_says_so(tmp_path):
    opener, wanted = litert.Opener(place("cnn", tmp_path), None), target("cnn", "serving_default", "t1", 1)
    opened = Target(wanted.signature, "t1", wanted.shapes, "s0/litert")
    with pytest.raises(FileNotFoundError, match=r"s0/litert/model\.tflite"):
        opener.runner(opened, print)
    (tmp_path / "s0" / "litert").mkdir(parents=True)
    (tmp_path / "s0" / "litert" / litert.MODEL).write_bytes(b"not a model")
    with pytest.raises(NotLowerable, match="the LiteRT runtime does not take it: "):
        opener.runner(opened, print)


def test_the_importer_of_this_tensorflow_is_the_one_we_call(tmp_path):
    """import_signature uses a private class: its model equals the public converter's."""
    here = place("cnn", tmp_path)
    tf = tensorflow.tensorflow(here)
    public = tf.lite.TFLiteConverter.from_saved_model(str(here.model_dir), signature_keys=["serving_default"]).convert()
    ours = litert_convert.import_signature(tf, here, "serving_default")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    given = np.random.default_rng(1).standard_normal((2, 16, 16, 3)).astype(np.float32)
    answers = []
    for folder, model in (("a", public), ("b", ours)):
        (tmp_path / folder / litert.MODEL).write_bytes(model)
        wanted = dataclasses.replace(target("cnn", "serving_default", "t1", 2), folder=folder)
        answers.append(litert.Models(tmp_path).runner(wanted)({"image": given}))
    agree(*answers)
    assert abs(len(public) - len(ours)) < 1024
