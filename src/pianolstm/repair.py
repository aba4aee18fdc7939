"""Broken MIDI files: bytes to bytes that `pianolstm.smf` reads, with what was lost cut out.

A file is split into tracks again. The bytes of a broken one are explained as events, damaged events
and noise, at the least cost in nats: an event costs the negative logarithms of the probabilities of
its delta time, status and data, noise those of bytes that may be anything, and each place where the
track is broken `BREAK` beside (minimum description length; Rissanen 1978). That an event is a legal
one is not enough: in a running status, events one byte out of step may be legal for ever, but they
have deltas that look like pitches, and pitches that look like velocities. The probabilities are
counted in the track itself: a first explanation, by what music is like, gives those of the second.

Conventions
-----------
A node is 5 times a byte, plus the class of the running status there: none yet, of notes, of
controls, of other events with two data bytes, of events with one. An event leads from a node to
another; nodes from ``5 * n`` on, n being the bytes of the track, are its end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pianolstm.exceptions import MidiError
from pianolstm.smf import (
    DELTA_LENGTH,
    ESCAPE,
    META,
    NOTE_OFF,
    NOTE_ON,
    SYSEX,
    events_of,
    unwrap,
    variable_length,
)

FIRST_BREAK, BREAK = 100.0, 40.0
"""Nats of a place where a track is broken, in the first explanation and in the second.

Rare events of a track that is whole must cost less: up to forty nats. In the first, less is known.
"""

NOISE = float(np.log(256))
"""Nats of a byte that may be anything."""

LEGAL = float(np.log(128))
"""Nats of a byte of which no more is known than that its top bit is 0."""

FIRST_EVENTS = 16
"""Events at the beginning of a track that tell its channels."""

MAX_BYTES = 1 << 21
"""Longest track that is repaired: some seconds' work."""

MOST_LOSSES = 5
"""Losses of a track that are told one by one."""

META_LENGTHS = {0x00: 2, 0x20: 1, 0x21: 1, 0x2F: 0, 0x51: 3, 0x54: 5, 0x58: 4, 0x59: 2}
"""Bytes of meta events that always have as many."""

END_OF_TRACK = b"\xff\x2f\x00"
NOTHING = b"\xff\x01\x00"
"""An event that takes time and says nothing: a text of no letters."""

NO_STATUS, NOTES, CONTROLS, OTHERS, SINGLES = range(5)
"""Classes of statuses."""

N_DATA_OF = np.array([0, 2, 2, 2, 1])
"""Data bytes of events of each class."""

CLASS_OF = np.zeros(256, np.int64)
"""Class of each status byte; `NO_STATUS` for bytes that are no status of a channel."""
CLASS_OF[0x80:0xA0], CLASS_OF[0xB0:0xC0], CLASS_OF[0xC0:0xE0] = NOTES, CONTROLS, SINGLES
CLASS_OF[0xA0:0xB0] = CLASS_OF[0xE0:0xF0] = OTHERS

BLOCK = 5 << 12
"""Nodes that are looked at together."""

NOWHERE = -1
EVENT, DAMAGED, DAMAGED_RUNNING, SKIP = range(4)
"""What begins at a node: an event; one with a wrong data byte, after a status of its own or in
running status; noise."""


def repair_chunks(name: str, data: bytes) -> tuple[int, int, list[bytes], list[str]]:
    """As `pianolstm.smf.read_chunks`, of a broken file, and what of it was lost.

    Raises
    ------
    MidiError
        If there is no header or no track, or a broken track is longer than `MAX_BYTES`.
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
        if is_whole and _is_sound(body):
            tracks.append(body)
            continue
        if len(body) > MAX_BYTES:
            raise MidiError(
                f"{name}: track {i} is broken and has {len(body):,} bytes; tracks of at most "
                f"{MAX_BYTES:,} can be repaired."
            )
        track, lost = _repair_track(body, to_end=not is_whole)
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


def _is_sound(body: bytes) -> bool:
    """Whether a track can be read as it is."""
    try:
        events_of("", 1, 96, [body])
    except MidiError:
        return False
    return True


class _Costs(NamedTuple):
    """Nats of the parts of an event.

    Attributes
    ----------
    delta : ndarray of float64, shape (128,)
        Of delta times of one byte.
    high : ndarray of float64, shape (128,)
        Of delta times of two bytes, by the upper one; of the lower no more is known than that it is
        legal.
    longer : ndarray of float64, shape (5,)
        Of all delta times of each length in bytes.
    status : ndarray of float64, shape (257,)
        Of each status byte, and of none (a running status).
    data : ndarray of float64, shape (5, 2, 128)
        Of the first and the second data byte, in events of each class.
    """

    delta: np.ndarray
    high: np.ndarray
    longer: np.ndarray
    status: np.ndarray
    data: np.ndarray


class _Counts(NamedTuple):
    """How often parts of events come: delta times by length, shape (5,), and as in `_Costs`."""

    lengths: np.ndarray
    delta: np.ndarray
    high: np.ndarray
    status: np.ndarray
    data: np.ndarray

    def costs(self) -> _Costs:
        """Minus the logarithms of their shares."""
        lengths, delta, high, status, data = (-np.log(a / a.sum(-1, keepdims=True)) for a in self)
        longer = lengths + LEGAL * np.arange(5)
        return _Costs(lengths[1] + delta, lengths[2] + high + LEGAL, longer, status, data)


def _usual(channels: set[int]) -> _Counts:
    """What music on these channels is like, by which a track is explained at first."""
    lengths = np.array([1e-9, 60, 38, 1.9, 0.1])
    delta = np.full(128, 0.5)
    delta[0] = 20  # chords, and releases where a note follows
    high = 1.0 / np.maximum(np.arange(128), 1)
    high[0] = 0.01  # a byte too many
    status = np.full(257, 1e-3)
    # The upper byte of a delta time looks like a status of another channel, so those are rare.
    of_channel = np.full(16, 0.002)
    of_channel[list(channels)] = 1 / len(channels)
    for kind, share in zip(range(0x8, 0xF), (10, 20, 0.2, 10, 1, 0.2, 1), strict=True):
        status[kind << 4 : (kind + 1) << 4] = share * of_channel
    status[[META, SYSEX, ESCAPE]] = 1, 0.1, 0.05
    status[:0x80] = 1e-12  # they are none
    status[256] = 56
    data = np.ones((5, 2, 128))
    data[NOTES, 0, :21] = data[NOTES, 0, 109:] = 0.2  # not on a piano
    data[NOTES, 1, [0, 64]] = 60, 10  # releases
    data[CONTROLS, 0, 64] = 40  # the pedal
    data[CONTROLS, 1, [0, 127]] = 40, 20
    return _Counts(lengths, delta, high, status, data)


class _Track:
    """The bytes of a track, and where an event, whole or damaged, would lead from each node.

    Parameters
    ----------
    body : bytes
    to_end : bool
        Whether an end of track ends it, wherever it stands.

    Attributes
    ----------
    n : int
    status_at : ndarray of int32, shape (n,)
        Where the status byte, or in a running status the first data byte, would be.
    leads : ndarray of int32, shape (3, 5 * n)
        Of `EVENT`, `DAMAGED` and `DAMAGED_RUNNING`: the next node, or `NOWHERE`.
    """

    def __init__(self, body: bytes, *, to_end: bool) -> None:
        self.n = n = len(body)
        self.padded = padded = np.frombuffer(body + bytes(16), np.uint8)
        high = padded[: n + 2] >> 7
        self.delta_length = DELTA_LENGTH[high[:n] | high[1 : n + 1] << 1 | high[2:] << 2]
        self.status_at = (np.arange(n) + self.delta_length).astype(np.int32)
        status = padded[self.status_at]
        self.status = np.where(status < 0x80, 256, status.astype(np.int32))
        self.own_class = CLASS_OF[status]
        leads = np.full((3, n, 5), NOWHERE, np.int32)
        for c in range(5):
            classes, n_data, first = self._channel_event(c)
            after = first + n_data
            to = np.where((n_data > 0) & (after <= n), 5 * after + classes, NOWHERE)
            data2 = np.where(n_data == 2, padded[first + 1], 0)
            is_legal = (padded[first] | data2) < 0x80
            leads[EVENT, :, c] = np.where(is_legal, to, NOWHERE)
            # One that is legal isn't damaged, unless its status is itself a data byte gone wrong.
            leads[DAMAGED, :, c] = np.where((self.own_class > 0) & ~is_legal, to, NOWHERE)
            if N_DATA_OF[c]:
                after = self.status_at + N_DATA_OF[c]
                is_damaged = (after <= n) & ((self.status < 256) | ~is_legal)
                leads[DAMAGED_RUNNING, :, c] = np.where(is_damaged, 5 * after + c, NOWHERE)
        self.own_lengths = self._own_lengths()
        for i, after, stops in self.own_lengths:
            leads[EVENT, i] = 5 * (n if stops and to_end else after) + np.arange(5)
        self.leads = leads.reshape(3, -1)

    def _channel_event(self, running: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Class of the channel event at each byte, how many data bytes it has, and the first.

        No data bytes where there is none, or no running status.
        """
        classes = np.where(self.status == 256, running, self.own_class)
        return classes, N_DATA_OF[classes], self.status_at + (self.own_class > 0)

    def _own_lengths(self) -> list[tuple[int, int, bool]]:
        """Events that tell their own length: byte, where it ends, whether it is an end of track."""
        status, padded = self.status, self.padded
        at = np.flatnonzero((status == META) | (status == SYSEX) | (status == ESCAPE))
        is_meta = status[at] == META
        kind = padded[np.minimum(self.status_at[at] + 1, len(padded) - 1)]
        length, body = variable_length(padded, self.status_at[at] + 1 + is_meta)
        after = body + length
        usual = np.full(256, -1)
        usual[list(META_LENGTHS)] = list(META_LENGTHS.values())
        is_usual = (usual[kind] < 0) | (usual[kind] == length)
        fits = (after <= self.n) & (~is_meta | (kind < 0x80) & is_usual)
        stops = is_meta & (kind == END_OF_TRACK[1])
        columns = (a[fits].tolist() for a in (at, after, stops))
        return list(zip(*columns, strict=True))

    def _gains(self, costs: _Costs, of_break: float) -> np.ndarray:
        """Minus the nats of what `leads` stands for: float64, shape (3, 5 * n)."""
        n, padded = self.n, self.padded
        byte = padded[:n] & 0x7F
        delta = np.where(self.delta_length == 1, costs.delta[byte], costs.longer[self.delta_length])
        delta = np.where(self.delta_length == 2, costs.high[byte], delta)
        status = costs.status[self.status]
        gains = np.empty((3, n, 5))
        for c in range(5):
            classes, n_data, first = self._channel_event(c)
            data1, data2 = padded[first] & 0x7F, padded[first + 1] & 0x7F
            data = costs.data[classes, 0, data1] + (n_data == 2) * costs.data[classes, 1, data2]
            gains[EVENT, :, c] = -(delta + status + data)
            gains[DAMAGED, :, c] = -(delta + of_break + NOISE * (1 + n_data))
            gains[DAMAGED_RUNNING, :, c] = -(delta + of_break + NOISE * N_DATA_OF[c])
        for i, after, _ in self.own_lengths:
            gains[EVENT, i] = -(delta[i] + status[i] + LEGAL * (after - int(self.status_at[i]) - 1))
        return gains.reshape(3, -1)

    def first_channels(self) -> set[int]:
        """Channels of the first statuses, as far as events follow one another; at least one."""
        node, channels = 0, set()
        for _ in range(FIRST_EVENTS):
            if not 0 <= node < 5 * self.n:
                break
            i = node // 5
            if self.own_class[i]:
                channels.add(int(self.status[i]) & 15)
            node = int(self.leads[EVENT, node])
        return channels or {0}

    def explain(self, costs: _Costs, of_break: float) -> list[tuple[int, int, int]]:
        """The cheapest explanation: what begins (see `EVENT`), at which node, and the next node.

        From the last byte to the first: what the rest of the track costs from each node.
        """
        n = self.n
        gains = self._gains(costs, of_break)
        value: Any = np.zeros(5 * n + 5).data
        choice, is_noise_after = bytearray(5 * n), bytearray(5 * n)
        noise = [float("-inf")] * 5  # value of a byte of noise that others came before
        for first in range(5 * (n - 1) // BLOCK * BLOCK, -1, -BLOCK):
            part = slice(first, first + BLOCK)
            kinds = zip(self.leads[:, part].tolist(), gains[:, part].tolist(), strict=True)
            (lead, gain), (lead_1, gain_1), (lead_2, gain_2) = kinds  # event, damaged, running
            for at in range(len(lead) - 1, -1, -1):
                node = first + at
                c = node % 5
                after = value[node + 5]
                if noise[c] > after:
                    is_noise_after[node] = 1
                    after = noise[c]
                noise[c] = after - NOISE
                best, what = noise[c] - of_break, SKIP
                if lead[at] >= 0 and (found := gain[at] + value[lead[at]]) > best:
                    best, what = found, EVENT
                if lead_1[at] >= 0 and (found := gain_1[at] + value[lead_1[at]]) > best:
                    best, what = found, DAMAGED
                if lead_2[at] >= 0 and (found := gain_2[at] + value[lead_2[at]]) > best:
                    best, what = found, DAMAGED_RUNNING
                value[node], choice[node] = best, what
        path, node = [], 0
        while node < 5 * n:
            what, to = choice[node], node + 5
            if what == SKIP:
                while is_noise_after[to - 5]:
                    to += 5
            else:
                to = int(self.leads[what, node])
            path.append((what, node, to))
            node = to
        return path

    def counts(self, path: list[tuple[int, int, int]]) -> _Counts:
        """How often delta times, statuses and data come in the events of an explanation."""
        at = np.array([node for what, node, _ in path if what == EVENT], np.int64)
        byte, running = at // 5, at % 5
        length = self.delta_length[byte]
        data = np.zeros(5 * 2 * 128)
        for c in range(5):
            classes, n_data, first = self._channel_event(c)
            here = byte[running == c]
            for k in range(2):
                here = here[n_data[here] > k]
                row = 2 * classes[here] + k
                data += np.bincount(128 * row + self.padded[first[here] + k], minlength=len(data))
        return _Counts(
            np.bincount(length, minlength=5),
            np.bincount(self.padded[byte[length == 1]], minlength=128),
            np.bincount(self.padded[byte[length == 2]] & 0x7F, minlength=128),
            np.bincount(self.status[byte], minlength=257),
            data.reshape(5, 2, 128),
        )


class _Writer:
    """A track written anew, event by event.

    Attributes
    ----------
    out : bytearray
        What is kept.
    lost : list of [int, int]
        The first byte of each loss, and the first after it.
    running : int
        The running status.
    has_ended : bool
        Whether the last event is an end of track.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.out = bytearray()
        self.lost: list[list[int]] = []
        self.running, self.is_told, self.has_ended = 0, True, False
        self._sounding: dict[tuple[int, int], int] = {}

    def keep(self, begin: int, at: int, end: int) -> None:
        """Keep an event whose status, or first data byte, stands at byte `at`."""
        body, status = self.body, self.body[at]
        self.has_ended = body[at : at + 3] == END_OF_TRACK
        if status >= 0xF0:
            # What comes after the end of a track is none of it.
            self.out += body[begin : at + 3 if self.has_ended else end]
            return
        first = at + (status >= 0x80)
        if status >= 0x80:
            self.running = status
        elif not self.is_told:  # the event with the running status may have been cut out
            self.out += body[begin:at] + bytes([self.running])
            begin = at
        self.out += body[begin:end]
        self.is_told = True
        self._follow(body[first], body[first + 1] if end > first + 1 else 0)

    def lose(self, begin: int, end: int) -> None:
        """Leave bytes out."""
        if self.lost and self.lost[-1][1] == begin:
            self.lost[-1][1] = end
        else:
            self.lost.append([begin, end])
        self.is_told = False

    def close(self) -> None:
        """Release what sounds."""
        for (channel, pitch), n in self._sounding.items():
            self.out += n * bytes([0, NOTE_OFF << 4 | channel, pitch, 0])

    def _follow(self, pitch: int, velocity: int) -> None:
        """Count how many notes of each channel and pitch sound."""
        kind, key = self.running >> 4, (self.running & 15, pitch)
        if kind == NOTE_ON and velocity:
            self._sounding[key] = self._sounding.get(key, 0) + 1
        elif kind in (NOTE_ON, NOTE_OFF) and self._sounding.get(key, 0):
            self._sounding[key] -= 1


def _repair_track(body: bytes, *, to_end: bool) -> tuple[bytes, list[str]]:
    """The bytes of a track that can be read, and which are lost.

    Parameters
    ----------
    body : bytes
    to_end : bool
        Whether an end of track ends it, wherever it stands.
    """
    track = _Track(body, to_end=to_end)
    usual = _usual(track.first_channels())
    found = track.counts(track.explain(usual.costs(), FIRST_BREAK))
    # Of what is usual so much stays that nothing is impossible.
    counts = _Counts(*(a + 0.02 * b for a, b in zip(found, usual, strict=True)))
    writer = _Writer(body)
    for what, node, to in track.explain(counts.costs(), BREAK):
        begin, end = node // 5, min(to // 5, track.n)
        at = int(track.status_at[begin])
        if what == EVENT:
            writer.keep(begin, at, end)
            continue
        if what != SKIP:  # the event is lost, but not its time
            writer.out += body[begin:at] + NOTHING
        if what == DAMAGED:
            writer.running = body[at]
        writer.lose(begin, end)
    if not writer.has_ended:
        writer.close()
    lost = [f"bytes {begin:,} to {end - 1:,}" for begin, end in writer.lost]
    return bytes(writer.out) or b"\0" + END_OF_TRACK, lost
