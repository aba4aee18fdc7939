"""The measures of Yang and Lerch, and how two sets of music differ by them.

Conventions
-----------
Measures are of the notes that begin in a piece, in the order of their onsets, and at one onset
from the lowest up: that is how the published ones, made for one voice, are carried over to chords.
Time is in quarter notes on the grid of beats. On the grid of seconds it is in seconds, and a
quarter note is half a second (120 a minute, what MIDI takes where no tempo is given). Measures per
bar are left out: a grid of seconds has no bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist, pdist
from scipy.stats import gaussian_kde

from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import PianoRoll, as_rolls
from pianolstm.scoring.features import events
from pianolstm.scoring.tables import table

NOTE_LENGTHS = np.array([6, 8, 9, 12, 16, 18, 24, 32, 36, 48, 72, 96]) / 24
"""Classes of note lengths in quarter notes: sixteenth, triplet eighth, dotted sixteenth, eighth,
triplet quarter, dotted eighth, quarter, triplet half, dotted quarter, half, dotted half, whole."""

MIN_PIECES = 3
"""Fewest pieces of a set: two have one distance, and that has no density."""

N_POINTS = 1000
"""Points at which two densities are compared."""


class Measures(NamedTuple):
    """Measures of a piece after Yang and Lerch; from `measures`.

    Attributes
    ----------
    pitch_count : int
        How many different pitches are struck.
    note_count : int
        How many notes are struck.
    pitch_range : int
        Semitones from the lowest pitch to the highest.
    pitch_interval : float
        Mean size of the intervals between consecutive notes, in semitones, the notes of a chord
        from the lowest up ("average pitch shift").
    inter_onset_interval : float
        Mean time from one onset to the next, in seconds or quarter notes; notes struck together
        are one onset.
    pitch_class_histogram : ndarray, shape (12,)
        Share of each pitch class, C first, in the durations of all notes.
    pitch_class_transitions : ndarray, shape (12, 12)
        Share of each pair of pitch classes among the pairs of consecutive notes: row is the first,
        column the second.
    note_length_histogram : ndarray, shape (12,)
        Share of notes whose length is nearest to each of `NOTE_LENGTHS`; halfway it is the shorter.
    note_length_transitions : ndarray, shape (12, 12)
        Share of each pair of these classes among the pairs of consecutive notes.
    """

    pitch_count: int
    note_count: int
    pitch_range: int
    pitch_interval: float
    inter_onset_interval: float
    pitch_class_histogram: np.ndarray
    pitch_class_transitions: np.ndarray
    note_length_histogram: np.ndarray
    note_length_transitions: np.ndarray


def measures(roll: PianoRoll) -> Measures:
    """The measures of Yang and Lerch, of one piece.

    Parameters
    ----------
    roll : PianoRoll
        The piece. Notes tied at its beginning are left out.

    Returns
    -------
    Measures

    Raises
    ------
    InvalidInputError
        If notes begin at fewer than two times.

    References
    ----------
    Yang and Lerch (2020), On the evaluation of generative models in music, Neural Computing and
    Applications 32, section 3.1. Their text leaves open, and their code settles for one voice:
    histograms and transition matrices here sum to 1, so that long and short pieces compare; the
    pitch-class histogram counts durations, whatever the velocity; pairs of consecutive notes count
    whether or not there is a rest between them; rests have no class of length.

    Examples
    --------
    >>> import pianolstm as pl
    >>> roll = pl.PianoRoll.from_notes([0, 4, 8], [4, 8, 16], [60, 64, 67], fs=4, grid="beats")
    >>> found = pl.measures(roll)
    >>> found.pitch_count, found.pitch_range, found.pitch_interval, found.inter_onset_interval
    (3, 7, 3.5, 1.0)
    >>> found.pitch_class_histogram.tolist()
    [0.25, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    """
    notes = events(roll)
    onsets = np.unique(notes.onset)
    if len(onsets) < 2:
        raise InvalidInputError(
            f"Notes must begin at two times or more; got {len(notes.onset)} notes that begin at "
            f"{len(onsets)}. Leave the piece out."
        )
    pitch_class = notes.pitch % 12
    quarter = roll.fs if roll.grid == "beats" else roll.fs / 2
    length = _length_class(notes.duration / quarter)
    return Measures(
        pitch_count=len(np.unique(notes.pitch)),
        note_count=len(notes.pitch),
        pitch_range=int(np.ptp(notes.pitch)),
        pitch_interval=float(np.abs(np.diff(notes.pitch)).mean()),
        inter_onset_interval=float(np.diff(onsets).mean() / roll.fs),
        pitch_class_histogram=_shares(pitch_class, notes.duration),
        pitch_class_transitions=_transitions(pitch_class),
        note_length_histogram=_shares(length, np.ones(len(length))),
        note_length_transitions=_transitions(length),
    )


@dataclass(frozen=True)
class MeasureComparison:
    """How written music differs from real music by each measure; `print` shows the table.

    From `compare_measures`.

    Attributes
    ----------
    rows : tuple of dict
        One a measure: ``measure``; ``real`` and ``written``, the mean over the pieces (NaN for
        histograms and matrices); ``real distance``, ``written distance`` and ``distance between``,
        the mean distance of two pieces of the real ones, of the written ones, and of one of each;
        ``divergence``, the Kullback-Leibler divergence in nats of the distances between real
        pieces from those between real and written ones; ``overlap``, the area under both
        densities, from 0 to 1.
    """

    rows: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        columns = list(self.rows[0])
        return table(columns, [[_cell(row[column]) for column in columns] for row in self.rows])


def compare_measures(real: Sequence[Any], written: Sequence[Any]) -> MeasureComparison:
    """Compare two sets of pieces by the measures of Yang and Lerch.

    For each measure there are the Euclidean distances between any two real pieces, and between any
    real and any written one. Where the written pieces are as the real ones, both are distributed
    alike: the overlap of their densities is near 1, and the divergence near 0. Pieces should be of
    like length, which the counts and the range go with.

    Parameters
    ----------
    real, written : list of PianoRoll or array-like of shape (n_frames, 128)
        One entry a piece; at least three of each.

    Returns
    -------
    MeasureComparison
        `print` shows it as a table.

    Raises
    ------
    InvalidInputError
        If there are fewer than three pieces of a kind, or one has notes at fewer than two times.

    Notes
    -----
    Densities are Gaussian kernel estimates with Scott's bandwidth, over each pair of pieces once,
    and are compared at 1000 points common to both. Distances that are all the same have no density:
    against the same distances the overlap is then 1 and the divergence 0, against any others 0 and
    infinity.

    References
    ----------
    Yang and Lerch (2020), On the evaluation of generative models in music, Neural Computing and
    Applications 32, section 3.2.

    Examples
    --------
    >>> import pianolstm as pl
    >>> chorales = pl.datasets.load_chorales("train")
    >>> loops = [pl.PianoRoll.concatenate([roll[:8]] * 25) for roll in chorales[20:40]]
    >>> found = pl.compare_measures(chorales[:20], loops)
    >>> overlap = {row["measure"]: row["overlap"] for row in found.rows}
    >>> overlap["note_length_histogram"] > 0.5 > overlap["pitch_count"]
    True
    """
    first = as_rolls(real, "real")
    second = as_rolls(written, "written", fs=first[0].fs, grid=first[0].grid)
    found = [_each(first, "real"), _each(second, "written")]
    return MeasureComparison(
        tuple(_compared(name, *(each[name] for each in found)) for name in Measures._fields)
    )


def _length_class(quarters: np.ndarray) -> np.ndarray:
    """Nearest of `NOTE_LENGTHS` for each length in quarter notes; the shorter where halfway."""
    # Rounded, so that no rounding error decides what is halfway.
    distance = np.rint(np.abs(quarters[:, None] - NOTE_LENGTHS) * 1e9)
    return distance.argmin(axis=1)


def _shares(classes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    counts = np.bincount(classes, weights=weights, minlength=12)
    return counts / counts.sum()


def _transitions(classes: np.ndarray) -> np.ndarray:
    counts = np.zeros((12, 12))
    np.add.at(counts, (classes[:-1], classes[1:]), 1)
    return counts / counts.sum()


def _each(rolls: Sequence[PianoRoll], name: str) -> dict[str, np.ndarray]:
    """Each measure of all pieces: float64, shape (n_pieces, size of the measure)."""
    if len(rolls) < MIN_PIECES:
        raise InvalidInputError(
            f"{name} must have at least {MIN_PIECES} pieces; got {len(rolls)}. Cut pieces into "
            "excerpts if there are no more."
        )
    found = []
    for i, roll in enumerate(rolls):
        try:
            found.append(measures(roll))
        except InvalidInputError as error:
            raise InvalidInputError(f"{name}[{i}]: {error}") from None
    columns = zip(Measures._fields, zip(*found, strict=True), strict=True)
    return {
        measure: np.array(values, np.float64).reshape(len(rolls), -1) for measure, values in columns
    }


def _compared(name: str, real: np.ndarray, written: np.ndarray) -> dict[str, Any]:
    intra, own, inter = pdist(real), pdist(written), cdist(real, written).ravel()
    divergence, overlap = _densities_compared(intra, inter)
    is_number = real.shape[1] == 1
    return {
        "measure": name,
        "real": float(real.mean()) if is_number else float("nan"),
        "written": float(written.mean()) if is_number else float("nan"),
        "real distance": float(intra.mean()),
        "written distance": float(own.mean()),
        "distance between": float(inter.mean()),
        "divergence": divergence,
        "overlap": overlap,
    }


def _densities_compared(intra: np.ndarray, inter: np.ndarray) -> tuple[float, float]:
    """Kullback-Leibler divergence and overlap of the densities of two sets of distances."""
    low, high = min(intra.min(), inter.min()), max(intra.max(), inter.max())
    # Distances that differ by rounding alone are the same.
    is_point = [np.ptp(distances) <= 1e-9 * high for distances in (intra, inter)]
    if any(is_point):
        is_same = all(is_point) and high - low <= 1e-9 * high
        return (0.0, 1.0) if is_same else (float("inf"), 0.0)
    p, q = gaussian_kde(intra), gaussian_kde(inter)
    margin = 4 * float(np.sqrt(max(p.covariance.max(), q.covariance.max())))
    points = np.linspace(low - margin, high + margin, N_POINTS)
    log_p, log_q = p.logpdf(points), q.logpdf(points)
    step = points[1] - points[0]
    divergence = float(np.sum(np.exp(log_p) * (log_p - log_q)) * step)
    overlap = float(np.sum(np.exp(np.minimum(log_p, log_q))) * step)
    return max(divergence, 0.0), min(overlap, 1.0)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value.replace("_", " ")
    return "" if np.isnan(value) else f"{value:.3f}"
