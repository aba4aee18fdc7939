"""Token sequences as the networks take them, and what a chord outside the vocabulary costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pianolstm.tokens import TokenCorpus, count_frames, find, unpack

ROW_MULTIPLE = 256
"""The vocabulary is padded to a multiple of this, so that few sizes are compiled."""


CHUNK = 1 << 14
"""Chords whose bits are unpacked at once."""


def n_rows(n_tokens: int) -> int:
    """Rows of the softmax for a vocabulary, padded.

    The last row but one is the end of a piece, the last any chord outside the vocabulary.
    """
    return -(-(n_tokens + 2) // ROW_MULTIPLE) * ROW_MULTIPLE


@dataclass(frozen=True, eq=False)
class Corpus:
    """Pieces as tokens, seen through a vocabulary.

    Attributes
    ----------
    tokens : sequence of ndarray of int32, shape (n_frames,)
        One entry a piece; ids are rows of `chords`.
    chords : ndarray of uint64, shape (n_chords, 4)
        Bits of each id.
    rows : ndarray of int32, shape (n_chords,)
        The chord's number in the vocabulary, -1 where it is outside.
    n_tokens : int
        Size of the vocabulary.
    """

    tokens: Sequence[np.ndarray]
    chords: np.ndarray
    rows: np.ndarray
    n_tokens: int

    @classmethod
    def of(cls, vocabulary: np.ndarray, corpus: TokenCorpus) -> Corpus:
        """See a corpus through a vocabulary."""
        rows = find(vocabulary, corpus.chords).astype(np.int32)
        return cls(corpus.tokens, corpus.chords, rows, len(vocabulary))

    @property
    def end(self) -> int:
        """Id that stands for the end of a piece, as a target only.

        Without an end to learn, the long last chords of pieces teach that long chords never end,
        and music freezes on them.
        """
        return len(self.chords)

    def counts(self) -> np.ndarray:
        """Frames of each id: int64, shape (n_chords,)."""
        return count_frames(self.tokens, len(self.chords))

    def longest_hold(self) -> int:
        """Most frames that a chord lasts before another follows; last chords of pieces aside."""
        holds, last = [], []
        for tokens in self.tokens:
            begins = np.flatnonzero(np.append(True, tokens[1:] != tokens[:-1]))
            lengths = np.diff(begins, append=len(tokens))
            holds.append(lengths[:-1])
            last.append(lengths[-1:])
        followed = np.concatenate(holds)
        return int(followed.max() if len(followed) else np.concatenate(last).max())

    def begun_once(self) -> np.ndarray:
        """Ids of vocabulary chords that the corpus begins just once, in the vocabulary's order."""
        begun = np.zeros(len(self.chords), np.int64)
        for tokens in self.tokens:
            changes = np.append(True, tokens[1:] != tokens[:-1])[: len(tokens)]
            begun += np.bincount(tokens[changes], minlength=len(begun))
        ids = np.flatnonzero((begun == 1) & (self.rows >= 0))
        return ids[np.argsort(self.rows[ids])]


class Reader:
    """Turns ids (`START` and `PAD` among them) into a network's inputs and targets.

    Parameters
    ----------
    corpus : Corpus
        The table of chords.
    hidden : ndarray of int, default=()
        Ids treated as chords outside the vocabulary.
    """

    def __init__(self, corpus: Corpus, hidden: np.ndarray | tuple[()] = ()) -> None:
        rows, ids = n_rows(corpus.n_tokens), corpus.rows
        outside = ids < 0
        outside[np.asarray(hidden, np.int64)] = True
        # Two more entries, so that PAD (-2) and START (-1) index the last two.
        self._inputs = np.append(np.where(outside, rows, ids), [-2, -1]).astype(np.int32)
        self._targets = np.append(np.where(outside, rows - 1, ids), rows - 2).astype(np.int32)
        self._words = np.concatenate([as_words(corpus.chords), np.zeros((2, 8), np.uint32)])

    def inputs(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids as the network counts them, and bits (…, 8); other chords have no id of its rows."""
        return self._inputs[ids], self._words[ids]

    def targets(self, ids: np.ndarray) -> np.ndarray:
        """Rows of the softmax of ids, `Corpus.end` among them."""
        return self._targets[ids]


class PitchBernoulli:
    """Each pitch on its own: what a chord outside the vocabulary costs, given that it is one.

    Every pitch sounds with its share of the training frames; a pitch that sounds in two frames in
    a row is struck again with one common share. Counts start at one half (Krichevsky and Trofimov
    1981), so that no chord is impossible.

    Attributes
    ----------
    sounding : ndarray of float64, shape (128,)
        Probability of each pitch.
    again : float
        Probability that a pitch that goes on is struck again.
    """

    def __init__(self, sounding: np.ndarray, again: float) -> None:
        self.sounding = np.asarray(sounding, np.float64)
        self.again = float(again)

    @classmethod
    def fit(cls, corpus: Corpus) -> PitchBernoulli:
        """Count over the frames of a corpus."""
        frames = corpus.counts()
        sounding = np.zeros(128)
        for a in range(0, len(frames), CHUNK):
            part = slice(a, a + CHUNK)
            sounding += frames[part] @ unpack(corpus.chords[part])[:, :128].astype(np.float64)
        going_on, again = 0, 0
        for tokens in corpus.tokens:
            chords = corpus.chords[tokens]
            going_on += int(np.bitwise_count(chords[1:, :2] & chords[:-1, :2]).sum())
            again += int(np.bitwise_count(chords[1:, 2:]).sum())
        return cls((sounding + 0.5) / (frames.sum() + 1), (again + 0.5) / (going_on + 1))

    def log_likelihood(self, chords: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Nats of each chord after the chord of the frame before it.

        Parameters
        ----------
        chords, before : ndarray of uint64, shape (n, 4)

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        sounding = unpack(chords)[:, :128].astype(np.float64)
        log_p = sounding @ np.log(self.sounding) + (1 - sounding) @ np.log1p(-self.sounding)
        going_on = np.bitwise_count(chords[:, :2] & before[:, :2]).sum(1).astype(np.float64)
        again = np.bitwise_count(chords[:, 2:]).sum(1).astype(np.float64)
        return log_p + again * np.log(self.again) + (going_on - again) * np.log1p(-self.again)


def as_words(chords: np.ndarray) -> np.ndarray:
    """Bits of chords (n, 4) uint64 as (n, 8) uint32, which JAX takes."""
    return np.ascontiguousarray(chords, dtype="<u8").view("<u4").reshape(-1, 8)


def padded_vocabulary(vocabulary: np.ndarray) -> np.ndarray:
    """Bits of the rows of the softmax, uint32, shape (n_rows, 8); zeros in the padding."""
    words = np.zeros((n_rows(len(vocabulary)), 8), np.uint32)
    words[: len(vocabulary)] = as_words(vocabulary)
    return words
