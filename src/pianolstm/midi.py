"""Reading and writing MIDI: files to notes in seconds, and back.

Conventions
-----------
Times are seconds in float64 unless a name says ticks. Ticks become seconds through `TempoMap`,
which adds up whole microseconds, so that an hour of tempo changes does not drift. Drums are never
read as notes of a piano.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pianolstm.exceptions import InvalidInputError, MidiError

if TYPE_CHECKING:
    import pretty_midi

MidiSource: TypeAlias = "str | PathLike[str] | bytes | pretty_midi.PrettyMIDI"

DEFAULT_MICROSECONDS = 500_000
"""Microseconds per quarter note where a file sets no tempo (MIDI 1.0: 120 beats a minute)."""

MAX_TICKS_PER_QUARTER = 32_767
"""The division field of a MIDI header has 15 bits."""

MAX_TICKS = 10_000_000
"""pretty_midi takes a longer file for a corrupt one."""

ALL_NOTES_OFF = 123
"""Controller written where a piece ends, so that a rest at its end is not lost."""


class TempoMap:
    """Tempo along a piece: whole microseconds per quarter note from exact ticks on.

    The map is canonical: it starts at tick 0, its ticks ascend, and no entry repeats the tempo
    before it. Two maps are equal if they have the same entries at the same resolution.

    Parameters
    ----------
    ticks : array-like of int, shape (n_changes,)
        Where each tempo begins.
    microseconds : array-like of int, shape (n_changes,)
        Microseconds per quarter note from there on.
    ticks_per_quarter : int, default=480
        Ticks in a quarter note.

    Examples
    --------
    >>> from pianolstm import TempoMap
    >>> tempo = TempoMap([0, 960], [500_000, 1_000_000])
    >>> tempo.to_seconds([480, 960, 1440]).tolist()
    [0.5, 1.0, 2.0]
    >>> tempo.to_ticks([0.5, 2.0]).tolist()
    [480.0, 1440.0]
    """

    __slots__ = ("_seconds", "microseconds", "ticks", "ticks_per_quarter")

    def __init__(
        self,
        ticks: Any = (0,),
        microseconds: Any = (DEFAULT_MICROSECONDS,),
        ticks_per_quarter: int = 480,
    ) -> None:
        at = np.asarray(ticks, dtype=np.int64)
        tempo = np.asarray(microseconds, dtype=np.int64)
        if at.ndim != 1 or at.shape != tempo.shape or at.size == 0:
            raise InvalidInputError(
                "A tempo map takes two 1-D sequences of one length, ticks and microseconds, with "
                f"at least one entry; got shapes {at.shape} and {tempo.shape}."
            )
        if (at < 0).any() or (tempo < 1).any() or ticks_per_quarter < 1:
            raise InvalidInputError(
                "Ticks must be at least 0, microseconds and ticks_per_quarter at least 1; got "
                f"ticks from {at.min()}, microseconds from {tempo.min()}, "
                f"ticks_per_quarter={ticks_per_quarter}."
            )
        order = np.argsort(at, kind="stable")
        at, tempo = at[order], tempo[order]
        last_at_tick = np.append(at[1:] != at[:-1], True)
        at, tempo = at[last_at_tick], tempo[last_at_tick]
        if at[0] > 0:
            at, tempo = np.append(0, at), np.append(DEFAULT_MICROSECONDS, tempo)
        changes = np.append(True, tempo[1:] != tempo[:-1])
        self.ticks, self.microseconds = at[changes], tempo[changes]
        self.ticks_per_quarter = int(ticks_per_quarter)
        # Tick differences times microseconds are whole numbers: the sum is exact.
        elapsed = np.append(0, np.cumsum(np.diff(self.ticks) * self.microseconds[:-1]))
        self._seconds = elapsed / (1e6 * self.ticks_per_quarter)
        for array in (self.ticks, self.microseconds, self._seconds):
            array.setflags(write=False)

    @classmethod
    def constant(
        cls, microseconds: int = DEFAULT_MICROSECONDS, ticks_per_quarter: int = 480
    ) -> TempoMap:
        """One tempo throughout, in microseconds per quarter note."""
        return cls((0,), (microseconds,), ticks_per_quarter)

    def to_seconds(self, ticks: Any) -> np.ndarray:
        """Seconds at each tick (ticks may be fractions)."""
        ticks = np.asarray(ticks, dtype=np.float64)
        i = np.searchsorted(self.ticks, ticks, side="right") - 1
        return self._seconds[i] + (ticks - self.ticks[i]) * self._seconds_per_tick()[i]

    def to_ticks(self, seconds: Any) -> np.ndarray:
        """Ticks (float64, not rounded) at each time in seconds."""
        seconds = np.asarray(seconds, dtype=np.float64)
        i = np.searchsorted(self._seconds, seconds, side="right") - 1
        return self.ticks[i] + (seconds - self._seconds[i]) / self._seconds_per_tick()[i]

    def _seconds_per_tick(self) -> np.ndarray:
        return self.microseconds / (1e6 * self.ticks_per_quarter)

    def at_resolution(self, ticks_per_quarter: int) -> TempoMap:
        """The same tempi at another resolution; ticks are rounded where they must be."""
        ticks = np.rint(self.ticks * (ticks_per_quarter / self.ticks_per_quarter))
        return TempoMap(ticks, self.microseconds, ticks_per_quarter)

    def from_tick(self, tick: int) -> TempoMap:
        """The map as heard from `tick` on, which becomes tick 0."""
        return TempoMap(np.maximum(self.ticks - tick, 0), self.microseconds, self.ticks_per_quarter)

    def until_tick(self, tick: int) -> TempoMap:
        """The map without the changes at `tick` and later (the first tempo stays)."""
        kept = (self.ticks < tick) | (self.ticks == 0)
        return TempoMap(self.ticks[kept], self.microseconds[kept], self.ticks_per_quarter)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TempoMap):
            return NotImplemented
        return (
            self.ticks_per_quarter == other.ticks_per_quarter
            and np.array_equal(self.ticks, other.ticks)
            and np.array_equal(self.microseconds, other.microseconds)
        )

    def __hash__(self) -> int:
        return hash((self.ticks_per_quarter, self.ticks.tobytes(), self.microseconds.tobytes()))

    def __repr__(self) -> str:
        bpm = 6e7 / self.microseconds
        tempi = f"{bpm[0]:.4g}" if bpm.size == 1 else f"{bpm.min():.4g}-{bpm.max():.4g}"
        return (
            f"<TempoMap {tempi} quarter notes a minute, {bpm.size} "
            f"{'entry' if bpm.size == 1 else 'entries'}, "
            f"{self.ticks_per_quarter} ticks per quarter>"
        )


@dataclass(frozen=True, eq=False)
class Notes:
    """The notes of a piece, in seconds, in the order of the file.

    Attributes
    ----------
    start, end : ndarray of float64, shape (n_notes,)
        Onset and release in seconds.
    pitch, velocity : ndarray of uint8, shape (n_notes,)
        MIDI pitch 0-127 and velocity 1-127.
    seconds : float
        Length of the piece: the last release, or the end marker where one follows it.
    tempo_map : TempoMap
        Ticks to seconds, as in the file.
    """

    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    seconds: float
    tempo_map: TempoMap

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class TrackDescription:
    """One track of a MIDI file, as `describe_midi` lists it.

    Attributes
    ----------
    index : int
        Number to give to ``PianoRollEncoder(tracks=[...])``.
    name, instrument : str
        The track's own name, and the General MIDI name of its program.
    program : int
        General MIDI program, 0-127.
    is_drum : bool
        True on the drum channel; such a track is never read as notes.
    n_notes : int
        Number of notes.
    lowest, highest : int or None
        Range in MIDI pitches, None where there are no notes.
    start, end : float
        First onset and last release in seconds.
    """

    index: int
    name: str
    instrument: str
    program: int
    is_drum: bool
    n_notes: int
    lowest: int | None
    highest: int | None
    start: float
    end: float


@dataclass(frozen=True)
class MidiDescription:
    """What `describe_midi` found; `print` shows it as a table.

    Attributes
    ----------
    name : str
        File name.
    seconds : float
        Last release in seconds.
    n_tempo_changes : int
        Number of entries of the tempo map after the first.
    tracks : tuple of TrackDescription
        The tracks that hold notes.
    """

    name: str
    seconds: float
    n_tempo_changes: int
    tracks: tuple[TrackDescription, ...]

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.seconds:.1f} s, {self.n_tempo_changes} tempo changes"]
        lines.append(
            f"{'track':>5}  {'instrument':<24} {'notes':>7}  {'range':>8}  {'seconds':>15}  name"
        )
        for track in self.tracks:
            span = f"{track.lowest}-{track.highest}" if track.n_notes else "-"
            time = f"{track.start:.1f}-{track.end:.1f}"
            lines.append(
                f"{track.index:>5}  {track.instrument:<24} {track.n_notes:>7}  {span:>8}  "
                f"{time:>15}  {track.name}".rstrip()
            )
        return "\n".join(lines)


def read_notes(source: MidiSource, *, tracks: Sequence[int] | None = None) -> Notes:
    """Read the notes of a MIDI file, of its bytes, or of a `pretty_midi.PrettyMIDI`.

    Parameters
    ----------
    source : path, bytes or PrettyMIDI
        What to read.
    tracks : sequence of int, default=None
        Indices of the tracks to read, as `describe_midi` numbers them. None reads all but drums.

    Returns
    -------
    Notes

    Raises
    ------
    MidiError
        If there is no such file, it is no MIDI file, or it holds no notes.
    """
    if isinstance(source, (str, PathLike, bytes)):
        return _read_file(source, tracks)
    if _is_pretty_midi(source):
        return _read_pretty_midi(source, tracks)
    raise InvalidInputError(
        "Expected a path, the bytes of a MIDI file or a pretty_midi.PrettyMIDI; got "
        f"{type(source).__name__}."
    )


def describe_midi(source: MidiSource) -> MidiDescription:
    """List the tracks of a MIDI file: instrument, notes, range, length.

    Parameters
    ----------
    source : path, bytes or PrettyMIDI
        What to look at.

    Returns
    -------
    MidiDescription
        `print` shows it as a table.

    Raises
    ------
    MidiError
        If there is no such file or it is no MIDI file.

    Examples
    --------
    >>> import pianolstm as pl
    >>> roll = pl.PianoRoll.from_notes([0, 20], [20, 30], [60, 67], fs=20)
    >>> print(pl.describe_midi(roll.to_midi()))
    PrettyMIDI: 1.5 s, 0 tempo changes
    track  instrument                 notes     range          seconds  name
        0  Acoustic Grand Piano           2     60-67          0.0-1.5
    """
    import pretty_midi

    if _is_pretty_midi(source):
        name = "PrettyMIDI"
        tempo_map = _pretty_midi_tempo_map(source)
        found = [
            (i.program, i.is_drum, i.name, _pretty_midi_columns(i))
            for i in source.instruments  # pyright: ignore[reportAttributeAccessIssue]
        ]
    else:
        name, score = _parse(source)
        tempo_map = _score_tempo_map(score)
        found = []
        for track in score.tracks:
            columns = track.notes.numpy()
            start = tempo_map.to_seconds(columns["time"])
            end = tempo_map.to_seconds(columns["time"].astype(np.int64) + columns["duration"])
            found.append((track.program, track.is_drum, track.name, (start, end, columns["pitch"])))
    described = []
    for index, (program, is_drum, track_name, (start, end, pitch, *_)) in enumerate(found):
        n = len(start)
        described.append(
            TrackDescription(
                index=index,
                name=track_name,
                instrument="Drums"
                if is_drum
                else pretty_midi.program_to_instrument_name(int(program)),
                program=int(program),
                is_drum=bool(is_drum),
                n_notes=n,
                lowest=int(pitch.min()) if n else None,
                highest=int(pitch.max()) if n else None,
                start=float(start.min()) if n else 0.0,
                end=float(end.max()) if n else 0.0,
            )
        )
    return MidiDescription(
        name=name,
        seconds=max((t.end for t in described), default=0.0),
        n_tempo_changes=len(tempo_map.ticks) - 1,
        tracks=tuple(described),
    )


def build_midi(
    start: np.ndarray,
    end: np.ndarray,
    pitch: np.ndarray,
    velocity: np.ndarray,
    *,
    end_tick: int,
    tempo_map: TempoMap,
    program: int = 0,
) -> pretty_midi.PrettyMIDI:
    """Make a `pretty_midi.PrettyMIDI` from notes in ticks.

    Parameters
    ----------
    start, end, pitch, velocity : ndarray of int, shape (n_notes,)
        Notes, times in ticks of `tempo_map`.
    end_tick : int
        Where the piece ends; written as an "all notes off" (controller 123).
    tempo_map : TempoMap
        Tempi, at most 32,767 ticks to the quarter note.
    program : int, default=0
        General MIDI program; 0 is the acoustic grand piano.

    Returns
    -------
    pretty_midi.PrettyMIDI
    """
    import mido
    import pretty_midi

    if end_tick > MAX_TICKS:
        raise InvalidInputError(
            f"The piece is too long for one MIDI file: {end_tick:,} ticks at "
            f"{tempo_map.ticks_per_quarter} to the quarter note, pretty_midi takes at most "
            f"{MAX_TICKS:,}. Write it in parts, as roll[a:b]."
        )
    # PrettyMIDI has no public way to take a tempo map, but it reads one from a mido.MidiFile.
    file = mido.MidiFile(type=1, ticks_per_beat=tempo_map.ticks_per_quarter)
    conductor = mido.MidiTrack()
    before = 0
    for tick, tempo in zip(tempo_map.ticks.tolist(), tempo_map.microseconds.tolist(), strict=True):
        conductor.append(mido.MetaMessage("set_tempo", tempo=tempo, time=tick - before))
        before = tick
    file.tracks.append(conductor)

    # At one tick releases come before onsets: a note may be struck again the moment it ends.
    n = len(start)
    ticks = np.concatenate([start, end])
    is_onset = np.repeat([True, False], n)
    order = np.lexsort((np.tile(pitch, 2), is_onset, ticks))
    piano = mido.MidiTrack([mido.Message("program_change", program=program, time=0)])
    before = 0
    for tick, on, p, v in zip(
        ticks[order].tolist(),
        is_onset[order].tolist(),
        np.tile(pitch, 2)[order].tolist(),
        np.tile(velocity, 2)[order].tolist(),
        strict=True,
    ):
        message = "note_on" if on else "note_off"
        piano.append(mido.Message(message, note=p, velocity=v, time=tick - before))
        before = tick
    piano.append(
        mido.Message("control_change", control=ALL_NOTES_OFF, value=0, time=end_tick - before)
    )
    file.tracks.append(piano)
    made = pretty_midi.PrettyMIDI(mido_object=file)
    # PrettyMIDI.write cuts a tempo to whole microseconds, and what is 437123 here may be
    # 437122.9999 there: a hair more saves the microsecond.
    made._tick_scales = [(tick, scale * (1 + 1e-12)) for tick, scale in made._tick_scales]
    return made


def _is_pretty_midi(source: object) -> bool:
    """Whether it is a PrettyMIDI, without importing pretty_midi (0.3 s) to find out."""
    return any(c.__module__.startswith("pretty_midi") for c in type(source).__mro__)


def _parse(source: Any) -> tuple[str, Any]:
    """Name of a file and its symusic Score in ticks, or `MidiError`."""
    from symusic import Score

    if isinstance(source, bytes):
        name, data = "<bytes>", source
    else:
        name = fspath(source)
        try:
            data = Path(source).read_bytes()
        except FileNotFoundError:
            raise MidiError(f"{name}: there is no such file.") from None
        except OSError as error:
            raise MidiError(f"{name}: can't be read: {error.strerror}.") from None
    _check_header(name, data)
    try:
        score = Score.from_midi(data)
    except Exception as error:  # symusic raises RuntimeError, ValueError and others
        raise MidiError(f"{name}: the MIDI data are broken: {error}") from None
    return Path(name).name, score


def _check_header(name: str, data: bytes) -> None:
    """Refuse what is no MIDI file, before a parser guesses at it."""
    if not data:
        raise MidiError(f"{name}: the file is empty; expected a MIDI file.")
    if data[:4] != b"MThd" or len(data) < 14:
        raise MidiError(
            f"{name}: expected a MIDI file, which starts with b'MThd' and a header of 14 bytes; "
            f"this one starts with {data[:8]!r} and has {len(data)} bytes."
        )
    kind, _, division = struct.unpack(">HHH", data[8:14])
    if kind == 2:
        raise MidiError(
            f"{name}: a MIDI file of format 2 holds several independent pieces, not one; "
            "split it into files of format 0 or 1."
        )
    if division == 0 or division > MAX_TICKS_PER_QUARTER:
        raise MidiError(
            f"{name}: expected a division of 1 to {MAX_TICKS_PER_QUARTER} ticks per quarter note; "
            f"got {division:#06x} (SMPTE time codes are not read)."
        )


def _score_tempo_map(score: Any) -> TempoMap:
    tempi = score.tempos.numpy()
    valid = tempi["mspq"] > 0
    if not valid.any():
        return TempoMap.constant(ticks_per_quarter=score.ticks_per_quarter)
    return TempoMap(tempi["time"][valid], tempi["mspq"][valid], score.ticks_per_quarter)


def _read_file(source: Any, tracks: Sequence[int] | None) -> Notes:
    name, score = _parse(source)
    tempo_map = _score_tempo_map(score)
    chosen = _choose(name, score.tracks, tracks)
    columns = [track.notes.numpy() for track in chosen]
    start = _join([c["time"] for c in columns]).astype(np.int64)
    end = start + _join([c["duration"] for c in columns])
    ends = [c.time for track in chosen for c in track.controls if c.number == ALL_NOTES_OFF]
    return _checked(
        name,
        tempo_map.to_seconds(start),
        tempo_map.to_seconds(end),
        _join([c["pitch"] for c in columns]),
        _join([c["velocity"] for c in columns]),
        float(tempo_map.to_seconds(max(ends, default=0))),
        tempo_map,
    )


def _read_pretty_midi(source: Any, tracks: Sequence[int] | None) -> Notes:
    chosen = _choose("PrettyMIDI", source.instruments, tracks)
    columns = [_pretty_midi_columns(i) for i in chosen]
    ends = [c.time for i in chosen for c in i.control_changes if c.number == ALL_NOTES_OFF]
    start, end, pitch, velocity = (_join([c[k] for c in columns]) for k in range(4))
    tempo_map = _pretty_midi_tempo_map(source)
    return _checked("PrettyMIDI", start, end, pitch, velocity, max(ends, default=0.0), tempo_map)


def _pretty_midi_columns(instrument: Any) -> tuple[np.ndarray, ...]:
    notes = instrument.notes
    return (
        np.array([n.start for n in notes], dtype=np.float64),
        np.array([n.end for n in notes], dtype=np.float64),
        np.array([n.pitch for n in notes], dtype=np.int64),
        np.array([n.velocity for n in notes], dtype=np.int64),
    )


def _pretty_midi_tempo_map(source: Any) -> TempoMap:
    times, bpm = source.get_tempo_changes()
    ticks = [source.time_to_tick(t) for t in times]
    return TempoMap(ticks, np.rint(6e7 / bpm), source.resolution)


def _choose(name: str, found: Sequence[Any], tracks: Sequence[int] | None) -> list[Any]:
    """The tracks asked for; all but drums where none were."""
    if tracks is None:
        return [t for t in found if not t.is_drum]
    missing = [i for i in tracks if not 0 <= i < len(found)]
    if missing:
        raise MidiError(
            f"{name}: there is no track {missing[0]}; it has {len(found)} tracks, numbered from "
            "0 (pianolstm.describe_midi lists them)."
        )
    drums = [i for i in tracks if found[i].is_drum]
    if drums:
        raise MidiError(
            f"{name}: track {drums[0]} holds drums, which have no pitches; leave it out."
        )
    return [found[i] for i in tracks]


def _join(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0)


def _checked(
    name: str,
    start: np.ndarray,
    end: np.ndarray,
    pitch: np.ndarray,
    velocity: np.ndarray,
    end_marker: float,
    tempo_map: TempoMap,
) -> Notes:
    if len(start) == 0:
        raise MidiError(
            f"{name}: expected notes, got none (drums are left out); leave the file out, or look "
            "at it with pianolstm.describe_midi."
        )
    in_range = (
        (np.isfinite(start) & np.isfinite(end) & (start >= 0) & (end >= start))
        & ((pitch >= 0) & (pitch <= 127))
        & ((velocity >= 1) & (velocity <= 127))
    )
    if not in_range.all():
        i = int(np.argmin(in_range))
        raise MidiError(
            f"{name}: expected times of at least 0, pitches 0-127 and velocities 1-127; note {i} "
            f"has start {start[i]}, end {end[i]}, pitch {pitch[i]}, velocity {velocity[i]}."
        )
    return Notes(
        start=start,
        end=end,
        pitch=pitch.astype(np.uint8),
        velocity=velocity.astype(np.uint8),
        seconds=max(float(end.max()), end_marker),
        tempo_map=tempo_map,
    )
