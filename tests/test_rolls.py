"""Rolls and the encoder, against frame-by-frame loops, exact fractions and mir_eval."""

from __future__ import annotations

import copy
import pickle
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
from pianolstm.rolls import as_rolls
from strategies import length_of, note_lists, roll_of, rolls, tempo_maps

DATA = Path(__file__).parents[2] / "shared" / "data" / "piano-midi"
PIECES = ["alb_esp1.mid", "clementi_opus36_2_2_format0.mid", "waldstein_2.mid"]

ROLL = PianoRoll.from_notes([0, 2, 3, 6], [4, 6, 5, 9], [60, 67, 64, 60], [10, 20, 30, 40])


def columns(roll):
    """Notes of a roll as tuples."""
    return roll.notes.tolist()


def one_note_file(start, end, tempi=(), ticks_per_quarter=480, end_marker=0):
    events = [*reference.note_events([(start, end, 60, 64)]), (end_marker, b"\xb0\x7b\x00")]
    tempo = [reference.tempo_event(*change) for change in tempi]
    return reference.midi_bytes([tempo, events], ticks_per_quarter)


# -------------------------------------------------------------------------------- canonical form


def test_canonical_form_by_hand():
    roll = PianoRoll.from_notes(
        start=[8, 0, 0, 4, 0, 5, 10, 10],
        end=[8, 6, 3, 9, 2, 6, 11, 12],
        pitch=[50, 60, 60, 60, 48, 48, 70, 70],
        velocity=[9, 20, 30, 40, 50, 60, 80, 70],
        n_frames=12,
    )
    assert columns(roll) == [
        (0, 2, 48, 50, False),
        (0, 4, 60, 30, False),  # the longest and loudest of two, cut where 60 is struck again
        (4, 9, 60, 40, False),
        (5, 6, 48, 60, False),
        (8, 9, 50, 9, False),  # of no length: one frame
        (10, 12, 70, 80, False),
    ]
    assert (len(roll), roll.fs, roll.grid, roll.tempo_map) == (12, 20, "seconds", None)


@given(note_lists(), st.integers(0, 15), st.data())
def test_canonical_form_equals_the_reference(notes, rest, data):
    n_frames = length_of(notes) + rest
    tied = data.draw(st.lists(st.booleans(), min_size=len(notes), max_size=len(notes)))
    roll = roll_of(notes, n_frames, tied=tied)
    expected = reference.canonical([(*n, t) for n, t in zip(notes, tied, strict=True)])
    assert columns(roll) == expected
    assert len(roll) == roll.n_frames == n_frames
    assert PianoRoll(roll.notes, n_frames) == roll


@given(note_lists(min_size=1), st.randoms())
def test_the_order_of_notes_is_irrelevant(notes, random):
    shuffled = list(notes)
    random.shuffle(shuffled)
    assert roll_of(shuffled, None) == roll_of(notes, None)
    assert len(roll_of(notes, None)) == length_of(notes)


@given(rolls())
def test_planes_equal_the_reference(roll):
    velocity, onset = reference.planes(columns(roll), len(roll))
    assert roll.velocity.dtype == np.uint8 and roll.onset.dtype == bool
    assert roll.velocity.tolist() == velocity
    assert roll.onset.tolist() == onset
    assert np.array_equal(np.asarray(roll), roll.velocity)


def test_all_pitches_at_once():
    roll = PianoRoll.from_notes([3] * 128, [5] * 128, range(128), 77, n_frames=6)
    assert roll.notes["pitch"].tolist() == list(range(128))
    assert roll.velocity.sum(axis=1).tolist() == [0, 0, 0, 128 * 77, 128 * 77, 0]


def test_a_note_is_tied_at_frame_0_unless_it_is_struck_there():
    roll = PianoRoll.from_notes(
        [0, 0, 0, 3], [2, 4, 5, 4], [60, 60, 62, 62], 7, tied=[True, False, True, True]
    )
    assert columns(roll) == [(0, 4, 60, 7, False), (0, 3, 62, 7, True), (3, 4, 62, 7, False)]
    assert roll.onset.sum(axis=0)[[60, 62]].tolist() == [1, 1]


def test_a_scalar_velocity_and_a_default_one():
    assert PianoRoll.from_notes([0, 1], [1, 2], [60, 61], 99).notes["velocity"].tolist() == [99, 99]
    assert PianoRoll.from_notes([0], [1], [60]).notes["velocity"].tolist() == [64]


def test_a_roll_without_notes():
    roll = PianoRoll.from_notes([], [], [], n_frames=7)
    assert (len(roll), len(roll.notes), roll.velocity.shape) == (7, 0, (7, 128))
    assert len(PianoRoll.from_notes([], [], [])) == 0


# ------------------------------------------------------------------------------------ from_array


@given(rolls())
def test_from_array_of_both_planes_is_the_roll(roll):
    velocities = roll.notes["velocity"]
    assume(len(velocities) == 0 or velocities.max() > 1)  # nothing but 1 reads as a binary roll
    made = PianoRoll.from_array(
        roll.velocity, onset=roll.onset, fs=roll.fs, grid=roll.grid, tempo_map=roll.tempo_map
    )
    assert made == roll


def test_from_array_by_hand():
    plane = np.zeros((6, 128), int)
    plane[1:4, 60] = [90, 30, 90]
    plane[3:6, 64] = 50
    onset = np.zeros((6, 128), bool)
    onset[[2, 0], [60, 64]] = True  # the second is silent: no note
    expected = [(1, 2, 60, 90, False), (2, 4, 60, 30, False), (3, 6, 64, 50, False)]
    assert columns(PianoRoll.from_array(plane, onset=onset)) == expected
    assert columns(PianoRoll.from_array(plane.tolist())) == [
        (1, 4, 60, 90, False),
        (3, 6, 64, 50, False),
    ]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_a_binary_array_gets_velocity_64(dtype):
    plane = np.zeros((3, 128), dtype)
    plane[1:, 7] = 1
    assert columns(PianoRoll.from_array(plane)) == [(1, 3, 7, 64, False)]


def with_value(value):
    plane = np.zeros((4, 128))
    plane[2, 60] = value
    return plane


@pytest.mark.parametrize(
    ("plane", "message"),
    [
        (np.zeros((128, 40)), r"shape \(128, 40\); .*pass its transpose, array\.T"),
        (np.zeros((40, 88)), r"of shape \(n_frames, 128\), time first; got shape \(40, 88\)\.$"),
        (np.zeros(128), r"got shape \(128,\)"),
        (np.zeros((2, 40, 128)), r"got shape \(2, 40, 128\)"),
        (with_value(128), "between 0 and 127; got values from 0.0 to 128.0"),
        (with_value(-1), "between 0 and 127; got values from -1.0"),
        (with_value(np.nan), "expected finite numbers"),
        (with_value(np.inf), "expected finite numbers"),
        (with_value(0.5), "expected whole numbers; got fractions"),
        (np.full((2, 128), "a"), "expected finite numbers; got dtype <U1"),
    ],
)
def test_from_array_refuses(plane, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        PianoRoll.from_array(plane)


def test_from_array_refuses_onsets_of_another_shape():
    with pytest.raises(pl.InvalidInputError, match=r"shape of array, \(4, 128\); got \(3, 128\)"):
        PianoRoll.from_array(np.zeros((4, 128)), onset=np.zeros((3, 128)))


# ------------------------------------------------------------------------------------ from_notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0], [1], [128]), "pitch must lie between 0 and 127; got values from 128 to 128"),
        (([0, 0], [1, 1], [60, -1]), "pitch must lie between 0 and 127; got values from -1 to 60"),
        (([0], [1], [60], [0]), "velocity must lie between 1 and 127; got values from 0"),
        (([0], [1], [60], [128]), "velocity must lie between 1 and 127"),
        (([-1], [1], [60]), "start must lie between 0 and"),
        (([0], [2**31], [60]), "end must lie between 0 and 2147483647"),
        (([0.5], [1], [60]), "start: expected whole numbers; got fractions"),
        (([0], [np.nan], [60]), "end: expected finite numbers"),
        ((["a"], [1], [60]), "start: expected finite numbers"),
        (([0, 5], [1, 3], [60, 61]), "Note 1 ends at frame 3, before it starts at 5"),
        (([0, 1], [1, 2, 3], [60, 61]), r"one entry a note; got lengths \[2, 3, 2, 1, 1\]"),
    ],
)
def test_from_notes_refuses(arguments, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        PianoRoll.from_notes(*arguments)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"n_frames": 8}, "A note lasts to frame 9, but the roll has 8 frames"),
        ({"n_frames": -1}, "n_frames must lie between 0 and"),
        ({"fs": 0}, "fs must be a number of frames above 0 and below 1e6; got 0"),
        ({"fs": -4.0}, "got -4.0"),
        ({"fs": float("nan")}, "got nan"),
        ({"fs": 1e6}, "below 1e6"),
        ({"fs": "20"}, "got '20'"),
        ({"fs": True}, "got True"),
        ({"fs": 12.5, "grid": "beats"}, "whole number of frames per quarter note; got 12.5"),
        ({"grid": "bars"}, """grid must be "seconds" or "beats"; got 'bars'"""),
        ({"tempo_map": TempoMap()}, 'A tempo map belongs to grid="beats"'),
        (
            {"fs": 40_000, "grid": "beats"},
            "finer than a MIDI file can tell.*choose a smaller fs",
        ),
    ],
)
def test_a_roll_refuses_a_wrong_grid(keywords, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        PianoRoll.from_notes([0, 4], [3, 9], [60, 61], **keywords)


# ----------------------------------------------------------------------- slices and concatenation


def test_slices_by_hand():
    assert columns(ROLL[3:7]) == [
        (0, 1, 60, 10, True),
        (0, 2, 64, 30, False),
        (0, 3, 67, 20, True),
        (3, 4, 60, 40, False),
    ]
    assert len(ROLL[3:7]) == 4
    assert columns(ROLL[-3:]) == [(0, 3, 60, 40, False)]
    assert ROLL[:] == ROLL and ROLL[-100:100] == ROLL
    assert not ROLL[3:7].onset[0, 60] and ROLL[3:7].onset[0, 64]


@given(rolls().filter(len), st.data())
def test_slices_equal_the_reference(roll, data):
    a = data.draw(st.integers(0, len(roll) - 1))
    b = data.draw(st.integers(a + 1, len(roll)))
    part = roll[a:b]
    expected = sorted(reference.cut(columns(roll), a, b), key=lambda n: (n[0], n[2]))
    assert columns(part) == expected
    assert (len(part), part.fs, part.grid) == (b - a, roll.fs, roll.grid)
    assert part.seconds == pytest.approx(
        roll.frames_to_seconds(b) - roll.frames_to_seconds(a), abs=1e-9
    )
    c = data.draw(st.integers(0, b - a - 1))
    d = data.draw(st.integers(c + 1, b - a))
    assert part[c:d] == roll[a + c : a + d]


@pytest.mark.parametrize("index", [slice(3, 3), slice(7, 4), slice(100, 200), slice(0, 0)])
def test_a_slice_of_no_frames_is_empty(index):
    part = ROLL[index]
    assert (len(part), len(part.notes)) == (0, 0)
    assert PianoRoll.concatenate([ROLL[:3], part, ROLL[3:]]) == ROLL


@given(rolls(), st.data())
def test_concatenated_slices_are_the_whole(roll, data):
    cuts = data.draw(st.lists(st.integers(1, max(1, len(roll) - 1)), unique=True, max_size=6))
    edges = [0, *sorted(c for c in cuts if c < len(roll)), len(roll)]
    parts = [roll[a:b] for a, b in pairwise(edges)]
    assert PianoRoll.concatenate(parts) == roll


@given(
    note_lists(min_size=1),
    st.integers(1, 40),
    st.sampled_from([(1023, 64), (1021, 36), (32_749, 7)]),
    st.data(),
)
def test_slices_join_where_frames_fall_between_ticks(notes, at, resolution, data):
    ticks_per_quarter, fs = resolution
    tempo = data.draw(tempo_maps(ticks_per_quarter))
    roll = roll_of(notes, length_of(notes) + 40, fs=fs, grid="beats", tempo_map=tempo)
    assert PianoRoll.concatenate([roll[:at], roll[at:]]) == roll
    middle = data.draw(st.integers(at + 1, len(roll)))
    parts = [roll[:at], roll[at:middle], roll[middle:]] if middle < len(roll) else [roll]
    assert PianoRoll.concatenate(parts) == roll


def test_a_tempo_that_begins_within_a_frame_stays_on_its_tick():
    tempo = TempoMap([0, 56], [500_000, 400_000], 1021)  # 28.4 ticks to a frame
    roll = PianoRoll.from_notes([0], [9], [60], fs=36, grid="beats", tempo_map=tempo)
    assert PianoRoll.concatenate([roll[:1], roll[1:2], roll[2:]]) == roll


def test_concatenate_by_hand():
    first = PianoRoll.from_notes([0, 1], [4, 3], [60, 64], [10, 20])
    second = PianoRoll.from_notes(
        [0, 0, 0], [2, 5, 1], [60, 64, 67], [30, 40, 50], tied=[True, True, False]
    )
    assert columns(PianoRoll.concatenate([first, second])) == [
        (0, 6, 60, 10, False),  # goes on
        (1, 3, 64, 20, False),
        (4, 9, 64, 40, False),  # nothing sounds before it: a note of its own
        (4, 5, 67, 50, False),
    ]


def test_a_tie_goes_through_a_roll_that_it_fills():
    held = PianoRoll.from_notes([0], [9], [60], [77])
    assert PianoRoll.concatenate([held[:2], held[2:5], held[5:6], held[6:]]) == held
    assert PianoRoll.concatenate([held[2:5], held[5:]]) == held[2:]


def test_concatenate_joins_tempo_maps_of_different_resolution():
    one = PianoRoll.from_notes(
        [0], [4], [60], fs=4, grid="beats", tempo_map=TempoMap([0, 24], [400_000, 500_000], 96)
    )
    other = PianoRoll.from_notes(
        [1], [8], [60], fs=4, grid="beats", tempo_map=TempoMap([0, 120], [600_000, 300_000], 120)
    )
    joined = PianoRoll.concatenate([one, other])
    expected = TempoMap([0, 120, 480, 960], [400_000, 500_000, 600_000, 300_000], 480)
    assert joined.tempo_map == expected
    assert joined.seconds == pytest.approx(one.seconds + other.seconds)


def test_concatenate_refuses():
    other = PianoRoll.from_notes([0], [1], [60], fs=10)
    with pytest.raises(pl.InvalidInputError, match=r"rolls\[1\] has fs=10 .*expected fs=20"):
        PianoRoll.concatenate([ROLL, other])
    with pytest.raises(pl.InvalidInputError, match="rolls is empty"):
        PianoRoll.concatenate([])
    with pytest.raises(pl.InvalidInputError, match=r"Wrap it in a list: \[rolls\]"):
        PianoRoll.concatenate(ROLL)
    far = [
        PianoRoll.from_notes([0], [1], [60], fs=1, grid="beats", tempo_map=TempoMap([0], [1], r))
        for r in (1021, 1019)
    ]
    with pytest.raises(pl.InvalidInputError, match=r"no common resolution.*\[1019, 1021\]"):
        PianoRoll.concatenate(far)


@pytest.mark.parametrize("index", [3, slice(0, 8, 2), (slice(0, 2), 60), slice(None, None, -1)])
def test_a_roll_is_indexed_by_slices_of_time_alone(index):
    with pytest.raises(pl.InvalidInputError, match=r"sliced in time, as in roll\[100:200\]"):
        ROLL[index]


# ------------------------------------------------------------------------------ what a roll can do


def test_a_roll_is_immutable():
    with pytest.raises(AttributeError, match="immutable; fs can't be set"):
        ROLL.fs = 3
    with pytest.raises(AttributeError, match="immutable; notes can't be deleted"):
        del ROLL.notes
    with pytest.raises(ValueError, match="read-only"):
        ROLL.notes["pitch"][0] = 3
    with pytest.raises(TypeError, match="not iterable"):
        iter(ROLL)


@given(rolls())
def test_copies_are_equal_and_hash_alike(roll):
    for twin in (pickle.loads(pickle.dumps(roll)), copy.deepcopy(roll), roll[:]):
        assert twin == roll and hash(twin) == hash(roll)


def test_rolls_differ_in_each_of_their_parts():
    keywords = {"n_frames": 20, "fs": 4, "grid": "beats"}
    roll = PianoRoll.from_notes([1, 2], [3, 5], [60, 64], [7, 8], **keywords)
    tempo = {"tempo_map": TempoMap.constant(400_000)}
    for other in (
        PianoRoll.from_notes([1, 2], [3, 6], [60, 64], [7, 8], **keywords),
        PianoRoll.from_notes([1, 2], [3, 5], [60, 65], [7, 8], **keywords),
        PianoRoll.from_notes([1, 2], [3, 5], [60, 64], [7, 9], **keywords),
        PianoRoll.from_notes([1, 2], [3, 5], [60, 64], [7, 8], **keywords | {"n_frames": 21}),
        PianoRoll.from_notes([1, 2], [3, 5], [60, 64], [7, 8], **keywords | {"fs": 6}),
        PianoRoll.from_notes([1, 2], [3, 5], [60, 64], [7, 8], **keywords | {"grid": "seconds"}),
        PianoRoll.from_notes([1, 2], [3, 5], [60, 64], [7, 8], **keywords | tempo),
        "a roll",
    ):
        assert roll != other
    assert roll == PianoRoll.from_notes([2, 1], [5, 3], [64, 60], [8, 7], **keywords)
    tied = PianoRoll.from_notes([0], [3], [60], tied=True)
    assert tied != PianoRoll.from_notes([0], [3], [60])


def test_as_an_array_of_another_type():
    assert np.asarray(ROLL, dtype=np.float32).dtype == np.float32
    assert np.asarray(ROLL, dtype=bool).sum() == (4 + 4 + 2 + 3)
    with pytest.raises(ValueError, match="copy=False can't be"):
        np.asarray(ROLL, copy=False)


def test_repr_tells():
    assert repr(ROLL) == "<PianoRoll 4 notes, 9 frames at fs=20 (0.5 s), pitches 60-67>"
    assert repr(ROLL[:1]) == "<PianoRoll 1 note, 1 frames at fs=20 (0.1 s), pitches 60-60>"
    beats = PianoRoll.from_notes([], [], [], n_frames=6, fs=4, grid="beats")
    assert repr(beats) == "<PianoRoll 0 notes, 6 frames at fs=4 per quarter note (0.8 s)>"


def test_frames_to_seconds_by_hand():
    assert ROLL.frames_to_seconds([0, 1, 30]).tolist() == [0.0, 0.05, 1.5]
    assert ROLL.seconds == 0.45
    tempo = TempoMap([0, 480], [500_000, 1_000_000])
    beats = PianoRoll.from_notes([0], [12], [60], fs=4, grid="beats", tempo_map=tempo)
    assert beats.frames_to_seconds([2, 4, 6, 12]).tolist() == [0.25, 0.5, 1.0, 2.5]
    assert beats.seconds == 2.5


def test_to_midi_program_and_velocity():
    (piano,) = ROLL.to_midi(program=19, velocity=101).instruments
    assert piano.program == 19
    assert {n.velocity for n in piano.notes} == {101}
    assert sorted(n.velocity for n in ROLL.to_midi().instruments[0].notes) == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"program": 128}, "program must lie between 0 and 127; got values from 128"),
        ({"program": -1}, "program must lie between 0 and 127"),
        ({"program": 1.5}, "program: expected whole numbers"),
        ({"velocity": 0}, "velocity must lie between 1 and 127; got values from 0"),
        ({"velocity": 128}, "velocity must lie between 1 and 127"),
        ({"velocity": "loud"}, "velocity: expected finite numbers"),
    ],
)
def test_to_midi_refuses(keywords, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        ROLL.to_midi(**keywords)


def test_notebook_display_is_a_png():
    png = ROLL._repr_png_()
    assert png.startswith(b"\x89PNG\r\n") and len(png) > 1000


# --------------------------------------------------------------------------------------- as_rolls


def test_as_rolls_takes_rolls_and_arrays():
    plane = np.zeros((5, 128))
    plane[1:3, 60] = 40
    found = as_rolls([ROLL, plane])
    assert found[0] is ROLL
    assert columns(found[1]) == [(1, 3, 60, 40, False)] and found[1].fs == 20
    beats = PianoRoll.from_notes([0], [3], [60], fs=4, grid="beats")
    assert [(r.fs, r.grid) for r in as_rolls([plane, beats])] == [(4, "beats"), (4, "beats")]
    assert as_rolls([plane], fs=7)[0].fs == 7


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (ROLL, r"list with one entry a piece; got one piece .a PianoRoll.*Wrap it in a list: .X."),
        (np.zeros((9, 128)), r"an array of shape \(9, 128\).*Wrap it in a list"),
        ("a.mid", "must be a list of PianoRoll or of arrays .*; got str"),
        (None, "got NoneType"),
        (7, "got int"),
        ([], "X is empty; expected at least one piece"),
        (["a.mid"], "holds paths; turn them into rolls first: PianoRollEncoder"),
        ([Path("a.mid")], "holds paths"),
        ([ROLL, np.zeros((128, 9))], r"X\[1\]: Expected a piano roll.*array\.T"),
        ([np.full((3, 128), np.nan)], r"X\[0\]: .*finite"),
        ([ROLL, PianoRoll.from_notes([0], [1], [60], fs=10)], r"X\[1\] has fs=10.*expected fs=20"),
        (
            [ROLL, PianoRoll.from_notes([0], [1], [60], grid="beats")],
            r"X\[1\] has .*grid of beats; expected .*seconds. Encode all pieces with one",
        ),
    ],
)
def test_as_rolls_refuses(X, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        as_rolls(X)


# ---------------------------------------------------------------------------------------- encoder


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
    "tracks": [1],
    "on_error": 3,
    "max_seconds": -1,
    "max_frames": 2.5,
    "max_notes": "x",
}


def test_the_encoder_is_a_scikit_learn_estimator():
    assert PianoRollEncoder().get_params() == {
        "fs": 20,
        "grid": "seconds",
        "tracks": None,
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
        ({"on_error": "ignore"}, """on_error must be "raise" or "skip"; got 'ignore'"""),
        ({"tracks": 0}, "tracks"),
        ({"tracks": [0.5]}, "tracks"),
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
    message = r"2 of 4 files could not be read and were left out; the reasons stand in skipped_"
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
