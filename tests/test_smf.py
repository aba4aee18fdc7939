"""Bytes of MIDI files to events: by hand, against mido, and for any size of block."""

from __future__ import annotations

import gzip
import io
import struct
from fractions import Fraction

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl
import reference
from pianolstm import smf

END = "00 ff 2f 00"


def chunk(body, kind=b"MTrk", length=None):
    """A chunk from its bytes in hexadecimal."""
    body = bytes.fromhex(body)
    return kind + struct.pack(">I", len(body) if length is None else length) + body


def file(*chunks, kind=1, n_tracks=None, division=96, header=b""):
    """A MIDI file from chunks; `header` goes on after the six bytes that a header has."""
    n_tracks = len(chunks) if n_tracks is None else n_tracks
    head = struct.pack(">IHHH", 6 + len(header), kind, n_tracks, division)
    return b"MThd" + head + header + b"".join(chunks)


def found(data):
    """The channel events of a file: tick, track, kind, channel, data bytes."""
    events = smf.read_events("piece", data)
    columns = ("tick", "track", "kind", "channel", "data1", "data2")
    return list(zip(*(getattr(events, c).tolist() for c in columns), strict=True))


def tempi(*bodies, **kwargs):
    """Tempi (tick, microseconds) of a file of these tracks."""
    events = smf.read_events("piece", file(*(chunk(b + END) for b in bodies), **kwargs))
    return list(zip(events.tempo_tick.tolist(), events.tempo.tolist(), strict=True))


NOTE = f"05 91 3c 40  60 81 3c 07  {END}"
NOTE_FOUND = [(5, 0, 9, 1, 60, 64), (101, 0, 8, 1, 60, 7)]


# ----------------------------------------------------------------------------------------- events


def test_events_by_hand():
    first = f"0a 93 3c 40  00 a3 3c 05  01 b0 40 7f  02 e2 01 6f  81 00 83 3c 11  {END}"
    second = f"00 c5 07  03 d5 08  {END}"
    assert found(file(chunk(first), chunk(second))) == [
        (10, 0, 0x9, 3, 60, 64),
        (10, 0, 0xA, 3, 60, 5),
        (11, 0, 0xB, 0, 64, 127),
        (13, 0, 0xE, 2, 1, 111),
        (141, 0, 0x8, 3, 60, 17),
        (0, 1, 0xC, 5, 7, 0),
        (3, 1, 0xD, 5, 8, 0),
    ]


def test_events_have_the_types_that_they_say():
    events = smf.read_events("piece", file(chunk(NOTE), division=97))
    types = {"tick": np.int64, "track": np.int32, "tempo_tick": np.int64, "tempo": np.int64}
    types |= dict.fromkeys(("kind", "channel", "data1", "data2"), np.uint8)
    assert {name: getattr(events, name).dtype for name in types} == types
    assert events.ticks_per_quarter == 97


def test_running_status():
    body = f"00 92 3c 40  10 3c 00  01 40 50  00 c1 05  02 06  03 b1 07 01  04 08 02  {END}"
    assert found(file(chunk(body))) == [
        (0, 0, 9, 2, 60, 64),
        (16, 0, 9, 2, 60, 0),
        (17, 0, 9, 2, 64, 80),
        (17, 0, 12, 1, 5, 0),
        (19, 0, 12, 1, 6, 0),
        (22, 0, 11, 1, 7, 1),
        (26, 0, 11, 1, 8, 2),
    ]


@pytest.mark.parametrize(
    "between",
    [
        "ff 01 03 61 62 63",
        "ff 51 03 07 a1 20",
        "ff 7f 00",
        "f0 03 7e 7f f7",
        "f0 00",
        "f7 02 f1 90",
        "f1 35",
        "f2 3c 40",
        "f3 3c",
        "f4",
        "f5",
        "f6",
        "f8",
        "fa",
        "fc",
        "fe",
    ],
)
def test_running_status_goes_on_across_system_and_meta_events(between):
    body = f"00 90 3c 40  05 {between}  03 3c 00  01 c2 09  02 {between}  81 00 0a  {END}"
    assert found(file(chunk(body))) == [
        (0, 0, 9, 0, 60, 64),
        (8, 0, 9, 0, 60, 0),
        (9, 0, 12, 2, 9, 0),
        (139, 0, 12, 2, 10, 0),
    ]


def test_running_status_does_not_reach_the_next_track():
    data = file(chunk(NOTE), chunk(f"00 3c 40  {END}"))
    with pytest.raises(pl.MidiError, match=r"track 1: expected a status byte at byte 1.*got 0x3c"):
        found(data)


@pytest.mark.parametrize(
    ("delta", "ticks"),
    [
        ("00", 0),
        ("7f", 127),
        ("81 00", 128),
        ("c0 00", 8192),
        ("ff 7f", 16_383),
        ("81 80 00", 16_384),
        ("ff ff 7f", 2_097_151),
        ("81 80 80 00", 2_097_152),
        ("ff ff ff 7f", 268_435_455),
        ("80 05", 5),
        ("80 80 80 05", 5),
        ("80 81 80 ff", 16_511),  # a fourth byte is the last, whatever its top bit
    ],
)
def test_variable_length_quantities(delta, ticks):
    body = f"03 90 3c 40  {delta} 80 3c 00  {END}"
    assert found(file(chunk(body)))[1] == (3 + ticks, 0, 8, 0, 60, 0)


@pytest.mark.parametrize("n", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
@pytest.mark.parametrize("kind", [b"\xff\x01", b"\xf0", b"\xf7"])
def test_what_a_system_event_holds_is_skipped(kind, n):
    held = b"\x90" * n
    events = [(1, kind + reference.variable_length(n) + held), (4, b"\x95\x3c\x40")]
    assert found(reference.midi_bytes([events])) == [(4, 0, 9, 5, 60, 64)]


def test_events_after_the_end_of_track_count():
    body = f"00 90 3c 40  {END}  10 80 3c 00  20 90 40 50"
    assert [e[0] for e in found(file(chunk(body)))] == [0, 16, 48]


def test_a_track_needs_no_end():
    assert found(file(chunk(NOTE.removesuffix(END)))) == NOTE_FOUND


def test_an_empty_track_has_no_events():
    assert found(file(chunk(""), chunk(NOTE))) == [(t, 1, *rest) for t, _, *rest in NOTE_FOUND]
    assert found(file(chunk(""))) == []


def test_names_of_tracks():
    piano = "00 ff 03 06 50 69 61 6e 6f 20  00 ff 03 01 41" + END
    accents = "00 ff 01 01 42  05 ff 03 04 46 fc 72 00" + END
    events = smf.read_events("piece", file(chunk(END), chunk(piano), chunk(accents)))
    assert events.names == ["", "Piano", "Für"]


# ------------------------------------------------------------------------------------------- time


def test_tempi_of_all_tracks():
    found = tempi("10 ff 51 03 07 a1 20", "05 ff 51 03 0f 42 40  81 00 ff 51 03 00 00 01")
    assert found == [(16, 500_000), (5, 1_000_000), (133, 1)]


@pytest.mark.parametrize("wrong", ["00", "01 07", "02 07 a1", "03 00 00 00"])
def test_tempi_too_short_or_zero_are_ignored(wrong):
    assert tempi(f"10 ff 51 {wrong}  01 ff 51 03 03 0d 40") == [(17, 200_000)]


def test_a_tempo_too_long_is_read_as_mido_reads_it():
    body = "10 ff 51 04 07 a1 20 7f"
    judge = mido.MidiFile(file=io.BytesIO(file(chunk(body + END))))
    assert tempi(body) == [(16, judge.tracks[0][0].tempo)] == [(16, 500_000)]


@pytest.mark.parametrize(
    ("frames", "a_second"), [(24, 24), (25, 25), (29, Fraction(30_000, 1001)), (30, 30)]
)
@pytest.mark.parametrize("ticks_a_frame", [1, 4, 40, 80, 255])
def test_smpte_time(frames, ticks_a_frame, a_second):
    notes = [(7, 100 * ticks_a_frame, 60, 64), (0, 3000 * ticks_a_frame + 1, 64, 64)]
    tracks = [[reference.tempo_event(9, 200_000)], reference.note_events(notes)]
    read = pl.read_notes(reference.midi_bytes(tracks, (256 - frames) << 8 | ticks_a_frame))
    a_tick = 1 / (Fraction(a_second) * ticks_a_frame)
    by_pitch = dict(zip(read.pitch.tolist(), zip(read.start, read.end, strict=True), strict=True))
    for start, end, pitch, _ in notes:
        expected = float(start * a_tick), float(end * a_tick)
        np.testing.assert_allclose(by_pitch[pitch], expected, rtol=1e-14)


def test_ticks_later_than_any_music_are_refused():
    # n deltas of 2**28 - 1 at 2**24 - 1 microseconds: below 2**62 for 1024 of them only.
    def late(n):
        return chunk("00 ff 51 03 ff ff ff 00 90 00 00" + n * "ff ff ff 7f 00 00" + END)

    assert found(file(late(1024)))[-1][0] == 1024 * (2**28 - 1)
    with pytest.raises(pl.MidiError, match="piece: an event at tick 275,146,341,375 is later than"):
        found(file(late(1025)))


# ---------------------------------------------------------------------------------------- wrapping


def riff(*chunks):
    body = b"RMID" + b"".join(
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


ODD = file(chunk("00 c1 05" + NOTE))  # one byte more than NOTE, so that the length is odd
WHOLE = file(chunk(NOTE))


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(WHOLE, id="plain"),
        pytest.param(riff((b"data", WHOLE)), id="RIFF"),
        pytest.param(riff((b"LIST", 333 * b"MThd"), (b"data", WHOLE)), id="RIFF, even list first"),
        pytest.param(
            riff((b"DISP", 333 * b"a"), (b"data", WHOLE), (b"LIST", b"ab")), id="RIFF, odd"
        ),
        pytest.param(b"\xef\xbb\xbf" + WHOLE, id="UTF-8 BOM"),
        pytest.param(b"\0\x05piece" + bytes(121) + WHOLE + bytes(100), id="MacBinary"),
        pytest.param(file(chunk(NOTE), header=b"more"), id="long header"),
        pytest.param(file(chunk(NOTE), kind=0), id="format 0"),
        pytest.param(file(chunk(NOTE), kind=3), id="format 3"),
        pytest.param(
            file(chunk("00 90", b"XFIH"), chunk(NOTE), chunk("01 02 03", b"XFKM"), n_tracks=1),
            id="other chunks",
        ),
        pytest.param(WHOLE + b"\0", id="a byte more"),
        pytest.param(WHOLE + chunk(NOTE), id="a track more than the header says"),
        pytest.param(file(chunk(NOTE, length=2**32 - 1)), id="length past the end"),
    ],
)
def test_wrapped_and_odd_files_are_read(wrapped):
    assert found(wrapped) == NOTE_FOUND


def test_a_chunk_of_another_kind_between_tracks_has_no_number():
    data = file(chunk(NOTE), chunk("00 90", b"XFIH"), chunk("09 c0 05"), n_tracks=2)
    assert found(data) == [*NOTE_FOUND, (9, 1, 12, 0, 5, 0)]


def test_a_file_in_an_odd_riff_chunk():
    assert len(ODD) % 2 != len(WHOLE) % 2
    for data in (ODD, WHOLE):
        assert found(riff((b"DISP", 333 * b"a"), (b"data", data), (b"LIST", b""))) == found(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"MThd", r"at least 6 bytes; the file has 4 bytes.*cut short"),
        (file(chunk(NOTE))[:13], "at least 6 bytes; the file has 13 bytes and says 6"),
        (b"MThd" + struct.pack(">IHHH", 5, 0, 1, 96) + chunk(NOTE), "bytes and says 5"),
        (file(n_tracks=0), "the header says that there are no tracks"),
        (file(n_tracks=2), "says 2 tracks, but the file ends after 0"),
        (file(chunk(NOTE), n_tracks=3), "says 3 tracks, but the file ends after 1"),
        (file(chunk(NOTE), chunk("00", b"XFIH"), n_tracks=2), "2 tracks.*ends after 1"),
        (file(chunk(NOTE), chunk(NOTE))[:-1], "track 1 should have 12 bytes.*ends after 11"),
        (file(chunk(NOTE.removesuffix(END), length=1234)), "should have 1,234 bytes.*after 8"),
        (file(chunk(NOTE), division=0), "1 tick per quarter note or more; got a division 0"),
        (file(chunk(NOTE), division=0xE828 - 0x0200), "25, 29 or 30 frames.*got 26 and 40"),
        (file(chunk(NOTE), division=0xE800), "at least 1 tick a frame; got 24 and 0"),
        (file(chunk(NOTE), kind=2), "format 2 holds several.*pianolstm.split_midi"),
        (gzip.compress(WHOLE, mtime=0), "compressed with gzip"),
        (b"\x89PNG" + bytes(600), "starts with b'MThd'.*starts with b'.x89PNG"),
        (bytes(smf.MAX_WRAPPING) + WHOLE, "expected a MIDI file"),
        (riff((b"data", b"\1\2\3\4")), r"starts with b'.x01.x02.x03.x04'"),
        (file(chunk(f"00 3c 40 {END}")), "track 0: .*status byte at byte 1.*none came.*0x3c"),
        (file(chunk(f"00 ff 01 00 00 3c 40 {END}")), "status byte at byte 5.*none came.*0x3c"),
        (file(chunk(f"00 f1 05 00 3c 40 {END}")), "status byte at byte 4.*none came.*0x3c"),
        (file(chunk(f"00 90 80 40 {END}")), "data bytes below 0x80 at byte 2; got 80 40"),
        (file(chunk(f"00 90 3c 85 {END}")), "data bytes below 0x80 at byte 2; got 3c 85"),
        (file(chunk(f"00 90 3c 40 00 3c ff {END}")), "below 0x80 at byte 5; got 3c ff"),
        (file(chunk(f"00 c0 90 {END}")), "below 0x80 at byte 2; got 90 00"),
        (file(chunk("00 90 3c 40 00 80 3c")), "event at byte 4 goes on to byte 8.* ends at 7"),
        (file(chunk("00 90 3c 40 00 3c")), "event at byte 4 goes on to byte 7.* ends at 6"),
        (file(chunk("00 90 3c 40 00 ff 01 7f 41")), "goes on to byte 135.* ends at 9"),
        (file(chunk("00 90 3c 40 00 f0 ff ff ff 7f")), "goes on to byte 268435465.* ends at 10"),
        (file(chunk("00 90 3c 40 00 ff")), "track 0: the event at byte 4 goes on"),
    ],
)
def test_broken_files_are_refused(data, message):
    with pytest.raises(pl.MidiError, match="^piece: .*" + message):
        found(data)


def test_every_cut_of_a_file_is_refused():
    tracks = [[(0, b"\xf0\x02\x01\xf7"), reference.tempo_event(5, 400_000)]]
    tracks.append(reference.note_events([(0, 300, 60, 64), (100, 200, 64, 80)]))
    data = reference.running_midi_bytes(tracks)
    for n in range(len(data)):
        with pytest.raises(pl.MidiError, match=r"^piece: .*(empty|cut short|starts with)"):
            found(data[:n])
    assert len(found(data)) == 4


# --------------------------------------------------------------------------------------- properties

deltas = st.one_of(st.integers(0, 5), st.integers(0, 2**28 - 1))
sevens = st.integers(0, 127)


def channel_messages():
    """Bytes of channel messages, of few statuses, so that running status is frequent."""
    three = st.tuples(st.sampled_from([0x90, 0x80, 0x9F, 0xB3, 0xE0, 0xA2]), sevens, sevens)
    return st.one_of(three, st.tuples(st.sampled_from([0xC0, 0xD5]), sevens)).map(bytes)


def other_messages():
    """Bytes of meta events, system exclusive and other system messages."""
    payload = st.one_of(st.binary(max_size=9), st.integers(120, 300).map(lambda n: b"\x90" * n))
    prefix = st.sampled_from([b"\xff\x01", b"\xff\x7f", b"\xf0", b"\xf7"])
    long = st.builds(
        lambda kind, held: kind + reference.variable_length(len(held)) + held, prefix, payload
    )
    short = [b"\xf1\x22", b"\xf2\x3c\x40", b"\xf3\x01", b"\xf4", b"\xf5", b"\xf6", b"\xf8", b"\xfe"]
    return st.one_of(long, st.sampled_from(short))


@st.composite
def event_lists(draw):
    """Tracks of (tick, message bytes)."""
    tracks = []
    for _ in range(draw(st.integers(1, 3))):
        tick, events = 0, []
        messages = st.one_of(channel_messages(), channel_messages(), other_messages())
        for delta, message in draw(st.lists(st.tuples(deltas, messages), max_size=20)):
            tick += delta
            events.append((tick, message))
        tracks.append(events)
    return tracks


def expected(tracks):
    return [
        (tick, track, message[0] >> 4, message[0] & 15, message[1], (*message, 0)[2])
        for track, events in enumerate(tracks)
        for tick, message in events
        if message[0] < 0xF0
    ]


@given(event_lists())
def test_what_was_written_is_read(tracks):
    assert found(reference.running_midi_bytes(tracks)) == expected(tracks)
    assert found(reference.midi_bytes(tracks)) == expected(tracks)


@given(event_lists(), st.one_of(st.sampled_from([1, 2, 7]), st.integers(1, 300)))
def test_the_size_of_a_block_does_not_matter(tracks, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smf, "BLOCK", block)
        assert found(reference.running_midi_bytes(tracks)) == expected(tracks)


@pytest.mark.parametrize("block", range(1, 40))
def test_running_status_goes_on_into_the_next_block(block, monkeypatch):
    """Of two data bytes, then of one, then of two, however they fall on the blocks."""
    monkeypatch.setattr(smf, "BLOCK", block)
    status = [0x90] * 5 + [0xC3] * 5 + [0xB1] * 4 + [0xD0] * 2 + [0x81] * 3
    messages = [
        bytes([x, 30 + i, 70 - i][: 2 if 0xC0 <= x < 0xE0 else 3]) for i, x in enumerate(status)
    ]
    ticks = np.cumsum([[0, 5, 200, 20_000, 3_000_000][i % 5] for i in range(len(status))]).tolist()
    tracks = [list(zip(ticks, messages, strict=True)), [(7, bytes([0x92, 1, 2]))]]
    assert found(reference.running_midi_bytes(tracks)) == expected(tracks)


def test_a_track_larger_than_a_block():
    n = smf.BLOCK  # three bytes each in running status: three blocks
    events = [(3 * i, bytes([0x90, i % 128, i % 7])) for i in range(n)]
    assert found(reference.running_midi_bytes([events])) == expected([events])


@st.composite
def mido_tracks(draw):
    """Tracks of mido messages, with all that mido writes."""
    time, latin = deltas, st.text(st.characters(max_codepoint=255), max_size=8)
    channel = st.sampled_from([0, 1, 9, 15])
    message, meta = mido.Message, mido.MetaMessage
    notes = st.builds(
        message,
        st.sampled_from(["note_on", "note_off"]),
        note=sevens,
        velocity=sevens,
        channel=channel,
        time=time,
    )
    others = st.one_of(
        st.builds(message, st.just("polytouch"), note=sevens, value=sevens, time=time),
        st.builds(
            message,
            st.just("control_change"),
            control=sevens,
            value=sevens,
            channel=channel,
            time=time,
        ),
        st.builds(message, st.just("program_change"), program=sevens, channel=channel, time=time),
        st.builds(message, st.just("aftertouch"), value=sevens, channel=channel, time=time),
        st.builds(message, st.just("pitchwheel"), pitch=st.integers(-8192, 8191), time=time),
        st.builds(message, st.just("sysex"), data=st.lists(sevens, max_size=200), time=time),
        st.builds(message, st.just("songpos"), pos=st.integers(0, 16383), time=time),
        st.builds(message, st.just("song_select"), song=sevens, time=time),
        st.builds(meta, st.sampled_from(["text", "lyrics", "marker"]), text=latin, time=time),
        st.builds(meta, st.just("track_name"), name=latin, time=time),
        st.builds(meta, st.just("set_tempo"), tempo=st.integers(0, 2**24 - 1), time=time),
        st.builds(meta, st.just("key_signature"), key=st.sampled_from(["C", "Ebm"]), time=time),
        st.builds(meta, st.just("sequencer_specific"), data=st.lists(sevens), time=time),
    )
    track = st.lists(st.one_of(notes, others), max_size=20)
    return draw(st.lists(track, min_size=1, max_size=3))


@given(mido_tracks(), st.integers(1, 32_767))
def test_files_of_mido_are_read_as_mido_reads_them(tracks, ticks_per_quarter):
    written, saved = mido.MidiFile(type=1, ticks_per_beat=ticks_per_quarter), io.BytesIO()
    written.tracks.extend(mido.MidiTrack(t) for t in tracks)
    written.save(file=saved)
    judge = mido.MidiFile(file=io.BytesIO(saved.getvalue()))
    channel_events, tempo, names = [], [], []
    for number, track in enumerate(judge.tracks):
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo" and message.tempo > 0:
                tempo.append((tick, message.tempo))
            elif not message.is_meta and message.bytes()[0] < 0xF0:
                status, first, second = (*message.bytes(), 0)[:3]
                channel_events.append((tick, number, status >> 4, status & 15, first, second))
        names.append(next((m.name for m in track if m.type == "track_name"), "").strip("\0 "))
    events = smf.read_events("piece", saved.getvalue())
    assert found(saved.getvalue()) == channel_events
    assert list(zip(events.tempo_tick.tolist(), events.tempo.tolist(), strict=True)) == tempo
    assert events.names == names
    assert events.ticks_per_quarter == judge.ticks_per_beat == ticks_per_quarter
