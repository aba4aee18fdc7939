"""Slow, obvious versions of what the library does fast: the oracles of the tests.

Nothing here imports the library. Notes are tuples (start, end, pitch, velocity, tied) in frames,
chords are pairs of frozensets (pitches that sound, pitches struck again).
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction

DEFAULT_MICROSECONDS = 500_000


# ------------------------------------------------------------------------------------ MIDI files


def variable_length(value):
    """A number as MIDI writes it: seven bits a byte, all but the last with the high bit."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def track_bytes(events):
    """A track chunk from (tick, message bytes) pairs; events of one tick keep their order."""
    body, before = b"", 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        body += variable_length(tick - before) + message
        before = tick
    body += b"\x00\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body)) + body


def tempo_event(tick, microseconds):
    return tick, b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def note_events(notes, channel=0):
    """Events of notes (start tick, end tick, pitch, velocity); releases come before onsets."""
    releases = [(end, bytes([0x80 | channel, pitch, 0])) for _, end, pitch, _ in notes]
    onsets = [(start, bytes([0x90 | channel, pitch, v])) for start, _, pitch, v in notes]
    return releases + onsets


def midi_bytes(tracks, ticks_per_quarter=480, kind=1):
    """A MIDI file from a list of event lists."""
    header = b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), ticks_per_quarter)
    return header + b"".join(track_bytes(events) for events in tracks)


# ------------------------------------------------------------------------------------------ time


def tick_to_seconds(tick, changes, ticks_per_quarter):
    """Exact seconds at a tick, added up one tempo after the other."""
    seconds, at, tempo = Fraction(0), 0, DEFAULT_MICROSECONDS
    for change, microseconds in sorted(changes, key=lambda change: change[0]):
        if change > tick:
            break
        seconds += Fraction((change - at) * tempo, 10**6 * ticks_per_quarter)
        at, tempo = change, microseconds
    return seconds + Fraction((tick - at) * tempo, 10**6 * ticks_per_quarter)


def nearest(value):
    """The nearest whole number, halves up."""
    return math.floor(Fraction(value) + Fraction(1, 2))


# ----------------------------------------------------------------------------------------- rolls


def canonical(notes):
    """One note to a (start, pitch), cut where the next of its pitch starts, sorted.

    Goes through every frame of every pitch and keeps the note that sounds there.
    """
    struck = {}
    for start, end, pitch, velocity, tied in notes:
        end = max(end, start + 1)
        other = struck.get((start, pitch))
        if other is None:
            struck[start, pitch] = [end, velocity, tied and start == 0]
        else:
            other[0] = max(other[0], end)
            other[1] = max(other[1], velocity)
            other[2] = other[2] and tied
    result = []
    for (start, pitch), (end, velocity, tied) in struck.items():
        last = start + 1
        while last < end and (last, pitch) not in struck:
            last += 1
        result.append((start, last, pitch, velocity, tied))
    return sorted(result, key=lambda note: (note[0], note[2]))


def planes(notes, n_frames):
    """Velocity and onset of each frame and pitch, as nested lists."""
    velocity = [[0] * 128 for _ in range(n_frames)]
    onset = [[False] * 128 for _ in range(n_frames)]
    for start, end, pitch, v, tied in notes:
        for frame in range(start, end):
            velocity[frame][pitch] = v
        onset[start][pitch] = not tied
    return velocity, onset


def cut(notes, a, b):
    """The notes of frames a to b; those that began before a are tied."""
    return [
        (max(start, a) - a, min(end, b) - a, pitch, velocity, start < a or (tied and a == 0))
        for start, end, pitch, velocity, tied in notes
        if start < b and end > a and a < b
    ]


# ---------------------------------------------------------------------------------------- chords


def chords(notes, n_frames):
    """The chord of each frame: what sounds, and what of it is struck while it sounded before."""
    result, before = [], set()
    for frame in range(n_frames):
        sounding = {p for start, end, p, _, _ in notes if start <= frame < end}
        begun = {p for start, _, p, _, tied in notes if start == frame and not tied}
        result.append((frozenset(sounding), frozenset(begun & before)))
        before = sounding
    return result


def notes_of_chords(sequence, before=frozenset()):
    """Notes of velocity 64 from chords, frame by frame: a note is begun, goes on, or ends."""
    open_notes = dict.fromkeys(before, (0, True))
    result = []

    def close(pitch, frame):
        start, tied = open_notes.pop(pitch)
        if frame > start:
            result.append((start, frame, pitch, 64, tied))

    for frame, (sounding, struck) in enumerate(sequence):
        for pitch in [p for p in open_notes if p not in sounding or p in struck]:
            close(pitch, frame)
        for pitch in sounding:
            if pitch not in open_notes:
                open_notes[pitch] = (frame, False)
    for pitch in list(open_notes):
        close(pitch, len(sequence))
    return sorted(result, key=lambda note: (note[0], note[2]))


def bits(chord):
    """The four words of a chord: 64 pitches each that sound, then that are struck again."""
    sounding, struck = chord
    return [
        sum(1 << p for p in sounding if p < 64),
        sum(1 << (p - 64) for p in sounding if p >= 64),
        sum(1 << p for p in struck if p < 64),
        sum(1 << (p - 64) for p in struck if p >= 64),
    ]


def chord_of_bits(words):
    """The reverse of `bits`."""
    low, high, low_struck, high_struck = (int(w) for w in words)
    sounding, struck = low | high << 64, low_struck | high_struck << 64
    return tuple(frozenset(p for p in range(128) if x >> p & 1) for x in (sounding, struck))


def count_chords(pieces):
    """How many frames each chord has over all pieces."""
    counts = {}
    for piece in pieces:
        for chord in piece:
            counts[chord] = counts.get(chord, 0) + 1
    return counts


# --------------------------------------------------------------------------------------- windows


def whole_windows(pieces, window_size, stride, target):
    """All windows that have a target after every frame, piece after piece."""
    result = []
    for piece in pieces:
        for a in range(0, len(piece), stride):
            if a + window_size < len(piece):
                window = [piece[t] for t in range(a, a + window_size)]
                after = [piece[t + 1] for t in range(a, a + window_size)]
                result.append((window, after if target == "sequence" else after[-1]))
    return result


def padded_sequences(pieces, window_size, start, pad):
    """Windows side by side from the first frame on: (inputs, targets, mask) rows."""
    rows = []
    for piece in pieces:
        for a in range(0, len(piece), window_size):
            inputs, targets, mask = [], [], []
            for t in range(a, a + window_size):
                inside = t < len(piece)
                inputs.append((piece[t - 1] if t else start) if inside else pad)
                targets.append(piece[t] if inside else 0)
                mask.append(inside)
            rows.append((inputs, targets, mask))
    return rows


def padded_next(pieces, window_size, stride, start, pad):
    """Every stride-th frame as a target, with the frames before it: (inputs, target) rows."""
    rows = []
    for piece in pieces:
        for t in range(0, len(piece), stride):
            inputs = []
            for i in range(t - window_size, t):
                inputs.append(piece[i] if i >= 0 else start if i == -1 else pad)
            rows.append((inputs, piece[t]))
    return rows


# ------------------------------------------------------------------------- events of a MIDI file


def running_track_bytes(events):
    """A track chunk from (tick, message bytes) pairs without every status byte that may go.

    System and meta events between do not end the running status.
    """
    body, before, running = b"", 0, None
    for tick, message in sorted(events, key=lambda event: event[0]):
        body += variable_length(tick - before)
        body += message[1:] if message[0] == running else message
        before = tick
        if message[0] < 0xF0:
            running = message[0]
    body += b"\x00\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body)) + body


def running_midi_bytes(tracks, ticks_per_quarter=480, kind=1):
    """As `midi_bytes`, in running status."""
    header = b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), ticks_per_quarter)
    return header + b"".join(running_track_bytes(events) for events in tracks)


def paired_notes(tracks, stops=()):
    """Notes (start, end, pitch, velocity, channel) of event lists.

    Onsets and releases of a track and key match as `matched` says. An onset that is left ends where
    its key is next struck on its channel, or at the next
    stop (channel, tick), and is no note if neither comes, or if another note began with it.
    """
    notes, alone, strikes = [], [], []
    for events in tracks:
        keys = {}
        for tick, (status, pitch, velocity) in sorted(events, key=lambda event: event[0]):
            is_on = status >> 4 == 9 and velocity > 0
            if status >> 4 in (8, 9):
                keys.setdefault((status & 15, pitch), []).append((tick, is_on, velocity))
            if is_on:
                strikes.append((status & 15, pitch, tick))
        for (channel, pitch), moves in keys.items():
            parts = {}
            for tick, is_on, velocity in moves:
                before = [
                    t for c, t in stops if c == channel and (t < tick or (is_on and t == tick))
                ]
                parts.setdefault(len(set(before)), []).append((tick, is_on, velocity))
            for part in parts.values():
                for i, end in matched(part):
                    if end is None:
                        alone.append((part[i][0], pitch, part[i][2], channel))
                    else:
                        notes.append((part[i][0], end, pitch, part[i][2], channel))
    for tick, pitch, velocity, channel in alone:
        if (channel, pitch, tick) in [(n[4], n[2], n[0]) for n in notes]:
            continue
        ends = [t for c, p, t in strikes if (c, p) == (channel, pitch) and t > tick]
        ends += [t for c, t in stops if c == channel and t > tick]
        if ends:
            notes.append((tick, min(ends), pitch, velocity, channel))
    return notes


def matched(moves):
    """Pairs (index of an onset, tick of its release or None) of moves (tick, is_on, velocity).

    They match as brackets, and of those that match the first to begin is the first to end. But a
    release, and an onset after it at its tick, may be a note without length: so many are that the
    fewest moves are left over, and of the ways to do so the one with the fewest such notes.
    """
    places = [
        (i, j)
        for i, (tick, is_on, _) in enumerate(moves)
        for j in range(i + 1, len(moves))
        if not is_on and moves[j][1] and moves[j][0] == tick
    ]
    ways = [[]]
    for place in places:
        ways += [[*w, place] for w in ways if not set(place) & {k for pair in w for k in pair}]
    best = None
    for way in ways:
        open_, onsets, releases, n_void = [], [], [], 0
        taken = {k for pair in way for k in pair}
        for i, (tick, is_on, _) in enumerate(moves):
            if i in taken:
                continue
            if is_on:
                open_.append(i)
            elif open_:
                onsets.append(open_.pop())
                releases.append(tick)
            else:
                n_void += 1
        pairs = [*zip(sorted(onsets), releases, strict=True), *((i, None) for i in open_)]
        pairs += [(j, moves[j][0]) for _, j in way]
        cost = len(open_) + n_void, len(way)
        if best is None or cost < best[0]:
            best = cost, sorted(pairs)
    return best[1]


def held_by_pedal(notes, moves, last):
    """Ends of the notes (start, end, pitch) of a channel whose pedal moves, (tick, value) in order.

    The piece ends at `last`. A strike of the same pitch ends all that is held of it; of notes
    struck at once only the last is held.
    """
    ends = []
    for i, (start, end, pitch) in enumerate(notes):
        is_down = False
        for tick, value in moves:
            if tick <= end:
                is_down = value >= 64
        until = end
        if is_down:
            lifts = [tick for tick, value in moves if tick > end and value < 64]
            strikes = [s for j, (s, _, p) in enumerate(notes) if p == pitch and (s, j) > (start, i)]
            until = min([*(lifts or [last]), *strikes])
        ends.append(max(end, until))
    return ends
