"""Structure over time: what of a piece is like what, what comes back, and how full it is.

Conventions
-----------
Times and lags are in seconds, or in quarter notes where the grid is of beats. A piece is cut into
slices of one length. A window is `SLICES` slices in a row, and one begins with each slice. Windows
are compared slice by slice, so that they are alike where the same comes in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from pianolstm import plotting
from pianolstm.checks import check_number
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import PianoRoll, as_rolls
from pianolstm.scoring.repetition import returns_by_lag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Comparison: TypeAlias = Literal["harmony", "any_key", "rhythm"]
"""What windows are compared by."""

SLICES = 4
"""Slices of a window."""

MAX_SLICES = 600
"""A longer piece gets longer slices, so that the similarity matrix stays small."""

SLOTS = 4
"""Parts of a slice in which onsets are counted."""

ALIKE = 0.9
"""Similarity from which windows count as alike."""


@dataclass(frozen=True, eq=False, repr=False)
class Structure:
    """A piece over time; from `structure`.

    Attributes
    ----------
    roll : PianoRoll
        The piece.
    compare : {"harmony", "any_key", "rhythm"}
        What windows are compared by.
    window, hop : float
        Length of a window, and time from one window's beginning to the next one's.
    times : ndarray of float64, shape (n_windows,)
        When each window begins.
    similarity : ndarray of float32, shape (n_windows, n_windows)
        Self-similarity matrix: how alike two windows are, from 0 to 1.
    density : ndarray of float64, shape (n_windows,)
        Notes struck per second (or quarter note) in each window.
    polyphony : ndarray of float64, shape (n_windows,)
        Notes that sound in each window, their mean over time.
    rests : float
        Share of the time in which nothing sounds.
    longest_rest : float
        Longest time in which nothing sounds.
    lags : ndarray of float64, shape (n_bins + 1,)
        Where bins of lags begin and end; each is half an octave wide, and the first begins with
        `window`.
    alike : ndarray of float64, shape (n_bins,)
        Share of windows that are like one that began so long before, by a similarity of at least
        0.9. At a lag of t it is about 1 - t / length at most, since nothing comes before the
        beginning.
    exact : ndarray of float64, shape (n_bins,)
        Share of the time in passages of eight chords or more that come again chord for chord, and
        began so long before. Chords are those of `repetition`, whatever their durations.
    returning : float
        Share of windows that are like one before, with a window or more between. In a loop that is
        all of them, but for its first round and the first two windows.
    locality : float
        How much more alike two windows in a row are than two with a window or more between, on
        average. Near 0 where the order of what comes is left to chance, near or below 0 in a loop;
        NaN in a piece shorter than three windows.
    """

    roll: PianoRoll
    compare: Comparison
    window: float
    hop: float
    times: np.ndarray
    similarity: np.ndarray
    density: np.ndarray
    polyphony: np.ndarray
    rests: float
    longest_rest: float
    lags: np.ndarray
    alike: np.ndarray
    exact: np.ndarray
    returning: float
    locality: float

    def __repr__(self) -> str:
        unit = "s" if self.roll.grid == "seconds" else "quarter notes"
        return (
            f"<Structure {len(self.times)} windows of {self.window:g} {unit} by {self.compare}, "
            f"returning {self.returning:.2f}, locality {self.locality:.2f}>"
        )

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Draw the piece, how full it is, its self-similarity, and what comes back when.

        Parameters
        ----------
        axes : sequence of four matplotlib.axes.Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        sequence of four matplotlib.axes.Axes
        """
        return plotting.plot_structure(self, axes=axes)


def structure(roll: Any, *, window: float = 4.0, compare: Comparison = "harmony") -> Structure:
    """The structure of a piece over time.

    The self-similarity matrix (Foote 1999) holds the mean cosine of two windows' slices, smoothed
    along its diagonals as Müller and Kurth (2006) do. What a slice holds depends on `compare`:

    - ``"harmony"``: how long each pitch class sounds in it;
    - ``"any_key"``: the same, and one window is transposed to where it is most like the other
      (Müller and Clausen 2007);
    - ``"rhythm"``: how many notes are struck in each quarter of it.

    A slice with nothing in it is like another such slice, and like no other.

    Parameters
    ----------
    roll : PianoRoll or array-like of shape (n_frames, 128)
        One piece.
    window : float, default=4.0
        Length of a window in seconds, or in quarter notes where the grid is of beats. Windows begin
        every quarter of it. It is rounded to four times a number of frames, and is longer where
        more than 600 slices would fill the piece.
    compare : {"harmony", "any_key", "rhythm"}, default="harmony"
        What windows are compared by.

    Returns
    -------
    Structure

    Raises
    ------
    InvalidInputError
        If roll is not one piece or has no frames, or a parameter is out of range.

    References
    ----------
    Foote (1999), Visualizing music and audio using self-similarity. Müller and Kurth (2006),
    Enhancing similarity matrices for music audio analysis. Müller and Clausen (2007),
    Transposition-invariant self-similarity matrices.

    Examples
    --------
    A theme of eight seconds, something else, and the theme again:

    >>> import pianolstm as pl
    >>> theme, other = [60, 64, 67, 72, 71, 67, 62, 59], [65, 69, 65, 70, 74, 70, 65, 69]
    >>> pitches = theme + other + theme
    >>> roll = pl.PianoRoll.from_notes(range(24), range(1, 25), pitches, fs=1)
    >>> found = pl.structure(roll)
    >>> found
    <Structure 21 windows of 4 s by harmony, returning 0.24, locality -0.04>
    >>> found.similarity[0, [4, 8, 16]].round(2).tolist()
    [0.0, 0.0, 1.0]
    >>> found.lags.round(1).tolist()
    [4.0, 5.7, 8.0, 11.3, 16.0, 22.6, 32.0]
    >>> found.alike.round(2).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.24, 0.0]
    """
    roll = _one_piece(roll)
    check_number("window", window, SLICES / roll.fs, None)
    if compare not in get_args(Comparison):
        raise InvalidInputError(
            f'compare must be "harmony", "any_key" or "rhythm"; got {compare!r}.'
        )
    hop = max(1, round(window * roll.fs / SLICES), -(-len(roll) // MAX_SLICES))  # frames
    starts = np.arange(0, len(roll), hop)
    size = min(SLICES, len(starts))
    similarity = self_similarity(_content(roll, hop, compare), size, compare == "any_key")
    lengths = _in_windows(np.minimum(hop, len(roll) - starts), size) / roll.fs
    struck = roll.notes["start"][~roll.notes["tied"]] // hop
    sounding = _sounding(roll, hop).sum(axis=1) / roll.fs
    rests = _rests(roll)
    n_octaves = max(0.0, np.log2(len(roll) / (SLICES * hop)))
    lags = SLICES * hop * 2 ** (np.arange(np.ceil(2 * n_octaves) + 1) / 2)  # frames
    return Structure(
        roll=roll,
        compare=compare,
        window=SLICES * hop / roll.fs,
        hop=hop / roll.fs,
        times=starts[: len(similarity)] / roll.fs,
        similarity=similarity,
        density=_in_windows(np.bincount(struck, minlength=len(starts)), size) / lengths,
        polyphony=_in_windows(sounding, size) / lengths,
        rests=float(rests.sum() / len(roll)),
        longest_rest=float(rests.max() / roll.fs),
        lags=lags / roll.fs,
        alike=_alike_by_lag(similarity, lags / hop),
        exact=returns_by_lag(roll, lags),
        returning=_returning(similarity),
        locality=_locality(similarity),
    )


def self_similarity(content: np.ndarray, size: int, any_key: bool = False) -> np.ndarray:
    """Mean cosine of the slices of each two windows.

    Parameters
    ----------
    content : ndarray, shape (n_slices, n_features)
        What each slice holds, nothing below 0.
    size : int
        Slices of a window.
    any_key : bool, default=False
        Whether the features are the 12 pitch classes, and the greatest mean over the 12 rotations
        of one of the windows is taken.

    Returns
    -------
    ndarray of float32, shape (n_slices - size + 1, n_slices - size + 1)
    """
    norm = np.linalg.norm(content, axis=1, keepdims=True)
    unit = (content / np.where(norm > 0, norm, 1)).astype(np.float32)
    is_empty = (norm == 0).astype(np.float32)

    def windows(shift: int) -> np.ndarray:  # (n_windows, size * (n_features + 1))
        slices = np.concatenate([np.roll(unit, shift, axis=1), is_empty], axis=1)
        parts = np.lib.stride_tricks.sliding_window_view(slices, size, axis=0)
        return parts.reshape(len(parts), -1)

    fixed = windows(0)
    similarity = fixed @ fixed.T
    for shift in range(1, 12 if any_key else 1):
        np.maximum(similarity, fixed @ windows(shift).T, out=similarity)
    return np.minimum(similarity / size, 1)


def _one_piece(roll: Any) -> PianoRoll:
    """The piece, of one frame or more."""
    if isinstance(roll, (list, tuple)) and any(isinstance(r, PianoRoll) for r in roll):
        raise InvalidInputError(
            f"roll must be one piece; got a list of {len(roll)}. Call structure for each of them."
        )
    roll = as_rolls([roll], "roll")[0]
    if len(roll) == 0:
        raise InvalidInputError("roll has no frames; expected a piece of at least one.")
    return roll


def _content(roll: PianoRoll, hop: int, compare: Comparison) -> np.ndarray:
    """What each slice holds: frames of the 12 pitch classes, or notes struck in each of 4 slots."""
    if compare == "rhythm":
        start = roll.notes["start"][~roll.notes["tied"]].astype(np.int64)
        n_slots = -(-len(roll) // hop) * SLOTS
        return np.bincount(start * SLOTS // hop, minlength=n_slots).reshape(-1, SLOTS)
    sounding = _sounding(roll, hop)
    return np.pad(sounding, ((0, 0), (0, 4))).reshape(len(sounding), -1, 12).sum(axis=1)


def _sounding(roll: PianoRoll, hop: int) -> np.ndarray:  # int64 (n_slices, 128)
    """For how many frames each pitch sounds in each slice."""
    start, end = (roll.notes[name].astype(np.int64) for name in ("start", "end"))
    n_parts = (end - 1) // hop - start // hop + 1
    note = np.repeat(np.arange(len(start)), n_parts)
    part = np.arange(len(note)) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    at = start[note] // hop + part
    frames = np.minimum(end[note], (at + 1) * hop) - np.maximum(start[note], at * hop)
    sounding = np.zeros((-(-len(roll) // hop), 128), np.int64)
    np.add.at(sounding, (at, roll.notes["pitch"][note]), frames)
    return sounding


def _in_windows(per_slice: np.ndarray, size: int) -> np.ndarray:  # (n_slices - size + 1,)
    """Sums over the slices of each window."""
    return np.convolve(per_slice, np.ones(size), mode="valid")


def _rests(roll: PianoRoll) -> np.ndarray:  # int64 (n_notes + 1,)
    """For how many frames nothing sounds before each note that begins, and after the last."""
    silent_from = np.maximum.accumulate(np.append(0, roll.notes["end"]))
    return np.maximum(np.append(roll.notes["start"], len(roll)) - silent_from, 0)


def _alike_by_lag(
    similarity: np.ndarray,  # float32 (n, n)
    edges: np.ndarray,  # float64 (n_bins + 1,): in windows
) -> np.ndarray:  # float64 (n_bins,)
    """Share of windows that are like one before, by how long before."""
    later, earlier = np.nonzero(np.tril(similarity >= ALIKE, -SLICES))
    bins = np.searchsorted(edges, later - earlier, side="right") - 1
    is_alike = np.zeros((len(edges) - 1, len(similarity)), bool)
    is_alike[bins, later] = True
    return is_alike.mean(axis=1)


def _returning(similarity: np.ndarray) -> float:
    """Share of windows that are like one before, with a window or more between."""
    return float(np.tril(similarity >= ALIKE, -2 * SLICES).any(axis=1).mean())


def _locality(similarity: np.ndarray) -> float:
    """Mean similarity of windows in a row, less that of windows with one or more between."""
    lag = np.arange(len(similarity))
    sums = np.array([np.trace(similarity, k, dtype=np.float64) for k in lag])
    pairs = len(similarity) - lag
    near, far = slice(SLICES, 2 * SLICES), slice(2 * SLICES, None)
    if len(lag) <= 2 * SLICES:
        return float("nan")
    return float(sums[near].sum() / pairs[near].sum() - sums[far].sum() / pairs[far].sum())
