"""Chords as tokens: one integer a frame, exact in both directions.

A chord is its bits, as in `pianolstm.chords`. Token 0 is the rest. Decoding is total: a flag on a
pitch that was silent is a plain onset.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from pianolstm.checks import check_number
from pianolstm.chords import N_PITCHES, N_WORDS, chord_pitches, find, pack, unique_chords, unpack
from pianolstm.exceptions import DataLossWarning, InvalidInputError
from pianolstm.rolls import DEFAULT_FS, DEFAULT_VELOCITY, NOTE, Grid, PianoRoll, as_rolls
from pianolstm.tempo import TempoMap

REST = 0


@dataclass(frozen=True, eq=False)
class ChordSequence:
    """The tokens of one piece.

    Attributes
    ----------
    tokens : ndarray of int32, shape (n_frames,)
        Ids below ``n_tokens_`` of the tokenizer are its vocabulary; id ``n_tokens_ + i`` is the
        chord ``extra[i]``.
    extra : ndarray of uint64, shape (n_extra, 4)
        Bits of the piece's chords outside the vocabulary.
    fs, grid, tempo_map
        The grid of the frames, as on `PianoRoll`.
    before : ndarray of uint64, shape (4,)
        The chord that sounds before the first frame; a rest, unless the piece is cut out of
        another.
    """

    tokens: np.ndarray
    extra: np.ndarray = field(default_factory=lambda: np.empty((0, N_WORDS), np.uint64))
    fs: float = DEFAULT_FS
    grid: Grid = "seconds"
    tempo_map: TempoMap | None = None
    before: np.ndarray = field(default_factory=lambda: np.zeros(N_WORDS, np.uint64))

    def __len__(self) -> int:
        return len(self.tokens)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.tokens, dtype=dtype, copy=copy)

    def chords(self, vocabulary: np.ndarray) -> np.ndarray:
        """The bits of each frame's chord, uint64, shape (n_frames, 4)."""
        return np.concatenate([vocabulary, self.extra])[self.tokens]


@dataclass(eq=False, repr=False)
class TokenCorpus:
    """Pieces as tokens over one table of their chords.

    Attributes
    ----------
    tokens : sequence of ndarray of int32, shape (n_frames,)
        One entry a piece; ids are rows of `chords`.
    chords : ndarray of uint64, shape (n_chords, 4)
        Bits of each id; id 0 is the rest.
    fs : float
    grid : {"seconds", "beats"}
    tempo_maps : sequence of TempoMap or None
        One entry a piece.
    """

    tokens: Sequence[np.ndarray]
    chords: np.ndarray
    fs: float
    grid: Grid
    tempo_maps: Sequence[TempoMap | None]

    @classmethod
    def of(cls, rolls: Sequence[PianoRoll]) -> TokenCorpus:
        """Tokens of rolls of one grid."""
        runs = [chord_runs(roll) for roll in rolls]
        chords = np.concatenate([np.zeros((1, N_WORDS), np.uint64), *(c for _, c in runs)])
        table, inverse = unique_chords(chords)  # the rest is first
        ends = np.cumsum([1] + [len(c) for _, c in runs])
        tokens = [
            np.repeat(inverse[a:b].astype(np.int32), np.diff(starts, append=len(roll)))
            for a, b, (starts, _), roll in zip(ends[:-1], ends[1:], runs, rolls, strict=True)
        ]
        maps = [roll.tempo_map for roll in rolls]
        return cls(tokens, table, rolls[0].fs, rolls[0].grid, maps)

    def counts(self) -> np.ndarray:
        """Frames of each chord: int64, shape (n_chords,)."""
        return count_frames(self.tokens, len(self.chords))

    def take(self, pieces: Sequence[int]) -> TokenCorpus:
        """Some of the pieces, by their numbers."""
        tokens = [self.tokens[i] for i in pieces]
        maps = [self.tempo_maps[i] for i in pieces]
        return TokenCorpus(tokens, self.chords, self.fs, self.grid, maps)


def count_frames(tokens: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Frames of each id below n over all pieces, read piece by piece: int64, shape (n,)."""
    counts = np.zeros(n, np.int64)
    for piece in tokens:
        counts += np.bincount(piece, minlength=n)
    return counts


Pieces: TypeAlias = "Sequence[Any] | TokenCorpus"
"""What estimators take: a list of rolls or plain arrays, or a store of tokens."""


def as_corpus(
    X: Pieces, name: str = "X", *, fs: float | None = None, grid: Grid | None = None
) -> TokenCorpus:
    """Tokens of a list of pieces, or of a `TokenStore`, which is one already.

    Parameters
    ----------
    X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
    name, fs, grid
        As for `pianolstm.rolls.as_rolls`, which checks the list.

    Raises
    ------
    InvalidInputError
        If X is no list of pieces, is empty, or is on another grid.
    """
    if not isinstance(X, TokenCorpus):
        return TokenCorpus.of(as_rolls(X, name, fs=fs, grid=grid))
    if not X.tokens:
        raise InvalidInputError(f"{name} is empty; expected at least one piece.")
    expected = (fs or X.fs, grid or X.grid)
    if (X.fs, X.grid) != expected:
        raise InvalidInputError(
            f"{name} has fs={X.fs} on the grid of {X.grid}; expected fs={expected[0]} on the grid "
            f"of {expected[1]}. Encode all pieces with one PianoRollEncoder."
        )
    return X


class ChordTokenizer(TransformerMixin, BaseEstimator):
    """Give each chord of a corpus a number; turn rolls into these numbers, and back.

    ``inverse_transform(transform(rolls))`` gives the rolls back exactly, but for velocities,
    which tokens don't carry: 64 comes back.

    Parameters
    ----------
    max_tokens : int, default=None
        Size of the vocabulary at the most, the rest included; the most frequent chords are kept.
    min_count : int, default=1
        Frames that a chord must have in the corpus to be kept.
    unknown : {"keep", "nearest", "error"}, default="keep"
        What `transform` does with a chord outside the vocabulary: keep it, with an id from
        ``n_tokens_`` up and its bits in the sequence's `extra`; replace it by the known chord
        that differs in the fewest pitches, with a `DataLossWarning`; or raise.

    Attributes
    ----------
    vocabulary_ : ndarray of uint64, shape (n_tokens_, 4)
        Bits of each chord, most frequent first after the rest, which is token 0.
    counts_ : ndarray of int64, shape (n_tokens_,)
        Frames of each chord in the corpus.
    n_tokens_ : int
        Size of the vocabulary.
    seen_, seen_counts_ : ndarray of uint64, shape (n, 4), and of int64, shape (n,)
        All chords of the corpus, those outside the vocabulary too, and their frames:
        `partial_fit` goes on from them.

    See Also
    --------
    chord_pitches : The pitches of a chord, for people to read.

    Examples
    --------
    >>> import pianolstm as pl
    >>> roll = pl.PianoRoll.from_notes([0, 1, 2], [2, 2, 4], [60, 64, 60])
    >>> tokenizer = pl.ChordTokenizer().fit([roll])
    >>> (sequence,) = tokenizer.transform([roll])
    >>> sequence.tokens.tolist()
    [1, 3, 2, 1]
    >>> [pl.chord_pitches(chord) for chord in tokenizer.vocabulary_]
    ['', '60', '60*', '60 64']
    >>> tokenizer.inverse_transform([sequence]) == [roll]
    True
    """

    def __init__(
        self,
        *,
        max_tokens: int | None = None,
        min_count: int = 1,
        unknown: Literal["keep", "nearest", "error"] = "keep",
    ) -> None:
        self.max_tokens = max_tokens
        self.min_count = min_count
        self.unknown = unknown

    def fit(self, X: Pieces, y: Any = None) -> ChordTokenizer:
        """Collect the chords of a corpus.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.
        y : ignored

        Returns
        -------
        ChordTokenizer
            Itself.
        """
        for name in ("seen_", "seen_counts_", "vocabulary_"):
            self.__dict__.pop(name, None)
        return self.partial_fit(X)

    def partial_fit(self, X: Pieces, y: Any = None) -> ChordTokenizer:
        """Add the chords of more pieces; known chords keep their numbers.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.
        y : ignored

        Returns
        -------
        ChordTokenizer
            Itself.
        """
        self._check()
        fitted = hasattr(self, "vocabulary_")
        corpus = as_corpus(X, **({"fs": self.fs_, "grid": self.grid_} if fitted else {}))
        counts = corpus.counts()
        chords, counts = corpus.chords[counts > 0], counts[counts > 0]
        if fitted:
            chords = np.concatenate([self.seen_, chords])
            counts = np.concatenate([self.seen_counts_, counts])
            known = self.vocabulary_
        else:
            known = np.zeros((1, N_WORDS), np.uint64)  # the rest
        self.seen_, inverse = unique_chords(chords)
        self.seen_counts_ = np.bincount(inverse, weights=counts).astype(np.int64)
        row = find(known, self.seen_)
        candidates = np.flatnonzero((row < 0) & (self.seen_counts_ >= self.min_count))
        by_count = candidates[np.argsort(-self.seen_counts_[candidates], kind="stable")]
        if self.max_tokens is not None:
            by_count = by_count[: max(0, self.max_tokens - len(known))]
        self.vocabulary_ = np.concatenate([known, self.seen_[by_count]])
        self.n_tokens_ = len(self.vocabulary_)
        self.counts_ = np.append(np.zeros(len(known), np.int64), self.seen_counts_[by_count])
        self.counts_[row[row >= 0]] = self.seen_counts_[row >= 0]
        self.fs_ = corpus.fs
        self.grid_: Grid = corpus.grid
        return self

    def transform(self, X: Pieces) -> list[ChordSequence]:
        """Turn rolls into tokens.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.

        Returns
        -------
        list of ChordSequence
            One a piece.

        Raises
        ------
        InvalidInputError
            If a chord is outside the vocabulary and ``unknown="error"``.
        """
        check_is_fitted(self, "vocabulary_")
        rolls = X if isinstance(X, TokenCorpus) else self._rolls(X)
        corpus = rolls if isinstance(rolls, TokenCorpus) else TokenCorpus.of(rolls)
        return self._sequences(corpus, _tied(corpus, rolls))

    def _sequences(self, corpus: TokenCorpus, tied: Sequence[np.ndarray]) -> list[ChordSequence]:
        corpus = self.known(corpus)
        rows = find(self.vocabulary_, corpus.chords).astype(np.int32)
        sequences = []
        for tokens, tempo_map, before in zip(corpus.tokens, corpus.tempo_maps, tied, strict=True):
            ids, extra = rows[tokens], np.empty(0, np.int32)
            unknown = ids < 0
            if unknown.any():
                extra, inverse = np.unique(tokens[unknown], return_inverse=True)
                ids[unknown] = self.n_tokens_ + inverse
            sequences.append(
                ChordSequence(ids, corpus.chords[extra], corpus.fs, corpus.grid, tempo_map, before)
            )
        return sequences

    def fit_transform(self, X: Pieces, y: Any = None) -> list[ChordSequence]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Collect the chords of a corpus and turn it into tokens; the same as one after the other.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.
        y : ignored

        Returns
        -------
        list of ChordSequence
            One a piece.
        """
        corpus = as_corpus(X)
        tied = _tied(corpus, X)
        return self.fit(corpus)._sequences(corpus, tied)

    def known(self, corpus: TokenCorpus) -> TokenCorpus:
        """The corpus with the rule for unknown chords applied, as `unknown` says."""
        if self.unknown == "keep":
            return corpus
        counts = corpus.counts()
        unknown = np.flatnonzero((find(self.vocabulary_, corpus.chords) < 0) & (counts > 0))
        if len(unknown) == 0:
            return corpus
        if self.unknown == "error":
            found = (np.intersect1d(tokens, unknown) for tokens in corpus.tokens)
            i, ids = next((i, ids) for i, ids in enumerate(found) if len(ids))
            first = corpus.chords[ids[0]]
            raise InvalidInputError(
                f"X[{i}] has a chord that the tokenizer does not know: pitches "
                f'{chord_pitches(first)}. Set unknown="keep" or "nearest", or fit the tokenizer on '
                "music that has it."
            )
        warnings.warn(
            f"{counts[unknown].sum()} of {counts.sum()} frames have a chord outside the "
            "vocabulary; the nearest known chord stands in for it.",
            DataLossWarning,
            stacklevel=5,  # scikit-learn wraps transform
        )
        chords = corpus.chords.copy()
        for i in unknown.tolist():
            differing = np.bitwise_count(self.vocabulary_ ^ chords[i]).astype(np.int64)
            # Pitches first, strikes second, and the more frequent chord where both are equal.
            cost = 256 * differing[:, :2].sum(1) + differing[:, 2:].sum(1)
            closest = np.flatnonzero(cost == cost.min())
            chords[i] = self.vocabulary_[closest[np.argmax(self.counts_[closest])]]
        return TokenCorpus(corpus.tokens, chords, corpus.fs, corpus.grid, corpus.tempo_maps)

    def inverse_transform(self, X: Sequence[ChordSequence | np.ndarray]) -> list[PianoRoll]:
        """Turn tokens into rolls; total, whatever the order of the tokens.

        Parameters
        ----------
        X : list of ChordSequence or array-like of int, shape (n_frames,)
            One entry a piece.

        Returns
        -------
        list of PianoRoll
            All velocities 64.

        Raises
        ------
        InvalidInputError
            If a token is no chord of the vocabulary or of the sequence.
        """
        check_is_fitted(self, "vocabulary_")
        if isinstance(X, ChordSequence) or (isinstance(X, np.ndarray) and X.ndim == 1):
            raise InvalidInputError(
                "X must be a list with one entry a piece; got one sequence. Wrap it in a list: [X]."
            )
        rolls = []
        for i, entry in enumerate(X):
            if not isinstance(entry, ChordSequence):
                entry = ChordSequence(np.asarray(entry), fs=self.fs_, grid=self.grid_)
            tokens, n = entry.tokens, self.n_tokens_ + len(entry.extra)
            if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
                raise InvalidInputError(
                    f"X[{i}]: expected integer tokens of shape (n_frames,); got "
                    f"{tokens.dtype} of shape {tokens.shape}."
                )
            if len(tokens) and not 0 <= tokens.min() <= tokens.max() < n:
                raise InvalidInputError(
                    f"X[{i}]: tokens must lie between 0 and {n - 1}; got {tokens.min()} to "
                    f"{tokens.max()}."
                )
            rolls.append(decode(self.vocabulary_, entry))
        return rolls

    def coverage(self, X: Pieces) -> float:
        """The share of all frames of X whose chord is in the vocabulary.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.

        Returns
        -------
        float
            Between 0 and 1.
        """
        check_is_fitted(self, "vocabulary_")
        corpus = as_corpus(X, fs=self.fs_, grid=self.grid_)
        counts = corpus.counts()
        known = counts[find(self.vocabulary_, corpus.chords) >= 0].sum()
        return float(known / counts.sum()) if counts.sum() else 1.0

    def _rolls(self, X: Sequence[Any]) -> list[PianoRoll]:
        """Rolls of any one grid; plain arrays get the grid of the corpus."""
        if isinstance(X, (list, tuple)) and any(isinstance(entry, PianoRoll) for entry in X):
            return as_rolls(X)
        return as_rolls(X, fs=self.fs_, grid=self.grid_)

    def _check(self) -> None:
        for name in ("max_tokens", "min_count"):
            value = getattr(self, name)
            if value is None and name == "max_tokens":
                continue
            check_number(name, value, 1, None, whole=True)
        if self.unknown not in ("keep", "nearest", "error"):
            raise InvalidInputError(
                f'unknown must be "keep", "nearest" or "error"; got {self.unknown!r}.'
            )


def decode(vocabulary: np.ndarray, sequence: ChordSequence) -> PianoRoll:
    """The roll of one sequence of tokens over a vocabulary; velocities 64."""
    tokens = sequence.tokens
    table = np.concatenate([vocabulary, sequence.extra])
    # A chord held is one run; a chord that strikes again does so at each of its frames.
    strikes = np.any(table[:, 2:] != 0, axis=1)
    new_run = np.append(True, (tokens[1:] != tokens[:-1]) | strikes[tokens[1:]])[: len(tokens)]
    starts = np.append(np.flatnonzero(new_run), len(tokens))
    runs = unpack(table[tokens[starts[:-1]]]).astype(bool)
    # A first row for what sounds before the piece, a last one of silence after it.
    before = unpack(sequence.before[None]).astype(bool)[:, :128]
    sounding = np.concatenate([before, runs[:, :128], np.zeros((1, 128), bool)])
    struck = np.concatenate([np.zeros((1, 128), bool), runs[:, 128:], np.zeros((1, 128), bool)])
    onset = sounding.copy()
    onset[1:] &= ~sounding[:-1] | struck[1:]
    release = np.zeros_like(sounding)
    release[1:] = sounding[:-1] & (~sounding[1:] | onset[1:])
    # Pitch by pitch in time order, the k-th onset belongs to the k-th release.
    pitch, begin = np.nonzero(onset.T)
    end = np.nonzero(release.T)[1]
    kept = end > 1  # A note of `before` that does not go on is no note of this piece.
    pitch, begin, end = pitch[kept], begin[kept], end[kept]
    notes = np.zeros(len(pitch), NOTE)
    notes["start"] = starts[np.maximum(begin, 1) - 1]
    notes["end"] = starts[end - 1]
    notes["pitch"], notes["velocity"], notes["tied"] = pitch, DEFAULT_VELOCITY, begin == 0
    return PianoRoll(notes, len(tokens), sequence.fs, sequence.grid, sequence.tempo_map)


def chord_runs(roll: PianoRoll) -> tuple[np.ndarray, np.ndarray]:
    """Where the chord changes, and the chords: frames (n_runs,), bits (n_runs, 4).

    No plane is made. Notes of one pitch never overlap, so a running sum of each pitch's bit, added
    at its onsets and taken away at its releases, is the set of sounding pitches.
    """
    notes = roll.notes
    if len(roll) == 0:
        return np.empty(0, np.int64), np.empty((0, N_WORDS), np.uint64)
    start, end = notes["start"].astype(np.int64), notes["end"].astype(np.int64)
    word = (notes["pitch"] >> 6).astype(np.int64)
    bit = np.uint64(1) << (notes["pitch"] & 63).astype(np.uint64)
    by_pitch = np.argsort(notes["pitch"], kind="stable")  # they stand in the order of time
    again = np.zeros(len(notes), bool)
    again[by_pitch[1:]] = (notes["pitch"][by_pitch[1:]] == notes["pitch"][by_pitch[:-1]]) & (
        start[by_pitch[1:]] == end[by_pitch[:-1]]
    )
    frame = np.concatenate([[0], start, end, start[again], start[again] + 1])
    words = np.concatenate([[0], word, word, word[again] + 2, word[again] + 2])
    delta = np.concatenate([np.zeros(1, np.uint64), bit, -bit, bit[again], -bit[again]])
    frames, at = np.unique(frame, return_inverse=True)
    changes = np.zeros((len(frames), N_WORDS), np.uint64)
    np.add.at(changes, (at, words), delta)
    chords = np.cumsum(changes, axis=0, dtype=np.uint64)
    inside = frames < len(roll)
    return frames[inside], chords[inside]


def _tied(corpus: TokenCorpus, X: Any) -> list[np.ndarray]:
    """The chord that sounds before each piece."""
    planes = np.zeros((len(corpus.tokens), 2 * N_PITCHES), bool)
    for plane, roll in zip(planes, corpus.tokens if isinstance(X, TokenCorpus) else X, strict=True):
        if isinstance(roll, PianoRoll):
            plane[roll.notes["pitch"][roll.notes["tied"]]] = True
    return list(pack(planes))
