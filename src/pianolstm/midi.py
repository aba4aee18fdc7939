"""Reading and writing MIDI: files to notes in seconds, and back.

Conventions
-----------
Times are seconds in float64 unless a name says ticks. Ticks become seconds through `TempoMap`,
which adds up whole microseconds, so that an hour of tempo changes does not drift. Drums are never
read as notes of a piano.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

import numpy as np

from pianolstm import smf
from pianolstm.exceptions import DataLossWarning, InvalidInputError, MidiError
from pianolstm.repair import repair_chunks
from pianolstm.tempo import MAX_TICKS, TempoMap

if TYPE_CHECKING:
    import mido
    import pretty_midi

MidiSource: TypeAlias = (
    "str | PathLike[str] | bytes | BinaryIO | pretty_midi.PrettyMIDI | mido.MidiFile"
)

Drums: TypeAlias = Literal["channel", "program"]

SUSTAIN = 64
"""Controller of the sustain pedal; values from 64 on are down."""

DRUM_CHANNEL = 9
"""Channel 10 of General MIDI, counted from 0."""

PERCUSSIVE = range(112, 120)
"""Programs of General MIDI that are percussion: tinkle bell to reverse cymbal."""

ALL_SOUND_OFF, ALL_NOTES_OFF = 120, 123
"""Controllers that end what sounds on their channel, and what is held on it."""

END_OF_PIECE = 80
"""Value of an "all notes off" that marks where a piece ends, so that a rest at its end is not lost.

Receivers ignore the value; other programs write 0, which MIDI names, wherever they stop playing.
"""


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
        Length of the piece: the last release, or the end that `build_midi` marked.
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


def read_notes(
    source: MidiSource,
    *,
    tracks: Sequence[int] | None = None,
    programs: Sequence[int] | None = None,
    pedal: bool = False,
    pitch_range: tuple[int, int] | None = None,
    drums: Drums | None = "channel",
    trailing_silence: bool = False,
    on_error: Literal["raise", "repair"] = "raise",
) -> Notes:
    """Read the notes of a MIDI file, of its bytes, or of a `pretty_midi.PrettyMIDI`.

    Onsets and releases of a key, on one track and channel, match as brackets do; of those that
    match, the first to begin is the first to end. An onset without a release ends where its key is
    next struck on its channel; if it never is, it is no note. The controllers 120 (all sound off)
    and 123 (all notes off) end what sounds on their channel.

    Parameters
    ----------
    source : path, bytes, binary file or PrettyMIDI
        What to read.
    tracks : sequence of int, default=None
        Indices of the tracks to read, as `describe_midi` numbers them. None reads all but drums.
    programs : sequence of int, default=None
        General MIDI programs to read, 0-127 (0 to 7 are pianos). None reads all.
    pedal : bool, default=False
        Whether a note whose key is released while the sustain pedal (controller 64) of its channel
        is down sounds on: until the pedal is lifted, its pitch is struck again on the channel, or
        the piece ends. The pedal may stand on any track. False gives keys as held.
    pitch_range : tuple of int, default=None
        Lowest and highest pitch to read, both included; others, such as key switches and noise,
        are left out. None reads all.
    drums : {"channel", "program"} or None, default="channel"
        What counts as drums, and is left out: channel 10, as General MIDI says; or, whatever the
        channel, programs 112 to 119, which are percussion. None leaves nothing out.
    trailing_silence : bool, default=False
        Whether the piece lasts to the end of its longest track (of a `PrettyMIDI`: to its last
        "all notes off") instead of its last release. A rest at the end that this library wrote is
        always kept.
    on_error : {"raise", "repair"}, default="raise"
        Whether a broken file is an error, or what of it is certain is read, with a
        `DataLossWarning` that tells what was lost.

    Returns
    -------
    Notes

    Raises
    ------
    MidiError
        If there is no such file, it is no MIDI file, or it holds no notes.
    """
    if on_error not in ("raise", "repair"):
        raise InvalidInputError(f'on_error must be "raise" or "repair"; got {on_error!r}.')
    notes, losses = read_with_losses(
        source,
        tracks=tracks,
        programs=programs,
        pedal=pedal,
        pitch_range=pitch_range,
        drums=drums,
        trailing_silence=trailing_silence,
        repair=on_error == "repair",
    )
    if losses:
        warnings.warn(
            f"{name_of(source)}: the file is broken; lost: {'; '.join(losses)}.",
            DataLossWarning,
            stacklevel=2,
        )
    return notes


def read_with_losses(
    source: MidiSource,
    *,
    tracks: Sequence[int] | None,
    programs: Sequence[int] | None,
    pedal: bool,
    pitch_range: tuple[int, int] | None,
    drums: Drums | None,
    trailing_silence: bool,
    repair: bool,
) -> tuple[Notes, list[str]]:
    """As `read_notes`, and what of a broken file was lost."""
    check_choice_of_notes(tracks, programs, pitch_range, drums)
    losses: list[str] = []
    if is_pretty_midi(source):
        name, parts = "PrettyMIDI", _parts_of_pretty_midi(source)
        tempo_map, n_unreleased = _pretty_midi_tempo_map(source), 0
        moves, offs = (
            np.array(
                [(i, c.time, c.value) for i, p in enumerate(parts) for c in getattr(p, which)],
                np.float64,
            ).reshape(-1, 3)
            for which in ("pedals", "sound_offs")
        )
        moves, offs = tuple(moves.T), tuple(offs.T[:2])
        last_marker = max((p.last_marker for p in parts), default=0.0)
    else:
        name, events, losses = _read_events(source, repair=repair)
        (parts, n_unreleased), tempo_map = _parts(events), _tempo_map(events)
        is_pedal, is_off = (
            (events.kind == smf.CONTROL) & (events.data1 == c) for c in (SUSTAIN, ALL_SOUND_OFF)
        )
        moves = tuple(a[is_pedal] for a in (events.channel, events.tick, events.data2))
        offs = tuple(a[is_off] for a in (events.channel, events.tick))
        last_marker = events.end_tick
    chosen = _choose(name, parts, tracks, programs, drums)
    columns = [np.concatenate([getattr(p, c) for p in chosen] or [np.empty(0)]) for c in COLUMNS]
    start, end, pitch, velocity = columns
    last = max([float(end.max(initial=0)), *(p.end_marker for p in chosen)])
    if trailing_silence:
        last = max(last, last_marker)
    if pedal:
        channel = np.repeat([p.channel for p in chosen], [len(p.start) for p in chosen])
        end = _held_by_pedal(start, end, pitch, channel, moves, offs, last=last)
    if not is_pretty_midi(source):
        start, end, last = (tempo_map.to_seconds(t) for t in (start, end, last))
    if pitch_range is not None:
        kept = (pitch >= pitch_range[0]) & (pitch <= pitch_range[1])
        start, end, pitch, velocity = (a[kept] for a in (start, end, pitch, velocity))
    if len(start) == 0:
        raise MidiError(_no_notes(name, n_unreleased))
    return _checked(name, start, end, pitch, velocity, float(last), tempo_map), losses


def check_choice_of_notes(tracks: Any, programs: Any, pitch_range: Any, drums: Any) -> None:
    """Raise unless these are as `read_notes` takes them."""
    for name, numbers in (("tracks", tracks), ("programs", programs)):
        if numbers is not None and not (
            hasattr(numbers, "__iter__") and all(isinstance(n, (int, np.integer)) for n in numbers)
        ):
            raise InvalidInputError(f"{name} must be a list of numbers or None; got {numbers!r}.")
    if pitch_range is not None:
        pair = list(pitch_range) if isinstance(pitch_range, (tuple, list, np.ndarray)) else []
        if not (
            len(pair) == 2
            and all(isinstance(p, (int, np.integer)) for p in pair)
            and 0 <= pair[0] <= pair[1] <= 127
        ):
            raise InvalidInputError(
                "pitch_range must be the lowest and the highest pitch, 0-127, as (21, 108), or "
                f"None; got {pitch_range!r}."
            )
    if drums not in ("channel", "program", None):
        raise InvalidInputError(f'drums must be "channel", "program" or None; got {drums!r}.')


def _no_notes(name: str, n_unreleased: int) -> str:
    unreleased = (
        f"; {n_unreleased} onsets are never released, and their keys never struck again"
        if n_unreleased
        else ""
    )
    return (
        f"{name}: expected notes, got none (drums are left out, and what tracks=, programs= and "
        f"pitch_range= do not name){unreleased}; leave the file out, or look at it with "
        "pianolstm.describe_midi."
    )


def describe_midi(source: MidiSource) -> MidiDescription:
    """List the tracks of a MIDI file: instrument, notes, range, length.

    Parameters
    ----------
    source : path, bytes, binary file or PrettyMIDI
        What to look at.

    Returns
    -------
    MidiDescription
        `print` shows it as a table. What one channel of one track of the file plays with one
        program is a track here.

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

    if is_pretty_midi(source):
        name, parts = "PrettyMIDI", _parts_of_pretty_midi(source)
        tempo_map = _pretty_midi_tempo_map(source)
        to_seconds = np.asarray
    else:
        name, events, _ = _read_events(source, repair=False)
        (parts, _), tempo_map = _parts(events), _tempo_map(events)
        to_seconds = tempo_map.to_seconds
    described = []
    for index, part in enumerate(parts):
        n = len(part.start)
        described.append(
            TrackDescription(
                index=index,
                name=part.name,
                instrument="Drums"
                if part.is_drum
                else pretty_midi.program_to_instrument_name(part.program),
                program=part.program,
                is_drum=part.is_drum,
                n_notes=n,
                lowest=int(part.pitch.min()) if n else None,
                highest=int(part.pitch.max()) if n else None,
                start=float(to_seconds(part.start.min())) if n else 0.0,
                end=float(to_seconds(part.end.max())) if n else 0.0,
            )
        )
    return MidiDescription(
        name=Path(name).name,
        seconds=max((t.end for t in described), default=0.0),
        n_tempo_changes=len(tempo_map.ticks) - 1,
        tracks=tuple(described),
    )


def split_midi(source: str | PathLike[str] | bytes | BinaryIO) -> list[bytes]:
    """Split a MIDI file of format 2, which holds independent pieces, into one file for each.

    Parameters
    ----------
    source : path, bytes or binary file
        What to split.

    Returns
    -------
    list of bytes
        Files of format 0, as any reader takes them; a file of format 0 or 1 is one piece and
        comes back alone.

    Raises
    ------
    MidiError
        If there is no such file or it is no MIDI file.

    Examples
    --------
    >>> import pianolstm as pl
    >>> note = bytes.fromhex("00903c40 60803c00 00ff2f00")
    >>> track = b"MTrk" + len(note).to_bytes(4, "big") + note
    >>> two = bytes.fromhex("4d546864 00000006 0002 0002 0060") + 2 * track
    >>> [len(pl.read_notes(piece)) for piece in pl.split_midi(two)]
    [1, 1]
    """
    name, data = _bytes_of(source)
    kind, division, tracks = smf.read_chunks(name, data)
    if kind != 2:
        return [data]
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, division)
    return [header + b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks]


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
        Where the piece ends; written as an "all notes off" (controller 123) of value 80.
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

    if end_tick >= MAX_TICKS:
        raise InvalidInputError(
            f"The piece is too long for one MIDI file: {end_tick:,} ticks at "
            f"{tempo_map.ticks_per_quarter} to the quarter note, pretty_midi takes fewer "
            f"than {MAX_TICKS:,}. Write it in parts, as roll[a:b]."
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
        mido.Message(
            "control_change", control=ALL_NOTES_OFF, value=END_OF_PIECE, time=end_tick - before
        )
    )
    file.tracks.append(piano)
    made = pretty_midi.PrettyMIDI(mido_object=file)
    # PrettyMIDI.write cuts a tempo to whole microseconds, and what is 437123 here may be
    # 437122.9999 there: a hair more saves the microsecond.
    made._tick_scales = [(tick, scale * (1 + 1e-12)) for tick, scale in made._tick_scales]
    return made


def is_midi(source: object) -> bool:
    """Whether it is music that `read_notes` reads: a path, bytes, a file, or another program's."""
    return (
        isinstance(source, (str, PathLike, bytes, bytearray, memoryview))
        or is_pretty_midi(source)
        or is_mido(source)
        or hasattr(source, "read")
    )


def is_mido(source: object) -> bool:
    """Whether it is a mido.MidiFile, without importing mido to find out."""
    return any(
        c.__module__.startswith("mido.") and c.__name__ == "MidiFile" for c in type(source).__mro__
    )


def is_pretty_midi(source: object) -> bool:
    """Whether it is a PrettyMIDI, without importing pretty_midi (0.3 s) to find out."""
    return any(
        c.__module__.startswith("pretty_midi") and c.__name__ == "PrettyMIDI"
        for c in type(source).__mro__
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """What one channel of one track plays with one program; times as the source has them."""

    name: str
    channel: int
    program: int
    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    end_marker: float
    is_drum: bool
    pedals: tuple[Any, ...] = ()
    sound_offs: tuple[Any, ...] = ()
    last_marker: float = 0.0

    def counts_as_drums(self, drums: Drums | None) -> bool:
        """Whether it is left out, as `read_notes` says."""
        if drums == "program":
            return self.program in PERCUSSIVE
        return drums == "channel" and self.is_drum


COLUMNS = ("start", "end", "pitch", "velocity")


def name_of(source: MidiSource) -> str:
    """What errors call a source."""
    if isinstance(source, (str, PathLike)):
        return str(fspath(source))
    if is_pretty_midi(source):
        return "PrettyMIDI"
    if is_mido(source):
        return str(getattr(source, "filename", None) or "MidiFile")
    if hasattr(source, "read"):
        return str(getattr(source, "name", "<file>"))
    return "<bytes>"


def _bytes_of(source: Any) -> tuple[str, bytes]:
    """What errors call a source, and its bytes."""
    name = name_of(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return name, bytes(source)
    if is_mido(source):
        source.save(file=(buffer := io.BytesIO()))
        return name, buffer.getvalue()
    if hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise InvalidInputError(f"{name}: the file must be opened in binary mode, as 'rb'.")
        return name, data
    if not isinstance(source, (str, PathLike)):
        raise InvalidInputError(
            "Expected a path, the bytes of a MIDI file, a binary file, a pretty_midi.PrettyMIDI or "
            f"a mido.MidiFile; got {type(source).__name__}."
        )
    try:
        return name, Path(name).read_bytes()
    except FileNotFoundError:
        raise MidiError(f"{name}: there is no such file.") from None
    except OSError as error:
        raise MidiError(f"{name}: can't be read: {error.strerror}.") from None
    except ValueError as error:  # a null byte in the name
        raise MidiError(f"{name!r}: can't be read: {error}.") from None


def _read_events(source: Any, *, repair: bool) -> tuple[str, smf.Events, list[str]]:
    """Name and events of a file, and what was lost where it is broken and to be repaired."""
    name, data = _bytes_of(source)
    try:
        return name, smf.read_events(name, data), []
    except MidiError:
        if not repair:
            raise
    kind, division, tracks, losses = repair_chunks(name, data)
    return name, smf.events_of(name, kind, division, tracks), losses


def _tempo_map(events: smf.Events) -> TempoMap:
    if len(events.tempo) == 0:
        return TempoMap.constant(ticks_per_quarter=events.ticks_per_quarter)
    return TempoMap(events.tempo_tick, events.tempo, events.ticks_per_quarter)


def _parts(events: smf.Events) -> tuple[list[_Part], int]:
    """The parts of a file that hold notes, by track, then by channel and program.

    Returns
    -------
    parts : list of _Part
    n_unreleased : int
        Onsets that are no notes, since nothing ends them.
    """
    lane = events.track * np.int64(16) + events.channel
    order = np.argsort(_narrow(lane), kind="stable")
    lane, kind = lane[order], events.kind[order]
    tick, data1, data2 = events.tick[order], events.data1[order], events.data2[order]
    # The program in force: the last change before on the lane, 0 if there was none.
    at = np.arange(len(lane))
    new_lane = np.append(True, lane[1:] != lane[:-1])[: len(lane)]
    change = np.maximum.accumulate(np.where((kind == smf.PROGRAM) | new_lane, at, 0))
    program = np.where(kind[change] == smf.PROGRAM, data1[change], 0) if len(at) else at
    is_on = (kind == smf.NOTE_ON) & (data2 > 0)
    is_off = (kind == smf.NOTE_OFF) | (kind == smf.NOTE_ON) & (data2 == 0)
    is_stop = (kind == smf.CONTROL) & ((data1 == ALL_SOUND_OFF) | (data1 == ALL_NOTES_OFF))
    end = _ends(lane, tick, data1, is_on, is_off, is_stop)
    on = np.flatnonzero(end >= 0)
    # Notes of a part stand together, in the order of the file.
    part = lane[on] * 128 + program[on]
    in_parts = np.argsort(part, kind="stable")
    on, part = on[in_parts], part[in_parts]
    bounds = np.append(np.flatnonzero(np.append(True, part[1:] != part[:-1])), len(part))
    is_marker = (kind == smf.CONTROL) & (data1 == ALL_NOTES_OFF) & (data2 == END_OF_PIECE)
    markers = dict(zip(lane[is_marker].tolist(), tick[is_marker].tolist(), strict=True))
    parts = []
    for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if a == b:
            continue
        here = int(lane[on[a]])
        parts.append(
            _Part(
                name=events.names[here // 16],
                channel=here % 16,
                program=int(program[on[a]]),
                start=tick[on[a:b]],
                end=end[on[a:b]],
                pitch=data1[on[a:b]],
                velocity=data2[on[a:b]],
                end_marker=markers.get(here, 0),
                is_drum=here % 16 == DRUM_CHANNEL,
            )
        )
    return parts, int(np.count_nonzero(is_on)) - len(on)


def _narrow(key: np.ndarray) -> np.ndarray:
    """The key in 16 bits where it fits, for NumPy then sorts by counting."""
    return key.astype(np.uint16) if key.max(initial=0) < 1 << 16 else key


def _ends(
    lane: np.ndarray,
    tick: np.ndarray,
    pitch: np.ndarray,
    is_on: np.ndarray,
    is_off: np.ndarray,
    is_stop: np.ndarray,
) -> np.ndarray:
    """When each note ends.

    Parameters
    ----------
    lane : ndarray of int64, shape (n_events,)
        16 times the track, plus the channel; ascending. Onsets and releases of different lanes
        have nothing to do with each other.
    tick, pitch : ndarray of int, shape (n_events,)
    is_on, is_off, is_stop : ndarray of bool, shape (n_events,)
        Onsets, releases, and controllers that end what sounds on their channel.

    Returns
    -------
    end : ndarray of int64, shape (n_events,)
        Tick at which the note ends that this event begins; -1 where it begins none.
    """
    key, channel = lane * 128 + pitch, lane % 16
    stops = {c: np.unique(tick[is_stop & (channel == c)]) for c in set(channel[is_stop].tolist())}
    apart = key
    if stops:
        # What sounds when a controller ends it can't be released after it.
        part = np.zeros(len(key), np.int64)
        for c, at in stops.items():
            mine = channel == c
            sides = (np.searchsorted(at, tick[mine], side) for side in ("right", "left"))
            part[mine] = np.where(is_on[mine], *sides)
        apart = key * (part.max() + 1) + part
    release = _pair(apart, is_on, is_off)
    short = _short_notes(apart, tick, is_on, is_off, release)
    if short:
        others = np.ones(len(key), bool)
        others[list(short) + list(short.values())] = False
        release = _pair(apart, is_on & others, is_off & others)
    end = np.where(release >= 0, tick[release], -1)
    end[list(short)] = tick[list(short)]
    alone = np.flatnonzero(is_on & (end < 0))
    if len(alone):
        strikes = channel * 128 + pitch
        alone = alone[_is_first_strike(alone, strikes, tick, end)]
        for strike in np.unique(strikes[alone]).tolist():
            mine = alone[strikes[alone] == strike]
            again = np.sort(tick[is_on & (strikes == strike)])
            again = np.append(again, stops.get(strike // 128, again[:0]))
            again.sort()
            at = np.searchsorted(again, tick[mine], "right")
            end[mine] = np.append(again, -1)[at]
    return end


def _is_first_strike(
    alone: np.ndarray, strikes: np.ndarray, tick: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """Whether no note has begun with the same key at the same tick.

    Struck twice at once, a key sounds once.
    """
    notes = np.flatnonzero((end >= 0) & np.isin(tick, tick[alone]))
    begun = set(zip(strikes[notes].tolist(), tick[notes].tolist(), strict=True))
    is_first = []
    for place in zip(strikes[alone].tolist(), tick[alone].tolist(), strict=True):
        is_first.append(place not in begun)
        begun.add(place)
    return np.array(is_first, bool)


def _short_notes(
    key: np.ndarray, tick: np.ndarray, is_on: np.ndarray, is_off: np.ndarray, release: np.ndarray
) -> dict[int, int]:
    """Notes shorter than a tick, as pretty_midi writes them: released just before they begin.

    A void release, with an onset of its key at its tick, is such a note if taking it for one leaves
    no other release void: then that onset would have taken another note's release, and so on.

    Returns
    -------
    dict of int to int
        The release of each onset.
    """
    is_void = is_off.copy()
    is_void[release[release >= 0]] = False
    is_left = is_on & (release < 0)
    concerned = np.intersect1d(key[is_void], key[is_left])
    if len(concerned) == 0:
        return {}
    events = np.flatnonzero((is_on | is_off) & np.isin(key, concerned))
    events = events[np.argsort(key[events], kind="stable")]
    short: dict[int, int] = {}
    before, sounding, voids, chain = -1, 0, [], {}
    now = -1
    columns = (a[events].tolist() for a in (key, tick, is_on))
    for i, k, t, on in zip(events.tolist(), *columns, strict=True):
        if k != before or t != now:
            if voids:  # no onset has come for it: the last onset of the chain takes this release
                chain, voids = {}, []
            if k != before:
                short |= chain
                before, sounding, chain = k, 0, {}
            now = t
        if on and voids:
            chain[i] = voids.pop()
        elif on:
            sounding += 1
        elif sounding:
            sounding -= 1
        else:
            voids.append(i)
    return short if voids else short | chain


def _pair(key: np.ndarray, is_on: np.ndarray, is_off: np.ndarray) -> np.ndarray:
    """The release of each onset.

    Those that match do so as brackets; of them, the first to begin is the first to end.

    Parameters
    ----------
    key : ndarray of int64, shape (n_events,)
        Events of different keys have nothing to do with each other.
    is_on, is_off : ndarray of bool, shape (n_events,)

    Returns
    -------
    release : ndarray of int64, shape (n_events,)
        Index of the event that ends the note which this one begins; -1 for a release, for an onset
        without one, and for other events.
    """
    release = np.full(len(key), -1)
    events = np.flatnonzero(is_on | is_off)
    events = events[np.argsort(_narrow(key[events]), kind="stable")]
    if len(events) == 0:
        return release
    begins = np.flatnonzero(np.append(True, np.diff(key[events]) != 0))
    group = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(events)))
    # Running sum of +1 and -1 in each group. A release is void where the sum falls to a new low
    # below zero. Sums of later groups are moved below all earlier ones, so that one running
    # minimum serves all.
    step = np.where(is_on[events], 1, -1)
    total = np.cumsum(step)
    total -= (total - step)[begins][group]
    apart = 2 * len(events) * group
    lowest = np.minimum.accumulate(total - apart) + apart
    before = np.append(0, lowest[:-1])
    before[begins] = 0
    is_release = (step < 0) & (total >= np.minimum(before, 0))
    # How many brackets are open: an onset is never closed if there are never fewer than with it.
    # Here it is later groups that are moved above.
    depth = total - np.minimum(lowest, 0) + apart
    fewest = np.append(np.minimum.accumulate(depth[::-1])[::-1][1:], np.iinfo(np.int64).max)
    is_onset = (step > 0) & (fewest < depth)
    # As many onsets as releases of each group are left, and the k-th goes with the k-th.
    release[events[is_onset]] = events[is_release]
    return release


def _held_by_pedal(
    start: np.ndarray,
    end: np.ndarray,
    pitch: np.ndarray,
    channel: np.ndarray,
    moves: Sequence[np.ndarray],
    offs: Sequence[np.ndarray],
    *,
    last: float,
) -> np.ndarray:
    """Ends of notes that the sustain pedal of their channel holds.

    Parameters
    ----------
    start, end, pitch, channel : ndarray, shape (n_notes,)
    moves : three of ndarray, shape (n_moves,)
        Channel, time and value of the pedal; from 64 on it is down.
    offs : two of ndarray, shape (n,)
        Channel and time of each "all sound off".
    last : float
        End of the piece.
    """
    held = end.copy()
    pedal_channel, pedal_time, pedal_value = moves
    off_channel, off_time = offs
    for c in np.unique(channel).tolist():
        mine, own = np.flatnonzero(channel == c), np.flatnonzero(pedal_channel == c)
        own = own[np.argsort(pedal_time[own], kind="stable")]
        time, down = pedal_time[own], pedal_value[own] >= 64
        if not down.any():
            continue
        # When the pedal is next up, from each move on.
        lift = np.minimum.accumulate(np.where(down, np.inf, time)[::-1])[::-1]
        lift = np.where(np.isinf(lift), last, lift)
        move = np.searchsorted(time, end[mine], side="right") - 1
        is_held = (move >= 0) & down[np.maximum(move, 0)]
        until = np.where(is_held, lift[np.maximum(move, 0)], end[mine])
        # The next strike of the pitch cuts what only the pedal holds.
        order = np.lexsort((start[mine], pitch[mine]))
        following = np.full(len(mine), np.inf)
        again = pitch[mine][order[1:]] == pitch[mine][order[:-1]]
        following[order[:-1]] = np.where(again, start[mine][order[1:]], np.inf)
        off = np.append(np.sort(off_time[off_channel == c]), np.inf)
        following = np.minimum(following, off[np.searchsorted(off[:-1], end[mine])])
        held[mine] = np.maximum(end[mine], np.minimum(until, following))
    return held


def _parts_of_pretty_midi(source: Any) -> list[_Part]:
    """Instruments of a PrettyMIDI; it does not tell channels, so each has its own."""
    parts = []
    for i, instrument in enumerate(source.instruments):
        notes, changes = instrument.notes, instrument.control_changes
        markers = [c for c in changes if c.number == ALL_NOTES_OFF]
        parts.append(
            _Part(
                name=instrument.name,
                channel=i,
                program=int(instrument.program),
                start=np.array([n.start for n in notes], dtype=np.float64),
                end=np.array([n.end for n in notes], dtype=np.float64),
                pitch=np.array([n.pitch for n in notes], dtype=np.int64),
                velocity=np.array([n.velocity for n in notes], dtype=np.int64),
                end_marker=max((c.time for c in markers if c.value == END_OF_PIECE), default=0),
                is_drum=bool(instrument.is_drum),
                pedals=tuple(c for c in changes if c.number == SUSTAIN),
                sound_offs=tuple(c for c in changes if c.number == ALL_SOUND_OFF),
                last_marker=max((c.time for c in markers), default=0.0),
            )
        )
    return parts


def _pretty_midi_tempo_map(source: Any) -> TempoMap:
    times, bpm = source.get_tempo_changes()
    ticks = [source.time_to_tick(t) for t in times]
    return TempoMap(ticks, np.rint(6e7 / bpm), source.resolution)


def _choose(
    name: str,
    parts: Sequence[_Part],
    tracks: Sequence[int] | None,
    programs: Sequence[int] | None,
    drums: Drums | None,
) -> list[_Part]:
    """The parts asked for; all but drums where none were."""
    if tracks is None:
        chosen = [p for p in parts if not p.counts_as_drums(drums)]
    else:
        missing = [i for i in tracks if not 0 <= i < len(parts)]
        if missing:
            raise MidiError(
                f"{name}: there is no track {missing[0]}; it has {len(parts)} tracks, numbered "
                "from 0 (pianolstm.describe_midi lists them)."
            )
        left_out = [i for i in tracks if parts[i].counts_as_drums(drums)]
        if left_out:
            raise MidiError(
                f"{name}: track {left_out[0]} holds drums, which have no pitches; leave it out, or "
                "read it as notes with drums=None."
            )
        chosen = [parts[i] for i in tracks]
    if programs is None:
        return chosen
    return [p for p in chosen if p.program in programs]


def _checked(
    name: str,
    start: np.ndarray,
    end: np.ndarray,
    pitch: np.ndarray,
    velocity: np.ndarray,
    end_marker: float,
    tempo_map: TempoMap,
) -> Notes:
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
