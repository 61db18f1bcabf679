"""Who is not tried in the buckets between, and what is said of it: as a table."""

from __future__ import annotations

import pytest
from tfopt_optimizer import hopeless as hopeless_module
from tfopt_optimizer.choose import Trial
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.hopeless import behind, hopeless, inflexible
from tfopt_optimizer.plan import Measured

ENTRANT = Entrant("litert", "t1", "module:Worker")
NO_TIME = f"{hopeless_module.NO_TIME}, and openvino was found right"
FEW = "for batches of 8 rows or more"
BROKEN = "max error 0.02"
SLOW = "lost by more than 2x"


def trials(us=0.0, failed="", skipped=""):
    """A bucket's, in which the fastest takes 100 us."""
    own = Trial("litert", "t1", failed or skipped, bool(skipped), measured=Measured(us, us, 9) if us else None)
    return [Trial("tensorflow", "function", "", measured=Measured(100.0, 100.0, 9)), own]


@pytest.mark.parametrize(
    ("smallest", "largest", "said"),
    [
        ({"us": 500.0}, {"us": 150.0}, None),
        ({"failed": BROKEN}, {"us": 150.0}, None),
        ({"skipped": NO_TIME}, {"us": 150.0}, None),
        ({"us": 500.0}, {"us": 300.0}, "lost by more than 2x in the smallest and in the largest bucket"),
        ({"failed": BROKEN}, {"failed": "died"}, f"failed in the smallest and in the largest bucket: {BROKEN}"),
        ({"skipped": NO_TIME}, {"skipped": NO_TIME}, None),
        ({"skipped": FEW}, {"skipped": NO_TIME}, None),
        ({"skipped": FEW}, {"skipped": FEW}, FEW),
        # who had no time did not fail, and was not slow
        ({"skipped": NO_TIME}, {"failed": "died"}, f"in the smallest bucket: {NO_TIME}; in the largest: failed: died"),
        ({"us": 500.0}, {"skipped": NO_TIME}, f"in the smallest bucket: {SLOW}; in the largest: {NO_TIME}"),
        ({"failed": BROKEN}, {"us": 500.0}, f"in the smallest bucket: failed: {BROKEN}; in the largest: {SLOW}"),
    ],
)  # fmt: skip
def test_who_is_not_tried_between_and_why(smallest, largest, said):
    found = hopeless([ENTRANT], [trials(**smallest), trials(**largest)])
    assert found == ({} if said is None else {ENTRANT: said})


def test_nothing_is_known_of_a_bucket_in_which_plain_tensorflow_failed():
    assert hopeless([ENTRANT], [[], trials(failed=BROKEN)]) == {}


OTHER = Entrant("openvino", "f32", "module:Worker")


@pytest.mark.parametrize(("us", "tried"), [(100.0, True), (124.0, True), (126.0, False), (0.0, False)])
def test_who_was_near_at_the_full_length_is_tried_at_shorter_ones(us, tried):
    found = behind([ENTRANT], trials(us=us, skipped="" if us else NO_TIME), None)
    slow = "at the full length it was not within 1.25x of the fastest"
    assert found == ({} if tried else {ENTRANT: slow if us else f"at the full length: {NO_TIME}"})


def test_who_was_wrong_at_the_full_length_is_not_called_slow():
    assert behind([ENTRANT], trials(failed=BROKEN), None) == {ENTRANT: f"at the full length: {BROKEN}"}


def test_large_weights_are_not_kept_by_another_runner_for_shorter_lengths():
    plain, litert = trials(us=90.0)
    found = behind([ENTRANT, OTHER], [plain, litert], litert)
    assert found == {OTHER: "the weights are there once, for litert/t1, which runs the full length"}
    assert OTHER in behind([ENTRANT, OTHER], [plain, litert], plain)
    assert ENTRANT not in behind([ENTRANT, OTHER], [plain, litert], plain)


def test_at_shorter_lengths_streams_of_equal_parts_stand_back():
    """Of three rows on two streams one stream computes two; a length between others needs a runner that takes any."""
    names = [("openvino", "f32"), ("openvino", "f32-s2"), ("litert", "t2"), ("onnxruntime", "t2")]
    able = [Entrant(engine, variant, "module:Worker") for engine, variant in names]
    assert [e.variant for e in inflexible(able, near=False)] == ["f32-s2"]
    assert inflexible(able[1:], near=False) == {}  # without streams it was far behind
    assert [e.label for e in inflexible(able, near=True)] == ["openvino/f32-s2", "litert/t2"]
