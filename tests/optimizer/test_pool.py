"""The pool of interpreters: who gets what, and that nobody is forgotten."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from tfopt_optimizer.engines import pool
from tfopt_optimizer.engines.pool import Pool


def numbered(limit):
    numbers = itertools.count()
    return Pool(lambda: next(numbers), limit)


def test_items_are_made_up_to_the_limit_and_then_change_their_key():
    items = numbered(2)
    assert (items.take("a"), items.take("b")) == (0, 1)
    items.give("a", 0)
    items.give("b", 1)
    assert items.take("b") == 1  # the one of its own key
    assert items.take("c") == 0  # no third one is made
    items.give("c", 0)
    items.clear()
    assert items.take("c") == 2


def test_who_waits_gets_what_comes_back():
    items, got = numbered(1), []
    held = items.take("a")
    waiting = [threading.Thread(target=lambda: got.append(items.take("a"))) for _ in range(2)]
    for thread in waiting:
        thread.start()
    time.sleep(2 * pool.PATIENCE_S)  # one waits for its turn, or competes; both must be served
    items.give("a", held)
    time.sleep(0.05)
    assert got == [0]
    items.give("b", 0)
    for thread in waiting:
        thread.join(timeout=5)
    assert got == [0, 0]


def test_a_failed_item_leaves_its_room_to_others():
    broken, items, got = [True, True, False], None, []

    def make():
        if broken.pop(0):
            raise RuntimeError("no memory")
        return "made"

    items = Pool(make, 1)
    with pytest.raises(RuntimeError, match="no memory"):
        items.take("a")
    thread = threading.Thread(target=lambda: got.append(items.take("a")))
    broken.insert(0, False)
    held = items.take("a")
    assert held == "made"
    broken[:] = [False]
    thread.start()
    time.sleep(3 * pool.PATIENCE_S)  # it is out of patience now
    items.drop()
    thread.join(timeout=5)
    assert got == ["made"]


def test_many_threads_never_share_an_item():
    items, busy, shared = numbered(3), set(), []

    def use(key):
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            item = items.take(key)
            if item in busy:
                shared.append(item)
            busy.add(item)
            busy.discard(item)
            items.give(key, item)

    threads = [threading.Thread(target=use, args=(i % 2,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=5)
    assert not any(t.is_alive() for t in threads)
    assert shared == []
    assert {items.take(0), items.take(0), items.take(0)} == {0, 1, 2}
