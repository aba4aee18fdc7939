"""Whether a measure ranks music as listeners do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pianolstm.exceptions import InvalidInputError

MAX_EXACT = 8  # 40,320 orders, each of which is tried

Scores: TypeAlias = Mapping[str, float] | Sequence[float] | np.ndarray


class RankCorrelation(NamedTuple):
    """How two rankings agree; from `rank_correlation`.

    Attributes
    ----------
    rho, rho_pvalue : float
        Spearman's rho, from -1 to 1, and the probability of one as far from 0 by chance.
    tau, tau_pvalue : float
        Kendall's tau-b, and the same.
    n : int
        How many were ranked.
    """

    rho: float
    rho_pvalue: float
    tau: float
    tau_pvalue: float
    n: int


def rank_correlation(subjective: Scores, objective: Scores) -> RankCorrelation:
    """How far a measure ranks music as listeners do.

    Both are taken as ranks: the smallest number is the best, as in a mean rank (1 is the most like
    real music) or a distance. So 1 says that the measure orders all as the listeners do, and -1
    that it orders them the other way round. For a measure of which more is better, such as a
    likelihood, give its negative. Equal numbers share the mean of their ranks.

    Parameters
    ----------
    subjective : mapping of str to float, or sequence of float
        Such as ``results.mean_rank``.
    objective : mapping of str to float, or sequence of float
        For the same names; as a sequence, in the same order.

    Returns
    -------
    RankCorrelation
        The probabilities are two-sided. For up to eight they are exact, ties included: the share of
        all orders that agree, or disagree, as much. For more they are SciPy's (`spearmanr`,
        `kendalltau`).

    Raises
    ------
    InvalidInputError
        If they are not of the same names or length, are fewer than two, hold what is no finite
        number, or one is all equal.

    References
    ----------
    Kendall, M. G. (1938). A new measure of rank correlation. Biometrika 30, 81-93.

    Examples
    --------
    >>> import pianolstm as pl
    >>> ranks = {"real": 1.2, "lstm": 2.5, "stacked": 2.9, "bilstm": 3.4}
    >>> distances = {"real": 0.02, "lstm": 0.20, "stacked": 0.17, "bilstm": 0.31}
    >>> found = pl.rank_correlation(ranks, distances)
    >>> round(found.rho, 3), round(found.rho_pvalue, 3)
    (0.8, 0.333)
    >>> round(found.tau, 3), round(found.tau_pvalue, 3)
    (0.667, 0.333)
    """
    from scipy import stats

    x, y = _paired(subjective, objective)
    spearman: Any = stats.spearmanr(x, y)
    kendall: Any = stats.kendalltau(x, y)
    pvalues = float(spearman.pvalue), float(kendall.pvalue)
    if len(x) <= MAX_EXACT:
        pvalues = _exact_pvalues(stats.rankdata(x), stats.rankdata(y))
    rho, tau = float(spearman.statistic), float(kendall.statistic)
    return RankCorrelation(rho, pvalues[0], tau, pvalues[1], len(x))


def _paired(subjective: Any, objective: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of floats, of the same things in the same order."""
    given = {"subjective": subjective, "objective": objective}
    if isinstance(subjective, Mapping) != isinstance(objective, Mapping):
        raise InvalidInputError("subjective and objective must both be dicts, or both sequences.")
    if isinstance(subjective, Mapping):
        if set(subjective) != set(objective):
            odd = sorted(set(subjective) ^ set(objective))
            raise InvalidInputError(
                f"subjective and objective must have the same names; only one of them has {odd}."
            )
        given = {name: [values[key] for key in subjective] for name, values in given.items()}
    arrays = []
    for name, values in given.items():
        try:
            array = np.asarray(values, dtype=float)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if array.ndim != 1 or not np.isfinite(array).all():
            raise InvalidInputError(f"{name} must hold finite numbers, one for each name.")
        arrays.append(array)
    if len(arrays[0]) != len(arrays[1]) or len(arrays[0]) < 2:
        raise InvalidInputError(
            "subjective and objective must be of one length, at least 2; got "
            f"{len(arrays[0])} and {len(arrays[1])}."
        )
    for name, array in zip(given, arrays, strict=True):
        if (array == array[0]).all():
            raise InvalidInputError(f"All numbers of {name} are equal, so they give no ranks.")
    return arrays[0], arrays[1]


def _exact_pvalues(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Shares of all orders of `x` that are as far from chance: by rho, and by tau."""
    from scipy.stats import permutation_test

    # What rho and tau divide these by is the same for each order.
    def covariance(x: np.ndarray, axis: int) -> np.ndarray:
        return np.abs(((x - x.mean(axis, keepdims=True)) * (y - y.mean())).sum(axis))

    first, second = np.triu_indices(len(y), 1)

    def concordance(x: np.ndarray, axis: int) -> np.ndarray:
        signs = np.sign(x[..., first] - x[..., second]) * np.sign(y[first] - y[second])
        return np.abs(signs.sum(axis))

    rho, tau = (
        permutation_test(
            (x,),
            statistic,
            permutation_type="pairings",
            n_resamples=math.factorial(len(x)),
            alternative="greater",
            vectorized=True,
        )
        for statistic in (covariance, concordance)
    )
    return float(rho.pvalue), float(tau.pvalue)
