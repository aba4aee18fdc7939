"""MIDI to notes in seconds and back, against exact fractions and pretty_midi."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl
import reference
from pianolstm import TempoMap
from pianolstm.midi import build_midi
from strategies import tempo_maps

DATA = Path(__file__).parents[2] / "shared" / "data"
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


@pytest.mark.parametrize(("tick", "seconds"), [(1920, 2.0), (480, 1.0)])
def test_all_notes_off_marks_the_end(tick, seconds):
    events = [*reference.note_events([(0, 960, 60, 64)]), (tick, b"\xb0\x7b\x00")]
    assert pl.read_notes(reference.midi_bytes([events])).seconds == seconds


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty; expected a MIDI file"),
        (b"<!DOCTYPE html><html></html>", "starts with b'MThd'.*starts with b'<!DOCTYP'"),
        (FILE[:13], "header of 14 bytes.*has 13 bytes"),
        (FILE[:40], "the MIDI data are broken"),
        (with_header(kind=2), "format 2 holds several independent pieces.*split it"),
        (with_header(division=0xE728), "0xe728.*SMPTE"),
        (with_header(division=0), "expected a division of 1 to 32767.*0x0000"),
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
    with pytest.raises(pl.MidiError, match=r"there is no such file"):
        pl.describe_midi("gone.mid")


@pytest.mark.parametrize("source", [None, 3, ["a.mid"], np.zeros((4, 128))])
def test_a_source_of_another_kind_is_refused(source):
    message = f"Expected a path, the bytes of a MIDI file or .*; got {type(source).__name__}"
    with pytest.raises(pl.InvalidInputError, match=message):
        pl.read_notes(source)


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
    counts = {}
    for case in ("noteseq/example.mid", "music21/test03.mid", "synthetic/all_128_pitches.mid"):
        counts[case] = len(pl.read_notes(folder / case))
        judge = pretty_midi.PrettyMIDI(str(folder / case))
        assert counts[case] == sum(len(i.notes) for i in judge.instruments if not i.is_drum)
    assert counts["music21/test03.mid"] == 1391
