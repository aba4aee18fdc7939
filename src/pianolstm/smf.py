"""Standard MIDI files: bytes to arrays of events.

Reads the format as published (MIDI 1.0, RP-001) and what programs make of it in the wild: RIFF and
other wrappings, headers longer than they need be, chunks of other kinds, lengths that point past
the end of a whole track, events after the end of track, running status across system messages.
What is out of step (a data byte where a status must be, an event past the end of its track) is an
error that tells the byte.

A track is a chain: where an event ends, the next begins. Where each event *would* end is computed
for all bytes of a block at once with NumPy; only the chain itself is followed byte by byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pianolstm.exceptions import MidiError

BLOCK = 1 << 16
"""Bytes whose events are worked out at once, so that a large file needs little memory."""

MAX_WRAPPING = 256
"""Bytes of another program's header (MacBinary has 128) in which a MIDI file may begin."""

SMPTE_FRAMES = {24: (24, 1_000_000), 25: (25, 1_000_000), 29: (30, 1_001_000), 30: (30, 1_000_000)}
"""Frames a nominal second and microseconds that such a second lasts; 29 is 30 drop frame."""

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x8, 0x9, 0xB, 0xC
META, SYSEX, ESCAPE = 0xFF, 0xF0, 0xF7
TRACK_NAME, TEMPO = 0x03, 0x51

# Data bytes after a status byte; 255 where the length is told by the event itself.
_N_DATA = np.zeros(256, np.uint8)
_N_DATA[0x80:0xC0] = _N_DATA[0xE0:0xF0] = 2
_N_DATA[0xC0:0xE0] = 1
_N_DATA[[SYSEX, ESCAPE, META]] = 255
_N_DATA[[0xF1, 0xF3]], _N_DATA[0xF2] = 1, 2


@dataclass(frozen=True, eq=False)
class Events:
    """What a MIDI file says, track by track.

    Attributes
    ----------
    tick : ndarray of int64, shape (n_events,)
        Time of each channel event since the beginning.
    track : ndarray of int32, shape (n_events,)
        Number of the track chunk it stands in; the arrays go track by track.
    kind, channel, data1, data2 : ndarray of uint8, shape (n_events,)
        Upper and lower half of the status byte, and the data bytes.
    tempo_tick, tempo : ndarray of int64, shape (n_tempi,)
        Microseconds per quarter note, and from when on.
    names : list of str
        Name of each track, "" where it has none.
    ticks_per_quarter : int
        Resolution. A file in SMPTE time has a quarter note a second.
    """

    tick: np.ndarray
    track: np.ndarray
    kind: np.ndarray
    channel: np.ndarray
    data1: np.ndarray
    data2: np.ndarray
    tempo_tick: np.ndarray
    tempo: np.ndarray
    names: list[str]
    ticks_per_quarter: int


def read_events(name: str, data: bytes) -> Events:
    """Read the events of a MIDI file of format 0 or 1.

    Parameters
    ----------
    name : str
        What errors call the file.
    data : bytes
        The file.

    Raises
    ------
    MidiError
        If it is no MIDI file, is broken, or holds independent pieces (format 2).
    """
    kind, division, tracks = read_chunks(name, data)
    if kind == 2:
        raise MidiError(
            f"{name}: a MIDI file of format 2 holds several independent pieces, not one; "
            "pianolstm.split_midi gives them one by one."
        )
    ticks_per_quarter, smpte_microseconds = _resolution(name, division)
    read = [_read_track(f"{name}: track {i}", track) for i, track in enumerate(tracks)]
    columns, tempi, names = zip(*read, strict=True)
    tick, status, data1, data2 = (np.concatenate(c) for c in zip(*columns, strict=True))
    tempo_tick, tempo = (np.concatenate(c) for c in zip(*tempi, strict=True))
    if smpte_microseconds is not None:
        tempo_tick, tempo = np.zeros(1, np.int64), np.array([smpte_microseconds])
    # Seconds are summed up in whole ticks times microseconds.
    last = max(tick.max(initial=0), tempo_tick.max(initial=0))
    if float(last) * float(tempo.max(initial=500_000)) > 2.0**62:
        raise MidiError(
            f"{name}: an event at tick {last:,} is later than any music; the file is broken."
        )
    return Events(
        tick=tick,
        track=np.repeat(np.arange(len(tracks), dtype=np.int32), [len(c[0]) for c in columns]),
        kind=status >> 4,
        channel=status & 15,
        data1=data1,
        data2=data2,
        tempo_tick=tempo_tick,
        tempo=tempo,
        names=list(names),
        ticks_per_quarter=ticks_per_quarter,
    )


def read_chunks(name: str, data: bytes) -> tuple[int, int, list[bytes]]:
    """Format, division and the bytes of each track of a MIDI file, unwrapped."""
    data = _unwrap(name, data)
    header_length = int.from_bytes(data[4:8], "big")
    if len(data) < 14 or header_length < 6:
        raise MidiError(
            f"{name}: expected a header of at least 6 bytes; the file has {len(data)} bytes and "
            f"says {header_length}. It is cut short or broken."
        )
    kind, n_tracks, division = (int.from_bytes(data[i : i + 2], "big") for i in (8, 10, 12))
    if n_tracks == 0:
        raise MidiError(f"{name}: the header says that there are no tracks.")
    tracks: list[bytes] = []
    at = 8 + header_length
    while len(tracks) < n_tracks:
        chunk = data[at : at + 8]
        if len(chunk) < 8:
            raise MidiError(
                f"{name}: the header says {n_tracks} tracks, but the file ends after "
                f"{len(tracks)}; it is cut short."
            )
        length = int.from_bytes(chunk[4:], "big")
        body = data[at + 8 : at + 8 + length]
        if chunk[:4] == b"MTrk":
            # A length past the end of the file is a cut, unless the track has its end.
            if len(body) < length and body[-3:-1] != b"\xff\x2f":
                raise MidiError(
                    f"{name}: track {len(tracks)} should have {length:,} bytes, but the file ends "
                    f"after {len(body):,}; it is cut short."
                )
            tracks.append(body)
        at += 8 + length
    return kind, division, tracks


def _unwrap(name: str, data: bytes) -> bytes:
    """The bytes from b"MThd" on."""
    if not data:
        raise MidiError(f"{name}: the file is empty; expected a MIDI file.")
    if data[:4] == b"RIFF":
        at = 12
        while at + 8 <= len(data):
            length = int.from_bytes(data[at + 4 : at + 8], "little")
            if data[at : at + 4] == b"data":
                data = data[at + 8 : at + 8 + length]
                break
            at += 8 + length + length % 2
    if data[:2] == b"\x1f\x8b":
        raise MidiError(f"{name}: the file is compressed with gzip; decompress it first.")
    begin = data.find(b"MThd", 0, MAX_WRAPPING)
    if begin < 0:
        raise MidiError(
            f"{name}: expected a MIDI file, which starts with b'MThd'; this one starts with "
            f"{data[:8]!r}."
        )
    return data[begin:]


def _resolution(name: str, division: int) -> tuple[int, int | None]:
    """Ticks per quarter note; for SMPTE time also the microseconds of its nominal second."""
    if division < 0x8000:
        if division == 0:
            raise MidiError(f"{name}: expected 1 tick per quarter note or more; got a division 0.")
        return division, None
    frames, ticks = 256 - (division >> 8), division & 0xFF
    if frames not in SMPTE_FRAMES or ticks == 0:
        raise MidiError(
            f"{name}: expected SMPTE time of 24, 25, 29 or 30 frames a second and at least 1 tick "
            f"a frame; got {frames} and {ticks}."
        )
    per_second, microseconds = SMPTE_FRAMES[frames]
    return per_second * ticks, microseconds


def _read_track(
    name: str, data: bytes
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, np.ndarray], str]:
    """Columns (tick, status, data1, data2) of the channel events; tempi; the track's name."""
    # Zeros after the end, so that looking ahead needs no care; the chain is checked instead.
    padded = np.concatenate([np.frombuffer(data, np.uint8), np.zeros(16, np.uint8)])
    starts = _chain(name, padded, len(data))
    delta, at = _variable_length(padded, starts)
    tick = np.cumsum(delta)
    status = padded[at]
    explicit = status >= 0x80
    # Running status: the last status of a channel message goes on.
    sets = explicit & (status < 0xF0)
    last = np.maximum.accumulate(np.where(sets, np.arange(len(at)), 0))
    status = np.where(explicit, status, status[last]) if len(at) else status
    first = at + explicit
    is_channel = status < 0xF0
    data1, data2 = padded[first], np.where(_N_DATA[status] == 2, padded[first + 1], 0)
    wrong = is_channel & ((data1 | data2) >= 0x80)
    if wrong.any():
        where = int(first[np.argmax(wrong)])
        raise MidiError(
            f"{name}: expected data bytes below 0x80 at byte {where}; got "
            f"{bytes(padded[where : where + 2]).hex(' ')}. The file is broken."
        )
    meta = np.flatnonzero(status == META)
    length, body = _variable_length(padded, at[meta] + 2)
    which = padded[at[meta] + 1]
    track_name = ""
    if (which == TRACK_NAME).any():
        i = int(np.argmax(which == TRACK_NAME))
        payload = data[int(body[i]) : int(body[i] + length[i])]
        track_name = payload.decode("latin-1").strip("\0 ")
    is_tempo = (which == TEMPO) & (length >= 3)
    begin = body[is_tempo]
    tempo = padded[begin[:, None] + np.arange(3)] @ np.array([1 << 16, 1 << 8, 1])
    tempo_tick = tick[meta[is_tempo]]
    valid = tempo > 0
    columns = tuple(c[is_channel] for c in (tick, status, data1, data2))
    return columns, (tempo_tick[valid], tempo[valid]), track_name


def _chain(name: str, padded: np.ndarray, n: int) -> np.ndarray:
    """Where each event of a track begins: int64, shape (n_events,)."""
    starts: list[int] = []
    begin = starts.append
    at, width = 0, 0  # of the running status: its data bytes
    while at < n:
        base, stop = at, min(n, at + BLOCK)
        ends, sets = _block(padded, base, stop)
        while at < stop:
            begin(at)
            i = at - base
            at = ends[i]
            if at < 0:  # no status byte: as many data bytes as the status before it has
                if width == 0:
                    raise MidiError(
                        f"{name}: expected a status byte at byte {-at}, as none came before; got "
                        f"{padded[-at]:#04x}. The file is broken."
                    )
                at = width - at
            else:
                width = sets[i] or width
    if at > n:
        raise MidiError(
            f"{name}: the event at byte {starts[-1]} goes on to byte {at}, but the track ends at "
            f"{n}; it is cut short or broken."
        )
    return np.array(starts, np.int64)


def _block(padded: np.ndarray, first: int, last: int) -> tuple[list[int], list[int]]:
    """For each byte from first to last, were it the first of an event: where the event ends.

    Returns
    -------
    ends : list of int
        First byte after the event; for an event without status byte, minus its first data byte.
    sets : list of int
        Data bytes of the running status that the event sets, 0 if it sets none.
    """
    _, at = _variable_length(padded, np.arange(first, last))
    status = padded[np.minimum(at, len(padded) - 1)]
    n_data = _N_DATA[status]
    ends = np.where(status < 0x80, -at, at + 1 + n_data)
    own = np.flatnonzero(n_data == 255)
    if len(own):
        length, body = _variable_length(padded, at[own] + np.where(status[own] == META, 2, 1))
        ends[own] = body + length
    sets = np.where((status >= 0x80) & (status < 0xF0), n_data, 0)
    return ends.tolist(), sets.tolist()


def _variable_length(padded: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of the variable-length quantities that begin at these bytes, and where each ends.

    Four bytes at the most; a fourth one ends it, whatever its top bit.
    """
    value = np.zeros(len(at), np.int64)
    end = at.astype(np.int64)
    more = np.ones(len(at), bool)
    for _ in range(4):
        byte = padded[np.minimum(end, len(padded) - 1)]
        value = np.where(more, value << 7 | (byte & 0x7F), value)
        end = end + more
        more &= byte >= 0x80
        if not more.any():
            break
    return value, end
