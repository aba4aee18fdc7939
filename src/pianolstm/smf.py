"""Standard MIDI files: bytes to arrays of events.

Reads the format as published (MIDI 1.0, RP-001) and what programs make of it in the wild: RIFF and
other wrappings, headers longer than they need be, chunks of other kinds, lengths that point past
the end of a whole track, events after the end of track, running status across system messages.
What is out of step (a data byte where a status must be, an event past the end of its track) is an
error that tells the byte.

A track is a chain: where an event ends, the next begins. Where each event *would* end is worked out
for all bytes of a block at once, and the chain is followed by doubling: the first event gives the
second, the first two give the next two, and so on. No Python loop runs over events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pianolstm.exceptions import MidiError

BLOCK = 1 << 13
"""Bytes whose events are worked out at once: few enough for the processor's cache."""

MAX_WRAPPING = 256
"""Bytes of another program's header (MacBinary has 128) in which a MIDI file may begin."""

SMPTE_FRAMES = {24: (24, 1_000_000), 25: (25, 1_000_000), 29: (30, 1_001_000), 30: (30, 1_000_000)}
"""Frames a nominal second and microseconds that such a second lasts; 29 is 30 drop frame."""

HINT = 'on_error="repair" reads what is left of it.'
"""Ends messages of what `pianolstm.repair` can mend."""

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x8, 0x9, 0xB, 0xC
META, SYSEX, ESCAPE = 0xFF, 0xF0, 0xF7
TRACK_NAME, TEMPO = 0x03, 0x51

# Data bytes after a status byte; 255 where the length is told by the event itself.
N_DATA = np.zeros(256, np.uint8)
N_DATA[0x80:0xC0] = N_DATA[0xE0:0xF0] = 2
N_DATA[0xC0:0xE0] = 1
N_DATA[[SYSEX, ESCAPE, META]] = 255
N_DATA[[0xF1, 0xF3]], N_DATA[0xF2] = 1, 2

# How far an event goes on from its status byte (in a running status: from its first data byte): in
# bytes; and in nodes of `_follow`, two to a byte, after a status of one data byte and of two.
_LEADS = {1: 1 + N_DATA[:, None].astype(np.intp)}
_LEADS[2] = 2 * _LEADS[1] + [0, 1]
_LEADS[1][:0x80], _LEADS[2][:0x80] = 2, [2 * 1 + 0, 2 * 2 + 1]
_LEADS[2][0x80:0xF0] = 2 * _LEADS[1][0x80:0xF0] + N_DATA[0x80:0xF0, None] - 1

# Bytes of a delta time, by the top bits of its first three, the first lowest; four at the most.
DELTA_LENGTH = np.array([1, 2, 1, 3, 1, 2, 1, 4])


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
    end_tick : int
        Where the longest track ends.
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
    end_tick: int


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
    return events_of(name, *read_chunks(name, data))


def events_of(name: str, kind: int, division: int, tracks: list[bytes]) -> Events:
    """The events of tracks, as `read_events`; format and division as `read_chunks` gives them."""
    if kind == 2:
        raise MidiError(
            f"{name}: a MIDI file of format 2 holds several independent pieces, not one; "
            "pianolstm.split_midi gives them one by one."
        )
    ticks_per_quarter, smpte_microseconds = _resolution(name, division)
    # All tracks in one run of bytes; zeros after the end, so that looking ahead needs no care. The
    # chains are what keeps tracks apart.
    padded = np.frombuffer(b"".join(tracks) + bytes(16), np.uint8)
    ends = np.cumsum([len(track) for track in tracks])
    begins = ends - [len(track) for track in tracks]
    starts, end = _chain(padded, int(ends[-1]))
    first_event = np.searchsorted(starts, begins)
    n_events = np.diff(first_event, append=len(starts))
    track = np.repeat(np.arange(len(tracks), dtype=np.int32), n_events)

    def place(at: int) -> tuple[str, int]:
        """Name of the track that a byte stands in, and the byte's number there."""
        i = int(np.searchsorted(ends, at, side="right"))
        return f"{name}: track {i}", int(at - begins[i])

    is_end = np.append(starts, end)[first_event + n_events] == ends
    if not is_end.all():
        i = int(np.argmin(is_end))
        n = int(first_event[i] + n_events[i])
        raise MidiError(
            f"{name}: track {i}: the event at byte {starts[n - 1] - begins[i]} goes on to byte "
            f"{np.append(starts, end)[n] - begins[i]}, but the track ends at {len(tracks[i])}; it "
            f"is cut short or broken. {HINT}"
        )

    delta, at = variable_length(padded, starts)
    tick = np.cumsum(delta)
    tick -= (tick - delta)[np.minimum(first_event, len(tick) - 1)][track] if len(tick) else 0
    status = padded[at]
    explicit = status >= 0x80
    # Running status: the last status of a channel message in the track goes on.
    sets = explicit & (status < 0xF0)
    last = np.maximum.accumulate(np.where(sets, np.arange(len(at)), -1))
    missing = ~explicit & (last < first_event[track])
    if missing.any():
        at_byte = int(at[np.argmax(missing)])
        where, i = place(at_byte)
        raise MidiError(
            f"{where}: expected a status byte at byte {i}, as none came before; got "
            f"{padded[at_byte]:#04x}. The file is broken. {HINT}"
        )
    status = np.where(explicit, status, status[last]) if len(at) else status
    first = at + explicit
    is_channel = status < 0xF0
    data1, data2 = padded[first], np.where(N_DATA[status] == 2, padded[first + 1], 0)
    wrong = is_channel & ((data1 | data2) >= 0x80)
    if wrong.any():
        at_byte = int(first[np.argmax(wrong)])
        where, i = place(at_byte)
        raise MidiError(
            f"{where}: expected data bytes below 0x80 at byte {i}; got "
            f"{bytes(padded[at_byte : at_byte + 2]).hex(' ')}. The file is broken. {HINT}"
        )

    names = [""] * len(tracks)
    metas = np.flatnonzero(status == META)
    tempo_tick, tempo = _read_metas(padded, at[metas], tick[metas], track[metas], names)
    if smpte_microseconds is not None:
        tempo_tick, tempo = np.zeros(1, np.int64), np.array([smpte_microseconds])
    # Seconds are summed up in whole ticks times microseconds.
    latest = max(tick.max(initial=0), tempo_tick.max(initial=0))
    if float(latest) * float(tempo.max(initial=500_000)) > 2.0**62:
        raise MidiError(
            f"{name}: an event at tick {latest:,} is later than any music; the file is broken."
        )
    return Events(
        tick=tick[is_channel],
        track=track[is_channel],
        kind=status[is_channel] >> 4,
        channel=status[is_channel] & 15,
        data1=data1[is_channel],
        data2=data2[is_channel],
        tempo_tick=tempo_tick,
        tempo=tempo,
        names=names,
        ticks_per_quarter=ticks_per_quarter,
        end_tick=int(tick.max(initial=0)),
    )


def read_chunks(name: str, data: bytes) -> tuple[int, int, list[bytes]]:
    """Format, division and the bytes of each track of a MIDI file, unwrapped."""
    data = unwrap(name, data)
    header_length = int.from_bytes(data[4:8], "big")
    if len(data) < 14 or header_length < 6:
        raise MidiError(
            f"{name}: expected a header of at least 6 bytes; the file has {len(data)} bytes and "
            f"says {header_length}. It is cut short or broken."
        )
    kind, n_tracks, division = (int.from_bytes(data[i : i + 2], "big") for i in (8, 10, 12))
    if n_tracks == 0:
        raise MidiError(f"{name}: the header says that there are no tracks. {HINT}")
    tracks: list[bytes] = []
    at = 8 + header_length
    while len(tracks) < n_tracks:
        chunk = data[at : at + 8]
        if len(chunk) < 8:
            raise MidiError(
                f"{name}: the header says {n_tracks} tracks, but the file ends after "
                f"{len(tracks)}; it is cut short. {HINT}"
            )
        length = int.from_bytes(chunk[4:], "big")
        body = data[at + 8 : at + 8 + length]
        if chunk[:4] == b"MTrk":
            # A length past the end of the file is a cut, unless the track has its end.
            if len(body) < length and body[-3:-1] != b"\xff\x2f":
                raise MidiError(
                    f"{name}: track {len(tracks)} should have {length:,} bytes, but the file ends "
                    f"after {len(body):,}; it is cut short. {HINT}"
                )
            tracks.append(body)
        at += 8 + length
    return kind, division, tracks


def unwrap(name: str, data: bytes) -> bytes:
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


def _chain(padded: np.ndarray, n_bytes: int) -> tuple[np.ndarray, int]:
    """Where each event of a run of bytes begins, and where the last one ends.

    Tracks stand one after another, so the end of one leads to the beginning of the next. Before
    the first status byte a running one of two data bytes is assumed; who reads the events must
    refuse that.

    Parameters
    ----------
    padded : ndarray of uint8
        The tracks, and 16 zeros.
    n_bytes : int
        Bytes of all tracks.
    """
    parts = [np.empty(0, np.int64)]
    at, width = 0, 2
    while at < n_bytes:
        starts, at, width = _follow(padded, at, min(n_bytes, at + BLOCK), width)
        parts.append(starts)
    return np.concatenate(parts), at


def _follow(padded: np.ndarray, first: int, last: int, width: int) -> tuple[np.ndarray, int, int]:
    """The chain of events from byte `first`, as far as they begin before byte `last`.

    Parameters
    ----------
    width : int
        Data bytes of the running status, 1 or 2.

    Returns
    -------
    starts : ndarray of int64
        Where the events begin.
    at, width : int
        Where the next one begins, and the running status there.
    """
    n = last - first
    goes_on = padded[first : last + 2] >> 7
    goes_on = goes_on[:n] | goes_on[1 : n + 1] << 1 | goes_on[2:] << 2
    ahead = padded[first : last + 4]
    # Of the status, were an event to begin here.
    at = np.arange(n) + DELTA_LENGTH.take(goes_on)
    status = ahead.take(at)
    # A node is a byte and a running status, and leads to that of the next event: k nodes to a byte,
    # for two of the running status, or one where it stays. The last node stands for all that is
    # past the end.
    k = 1 if width == 2 and not (ahead & 0xE0 == PROGRAM << 4).any() else 2
    leads = _LEADS[k].take(status, axis=0)
    leads += k * at[:, None]
    own = np.flatnonzero(N_DATA.take(status) == 255)
    if len(own):
        told, body = variable_length(padded, first + at[own] + np.where(status[own] == META, 2, 1))
        leads[own] = k * (body + told - first)[:, None] + np.arange(k)
    leads = leads.ravel()
    step = np.append(np.minimum(leads, k * n), k * n)
    chain = np.array([(width - 1) % k])
    while chain[-1] < k * n:
        chain = np.concatenate([chain, step.take(chain)])
        step = step.take(step)
    chain = chain[: np.searchsorted(chain, k * n)]
    byte, column = divmod(int(leads[chain[-1]]), k)
    return first + chain // k, first + byte, column + 3 - k


def _read_metas(
    padded: np.ndarray, at: np.ndarray, tick: np.ndarray, track: np.ndarray, names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Ticks and values of the tempi among meta events that stand at these bytes; fills in names."""
    which = padded[at + 1]
    length, body = variable_length(padded, at + 2)
    for i in np.flatnonzero(which == TRACK_NAME).tolist():
        text = bytes(padded[body[i] : body[i] + length[i]]).decode("latin-1").strip("\0 ")
        names[track[i]] = names[track[i]] or text
    is_tempo = (which == TEMPO) & (length >= 3)
    tempo = padded[body[is_tempo][:, None] + np.arange(3)] @ np.array([1 << 16, 1 << 8, 1])
    return tick[is_tempo][tempo > 0], tempo[tempo > 0]


def variable_length(padded: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of the variable-length quantities that begin at these bytes, and where each ends.

    Four bytes at the most; a fourth one ends it, whatever its top bit.
    """
    byte = padded[np.minimum(at, len(padded) - 1)]
    value, end = (byte & 0x7F).astype(np.int64), at.astype(np.int64) + 1
    more = np.flatnonzero(byte >= 0x80)
    for _ in range(3):
        if len(more) == 0:
            break
        byte = padded[np.minimum(end[more], len(padded) - 1)]
        value[more] = value[more] << 7 | (byte & 0x7F)
        end[more] += 1
        more = more[byte >= 0x80]
    return value, end
