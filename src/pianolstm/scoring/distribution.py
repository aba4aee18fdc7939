"""Distances between the note distributions of generated music and of a corpus.

Metrics
-------
Jensen-Shannon distance
    Square root of the Jensen-Shannon divergence to base 2 (Lin 1991; Endres and Schindelin 2003):
    0 for equal distributions, 1 for distributions that share nothing.
Wasserstein distance
    Least work that turns one distribution into the other. Over pitches in semitones; over pitch
    classes in semitones around the circle of twelve (Rabin, Delon and Gousseau 2011); chords have
    no order, any two are at distance 1, so that it is the total variation.

A short sample is far from any corpus, even if it is a part of it: compare sets of similar length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from pianolstm import plotting
from pianolstm.chords import chord_pitches
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import N_PITCHES, as_rolls
from pianolstm.scoring.tables import table
from pianolstm.tokens import ChordTokenizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEATURES = ("pitch", "pitch_class", "chord")
DISTANCES = ("jensen_shannon", "wasserstein")

Counts: TypeAlias = "dict[str, dict[Any, float]]"


@dataclass(frozen=True)
class DistributionReport:
    """Distances of several sets of rolls to a corpus, nearest first; `print` shows the table.

    Attributes
    ----------
    rows : tuple of dict
        One a set: ``rank``, ``name``, ``pieces``, ``seconds``, ``notes``, ``score``, and
        ``<feature> <distance>`` for each feature and distance.
    """

    rows: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        return table(self.rows)


class NoteDistributionScorer(BaseEstimator):
    """Compare the note distributions of rolls with those of a corpus.

    Parameters
    ----------
    features : sequence of str, default=("pitch", "pitch_class", "chord")
        Distributions to compare: of the pitches of onsets, of their pitch classes, and of the
        chord tokens of frames.
    distance : {"jensen_shannon", "wasserstein"}, default="jensen_shannon"
        What `score` and the ranking of `report` use; `report` lists both.

    Attributes
    ----------
    counts_ : dict of str to dict
        Counts of the corpus for each feature: onsets a pitch or pitch class, frames a chord.

    Examples
    --------
    >>> import pianolstm as pl
    >>> corpus = [pl.PianoRoll.from_notes([0, 4, 8, 12], [4, 8, 12, 16], [60, 64, 67, 72])]
    >>> near = [pl.PianoRoll.from_notes([0, 4, 8], [4, 8, 12], [60, 64, 67])]
    >>> far = [pl.PianoRoll.from_notes([0, 4, 8], [4, 8, 12], [61, 63, 66])]
    >>> scorer = pl.NoteDistributionScorer().fit(corpus)
    >>> scorer.score(corpus), scorer.score(near) > scorer.score(far)
    (0.0, True)
    """

    def __init__(
        self,
        *,
        features: Sequence[str] = FEATURES,
        distance: Literal["jensen_shannon", "wasserstein"] = "jensen_shannon",
    ) -> None:
        self.features = features
        self.distance = distance

    def fit(self, X: Sequence[Any], y: Any = None) -> NoteDistributionScorer:
        """Count the notes of a corpus.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            One entry a piece.
        y : ignored

        Returns
        -------
        NoteDistributionScorer
            Itself.

        Raises
        ------
        InvalidInputError
            If X is no list of pieces or has no notes, or a parameter is not one of its values.
        """
        self._check()
        self.counts_ = _counts(X, self.features)
        return self

    def distances(self, X: Sequence[Any]) -> dict[str, float]:
        """Distances of rolls, taken together, to the corpus.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            One entry a piece.

        Returns
        -------
        dict of str to float
            ``"<feature> <distance>"`` for each feature and distance.
        """
        check_is_fitted(self, "counts_")
        self._check()
        missing = [f for f in self.features if f not in self.counts_]
        if missing:
            raise InvalidInputError(
                f"features has {missing[0]!r}, but the scorer was fitted with "
                f"{tuple(self.counts_)}; fit it again."
            )
        counts = _counts(X, self.features)
        found = {}
        for feature in self.features:
            p, q = _aligned(self.counts_[feature], counts[feature])
            found[f"{feature} jensen_shannon"] = jensen_shannon(p, q)
            found[f"{feature} wasserstein"] = _WASSERSTEIN[feature](p, q)
        return found

    def score(self, X: Sequence[Any], y: Any = None) -> float:
        """Minus the mean distance over the features; higher is nearer, 0 is equal.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            One entry a piece.
        y : ignored

        Returns
        -------
        float
        """
        return self._score(self.distances(X))

    def report(self, sets: Mapping[str, Sequence[Any]]) -> DistributionReport:
        """Compare several sets of rolls with the corpus and rank them, nearest first.

        Parameters
        ----------
        sets : mapping of str to list of PianoRoll
            The sets by name.

        Returns
        -------
        DistributionReport
            `print` shows it as a table.
        """
        if not sets:
            raise InvalidInputError("report takes at least one named set of rolls; got none.")
        rows = []
        for name, X in sets.items():
            rolls = as_rolls(X, name)
            found = self.distances(rolls)
            rows.append(
                {
                    "name": name,
                    "pieces": len(rolls),
                    "seconds": sum(r.seconds for r in rolls),
                    "notes": sum(len(r.notes) for r in rolls),
                    "score": self._score(found),
                    **found,
                }
            )
        rows.sort(key=lambda row: -row["score"])
        return DistributionReport(tuple({"rank": i + 1, **row} for i, row in enumerate(rows)))

    def plot(
        self,
        sets: Mapping[str, Sequence[Any]] | None = None,
        *,
        feature: Literal["pitch", "pitch_class", "chord"] = "pitch",
        max_bins: int = 40,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw a distribution of the corpus, and of sets of rolls over it.

        Parameters
        ----------
        sets : mapping of str to list of PianoRoll, default=None
            The sets by name.
        feature : {"pitch", "pitch_class", "chord"}, default="pitch"
            What to draw.
        max_bins : int, default=40
            Chords drawn, the most frequent of the corpus.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
        """
        check_is_fitted(self, "counts_")
        if feature not in self.counts_:
            raise InvalidInputError(
                f"feature must be one that the scorer was fitted with, {tuple(self.counts_)}; got "
                f"{feature!r}."
            )
        corpus = self.counts_[feature]
        if feature == "pitch":
            present = [p for p in range(N_PITCHES) if corpus[p]]
            bins = list(range(present[0], present[-1] + 1))
            labels = [f"C{p // 12 - 1}" if p % 12 == 0 else "" for p in bins]
        elif feature == "pitch_class":
            bins, labels = list(range(12)), list(plotting.NOTE_NAMES)
        else:
            bins = sorted(corpus, key=lambda c: -corpus[c])[:max_bins]
            labels = [
                chord_pitches(np.frombuffer(c, np.uint64)).replace(" ", "\n") or "rest"
                for c in bins
            ]
        counts = {"corpus": corpus}
        counts |= {name: _counts(X, [feature])[feature] for name, X in (sets or {}).items()}
        shares = {
            name: np.array([c.get(b, 0) for b in bins]) / sum(c.values())
            for name, c in counts.items()
        }
        ax = plotting.plot_histograms(shares, labels, ax=ax, xlabel=feature.replace("_", " "))
        if feature == "chord":
            ax.tick_params(axis="x", labelsize=6)
        return ax

    def _check(self) -> None:
        features = self.features
        is_list = not isinstance(features, str) and hasattr(features, "__iter__")
        if not is_list or not len(features) or not set(features) <= set(FEATURES):
            raise InvalidInputError(f"features must be some of {FEATURES}; got {features!r}.")
        if self.distance not in DISTANCES:
            raise InvalidInputError(f"distance must be one of {DISTANCES}; got {self.distance!r}.")

    def _score(self, distances: Mapping[str, float]) -> float:
        chosen = [distances[f"{feature} {self.distance}"] for feature in self.features]
        return 0.0 - float(np.mean(chosen))


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
    >>> from pianolstm.scoring.distribution import jensen_shannon
    >>> jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    1.0
    """
    m = (p + q) / 2
    divergence = sum(float(np.sum(a[a > 0] * np.log2(a[a > 0] / m[a > 0]))) for a in (p, q)) / 2
    return float(np.sqrt(max(divergence, 0.0)))


def wasserstein(p: np.ndarray, q: np.ndarray) -> float:
    """Wasserstein distance of two distributions over bins one apart, in bins."""
    return float(np.abs(np.cumsum(p - q)).sum())


def circular_wasserstein(p: np.ndarray, q: np.ndarray) -> float:
    """Wasserstein distance over bins one apart on a circle, in bins.

    Work on a circle may start at any point; the best start takes the median off the running sum.
    """
    flow = np.cumsum(p - q)
    return float(np.abs(flow - np.median(flow)).sum())


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Wasserstein distance where any two bins are at distance 1."""
    return float(np.abs(p - q).sum() / 2)


_WASSERSTEIN = {
    "pitch": wasserstein,
    "pitch_class": circular_wasserstein,
    "chord": total_variation,
}


def _counts(X: Sequence[Any], features: Sequence[str]) -> Counts:
    rolls = as_rolls(X)
    notes = np.concatenate([roll.notes for roll in rolls])
    if notes["tied"].all():
        raise InvalidInputError("The rolls have no onsets; a distribution needs at least one.")
    # A tied note was struck before the roll begins; it is no onset of it.
    pitch = np.bincount(notes["pitch"][~notes["tied"]], minlength=N_PITCHES)
    counts: Counts = {}
    for feature in features:
        if feature == "pitch":
            counts[feature] = dict(enumerate(pitch.tolist()))
        elif feature == "pitch_class":
            classes = np.bincount(np.arange(N_PITCHES) % 12, weights=pitch)
            counts[feature] = dict(enumerate(classes.tolist()))
        else:
            tokenizer = ChordTokenizer().fit(rolls)
            counts[feature] = {
                chord.tobytes(): count
                for chord, count in zip(
                    tokenizer.vocabulary_, tokenizer.counts_.tolist(), strict=True
                )
            }
    return counts


def _aligned(corpus: dict[Any, float], counts: dict[Any, float]) -> tuple[np.ndarray, np.ndarray]:
    """Shares of both over the same bins; bins of pitches are in order."""
    bins = sorted(corpus.keys() | counts.keys())
    p, q = (np.array([c.get(b, 0) for b in bins], np.float64) for c in (corpus, counts))
    return p / p.sum(), q / q.sum()
