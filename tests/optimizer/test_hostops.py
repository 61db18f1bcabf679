"""Every operation that the host runs itself, beside TensorFlow's own, on values that hypothesis finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tfopt_optimizer.errors import Declined
from tfopt_optimizer.split import hostops, stored
from tfopt_optimizer.split.farmhash import fingerprint64

pytestmark = pytest.mark.tensorflow

WORDS = ("red", "", b"\0", b"red\0", "grün".encode(), b"\xff\xfe", b"Red ")
TEXT = st.one_of(st.sampled_from([w if isinstance(w, bytes) else w.encode() for w in WORDS]), st.binary(max_size=200))
quick = settings(max_examples=60, deadline=None)


def strings(max_size=5):
    return st.lists(TEXT, max_size=max_size).map(lambda v: np.array([*v, b""], object)[:-1])


def run(op, attributes, *inputs, constants=(), reader=None):
    row = hostops.ROWS[op]
    assert row.takes(attributes)
    return row.make(attributes, constants, reader)(*inputs)


def same(ours, theirs):
    theirs = theirs.numpy()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


@quick
@given(text=st.one_of(TEXT, st.binary(min_size=60, max_size=300)))
def test_the_string_hash(tf, text):
    theirs = tf.strings.to_hash_bucket_fast([text], (1 << 63) - 1).numpy()[0]
    assert fingerprint64(text) % ((1 << 63) - 1) == theirs


@pytest.mark.parametrize("size", range(140))
def test_the_string_hash_of_every_length(tf, size):
    text = np.random.default_rng(size).bytes(size)
    ours = run("StringToHashBucketFast", {"num_buckets": "1000003"}, np.array([text], object))
    same(ours, tf.strings.to_hash_bucket_fast([text], 1000003))


@pytest.mark.parametrize("count", [1, 31, 32, 700])
def test_the_string_hash_of_many_words_of_all_lengths(tf, count):
    random = np.random.default_rng(count)
    words = [random.bytes(int(n)) for n in random.integers(0, 100, count)]
    text = np.array([*words, b""], object)[:-1].reshape(1, count)
    ours = hostops.hashed([text, text.T], [1000003, 7])
    same(ours[0], tf.strings.to_hash_bucket_fast(text, 1000003))
    same(ours[1], tf.strings.to_hash_bucket_fast(text.T, 7))
    assert hostops.hashed([text[:, :0]], [5])[0].shape == (1, 0)


@quick
@given(keys=strings())
def test_looking_words_up(tf, tmp_path_factory, keys):
    words = [w if isinstance(w, bytes) else w.encode() for w in WORDS]
    ids = np.arange(len(words), dtype=np.int64) * 7
    folder = tmp_path_factory.mktemp("table")
    writer = stored.Writer(folder)
    attributes = {"Tin": "string", "Tout": "int64"}
    attributes |= {"keys": str(writer.add(np.array(words, object))), "values": str(writer.add(ids))}
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(words, ids), -1)
    ours = run("LookupTableFindV2", attributes, keys, constants=[np.int64(-1)], reader=stored.Reader(folder))
    same(ours, table.lookup(tf.constant(keys, tf.string)))


@quick
@given(keys=arrays.arrays(np.int64, arrays.array_shapes(max_dims=2, max_side=4), elements=st.integers(-2, 6)))
def test_looking_numbers_up(tf, tmp_path_factory, keys):
    names = np.array([b"uno", b"", b"\xfftres"], object)
    folder = tmp_path_factory.mktemp("table")
    writer = stored.Writer(folder)
    attributes = {"Tin": "int64", "Tout": "string"}
    attributes |= {"keys": str(writer.add(np.arange(3))), "values": str(writer.add(names))}
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(np.arange(3), list(names)), b"?")
    given_default = np.array(b"?", object)
    ours = run("LookupTableFindV2", attributes, keys, constants=[given_default], reader=stored.Reader(folder))
    same(ours, table.lookup(tf.constant(keys)))


@quick
@given(text=strings())
@pytest.mark.parametrize(
    ("op", "attributes", "theirs"),
    [
        ("StringLower", {}, lambda tf, x: tf.strings.lower(x)),
        ("StringUpper", {"encoding": ""}, lambda tf, x: tf.strings.upper(x)),
        ("StringStrip", {}, lambda tf, x: tf.strings.strip(x)),
        ("StringLength", {"unit": "BYTE"}, lambda tf, x: tf.strings.length(x)),
        ("Shape", {"out_type": "int64"}, lambda tf, x: tf.shape(x, tf.int64)),
        ("Equal", {"T": "string"}, lambda tf, x: tf.equal(x, x)),
    ],
)
def test_text(tf, op, attributes, theirs, text):
    inputs = [text, text] if op == "Equal" else [text]
    same(run(op, attributes, *inputs), theirs(tf, tf.constant(text, tf.string)))


@quick
@given(text=strings())
def test_joining(tf, text):
    end = np.array(b"\xff!", object)
    ours = run("StringJoin", {"separator": "-"}, text, end, text)
    theirs = tf.strings.join([tf.constant(text, tf.string), tf.constant(end.item()), tf.constant(text, tf.string)], "-")
    same(ours, theirs)


NUMBERS = arrays.arrays(st.sampled_from([np.int32, np.int64, np.int8, np.bool_]), st.integers(0, 4))


@quick
@given(values=NUMBERS)
@pytest.mark.parametrize("to", ["float", "double", "int32", "int64", "int8", "bool"])
def test_casting_whole_numbers(tf, values, to):
    from tfopt_protos import dtypes

    attributes = {"SrcT": dtypes.name(tf.as_dtype(values.dtype).as_datatype_enum), "DstT": to}
    same(run("Cast", attributes, values), tf.cast(values, dtypes.NUMBERS[to]))


@quick
@given(values=NUMBERS)
def test_numbers_as_text(tf, values):
    from tfopt_protos import dtypes

    attributes = {"T": dtypes.name(tf.as_dtype(values.dtype).as_datatype_enum)}
    same(run("AsString", attributes, values), tf.strings.as_string(values))


@pytest.mark.parametrize(
    ("op", "attributes", "reason"),
    [
        ("StringLower", {"encoding": "utf-8"}, "StringLower with these attributes runs in TensorFlow alone"),
        ("AsString", {"T": "float"}, "AsString with these attributes runs in TensorFlow alone"),
        ("AsString", {"T": "int32", "width": "5"}, "AsString with these attributes runs in TensorFlow alone"),
        ("Cast", {"SrcT": "float", "DstT": "int32"}, "Cast with these attributes runs in TensorFlow alone"),
        ("Equal", {"T": "float"}, "Equal with these attributes runs in TensorFlow alone"),
        ("LookupTableFindV2", {"Tin": "string"}, "LookupTableFindV2 with these attributes runs in TensorFlow alone"),
        ("ParseExampleV2", {}, "ParseExampleV2 runs in TensorFlow alone"),
    ],
)
def test_what_is_not_computed_exactly_alike_is_refused(op, attributes, reason):
    assert hostops.refusal(op, attributes) == reason


@pytest.mark.parametrize(
    ("op", "attributes", "inputs", "constants"),
    [
        ("Assert", {}, [np.array([True, False])], []),
        ("GatherV2", {}, [np.array([3])], [np.array([b"a", b"b"], object), np.array(0)]),
        ("GatherV2", {}, [np.array([-1])], [np.array([b"a", b"b"], object), np.array(0)]),
        ("Reshape", {}, [np.arange(5)], [np.array([2, 3])]),
        ("Squeeze", {"squeeze_dims": "[0]"}, [np.arange(5)], []),
        ("StringJoin", {}, [np.array([b"a"] * 2, object), np.array([b"b"], object)], []),
    ],
)
def test_values_that_tensorflow_refuses_are_left_to_it(op, attributes, inputs, constants):
    with pytest.raises(Declined):
        run(op, attributes, *inputs, constants=constants)
