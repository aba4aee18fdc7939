"""What a piece has had before, recalled: music repeats itself, and networks forget.

Where the last frames of a piece have come before in it, the chord that followed them then is likely
to follow again. How likely is counted over the training pieces, by how many frames agree:

    p(frame) = share · [frame is the one recalled] + (1 - share) · p(frame) by the network

Of all places where the last frames have come before, one is recalled where most agree, by the
lengths of `LENGTHS`; of those the latest. Frames agree that have the same chord for as many frames:
else each held chord would agree with itself. (Mixing a model with what followed a like history is
the cache of Kuhn and De Mori 1990; long matches as contexts are those of PPM*, Cleary and Teahan
1997.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pianolstm.chords import ages
from pianolstm.vocabulary import Corpus

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Frames that agree, the classes that are counted apart."""

HALVES = {2: (1, 1), 3: (2, 1), 4: (2, 2), 6: (4, 2), 8: (4, 4)}
HALVES |= {12: (8, 4), 16: (8, 8), 24: (16, 8), 32: (16, 16)}
"""Each length as the sum of two shorter ones."""

MEMORY = 4096
"""Frames that are remembered."""


@dataclass(frozen=True)
class Recall:
    """How often what is recalled comes.

    Counts are, for each class of agreement, frames of the training pieces; and those among them
    whose chord was the one recalled. Class 0 is of frames where nothing is recalled.
    """

    counts: np.ndarray  # int64 (2, 1 + len(LENGTHS)), with a clock of changes (3, 1 + len(LENGTHS))

    @classmethod
    def fit(cls, corpus: Corpus) -> Recall:
        """Count over the pieces of a corpus."""
        n_counts = 2 if corpus.clock == "frames" else 3
        counts = np.zeros((n_counts, 1 + len(LENGTHS)), np.int64)
        for tokens, durations in zip(corpus.tokens, corpus.durations, strict=True):
            classes, sources = find_sources(corpus, tokens)
            is_recalled = classes > 0
            came = is_recalled & (tokens[sources] == tokens)
            lasted = is_recalled & (durations[sources - 1] == np.roll(durations, 1))
            for row, which in zip(counts, (classes, classes[came], classes[lasted]), strict=False):
                row += np.bincount(which, minlength=len(row))
        return cls(counts)

    def __add__(self, other: Recall) -> Recall:
        return Recall(self.counts + other.counts)

    @property
    def shares(self) -> np.ndarray:  # (1 + len(LENGTHS),)
        """Probability of what is recalled, by class; never 1."""
        n, came, *_ = self.counts
        return (came / (n + 1)).astype(np.float32)

    @property
    def duration_shares(self) -> np.ndarray:  # (1 + len(LENGTHS),)
        """Probability that the last chord lasts as long as the one recalled with it, by class."""
        n, _, lasted = self.counts
        return (lasted / (n + 1)).astype(np.float32)

    @property
    def all_shares(self) -> np.ndarray:  # (1 or 2, 1 + len(LENGTHS))
        """Those of chords, and with a clock of changes those of durations."""
        rows = [self.shares, *([self.duration_shares] if len(self.counts) > 2 else [])]
        return np.stack(rows)

    def of(
        self,
        corpus: Corpus,
        number: int,  # of the piece
        *,
        spell: bool,
    ) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,), int32 (n,)
        """Along a piece, the share of what is recalled, and its id; for a step more than there is.

        Without spelling no chord outside the vocabulary is recalled.
        """
        tokens = np.append(corpus.tokens[number], 0)
        classes, sources = find_sources(corpus, tokens)
        ids = tokens[sources]
        shares = self.shares.astype(np.float64)[classes]
        return np.where(spell | (corpus.rows[ids] >= 0), shares, 0), ids

    def durations_of(
        self, corpus: Corpus, number: int
    ) -> tuple[np.ndarray, np.ndarray]:  # float64 (n_steps + 1,), int32 (n_steps + 1,)
        """Of the chord before each step, the share of the duration that is recalled, and that."""
        classes, sources = find_sources(corpus, np.append(corpus.tokens[number], 0))
        recalled = corpus.durations[number][sources - 1]
        return self.duration_shares.astype(np.float64)[classes], recalled


def find_sources(
    corpus: Corpus,
    tokens: np.ndarray,  # int32 (n,): ids of a piece's chords
) -> tuple[np.ndarray, np.ndarray]:  # int64 (n,), int64 (n,)
    """What is recalled along a piece.

    Returns
    -------
    classes
        How many frames before each frame agree, as a number of `LENGTHS` from 1 on; 0 for none.
    sources
        The frame that is recalled, an earlier one; 0 for none.
    """
    n = len(tokens)
    classes, sources = np.zeros((2, n), np.int64)
    # Of chords that begin the timing is no part: performances never repeat it.
    is_held = corpus.clock == "frames"
    held = ages(corpus.chords[tokens]) if is_held else np.zeros(n, np.int64)
    frames = np.stack([tokens, held], axis=1)
    # Contexts that end with each frame, numbered so that like ones have the same number; -1 where
    # the piece is too young.
    contexts = {1: _numbered(frames)}
    for number, length in enumerate(LENGTHS, 1):
        if length > 1:
            first, second = HALVES[length]
            before = np.concatenate([np.full(second, -1), contexts[first]])[:n]
            pairs = np.stack([before, contexts[second]], axis=1)
            contexts[length] = np.where(before < 0, -1, _numbered(pairs))
        context = contexts[length]
        order = np.argsort(context, kind="stable")
        same = (context[order][1:] == context[order][:-1]) & (context[order][1:] >= 0)
        lag = np.zeros(n, np.int64)
        lag[order[1:]] = np.where(same, np.diff(order), 0)
        # What follows is recalled in the next frame.
        at = np.flatnonzero((lag[:-1] > 0) & (lag[:-1] <= MEMORY - (not is_held))) + 1
        classes[at], sources[at] = number, at - lag[at - 1]
    return classes, sources


def _numbered(
    pairs: np.ndarray,  # int (n, 2)
) -> np.ndarray:  # int64 (n,)
    """Rows of two numbers as one, the same for like rows."""
    wide = pairs[:, 0].astype(np.int64) * (int(pairs[:, 1].max(initial=0)) + 1) + pairs[:, 1]
    return np.unique(wide, return_inverse=True)[1].reshape(-1)
