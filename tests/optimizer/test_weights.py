"""The weights file: every dtype, aligned, mapped."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from tfopt_optimizer.engines import weights


def test_weights_come_back_aligned_and_read_only(tmp_path):
    arrays = [
        np.arange(5, dtype=np.float32),
        np.array(3, dtype=np.int64),
        np.zeros([0, 4], np.float32),
        np.array([[True, False]]),
        np.array([1.5, 2.5], ml_dtypes.bfloat16),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    ]
    writer = weights.WeightsWriter(tmp_path)
    assert [writer.add(a) for a in arrays] == list(range(6))
    writer.close()
    found = weights.read(tmp_path)
    assert [(a.dtype, a.shape, a.tolist()) for a in found] == [(a.dtype, a.shape, a.tolist()) for a in arrays]
    full = [a for a in found if a.size]
    assert all(a.ctypes.data % weights.ALIGNMENT == 0 for a in full)
    assert not any(a.flags.writeable for a in full)


def test_a_model_without_weights_has_an_empty_file(tmp_path):
    weights.WeightsWriter(tmp_path).close()
    assert weights.read(tmp_path) == []


def test_a_second_writer_goes_on_behind_the_first(tmp_path):
    """One that replaced a killed one emptied the file, which earlier modules refer to and an engine had mapped."""
    first = weights.WeightsWriter(tmp_path)
    first.add(np.arange(5, dtype=np.float32))
    first.flush()
    first.add(np.arange(100.0))  # lost: it was killed before it said so
    mapped = weights.read(tmp_path)
    second = weights.WeightsWriter(tmp_path)
    assert second.add(np.arange(3)) == 1
    second.close()
    assert mapped[0].tolist() == [0, 1, 2, 3, 4]
    assert [a.tolist() for a in weights.read(tmp_path)] == [[0, 1, 2, 3, 4], [0, 1, 2]]
