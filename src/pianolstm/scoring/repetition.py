"""How music repeats itself: at once, and after something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pianolstm.checks import check_number
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import PianoRoll
from pianolstm.tokens import Pieces, TokenCorpus, as_corpus
from pianolstm.vocabulary import Corpus


class Repetition(NamedTuple):
    """How pieces repeat themselves, all together; from `repetition`.

    Attributes
    ----------
    twice, thrice : float
        Share of the time in passages that are being said again at once: for the second time in a
        row or more, and for the third or more.
    most : int
        Most times in a row that any passage comes.
    returns : float
        Share of the time in passages that have come before, with something else between.
    gap : float
        Median of how long after its end such a passage comes back, in seconds, or quarter notes
        where the grid is of beats; NaN where none does.
    chords_per_minute : float
        How many different chords a piece begins in a minute (or 60 quarter notes), their mean by
        time.
    """

    twice: float
    thrice: float
    most: int
    returns: float
    gap: float
    chords_per_minute: float


def repetition(X: Pieces, *, max_period: int = 128, min_length: int = 8) -> Repetition:
    """How pieces repeat themselves.

    Music is taken as the chords that begin, whatever their durations: any note that begins, ends or
    is struck again makes one. A passage that comes again at once is of two chords or more, not all
    the same.

    Real music says some things twice, few three times, and comes back to others; what is written by
    a network may do none of it, or be caught in a loop. Compare with real pieces of like length.

    Parameters
    ----------
    X : list of PianoRoll or array-like of shape (n_frames, 128)
        One entry a piece.
    max_period : int, default=128
        Longest passage, in frames, that counts as said again at once.
    min_length : int, default=8
        Fewest chords of a passage that counts as coming back.

    Returns
    -------
    Repetition

    Raises
    ------
    InvalidInputError
        If there is no frame, or a parameter is out of range.

    Examples
    --------
    >>> import pianolstm as pl
    >>> rolls = pl.datasets.load_chorales("validation")
    >>> pl.repetition(rolls).most
    1
    >>> tune = pl.PianoRoll.from_notes([0, 1, 2], [1, 2, 3], [60, 64, 67], fs=4)
    >>> found = pl.repetition([pl.PianoRoll.concatenate([tune] * 4)])
    >>> found.twice, found.thrice, found.most
    (0.75, 0.5, 4)
    """
    check_number("max_period", max_period, 1, None, whole=True)
    check_number("min_length", min_length, 1, None, whole=True)
    pieces = as_corpus(X)
    corpus = _changes(pieces)
    sums, total, n_chords, most, gaps = np.zeros(3), 0, 0, 1, []
    for tokens, durations in zip(corpus.tokens, corpus.durations, strict=True):
        marks, its_most, its_gaps = _of_piece(tokens, durations, int(max_period), int(min_length))
        sums += marks @ durations
        total += int(durations.sum())
        n_chords += len(np.unique(tokens))
        most, gaps = max(most, its_most), [*gaps, *its_gaps]
    if total == 0:
        raise InvalidInputError("X has no frames; expected pieces of at least one.")
    twice, thrice, returns = (sums / total).tolist()
    gap = float(np.median(gaps)) / pieces.fs if gaps else float("nan")
    return Repetition(twice, thrice, most, returns, gap, n_chords / (total / pieces.fs / 60))


def returns_by_lag(roll: PianoRoll, edges: np.ndarray, *, min_length: int = 8) -> np.ndarray:
    """Share of a piece's time in passages that have come before, by how long before.

    They come again at once or with something else between. One that has come several times before
    has a lag to each of them, from the one's beginning to the other's.

    Parameters
    ----------
    roll : PianoRoll
        Of one frame or more.
    edges : ndarray, shape (n_bins + 1,)
        Where bins of lags begin and end, in frames, ascending; a bin holds its lower edge and not
        its upper one.
    min_length : int, default=8
        Fewest chords of a passage that counts.

    Returns
    -------
    ndarray of float64, shape (n_bins,)

    Examples
    --------
    >>> import numpy as np, pianolstm as pl
    >>> from pianolstm.scoring.repetition import returns_by_lag
    >>> pitches = [60, 62, 71, 60, 62]  # two chords come back after three frames
    >>> roll = pl.PianoRoll.from_notes(range(5), range(1, 6), pitches)
    >>> returns_by_lag(roll, np.array([1, 2, 4]), min_length=2).tolist()
    [0.0, 0.4]
    """
    corpus = _changes(as_corpus([roll]))
    tokens, durations = corpus.tokens[0], corpus.durations[0]
    first = np.cumsum(durations) - durations
    marks = np.zeros((len(edges) - 1, len(tokens) + 1), np.int64)
    for lag, same, run in _agreements(tokens):
        begins, ends = _passages(lag, same, run, min_length)
        since = first[begins] - first[begins - lag]
        bins = np.searchsorted(edges, since, side="right") - 1
        inside = (bins >= 0) & (bins < len(marks))
        row = bins[inside] * marks.shape[1]
        _mark(marks.reshape(-1), row + begins[inside], row + ends[inside])
    return (np.cumsum(marks, axis=1)[:, :-1] > 0) @ durations / len(roll)


def _changes(pieces: TokenCorpus) -> Corpus:
    """Pieces as chords that begin."""
    return Corpus.of(np.empty((0, 4), np.uint64), pieces, "changes")


def _of_piece(
    tokens: np.ndarray,  # int32 (n,): chords that begin
    durations: np.ndarray,  # int32 (n,)
    max_period: int,
    min_length: int,
) -> tuple[np.ndarray, int, list[int]]:  # bool (3, n), …
    """Steps said twice and three times in a row, and those that return; most times; gaps."""
    n = len(tokens)
    first = np.cumsum(durations) - durations
    changed = np.append(0, np.cumsum(tokens[1:] != tokens[:-1]))[:n]
    edges, most, gaps = np.zeros((3, n + 1), np.int64), 1, []
    for lag, same, run in _agreements(tokens):
        place = np.arange(lag, n)
        is_one = (first[lag:] - first[:-lag] <= max_period) & (run >= lag) & (lag > 1)
        is_one[is_one] &= changed[place[is_one]] > changed[place[is_one] - lag + 1]
        if is_one.any():
            most = max(most, 1 + int(run[is_one].max()) // lag)
            for row, times in enumerate((2, 3)):
                at = place[is_one & (run >= (times - 1) * lag)]
                _mark(edges[row], at - lag + 1, at)
        begins, ends = _passages(lag, same, run, min_length)
        apart = ends - begins + 1 < lag
        begins, ends = begins[apart], ends[apart]
        _mark(edges[2], begins, ends)
        gaps += (first[begins] - first[ends - lag] - durations[ends - lag]).tolist()
    return np.cumsum(edges, axis=1)[:, :n] > 0, most, gaps


def _agreements(
    tokens: np.ndarray,  # int32 (n,)
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:  # …, bool (n - lag,), int64 (n - lag,)
    """For each lag: which steps are as those so many before, and how many in a row up to each."""
    n = len(tokens)
    for lag in range(1, n):
        same = tokens[lag:] == tokens[:-lag]
        place = np.arange(lag, n)
        yield lag, same, place - np.maximum.accumulate(np.where(same, lag - 1, place))


def _passages(
    lag: int,
    same: np.ndarray,  # bool (n - lag,)
    run: np.ndarray,  # int64 (n - lag,)
    min_length: int,
) -> tuple[np.ndarray, np.ndarray]:
    """First and last steps of passages that have come so many steps before."""
    last = same & ~np.append(same[1:], False) & (run >= min_length)
    ends = np.flatnonzero(last) + lag
    return ends - run[last] + 1, ends


def _mark(edges: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> None:
    """Add intervals, both ends included, to where they begin and stop."""
    np.add.at(edges, begins, 1)
    np.add.at(edges, ends + 1, -1)
