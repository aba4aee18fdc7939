"""How a sample lies among real music: ranks in place of distances that say little alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
        Typicality: 0 for a distance greater or smaller than any real one's, 1 for the median, in
        the mean 0.5 for real music. NaN where a piece has nothing to judge.
    """

    features: tuple[str, ...]
    distances: np.ndarray
    shares: np.ndarray
    values: np.ndarray
