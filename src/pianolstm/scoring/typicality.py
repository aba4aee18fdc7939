"""How a sample lies among real music: ranks in place of distances that say little alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from pianolstm.scoring.features import Bag

SHRINKAGE = 0.1
"""Share of the identity in the covariance of normal scores, which have a variance of 1."""

FOLDS = 5
"""Parts of the real excerpts, by piece, each of which is judged by the others."""


def share_at_least(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of a reference that is at least as great, the value itself counted in.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
    reference : ndarray of float, shape (m,)

    Returns
    -------
    ndarray of float, shape (n,)
        From 1 / (m + 1), greater than all, to 1.
    """
    reference = np.sort(reference)
    below = np.searchsorted(reference, values, side="left")
    return (len(reference) - below + 1) / (len(reference) + 1)


def two_sided(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How near values lie to the middle of a reference, by rank.

    With u the share of the reference that is greater, ``2 min(u, 1 - u)``: near 0 for what is
    greater or smaller than nearly all, 1 for the median. Values that are equal share their ranks: u
    then runs from the share that is greater to the share that is at least as great, the value
    itself counted in as in a conformal p-value (Vovk, Gammerman and Shafer 2005), and the result is
    the mean over that range. For a value drawn as the reference was, its mean is 1/2 exactly,
    however many are equal.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
    reference : ndarray of float, shape (m,)

    Returns
    -------
    ndarray of float, shape (n,)
        From 1 / (m + 1) to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pianolstm.scoring.typicality import two_sided
    >>> two_sided(np.array([0.0, 5.5, 9.0]), np.arange(1.0, 10.0)).round(2).tolist()
    [0.1, 0.9, 0.2]
    """
    at_least = share_at_least(values, reference)
    greater = len(reference) - np.searchsorted(np.sort(reference), values, side="right")
    above = greater / (len(reference) + 1)
    return (_area(at_least) - _area(above)) / (at_least - above)


def _area(u: np.ndarray) -> np.ndarray:
    """Integral of 2 min(u, 1 - u) from 0 to u."""
    return np.where(u <= 0.5, u**2, 2 * u - u**2 - 0.5)


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of real excerpts of one length, that others are ranked among.

    Attributes
    ----------
    statistics : ndarray of float, shape (n_excerpts, n_features)
        Distances from the corpus, each excerpt's own piece left out, and numbers.
    pieces : ndarray of int64, shape (n_excerpts,)
        The piece that each is taken from.
    remoteness : ndarray of float, shape (n_excerpts,)
        How far each is from the middle of excerpts of other pieces, as a multiple of the median.
    bags : sequence of dict of str to Bag
        Their distributions.
    scale : float
        Remoteness of the median excerpt.
    """

    statistics: np.ndarray
    pieces: np.ndarray
    remoteness: np.ndarray
    bags: Sequence[dict[str, Bag]]
    scale: float

    @classmethod
    def of(
        cls, statistics: np.ndarray, pieces: np.ndarray, bags: Sequence[dict[str, Bag]]
    ) -> Reference:
        """A reference from what is known of excerpts of two pieces or more."""
        fold = np.unique(pieces, return_inverse=True)[1] % FOLDS
        far = np.empty(len(pieces))
        for k in np.unique(fold):
            far[fold == k] = remoteness(statistics[fold == k], statistics[fold != k])
        scale = max(float(np.median(far)), 1e-9)  # 0 where all excerpts are alike
        return cls(statistics, pieces, far / scale, bags, scale)

    def without(self, piece: int) -> Reference:
        """The excerpts of all other pieces."""
        rest = self.pieces != piece
        bags = [bag for bag, is_other in zip(self.bags, rest, strict=True) if is_other]
        return Reference(
            self.statistics[rest], self.pieces[rest], self.remoteness[rest], bags, self.scale
        )

    def remoteness_of(self, statistics: np.ndarray) -> np.ndarray:
        """How far others are from the middle, as a multiple of the median excerpt: (n,)."""
        return remoteness(statistics, self.statistics) / self.scale


def remoteness(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How far samples lie from the middle of a reference, all features together.

    Ranks in the reference become normal scores (van der Waerden 1952), and the result is their
    Mahalanobis distance by the reference's covariance, for one feature: its square divided by how
    many there are. So features that say the same count once, and one that is out of keeping with
    the others counts even where, alone, it would not stand out.

    Parameters
    ----------
    values : ndarray of float, shape (n, n_features)
        NaN counts as the middle.
    reference : ndarray of float, shape (m, n_features)

    Returns
    -------
    ndarray of float, shape (n,)
        About 1 for what the reference is drawn from.

    Examples
    --------
    >>> import numpy as np
    >>> from pianolstm.scoring.typicality import remoteness
    >>> alike = np.repeat(np.arange(99.0)[:, None], 2, axis=1)  # both columns say the same
    >>> remoteness(np.array([[49.0, 49.0], [90.0, 90.0], [9.0, 90.0]]), alike).round(1).tolist()
    [0.0, 1.0, 4.1]
    """
    scores = normal_scores(reference, reference)
    covariance = (1 - SHRINKAGE) * scores.T @ scores / len(scores) + SHRINKAGE * np.eye(
        scores.shape[1]
    )
    found = normal_scores(values, reference)
    squared = np.sum(found * np.linalg.solve(covariance, found.T).T, axis=1)
    return np.sqrt(squared / found.shape[1])


def normal_scores(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Ranks in a reference, feature by feature, as quantiles of the normal distribution.

    Parameters
    ----------
    values : ndarray of float, shape (n, n_features)
        NaN gets 0.
    reference : ndarray of float, shape (m, n_features)

    Returns
    -------
    ndarray of float, shape (n, n_features)
    """
    scores = np.zeros(values.shape)
    for j, (column, known) in enumerate(zip(values.T, reference.T, strict=True)):
        known = np.sort(known[~np.isnan(known)])
        below = np.searchsorted(known, column, side="left")
        not_above = np.searchsorted(known, column, side="right")
        rank = (below + not_above + 1) / 2 / (len(known) + 1)
        scores[:, j] = np.where(np.isnan(column), 0, ndtri(rank))
    return scores


@dataclass(frozen=True, eq=False)
class Typicality:
    """How each piece of a set lies among real excerpts as long; from `NoteDistributionScorer`.

    Attributes
    ----------
    features : tuple of str
        Names of the columns.
    distances : ndarray of float, shape (n_pieces, n_features)
        Distance of each piece from the corpus; of features that are a number, that number. Means
        over its parts, where a piece is cut.
    shares : ndarray of float, shape (n_pieces, n_features)
        Share of real excerpts whose distance is at least as great.
    values : ndarray of float, shape (n_pieces, n_features)
        Typicality (`two_sided`): near 0 for a distance greater or smaller than nearly all real
        ones, 1 for the median; for real music 0.5 in the mean. NaN where there is nothing to judge.
    remoteness : ndarray of float, shape (n_pieces,)
        How far each piece lies from the middle of real excerpts, all features together
        (`pianolstm.scoring.typicality.remoteness`), as a multiple of the median real excerpt.
    overall : ndarray of float, shape (n_pieces,)
        Share of real excerpts that lie at least as far; for real music 0.5 in the mean.
    """

    features: tuple[str, ...]
    distances: np.ndarray
    shares: np.ndarray
    values: np.ndarray
    remoteness: np.ndarray
    overall: np.ndarray

    @property
    def score(self) -> float:
        """Minus the mean of `remoteness`, at least 1 each: see `NoteDistributionScorer.score`."""
        return -float(np.mean(np.maximum(self.remoteness, 1)))

    def __str__(self) -> str:
        """Means over the pieces, a line a feature."""
        lines = [f"{'':28}{'distance':>10}{'share':>8}{'typicality':>12}"]
        means = [mean_of_known(each) for each in (self.distances, self.shares, self.values)]
        for name, far, share, value in zip(self.features, *means, strict=True):
            lines.append(f"{name:28}{far:>10.3f}{share:>8.3f}{value:>12.3f}")
        return "\n".join(lines)


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean along the first axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    return np.where(n > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(n, 1), np.nan)
