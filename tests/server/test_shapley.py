"""Shapley values against their definition: every coalition, every order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tfopt_server import shapley


def by_definition(game, players):
    """The mean marginal contribution over all orders."""
    found = np.zeros(players)
    for order in itertools.permutations(range(players)):
        members = np.zeros(players, bool)
        before = game(members)
        for player in order:
            members[player] = True
            found[player] += game(members) - before
            before = game(members)
    return found / math.factorial(players)


def played(game, design):
    """What a design makes of a game."""
    ends = [np.array([game(np.full(design.players, full))], float) for full in (False, True)]
    values = np.array([[game(m)] for m in design.masks(np.arange(design.count))]).reshape(design.count, 1)
    return design.attributions(*ends, values)


def crooked(seed, players):
    """A game without any structure."""
    table = np.random.default_rng(seed).normal(size=2**players)
    return lambda members: table[int(members @ (1 << np.arange(players)))]


@given(st.integers(0, 1000), st.integers(0, 5))
def test_a_small_game_is_exact(seed, players):
    game = crooked(seed, players)
    found = played(game, shapley.of(players, 50))
    np.testing.assert_allclose(found.values[:, 0], by_definition(game, players), atol=1e-12)
    assert found.errors.tolist() == [0]


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 9))
def test_the_values_sum_to_what_there_is_to_explain(seed, players, paths):
    game = crooked(seed, players)
    found = played(game, shapley.of(players, paths))
    whole = game(np.ones(players, bool)) - game(np.zeros(players, bool))
    assert found.values.sum() == pytest.approx(whole, abs=1e-9)
    assert shapley.count_of(players, paths) == shapley.of(players, paths).count


@pytest.mark.parametrize("paths", [1, 2, 7])
def test_an_additive_game_is_exact_whatever_is_sampled(paths):
    weights = np.arange(1.0, 31)
    found = played(lambda members: float(weights @ members), shapley.Sampled(30, paths))
    np.testing.assert_allclose(found.values[:, 0], weights)
    if paths < 4:
        assert found.errors is None  # one pair says nothing of the spread
    else:
        assert found.errors[0] < 1e-12


def test_a_pair_of_reversed_orders_is_exact_for_games_of_pairs():
    rng = np.random.default_rng(3)
    pairs = rng.normal(size=(20, 20))
    found = played(lambda m: float(m @ pairs @ m), shapley.Sampled(20, 2))
    np.testing.assert_allclose(found.values[:, 0], pairs.diagonal() + (pairs + pairs.T - 2 * np.diag(pairs.diagonal())
                               ).sum(axis=1) / 2, atol=1e-9)  # fmt: skip


def test_more_paths_are_nearer_and_the_error_says_so():
    game = crooked(5, 7)
    truth = by_definition(game, 7)
    few, many = (played(game, shapley.Sampled(7, paths)) for paths in (4, 4000))
    assert np.abs(many.values[:, 0] - truth).max() < np.abs(few.values[:, 0] - truth).max() / 4
    off = np.linalg.norm(many.values[:, 0] - truth) / np.linalg.norm(truth)
    assert off < 4 * many.errors[0] < few.errors[0]


def test_the_same_request_gets_the_same_answer():
    which = np.arange(90)
    np.testing.assert_array_equal(shapley.Sampled(10, 10).masks(which), shapley.Sampled(10, 10).masks(which))


def test_every_step_of_a_path_adds_one_player():
    masks = shapley.Sampled(6, 3).masks(np.arange(15)).reshape(3, 5, 6)
    assert masks.sum(axis=2).tolist() == [[1, 2, 3, 4, 5]] * 3
    assert (masks[:, 1:] >= masks[:, :-1]).all()
