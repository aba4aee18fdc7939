"""Piano rolls: notes on a grid of frames.

Conventions
-----------
Time comes first: a dense plane has shape (n_frames, 128), its column is the MIDI pitch. The grid
is ``"seconds"`` (``fs`` frames a second) or ``"beats"`` (``fs`` frames a quarter note, with the
tempo map of the piece on the roll).
"""

from __future__ import annotations

import base64
import html
import math
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from pianolstm import audio, midi, plotting
from pianolstm.checks import plain
from pianolstm.exceptions import DataLossWarning, InvalidInputError
from pianolstm.tempo import (
    MAX_MICROSECONDS,
    TempoMap,
    common_resolution,
    constant_tempo,
    joined,
    seconds_grid_ticks,
)

if TYPE_CHECKING:
    import pretty_midi
    from matplotlib.axes import Axes

N_PITCHES = 128
N_KEYS = 88

NOTE = np.dtype(
    [("start", "<i4"), ("end", "<i4"), ("pitch", "u1"), ("velocity", "u1"), ("tied", "?")]
)
"""One note of a roll: first frame, frame after the last, pitch, velocity, begun before the roll."""

DEFAULT_FS = 20
DEFAULT_VELOCITY = 64
MAX_FRAMES = 2**31 - 1
Grid: TypeAlias = Literal["seconds", "beats"]


class PianoRoll:
    """An immutable piano roll: notes quantised to frames, in one canonical form.

    Notes are sorted by (start, pitch); there is one note to a (start, pitch), the longest and
    loudest; a note ends at the latest where the next of its pitch starts; each is at least one
    frame long. The roll costs bytes per note: the dense planes `velocity` and `onset` are made
    when asked for. ``np.asarray(roll)`` is the velocity plane.

    Make one with `from_notes`, `from_array` or `PianoRollEncoder`. ``roll[a:b]`` is the time from
    frame a to frame b: a note that began before a is marked as tied, and `concatenate` rejoins it.

    Attributes
    ----------
    notes : structured ndarray, shape (n_notes,)
        Fields ``start``, ``end`` (frames; end is the frame after the last), ``pitch``,
        ``velocity`` and ``tied`` (sounded before the first frame). Read-only.
    n_frames : int
        Length in frames, rests at the end included; also ``len(roll)``.
    fs : float
        Frames per second, or per quarter note on the grid of beats.
    grid : {"seconds", "beats"}
        What the frames divide.
    tempo_map : TempoMap or None
        Tempi on the grid of beats; None on the grid of seconds.

    Examples
    --------
    >>> import pianolstm as pl
    >>> roll = pl.PianoRoll.from_notes(start=[0, 2, 4], end=[2, 4, 8], pitch=[60, 64, 67], fs=4)
    >>> roll
    <PianoRoll 3 notes, 8 frames at fs=4 (2.0 s), pitches 60-67>
    >>> roll.velocity[2:5, [60, 64, 67]].tolist()
    [[0, 64, 0], [0, 64, 0], [0, 0, 64]]
    >>> pl.PianoRoll.concatenate([roll[:5], roll[5:]]) == roll
    True
    """

    __slots__ = ("fs", "grid", "n_frames", "notes", "tempo_map")

    notes: np.ndarray
    n_frames: int
    fs: float
    grid: Grid
    tempo_map: TempoMap | None

    def __init__(
        self,
        notes: np.ndarray,
        n_frames: int,
        fs: float = DEFAULT_FS,
        grid: Grid = "seconds",
        tempo_map: TempoMap | None = None,
    ) -> None:
        check_fs(fs, grid)
        fs = plain(fs)
        canonical = _canonical(np.asarray(notes, dtype=NOTE), int(n_frames))
        canonical.setflags(write=False)
        if grid == "beats":
            tempo_map = tempo_map or TempoMap.constant()
            tempo_map = tempo_map.at_resolution(
                common_resolution([tempo_map], int(fs), int(n_frames))
            )
            tempo_map = tempo_map.until_tick(round(n_frames * tempo_map.ticks_per_quarter / fs))
        elif tempo_map is not None:
            raise InvalidInputError(
                'A tempo map belongs to grid="beats"; on grid="seconds" leave tempo_map out.'
            )
        values = (canonical, int(n_frames), int(fs) if fs == int(fs) else fs, grid, tempo_map)
        for name, value in zip(("notes", "n_frames", "fs", "grid", "tempo_map"), values):  # noqa: B905 (equal by construction)
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A PianoRoll is immutable; {name} can't be set.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"A PianoRoll is immutable; {name} can't be deleted.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.notes, self.n_frames, self.fs, self.grid, self.tempo_map)

    @classmethod
    def from_notes(
        cls,
        start: Any,
        end: Any,
        pitch: Any,
        velocity: Any = DEFAULT_VELOCITY,
        *,
        n_frames: int | None = None,
        fs: float = DEFAULT_FS,
        grid: Grid = "seconds",
        tempo_map: TempoMap | None = None,
        tied: Any = False,
    ) -> PianoRoll:
        """Make a roll from notes given in frames.

        Parameters
        ----------
        start, end : array-like of int, shape (n_notes,)
            First frame of each note, and the frame after its last.
        pitch : array-like of int, shape (n_notes,)
            MIDI pitches, 0-127.
        velocity : int or array-like of int, default=64
            MIDI velocities, 1-127.
        n_frames : int, default=None
            Length of the roll; None ends it with the last note.
        fs, grid, tempo_map
            See the class.
        tied : bool or array-like of bool, default=False
            Notes at frame 0 that began before the roll.

        Returns
        -------
        PianoRoll

        Raises
        ------
        InvalidInputError
            If the arrays differ in length or a value is out of range.
        """
        columns = [np.atleast_1d(np.asarray(c)) for c in (start, end, pitch, velocity, tied)]
        try:
            columns = np.broadcast_arrays(*columns)
        except ValueError:
            raise InvalidInputError(
                "start, end, pitch and velocity must have one entry a note; got lengths "
                f"{[len(c) for c in columns]}."
            ) from None
        for name, column, low, high in (
            ("start", columns[0], 0, MAX_FRAMES - 1),
            ("end", columns[1], 0, MAX_FRAMES),
            ("pitch", columns[2], 0, N_PITCHES - 1),
            ("velocity", columns[3], 1, 127),
        ):
            _check_integers(name, column, low, high)
        if (columns[1] < columns[0]).any():
            i = int(np.argmax(columns[1] < columns[0]))
            raise InvalidInputError(
                f"Note {i} ends at frame {columns[1][i]}, before it starts at {columns[0][i]}."
            )
        notes = np.empty(len(columns[0]), NOTE)
        for name, column in zip(NOTE.names or (), columns, strict=True):
            notes[name] = column
        if n_frames is None:
            n_frames = int(np.maximum(notes["end"], notes["start"] + 1).max(initial=0))
        return cls(notes, n_frames, fs, grid, tempo_map)

    @classmethod
    def from_array(
        cls,
        array: Any,
        *,
        onset: Any = None,
        fs: float = DEFAULT_FS,
        grid: Grid = "seconds",
        tempo_map: TempoMap | None = None,
    ) -> PianoRoll:
        """Make a roll from a dense plane.

        Parameters
        ----------
        array : array-like, shape (n_frames, 128)
            Non-zero where a pitch sounds. Values are MIDI velocities 1-127, taken where a note
            begins; an array of nothing but 0 and 1 (or bools) gets velocity 64.
        onset : array-like of bool, shape (n_frames, 128), default=None
            True where a note begins; needed only for a note struck again while it sounds.
        fs, grid, tempo_map
            See the class.

        Returns
        -------
        PianoRoll

        Raises
        ------
        InvalidInputError
            If the shape is not (n_frames, 128) or a value is out of range.

        Examples
        --------
        >>> import numpy as np, pianolstm as pl
        >>> plane = np.zeros((4, 128)); plane[1:3, 60] = 90
        >>> pl.PianoRoll.from_array(plane).notes[["start", "end", "pitch", "velocity"]].tolist()
        [(1, 3, 60, 90)]
        """
        plane = np.asarray(array)
        if plane.ndim != 2 or plane.shape[1] != N_PITCHES:
            hint = ""
            if plane.ndim == 2 and plane.shape[0] == N_PITCHES:
                hint = "; this one looks like (pitch, time): pass its transpose, array.T"
            elif plane.ndim == 2 and plane.shape[1] == N_KEYS:
                hint = (
                    f"; this one has the {N_KEYS} keys of a piano: write "
                    "np.pad(array, ((0, 0), (21, 19)))"
                )
            raise InvalidInputError(
                f"Expected a piano roll of shape (n_frames, {N_PITCHES}), time first; got shape "
                f"{plane.shape}{hint}."
            )
        if plane.dtype == bool:
            plane = plane.astype(np.uint8)
        _check_velocities(plane)
        sounding = plane != 0
        before = np.zeros_like(sounding)
        before[1:] = sounding[:-1]
        struck = sounding & ~before
        if onset is not None:
            flags = np.asarray(onset, dtype=bool)
            if flags.shape != plane.shape:
                raise InvalidInputError(
                    f"onset must have the shape of array, {plane.shape}; got {flags.shape}."
                )
            struck |= sounding & flags
        released = before & (~sounding | struck)
        released = np.concatenate([released, sounding[-1:]])
        # Pitch by pitch in time order, the k-th onset belongs to the k-th release.
        pitch, start = np.nonzero(struck.T)
        end = np.nonzero(released.T)[1]
        velocity = plane[start, pitch] if plane.max(initial=0) > 1 else DEFAULT_VELOCITY
        return cls.from_notes(
            start,
            end,
            pitch,
            velocity,
            n_frames=len(plane),
            fs=fs,
            grid=grid,
            tempo_map=tempo_map,
        )

    @classmethod
    def concatenate(cls, rolls: Sequence[PianoRoll]) -> PianoRoll:
        """Join rolls in time; a tied note goes on with the note that sounds before it.

        Parameters
        ----------
        rolls : sequence of PianoRoll
            At least one; all of one `fs` and `grid`.

        Returns
        -------
        PianoRoll

        Raises
        ------
        InvalidInputError
            If there is no roll, or they differ in `fs` or `grid`.
        """
        rolls = as_rolls(rolls, "rolls")
        first = rolls[0]
        offsets = np.cumsum([0] + [r.n_frames for r in rolls])
        parts = []
        for roll, offset in zip(rolls, offsets[:-1].tolist(), strict=True):
            part = roll.notes.copy()
            part["start"] += offset
            part["end"] += offset
            parts.append(part)
        notes = np.concatenate(parts)
        # By pitch and time, a tied note goes on with the note before it if that ends where it
        # starts; a chain of ties is one run.
        notes = notes[np.lexsort((notes["start"], notes["pitch"]))]
        joins = np.zeros(len(notes), dtype=bool)
        joins[1:] = (
            notes["tied"][1:]
            & (notes["pitch"][1:] == notes["pitch"][:-1])
            & (notes["start"][1:] == notes["end"][:-1])
        )
        heads = np.flatnonzero(~joins)
        whole = notes[heads]
        if len(heads):
            whole["end"] = np.maximum.reduceat(notes["end"], heads)
        tempo_map = first.tempo_map
        if tempo_map is not None:
            maps = [roll.tempo_map for roll in rolls if roll.tempo_map is not None]
            tempo_map = joined(maps, int(first.fs), offsets.tolist())
        return cls(whole, int(offsets[-1]), first.fs, first.grid, tempo_map)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return float(self.frames_to_seconds(self.n_frames))

    @property
    def velocity(self) -> np.ndarray:
        """Velocity where a pitch sounds, else 0: uint8, shape (n_frames, 128)."""
        plane = np.zeros((self.n_frames, N_PITCHES), np.uint8)
        length = self.notes["end"] - self.notes["start"]
        note = np.repeat(np.arange(len(length)), length)
        since_onset = np.arange(len(note)) - np.repeat(np.cumsum(length) - length, length)
        frame = self.notes["start"][note] + since_onset
        plane[frame, self.notes["pitch"][note]] = self.notes["velocity"][note]
        return plane

    @property
    def onset(self) -> np.ndarray:
        """True where a note begins (a tied note does not): bool, shape (n_frames, 128)."""
        plane = np.zeros((self.n_frames, N_PITCHES), bool)
        struck = self.notes[~self.notes["tied"]]
        plane[struck["start"], struck["pitch"]] = True
        return plane

    def frames_to_seconds(self, frames: Any) -> np.ndarray:
        """Time in seconds at which each frame begins."""
        frames = np.asarray(frames, dtype=np.float64)
        if self.tempo_map is None:
            return frames / self.fs
        return self.tempo_map.to_seconds(frames * (self.tempo_map.ticks_per_quarter / self.fs))

    def transpose(self, semitones: int) -> PianoRoll:
        """The same music at another pitch.

        Parameters
        ----------
        semitones : int
            How far up; negative goes down.

        Returns
        -------
        PianoRoll

        Raises
        ------
        InvalidInputError
            If a pitch would leave 0-127.

        Examples
        --------
        >>> import pianolstm as pl
        >>> roll = pl.PianoRoll.from_notes([0, 2], [2, 4], [60, 64])
        >>> roll.transpose(3).notes["pitch"].tolist()
        [63, 67]
        """
        _check_integers("semitones", np.asarray(semitones), -127, 127)
        notes = self.notes.copy()
        pitch = notes["pitch"].astype(np.int64) + int(semitones)
        if len(pitch) and not 0 <= pitch.min() <= pitch.max() < N_PITCHES:
            raise InvalidInputError(
                f"Transposed by {semitones} semitones, pitches {self.notes['pitch'].min()} to "
                f"{self.notes['pitch'].max()} would leave 0-127; choose a smaller interval."
            )
        notes["pitch"] = pitch
        return PianoRoll(notes, self.n_frames, self.fs, self.grid, self.tempo_map)

    def stretch(self, factor: float) -> PianoRoll:
        """The same music, `factor` times as long.

        On the grid of seconds notes move to other frames; where two of one pitch then begin in
        one frame, one is left, and a `DataLossWarning` counts them. On the grid of beats notes
        stay and the tempo changes, by whole microseconds per quarter note.

        Parameters
        ----------
        factor : float
            Above 0; 2 is half the speed.

        Returns
        -------
        PianoRoll

        Raises
        ------
        InvalidInputError
            If factor is not above 0, or the tempo leaves what a MIDI file can hold.

        Examples
        --------
        >>> import pianolstm as pl
        >>> roll = pl.PianoRoll.from_notes([0, 2], [2, 4], [60, 64])
        >>> roll.stretch(1.5).notes[["start", "end"]].tolist()
        [(0, 3), (3, 6)]
        """
        if not isinstance(factor, (int, float, np.integer, np.floating)) or not 0 < factor < 1e6:
            raise InvalidInputError(f"factor must be a number above 0; got {factor!r}.")
        if self.tempo_map is not None:
            tempo = self.tempo_map
            microseconds = np.maximum(1, np.rint(tempo.microseconds * float(factor)))
            if microseconds.max() > MAX_MICROSECONDS:
                raise InvalidInputError(
                    f"Stretched by {factor}, the slowest tempo has {microseconds.max():,.0f} "
                    f"microseconds per quarter note; a MIDI file holds at most "
                    f"{MAX_MICROSECONDS:,}. Choose a smaller factor."
                )
            tempo = TempoMap(tempo.ticks, microseconds, tempo.ticks_per_quarter)
            return PianoRoll(self.notes, self.n_frames, self.fs, self.grid, tempo)
        if self.n_frames * float(factor) > MAX_FRAMES:
            raise InvalidInputError(
                f"Stretched by {factor}, the roll would have more than {MAX_FRAMES:,} frames."
            )
        notes = self.notes.copy()
        for name in ("start", "end"):
            notes[name] = np.floor(self.notes[name] * float(factor) + 0.5)
        n_frames = math.floor(self.n_frames * float(factor) + 0.5)
        n_frames = max(n_frames, int(np.maximum(notes["end"], notes["start"] + 1).max(initial=0)))
        stretched = PianoRoll(notes, n_frames, self.fs)
        n_lost = len(notes) - len(stretched.notes)
        if n_lost:
            warnings.warn(
                f"{n_lost} of {len(notes)} notes begin in one frame with another of their pitch "
                f"when stretched by {factor}, and were merged with it.",
                DataLossWarning,
                stacklevel=2,
            )
        return stretched

    def to_midi(
        self, program: int = 0, velocity: int | None = None, *, tempo: float | None = None
    ) -> pretty_midi.PrettyMIDI:
        """Make a `pretty_midi.PrettyMIDI`; ``.write("new.mid")`` saves it.

        Frames fall on exact ticks, so that a `PianoRollEncoder` of the same `fs` and `grid` reads
        the same roll back. (A piece on the grid of beats of more than ten million ticks is written
        with coarser ones, and its tempo changes then move by less than a tick, once.)

        Parameters
        ----------
        program : int, default=0
            General MIDI program, 0-127; 0 is the acoustic grand piano.
        velocity : int, default=None
            One velocity 1-127 for all notes; None keeps each note's own.
        tempo : float, default=None
            On the grid of beats, quarter notes a minute throughout; None plays the roll's own
            tempi.

        Returns
        -------
        pretty_midi.PrettyMIDI

        Raises
        ------
        InvalidInputError
            If a parameter is out of range, or a tempo is given on the grid of seconds.
        """
        _check_integers("program", np.asarray(program), 0, 127)
        notes = self.notes
        velocities = notes["velocity"]
        if velocity is not None:
            _check_integers("velocity", np.asarray(velocity), 1, 127)
            velocities = np.full(len(notes), velocity)
        if self.tempo_map is None:
            if tempo is not None:
                raise InvalidInputError(
                    'A tempo belongs to grid="beats"; on grid="seconds" leave tempo out, or change '
                    "the speed with roll.stretch."
                )
            ticks_per_frame, tempo_map = seconds_grid_ticks(self.fs, self.n_frames)
        else:
            tempo_map = self.tempo_map
            if tempo is not None:
                tempo_map = constant_tempo(tempo, tempo_map.ticks_per_quarter)
            ticks_per_frame = tempo_map.ticks_per_quarter / self.fs
        return midi.build_midi(
            np.rint(notes["start"] * ticks_per_frame).astype(np.int64),
            np.rint(notes["end"] * ticks_per_frame).astype(np.int64),
            notes["pitch"],
            velocities,
            end_tick=round(self.n_frames * ticks_per_frame),
            tempo_map=tempo_map,
            program=program,
        )

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Axes:
        """Draw the roll with matplotlib (extra ``plot``).

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to `pianolstm.plotting.plot_roll`.

        Returns
        -------
        matplotlib.axes.Axes
        """
        return plotting.plot_roll(
            self.frames_to_seconds(self.notes["start"]),
            self.frames_to_seconds(self.notes["end"]),
            self.notes["pitch"],
            self.notes["velocity"],
            seconds=self.seconds,
            ax=ax,
            **kwargs,
        )

    def __len__(self) -> int:
        return self.n_frames

    __iter__ = None  # Indexing by number has no meaning here, so neither has iteration.

    def __getitem__(self, index: slice) -> PianoRoll:
        if not isinstance(index, slice) or index.step not in (None, 1):
            raise InvalidInputError(
                f"A piano roll is sliced in time, as in roll[100:200]; got {index!r}. For single "
                "frames index the dense planes roll.velocity and roll.onset."
            )
        a, b, _ = index.indices(self.n_frames)
        b = max(a, b)
        notes = self.notes[(self.notes["start"] < b) & (self.notes["end"] > a)].copy()
        if a == b:
            notes = notes[:0]
        notes["tied"] = np.where(notes["start"] < a, True, notes["tied"] & (a == 0))
        notes["start"] = np.maximum(notes["start"], a) - a
        notes["end"] = np.minimum(notes["end"], b) - a
        tempo_map = self.tempo_map
        if tempo_map is not None:
            tempo_map = tempo_map.from_tick(round(a * tempo_map.ticks_per_quarter / self.fs))
        return PianoRoll(notes, b - a, self.fs, self.grid, tempo_map)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("The dense plane of a PianoRoll is made anew, so copy=False can't be.")
        return self.velocity if dtype is None else self.velocity.astype(dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PianoRoll):
            return NotImplemented
        return (
            self.n_frames == other.n_frames
            and self.fs == other.fs
            and self.grid == other.grid
            and self.tempo_map == other.tempo_map
            and np.array_equal(self.notes, other.notes)
        )

    def __hash__(self) -> int:
        return hash((self.n_frames, self.fs, self.grid, self.tempo_map, self.notes.tobytes()))

    def __repr__(self) -> str:
        n = len(self.notes)
        unit = "" if self.grid == "seconds" else " per quarter note"
        text = (
            f"<PianoRoll {n} note{'' if n == 1 else 's'}, {self.n_frames} frames at "
            f"fs={self.fs}{unit} ({self.seconds:.1f} s)"
        )
        if n:
            text += f", pitches {self.notes['pitch'].min()}-{self.notes['pitch'].max()}"
        return text + ">"

    def _repr_png_(self) -> bytes | None:
        return plotting.notebook_png(self.plot)

    def _repr_html_(self) -> str | None:
        player, png = audio.notebook_player(self), self._repr_png_()
        if player is None or png is None:
            return player  # a notebook that gets None shows the picture alone
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return f'<img alt="{html.escape(repr(self))}" src="{source}"><br>{player}'


_ENCODE = "PianoRollEncoder(fs=..., grid=...).transform("


def as_rolls(
    X: Any, name: str = "X", *, fs: float | None = None, grid: Grid | None = None
) -> list[PianoRoll]:
    """Check a list of pieces and turn plain arrays into rolls.

    Parameters
    ----------
    X : list of PianoRoll or array-like of shape (n_frames, 128)
        One entry a piece.
    name : str, default="X"
        What the error message calls it.
    fs, grid : default=None
        What the estimator was fitted on: plain arrays get it and rolls must have it. None takes
        the first roll's (20 frames a second where there are only arrays).

    Returns
    -------
    list of PianoRoll
        At least one, all of one fs and grid.

    Raises
    ------
    InvalidInputError
        If X is no list of pieces, is empty, or mixes fs or grid.
    """
    if isinstance(X, PianoRoll) or (isinstance(X, np.ndarray) and X.ndim == 2):
        raise InvalidInputError(
            f"{name} must be a list with one entry a piece; got one piece "
            f"({'a PianoRoll' if isinstance(X, PianoRoll) else f'an array of shape {X.shape}'}). "
            f"Wrap it in a list: [{name}]."
        )
    if isinstance(X, Mapping):
        raise InvalidInputError(
            f"{name} must be a list with one entry a piece; got a dict. Write "
            f"list({name}.values())."
        )
    if midi.is_midi(X):
        raise InvalidInputError(
            f"{name} must be a list with one entry a piece; got one {type(X).__name__}. Read it "
            f"first: {_ENCODE}[{name}])."
        )
    if not hasattr(X, "__iter__"):
        raise InvalidInputError(
            f"{name} must be a list of PianoRoll or of arrays (n_frames, {N_PITCHES}); got "
            f"{type(X).__name__}."
        )
    entries = list(X)
    if not entries:
        raise InvalidInputError(f"{name} is empty; expected at least one piece.")
    file = next((e for e in entries if midi.is_midi(e)), None)
    if file is not None:
        what = "paths" if isinstance(file, (str, PathLike)) else f"{type(file).__name__} objects"
        raise InvalidInputError(
            f"{name} holds {what}; turn them into rolls first: {_ENCODE}{name})."
        )
    given = [e for e in entries if isinstance(e, PianoRoll)]
    fs = fs if fs is not None else (given[0].fs if given else DEFAULT_FS)
    grid = grid if grid is not None else (given[0].grid if given else "seconds")
    rolls = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, PianoRoll):
            try:
                entry = PianoRoll.from_array(entry, fs=fs, grid=grid)
            except InvalidInputError as error:
                raise InvalidInputError(f"{name}[{i}]: {error}") from None
        if entry.fs != fs or entry.grid != grid:
            raise InvalidInputError(
                f"{name}[{i}] has fs={entry.fs} on the grid of {entry.grid}; expected fs={fs} on "
                f"the grid of {grid}. Encode all pieces with one PianoRollEncoder."
            )
        rolls.append(entry)
    return rolls


def check_fs(fs: Any, grid: Any) -> None:
    """Raise `InvalidInputError` unless `fs` and `grid` make a grid."""
    if grid not in ("seconds", "beats"):
        raise InvalidInputError(f'grid must be "seconds" or "beats"; got {grid!r}.')
    fs = plain(fs)
    if not isinstance(fs, (int, float)) or isinstance(fs, bool) or not 0 < fs < 1e6:
        raise InvalidInputError(f"fs must be a number of frames above 0 and below 1e6; got {fs!r}.")
    if grid == "beats" and fs != int(fs):
        raise InvalidInputError(
            f"On the grid of beats fs is a whole number of frames per quarter note; got {fs!r}."
        )


def _check_velocities(plane: np.ndarray) -> None:
    """Raise unless a dense plane holds MIDI velocities; say how to make them of what is common."""
    name = "the values of a piano roll"
    has_fractions = plane.dtype.kind == "f" and (plane != np.floor(plane)).any()
    if has_fractions and 0 <= plane.min() <= plane.max() <= 1:  # and none is NaN
        raise InvalidInputError(
            f"{name} must be MIDI velocities, whole numbers 0-127; got fractions of 1: write "
            "np.rint(127 * array)."
        )
    if plane.dtype.kind in "iuf" and plane.size and 127 < plane.max() < np.inf:
        raise InvalidInputError(
            f"{name} must lie between 0 and 127; got values from {plane.min()} to {plane.max()}. "
            "If they are sums of tracks, write np.minimum(array, 127)."
        )
    _check_integers(name, plane, 0, 127)


def _check_integers(name: str, values: np.ndarray, low: int, high: int) -> None:
    if values.dtype.kind not in "iufb":
        raise InvalidInputError(f"{name}: expected finite numbers; got dtype {values.dtype}.")
    if not np.all(np.isfinite(values)):
        raise InvalidInputError(f"{name}: expected finite numbers; got NaN or infinity.")
    if values.size and (values.min() < low or values.max() > high):
        raise InvalidInputError(
            f"{name} must lie between {low} and {high}; got values from {values.min()} to "
            f"{values.max()}."
        )
    if values.dtype.kind == "f" and np.any(values != np.floor(values)):
        raise InvalidInputError(f"{name}: expected whole numbers; got fractions.")


def _canonical(notes: np.ndarray, n_frames: int) -> np.ndarray:
    """Sort, merge and cut notes into the one form that `PianoRoll` holds."""
    if not 0 <= n_frames <= MAX_FRAMES:
        raise InvalidInputError(f"n_frames must lie between 0 and {MAX_FRAMES}; got {n_frames}.")
    if len(notes) == 0:
        return notes.copy()
    # Column by column: a note's 11 bytes are slow to move about.
    start, tied = notes["start"].astype(np.int64), notes["tied"]
    pitch, velocity = notes["pitch"].astype(np.int64), notes["velocity"]
    end = np.maximum(notes["end"], start + 1)
    if end.max() > n_frames:
        raise InvalidInputError(
            f"A note lasts to frame {end.max()}, but the roll has {n_frames} frames."
        )
    by_pitch = np.argsort(pitch << 32 | start)
    start, end, pitch = start[by_pitch], end[by_pitch], pitch[by_pitch]
    velocity, tied = velocity[by_pitch], tied[by_pitch]
    # One note to a (start, pitch): the longest and loudest; struck, if any of them is.
    same = (pitch[1:] == pitch[:-1]) & (start[1:] == start[:-1])
    if same.any():
        heads = np.flatnonzero(np.append(True, ~same))
        start, pitch = start[heads], pitch[heads]
        end, velocity = np.maximum.reduceat(end, heads), np.maximum.reduceat(velocity, heads)
        tied = np.logical_and.reduceat(tied, heads)
    # A note ends at the latest where the next of its pitch starts.
    next_start = np.where(pitch[1:] == pitch[:-1], start[1:], MAX_FRAMES)
    end[:-1] = np.minimum(end[:-1], next_start)
    by_start = np.argsort(start << 7 | pitch)
    canonical = np.empty(len(start), NOTE)
    canonical["start"], canonical["end"] = start[by_start], end[by_start]
    canonical["pitch"], canonical["velocity"] = pitch[by_start], velocity[by_start]
    canonical["tied"] = tied[by_start] & (canonical["start"] == 0)
    return canonical
