"""What a piece has in common with training pieces, as `NoveltyScorer` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pianolstm.rolls import Grid
from pianolstm.scoring.tables import table

PASSAGES = ("exact", "transposed", "any_speed", "melody")


@dataclass(frozen=True)
class Passage:
    """A passage of a piece that a training piece has, too; `print` tells it in a line.

    Times are those at which its first and its last chord are struck: seconds, or quarter notes
    where the grid is of beats.

    Attributes
    ----------
    n_changes : int
        Different chord changes; in a melody, different steps from note to note.
    n_chords : int
        Chords, or notes of a melody, repetitions and all.
    start, end : float
        Where it stands in the piece.
    piece : int
        Number of the training piece, as `fit` was given them.
    piece_start, piece_end : float
        Where it stands in the training piece.
    semitones : int
        How much higher than in the training piece it is.
    speed : float
        How many times as fast as in the training piece it is.
    grid : {"seconds", "beats"}
        What times are measured by.
    """

    n_changes: int
    n_chords: int
    start: float
    end: float
    piece: int
    piece_start: float
    piece_end: float
    semitones: int
    speed: float
    grid: Grid

    def __str__(self) -> str:
        unit = "s" if self.grid == "seconds" else "quarter notes"
        return (
            f"{self.n_changes} different changes ({self.n_chords} chords), "
            f"{self.start:.2f}-{self.end:.2f} {unit}: piece {self.piece} at "
            f"{self.piece_start:.2f}-{self.piece_end:.2f} {unit}, {self.semitones:+d} semitones, "
            f"{self.speed:.2f} times as fast"
        )


@dataclass(frozen=True)
class Borrowing:
    """What a piece has in common with the training pieces; `print` shows it.

    Attributes
    ----------
    exact : Passage or None
        The longest passage that stands in a training piece at the same pitches, with the same
        durations from onset to onset; None where there is none.
    transposed : Passage or None
        The longest with the same durations, at any pitch.
    any_speed : Passage or None
        The longest at any pitch and at one speed throughout, from half to twice as fast, as far as
        frames tell: each duration may be rounded up or down.
    melody : Passage or None
        The longest, at any pitch and speed, of the melody alone: at each onset the highest note,
        unless a higher one sounds.
    ngrams : float
        Share of the runs of n chord changes that stand in a training piece, at any pitch and
        whatever their durations.
    typicality : dict of str to float
        For each of these, the share of real excerpts that have at least as much in common with
        other pieces. Near 0, hardly any real music borrows so much.
    """

    exact: Passage | None
    transposed: Passage | None
    any_speed: Passage | None
    melody: Passage | None
    ngrams: float
    typicality: dict[str, float]

    def __str__(self) -> str:
        rows = [(name, getattr(self, name) or "none") for name in PASSAGES]
        rows.append(("ngrams", f"{self.ngrams:.3f}"))
        return "\n".join(
            f"{name:<11}{self.typicality[name]:.3f} of real excerpts borrow as much; {what}"
            for name, what in rows
        )


@dataclass(frozen=True)
class NoveltyReport:
    """What sets of rolls have in common with the training pieces; `print` shows the table.

    Attributes
    ----------
    rows : tuple of dict
        One a set, the most novel first: ``rank``, ``name``, ``pieces``, ``seconds``, ``score``;
        ``exact``, ``transposed``, ``any_speed``, ``melody``: different changes of the longest
        passage of any piece; ``ngrams``, the mean of the pieces' shares.
    """

    rows: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        columns = list(self.rows[0])
        return table(columns, [[_cell(row[c]) for c in columns] for row in self.rows])


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
