"""Broken MIDI files: bytes to bytes that `pianolstm.smf` reads, with what was lost cut out.

A file is split into tracks again, and each is followed from event to event. Where there can be no
event, the track is taken up again at the first place from which `CERTAIN` events follow, or the end
of the track comes just right. Nothing is guessed: what lies between is lost, and told.

A chain of events may look whole and be out of step: in a running status, a delta time of two bytes
begins like a status byte. So, after a break, a status is believed if its channel has been seen in
the track before, and only where there is no such place is any other. Where all delta times have one
byte, a chain out of step can't be told from one in step, and more is lost than is told.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pianolstm.exceptions import MidiError
from pianolstm.smf import (
    DELTA_LENGTH,
    ESCAPE,
    META,
    N_DATA,
    NOTE_OFF,
    NOTE_ON,
    SYSEX,
    unwrap,
    variable_length,
)

CERTAIN, LIKELY = 32, 4
"""Events that must follow, unless the track ends before; powers of two.

Fewer are enough after an event with a wrong data byte, which is in step itself.
"""

MOST_LOSSES = 5
"""Losses of a track that are told one by one."""

META_LENGTHS = {0x00: 2, 0x20: 1, 0x21: 1, 0x2F: 0, 0x51: 3, 0x54: 5, 0x58: 4, 0x59: 2}
"""Bytes of meta events that always have as many."""

END_OF_TRACK = b"\xff\x2f\x00"
NOTHING = b"\xff\x01\x00"
"""An event that takes time and says nothing: a text of no letters."""


def repair_chunks(name: str, data: bytes) -> tuple[int, int, list[bytes], list[str]]:
    """As `pianolstm.smf.read_chunks`, of a broken file, and what of it was lost.

    Raises
    ------
    MidiError
        If there is no header or no track.
    """
    data = unwrap(name, data)
    if len(data) < 14:
        raise MidiError(f"{name}: the file is cut short in its header; nothing can be repaired.")
    kind, n_tracks, division = (int.from_bytes(data[i : i + 2], "big") for i in (8, 10, 12))
    losses: list[str] = []
    bodies = _bodies(data, n_tracks, losses)
    if not bodies:
        raise MidiError(f"{name}: the file has no track; nothing can be repaired.")
    if n_tracks != len(bodies):
        losses.append(f"the header says {n_tracks} tracks; there are {len(bodies)}")
    tracks = []
    for i, (body, is_whole) in enumerate(bodies):
        track, lost = _repair_track(body, is_whole)
        tracks.append(track)
        losses += [f"track {i}: {what}" for what in lost[:MOST_LOSSES]]
        if len(lost) > MOST_LOSSES:
            losses.append(f"track {i}: {len(lost) - MOST_LOSSES} further places")
    return kind, division, tracks, losses


def _bodies(data: bytes, n_tracks: int, losses: list[str]) -> list[tuple[bytes, bool]]:
    """Bytes of each track, and whether they end where its length says."""
    at = 8 + int.from_bytes(data[4:8], "big")
    if not _is_chunk(data, at):
        at = max(data.find(b"MTrk", 8), 0)
        losses.append("the length of the header")
    bodies: list[tuple[bytes, bool]] = []
    while _is_chunk(data, at) and (n_tracks == 0 or len(bodies) < n_tracks):
        length, begin = int.from_bytes(data[at + 4 : at + 8], "big"), at + 8
        is_track, end = data[at : at + 4] == b"MTrk", begin + length
        is_whole = end == len(data) or _is_chunk(data, end)
        if is_track and len(bodies) + 1 == n_tracks and data[end - 3 : end] == END_OF_TRACK:
            is_whole = True  # what comes after the last track is no matter
        if not is_whole:
            following = data.find(b"MTrk", begin)
            end = len(data) if following < 0 else following
            if is_track:
                losses.append(
                    f"track {len(bodies)}: the length says {length:,} bytes; there are "
                    f"{end - begin:,} to the next track or the end of the file"
                )
        if is_track:
            bodies.append((data[begin:end], is_whole))
        at = end
    return bodies


def _is_chunk(data: bytes, at: int) -> bool:
    """Whether a chunk begins there, by its four letters."""
    letters = data[at : at + 4]
    return len(data) >= at + 8 and letters.isalnum() and letters.isascii()


class _Chains(NamedTuple):
    """Where an event at each byte of a track leads; n is how many bytes it has.

    A node is 3 times a byte, plus the data bytes of the running status, 0 where there is none.

    Attributes
    ----------
    status_at : ndarray of int32, shape (n,)
        Where the status byte, or in a running status the first data byte, would be.
    leads : ndarray of int32, shape (3 * n + 2,)
        The next node, or one of the last two, which stand for the end of the track and for a break.
    lengths : ndarray of int32, shape (3 * n,)
        The next node whatever the data bytes are; for the break, where that isn't known.
    """

    status_at: np.ndarray
    leads: np.ndarray
    lengths: np.ndarray


def _chains(padded: np.ndarray, n: int, channels: set[int] | None, *, to_end: bool) -> _Chains:
    """Where events lead; with `channels`, no status of another is one.

    With `to_end` an end of track ends it, wherever it stands.
    """
    end, broken = 3 * n, 3 * n + 1
    high = padded[: n + 2] >> 7
    continues = high[:n] | high[1 : n + 1] << 1 | high[2:] << 2
    status_at = (np.arange(n) + DELTA_LENGTH[continues]).astype(np.int32)
    status = padded[status_at]
    is_status, is_channel = status >= 0x80, (status >= 0x80) & (status < 0xF0)
    known = is_channel.copy()
    if channels is not None:
        known &= np.isin(status & 15, list(channels))
    lengths = np.full((n, 3), broken, np.int32)
    leads = lengths.copy()
    for width in (0, 1, 2):
        n_data = np.where(is_channel, N_DATA[status], width).astype(np.int32)
        first = status_at + is_status
        after = first + n_data
        fits = (known | ~is_status & (width > 0)) & (after <= n)
        to = np.where(after >= n, end, 3 * after + n_data)
        lengths[:, width] = np.where(fits, to, broken)
        data1, data2 = padded[first], np.where(n_data == 2, padded[first + 1], 0)
        leads[:, width] = np.where(fits & ((data1 | data2) < 0x80), to, broken)
    for i, after, stops in _own_lengths(padded, status_at, status, n):
        stop = end if after >= n or (stops and to_end) else 3 * after
        leads[i] = stop if stop == end else stop + np.arange(3)
    return _Chains(status_at, np.append(leads.ravel(), [end, broken]).astype(np.int32), lengths)


def _own_lengths(
    padded: np.ndarray, status_at: np.ndarray, status: np.ndarray, n: int
) -> list[tuple[int, int, bool]]:
    """Events that tell their own length: byte, where it ends, and whether it is an end of track."""
    at = np.flatnonzero((status == META) | (status == SYSEX) | (status == ESCAPE))
    is_meta = status[at] == META
    kind = padded[np.minimum(status_at[at] + 1, len(padded) - 1)]
    length, body = variable_length(padded, status_at[at] + 1 + is_meta)
    after = body + length
    usual = np.full(256, -1)
    usual[list(META_LENGTHS)] = list(META_LENGTHS.values())
    fits = (after <= n) & (~is_meta | (kind < 0x80) & ((usual[kind] < 0) | (usual[kind] == length)))
    stops = is_meta & (kind == END_OF_TRACK[1])
    columns = (a[fits].tolist() for a in (at, after, stops))
    return list(zip(*columns, strict=True))


def _followed(chains: _Chains, n: int, events: int) -> np.ndarray:
    """Whether so many events follow from each node, or the end: bool, shape (3 * n,)."""
    ahead = chains.leads
    for _ in range(events.bit_length() - 1):
        ahead = ahead[ahead]
    return ahead[: 3 * n] != 3 * n + 1


def _first_certain(chains: _Chains, n: int) -> list[np.ndarray]:
    """For each number of data bytes of a running status: the first certain place from each byte."""
    is_certain = _followed(chains, n, CERTAIN).reshape(n, 3)
    places = np.where(is_certain, np.arange(n, dtype=np.int32)[:, None], n)
    first = np.minimum.accumulate(places[::-1])[::-1]
    return [np.ascontiguousarray(first[:, width]) for width in range(3)]


class _Walk:
    """One track, from event to event.

    Attributes
    ----------
    out : bytearray
        What is kept.
    lost : list of str
    channels : set of int
        Those seen.
    sounding : dict of (int, int) to int
        How many notes of each channel and pitch sound.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.out = bytearray()
        self.lost: list[str] = []
        self.channels: set[int] = set()
        self.sounding: dict[tuple[int, int], int] = {}
        self.running, self.is_told = 0, True

    def keep(self, begin: int, at: int, end: int) -> None:
        """Keep an event whose status stands at byte `at`."""
        body, status = self.body, self.body[at]
        if status >= 0xF0:
            self.out += body[begin:end]
            return
        if status >= 0x80:
            self.running, first = status, at + 1
            self.out += body[begin:end]
        else:
            status, first = self.running, at
            # What the running status was may have been cut out.
            self.out += body[begin:end] if self.is_told else _with(status, body, begin, at, end)
        self.is_told = True
        channel, kind = status & 15, status >> 4
        self.channels.add(channel)
        if kind in (NOTE_ON, NOTE_OFF):
            key = channel, body[first]
            if kind == NOTE_ON and body[first + 1]:
                self.sounding[key] = self.sounding.get(key, 0) + 1
            elif self.sounding.get(key, 0):
                self.sounding[key] -= 1

    def lose(self, begin: int, end: int) -> None:
        self.lost.append(f"bytes {begin:,} to {end - 1:,}")
        self.is_told = False

    def close(self) -> None:
        """Release what sounds."""
        for (channel, pitch), n in self.sounding.items():
            self.out += n * bytes([0, NOTE_OFF << 4 | channel, pitch, 0])


def _with(status: int, body: bytes, begin: int, at: int, end: int) -> bytes:
    return body[begin:at] + bytes([status]) + body[at:end]


def _repair_track(body: bytes, is_whole: bool) -> tuple[bytes, list[str]]:
    """The bytes of a track that are certain, and which are lost."""
    n, walk = len(body), _Walk(body)
    padded = np.frombuffer(body + bytes(16), np.uint8)
    chains = _chains(padded, n, None, to_end=not is_whole)
    leads, status_at = (memoryview(a.data) for a in (chains.leads, chains.status_at))
    firsts: list[list[np.ndarray]] = []
    is_likely = np.zeros(0, bool)
    is_cut = not is_whole and not body.endswith(END_OF_TRACK)
    end, broken = 3 * n, 3 * n + 1
    node = 0 if n else end
    while node != end:
        to, begin = leads[node], node // 3
        if to != broken:
            at = status_at[begin]
            last = to // 3
            if to == end:  # what comes after the end of a track is none of it
                last = at + 3 if body[at : at + 3] == END_OF_TRACK else n
            walk.keep(begin, at, last)
            node = to
            continue
        if not firsts:
            is_likely = _followed(chains, n, LIKELY)
            firsts = [
                _first_certain(_chains(padded, n, channels, to_end=not is_whole), n)
                for channels in ([walk.channels, None] if walk.channels else [None])
            ]
        status = body[status_at[begin]] if status_at[begin] < n else 0
        if 0x80 <= status < 0xF0:
            walk.running = status
        width = int(N_DATA[walk.running]) if walk.running else 0
        skipped = int(chains.lengths[begin, node % 3])
        if skipped == end or (skipped < end and is_likely[skipped]):
            # A data byte is wrong: the event is lost, not its time.
            walk.out += body[begin : status_at[begin]] + NOTHING
            walk.lose(begin, skipped // 3 if skipped != end else n)
            node = skipped
            continue
        place = next((int(f[width][begin + 1]) for f in firsts if _is_found(f, width, begin, n)), n)
        walk.lose(begin, place)
        node = end if place == n else 3 * place + width
        is_cut |= place == n
    if is_cut:
        walk.close()
    return bytes(walk.out) or b"\0" + END_OF_TRACK, walk.lost


def _is_found(first: list[np.ndarray], width: int, begin: int, n: int) -> bool:
    return begin + 1 < n and int(first[width][begin + 1]) < n
