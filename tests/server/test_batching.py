"""The batching policy with made-up times: no clock, no threads, no arrays. A request is (name, rows)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tfopt_server.batching import ALONE, Batcher, Company, Rule, batches_of, cheapest, opportunistic, refuse, serving
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.errors import Code, ServingError

Cut = tuple[str, int, int]


def taken(batcher: Batcher[str], now: float) -> list[Cut] | None:
    batch = batcher.take(now)
    return None if batch is None else [(p.task, p.start, p.stop) for p in batch]


def offered(rule: Rule, *rows: int, now: float = 0.0) -> Batcher[str]:
    batcher: Batcher[str] = Batcher()
    for i, n in enumerate(rows):
        batcher.offer("group", rule, f"r{i}", n, now=now)
    return batcher


def everything(batcher: Batcher[str], now: float) -> list[list[Cut]]:
    batches = []
    while (batch := taken(batcher, now)) is not None:
        batches.append(batch)
    return batches


def refusal(batcher: Batcher[str], rule: Rule, rows: int) -> tuple[Code, str]:
    with pytest.raises(ServingError) as caught:
        batcher.offer("group", rule, "late", rows, now=0.0)
    return caught.value.code, caught.value.message


class TestOpportunistic:
    rule = opportunistic(8, cut=True, merge=True, cost_us=None)

    def test_nobody_waits(self) -> None:
        assert taken(offered(self.rule, 1, now=5.0), 5.0) == [("r0", 0, 1)]

    def test_what_came_while_the_runners_were_busy_is_one_batch_and_the_rest_the_next(self) -> None:
        batches = everything(offered(self.rule, *[3] * 4), 0.0)
        assert batches == [[("r0", 0, 3), ("r1", 0, 3)], [("r2", 0, 3), ("r3", 0, 3)]]

    def test_a_large_request_is_cut_into_the_largest_bucket(self) -> None:
        batches = everything(offered(self.rule, 20, 2), 0.0)
        assert batches == [[("r0", 0, 8)], [("r0", 8, 16)], [("r0", 16, 20), ("r1", 0, 2)]]

    def test_without_a_static_bucket_nothing_is_cut(self) -> None:
        batches = everything(offered(opportunistic(8, cut=False, merge=True, cost_us=None), 20, 3, 5), 0.0)
        assert batches == [[("r0", 0, 20)], [("r1", 0, 3), ("r2", 0, 5)]]

    def test_where_merging_did_not_pay_each_runs_alone_but_large_ones_are_still_cut(self) -> None:
        batches = everything(offered(opportunistic(8, cut=True, merge=False, cost_us=None), 1, 9), 0.0)
        assert batches == [[("r0", 0, 1)], [("r1", 0, 8)], [("r1", 8, 9)]]

    def test_the_cut_is_where_a_row_costs_least(self) -> None:
        costs = {1: 260.0, 2: 300.0, 4: 350.0, 8: 560.0, 16: 1100.0}
        rule = opportunistic(16, cut=True, merge=True, cost_us=lambda rows: costs[min(b for b in costs if b >= rows)])
        assert [len(b) for b in everything(offered(rule, *[1] * 9), 0.0)] == [8, 1]
        assert [len(b) for b in everything(offered(rule, *[1] * 3), 0.0)] == [3]
        linear = opportunistic(16, cut=True, merge=True, cost_us=lambda rows: 100.0 * rows)
        assert [len(b) for b in everything(offered(linear, *[1] * 9), 0.0)] == [9]

    def test_requests_outside_the_plan_run_alone_and_whole(self) -> None:
        assert everything(offered(ALONE, 1000, 1), 0.0) == [[("r0", 0, 1000)], [("r1", 0, 1)]]


class TestServing:
    parameters = BatchingParameters(max_batch_size=4, batch_timeout_micros=1000, max_enqueued_batches=2)
    rule = serving(parameters, None)

    def test_a_batch_runs_when_it_is_full_or_its_first_request_has_waited(self) -> None:
        batcher = offered(self.rule, 1, 1, now=10.0)
        assert (taken(batcher, 10.0009), batcher.due()) == (None, 10.001)
        assert taken(batcher, 10.001) == [("r0", 0, 1), ("r1", 0, 1)]
        assert taken(offered(self.rule, 1, 3, now=10.0), 10.0) == [("r0", 0, 1), ("r1", 0, 3)]

    def test_a_request_that_does_not_fit_closes_the_batch_before_it(self) -> None:
        batcher = offered(self.rule, 3, 2, now=10.0)
        assert taken(batcher, 10.0) == [("r0", 0, 3)]
        assert taken(batcher, 10.0) is None
        assert taken(batcher, 10.001) == [("r1", 0, 2)]

    def test_a_request_larger_than_a_batch_is_refused(self) -> None:
        message = "Task size 5 is larger than maximum input batch size 4"
        assert refusal(offered(self.rule), self.rule, 5) == (Code.INVALID_ARGUMENT, message)

    def test_a_full_queue_refuses_and_stays_as_it_was(self) -> None:
        batcher = offered(self.rule, 3, 3)
        assert refusal(batcher, self.rule, 2) == (
            Code.UNAVAILABLE,
            "The batch scheduling queue to which this task was submitted is full; "
            "currently 2 batches enqueued and max_enqueued_batches is 2",
        )
        batcher.offer("group", self.rule, "fits", 1, now=0.0)
        assert everything(batcher, 1.0) == [[("r0", 0, 3)], [("r1", 0, 3), ("fits", 0, 1)]]

    def test_splitting_fills_batches_and_counts_capacity_in_rows(self) -> None:
        parameters = BatchingParameters(
            max_batch_size=10, max_enqueued_batches=3, enable_large_batch_splitting=True, max_execution_batch_size=4
        )
        rule = serving(parameters, None)
        batcher = offered(rule, 3, 6)
        assert refusal(batcher, rule, 4) == (
            Code.UNAVAILABLE,
            "The batch scheduling queue to which this task was submitted is full; task size is 4 but scheduling "
            "capacity is only 3 (num_enqueued_batches=3, max_enqueued_batches=3, open_batch_size=1, "
            "max_execution_batch_size=4)",
        )
        assert everything(batcher, 1.0) == [[("r0", 0, 3), ("r1", 0, 1)], [("r1", 1, 5)], [("r1", 5, 6)]]

    def test_a_bucket_smaller_than_the_allowed_batch_cuts_instead_of_refusing(self) -> None:
        batches = everything(offered(serving(BatchingParameters(max_batch_size=100), 4), 9), 1.0)
        assert batches == [[("r0", 0, 4)], [("r0", 4, 8)], [("r0", 8, 9)]]

    def test_no_enqueued_batches_means_one(self) -> None:
        rule = serving(BatchingParameters(max_batch_size=4, max_enqueued_batches=0), None)
        assert refusal(offered(rule, 4), rule, 1)[0] is Code.UNAVAILABLE


def test_the_group_that_has_been_ready_for_longest_goes_first() -> None:
    waiting = Rule(limit=8, wait_s=1.0)
    now = Rule(limit=8)
    batcher: Batcher[str] = Batcher()
    batcher.offer("slow", waiting, "a", 1, now=0.0)
    batcher.offer("fast", now, "b", 1, now=0.5)
    batcher.offer("other", now, "c", 1, now=0.4)
    order = [taken(batcher, t) for t in (0.6, 0.6, 0.6, 1.0)]
    assert order == [[("c", 0, 1)], [("b", 0, 1)], None, [("a", 0, 1)]]
    assert (batcher.waiting, batcher.due()) == (0, None)


def test_groups_never_share_a_batch() -> None:
    batcher: Batcher[str] = Batcher()
    for group in ("x", "y", "x"):
        batcher.offer(group, Rule(limit=8), group, 1, now=0.0)
    assert everything(batcher, 0.0) == [[("x", 0, 1), ("x", 0, 1)], [("y", 0, 1)]]


def test_requests_leave_the_queue_at_their_deadline() -> None:
    rule = Rule(limit=4, cut="fill")
    batcher: Batcher[str] = Batcher()
    batcher.offer("g", rule, "hurried", 6, now=0.0, deadline=1.0)
    batcher.offer("g", rule, "patient", 2, now=0.0, deadline=9.0)
    assert taken(batcher, 0.0) == [("hurried", 0, 4)]
    assert batcher.expire(0.9) == []
    assert batcher.expire(1.0) == ["hurried"]
    assert (batcher.waiting, everything(batcher, 1.0)) == (1, [[("patient", 0, 2)]])


def test_thousands_that_expire_together_are_not_compared_with_each_other() -> None:
    """The executor's lock is held meanwhile, and requests wait for it on the event loop."""

    class Request:
        __hash__ = None

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

    batcher: Batcher[Request] = Batcher()
    for _ in range(3):
        batcher.offer("g", Rule(limit=4), Request(), 1, now=0.0, deadline=1.0)
    assert len(batcher.expire(1.0)) == 3


@given(
    sizes=st.lists(st.integers(1, 20), max_size=30),
    limit=st.integers(1, 12),
    cut=st.sampled_from(["never", "large", "fill"]),
    merge=st.booleans(),
)
def test_every_row_runs_once_in_order_and_no_batch_is_too_large(
    sizes: list[int], limit: int, cut: Literal["never", "large", "fill"], merge: bool
) -> None:
    batches = everything(offered(Rule(limit=limit, cut=cut, merge=merge), *sizes), 0.0)
    rows = [(task, row) for batch in batches for task, start, stop in batch for row in range(start, stop)]
    assert rows == [(f"r{i}", row) for i, n in enumerate(sizes) for row in range(n)]
    for batch in batches:
        assert sum(stop - start for _, start, stop in batch) <= limit or (len(batch) == 1 and cut == "never")
        assert merge or len(batch) == 1


@given(sizes=st.lists(st.integers(1, 15), max_size=30))
def test_batches_are_counted_as_they_are_taken(sizes: list[int]) -> None:
    batches = everything(offered(Rule(limit=4, cut="large"), *sizes), 0.0)
    last = sum(stop - start for _, start, stop in batches[-1]) if batches else 0
    assert batches_of(sizes, 4) == (max(1, len(batches)), last)


@given(sizes=st.lists(st.integers(1, 4), max_size=30), most=st.integers(1, 6))
def test_the_quick_look_at_a_queue_agrees_with_counting(sizes: list[int], most: int) -> None:
    def refused(look: Callable[[], None]) -> bool:
        try:
            look()
        except ServingError:
            return True
        return False

    batches, tail = batches_of(sizes, 4)
    rule = Rule(limit=4, max_batches=most)
    assert refused(lambda: refuse(rule, 3, sum(sizes), sizes)) == (batches >= most and tail + 3 > 4)


def test_the_cheapest_join_prefers_the_larger_of_equals() -> None:
    assert cheapest([1, 2, 3], lambda _rows: 100.0) == 3
    assert cheapest([1, 2, 3], lambda rows: 100.0 * rows) == 3
    assert cheapest([1, 2, 3], lambda rows: 100.0 * rows**2) == 1


def test_a_lone_client_stays_inline_but_for_a_few_probes() -> None:
    company = Company()
    hops = sum(company.hop(in_flight=0) for _ in range(Company.PROBES + Company.INLINE))
    assert hops == Company.PROBES


def test_requests_with_company_keep_going_to_the_runners() -> None:
    company = Company()
    assert all(company.hop(in_flight=3) for _ in range(100))
    later = [company.hop(in_flight=0) for _ in range(100)]
    assert later.count(True) <= 2 * Company.PROBES
