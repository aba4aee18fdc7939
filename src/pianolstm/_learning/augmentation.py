"""Training pieces transposed, anew in each epoch."""

from __future__ import annotations

import numpy as np

from pianolstm._model.inputs import Transposed
from pianolstm.chords import N_PITCHES, find, transpose_chords, unpack
from pianolstm.vocabulary import Corpus


class Transpositions:
    """How far each piece of a corpus may be transposed, and what its chords become.

    A piece keeps within the range of pitches that the corpus has.

    Parameters
    ----------
    corpus : Corpus
    limit : int
        Most semitones, up or down.

    Attributes
    ----------
    limit : int
    rows : ndarray
        As of `Transposed`.
    lowest, highest : ndarray
        Most semitones that each piece may go down (0 or less) and up.
    """

    def __init__(self, corpus: Corpus, limit: int) -> None:
        self.limit = limit
        n_pieces = len(corpus.tokens)
        self.lowest, self.highest = np.zeros((2, n_pieces), np.int64)  # (n_pieces,), (n_pieces,)
        if limit == 0:
            self.rows = corpus.rows[None]
            return
        self.rows = np.stack(
            [
                find(corpus.vocabulary, transpose_chords(corpus.chords, step)).astype(np.int32)
                for step in range(-limit, limit + 1)
            ]
        )
        spans = np.full((n_pieces, 2), [N_PITCHES, -1])
        for i, tokens in enumerate(corpus.tokens):
            chord = np.bitwise_or.reduce(corpus.chords[np.unique(tokens)])
            pitches = np.flatnonzero(unpack(chord[None])[0, :N_PITCHES])
            if len(pitches):
                spans[i] = pitches[0], pitches[-1]
        low, high = spans[:, 0], spans[:, 1]
        self.lowest = np.maximum(-limit, np.minimum(0, low.min() - low))
        self.highest = np.minimum(limit, np.maximum(0, high.max() - high))

    def draw(self, rng: np.random.Generator | None) -> Transposed:
        """Semitones for each piece; none without a generator."""
        if rng is None or self.limit == 0:
            return Transposed(self.rows, np.zeros(len(self.lowest), np.int64))
        return Transposed(self.rows, rng.integers(self.lowest, self.highest, endpoint=True))
