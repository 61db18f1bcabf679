"""Which images could be built for arm64: by the wheels that the index had when `make lock/arm64` asked."""

from __future__ import annotations

import pytest

from .conftest import script

arm64 = script("arm64")

# What keeps a lock from arm64, beyond names that are other ones there. A lock that is not named has all its wheels.
LACKING = {"tpu/tf-2.20": {"libtpu"}, "tpu/tf-2.21": {"libtpu"}}


@pytest.mark.parametrize("lock", arm64.locks())
def test_every_requirement_has_a_wheel_or_is_named(lock):
    answers = arm64.answers()
    lacking = {r for r in arm64.locks()[lock] if answers[arm64.instead(r) or r] != arm64.WHEEL}
    assert {requirement.partition("==")[0] for requirement in lacking} == LACKING.get(lock, set())


def test_the_answers_are_those_of_the_locks_as_they_are():
    wanted = {requirement for lock in arm64.locks().values() for requirement in lock}
    wanted |= {arm64.instead(requirement) for requirement in wanted} - {""}
    assert set(arm64.answers()) == wanted, "run `make lock/arm64`"
