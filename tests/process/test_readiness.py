"""Who may take connections, and when the server as a whole is ready."""

from __future__ import annotations

from tfopt_server.process.readiness import Readiness


def test_the_server_is_ready_once_every_worker_was_and_stays_so():
    shared = Readiness(2)
    one, two = shared.take(), shared.take()
    assert (shared.open, shared.may_accept(one), shared.may_accept(two)) == (False, True, True)
    shared.set(one)
    assert (shared.open, shared.may_accept(one), shared.may_accept(two)) == (False, True, True)
    shared.set(two)
    assert (shared.open, shared.may_accept(one), shared.may_accept(two)) == (True, True, True)
    assert shared.give_back(one) is True
    assert shared.open


def test_a_replacement_takes_nothing_while_others_can_answer():
    shared = Readiness(2)
    one, two = shared.take(), shared.take()
    shared.set(one)
    shared.set(two)
    shared.give_back(one)
    new = shared.take()
    assert (shared.may_accept(new), shared.may_accept(two)) == (False, True)
    shared.give_back(two)
    assert shared.may_accept(new)
    shared.take()
    shared.set(new)
    assert shared.may_accept(new)


def test_a_worker_that_died_early_was_not_ready():
    shared = Readiness(1)
    assert shared.give_back(shared.take()) is False
