"""TFRecord files: equal to TensorFlow's, and every damage is told as TensorFlow tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tfopt_warmup import tfrecord

RECORDS = [b"hello", b"", b"\x00" * 40]


@pytest.fixture(scope="module")
def tf() -> Any:
    return pytest.importorskip("tensorflow")


def ours(path: Path) -> tuple[list[bytes], str]:
    found: list[bytes] = []
    try:
        found.extend(tfrecord.read(path))
    except tfrecord.CorruptError as error:
        return found, str(error)
    return found, ""


def theirs(tf: Any, path: Path) -> tuple[list[bytes], str]:
    found: list[bytes] = []
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(path)):
            found.append(record)
    except tf.errors.DataLossError as error:
        return found, error.message.split("'")[0]  # TensorFlow adds a second cause after a stray quote
    return found, ""


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "records"
    tfrecord.write(path, RECORDS)
    assert ours(path) == (RECORDS, "")
    assert [p.name for p in tmp_path.iterdir()] == ["records"]


def test_a_failing_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "records"
    tfrecord.write(path, [b"old"])

    def broken() -> Any:
        yield b"new"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        tfrecord.write(path, broken())
    assert ours(path) == ([b"old"], "")


@pytest.mark.tensorflow
def test_files_are_equal_to_tensorflows(tmp_path: Path, tf: Any) -> None:
    mine, real = tmp_path / "mine", tmp_path / "real"
    tfrecord.write(mine, RECORDS)
    with tf.io.TFRecordWriter(str(real)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert mine.read_bytes() == real.read_bytes()
    assert theirs(tf, mine) == (RECORDS, "")


@pytest.mark.tensorflow
def test_every_flipped_bit_and_every_cut_reads_as_in_tensorflow(tmp_path: Path, tf: Any) -> None:
    path = tmp_path / "records"
    tfrecord.write(path, RECORDS)
    good = path.read_bytes()
    damaged = [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(len(good))]
    damaged += [good[:size] for size in range(len(good))] + [good + b"x", good + b"x" * 40, b"text, not records"]
    outcomes = set()
    for data in damaged:
        path.write_bytes(data)
        assert ours(path) == theirs(tf, path), data
        outcomes.add(ours(path)[1].split(" at ")[0])
    assert outcomes == {"", "corrupted record", "truncated record"}


def test_a_huge_length_is_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "records"
    length = (1 << 60).to_bytes(8, "little")
    path.write_bytes(length + tfrecord._masked_crc(length).to_bytes(4, "little") + b"data")
    assert ours(path) == ([], "truncated record at 0")
