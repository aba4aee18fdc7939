"""Passages that pieces share, whatever their key and speed.

Conventions
-----------
A `Line` is a piece as the chords that it strikes, one after another, whatever sounds on from
before; or as its melody, which is one note at a time. From each chord to the next is a *chord
change*: two are equal where one is the other transposed, whatever their durations. A passage of m
changes is m + 1 chords.

Times and durations are in frames, from onset to onset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from pianolstm.chords import N_PITCHES, unpack
from pianolstm.tokens import TokenCorpus
from pianolstm.vocabulary import Corpus

MAX_STRETCH = 2.0
"""A passage at another speed takes at most this many times as long, and at least its inverse."""

SEED_LENGTHS = (4, 5, 6, 8, 12, 16, 24, 32)
MAX_PLACES = 64
"""Mean number of places at which a seed may stand in its corpus, before longer ones are taken."""

MAX_PAIRS = 4_000_000
"""Pairs of places that one piece is compared at; it bounds memory where all music is alike."""

HASH = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class Line:
    """The chords that a piece strikes, or its melody, one after another.

    Attributes
    ----------
    pitch : ndarray of int64, shape (n_chords,)
        Lowest pitch that each strikes.
    time : ndarray of int64, shape (n_chords,)
        Frame at which each is struck.
    changes : ndarray of uint64, shape (n_chords - 1,) or (0,)
        A number for each chord change. Two that differ but for transposition have different
        numbers, unless two hashes of 64 bits agree.
    """

    pitch: np.ndarray
    time: np.ndarray
    changes: np.ndarray

    def __len__(self) -> int:
        return len(self.pitch)

    def before(self) -> np.ndarray:  # int64 (n_chords - 1,)
        """Where each change, from the same pitches, last came before; -1 where it is the first."""
        same = _mix(self.pitch[:-1].astype(np.uint64)) + self.changes
        order = np.argsort(same, kind="stable")
        before = np.full(len(same), -1, np.int64)
        again = same[order[1:]] == same[order[:-1]]
        before[order[1:][again]] = order[:-1][again]
        return before


def lines(corpus: TokenCorpus) -> tuple[list[Line], list[Line]]:
    """Each piece as the chords it strikes, and as its melody.

    The melody is the skyline (Uitdenbogerd and Zobel 1999): at each onset the highest note, unless
    a higher one sounds.
    """
    steps = Corpus.of(np.empty((0, 4), np.uint64), corpus, "changes")
    chords, melodies = [], []
    for tokens, durations in zip(steps.tokens, steps.durations, strict=True):
        bits = steps.chords[tokens]
        before = np.concatenate([np.zeros((1, 2), np.uint64), bits[:-1, :2]])[: len(bits)]
        struck = (bits[:, :2] & ~before) | bits[:, 2:]
        at = np.flatnonzero(struck.any(1))
        time = (np.cumsum(durations) - durations)[at].astype(np.int64)
        planes = unpack(np.concatenate([struck[at], bits[at, :2]], axis=1)).astype(bool)
        struck, sounding = planes[:, :N_PITCHES], planes[:, N_PITCHES:]
        chords.append(_line(np.argmax(struck, axis=1), time, struck))
        top = _highest(struck)
        heard = top == _highest(sounding)
        melodies.append(_line(top[heard], time[heard]))
    return chords, melodies


def _line(pitch: np.ndarray, time: np.ndarray, struck: np.ndarray | None = None) -> Line:
    """A line of the lowest pitches of chords, their times, and what else they strike."""
    shape = np.zeros(len(pitch), np.uint64)
    if struck is not None and len(pitch):
        chord, note = np.nonzero(struck)
        above = _mix((note - pitch[chord]).astype(np.uint64))
        shape = np.add.reduceat(above, np.flatnonzero(np.append(True, chord[1:] != chord[:-1])))
    step = _mix(np.diff(pitch).astype(np.int64).view(np.uint64))
    return Line(pitch, time, _mix(_mix(shape[:-1]) + step) + _mix(shape[1:]))


def _highest(planes: np.ndarray) -> np.ndarray:
    return N_PITCHES - 1 - np.argmax(planes[:, ::-1], axis=1)


def _mix(x: np.ndarray) -> np.ndarray:
    """A hash of 64 bits (the finaliser of SplitMix64, Steele, Lea and Flood 2014)."""
    x = x + HASH
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def ngrams(changes: np.ndarray, n: int) -> np.ndarray:
    """A number for each run of n changes: uint64, shape (max(0, len(changes) - n + 1),)."""
    size = max(0, len(changes) - n + 1)
    grams = np.zeros(size, np.uint64)
    for i in range(n):
        grams = grams * HASH + changes[i : i + size]
    return grams


def n_different(before: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How many different changes passages have: those from `start` up to `end`, of one line.

    What is said over and over counts once: a trill has two changes, a bar that is repeated those
    of the bar.
    """
    length = end - start
    first = before[_ranges(start, length)] < np.repeat(start, length)
    total = np.append(0, np.cumsum(first))
    ends = np.cumsum(length)
    return total[ends] - total[ends - length]


def _ranges(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The numbers from each start on, as many as each length, one range after another."""
    offset = np.cumsum(length) - length
    return np.repeat(start - offset, length) + np.arange(length.sum())


@dataclass(frozen=True, eq=False)
class Matches:
    """Passages of a line that an `Index` has too; one entry a place in the line and the index.

    Attributes
    ----------
    place, other : ndarray of int64, shape (n,)
        Chord of the line, and chord of the index, at which a passage begins.
    lengths : dict of str to ndarray of int64, shape (n,)
        Changes of the longest passage from there on, for each kind; 0 where there is none.
    """

    place: np.ndarray
    other: np.ndarray
    lengths: dict[str, np.ndarray]

    def longest(self, kind: str, n_chords: int) -> np.ndarray:  # int64 (n_chords,)
        """Changes of the longest passage from each chord of the line on; 0 where there is none."""
        longest = np.zeros(n_chords, np.int64)
        np.maximum.at(longest, self.place, self.lengths[kind])
        return longest


class Index:
    """The lines of a corpus, to be searched for passages.

    Parameters
    ----------
    lines : sequence of Line
        One entry a piece.
    groups : ndarray of int64, shape (n_pieces,), default=None
        The group of copies that each piece is of; None finds them.

    Attributes
    ----------
    piece, pitch, time : ndarray of int64, shape (n_chords,)
        Of each chord, piece after piece.
    changes : ndarray of uint64, shape (n_chords,)
        From each chord to the next; after the last of a piece a number that nothing else has.
    offsets : ndarray of int64, shape (n_pieces + 1,)
        First chord of each piece, and the end.
    seed_length : int
        Fewest changes of a passage that is found: 4, or more where that many stand in too many
        places.
    groups : ndarray of int64, shape (n_pieces,)
        Pieces that are copies of one another have one number: two are where half of the different
        runs of `seed_length` changes of one stand in the other, too.
    """

    def __init__(self, lines: Sequence[Line], groups: np.ndarray | None = None) -> None:
        sizes = [len(line) for line in lines]
        self.offsets = np.cumsum([0, *sizes])
        self.piece = np.repeat(np.arange(len(lines)), sizes)
        self.pitch = np.concatenate([line.pitch for line in lines])
        self.time = np.concatenate([line.time for line in lines])
        self.changes = _mix(~np.arange(len(self.piece)).astype(np.uint64))
        inside = self.piece[1:] == self.piece[:-1]
        self.changes[:-1][inside] = np.concatenate([line.changes for line in lines])
        self.seed_length = next(
            (n for n in SEED_LENGTHS if self._mean_places(n) <= MAX_PLACES), SEED_LENGTHS[-1]
        )
        seeds = ngrams(self.changes, self.seed_length)
        self._order = np.argsort(seeds, kind="stable")
        self._seeds = seeds[self._order]
        self.groups = self._groups() if groups is None else groups

    def within(self, n: int) -> np.ndarray:  # bool (max(0, n_chords - n + 1),)
        """Where n changes from a chord on are of one piece."""
        size = max(0, len(self.piece) - n + 1)
        return np.arange(size) + n < self.offsets[self.piece[:size] + 1]

    def shared(self, n: int) -> np.ndarray:  # bool (n_chords,)
        """Where a run of n changes begins that stands in another group of copies, too."""
        within, shared = self.within(n), np.zeros(len(self.piece), bool)
        _, gram = np.unique(ngrams(self.changes, n)[within], return_inverse=True)
        group = self.groups[self.piece[: len(within)][within]]
        lowest = np.full(gram.max(initial=-1) + 1, len(self.groups))
        highest = np.full(len(lowest), -1)
        np.minimum.at(lowest, gram, group)
        np.maximum.at(highest, gram, group)
        shared[np.flatnonzero(within)] = (lowest < highest)[gram]
        return shared

    def _mean_places(self, n: int) -> float:
        """At how many places a run of n changes stands, in the mean over the corpus."""
        _, counts = np.unique(ngrams(self.changes, n), return_counts=True)
        return float(np.square(counts).sum() / max(1, counts.sum()))

    def _groups(self) -> np.ndarray:
        within = self.within(self.seed_length)
        _, gram = np.unique(ngrams(self.changes, self.seed_length)[within], return_inverse=True)
        n, n_grams = len(self.offsets) - 1, int(gram.max(initial=-1)) + 1
        piece = self.piece[: len(within)][within]
        has = csr_matrix((np.ones(len(gram), np.int32), (piece, gram)), (n, max(1, n_grams)))
        has.data[:] = 1
        common = (has @ has.T).tocoo()
        size = np.asarray(has.sum(axis=1)).ravel()
        copies = 2 * common.data >= np.minimum(size[common.row], size[common.col])
        pairs = (np.ones(copies.sum(), bool), (common.row[copies], common.col[copies]))
        return connected_components(csr_matrix(pairs, (n, n)), directed=False)[1].astype(np.int64)

    def matches(self, line: Line, kinds: Sequence[str], *, but: int | None = None) -> Matches:
        """Passages that a line shares with the pieces of the index.

        Parameters
        ----------
        line : Line
        kinds : sequence of {"exact", "transposed", "any_speed"}
            Which passages to find.
        but : int, default=None
            A group of pieces to leave out.
        """
        place, other, left = self._equal_changes(line, but)
        duration = (line.time[1:] - line.time[:-1])[place]
        other_duration = self.time[other + 1] - self.time[other]
        equal = duration == other_duration
        lengths = {}
        for kind in kinds:
            if kind == "any_speed":
                low, high = _stretches(duration, other_duration)
            else:
                kept = equal & ((kind == "transposed") | (line.pitch[place] == self.pitch[other]))
                low, high = np.where(kept, 1.0, np.inf), np.ones(len(kept))
            length = _longest_overlap(low, high, left)
            lengths[kind] = np.where(length >= self.seed_length, length, 0)
        return Matches(place, other, lengths)

    def _equal_changes(
        self, line: Line, but: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # int64 (n,) each
        """Changes that stand in runs of equal ones of at least `seed_length`, the longest first.

        Where each is in the line and in the index, and how many of its run are left.
        """
        seeds = ngrams(line.changes, self.seed_length)
        first = np.searchsorted(self._seeds, seeds, "left")
        count = np.searchsorted(self._seeds, seeds, "right") - first
        by_count = np.argsort(count, kind="stable")
        count[by_count[np.cumsum(count[by_count]) > MAX_PAIRS]] = 0
        place = np.repeat(np.arange(len(seeds)), count)
        other = self._order[_ranges(first, count)]
        if but is not None:
            kept = self.groups[self.piece[other]] != but
            place, other = place[kept], other[kept]
        order = np.argsort((other - place) * len(line) + place)
        place, other = place[order], other[order]
        begins = np.append(True, (np.diff(place) != 1) | (np.diff(other) != 1))[: len(place)]
        heads = np.flatnonzero(begins)
        length = np.diff(heads, append=len(place)) + self.seed_length - 1
        longest_first = np.argsort(-length, kind="stable")
        heads, length = heads[longest_first], length[longest_first]
        left = np.repeat(length, length) - _ranges(np.zeros_like(length), length)
        return _ranges(place[heads], length), _ranges(other[heads], length), left


def _stretches(duration: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much, from and to, durations may be those of the other, stretched.

    Frames round both of them, each by less than one.
    """
    with np.errstate(divide="ignore"):
        longest = (duration + 1) / (other - 1)
    return (
        np.maximum((duration - 1) / (other + 1), 1 / MAX_STRETCH),
        np.minimum(longest, MAX_STRETCH),
    )


def _longest_overlap(low: np.ndarray, high: np.ndarray, left: np.ndarray) -> np.ndarray:
    """How many intervals, from each on, have a point in common; within the `left` of its run.

    Spans of twice the length are made of two; the longest is put together from the largest span
    down to the smallest. With the longest runs first, few places are looked at for large spans.
    """
    spans, size = [(low, high)], 1
    while 2 * size <= left.max(initial=0):
        low, high = spans[-1]
        n = int(np.flatnonzero(left >= 2 * size)[-1]) + 1
        both = slice(0, n), slice(size, n + size)
        spans.append((np.maximum(*(low[i] for i in both)), np.minimum(*(high[i] for i in both))))
        size *= 2
    length = np.zeros(len(left), np.int64)
    lowest, highest = np.full(len(left), -np.inf), np.full(len(left), np.inf)
    for low, high in reversed(spans):
        n = len(low)
        at = np.flatnonzero(length[:n] + size <= left[:n])
        with_low = np.maximum(lowest[at], low[at + length[at]])
        with_high = np.minimum(highest[at], high[at + length[at]])
        fits = with_low <= with_high
        at = at[fits]
        lowest[at], highest[at] = with_low[fits], with_high[fits]
        length[at] += size
        size //= 2
    return length
