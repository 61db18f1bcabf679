"""What the packed graph is fed: which positions rows have, and where what is computed of them goes back to."""

import numpy as np
import pytest
from tfopt_optimizer.engines import openvino_packed
from tfopt_optimizer.passes.packing import OF_ROW, PLACES, POSITION, TOKENS
from tfopt_optimizer.plan import Filled, Shortening

SIZE = 40
PLAN = Shortening((Filled("ids", 1, 7.0, True),), SIZE, (), "")


def texts(*lengths):
    ids = np.full((len(lengths), SIZE), 7, np.int32)
    for row, length in enumerate(lengths):
        ids[row, :length] = 100 * (row + 1) + np.arange(length)
    return {"ids": ids, "weight": np.ones(len(lengths), np.float32)}


@pytest.mark.parametrize(
    ("lengths", "length", "count"),
    [
        ((3, 20, 1), 24, 32),  # 24 positions, and one in each row that is filling
        ((24, 24), 24, 48),  # no filling at all
        ((40, 40), 40, 80),
        ((40, 39), 40, 80),
        ((1,), 8, 16),
        ((16,), 16, 16),
        ((15, 15, 1), 16, 48),
        ((15, 15), 16, 32),
    ],
)
def test_what_goes_back_is_what_was_there_and_filling_elsewhere(lengths, length, count):
    feeds = texts(*lengths)
    found = openvino_packed.packed(PLAN, feeds)
    assert found["ids"].shape == found[PLACES].shape == (len(lengths), length)
    assert found[TOKENS].shape == (count,)
    packed = found["ids"].ravel()[found[TOKENS]]
    np.testing.assert_array_equal(packed[found[PLACES]], feeds["ids"][:, :length])
    np.testing.assert_array_equal(found[OF_ROW] * length + found[POSITION], found[TOKENS])
    assert {array.dtype for name, array in found.items() if name.startswith("tfopt")} == {np.dtype(np.int32)}
    assert found["weight"] is feeds["weight"]


def test_every_position_is_computed_once_and_one_of_filling_in_each_row():
    found = openvino_packed.packed(PLAN, texts(3, 20, 1))
    assert found[TOKENS][:27].tolist() == [*range(4), *range(24, 45), 48, 49]
    rows = found[OF_ROW][found[PLACES]]
    np.testing.assert_array_equal(rows, np.arange(3)[:, None] + np.zeros((3, 24), int))
    np.testing.assert_array_equal(found[POSITION][found[PLACES]], np.minimum(np.arange(24), np.array([[3], [20], [1]])))


def test_a_row_that_must_be_computed_in_full_has_all_positions():
    feeds = texts(3, 0)
    found = openvino_packed.packed(PLAN, feeds)
    assert found["ids"].shape == (2, SIZE)
    assert found[TOKENS].shape == (48,)  # 43, and one of filling
    np.testing.assert_array_equal(found[PLACES][1], np.arange(4, 44))
