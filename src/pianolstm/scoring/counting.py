"""Counts of a corpus, kept piece by piece so that any piece can be left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pianolstm.chords import find
from pianolstm.rolls import PianoRoll
from pianolstm.scoring.distances import distance
from pianolstm.scoring.features import FEATURES, Bag, count, measure
from pianolstm.tokens import TokenCorpus


class CountedCorpus:
    """What is counted in a corpus, to compare other pieces and its own with.

    Parameters
    ----------
    rolls : sequence of PianoRoll
        The corpus, one entry a piece.

    Attributes
    ----------
    chords : ndarray of uint64, shape (n_chords, 4)
        Bits of the chord that each bin of ``"chord"`` stands for; one more bin is for all others.
    bags : list of dict of str to Bag
        Distributions of each piece.
    totals : dict of str to ndarray of int64, shape (n_bins,)
        Their sums.
    """

    def __init__(self, rolls: Sequence[PianoRoll]) -> None:
        tokens = TokenCorpus.of(rolls)
        self.chords = tokens.chords
        self.n_bins = {name: f.n_bins for name, f in FEATURES.items() if f.bins != "number"}
        self.n_bins["chord"] = len(self.chords) + 1
        self.bags = self.count(rolls)
        self.totals = {name: self.pool(self.bags, name) for name in self.n_bins}

    def count(self, rolls: Sequence[PianoRoll]) -> list[dict[str, Bag]]:
        """Distributions of each of some rolls, over the bins of the corpus."""
        tokens = TokenCorpus.of(rolls)
        rows = find(self.chords, tokens.chords)
        rows[rows < 0] = len(self.chords)  # together: the corpus has none of them
        bags = []
        for roll, piece in zip(rolls, tokens.tokens, strict=True):
            chord = np.unique(rows[piece], return_counts=True)
            bags.append({**count(roll), "chord": chord})
        return bags

    def pool(
        self,
        bags: Sequence[dict[str, Bag]],
        name: str,
        weights: np.ndarray | None = None,  # (n_pieces,): how often each piece counts
    ) -> np.ndarray:
        """Sum of some pieces' counts of a feature: shape (n_bins,)."""
        total = np.zeros(self.n_bins[name], np.int64)
        for i, bag in enumerate(bags):
            bins, counts = bag[name]
            total[bins] += counts if weights is None else weights[i] * counts
        return total

    def without(self, pieces: Sequence[int], name: str) -> np.ndarray:
        """Counts of the corpus but for some of its pieces: shape (n_bins,)."""
        return self.totals[name] - self.pool([self.bags[i] for i in pieces], name)

    def statistics(
        self,
        rolls: Sequence[PianoRoll],
        bags: Sequence[dict[str, Bag]],
        features: Sequence[str],
        metric: str,
        pieces: np.ndarray | None = None,
    ) -> np.ndarray:
        """Distances of rolls from the corpus, and the features that are numbers.

        Parameters
        ----------
        rolls : sequence of PianoRoll
            Of one frame or more each.
        bags : sequence of dict of str to Bag
            Their distributions; from `count`.
        features : sequence of str
            Names of `FEATURES`.
        metric : str
            One of `pianolstm.scoring.distances.DISTANCES`.
        pieces : ndarray of int, shape (n_rolls,), default=None
            Piece of the corpus that each roll is taken from, and that it is not compared with.

        Returns
        -------
        ndarray of float, shape (n_rolls, n_features)
            Infinite where a roll has nothing to compare; NaN for a velocity that never changes,
            which most music that programs write has.
        """
        wants_numbers = any(FEATURES[name].bins == "number" for name in features)
        found = np.empty((len(rolls), len(features)))
        for i, (roll, bag) in enumerate(zip(rolls, bags, strict=True)):
            own = [] if pieces is None else [int(pieces[i])]
            numbers = measure(roll) if wants_numbers else {}
            for j, name in enumerate(features):
                if name in numbers:
                    found[i, j] = numbers[name]
                elif name == "velocity" and has_one_velocity([roll]):
                    found[i, j] = np.nan
                else:
                    sample = self.pool([bag], name)
                    corpus = self.without(own, name)
                    found[i, j] = distance(metric, FEATURES[name].bins, corpus, sample)
        return found


def has_one_velocity(rolls: Sequence[PianoRoll]) -> bool:
    """Whether all notes of some rolls, of which there may be none, are equally loud."""
    velocities = [roll.notes["velocity"] for roll in rolls if len(roll.notes)]
    return len({v for each in velocities for v in (each.min(), each.max())}) <= 1
