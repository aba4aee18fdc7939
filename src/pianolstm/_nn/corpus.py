"""Token sequences as the networks take them, and what a chord outside the vocabulary costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pianolstm.rolls import N_PITCHES
from pianolstm.tokens import N_WORDS, TokenCorpus, count_frames, find, unique_chords, unpack

ROW_MULTIPLE = 256
"""The vocabulary is padded to a multiple of this, so that few sizes are compiled."""


CHUNK = 1 << 14
"""Chords whose bits are unpacked at once."""

HOLD, END, OTHER = -3, -2, -1
"""The last rows of the softmax: what sounds, outside the vocabulary, is held on; the piece ends;
any other chord outside the vocabulary."""


LAST = 2 * N_PITCHES
"""The symbol after the last note."""

SKIPPED = -1
"""The first symbol of a frame that is not to be spelled."""

MULTIPLE = 4
"""Lists of symbols are as long as a multiple of this, so that few sizes are compiled."""


def n_rows(n_tokens: int) -> int:
    """Rows of the softmax for a vocabulary, padded.

    The last three are `HOLD`, `END` and `OTHER`.
    """
    return -(-(n_tokens + 3) // ROW_MULTIPLE) * ROW_MULTIPLE


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
    held : ndarray of int64, shape (n_chords,)
        Id of each chord held on: the same pitches, none struck again.
    vocabulary : ndarray of uint64, shape (n_tokens, 4)
        Bits of the vocabulary's chords.
    """

    tokens: Sequence[np.ndarray]
    chords: np.ndarray
    rows: np.ndarray
    held: np.ndarray
    vocabulary: np.ndarray

    @classmethod
    def of(cls, vocabulary: np.ndarray, corpus: TokenCorpus) -> Corpus:
        """See a corpus through a vocabulary."""
        held = held_on(corpus.chords)
        lacking = unique_chords(held[find(corpus.chords, held) < 0])[0]
        chords = np.concatenate([corpus.chords, lacking])
        rows = find(vocabulary, chords).astype(np.int32)
        return cls(corpus.tokens, chords, rows, find(chords, held_on(chords)), vocabulary)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)

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

    def onsets(self) -> np.ndarray:
        """Notes of each piece, by their onsets: int64, shape (n_pieces,)."""
        counts = []
        for tokens in self.tokens:
            chords = self.chords[tokens]
            before = np.concatenate([np.zeros((1, 2), np.uint64), chords[:-1, :2]])
            begun = (chords[:, :2] & ~before) | chords[:, 2:]
            counts.append(int(np.bitwise_count(begun).sum()))
        return np.array(counts, np.int64)

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
    transpositions : Transpositions, default=None
        How far pieces may be transposed; None not at all.
    rng : numpy.random.Generator, default=None
        Draws how far each one is.
    spell : bool, default=False
        Whether chords outside the vocabulary are written, or only told to be so.
    skip_held : bool, default=False
        Whether chords that are held on are to be learned by their row alone. To spell them takes
        time, and adds next to nothing to their likelihood.
    """

    def __init__(
        self,
        corpus: Corpus,
        hidden: np.ndarray | tuple[()] = (),
        transpositions: Transpositions | None = None,
        rng: np.random.Generator | None = None,
        *,
        spell: bool = False,
        skip_held: bool = False,
    ) -> None:
        rows = n_rows(corpus.n_tokens)
        if transpositions is None:
            transpositions = Transpositions(corpus, 0)
        table = transpositions.rows
        is_hidden = np.zeros(corpus.n_tokens + 1, bool)
        is_hidden[corpus.rows[np.asarray(hidden, np.int64)]] = True
        outside = (table < 0) | is_hidden[table]
        targets = np.where(outside, rows + OTHER, table)
        if not spell:
            # Nobody wrote a chord that only a transposition takes out of the vocabulary: it is
            # heard, but how often such chords come is not to be learned from it.
            targets[(table < 0) & (corpus.rows >= 0)] = -1
        self.spell, self.skip_held, self.n_rows = spell, skip_held, rows
        # Two more entries, so that PAD (-2) and START (-1) index the last two.
        self._inputs = _with_ends(np.where(outside, rows, table), [-2, -1])
        self._targets = _with_ends(targets, [rows + END])
        self._held = np.append(corpus.held, [corpus.end] * 2)
        self._chords = np.concatenate([corpus.chords, np.zeros((2, N_WORDS), np.uint64)])
        self._words = as_words(self._chords)
        ends = np.full((3, 1), [SKIPPED], np.int16)  # of the end of a piece, PAD and START
        self._symbols = spelled(corpus.chords)
        self._symbols = np.append(self._symbols, np.repeat(ends, self._symbols.shape[1], 1), 0)
        self._steps, self._limit = transpositions.draw(rng), transpositions.limit

    def inputs(
        self, ids: np.ndarray, pieces: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids as the network counts them, and bits (…, 8); other chords have no id of its rows.

        Parameters
        ----------
        ids : ndarray of int, shape (…)
        pieces : ndarray of int, shape (len(ids),), default=None
            The piece of each row of ids; None takes the chords as they were written.
        """
        bits = self._words[ids]
        if pieces is not None:
            steps = self._steps[pieces]
            for step in np.unique(steps[steps != 0]):
                same = steps == step
                chords = transpose_chords(self._chords[ids[same]], int(step))
                bits[same] = as_words(chords).reshape(*chords.shape[:-1], -1)
        return self._inputs[self._row(ids, pieces), ids], bits

    def targets(
        self, ids: np.ndarray, before: np.ndarray, pieces: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is to be predicted.

        Parameters
        ----------
        ids : ndarray of int, shape (…)
            `Corpus.end` may be among them.
        before : ndarray of int, shape (…)
            The frames before them.
        pieces : ndarray of int, default=None
            As for `inputs`.

        Returns
        -------
        rows : ndarray of int32, shape (…)
            Of the softmax; -1 where there is no target.
        may_hold : ndarray of bool, shape (…)
            Whether the row `HOLD` is possible: what sounds, held on, is outside the vocabulary.
        symbols : ndarray of int16, shape (…, length)
            How it is spelled; `SKIPPED` where it is not.
        """
        row, held = self._row(ids, pieces), self._held[before]
        targets = self._targets[row, ids]
        may_hold = self.spell & (self._targets[row, held] == self.n_rows + OTHER)
        targets = np.where(may_hold & (ids == held), self.n_rows + HOLD, targets)
        symbols = self._symbols[ids]
        if pieces is not None:
            steps = self._steps[pieces].reshape(-1, *[1] * ids.ndim)
            is_note = (symbols >= 0) & (symbols < LAST)
            symbols = np.where(is_note, symbols + steps, symbols).astype(np.int16)
        if self.skip_held:
            symbols[ids == held] = SKIPPED
        return targets.astype(np.int32), may_hold, symbols

    def _row(self, ids: np.ndarray, pieces: np.ndarray | None) -> np.ndarray | int:
        """Which row of the tables each row of ids is read from."""
        if pieces is None:
            return self._limit
        return self._limit + self._steps[pieces].reshape(-1, *[1] * (ids.ndim - 1))


def _with_ends(table: np.ndarray, ends: list[int]) -> np.ndarray:
    columns = np.broadcast_to(ends, (len(table), len(ends)))
    return np.concatenate([table, columns], axis=1).astype(np.int32)


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
    rows : ndarray of int32, shape (2 * limit + 1, n_chords)
        The row of each chord in the vocabulary, -1 where it is outside, from `limit` semitones down
        to `limit` up.
    lowest, highest : ndarray of int64, shape (n_pieces,)
        Most semitones that each piece may go down (0 or less) and up.
    """

    def __init__(self, corpus: Corpus, limit: int) -> None:
        self.limit = limit
        n_pieces = len(corpus.tokens)
        self.lowest, self.highest = np.zeros((2, n_pieces), np.int64)
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

    def draw(self, rng: np.random.Generator | None) -> np.ndarray:
        """Semitones for each piece: int64, shape (n_pieces,)."""
        if rng is None or self.limit == 0:
            return np.zeros(len(self.lowest), np.int64)
        return rng.integers(self.lowest, self.highest, endpoint=True)


def transpose_chords(chords: np.ndarray, steps: int) -> np.ndarray:
    """Chords some semitones higher (lower, if negative): uint64, shape (…, 4).

    Pitches that leave 0 to 127 are lost.
    """
    if steps == 0:
        return chords
    low, high = chords[..., 0::2], chords[..., 1::2]  # of the pitches sounding, of those struck
    moved, rest = np.uint64(abs(steps)), np.uint64(64 - abs(steps))
    shifted = np.empty_like(chords)
    if steps > 0:
        shifted[..., 0::2], shifted[..., 1::2] = low << moved, high << moved | low >> rest
    else:
        shifted[..., 0::2], shifted[..., 1::2] = low >> moved | high << rest, high >> moved
    return shifted


def spelled(chords: np.ndarray) -> np.ndarray:
    """Symbols of chords: int16, shape (n, length), each list ended by at least one `LAST`.

    A note is one of 256 symbols, the bits of a chord (see `pianolstm.tokens`): a pitch, or 128 more
    where it is struck again. They ascend.

    Parameters
    ----------
    chords : ndarray of uint64, shape (n, 4)
    """
    planes = unpack(chords).reshape(-1, 2, N_PITCHES).astype(bool)
    counts = planes[:, 0].sum(1)
    length = -(-(int(counts.max(initial=0)) + 1) // MULTIPLE) * MULTIPLE
    symbols = np.full((len(chords), length), LAST, np.int16)
    rows, pitches = np.nonzero(planes[:, 0])
    firsts = np.cumsum(counts) - counts
    again = planes[:, 1][rows, pitches]
    symbols[rows, np.arange(len(rows)) - firsts[rows]] = pitches + N_PITCHES * again
    return symbols


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


def held_on(chords: np.ndarray) -> np.ndarray:
    """Each chord as it sounds when it is held: none of its pitches struck again."""
    held = chords.copy()
    held[..., 2:] = 0
    return held


def as_words(chords: np.ndarray) -> np.ndarray:
    """Bits of chords (n, 4) uint64 as (n, 8) uint32, which JAX takes."""
    return np.ascontiguousarray(chords, dtype="<u8").view("<u4").reshape(-1, 8)


def padded_vocabulary(vocabulary: np.ndarray) -> np.ndarray:
    """Bits of the rows of the softmax, uint32, shape (n_rows, 8); zeros in the padding."""
    words = np.zeros((n_rows(len(vocabulary)), 8), np.uint32)
    words[: len(vocabulary)] = as_words(vocabulary)
    return words
