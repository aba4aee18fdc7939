"""Rank correlation: by hand, by all orders one by one, and SciPy's own."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import pianolstm as pl


def by_all_orders(x, y):
    """Shares of all orders of x that are as far from chance, one by one: by rho, and by tau."""

    def rho(x):
        x, z = stats.rankdata(x), stats.rankdata(y)
        return abs(np.corrcoef(x, z)[0, 1])

    def tau(x):
        pairs = combinations(range(len(x)), 2)
        return abs(sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs))

    orders = list(permutations(x))
    return [
        np.mean([statistic(np.array(order)) >= statistic(np.array(x)) - 1e-9 for order in orders])
        for statistic in (rho, tau)
    ]


def test_by_hand():
    # Ranks 1 2 3 4 and 1 3 2 4: squared differences 0 1 1 0, and one of six pairs is the other
    # way round.
    found = pl.rank_correlation([0.5, 1, 7, 9], [10, 30, 20, 40])
    assert found.rho == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found.tau == pytest.approx((5 - 1) / 6)
    assert found.n == 4
    # Of 24 orders, 1 and 3 are as good or better, and as many as bad or worse.
    assert found.rho_pvalue == pytest.approx(8 / 24)
    assert found.tau_pvalue == pytest.approx(8 / 24)
    backwards = pl.rank_correlation([1, 2, 3, 4], [4, 3, 2, 1])
    assert (backwards.rho, backwards.tau) == pytest.approx((-1, -1))
    assert (backwards.rho_pvalue, backwards.tau_pvalue) == pytest.approx((2 / 24, 2 / 24))


def test_names_are_matched_not_places():
    ranks = {"real": 1.2, "lstm": 3.1, "bilstm": 2.0}
    distances = {"bilstm": 0.2, "real": 0.1, "lstm": 0.5}
    assert pl.rank_correlation(ranks, distances)[0] == pytest.approx(1)
    assert pl.rank_correlation(list(ranks.values()), list(distances.values()))[0] < 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=5))
def test_probabilities_of_few_are_exact_ties_included(pairs):
    x, y = ([float(pair[i]) for pair in pairs] for i in (0, 1))
    if len(set(x)) == 1 or len(set(y)) == 1:
        return
    found = pl.rank_correlation(x, y)
    assert [found.rho_pvalue, found.tau_pvalue] == pytest.approx(by_all_orders(x, y))


@given(st.permutations(range(8)))
def test_without_ties_tau_is_scipys_exact_one(y):
    expected = stats.kendalltau(range(8), y, method="exact")
    found = pl.rank_correlation(np.arange(8), y)
    assert found.tau == pytest.approx(expected.statistic)
    assert found.tau_pvalue == pytest.approx(expected.pvalue)


def test_of_many_the_probabilities_are_scipys():
    rng = np.random.default_rng(1)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    found = pl.rank_correlation(x, y)
    assert found.rho_pvalue == pytest.approx(stats.spearmanr(x, y).pvalue)
    assert found.tau_pvalue == pytest.approx(stats.kendalltau(x, y).pvalue)
    assert 0 < found.rho_pvalue < 0.01


@pytest.mark.parametrize(
    ("subjective", "objective", "message"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "c": 2}, r"only one of them has \['b', 'c'\]"),
        ({"a": 1, "b": 2}, [1, 2], "both be dicts, or both sequences"),
        ([1, 2, 3], [1, 2], "of one length, at least 2; got 3 and 2"),
        ([1], [1], "of one length, at least 2; got 1 and 1"),
        ([1, 2], [1, float("nan")], "objective must hold finite numbers"),
        (["x", "y"], [1, 2], "subjective must hold finite numbers"),
        (3, 4, "subjective must hold finite numbers"),
        ([1, 2, 3], [5, 5, 5], "All numbers of objective are equal"),
    ],
)
def test_bad_input_is_told(subjective, objective, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        pl.rank_correlation(subjective, objective)
