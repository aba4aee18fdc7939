"""Broken files, read as far as they are certain."""

from __future__ import annotations

import contextlib
import re
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl
import reference
from pianolstm.repair import MAX_BYTES


def events_of(notes):
    """Strikes and releases in turn, all of one status."""
    events = sorted(reference.note_events(notes), key=lambda event: event[0])
    return [(tick, b"\x90" + message[1:]) for tick, message in events]


# 60 notes one after the other, with delta times of one and two bytes, 1024 ticks a second.
NOTES = [(260 * i, 260 * i + 100, 40 + i % 30, 64 + i % 20) for i in range(60)]
EVENTS = events_of(NOTES)
SECOND = [reference.tempo_event(0, 1_000_000)]


def whole(*tracks, running=False):
    make = reference.running_midi_bytes if running else reference.midi_bytes
    return make([SECOND, *(tracks or (EVENTS,))], 1024)


def played(data, **settings):
    notes = pl.read_notes(data, **settings)
    columns = (1024 * notes.start, 1024 * notes.end, notes.pitch, notes.velocity)
    return sorted(zip(*(c.tolist() for c in columns), strict=True))


def repaired(data, lost):
    """Notes of a broken file, which the reader refuses with a hint."""
    with pytest.raises(pl.MidiError, match='on_error="repair" reads what is left of it'):
        pl.read_notes(data)
    with pytest.warns(pl.DataLossWarning, match=lost):
        return played(data, on_error="repair")


@pytest.mark.parametrize("running", [False, True])
def test_a_whole_file_is_read_as_it_is(running):
    data = whole(running=running)
    assert played(data, on_error="repair") == played(data) == NOTES


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 30, 118, 119])
def test_an_event_with_a_wrong_data_byte_is_lost_but_not_its_time(running, n):
    """Event 2 i strikes note i, event 2 i + 1 releases it."""
    data = bytearray(whole(running=running))
    at = 0
    for _, message in EVENTS[: n + 1]:
        at = data.index(message[1:], at + 1)
    data[at + 1] |= 0x80
    expected = [*NOTES]
    start, _, pitch, velocity = expected.pop(n // 2)
    if n % 2:  # struck, but not released: it sounds until its key is struck again
        again = [note[0] for note in NOTES if note[2] == pitch and note[0] > start]
        expected += [(start, again[0], pitch, velocity)] if again else []
    lost = r"track 1: bytes [\d,]+ to [\d,]+\."
    assert repaired(bytes(data), lost) == sorted(expected)


def test_bytes_too_many_cost_what_they_stand_in():
    """Running status, delta times of two bytes, which look like status bytes of channel 2."""
    notes = [(400 * i, 400 * i + 200, 40 + i % 30, 64) for i in range(60)]
    data = whole(events_of(notes), running=True)
    at = data.index(bytes([60, 64]))  # the onset of note 20
    body = data[:at] + b"\xf8" + data[at:]
    length = data.index(b"MTrk", 30) + 4
    size = int.from_bytes(data[length : length + 4], "big") + 1
    body = body[:length] + size.to_bytes(4, "big") + body[length + 4 :]
    found = repaired(body, "track 1: bytes")
    assert set(notes[:20]) <= set(found)
    # Notes after it keep their lengths and distances.
    first = next(i for i, note in enumerate(found) if note[2] == notes[22][2])
    shift = found[first][0] - notes[22][0]
    later = [(a + shift, b + shift, p, v) for a, b, p, v in notes[22:]]
    assert found[first:] == later


def test_a_status_that_is_missing_at_the_beginning():
    broken = [(0, b"\x3c\x40"), *EVENTS]
    assert repaired(whole(broken), "track 1: bytes 0 to") == NOTES


@pytest.mark.parametrize("cut", [3, 20, 55])
def test_a_cut_file_gives_the_notes_before_the_cut(cut):
    chord = reference.note_events([(0, 260 * len(NOTES), 30, 99)])
    data = whole(sorted([*chord, *EVENTS], key=lambda event: event[0]))
    at = data.index(bytes([0x90, NOTES[cut][2], NOTES[cut][3]]))
    start = NOTES[cut][0]
    found = repaired(data[: at + 2], "track 1: the length says .* bytes; there are")
    # What sounds is released where the file ends: when the note that is cut would begin.
    assert found == sorted([(0, start, 30, 99), *NOTES[:cut]])


@pytest.mark.parametrize("wrong", [-5, -3, 2, 9, 10**6])
@pytest.mark.parametrize("track", [0, 1, 2])
def test_tracks_whose_length_is_wrong(track, wrong):
    other = reference.note_events([(5, 50, 90, 20)], channel=1)
    data = bytearray(whole(EVENTS, other))
    at = [i for i in range(len(data)) if data[i : i + 4] == b"MTrk"][track] + 4
    length = int.from_bytes(data[at : at + 4], "big")
    data[at : at + 4] = max(0, length + wrong).to_bytes(4, "big")
    try:
        assert played(bytes(data)) == sorted([*NOTES, (5, 50, 90, 20)])
    except pl.MidiError:
        found = repaired(bytes(data), "the length says")
        assert found == sorted([*NOTES, (5, 50, 90, 20)])


def test_what_follows_the_end_of_a_track_of_wrong_length_is_none_of_it():
    data = bytearray(whole())
    at = data.rindex(b"MTrk") + 4
    data[at : at + 4] = (10**6).to_bytes(4, "big")
    junk = b"\x00\x90\x3c\x40\x60\x3c\x00 and no more music"
    assert repaired(bytes(data) + junk, "track 1: the length says 1,000,000 bytes") == NOTES


@pytest.mark.parametrize(("says", "lost"), [(0, "0 tracks; there are 2"), (7, "7 tracks; there a")])
def test_a_wrong_number_of_tracks(says, lost):
    data = whole()
    assert repaired(data[:10] + says.to_bytes(2, "big") + data[12:], lost) == NOTES


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"MThd\0\0\0\6\0\1", "cut short in its header; nothing can be repaired"),
        (b"MThd\0\0\0\6\0\1\0\1\0\x60junk junk junk", "no track; nothing can be repaired"),
        (b"<html>", "expected a MIDI file"),
        (whole()[:9] + b"\2" + whole()[10:], "format 2"),
        (whole()[:12] + b"\0\0" + whole()[14:], "division 0"),
    ],
)
def test_what_is_beyond_repair(data, message):
    with pytest.raises(pl.MidiError, match=message):
        pl.read_notes(data, on_error="repair")


def test_many_losses_are_counted():
    data = bytearray(whole())
    for i in range(0, 30, 3):
        at = data.index(bytes([0x90, NOTES[i][2], NOTES[i][3]]))
        data[at + 1] |= 0x80
    found = repaired(bytes(data), "track 1: 5 further places")
    assert found == [note for i, note in enumerate(NOTES) if i % 3 or i >= 30]


def test_the_encoder_repairs_and_skips():
    broken = bytearray(whole())
    broken[broken.index(bytes([0x90, 40, 64])) + 1] |= 0x80
    encoder = pl.PianoRollEncoder(fs=20, on_error="repair")
    with pytest.warns(
        pl.DataLossWarning, match=r"1 of 3 files could .* 1 of 3 files were read in part"
    ):
        rolls = encoder.transform([whole(), bytes(broken), b"<html>"])
    assert [len(roll.notes) for roll in rolls] == [60, 59]
    assert [i for i, _ in encoder.skipped_] == [2]
    ((i, lost),) = encoder.repaired_
    assert (i, lost) == (1, "<bytes>: track 1: bytes 0 to 3")
    with pytest.raises(pl.MidiError, match="None of the 1 files could be read"):
        encoder.transform([b"<html>"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.transform([whole()])
    assert encoder.skipped_ == encoder.repaired_ == []
    for wrong in ("mend", None, True):
        with pytest.raises(pl.InvalidInputError, match="on_error must be"):
            pl.PianoRollEncoder(on_error=wrong).transform([whole()])
        with pytest.raises(pl.InvalidInputError, match="on_error must be"):
            pl.read_notes(whole(), on_error=wrong)


@given(
    st.lists(
        st.tuples(st.integers(0, 1500), st.integers(0, 255), st.sampled_from("odx")),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_whatever_is_broken_gives_notes_or_a_midi_error(breaks, running):
    data = bytearray(whole(running=running))
    for at, byte, kind in breaks:
        at %= len(data)
        if kind == "o":
            data[at] = byte
        elif kind == "d":
            del data[at : at + 1 + byte % 9]
        else:
            data[at:at] = bytes([byte]) * (1 + byte % 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pl.DataLossWarning)
        try:
            notes = pl.read_notes(bytes(data), on_error="repair")
        except pl.MidiError:
            return
    assert (notes.end >= notes.start).all()


def test_a_track_of_noise_takes_no_time():
    rng = np.random.default_rng(0)
    body = rng.bytes(200_000)
    data = b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk" + len(body).to_bytes(4, "big") + body
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pl.DataLossWarning)
        with contextlib.suppress(pl.MidiError):
            pl.read_notes(data, on_error="repair")
    assert time.process_time() - began < 2


UNIT = bytes.fromhex("003c40 603c00")  # a note in running status, its delta times of one byte
IN_STEP = bytes.fromhex("00903c40603c00") + 400 * UNIT + b"\x00\xff\x2f\x00"


def one_track(body):
    return b"MThd\0\0\0\6\0\0\0\1\x01\xe0MTrk" + len(body).to_bytes(4, "big") + body


@given(st.integers(20, 380), st.integers(0, 5), st.sampled_from([0x80, 0xC1, 0xF8]))
def test_events_out_of_step_are_not_taken_for_music(unit, byte, wrong):
    """Legal to the end of the track, if read from a wrong byte on, they make other music."""
    at = 7 + 6 * unit + byte
    body = bytearray(IN_STEP)
    body[at] = body[at] | wrong
    data = one_track(bytes(body))
    try:
        pl.read_notes(data)
    except pl.MidiError:
        pass
    else:
        return  # another file, but not a broken one
    with pytest.warns(pl.DataLossWarning) as caught:
        notes = pl.read_notes(data, on_error="repair")
    # A delta time that has gone wrong may take its event along, no more.
    assert 399 <= len(notes) <= 401
    assert set(notes.pitch.tolist()) == {60}
    assert set(notes.velocity.tolist()) == {64}
    (told,) = (str(warning.message) for warning in caught)
    first, last = map(int, re.search(r"bytes ([\d,]+) to ([\d,]+)", told.replace(",", "")).groups())
    assert at - 8 <= first <= last <= at + 8


def test_a_broken_track_that_is_too_long_is_refused():
    body = UNIT * (1 + MAX_BYTES // len(UNIT))
    with pytest.raises(
        pl.MidiError, match=r"track 0 is broken and has 2,097,15\d bytes; tracks of"
    ):
        pl.read_notes(one_track(body), on_error="repair")
    # One that is whole may be longer.
    assert len(pl.read_notes(one_track(IN_STEP[:7] + body), on_error="repair")) > 300_000
