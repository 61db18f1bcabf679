"""When is a failed attempt made again, and after how long: tables, without a socket."""

from __future__ import annotations

import pytest
from tfopt_client.deadline import Deadline
from tfopt_client.errors import Failure
from tfopt_client.pool import Pool
from tfopt_client.rest import retry_after
from tfopt_client.retry import Retry
from tfopt_client.rpc import timeout

UNSEEN = Failure("UNAVAILABLE", "", unseen=True)
LOST = Failure("UNAVAILABLE", "", temporary=True)
WRONG = Failure("INVALID_ARGUMENT", "")


def whole() -> float:
    return 1.0


def test_ceilings_double_up_to_the_limit_and_the_jitter_is_full() -> None:
    retry = Retry(attempts=6, first_s=1, most_s=5)
    assert [retry.wait_s(n, UNSEEN, 100, whole) for n in range(1, 7)] == [1, 2, 4, 5, 5, None]
    assert retry.wait_s(3, UNSEEN, 100, lambda: 0.0) == 0
    assert retry.wait_s(3, UNSEEN, 100, lambda: 0.25) == 1


@pytest.mark.parametrize(
    ("failure", "repeatable", "again"),
    [(UNSEEN, False, True), (LOST, False, False), (LOST, True, True), (WRONG, False, False), (WRONG, True, False)],
)
def test_what_may_have_run_is_sent_again_only_where_the_caller_says_so(
    failure: Failure, repeatable: bool, again: bool
) -> None:
    assert (Retry(repeatable=repeatable).wait_s(1, failure, 100, whole) is not None) == again


def test_retry_after_is_the_least_wait_and_no_wait_outlives_the_deadline() -> None:
    asked = Failure("UNAVAILABLE", "", unseen=True, retry_after_s=3)
    assert Retry(first_s=1).wait_s(1, asked, 100, lambda: 0.5) == 3.5
    assert Retry(first_s=1).wait_s(1, asked, 3, whole) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("x", None),
    ],
)
def test_retry_after_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=100.0) == seconds


def test_a_deadline_counts_down_and_ends() -> None:
    now = [10.0]
    deadline = Deadline(2, lambda: now[0])
    assert deadline.timeout() == 2
    now[0] = 12.5
    with pytest.raises(Failure) as caught:
        deadline.timeout()
    assert (caught.value.code, caught.value.temporary) == ("DEADLINE_EXCEEDED", False)
    assert Deadline(None).timeout() is None


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0015, b"1500u"), (99, b"99000000u"), (100, b"100000m"), (1e9, b"99999999S")]
)
def test_grpc_timeout(seconds: float, header: bytes) -> None:
    assert timeout(seconds) == header


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_s": -1}, {"first_s": 2, "most_s": 1}])
def test_impossible_policies(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected attempts"):
        Retry(**wrong)


class Free:
    def __init__(self) -> None:
        self.good, self.closed = True, False

    def usable(self) -> bool:
        return self.good

    def close(self) -> None:
        self.closed = True


def test_connections_are_kept_after_a_success_and_dropped_after_a_failure_or_when_they_went_stale() -> None:
    pool: Pool[Free] = Pool()
    with pool.taken(Free) as first:
        pass
    with pool.taken(Free) as again:
        assert again is first
    first.good = False
    with pool.taken(Free) as second:
        assert second is not first
    with pytest.raises(Failure), pool.taken(Free):
        raise LOST
    assert (first.closed, second.closed, pool.opened) == (True, True, 2)
