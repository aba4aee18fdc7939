"""MIDI to notes in seconds and back, against exact fractions and pretty_midi."""

from __future__ import annotations

import csv
import io
import pickle
import warnings
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl
import reference
from pianolstm import TempoMap, smf
from pianolstm.midi import _parts, build_midi
from strategies import tempo_maps

DATA = Path(__file__).parents[2] / "shared" / "data"
# Cases whose notes pretty_midi counts otherwise: our counts, and why.
DIFFERENT = {
    "jazzsoft/test-2-tracks-type-2.mid": ([8, 8], "format 2: two pieces, pretty_midi adds them up"),
}
PIECES = ["alb_esp1.mid", "clementi_opus36_2_2_format0.mid", "waldstein_2.mid"]

NOTES = [(0, 240, 60, 70), (240, 720, 64, 80), (960, 1200, 67, 90)]
FILE = reference.midi_bytes(
    [
        [reference.tempo_event(0, 500_000), reference.tempo_event(480, 1_000_000)],
        reference.note_events(NOTES),
    ]
)


def with_header(kind=1, division=480):
    """FILE with another format or division."""
    return (
        FILE[:8] + kind.to_bytes(2, "big") + FILE[10:12] + division.to_bytes(2, "big") + FILE[14:]
    )


def pretty(*notes, is_drum=False):
    """A PrettyMIDI of (start, end, pitch, velocity) notes in seconds."""
    midi = pretty_midi.PrettyMIDI()
    piano = pretty_midi.Instrument(0, is_drum=is_drum)
    piano.notes = [pretty_midi.Note(v, p, start, end) for start, end, p, v in notes]
    midi.instruments.append(piano)
    return midi


# ------------------------------------------------------------------------------------- tempo map


def test_tempo_map_by_hand():
    tempo = TempoMap([0, 960, 1440], [500_000, 1_000_000, 250_000], 480)
    ticks = [0, 480, 960, 1200, 1440, 1920]
    seconds = [0.0, 0.5, 1.0, 1.5, 2.0, 2.25]
    np.testing.assert_allclose(tempo.to_seconds(ticks), seconds, atol=1e-15)
    np.testing.assert_allclose(tempo.to_ticks(seconds), ticks, atol=1e-9)
    assert tempo.to_seconds(1.5) == 1.5 * 0.5 / 480


def test_tempo_map_is_canonical():
    tempo = TempoMap([960, 100, 960, 1200], [700_000, 400_000, 300_000, 300_000], 96)
    assert tempo.ticks.tolist() == [0, 100, 960]
    assert tempo.microseconds.tolist() == [500_000, 400_000, 300_000]
    assert TempoMap([0, 7], [500_000, 500_000]) == TempoMap()
    assert hash(TempoMap([0, 7], [500_000, 500_000])) == hash(TempoMap())


def test_tempo_maps_differ_by_tick_tempo_and_resolution():
    tempo = TempoMap([0, 10], [400_000, 300_000], 96)
    assert tempo != TempoMap([0, 11], [400_000, 300_000], 96)
    assert tempo != TempoMap([0, 10], [400_000, 300_001], 96)
    assert tempo != TempoMap([0, 10], [400_000, 300_000], 97)
    assert tempo != "tempo"
    assert tempo == pickle.loads(pickle.dumps(tempo))


@given(tempo_maps(), st.lists(st.integers(0, 20_000), min_size=1, max_size=10))
def test_tempo_map_equals_exact_fractions(tempo, ticks):
    changes = list(zip(tempo.ticks.tolist(), tempo.microseconds.tolist(), strict=True))
    exact = [reference.tick_to_seconds(t, changes, tempo.ticks_per_quarter) for t in ticks]
    np.testing.assert_allclose(tempo.to_seconds(ticks), [float(s) for s in exact], rtol=1e-14)
    np.testing.assert_allclose(tempo.to_ticks(tempo.to_seconds(ticks)), ticks, atol=1e-6)


def test_an_hour_of_tempo_changes_does_not_drift():
    rng = np.random.default_rng(0)
    tempi = rng.integers(300_000, 700_000, 20_000).tolist()
    ticks = list(range(0, 20_000 * 160, 160))
    exact = sum(160 * t for t in tempi) / (480 * 10**6)
    assert exact > 3000
    assert abs(TempoMap(ticks, tempi).to_seconds(20_000 * 160) - exact) < 1e-9


@given(tempo_maps(), st.integers(0, 8000), st.integers(0, 8000), st.integers(1, 12))
def test_tempo_map_from_until_and_at_resolution(tempo, tick, later, factor):
    heard = tempo.from_tick(tick)
    expected = tempo.to_seconds(tick + later) - tempo.to_seconds(tick)
    assert heard.to_seconds(later) == pytest.approx(expected, abs=1e-9)

    cut = tempo.until_tick(tick)
    assert cut.ticks.max() < max(tick, 1)
    before = min(tick, later)
    assert cut.to_seconds(before) == pytest.approx(tempo.to_seconds(before), abs=1e-12)

    finer = tempo.at_resolution(factor * tempo.ticks_per_quarter)
    assert finer.ticks_per_quarter == factor * tempo.ticks_per_quarter
    assert finer.to_seconds(factor * tick) == pytest.approx(tempo.to_seconds(tick), abs=1e-12)


def test_tempo_map_from_and_until_by_hand():
    tempo = TempoMap([0, 100, 200], [500_000, 400_000, 300_000])
    assert tempo.until_tick(100) == TempoMap([0], [500_000])
    assert tempo.until_tick(101) == TempoMap([0, 100], [500_000, 400_000])
    assert tempo.until_tick(0) == TempoMap([0], [500_000])
    assert tempo.from_tick(100) == TempoMap([0, 100], [400_000, 300_000])
    assert tempo.from_tick(150) == TempoMap([0, 50], [400_000, 300_000])
    assert tempo.from_tick(999) == TempoMap([0], [300_000])


def test_tempo_map_repr_tells_the_tempi():
    assert repr(TempoMap([0, 480], [500_000, 400_000])) == (
        "<TempoMap 120-150 quarter notes a minute, 2 entries, 480 ticks per quarter>"
    )
    assert repr(TempoMap.constant(600_000, 96)) == (
        "<TempoMap 100 quarter notes a minute, 1 entry, 96 ticks per quarter>"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([0, 1], [500_000]), r"one length.*got shapes \(2,\) and \(1,\)"),
        (([], []), "at least one entry"),
        (([[0]], [[500_000]]), "1-D sequences"),
        (([-1], [500_000]), "ticks from -1"),
        (([0], [0]), "microseconds from 0"),
        (([0], [500_000], 0), "ticks_per_quarter=0"),
    ],
)
def test_tempo_map_refuses(args, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        TempoMap(*args)


def test_tempo_map_is_immutable():
    tempo = TempoMap([0, 10], [400_000, 300_000])
    with pytest.raises(ValueError, match="read-only"):
        tempo.ticks[0] = 5


# --------------------------------------------------------------------------------------- reading


def test_read_notes_by_hand(tmp_path):
    path = tmp_path / "piece.mid"
    path.write_bytes(FILE)
    for source in (FILE, path, str(path)):
        notes = pl.read_notes(source)
        assert notes.start.tolist() == [0.0, 0.25, 1.5]
        assert notes.end.tolist() == [0.25, 1.0, 2.0]
        assert notes.pitch.tolist() == [60, 64, 67]
        assert notes.velocity.tolist() == [70, 80, 90]
        assert notes.seconds == 2.0
        assert notes.tempo_map == TempoMap([0, 480], [500_000, 1_000_000])
        assert len(notes) == 3


def test_read_notes_of_pretty_midi_and_of_its_file_agree(tmp_path):
    path = tmp_path / "piece.mid"
    path.write_bytes(FILE)
    from_object, from_file = pl.read_notes(pretty_midi.PrettyMIDI(str(path))), pl.read_notes(path)
    for field in ("start", "end", "pitch", "velocity"):
        np.testing.assert_allclose(getattr(from_object, field), getattr(from_file, field))
    assert from_object.tempo_map == from_file.tempo_map
    assert from_object.seconds == pytest.approx(from_file.seconds)


def test_a_file_without_tempo_has_120_beats_a_minute():
    notes = pl.read_notes(reference.midi_bytes([reference.note_events([(96, 144, 60, 64)])], 96, 0))
    assert (notes.start.tolist(), notes.end.tolist()) == ([0.5], [0.75])


def test_tempi_in_any_track_count():
    events = [*reference.note_events([(0, 480, 60, 64)]), reference.tempo_event(0, 250_000)]
    assert pl.read_notes(reference.midi_bytes([[], events])).seconds == 0.25


def test_an_onset_of_velocity_zero_is_a_release():
    events = [(0, b"\x90\x3c\x40"), (480, b"\x90\x3c\x00"), (960, b"\x90\x3c\x50")]
    events.append((1440, b"\x80\x3c\x40"))
    notes = pl.read_notes(reference.midi_bytes([events]))
    assert notes.end.tolist() == [0.5, 1.5]
    assert notes.velocity.tolist() == [0x40, 0x50]


def test_smpte_time_has_no_tempo():
    notes = pl.read_notes(with_header(division=0xE728))  # 25 frames of 40 ticks
    assert notes.start.tolist() == [0.0, 0.24, 0.96]
    assert notes.end.tolist() == [0.24, 0.72, 1.2]


@pytest.mark.parametrize(("tick", "seconds"), [(1920, 2.0), (480, 1.0)])
def test_our_own_all_notes_off_marks_the_end(tick, seconds):
    events = [*reference.note_events([(0, 960, 60, 64)], channel=1), (tick, b"\xb0\x7b\x50")]
    events += reference.note_events([(0, 240, 40, 64)])  # of the marker's channel
    assert pl.read_notes(reference.midi_bytes([events])).seconds == seconds


@pytest.mark.parametrize(("value", "kept"), [(0, 0.5), (127, 0.5), (80, 2.0)])
def test_silence_after_the_last_note(value, kept):
    events = [*reference.note_events([(0, 480, 60, 64)]), (1920, bytes([0xB0, 123, value]))]
    data = reference.midi_bytes([events, [(2400, b"\xff\x01\x00")]])
    assert pl.read_notes(data).seconds == kept
    assert pl.read_notes(data, trailing_silence=True).seconds == 2.5
    midi = pretty_midi.PrettyMIDI(io.BytesIO(data))
    assert pl.read_notes(midi).seconds == pytest.approx(kept)
    assert pl.read_notes(midi, trailing_silence=True).seconds == pytest.approx(2.0)


def starts_and_ends(events, **settings):
    notes = pl.read_notes(reference.midi_bytes([SECOND, events], 1024), **settings)
    return sorted(
        zip(in_ticks(notes.start), in_ticks(notes.end), notes.pitch.tolist(), strict=True)
    )


def on(tick, pitch=60, channel=0):
    return tick, bytes([0x90 | channel, pitch, 64])


def off(tick, pitch=60, channel=0):
    return tick, bytes([0x80 | channel, pitch, 0])


def test_an_onset_without_a_release_takes_no_other_notes():
    later = [on(100), off(110), on(200), off(230), on(300), off(370)]
    expected = [(100, 110, 60), (200, 230, 60), (300, 370, 60)]
    assert starts_and_ends([on(0), *later]) == [(0, 100, 60), *expected]
    assert starts_and_ends([*later, on(400)]) == expected  # never struck again: no note
    assert starts_and_ends([*later, on(400), on(405, 61), off(450, 61)]) == [
        *expected,
        (405, 450, 61),
    ]
    # It ends where its key is struck on its channel, not on another.
    assert starts_and_ends([on(0), on(40, channel=1), off(50, channel=1), *later])[:2] == [
        (0, 100, 60),
        (40, 50, 60),
    ]


def test_a_key_struck_twice_at_one_tick_sounds_once():
    assert starts_and_ends([on(0), on(0), off(48), on(90), off(96)]) == [(0, 48, 60), (90, 96, 60)]
    assert starts_and_ends([on(0), on(0), on(90), off(96)]) == [(0, 90, 60), (90, 96, 60)]


def test_a_note_shorter_than_a_tick_has_its_release_first():
    later = [on(10), off(20), on(30), off(45)]
    expected = [(10, 20, 60), (30, 45, 60)]
    assert starts_and_ends([off(0), on(0), *later]) == [(0, 0, 60), *expected]
    assert starts_and_ends([*later, off(45), on(45)]) == [*expected, (45, 45, 60)]
    # Of another key it is no release of this one.
    assert starts_and_ends([off(0, 61), on(0), *later]) == [(0, 10, 60), *expected]


def test_short_notes_come_out_of_the_file_as_of_the_object(tmp_path):
    midi = pretty((0, 1e-4, 60, 64), (10, 10.1, 60, 64), (20, 20.1, 60, 64), (20.1, 20.1, 60, 9))
    midi.write(str(tmp_path / "short.mid"))
    rolls = pl.PianoRollEncoder(fs=20).transform([midi, tmp_path / "short.mid"])
    assert rolls[0] == rolls[1]
    assert rolls[0].notes["start"].tolist() == [0, 200, 400, 402]


@pytest.mark.parametrize("controller", [120, 123])
def test_all_notes_off_ends_what_sounds_on_its_channel(controller):
    stop = (50, bytes([0xB0, controller, 0]))
    events = [
        on(0),
        on(10, 64),
        off(40, 64),
        on(20, 67, 1),
        off(90, 67, 1),
        on(50, 69),
        off(80, 69),
    ]
    assert starts_and_ends([*events, stop]) == [
        (0, 50, 60),  # never released
        (10, 40, 64),
        (20, 90, 67),  # on another channel
        (50, 80, 69),  # begins at the same tick
    ]
    # A release after it is void, and takes nothing from the next note.
    assert starts_and_ends([on(0), stop, off(60), on(70), off(85)]) == [(0, 50, 60), (70, 85, 60)]


@pytest.mark.parametrize(("controller", "end"), [(120, 70), (123, 200)])
def test_all_sound_off_ends_what_the_pedal_holds(controller, end):
    events = [(0, b"\xb0\x40\x7f"), on(10), off(40), (70, bytes([0xB0, controller, 0]))]
    events += [(200, b"\xb0\x40\x00"), on(210, 72), off(220, 72)]
    assert starts_and_ends(events, pedal=True) == [(10, end, 60), (210, 220, 72)]


def test_a_file_whose_onsets_are_never_released_says_so():
    data = reference.midi_bytes([[on(100 * i, 60 + i) for i in range(4)]])
    with pytest.raises(pl.MidiError, match=r"got none .*; 4 onsets are never released"):
        pl.read_notes(data)


def test_pitch_range():
    events = [on(0, 20), off(10, 20), on(5, 21), off(15, 21), on(7, 108), off(9, 108), on(8, 109)]
    events.append(off(30, 109))
    assert starts_and_ends(events, pitch_range=(21, 108)) == [(5, 15, 21), (7, 9, 108)]
    assert len(starts_and_ends(events, pitch_range=np.array([20, 109]))) == 4
    with pytest.raises(pl.MidiError, match=r"expected notes, got none .*pitch_range="):
        starts_and_ends(events, pitch_range=(40, 50))
    for wrong in ((108, 21), (-1, 20), (0, 128), 60, (1, 2, 3), ("a", "b")):
        with pytest.raises(pl.InvalidInputError, match="pitch_range must be the lowest and the hi"):
            starts_and_ends(events, pitch_range=wrong)


def test_drums_by_channel_or_by_program():
    events = [(0, b"\xc3\x70"), on(0, 50, 3), off(5, 50, 3), on(0, 40, 9), off(7, 40, 9)]
    events += [on(2), off(8)]
    assert starts_and_ends(events) == [(0, 5, 50), (2, 8, 60)]
    assert starts_and_ends(events, drums="program") == [(0, 7, 40), (2, 8, 60)]
    assert starts_and_ends(events, drums=None) == [(0, 5, 50), (0, 7, 40), (2, 8, 60)]
    assert starts_and_ends(events, drums=None, tracks=[2]) == [(0, 7, 40)]
    with pytest.raises(pl.MidiError, match=r"track 2 holds drums.*drums=None"):
        starts_and_ends(events, tracks=[2])
    with pytest.raises(pl.InvalidInputError, match='"channel", "program" or None; got True'):
        starts_and_ends(events, drums=True)


def test_drums_are_left_out():
    piano, drums = reference.note_events([(0, 480, 60, 64)]), [(0, 960, 36, 100), (0, 960, 38, 99)]
    data = reference.midi_bytes([piano, reference.note_events(drums, channel=9)])
    assert pl.read_notes(data).pitch.tolist() == [60]
    midi = pretty((0, 1, 60, 64))
    midi.instruments += pretty((0, 1, 36, 100), is_drum=True).instruments
    assert pl.read_notes(midi).pitch.tolist() == [60]


def test_drums_are_never_read_even_if_asked_for():
    data = reference.midi_bytes(
        [
            reference.note_events([(0, 480, 60, 64)]),
            reference.note_events([(0, 960, 36, 100)], channel=9),
        ]
    )
    assert [t.is_drum for t in pl.describe_midi(data).tracks] == [False, True]
    with pytest.raises(pl.MidiError, match="drum"):
        pl.read_notes(data, tracks=[1])


def test_tracks_are_chosen_by_the_index_that_describe_midi_gives():
    voices = [[(0, 480, 60, 64)], [(0, 480, 48, 64), (480, 960, 50, 64)], [(0, 480, 72, 64)]]
    data = reference.midi_bytes([reference.note_events(v, channel=i) for i, v in enumerate(voices)])
    for track in pl.describe_midi(data).tracks:
        pitch = pl.read_notes(data, tracks=[track.index]).pitch
        assert (pitch.min(), pitch.max(), len(pitch)) == (
            track.lowest,
            track.highest,
            track.n_notes,
        )
    assert sorted(pl.read_notes(data, tracks=[2, 0]).pitch.tolist()) == [60, 72]


def played(source, **kwargs):
    """Notes as sorted tuples (start, end, pitch, velocity)."""
    notes = pl.read_notes(source, **kwargs)
    columns = (notes.start, notes.end, notes.pitch, notes.velocity)
    return sorted(zip(*(c.tolist() for c in columns), strict=True))


def test_programs_are_those_in_force_at_the_onset():
    first = [
        *reference.note_events([(0, 480, 60, 64), (480, 1440, 62, 64), (960, 1440, 64, 64)]),
        (720, b"\xc0\x28"),
    ]
    second = [(0, b"\xc1\x28"), *reference.note_events([(0, 240, 70, 64)], channel=1)]
    third = reference.note_events([(0, 240, 80, 64)], channel=1)  # a new track begins at 0
    data = reference.midi_bytes([first, second, third])
    chosen = {p: sorted(pl.read_notes(data, programs=p).pitch.tolist()) for p in [(0,), (40,)]}
    assert chosen == {(0,): [60, 62, 80], (40,): [64, 70]}
    assert len(pl.read_notes(data, programs=range(128))) == 5
    described = pl.describe_midi(data).tracks
    assert [(t.index, t.program, t.n_notes, t.lowest) for t in described] == [
        (0, 0, 2, 60),
        (1, 40, 1, 64),
        (2, 40, 1, 70),
        (3, 0, 1, 80),
    ]
    assert pl.read_notes(data, tracks=[0, 2], programs=[40]).pitch.tolist() == [70]
    with pytest.raises(pl.MidiError, match=r"expected notes, got none .*tracks=, programs="):
        pl.read_notes(data, tracks=[3], programs=[40])


def test_a_mido_file_is_read_as_its_bytes():
    file = mido.MidiFile(file=io.BytesIO(FILE))
    assert played(file) == played(FILE)
    assert pl.describe_midi(file).tracks == pl.describe_midi(FILE).tracks


def test_programs_of_pretty_midi():
    midi = pretty((0, 1, 60, 64))
    midi.instruments += pretty((0, 2, 67, 64)).instruments
    midi.instruments[1].program = 7
    assert pl.read_notes(midi, programs=[7]).pitch.tolist() == [67]


@pytest.mark.parametrize("read", [played, lambda s: pl.describe_midi(s).tracks, pl.split_midi])
def test_binary_files_are_read(tmp_path, read):
    path = tmp_path / "piece.mid"
    path.write_bytes(FILE)
    expected = read(path)
    with path.open("rb") as file:
        assert read(file) == expected
    for source in (io.BytesIO(FILE), FILE, bytearray(FILE), memoryview(FILE)):
        assert read(source) == expected
    for text in (io.StringIO("MThd"), path.open(encoding="latin-1")):
        with text, pytest.raises(pl.InvalidInputError, match="must be opened in binary mode"):
            read(text)


def test_a_broken_binary_file_is_named(tmp_path):
    path = tmp_path / "broken piece.mid"
    path.write_bytes(FILE[:13])
    with path.open("rb") as file, pytest.raises(pl.MidiError, match=r"broken piece\.mid: .*header"):
        pl.read_notes(file)
    with pytest.raises(pl.MidiError, match=r"^<file>: .*header"):
        pl.read_notes(io.BytesIO(FILE[:13]))


def test_a_release_ends_the_oldest_note():
    events = [(0, b"\x90\x3c\x0a"), (480, b"\x90\x3c\x14"), (960, b"\x80\x3c\x00")]
    events += [(1920, b"\x80\x3c\x00"), (2400, b"\x80\x3c\x00")]
    assert played(reference.midi_bytes([events])) == [(0.0, 1.0, 60, 10), (0.5, 2.0, 60, 20)]


def test_a_release_is_of_its_own_track_and_channel():
    onsets = [(0, b"\x90\x3c\x0a"), (0, b"\x91\x3c\x0b")]
    data = reference.midi_bytes([onsets, [(480, b"\x80\x3c\x00"), (960, b"\x81\x3c\x00")]])
    with pytest.raises(pl.MidiError, match="got none"):
        pl.read_notes(data)
    data = reference.midi_bytes([[*onsets, (480, b"\x81\x3c\x00"), (960, b"\x82\x3c\x00")]])
    assert played(data) == [(0.0, 0.5, 60, 11)]


@st.composite
def onsets_and_releases(draw, n_channels=2, max_tracks=3):
    """Tracks of (tick, message) onsets and releases that need not match."""
    message = st.tuples(
        st.sampled_from([0x80, 0x90, 0x90]),
        st.integers(0, n_channels - 1),
        st.sampled_from([59, 60, 127]),
        st.sampled_from([0, 1, 64, 127]),
    ).map(lambda m: bytes([m[0] | m[1], *m[2:]]))
    event = st.tuples(st.integers(0, 12), message)
    tracks = draw(st.lists(st.lists(event, max_size=30), min_size=1, max_size=max_tracks))
    return [sorted(track, key=lambda event: event[0]) for track in tracks]


# A quarter note of a second and 1024 ticks: times in ticks are exact.
SECOND = [reference.tempo_event(0, 1_000_000)]


def in_ticks(seconds):
    return (1024 * np.asarray(seconds)).tolist()


@given(
    onsets_and_releases(),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12)), max_size=3),
    st.sampled_from([120, 123]),
)
def test_onsets_and_releases_match_as_brackets(tracks, stops, controller):
    expected = reference.paired_notes(tracks, stops)
    stopping = [(tick, bytes([0xB0 | channel, controller, 0])) for channel, tick in stops]
    data = reference.running_midi_bytes([SECOND, *tracks, sorted(stopping)], 1024)
    if not expected:
        with pytest.raises(pl.MidiError, match="expected notes, got none"):
            pl.read_notes(data)
        return
    found = [(*in_ticks(note[:2]), *note[2:]) for note in played(data)]
    assert found == sorted(note[:4] for note in expected)
    assert in_ticks(pl.read_notes(data).seconds) == max(note[1] for note in expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty; expected a MIDI file"),
        (b"<!DOCTYPE html><html></html>", "starts with b'MThd'.*starts with b'<!DOCTYP'"),
        (FILE[:13], "header of at least 6 bytes; the file has 13 bytes.*cut short"),
        (FILE[:40], "track 0 should have 19 bytes, but the file ends after 18; it is cut short"),
        (with_header(kind=2), "format 2 holds several independent pieces.*pianolstm.split_midi"),
        (with_header(division=0xE628), "24, 25, 29 or 30 frames.*got 26 and 40"),
        (with_header(division=0xE700), "at least 1 tick a frame; got 25 and 0"),
        (with_header(division=0), "expected 1 tick per quarter note or more; got a division 0"),
        (reference.midi_bytes([[reference.tempo_event(0, 400_000)]]), "expected notes, got none"),
        (
            reference.midi_bytes([reference.note_events([(0, 9, 36, 99)], channel=9)]),
            "got none .drums are left out",
        ),
    ],
)
def test_broken_data_are_named(tmp_path, data, message):
    with pytest.raises(pl.MidiError, match="<bytes>: .*" + message):
        pl.read_notes(data)
    path = tmp_path / "broken piece.mid"
    path.write_bytes(data)
    with pytest.raises(pl.MidiError, match="broken piece.mid: .*" + message):
        pl.read_notes(path)
    if "notes" not in message and "none" not in message:
        with pytest.raises(pl.MidiError, match=message):
            pl.describe_midi(path)


def test_a_path_that_leads_nowhere(tmp_path):
    with pytest.raises(pl.MidiError, match=r"gone\.mid: there is no such file"):
        pl.read_notes(tmp_path / "gone.mid")
    with pytest.raises(pl.MidiError, match="can't be read: Is a directory"):
        pl.read_notes(str(tmp_path))
    for read in (pl.read_notes, pl.describe_midi, pl.split_midi):
        with pytest.raises(pl.MidiError, match=r"^gone\.mid: there is no such file"):
            read("gone.mid")
        with pytest.raises(pl.MidiError, match=r"^'a.x00b\.mid': can't be read: embedded null"):
            read("a\0b.mid")


@pytest.mark.parametrize(
    "source", [None, 3, ["a.mid"], np.zeros((4, 128)), pretty_midi.Instrument(0)]
)
def test_a_source_of_another_kind_is_refused(source):
    message = f"Expected a path, .* or a mido.MidiFile; got {type(source).__name__}"
    for read in (pl.read_notes, pl.describe_midi, pl.split_midi):
        with pytest.raises(pl.InvalidInputError, match=message):
            read(source)


@pytest.mark.parametrize("index", [2, -1])
def test_a_track_that_is_not_there(index):
    data = reference.midi_bytes(
        [reference.note_events([(0, 9, p, 64)], channel=i) for i, p in enumerate([60, 62])]
    )
    with pytest.raises(pl.MidiError, match=f"there is no track {index}; it has 2 tracks"):
        pl.read_notes(data, tracks=[0, index])


@pytest.mark.parametrize(
    "note",
    [
        (0.0, 1.0, 200, 64),
        (0.0, 1.0, 300, 64),
        (0.0, 1.0, -1, 64),
        (0.0, 1.0, 60, 300),
        (0.0, 1.0, 60, 0),
        (-1.0, 1.0, 60, 64),
        (float("nan"), 1.0, 60, 64),
        (0.0, float("inf"), 60, 64),
    ],
)
def test_notes_that_no_midi_file_can_hold_are_refused(note):
    with pytest.raises(pl.PianoLSTMError):
        pl.PianoRollEncoder().transform([pretty((0.0, 1.0, 64, 64), note)])


# ----------------------------------------------------------------------------------------- pedal


def pedal_events(*moves, channel=0):
    """Moves (tick, value) of the sustain pedal."""
    return [(tick, bytes([0xB0 | channel, 64, value])) for tick, value in moves]


def ends(*tracks, pedal=True):
    """Ends in ticks by start and pitch."""
    notes = pl.read_notes(reference.midi_bytes([SECOND, *tracks], 1024), pedal=pedal)
    order = np.lexsort((notes.pitch, notes.start))
    assert notes.seconds >= notes.end.max()
    return in_ticks(notes.end[order])


VOICE = reference.note_events([(0, 100, 60, 70), (200, 300, 64, 80)])


def test_a_pedal_on_a_track_of_its_own_holds_its_channel():
    pedal = pedal_events((50, 127), (150, 0))
    assert ends(VOICE, pedal) == ends(pedal, VOICE) == ends(VOICE + pedal) == [150, 300]
    assert ends(VOICE, pedal, pedal=False) == [100, 300]


def test_a_pedal_of_another_channel_or_another_controller_holds_nothing():
    assert ends(VOICE, pedal_events((50, 127), (150, 0), channel=1)) == [100, 300]
    assert ends(VOICE, [(50, b"\xb0\x42\x7f"), (150, b"\xb0\x42\x00")]) == [100, 300]
    both = VOICE + reference.note_events([(0, 90, 72, 64)], channel=1)
    assert ends(both, pedal_events((50, 127), (150, 0), channel=1)) == [100, 150, 300]


def test_a_pedal_never_lifted_holds_to_the_end_of_the_piece():
    pedal = pedal_events((50, 127))
    assert ends(VOICE + pedal) == [300, 300]
    assert ends(VOICE + pedal + [(400, b"\xb0\x7b\x50")]) == [400, 400]


def test_a_pedal_lifted_after_the_last_release_makes_the_piece_longer():
    events = VOICE + pedal_events((50, 127), (1536, 0))
    assert ends(events) == [1536, 1536]
    data = reference.midi_bytes([SECOND, events], 1024)
    assert pl.read_notes(data, pedal=True).seconds == 1.5
    assert pl.read_notes(data).seconds == 300 / 1024


def test_the_next_strike_of_the_pitch_ends_what_the_pedal_holds():
    notes = [(0, 100, 60, 70), (120, 200, 62, 70), (150, 200, 60, 80), (200, 250, 62, 90)]
    events = reference.note_events(notes) + pedal_events((50, 127), (500, 0))
    assert ends(events) == [150, 200, 500, 500]


@pytest.mark.parametrize(
    ("value", "pressed", "lifted"),
    [(0, 100, 150), (1, 100, 150), (63, 100, 150), (64, 150, 170), (127, 150, 170)],
)
def test_a_pedal_is_down_from_64_on(value, pressed, lifted):
    assert ends(VOICE, pedal_events((50, value), (150, 63))) == [pressed, 300]
    assert ends(VOICE, pedal_events((50, 127), (150, value), (170, 0))) == [lifted, 300]


def test_the_last_move_of_the_tick_of_the_release_decides():
    assert ends(VOICE, pedal_events((50, 127), (100, 0))) == [100, 300]
    assert ends(VOICE, pedal_events((100, 127), (150, 0))) == [150, 300]
    assert ends(VOICE, pedal_events((101, 127), (150, 0))) == [100, 300]
    assert ends(VOICE, pedal_events((100, 127), (100, 0), (150, 0))) == [100, 300]
    assert ends(VOICE, pedal_events((100, 0), (100, 127), (150, 0))) == [150, 300]
    down, up = pedal_events((100, 127)), pedal_events((100, 0), (150, 0))
    assert ends(VOICE, down, up) == [100, 300]
    assert ends(VOICE, up, down) == [150, 300]


def test_a_pedal_changed_in_one_tick_lets_go():
    assert ends(VOICE, pedal_events((50, 127), (150, 0), (150, 127), (400, 0))) == [150, 400]


@given(
    onsets_and_releases(),
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 1), st.sampled_from([0, 63, 64, 127])),
        max_size=12,
    ),
    st.integers(0, 2),
)
def test_pedal_equals_going_through_notes_and_moves(tracks, moves, where):
    moves = sorted(moves, key=lambda move: move[0])
    pedal = [(tick, bytes([0xB0 | channel, 64, value])) for tick, channel, value in moves]
    data = reference.midi_bytes([SECOND, *tracks[:where], pedal, *tracks[where:]], 1024)
    notes = reference.paired_notes(tracks)
    if not notes:
        with pytest.raises(pl.MidiError, match="expected notes, got none"):
            pl.read_notes(data, pedal=True)
        return
    last, expected = max(note[1] for note in notes), []
    for channel in range(2):
        mine = [note for note in notes if note[4] == channel]
        moved = [(tick, value) for tick, c, value in moves if c == channel]
        held = reference.held_by_pedal([note[:3] for note in mine], moved, last)
        expected += [(n[0], end, *n[2:4]) for n, end in zip(mine, held, strict=True)]
    found = [(*in_ticks(note[:2]), *note[2:]) for note in played(data, pedal=True)]
    assert found == sorted(expected)
    assert in_ticks(pl.read_notes(data, pedal=True).seconds) == max(note[1] for note in expected)
    dry = [(*in_ticks(note[:2]), *note[2:]) for note in played(data)]
    assert dry == sorted(note[:4] for note in notes)


def test_pedal_of_pretty_midi_holds_its_instrument():
    midi = pretty((0.0, 1.0, 60, 64), (2.0, 3.0, 64, 64))
    midi.instruments += pretty((0.0, 1.25, 67, 64), (0.0, 5.0, 69, 64)).instruments
    midi.instruments[1].control_changes = [
        pretty_midi.ControlChange(64, 0, 1.5),
        pretty_midi.ControlChange(64, 127, 0.5),
        pretty_midi.ControlChange(64, 127, 4.0),
    ]
    assert pl.read_notes(midi, pedal=True).end.tolist() == [1.0, 3.0, 1.5, 5.0]
    assert pl.read_notes(midi).end.tolist() == [1.0, 3.0, 1.25, 5.0]
    midi.instruments[0].control_changes = [pretty_midi.ControlChange(64, 64, 0.0)]
    assert pl.read_notes(midi, pedal=True).end.tolist() == [5.0, 5.0, 1.5, 5.0]


# -------------------------------------------------------------------------------------- describe


def test_describe_midi_by_hand(tmp_path):
    conductor = [reference.tempo_event(0, 500_000), reference.tempo_event(960, 250_000)]
    strings = [(0, b"\xc1\x30"), *reference.note_events([(480, 1920, 55, 64)], channel=1)]
    drums = reference.note_events([(0, 240, 36, 99), (240, 480, 42, 99)], channel=9)
    path = tmp_path / "trio.mid"
    path.write_bytes(
        reference.midi_bytes([conductor, reference.note_events(NOTES), strings, drums])
    )
    found = pl.describe_midi(path)
    assert (found.name, found.seconds, found.n_tempo_changes) == ("trio.mid", 1.5, 1)
    by_lowest = {t.lowest: t for t in found.tracks}
    piano, second, drum = by_lowest[60], by_lowest[55], by_lowest[36]
    assert (piano.n_notes, piano.highest, piano.start, piano.end) == (3, 67, 0.0, 1.125)
    assert (second.program, second.instrument) == (48, "String Ensemble 1")
    assert (second.start, second.end) == (0.5, 1.5)
    assert (drum.is_drum, drum.instrument, drum.n_notes) == (True, "Drums", 2)
    table = str(found).splitlines()
    assert table[0] == "trio.mid: 1.5 s, 1 tempo changes"
    assert "String Ensemble 1" in str(found) and "60-67" in str(found) and "0.5-1.5" in str(found)


def test_describe_pretty_midi_with_an_empty_instrument():
    midi = pretty((0.5, 1.0, 60, 64))
    midi.instruments.append(pretty_midi.Instrument(40, name="silent"))
    found = pl.describe_midi(midi)
    assert [t.n_notes for t in found.tracks] == [1, 0]
    assert (found.tracks[1].lowest, found.tracks[1].name) == (None, "silent")
    assert str(found).splitlines()[-1].split() == ["1", "Violin", "0", "-", "0.0-0.0", "silent"]


def test_describe_midi_splits_by_track_channel_and_program():
    melody = [(0, b"\xc2\x05"), (480, b"\xc2\x00"), (960, b"\xc2\x05")]
    melody += reference.note_events([(0, 240, 60, 64), (480, 720, 61, 64), (960, 1440, 62, 64)], 2)
    melody += reference.note_events([(0, 960, 40, 64)], channel=1)
    tracks = pl.describe_midi(reference.midi_bytes([[], melody])).tracks
    found = [(t.index, t.program, t.n_notes, t.lowest, t.highest, t.end) for t in tracks]
    assert found == [(0, 0, 1, 40, 40, 1.0), (1, 0, 1, 61, 61, 0.75), (2, 5, 2, 60, 62, 1.5)]


# ------------------------------------------------------------------------------------------ split


def test_split_midi_gives_the_pieces_of_format_2_in_order(tmp_path):
    voices = [[(0, 240, 60, 70)], [(480, 720, 64, 80), (720, 960, 65, 81)], [(0, 960, 67, 90)]]
    tracks = [[reference.tempo_event(0, 250_000 * 2**i)] for i in range(3)]
    data = reference.midi_bytes(
        [[*t, *reference.note_events(v)] for t, v in zip(tracks, voices, strict=True)], 240, kind=2
    )
    path = tmp_path / "pieces.mid"
    path.write_bytes(data)
    pieces = pl.split_midi(data)
    assert pl.split_midi(path) == pl.split_midi(io.BytesIO(data)) == pieces
    assert [played(piece) for piece in pieces] == [
        [(0.0, 0.25, 60, 70)],
        [(1.0, 1.5, 64, 80), (1.5, 2.0, 65, 81)],
        [(0.0, 4.0, 67, 90)],
    ]
    judge = [pretty_midi.PrettyMIDI(io.BytesIO(piece)).get_end_time() for piece in pieces]
    assert judge == pytest.approx([0.25, 2.0, 4.0])


def test_split_midi_keeps_smpte_time():
    (piece,) = pl.split_midi(reference.midi_bytes([VOICE], 0xE728, kind=2))
    assert played(piece) == [(0.0, 0.1, 60, 70), (0.2, 0.3, 64, 80)]


@pytest.mark.parametrize("kind", [0, 1])
def test_split_midi_leaves_one_piece_alone(kind):
    assert pl.split_midi(with_header(kind=kind)) == [with_header(kind=kind)]


def test_split_midi_refuses_a_broken_file():
    with pytest.raises(pl.MidiError, match=r"<bytes>: .*track 1 should have.*cut short"):
        pl.split_midi(with_header(kind=2)[:-1])


# --------------------------------------------------------------------------------------- writing


def test_build_midi_puts_notes_and_tempi_on_their_ticks():
    tempo = TempoMap([0, 480], [500_000, 1_000_000])
    start, end, pitch, velocity = (np.array(c) for c in zip(*NOTES, strict=True))
    midi = build_midi(start, end, pitch, velocity, end_tick=1680, tempo_map=tempo, program=5)
    assert isinstance(midi, pretty_midi.PrettyMIDI)
    (piano,) = midi.instruments
    assert piano.program == 5
    found = [(n.start, n.end, n.pitch, n.velocity) for n in piano.notes]
    assert found == [(0.0, 0.25, 60, 70), (0.25, 1.0, 64, 80), (1.5, 2.0, 67, 90)]
    assert [(c.number, c.time) for c in piano.control_changes] == [(123, 3.0)]
    times, bpm = midi.get_tempo_changes()
    assert times.tolist() == [0.0, 0.5]
    assert bpm.tolist() == pytest.approx([120.0, 60.0], rel=1e-9)


def test_build_midi_strikes_again_at_the_tick_of_the_release():
    ticks = np.array([0, 10, 20])
    midi = build_midi(
        ticks,
        ticks + 10,
        np.array([60, 60, 60]),
        np.array([1, 2, 3]),
        end_tick=30,
        tempo_map=TempoMap(),
    )
    (piano,) = midi.instruments
    found = [(midi.time_to_tick(n.start), midi.time_to_tick(n.end)) for n in piano.notes]
    assert found == [(0, 10), (10, 20), (20, 30)]
    assert [n.velocity for n in piano.notes] == [1, 2, 3]


# ------------------------------------------------------------------------------------- real data


@pytest.mark.parametrize("name", PIECES)
def test_real_pieces_have_the_notes_of_pretty_midi(name):
    path = DATA / "piano-midi" / name
    if not path.exists():
        pytest.skip("shared/data/piano-midi is not there")
    notes, midi = pl.read_notes(path), pretty_midi.PrettyMIDI(str(path))
    judge = [n for i in midi.instruments for n in i.notes if not i.is_drum]
    expected = sorted((n.pitch, n.start, n.velocity) for n in judge)
    found = sorted(zip(*(a.tolist() for a in (notes.pitch, notes.start, notes.velocity))))  # noqa: B905
    assert len(found) == len(expected) > 200
    np.testing.assert_allclose(found, expected, atol=1e-5)
    times, bpm = midi.get_tempo_changes()
    assert len(notes.tempo_map.ticks) == len(times) > 50
    np.testing.assert_allclose(notes.tempo_map.to_seconds(notes.tempo_map.ticks), times, atol=1e-5)
    np.testing.assert_allclose(6e7 / notes.tempo_map.microseconds, bpm, rtol=1e-9)


def test_every_case_is_read_or_refused():
    folder = DATA / "midi-cases"
    if not folder.exists():
        pytest.skip("shared/data/midi-cases is not there")
    with (folder / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        cases = [row["file"] for row in csv.DictReader(file, delimiter="\t")]
    assert len(cases) == 78
    read, crashes = 0, []
    encoders = [
        pl.PianoRollEncoder(fs=20),
        pl.PianoRollEncoder(fs=24, grid="beats"),
        pl.PianoRollEncoder(fs=20, max_seconds=None),
    ]
    for case in cases:
        for encoder in encoders:
            try:
                (roll,) = encoder.transform([folder / case])
                read += len(roll.notes) > 0
            except pl.MidiError as error:
                assert Path(case).name in str(error)
            except Exception as error:
                crashes.append(f"{case}: {type(error).__name__}: {error}")
    assert not crashes
    assert read > 3 * 50


def test_cases_that_pretty_midi_reads_have_as_many_notes():
    folder = DATA / "midi-cases"
    if not folder.exists():
        pytest.skip("shared/data/midi-cases is not there")
    with (folder / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    counts, expected = {}, {}
    for row in rows:
        case = row["file"]
        if row["pretty_midi result"] == "ok" and int(row["notes it reads"]) > 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pretty_midi's, of formats 0 with many channels
                judge = pretty_midi.PrettyMIDI(str(folder / case))
            expected[case] = sum(len(i.notes) for i in judge.instruments if not i.is_drum)
            pieces = pl.split_midi(folder / case) if case in DIFFERENT else [folder / case]
            counts[case] = [len(pl.read_notes(piece)) for piece in pieces]
    different = {case: n for case, n in counts.items() if n != [expected[case]]}
    assert different == {case: n for case, (n, _) in DIFFERENT.items()}
    assert len(counts) > 40
    assert counts["music21/test03.mid"] == [1391]


def test_all_pieces_have_their_notes_and_pedal_moves():
    paths = sorted((DATA / "piano-midi").glob("*.mid"))
    if not paths:
        pytest.skip("shared/data/piano-midi is not there")
    n_notes = n_moves = 0
    for path in paths:
        events = smf.read_events(path.name, path.read_bytes())
        n_moves += int(((events.kind == smf.CONTROL) & (events.data1 == 64)).sum())
        n_notes += len(pl.read_notes(path))
    assert (len(paths), n_notes, n_moves) == (86, 231_980, 39_919)


def first_in_first_out(events):
    """Notes (tick, tick, pitch, velocity) by the plain rule: a release ends the oldest onset."""
    columns = (events.tick, events.track, events.kind, events.channel, events.data1, events.data2)
    waiting, notes = {}, []
    for tick, track, kind, channel, pitch, velocity in zip(
        *(c.tolist() for c in columns), strict=True
    ):
        key = track, channel, pitch
        if kind == smf.NOTE_ON and velocity:
            waiting.setdefault(key, []).append((tick, velocity))
        elif kind in (smf.NOTE_ON, smf.NOTE_OFF) and waiting.get(key):
            start, loudness = waiting[key].pop(0)
            notes.append((start, tick, pitch, loudness))
    return sorted(notes), sum(map(len, waiting.values()))


@pytest.mark.parametrize("folder", ["piano-midi", "piano-midi-more", "expressive"])
def test_real_files_read_by_the_plain_rule(folder):
    """Where every onset has its release, brackets and the plain rule are one."""
    paths = sorted((DATA / folder).rglob("*.mid"))
    if not paths:
        pytest.skip(f"shared/data/{folder} is not there")
    for path in paths:
        events = smf.read_events(path.name, path.read_bytes())
        expected, n_left = first_in_first_out(events)
        assert n_left == 0
        parts, n_unreleased = _parts(events)
        assert n_unreleased == 0
        found = [
            note
            for part in parts
            for note in zip(
                *(getattr(part, c).tolist() for c in ("start", "end", "pitch", "velocity")),
                strict=True,
            )
        ]
        assert sorted(found) == expected
