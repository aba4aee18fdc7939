"""Distances between two distributions over the same bins.

Metrics
-------
Jensen-Shannon distance
    Square root of the Jensen-Shannon divergence to base 2 (Lin 1991; Endres and Schindelin 2003):
    0 for equal distributions, 1 for distributions that share nothing.
Wasserstein distance
    Least work that turns one distribution into the other, in bins: along a line, or around a circle
    (Rabin, Delon and Gousseau 2011). Where bins have no order any two are at distance 1, so that it
    is the total variation.
Kullback-Leibler divergence
    Bits that a sample costs more, coded by the corpus's distribution than by its own. It is no
    metric, and would be infinite where the corpus lacks what the sample has: a hundredth of the
    corpus is spread evenly over all bins.
Overlap distance
    What two distributions do not share: 1 minus the overlap area of Yang and Lerch (2020).

Each is infinite where one of the two has nothing in it.
"""

from __future__ import annotations

import numpy as np

SMOOTHING = 0.01
"""Share of the corpus that `kullback_leibler` spreads evenly over all bins."""


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon distance to base 2 of two distributions over the same bins.

    Parameters
    ----------
    p, q : ndarray of float, shape (n_bins,)
        Shares, each summing to 1.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pianolstm.scoring.distances import jensen_shannon
    >>> jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    1.0
    """
    # SciPy's takes the root of a rounding error below 0 where p and q are all but equal.
    m = (p + q) / 2
    divergence = sum(float(np.sum(a[a > 0] * np.log2(a[a > 0] / m[a > 0]))) for a in (p, q)) / 2
    return float(np.sqrt(max(divergence, 0.0)))


def wasserstein(p: np.ndarray, q: np.ndarray) -> float:
    """Wasserstein distance of two distributions over bins one apart, in bins.

    Parameters
    ----------
    p, q : ndarray of float, shape (n_bins,)
        Shares, each summing to 1.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> from pianolstm.scoring.distances import wasserstein
    >>> wasserstein(np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.5, 0.5]))
    1.5
    """
    return float(np.abs(np.cumsum(p - q)).sum())


def circular_wasserstein(p: np.ndarray, q: np.ndarray) -> float:
    """Wasserstein distance over bins one apart on a circle, in bins.

    Work on a circle may start at any point; the best start takes the median off the running sum.

    Parameters
    ----------
    p, q : ndarray of float, shape (n_bins,)
        Shares, each summing to 1.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> from pianolstm.scoring.distances import circular_wasserstein
    >>> circular_wasserstein(np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 0.5, 0.0, 0.5]))
    1.0
    """
    flow = np.cumsum(p - q)
    return float(np.abs(flow - np.median(flow)).sum())


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Wasserstein distance where any two bins are at distance 1: 1 minus the overlap.

    Parameters
    ----------
    p, q : ndarray of float, shape (n_bins,)
        Shares, each summing to 1.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pianolstm.scoring.distances import total_variation
    >>> total_variation(np.array([0.75, 0.25, 0.0]), np.array([0.25, 0.5, 0.25]))
    0.5
    """
    return float(np.abs(p - q).sum() / 2)


def kullback_leibler(p: np.ndarray, q: np.ndarray, smoothing: float = SMOOTHING) -> float:
    """Kullback-Leibler divergence of a sample from a corpus, in bits: the sum of q log2(q / p).

    Parameters
    ----------
    p : ndarray of float, shape (n_bins,)
        Shares of the corpus.
    q : ndarray of float, shape (n_bins,)
        Shares of the sample.
    smoothing : float, default=0.01
        Share of the corpus that is spread evenly over all bins.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> from pianolstm.scoring.distances import kullback_leibler
    >>> kullback_leibler(np.array([0.5, 0.25, 0.25]), np.array([1.0, 0.0, 0.0]), smoothing=0)
    1.0
    """
    smooth = (1 - smoothing) * p + smoothing / len(p)
    has = q > 0
    return float(np.sum(q[has] * np.log2(q[has] / smooth[has])))


DISTANCES = ("jensen_shannon", "wasserstein", "kullback_leibler", "overlap")

_WASSERSTEIN = {
    "ordered": wasserstein,
    "circular": circular_wasserstein,
    "unordered": total_variation,
}


def distance(name: str, bins: str, corpus: np.ndarray, sample: np.ndarray) -> float:
    """Distance of a sample from a corpus.

    Parameters
    ----------
    name : str
        One of `DISTANCES`.
    bins : {"ordered", "circular", "unordered"}
        How the bins lie.
    corpus, sample : ndarray, shape (n_bins,)
        Counts.

    Returns
    -------
    float
        Infinite where one of the two has no counts.
    """
    n_corpus, n_sample = corpus.sum(), sample.sum()
    if n_corpus == 0 or n_sample == 0:
        return float("inf")
    p, q = corpus / n_corpus, sample / n_sample
    if name == "jensen_shannon":
        return jensen_shannon(p, q)
    if name == "wasserstein":
        return _WASSERSTEIN[bins](p, q)
    return kullback_leibler(p, q) if name == "kullback_leibler" else total_variation(p, q)
