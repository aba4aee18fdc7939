"""The encoder, against exact fractions, laws and mir_eval."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import mir_eval
import numpy as np
import pretty_midi
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.base import clone

import pianolstm as pl
import reference
from pianolstm import PianoRoll, PianoRollEncoder, TempoMap
from strategies import pitches, rolls, velocities

DATA = Path(__file__).parents[2] / "shared" / "data" / "piano-midi"
PIECES = ["alb_esp1.mid", "clementi_opus36_2_2_format0.mid", "waldstein_2.mid"]

ROLL = PianoRoll.from_notes([0, 2, 3, 6], [4, 6, 5, 9], [60, 67, 64, 60], [10, 20, 30, 40])


def columns(roll):
    """Notes of a roll as tuples."""
    return roll.notes.tolist()


def one_note_file(start, end, tempi=(), ticks_per_quarter=480, end_marker=0):
    events = [*reference.note_events([(start, end, 60, 64)]), (end_marker, b"\xb0\x7b\x50")]
    tempo = [reference.tempo_event(*change) for change in tempi]
    return reference.midi_bytes([tempo, events], ticks_per_quarter)


def test_the_encoder_by_hand():
    notes = [(0, 240, 60, 70), (250, 265, 64, 80), (960, 1200, 67, 90)]
    tempi = [reference.tempo_event(0, 500_000), reference.tempo_event(480, 1_000_000)]
    data = reference.midi_bytes([tempi, reference.note_events(notes)])
    # Seconds 0-0.25, 0.2604-0.2760 and 1.5-2; times 20: 0-5, 5.21-5.52 and 30-40.
    (roll,) = PianoRollEncoder(fs=20).transform([data])
    assert columns(roll) == [(0, 5, 60, 70, False), (5, 6, 64, 80, False), (30, 40, 67, 90, False)]
    # Quarter notes 0-0.5, 0.5208-0.5521 and 2-2.5; times 4: 0-2, 2.08-2.2 and 8-10.
    (roll,) = PianoRollEncoder(fs=4, grid="beats").transform([data])
    assert columns(roll) == [(0, 2, 60, 70, False), (2, 3, 64, 80, False), (8, 10, 67, 90, False)]
    assert roll.tempo_map == TempoMap([0, 480], [500_000, 1_000_000])
    assert (len(roll), roll.seconds) == (10, 2.0)


def test_the_end_marker_keeps_a_rest():
    # 0.5 s of a note, then a rest until 1.64 s: frame 32.8.
    (roll,) = PianoRollEncoder(fs=20).transform([one_note_file(0, 480, end_marker=1574)])
    assert (len(roll), columns(roll)) == (33, [(0, 10, 60, 64, False)])


@given(
    st.sampled_from([96, 100, 220, 384, 480]),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(50_000, 2_000_000)), max_size=4),
    st.integers(0, 5000),
    st.integers(1, 2000),
    st.sampled_from([20, 25, 100, 12.5]),
)
def test_times_are_rounded_to_the_nearest_frame(resolution, tempi, start, length, fs):
    tempi = list(dict(tempi).items())
    data = one_note_file(start, start + length, tempi, resolution)
    ticks = (start, start + length)
    seconds = [reference.tick_to_seconds(t, tempi, resolution) for t in ticks]
    frames = [s * Fraction(fs) for s in seconds]
    assume(all(f % 1 != Fraction(1, 2) for f in frames))  # halves have a test of their own
    a, b = map(reference.nearest, frames)
    (roll,) = PianoRollEncoder(fs=fs).transform([data])
    assert columns(roll) == [(a, max(b, a + 1), 60, 64, False)]

    per_quarter = int(fs)
    frames = [Fraction(t * per_quarter, resolution) for t in ticks]
    assume(all(f % 1 != Fraction(1, 2) for f in frames))
    a, b = map(reference.nearest, frames)
    (roll,) = PianoRollEncoder(fs=per_quarter, grid="beats").transform([data])
    assert columns(roll) == [(a, max(b, a + 1), 60, 64, False)]


@pytest.mark.parametrize(
    ("resolution", "microseconds"),
    [(480, 500_000), (480, 600_000), (220, 500_000), (96, 625_000), (220, 437_500)],
)
def test_halves_of_a_second_frame_are_rounded_up(resolution, microseconds):
    notes = []
    for k in range(400):
        tick, rest = divmod((2 * k + 1) * 10**6 * resolution, 2 * 20 * microseconds)
        if rest == 0 and (not notes or tick > notes[-1][1]):
            notes.append((tick, tick + 1, 60, 64))
    data = reference.midi_bytes(
        [[reference.tempo_event(0, microseconds)], reference.note_events(notes)], resolution
    )
    halves = [Fraction(20 * tick * microseconds, 10**6 * resolution) for tick, *_ in notes]
    assert len(halves) > 10 and all(half % 1 == Fraction(1, 2) for half in halves)
    (roll,) = PianoRollEncoder(fs=20).transform([data])
    assert roll.notes["start"].tolist() == [reference.nearest(half) for half in halves]


def test_halves_of_a_beat_frame_are_rounded_up_under_any_tempo():
    notes = [(60 + 120 * k, 90 + 120 * k, 60, 64) for k in range(400)]
    tempi = [(0, 500_000), (1440, 437_123), (3373, 612_345)]
    data = reference.midi_bytes(
        [[reference.tempo_event(*change) for change in tempi], reference.note_events(notes)]
    )
    (roll,) = PianoRollEncoder(fs=4, grid="beats").transform([data])
    assert roll.notes["start"].tolist() == [k + 1 for k in range(400)]


@given(rolls(min_notes=1))
def test_the_encoder_reads_back_what_it_writes(roll):
    encoder = PianoRollEncoder(fs=roll.fs, grid=roll.grid)
    (midi,) = encoder.inverse_transform([roll])
    assert isinstance(midi, pretty_midi.PrettyMIDI)
    assert encoder.transform([midi]) == [roll]


@given(roll=rolls(min_notes=1, grid="seconds"))
def test_the_encoder_reads_back_seconds_from_a_file(tmp_path_factory, roll):
    encoder = PianoRollEncoder(fs=roll.fs)
    path = tmp_path_factory.mktemp("seconds") / "roll.mid"
    encoder.inverse_transform([roll])[0].write(str(path))
    assert encoder.transform([path]) == [roll]


@given(roll=rolls(min_notes=1, grid="beats"))
def test_the_encoder_reads_back_beats_from_a_file(tmp_path_factory, roll):
    encoder = PianoRollEncoder(fs=roll.fs, grid="beats")
    path = tmp_path_factory.mktemp("beats") / "roll.mid"
    encoder.inverse_transform([roll])[0].write(str(path))
    (found,) = encoder.transform([path])
    assert columns(found) == columns(roll) and len(found) == len(roll)
    assert found == roll


@pytest.mark.parametrize("fs", [20, 100, 12.5, 7, 220, 44.1, 29.97, 43.066])
def test_a_long_roll_is_read_back(tmp_path, fs):
    seconds = 1500
    rng = np.random.default_rng(0)
    start = rng.integers(0, int(seconds * fs), 300)
    roll = PianoRoll.from_notes(
        start,
        start + rng.integers(1, 50, 300),
        rng.integers(0, 128, 300),
        rng.integers(1, 128, 300),
        n_frames=int(seconds * fs) + 100,
        fs=fs,
    )
    encoder = PianoRollEncoder(fs=fs)
    (midi,) = encoder.inverse_transform([roll])
    exact = np.sort(roll.notes["start"]) / fs
    written = sorted(n.start for n in midi.instruments[0].notes)
    np.testing.assert_allclose(written, exact, atol=1e-7)
    assert encoder.transform([midi]) == [roll]
    midi.write(str(tmp_path / "long.mid"))
    assert encoder.transform([tmp_path / "long.mid"]) == [roll]


def test_a_piece_of_the_longest_length_is_written():
    limit = PianoRollEncoder().max_seconds
    roll = PianoRoll.from_notes([5], [20], [60], n_frames=20 * limit)
    encoder = PianoRollEncoder()
    assert encoder.transform(encoder.inverse_transform([roll])) == [roll]


@pytest.mark.parametrize("name", PIECES)
def test_a_real_piece_keeps_its_onsets(name):
    path = DATA / name
    if not path.exists():
        pytest.skip("shared/data/piano-midi is not there")
    judge = pretty_midi.PrettyMIDI(str(path))
    encoder = PianoRollEncoder(fs=20)
    (roll,) = encoder.fit_transform([path])
    (midi,) = encoder.inverse_transform([roll])
    assert encoder.transform([midi]) == [roll]
    f1 = mir_eval.transcription.precision_recall_f1_overlap(
        *intervals(judge), *intervals(midi), onset_tolerance=0.05, offset_ratio=None
    )[2]
    assert f1 >= 0.995


def intervals(midi):
    notes = [n for i in midi.instruments for n in i.notes]
    hertz = mir_eval.util.midi_to_hz(np.array([n.pitch for n in notes]))
    return np.array([[n.start, n.end] for n in notes]), hertz


@pytest.mark.parametrize("name", PIECES)
def test_a_real_piece_on_beats_is_read_back(tmp_path, name):
    path = DATA / name
    if not path.exists():
        pytest.skip("shared/data/piano-midi is not there")
    encoder = PianoRollEncoder(fs=24, grid="beats")
    rolls = encoder.transform([path])
    assert encoder.transform(encoder.inverse_transform(rolls)) == rolls
    assert rolls[0].seconds == pytest.approx(pl.read_notes(path).seconds, abs=0.1)


# ------------------------------------------------------------------------- parameters and messages


PARAMETERS = {
    "fs": "any",
    "grid": None,
    "pedal": "down",
    "tracks": [1],
    "programs": 7,
    "pitch_range": (3,),
    "drums": "loud",
    "trailing_silence": 1,
    "on_error": 3,
    "max_seconds": -1,
    "max_frames": 2.5,
    "max_notes": "x",
}


def test_the_encoder_is_a_scikit_learn_estimator():
    assert PianoRollEncoder().get_params() == {
        "fs": 20,
        "grid": "seconds",
        "pedal": False,
        "tracks": None,
        "programs": None,
        "pitch_range": None,
        "drums": "channel",
        "trailing_silence": False,
        "on_error": "raise",
        "max_seconds": 14_400,
        "max_frames": 4_000_000,
        "max_notes": 1_000_000,
    }
    encoder = PianoRollEncoder(**PARAMETERS)
    assert vars(encoder) == PARAMETERS
    assert clone(encoder).get_params() == PARAMETERS
    data = one_note_file(0, 960)
    assert PianoRollEncoder().set_params(fs=8).fit([data]).transform([data])[0].fs == 8
    assert PianoRollEncoder(fs=10).fit_transform([data]) == [
        PianoRoll.from_notes([0], [10], [60], fs=10)
    ]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"fs": 0}, "fs must be a number of frames above 0"),
        ({"fs": -20}, "fs must be a number of frames above 0.*got -20"),
        ({"fs": "20"}, "fs must be a number"),
        ({"fs": 2.5, "grid": "beats"}, "whole number of frames per quarter note; got 2.5"),
        ({"grid": "bars"}, "grid must be"),
        ({"on_error": "ignore"}, """on_error must be "raise", "skip" or "repair"; got 'ignore'"""),
        ({"tracks": 0}, "tracks"),
        ({"tracks": [0.5]}, r"tracks must be a list of numbers or None; got \[0\.5\]"),
        ({"programs": 0}, "programs must be a list of numbers or None; got 0"),
        ({"programs": ["piano"]}, r"programs must be a list of numbers or None; got \['piano'\]"),
        ({"pedal": 1}, "pedal must be True or False; got 1"),
        ({"pedal": None}, "pedal must be True or False; got None"),
        ({"max_seconds": "long"}, "max_seconds"),
        ({"max_notes": "many"}, "max_notes"),
    ],
)
def test_the_encoder_refuses_parameters(parameters, message):
    encoder = PianoRollEncoder(**parameters)
    for call in (encoder.fit, encoder.transform):
        with pytest.raises(pl.InvalidInputError, match=message):
            call([one_note_file(0, 480)])


@pytest.mark.parametrize("X", ["a.mid", Path("a.mid"), b"MThd", pretty_midi.PrettyMIDI()])
def test_the_encoder_refuses_one_bare_source(X):
    with pytest.raises(pl.InvalidInputError, match=f"one {type(X).__name__}; wrap it in a list"):
        PianoRollEncoder().transform(X)


@pytest.mark.parametrize("X", [None, 5, ROLL])
def test_the_encoder_refuses_what_is_no_list(X):
    with pytest.raises(pl.InvalidInputError, match="list"):
        PianoRollEncoder().transform(X)


def test_the_encoder_refuses_an_empty_list_and_other_entries():
    with pytest.raises(pl.InvalidInputError, match="at least one MIDI file, got an empty list"):
        PianoRollEncoder().transform([])
    with pytest.raises(pl.InvalidInputError, match=r"Expected a path.*got PianoRoll"):
        PianoRollEncoder(on_error="skip").transform([ROLL])


def test_the_encoder_turns_only_rolls_of_its_own_grid_into_midi():
    with pytest.raises(pl.InvalidInputError, match=r"X\[0\] has fs=20 .*expected fs=10"):
        PianoRollEncoder(fs=10).inverse_transform([ROLL])
    with pytest.raises(pl.InvalidInputError, match="on the grid of beats"):
        PianoRollEncoder(grid="beats").inverse_transform([ROLL])
    with pytest.raises(pl.InvalidInputError, match="Wrap it in a list"):
        PianoRollEncoder().inverse_transform(ROLL)
    plane = np.zeros((10, 128))
    plane[2:7, 60] = 1
    (midi,) = PianoRollEncoder(fs=10).inverse_transform([plane])
    assert [(n.start, n.end) for n in midi.instruments[0].notes] == [(0.2, 0.7)]


@pytest.mark.parametrize(
    ("limit", "at", "message"),
    [
        ("max_seconds", 2.0, r"2 seconds are over the limit max_seconds=1\.9"),
        ("max_frames", 40, "40 frames are over the limit max_frames=39"),
        ("max_notes", 3, "3 notes are over the limit max_notes=2"),
    ],
)
def test_the_encoder_has_limits(tmp_path, limit, at, message):
    path = tmp_path / "long.mid"
    notes = [(0, 480, 60, 64), (480, 960, 62, 64), (960, 1920, 64, 64)]
    path.write_bytes(reference.midi_bytes([reference.note_events(notes)]))
    assert len(PianoRollEncoder(**{limit: at}).transform([path])[0].notes) == 3
    assert len(PianoRollEncoder(**{limit: None}).transform([path])[0].notes) == 3
    below = at - (0.1 if limit == "max_seconds" else 1)
    with pytest.raises(pl.MidiError, match=rf"long\.mid: {message}; raise {limit}, or leave"):
        PianoRollEncoder(**{limit: below}).transform([path])


def test_a_limit_of_no_frames_is_a_limit():
    with pytest.raises(pl.PianoLSTMError, match="max_frames"):
        PianoRollEncoder(max_frames=0).transform([one_note_file(0, 480)])


def test_broken_files_end_the_call_or_are_left_out(tmp_path):
    broken = tmp_path / "broken.mid"
    broken.write_bytes(b"no music")
    sources = [broken, one_note_file(0, 480), "gone.mid", one_note_file(0, 960)]
    with pytest.raises(pl.MidiError, match=r"broken\.mid: expected a MIDI file"):
        PianoRollEncoder().transform(sources)

    encoder = PianoRollEncoder(on_error="skip")
    message = r"2 of 4 files could not be read and were left out \(see skipped_\): .*broken\.mid"
    with pytest.warns(pl.DataLossWarning, match=message) as caught:
        rolls = encoder.transform(sources)
    assert len(caught) == 1
    assert [len(roll) for roll in rolls] == [10, 20]
    assert [i for i, _ in encoder.skipped_] == [0, 2]
    assert "starts with b'MThd'" in str(encoder.skipped_[0][1])
    assert "no such file" in str(encoder.skipped_[1][1])

    encoder.transform(sources[1:2])  # no warning
    assert encoder.skipped_ == []


def test_the_warning_points_at_the_line_that_called():
    with pytest.warns(pl.DataLossWarning) as caught:
        PianoRollEncoder(on_error="skip").transform([b"no music", one_note_file(0, 480)])
    assert caught[0].filename == __file__


def test_long_files_are_left_out_too():
    encoder = PianoRollEncoder(on_error="skip", max_notes=1)
    two = reference.midi_bytes([reference.note_events([(0, 9, 60, 64), (0, 9, 61, 64)])])
    with pytest.warns(pl.DataLossWarning, match="1 of 2 files"):
        assert len(encoder.transform([two, one_note_file(0, 480)])) == 1
    assert "over the limit max_notes=1" in str(encoder.skipped_[0][1])


def test_nothing_but_broken_files_is_an_error():
    message = "None of the 2 files could be read; the first error: gone.mid: there is no such file"
    with pytest.raises(pl.MidiError, match=message):
        PianoRollEncoder(on_error="skip").transform(["gone.mid", b"x"])


def test_tracks_are_passed_on():
    voices = [[(0, 480, 60, 64)], [(0, 960, 72, 64)]]
    data = reference.midi_bytes([reference.note_events(v, channel=i) for i, v in enumerate(voices)])
    (roll,) = PianoRollEncoder(tracks=[1]).transform([data])
    assert columns(roll) == [(0, 20, 72, 64, False)]
    with pytest.raises(pl.MidiError, match="there is no track 5"):
        PianoRollEncoder(tracks=[5]).transform([data])


def program(number, channel):
    return (0, bytes([0xC0 | channel, number]))


def test_programs_are_passed_on():
    # Two programs, a piano (3) and a flute (73), in one track.
    events = [program(3, 0), program(73, 1)]
    events += reference.note_events([(0, 480, 60, 64)], 0)
    events += reference.note_events([(240, 960, 72, 50)], 1)
    data = reference.midi_bytes([events])
    piano, flute = (0, 10, 60, 64, False), (5, 20, 72, 50, False)
    for programs, expected in (
        (None, [piano, flute]),
        ([3], [piano]),
        (np.array([73]), [flute]),
        (range(128), [piano, flute]),
        ({0, 3}, [piano]),
    ):
        (roll,) = PianoRollEncoder(programs=programs).transform([data])
        assert columns(roll) == expected
    with pytest.raises(pl.MidiError, match="expected notes, got none"):
        PianoRollEncoder(programs=[0, 1]).transform([data])


def pedal(tick, value, channel=0):
    return (tick, bytes([0xB0 | channel, 64, value]))


def test_the_pedal_is_passed_on():
    # Down from 0.25 s to 1.25 s: 60 is held until it is struck again, then until the lift.
    notes = [(0, 480, 60, 64), (720, 960, 60, 70), (1000, 1440, 67, 50)]
    data = reference.midi_bytes([[pedal(240, 127), pedal(1200, 0), *reference.note_events(notes)]])
    (roll,) = PianoRollEncoder(fs=20).transform([data])
    assert [(s, e) for s, e, *_ in columns(roll)] == [(0, 10), (15, 20), (21, 30)]
    (roll,) = PianoRollEncoder(fs=20, pedal=True).transform([data])
    assert [(s, e) for s, e, *_ in columns(roll)] == [(0, 15), (15, 25), (21, 30)]
    (roll,) = PianoRollEncoder(fs=8, grid="beats", pedal=np.True_).transform([data])
    assert [(s, e) for s, e, *_ in columns(roll)] == [(0, 12), (12, 20), (17, 24)]


def test_fidelity_reads_what_transform_reads():
    notes = [(0, 480, 60, 64), (720, 960, 62, 70)]
    data = reference.midi_bytes(
        [
            [pedal(240, 127), pedal(606, 0), *reference.note_events(notes)],
            reference.note_events([(0, 480, 72, 64)], 1),
        ]
    )
    # The pedal is lifted at 606 ticks: 0.63125 s, frame 12.625, 18.75 ms before frame 13.
    kept = PianoRollEncoder(fs=20, pedal=True, tracks=[0]).fidelity([data])
    assert kept["notes"].tolist() == [2]
    assert kept["offset_ms"].tolist() == [pytest.approx(18.75 / 2)]
    with pytest.raises(pl.MidiError, match="over the limit max_notes=2"):
        PianoRollEncoder(max_notes=2).fidelity([data])


# -------------------------------------------------------------------------------------- design laws


@st.composite
def files(draw):
    """Arbitrary files: notes that overlap or have no length, all pitches, pedals, tempi."""
    resolution = draw(st.sampled_from([24, 96, 100, 220, 480]))
    start = st.one_of(st.sampled_from([0, 7, 240]), st.integers(0, 2000))
    note = st.tuples(start, st.integers(0, 900), pitches, velocities)
    notes = draw(st.lists(note, min_size=1, max_size=20))
    if draw(st.integers(0, 4)) == 0:
        notes += [(480 + p, 300 - p, p, 1 + p % 127) for p in range(128)]
    notes = [(a, a + n, p, v) for a, n, p, v in notes]
    # A note of no length ends after it begins, all others end before the next begins.
    short = [note for note in notes if note[0] == note[1]]
    long = [note for note in notes if note[0] < note[1]]
    events = reference.note_events(long)
    events += [event for note in short for event in reversed(reference.note_events([note]))]
    moves = st.tuples(st.integers(0, 2500), st.sampled_from([0, 63, 64, 127]))
    events += [pedal(*move) for move in draw(st.lists(moves, max_size=6))]
    change = st.tuples(st.integers(0, 2500), st.integers(200_000, 1_500_000))
    tempi = [reference.tempo_event(*c) for c in draw(st.lists(change, max_size=4))]
    return notes, resolution, reference.midi_bytes([tempi, events], resolution)


@given(files(), st.sampled_from([20, 100, 12.5, 3]), st.booleans())
def test_the_roll_of_a_roll_is_the_roll_on_seconds(file, fs, pedal):
    encoder = PianoRollEncoder(fs=fs, pedal=pedal)
    rolls = encoder.transform([file[2]])
    assert encoder.transform(encoder.inverse_transform(rolls)) == rolls


@given(files(), st.sampled_from([1, 4, 12, 24]), st.booleans())
def test_the_roll_of_a_roll_is_the_roll_on_beats(file, fs, pedal):
    encoder = PianoRollEncoder(fs=fs, grid="beats", pedal=pedal)
    rolls = encoder.transform([file[2]])
    assert encoder.transform(encoder.inverse_transform(rolls)) == rolls


def in_quarters(source, *, pedal=False):
    """Onset, release and pitch of each note in quarter notes."""
    notes = pl.read_notes(source, pedal=pedal)
    start, end = (
        notes.tempo_map.to_ticks(t) / notes.tempo_map.ticks_per_quarter
        for t in (notes.start, notes.end)
    )
    return list(zip(start.tolist(), end.tolist(), notes.pitch.tolist(), strict=True))


@given(files(), st.sampled_from([1, 4, 12, 24]), st.booleans())
def test_notes_on_beats_stay_within_half_a_frame(file, fs, pedal):
    notes, resolution, data = file
    encoder = PianoRollEncoder(fs=fs, grid="beats", pedal=pedal)
    (midi,) = encoder.inverse_transform(encoder.transform([data]))
    back = in_quarters(midi)
    half = (0.5 + 1e-5) / fs

    onsets = {(start / resolution, pitch) for start, _, pitch, _ in notes}
    for onset, pitch in onsets:
        assert any(q == pitch and abs(t - onset) <= half for t, _, q in back)
    for t, _, q in back:
        assert any(q == pitch and abs(t - onset) <= half for onset, pitch in onsets)

    releases = {(end, pitch) for _, end, pitch in in_quarters(data, pedal=pedal)}
    begun = {(round(t * fs), q) for t, _, q in back}
    for t, end, q in back:
        is_cut = (round(end * fs), q) in begun
        has_one_frame = round((end - t) * fs) == 1
        near = any(q == pitch and abs(end - release) <= half for release, pitch in releases)
        assert is_cut or has_one_frame or near


@given(rolls(min_notes=1, grid="beats"), st.sampled_from([30, 90.5, 120, 240]))
def test_beats_play_at_a_constant_tempo(roll, tempo):
    encoder = PianoRollEncoder(fs=roll.fs, grid="beats")
    (midi,) = encoder.inverse_transform([roll], tempo=tempo)
    assert midi.get_tempo_changes()[1].tolist() == [pytest.approx(tempo, rel=1e-5)]
    seconds_per_frame = round(6e7 / tempo) / 1e6 / roll.fs
    found = sorted((n.start, n.end, n.pitch, n.velocity) for n in midi.instruments[0].notes)
    expected = sorted(
        (a * seconds_per_frame, b * seconds_per_frame, p, v) for a, b, p, v, _ in columns(roll)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    (again,) = encoder.transform([midi])
    assert columns(again) == [(*note[:4], False) for note in columns(roll)]
    assert len(again) == len(roll)


def test_a_tempo_is_refused_on_seconds():
    with pytest.raises(pl.InvalidInputError, match='A tempo belongs to grid="beats"'):
        PianoRollEncoder().inverse_transform([ROLL], tempo=120)


# ----------------------------------------------------------------------------------------- fidelity


def midi_of(notes):
    """A PrettyMIDI of (start, end, pitch, velocity) in seconds, as they stand."""
    midi = pretty_midi.PrettyMIDI(initial_tempo=120)
    piano = pretty_midi.Instrument(0)
    piano.notes = [pretty_midi.Note(v, p, start, end) for start, end, p, v in notes]
    midi.instruments.append(piano)
    return midi


def fidelity_of(source, *, tolerance=0.05, **parameters):
    kept = PianoRollEncoder(**parameters).fidelity([source], tolerance=tolerance)
    return {name: values[0] for name, values in kept.items()}


MEASURES = [
    "notes",
    "recall",
    "precision",
    "onset_ms",
    "offset_ms",
    "velocity",
    "struck_again",
    "struck_again_kept",
]


def test_fidelity_by_hand():
    notes = [
        (0.000, 0.500, 60, 64),  # exact
        (0.512, 0.730, 60, 80),  # 0.24 of a frame after: struck again; 12 and 20 ms off
        (1.000, 1.008, 72, 50),  # these two begin in frame 20: one is left, loudest and longest
        (1.016, 1.300, 72, 30),  # struck again; it comes to frame 20.32, and is merged
        (1.590, 1.900, 48, 90),  # 31.8: 10 ms off
        (2.000, 2.100, 48, 90),  # two frames after: not struck again
        (2.100, 2.200, 50, 90),  # not of its pitch
    ]
    kept = fidelity_of(midi_of(notes), fs=20)
    assert list(kept) == MEASURES
    # 60: 0-10, 10-15 (0.5-0.75); 72: 20-26 (1.0-1.3, velocity 50, goes with the first of the two);
    # 48: 32-38 (1.6-1.9), 40-42; 50: 42-44.
    assert kept["notes"] == 7
    assert kept["recall"] == pytest.approx(6 / 7)
    assert kept["precision"] == 1
    assert kept["onset_ms"] == pytest.approx((12 + 10) / 6)
    assert kept["offset_ms"] == pytest.approx((20 + 292) / 6)
    assert kept["velocity"] == 0
    assert kept["struck_again"] == 2
    assert kept["struck_again_kept"] == 0.5


def test_fidelity_is_measured_where_the_roll_plays():
    # On beats frames are seconds only through the tempi: quarters 0-1 at 0.5 s, then 1 s each.
    tempi = [reference.tempo_event(0, 500_000), reference.tempo_event(480, 1_000_000)]
    notes = [(0, 480, 60, 64), (490, 980, 60, 70), (1420, 1500, 64, 70)]
    data = reference.midi_bytes([tempi, reference.note_events(notes)])
    # With 4 frames of 120 ticks: 490 comes to 480, 980 to 960, 1420 to 1440, and 1500 to 1560 (up).
    kept = fidelity_of(data, fs=4, grid="beats")
    ms = 1000 / 480  # a tick of the second tempo
    assert kept["onset_ms"] == pytest.approx((10 + 20) * ms / 3)
    assert kept["offset_ms"] == pytest.approx((20 + 60) * ms / 3)
    assert (kept["recall"], kept["precision"]) == (1, 1)
    assert (kept["struck_again"], kept["struck_again_kept"]) == (1, 1)
    kept = fidelity_of(data, fs=4, grid="beats", tolerance=0.03)
    assert (kept["recall"], kept["precision"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert kept["onset_ms"] == pytest.approx(10 * ms / 2)


def test_fidelity_has_no_mean_of_nothing():
    kept = fidelity_of(midi_of([(0.24, 0.3, 60, 64)]), fs=1)  # rounded to 0, 240 ms off
    assert (kept["recall"], kept["precision"]) == (0, 0)
    for name in ("onset_ms", "offset_ms", "velocity", "struck_again_kept"):
        assert np.isnan(kept[name])
    assert kept["struck_again"] == 0


def test_fidelity_has_one_entry_a_piece():
    sources = [midi_of([(0, 1, 60, 64)] * n) for n in (1, 2, 3)]
    kept = PianoRollEncoder().fidelity(sources)
    assert list(kept) == MEASURES
    assert all(v.shape == (3,) and v.dtype == np.float64 for v in kept.values())
    assert kept["notes"].tolist() == [1, 2, 3]
    assert kept["recall"].tolist() == [1, 1 / 2, 1 / 3]
    assert kept["precision"].tolist() == [1, 1, 1]


def judged(notes, roll, tolerance):
    """Precision and recall as mir_eval finds them in the two lists of notes."""
    (reference_part,), (estimate,) = midi_of(notes).instruments, roll.to_midi().instruments
    lists = []
    for part in (reference_part.notes, estimate.notes):
        hertz = mir_eval.util.midi_to_hz(np.array([n.pitch for n in part]))
        lists += [np.array([[n.start, n.end] for n in part]), hertz]
    precision, recall, *_ = mir_eval.transcription.precision_recall_f1_overlap(
        *lists, onset_tolerance=tolerance, offset_ratio=None
    )
    return precision, recall


def is_far_from_the_tolerance(notes, roll, tolerance):
    """Whether no pair of onsets lies where a rounding decides if it matches."""
    onsets = np.array([n[0] for n in notes])
    played = roll.frames_to_seconds(roll.notes["start"])
    return (np.abs(np.abs(onsets[:, None] - played) - tolerance) > 2e-4).all()


crowded = st.lists(
    st.tuples(
        st.integers(0, 1500),
        st.integers(1, 400),
        st.sampled_from([0, 60, 61, 127]),
        st.integers(1, 127),
    ),
    min_size=1,
    max_size=30,
).map(lambda notes: [(a / 1000, (a + n) / 1000, p, v) for a, n, p, v in notes])


@pytest.mark.parametrize("grid", ["seconds", "beats"])
@given(crowded, st.sampled_from([2, 5, 9, 20, 100]), st.sampled_from([0.0303, 0.05, 0.1207]))
def test_fidelity_agrees_with_mir_eval(grid, notes, fs, tolerance):
    encoder, midi = PianoRollEncoder(fs=fs, grid=grid), midi_of(notes)
    (roll,) = encoder.transform([midi])
    assume(is_far_from_the_tolerance(notes, roll, tolerance))
    kept = fidelity_of(midi, fs=fs, grid=grid, tolerance=tolerance)
    precision, recall = judged(notes, roll, tolerance)
    assert kept["precision"] == pytest.approx(precision)
    assert kept["recall"] == pytest.approx(recall)


@given(crowded, st.sampled_from([7, 20]))
def test_struck_again_equals_a_double_loop(notes, fs):
    exact = [(round(1000 * a), round(1000 * b), p) for a, b, p, _ in notes]
    by_pitch = {}
    for a, b, p in sorted(exact, key=lambda note: note[0]):
        by_pitch.setdefault(p, []).append((a, b))
    gaps = [
        Fraction((later[0] - earlier[1]) * fs, 1000)
        for line in by_pitch.values()
        for earlier, later in pairwise(line)
    ]
    assume(1 not in gaps)
    assert fidelity_of(midi_of(notes), fs=fs)["struck_again"] == sum(gap < 1 for gap in gaps)


def test_an_onset_as_far_off_as_the_tolerance_matches():
    # At fs=10 half a frame is 50 ms: every onset here is as far off as it may be.
    notes = [(0.05 + 0.1 * k, 0.15 + 0.1 * k, p, 64) for k in range(30) for p in (10, 60, 100)]
    (roll,) = PianoRollEncoder(fs=10).transform([midi_of(notes)])
    assert judged(notes, roll, 0.05) == (1, 1)
    assert fidelity_of(midi_of(notes), fs=10)["recall"] == 1


def test_a_note_a_whole_frame_after_is_not_struck_again():
    start = np.arange(0, 1500, 3)
    for grid in ("seconds", "beats"):
        roll = PianoRoll.from_notes(start, start + 2, [60] * 500, fs=12, grid=grid)
        assert fidelity_of(roll.to_midi(), fs=12, grid=grid)["struck_again"] == 0


@pytest.mark.parametrize("tolerance", [0, -0.05, float("nan"), "50 ms", None])
def test_fidelity_refuses_tolerances(tolerance):
    message = f"tolerance must be a number of seconds; got {tolerance!r}"
    with pytest.raises(pl.InvalidInputError, match=message):
        PianoRollEncoder().fidelity([one_note_file(0, 480)], tolerance=tolerance)


def test_fidelity_refuses_what_transform_refuses(tmp_path):
    with pytest.raises(pl.InvalidInputError, match="wrap it in a list"):
        PianoRollEncoder().fidelity(one_note_file(0, 480))
    with pytest.raises(pl.InvalidInputError, match="fs must be a number"):
        PianoRollEncoder(fs=0).fidelity([one_note_file(0, 480)])
    with pytest.raises(pl.MidiError, match=r"gone\.mid: there is no such file"):
        PianoRollEncoder(on_error="skip").fidelity([tmp_path / "gone.mid"])
