"""A corpus as what other music is judged by: its counts, and excerpts of any length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import PianoRoll
from pianolstm.scoring.counting import CountedCorpus
from pianolstm.scoring.distances import distance
from pianolstm.scoring.features import FEATURES, Bag
from pianolstm.scoring.typicality import (
    Reference,
    Typicality,
    mean_of_known,
    share_at_least,
    two_sided,
)

N_LONG = 10
"""Pieces that are as long as a sample is taken to be, at least (half of a smaller corpus)."""


class RealMusic:
    """Real music to rank other music in.

    Parameters
    ----------
    rolls : list of PianoRoll
        The corpus, one entry a piece.
    features : tuple of str
        Names of `FEATURES`.
    metric : str
        One of `pianolstm.scoring.distances.DISTANCES`.
    n_excerpts : int
        Excerpts of each length that is asked for.
    seed : int
        What they are drawn from.
    """

    def __init__(
        self,
        rolls: list[PianoRoll],
        features: tuple[str, ...],
        metric: str,
        n_excerpts: int,
        seed: int,
    ) -> None:
        self.rolls = rolls
        self.features = features
        self.metric = metric
        self.n_excerpts = n_excerpts
        self.seed = seed
        self.corpus = CountedCorpus(rolls)
        self._references: dict[int, Reference] = {}

    @property
    def longest(self) -> int:
        """Frames that enough pieces have for an excerpt: the length of the tenth longest."""
        lengths = sorted(len(roll) for roll in self.rolls if len(roll))
        if len(lengths) < 2:
            raise InvalidInputError(
                "The corpus has one piece; typicality needs at least two, to compare each with the "
                "others. Fit more pieces, or use distances."
            )
        return lengths[-min(N_LONG, max(2, len(lengths) // 2))]

    def parts(self, rolls: Sequence[PianoRoll]) -> tuple[list[PianoRoll], np.ndarray]:
        """Rolls cut to what has excerpts as long, and the roll that each part is of: (n_parts,)."""
        longest = self.longest
        parts, of = [], []
        for i, roll in enumerate(rolls):
            if len(roll) == 0:
                raise InvalidInputError(f"X[{i}] has no frames; expected pieces of at least one.")
            n_parts = -(-len(roll) // longest)
            starts = np.linspace(0, max(0, len(roll) - longest), n_parts).round().astype(int)
            parts += [roll[a : a + longest] for a in starts.tolist()]
            of += [i] * n_parts
        return parts, np.array(of)

    def draw(
        self, n_frames: int, n: int, rng: np.random.Generator
    ) -> tuple[list[PianoRoll], np.ndarray]:
        """Excerpts of the corpus and the pieces that they are of, all pieces as often.

        Parameters
        ----------
        n_frames : int
            At most `longest`.
        n : int
        rng : numpy.random.Generator

        Returns
        -------
        tuple of list of PianoRoll, and ndarray of int64, shape (n,)
        """
        long = np.flatnonzero([len(roll) >= n_frames for roll in self.rolls])
        pieces = np.resize(rng.permutation(long), n)
        last = np.array([len(self.rolls[i]) - n_frames for i in pieces])
        starts = rng.integers(last + 1)
        excerpts = [
            self.rolls[i][a : a + n_frames]
            for i, a in zip(pieces.tolist(), starts.tolist(), strict=True)
        ]
        return excerpts, pieces

    def reference(self, n_frames: int) -> Reference:
        """Statistics of excerpts of one length, drawn when first asked for."""
        if n_frames not in self._references:
            rng = np.random.default_rng((self.seed, n_frames))
            excerpts, pieces = self.draw(n_frames, self.n_excerpts, rng)
            bags = self.corpus.count(excerpts)
            found = self.statistics(excerpts, bags, pieces)
            self._references[n_frames] = Reference.of(found, pieces, bags)
        return self._references[n_frames]

    def statistics(
        self,
        rolls: Sequence[PianoRoll],
        bags: Sequence[dict[str, Bag]],
        pieces: np.ndarray | None = None,
    ) -> np.ndarray:
        """What is ranked of each roll: float, shape (n_rolls, n_features).

        With `pieces`, each roll is one of the corpus, and is compared with the others.
        """
        return self.corpus.statistics(rolls, bags, self.features, self.metric, pieces)

    def typicality(
        self, rolls: Sequence[PianoRoll], pieces: np.ndarray | None = None
    ) -> Typicality:
        """How rolls lie among real excerpts as long; with `pieces`, among those of other pieces."""
        parts, of = self.parts(rolls)
        own = None if pieces is None else pieces[of]
        found = self.statistics(parts, self.corpus.count(parts), own)
        columns = [found, *np.full((2, *found.shape), np.nan), *np.empty((2, len(parts)))]
        kinds = np.array([[len(part), -1] for part in parts])
        if own is not None:
            kinds[:, 1] = own
        for length, piece in np.unique(kinds, axis=0).tolist():
            at = np.all(kinds == (length, piece), axis=1)
            reference = self.reference(length)
            reference = reference if own is None else reference.without(piece)
            for column, values in zip(columns[1:], _ranks(found[at], reference), strict=True):
                column[at] = values
        means = [
            np.stack([mean_of_known(column[of == i]) for i in range(len(rolls))])
            for column in columns
        ]
        return Typicality(self.features, *means)

    def pooled(self, lengths: Sequence[int], n: int, seed: int) -> dict[str, np.ndarray]:
        """Distances of as many excerpts, taken together, from the pieces that they are not of.

        Parameters
        ----------
        lengths : sequence of int
            Frames of each excerpt.
        n : int
            How often they are drawn.
        seed : int

        Returns
        -------
        dict of str to ndarray of float, shape (n,)
            By the names of distributions.
        """
        rng = np.random.default_rng(seed)
        names = [name for name in self.features if FEATURES[name].bins != "number"]
        found = {name: np.empty(n) for name in names}
        sizes, counts = np.unique(lengths, return_counts=True)
        references = [self.reference(int(size)) for size in sizes]
        for i in range(n):
            # Of one half of the pieces, so that there is another half to compare them with.
            half = rng.permutation(len(self.rolls))[: len(self.rolls) // 2]
            bags, left_out = [], set()
            for reference, count in zip(references, counts.tolist(), strict=True):
                own = np.flatnonzero(np.isin(reference.pieces, half))
                own = own if len(own) else np.arange(len(reference.pieces))
                chosen = rng.choice(own, count, replace=count > len(own))
                bags += [reference.bags[k] for k in chosen]
                left_out |= set(reference.pieces[chosen].tolist())
            for name in names:
                rest = self.corpus.without(sorted(left_out), name)
                sample = self.corpus.pool(bags, name)
                found[name][i] = distance(self.metric, FEATURES[name].bins, rest, sample)
        return found


def _ranks(found: np.ndarray, reference: Reference) -> list[np.ndarray]:
    """Shares and typicality, (n, n_features); remoteness and the share that is as remote, (n,)."""
    shares, values = np.full((2, *found.shape), np.nan)
    for j in range(found.shape[1]):
        known, has = (~np.isnan(each[:, j]) for each in (reference.statistics, found))
        ranked = reference.statistics[known, j]
        shares[has, j] = share_at_least(found[has, j], ranked)
        values[has, j] = two_sided(found[has, j], ranked)
    far = reference.remoteness_of(found)
    return [shares, values, far, share_at_least(far, reference.remoteness)]
