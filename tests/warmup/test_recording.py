"""Which requests of a stream become records, and what stands in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tfopt_protos import messages
from tfopt_warmup import records
from tfopt_warmup.recording import PER_SHAPE, Asked, Collection


def asked(*values: float, signature: str = "s", **rest) -> Asked:
    return Asked("predict", signature, {"x": np.float32(values)}, **rest)


def taken(collection: Collection, *several: Asked) -> list[bool]:
    return [collection.wanted(each) and collection.add(each) for each in several]


def test_the_first_of_every_shape_and_then_each_nth():
    collection = Collection(count=100, every=4)
    assert taken(collection, *(asked(i) for i in range(8))) == [True] + [False, False, True] + [False] * 3 + [True]
    assert taken(collection, asked(1, 2), asked(1, 3), asked(1, signature="t"), asked(0.5, 0.5)) == [
        True, False, True, True,
    ]  # fmt: skip


def test_the_same_values_are_kept_once():
    collection = Collection(count=100)
    text = Asked("predict", "s", {"x": np.array([b"ab", b"c"], object)})
    other = Asked("predict", "s", {"x": np.array([b"a", b"bc"], object)})
    assert taken(collection, asked(1), asked(1), asked(2), asked(1, outputs=("y",)), text, other, text) == [
        True, False, True, True, True, True, False,
    ]  # fmt: skip


def test_one_shape_does_not_take_all_the_room():
    collection = Collection(count=1000)
    assert sum(taken(collection, *(asked(i) for i in range(200)))) == PER_SHAPE
    assert taken(collection, asked(1, 2)) == [True]


def test_no_more_than_the_count():
    collection = Collection(count=2)
    assert taken(collection, asked(1), asked(2), asked(3)) == [True, True, False]
    assert collection.complete


def test_what_is_written_is_read_as_it_was(tmp_path: Path):
    example = messages.message("tensorflow.Example")()
    example.features.feature["age"].int64_list.value.append(42)
    data = np.array([example.SerializeToString()], object)
    several = [
        asked(1, 2, outputs=("y",)),
        Asked("predict", "t", {"a": np.array([b"x"], object), "b": np.int64([[7]])}),
        Asked("classify", "c", {"inputs": data}),
        Asked("regress", "r", {"inputs": data}),
    ]
    collection = Collection(count=10)
    assert all(taken(collection, *several))
    records.write(tmp_path / "assets.extra" / "file", collection.logs("m"))
    found = list(records.read(tmp_path / "assets.extra" / "file"))
    assert [(r.kind, r.model_name, r.runs[0].signature, r.runs[0].outputs) for r in found] == [
        ("predict", "m", "s", ("y",)), ("predict", "m", "t", ()), ("classify", "m", "c", ()), ("regress", "m", "r", ()),
    ]  # fmt: skip
    for record, one in zip(found, several, strict=True):
        np.testing.assert_equal(record.runs[0].feeds, dict(one.feeds))
