"""What a network reads and is asked for: ids, bits, rows of the softmax, notes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pianolstm._model.gates import Match, RecalledBatch
from pianolstm._model.recall import Recalled
from pianolstm.chords import N_PITCHES, N_WORDS, as_words, transpose_chords, unpack
from pianolstm.vocabulary import END, OTHER, Corpus, n_rows

LAST = 2 * N_PITCHES
"""The symbol after the last note."""

ENDS = LAST + 1
"""The first symbol where the piece ends."""

SKIPPED = -1
"""The first symbol of a frame that is not to be spelled."""

MULTIPLE = 4
"""Lists of symbols are as long as a multiple of this, so that few sizes are compiled."""


class Transposed(NamedTuple):
    """How the pieces of a corpus are transposed, by `limit` semitones down to `limit` up."""

    rows: np.ndarray  # int32 (2 * limit + 1, n_chords): each chord's in the vocabulary; -1 outside
    steps: np.ndarray  # int64 (n_pieces,): semitones that each piece is transposed by


class Targets(NamedTuple):
    """What is to be predicted."""

    rows: np.ndarray  # int32 (…): of the softmax, 0 of a network that spells; -1 for no target
    barred: np.ndarray  # int32 (…)
    """The row that is impossible, -1 for none: with the clock of changes no chord begins by holding
    on what sounds. Where chords are spelled, 0 stands for that."""
    symbols: np.ndarray  # int16 (…, length): how it is spelled


class Reader:
    """Turns ids (`START` and `PAD` among them) into a network's inputs and targets.

    Parameters
    ----------
    corpus : Corpus
        The table of chords.
    hidden : ndarray, default=()
        Ids treated as chords outside the vocabulary.
    transposed : Transposed, default=None
        How pieces are transposed; None not at all.
    spell : bool, default=False
        Whether chords are written note by note, or as rows of the softmax.
    """

    def __init__(
        self,
        corpus: Corpus,
        hidden: np.ndarray | tuple[()] = (),  # int (n,)
        transposed: Transposed | None = None,
        *,
        spell: bool = False,
    ) -> None:
        rows = n_rows(corpus.n_tokens)
        if transposed is None:
            transposed = Transposed(corpus.rows[None], np.zeros(len(corpus.tokens), np.int64))
        self.spell, self.clock = spell, corpus.clock
        self._steps, self._limit = transposed.steps, len(transposed.rows) // 2
        # Two more entries, so that PAD (-2) and START (-1) index the last two.
        self._chords = np.concatenate([corpus.chords, np.zeros((2, N_WORDS), np.uint64)])
        self._words = as_words(self._chords)
        symbols = spelled(corpus.chords)
        ends = np.full((3, symbols.shape[1]), LAST, np.int16)  # of a piece, PAD and START
        ends[:, 0] = ENDS, SKIPPED, SKIPPED
        self._symbols = np.append(symbols, ends, 0)
        if spell:
            return
        table = transposed.rows
        is_hidden = np.zeros(corpus.n_tokens + 1, bool)
        is_hidden[corpus.rows[np.asarray(hidden, np.int64)]] = True
        outside = (table < 0) | is_hidden[table]
        targets = np.where(outside, rows + OTHER, table)
        # Nobody wrote a chord that only a transposition takes out of the vocabulary: it is
        # heard, but how often such chords come is not to be learned from it.
        targets[(table < 0) & (corpus.rows >= 0)] = -1
        self._inputs = _with_ends(np.where(outside, rows, table), [-2, -1])
        self._targets, self._rows = (
            _with_ends(targets, [rows + END]),
            _with_ends(np.where(table < 0, rows, table), [-1]),
        )
        self._held = np.append(corpus.held, [corpus.end] * 2)

    def inputs(
        self,
        ids: np.ndarray,  # int (…)
        pieces: np.ndarray | None = None,  # int (len(ids),)
    ) -> tuple[np.ndarray, np.ndarray]:  # int32 (…), uint32 (…, 8)
        """Ids as the network counts them, and bits; other chords have no id of its rows.

        A network that spells counts no chords, but knows `START` and `PAD`. `pieces` is the piece
        of each row of ids; None takes the chords as they were written.
        """
        bits = self._words[ids]
        if pieces is not None:
            steps = self._steps[pieces]
            for step in np.unique(steps[steps != 0]):
                same = steps == step
                chords = transpose_chords(self._chords[ids[same]], int(step))
                bits[same] = as_words(chords).reshape(*chords.shape[:-1], -1)
        if self.spell:
            return np.minimum(ids, 0).astype(np.int32), bits
        return self._inputs[self._row(ids, pieces), ids], bits

    def targets(
        self,
        ids: np.ndarray,  # int (…): `Corpus.end` may be among them
        before: np.ndarray,  # int (…): the frames before them
        pieces: np.ndarray | None = None,  # int (len(ids),): as for `inputs`
    ) -> Targets:
        """What is to be predicted."""
        symbols = self._symbols[ids]
        if pieces is not None:
            steps = self._steps[pieces].reshape(-1, *[1] * ids.ndim)
            is_note = (symbols >= 0) & (symbols < LAST)
            symbols = np.where(is_note, symbols + steps, symbols).astype(np.int16)
        none = np.full(ids.shape, -1, np.int32)
        if self.spell:
            barred = none if self.clock == "frames" else np.where(before >= 0, 0, none)
            return Targets(np.zeros_like(none), barred, symbols)
        row = self._row(ids, pieces)
        barred = none if self.clock == "frames" else self._rows[row, self._held[before]]
        return Targets(self._targets[row, ids], barred, symbols)

    def recalled(
        self,
        recalled: Recalled,  # arrays (…)
        ids: np.ndarray,  # int (…): what comes
        pieces: np.ndarray | None = None,  # int (len(ids),): as for `inputs`
    ) -> RecalledBatch:
        """What is recalled, as networks take it."""
        match = Match(recalled.classes, recalled.times, recalled.lags)
        bits = self.inputs(recalled.ids, pieces)[1]
        return RecalledBatch(match, bits, recalled.ids == ids, recalled.durations)

    def _row(
        self,
        ids: np.ndarray,  # int (…)
        pieces: np.ndarray | None,  # int (len(ids),)
    ) -> np.ndarray | int:  # int64 (len(ids), 1, …)
        """Which row of the tables each row of ids is read from."""
        if pieces is None:
            return self._limit
        return self._limit + self._steps[pieces].reshape(-1, *[1] * (ids.ndim - 1))


def _with_ends(
    table: np.ndarray,  # int (n, n_chords)
    ends: list[int],
) -> np.ndarray:  # int32 (n, n_chords + len(ends))
    columns = np.broadcast_to(ends, (len(table), len(ends)))
    return np.concatenate([table, columns], axis=1).astype(np.int32)


def spelled(
    chords: np.ndarray,  # uint64 (n, 4)
) -> np.ndarray:  # int16 (n, length)
    """Symbols of chords, each list ended by at least one `LAST`.

    A note is one of 256 symbols, the bits of a chord (see `pianolstm.chords`): a pitch, or 128 more
    where it is struck again. They ascend.
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
