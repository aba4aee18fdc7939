"""Rolls, against frame-by-frame loops and sums by hand."""

from __future__ import annotations

import copy
import pickle
import warnings
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import pianolstm as pl
import reference
from pianolstm import PianoRoll, TempoMap
from pianolstm.rolls import as_rolls
from strategies import length_of, note_lists, roll_of, rolls, tempo_maps

ROLL = PianoRoll.from_notes([0, 2, 3, 6], [4, 6, 5, 9], [60, 67, 64, 60], [10, 20, 30, 40])


def columns(roll):
    """Notes of a roll as tuples."""
    return roll.notes.tolist()


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
        (np.zeros((40, 87)), r"of shape \(n_frames, 128\), time first; got shape \(40, 87\)\.$"),
        (np.zeros((40, 88)), r"88 keys.*write np\.pad\(array, \(\(0, 0\), \(21, 19\)\)\)"),
        (with_value(254), r"values from 0\.0 to 254\.0\. If .* write np\.minimum\(array, 127\)"),
        (with_value(0.75), r"got fractions of 1: write np\.rint\(127 \* array\)"),
        (np.zeros(128), r"got shape \(128,\)"),
        (np.zeros((2, 40, 128)), r"got shape \(2, 40, 128\)"),
        (with_value(128), "between 0 and 127; got values from 0.0 to 128.0"),
        (with_value(-1), "between 0 and 127; got values from -1.0"),
        (with_value(np.nan), "expected finite numbers; got NaN or infinity"),
        (with_value(np.inf), "expected finite numbers; got NaN or infinity"),
        (with_value(1.5), "expected whole numbers; got fractions"),
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


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        # 1021 and 1019 ticks have no common multiple that a file can hold. A change at a quarter
        # note needs none, so 30 * 1019 ticks move nothing; with one elsewhere, 32,766 are finest.
        (1021, TempoMap([0, 30_570, 61_140, 112_140], [900, 700, 900, 700], 30_570)),
        (
            1100,
            TempoMap(
                [0, round(1100 * 32_766 / 1021), 65_532, 65_532 + round(1700 * 32_766 / 1019)],
                [900, 700, 900, 700],
                32_766,
            ),
        ),
    ],
)
def test_pieces_of_any_resolutions_are_joined(first, expected):
    far = [
        PianoRoll.from_notes(
            [0, 3], [3, 6], [60, 62], fs=3, grid="beats", tempo_map=TempoMap([0, n], [900, 700], r)
        )
        for n, r in ((first, 1021), (1700, 1019))
    ]
    joined = PianoRoll.concatenate(far)
    assert joined.notes["start"].tolist() == [0, 3, 6, 9]
    assert joined.tempo_map == expected
    assert joined.to_midi().resolution == expected.ticks_per_quarter


def test_a_long_piece_is_held_as_a_file_can_hold_it():
    """50,003 frames leave 199 ticks each; both halves' tempi change on multiples of 55."""
    parts = [
        PianoRoll.from_notes(
            [0],
            [1],
            [60],
            n_frames=n,
            fs=1,
            grid="beats",
            tempo_map=TempoMap([0, at], [500, 600], r),
        )
        for n, at, r in ((1, 0, 1), (1, 0, 1), (50_001, 330, 220))
    ]
    joined = PianoRoll.concatenate(parts)
    assert joined.tempo_map.ticks_per_quarter == 198
    assert joined.tempo_map.ticks.tolist() == [0, 2 * 198, 2 * 198 + 297]
    encoder = pl.PianoRollEncoder(fs=1, grid="beats")
    assert encoder.transform([joined.to_midi()]) == [joined]


def test_the_longest_file():
    longest = PianoRoll.from_notes([0], [9_999_999], [60], fs=1, grid="beats")
    assert longest.to_midi().resolution == 1
    for grid in ("beats", "seconds"):
        roll = PianoRoll.from_notes([0], [10_000_000], [60], fs=1, grid=grid)
        with pytest.raises(pl.InvalidInputError, match=r"takes fewer than 10,000,000.*roll\[a:b\]"):
            roll.to_midi()


@given(
    st.integers(1, 32_767),
    st.sampled_from([1, 4, 7, 12, 24, 96]),
    st.integers(1, 10),
    st.booleans(),
)
def test_every_resolution_is_read_and_written(ticks_per_quarter, fs, quarters, is_late):
    """A file of each, long ones among them, comes back as the same roll from the second time on."""
    # A delta time has at most 28 bits.
    quarters = min(2_000 * quarters, (2**28 - 1) // ticks_per_quarter) if is_late else 0
    begin = quarters * ticks_per_quarter
    notes = [(begin, begin + ticks_per_quarter, 60, 70)]
    notes.append((begin + 2 * ticks_per_quarter, begin + 3 * ticks_per_quarter, 62, 71))
    tempi = [
        reference.tempo_event(0, 400_000),
        reference.tempo_event(ticks_per_quarter // 2, 410_000),
    ]
    data = reference.midi_bytes([tempi, reference.note_events(notes)], ticks_per_quarter)
    for encoder in (
        pl.PianoRollEncoder(fs=fs, grid="beats", max_seconds=None, max_frames=None),
        pl.PianoRollEncoder(fs=fs, max_seconds=None, max_frames=None),
    ):
        (roll,) = encoder.transform([data])
        if encoder.grid == "beats":
            assert roll.notes["start"].tolist() == [quarters * fs, (quarters + 2) * fs]
        if len(roll) >= 10_000_000 / 1.01:
            continue
        (again,) = encoder.transform(encoder.inverse_transform([roll]))
        assert np.array_equal(again.notes, roll.notes)
        assert again.n_frames == roll.n_frames
        assert again.seconds == pytest.approx(roll.seconds, rel=1e-4)
        assert encoder.transform(encoder.inverse_transform([again])) == [again]
        assert (
            PianoRoll.concatenate([roll, again])[: len(roll)].notes.tolist() == roll.notes.tolist()
        )


@pytest.mark.parametrize("fs", [np.array(4), np.int16(4), np.float32(4.0), np.array(4.0)])
def test_numbers_of_numpy_as_fs(fs):
    roll = PianoRoll.from_notes([0], [3], [60], fs=fs)
    assert type(roll.fs) is int
    assert roll == PianoRoll.from_notes([0], [3], [60], fs=4)


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


# --------------------------------------------------------------------------- transpose and stretch


def shifted(notes, by):
    return [(start, end, pitch + by, *rest) for start, end, pitch, *rest in notes]


def test_transpose_by_hand():
    tied = PianoRoll.from_notes(
        [0, 0, 2], [3, 1, 4], [60, 64, 64], [9, 8, 7], n_frames=6, fs=25, tied=[True, False, False]
    )
    lower = tied.transpose(-5)
    assert columns(lower) == [
        (0, 3, 55, 9, True),
        (0, 1, 59, 8, False),
        (2, 4, 59, 7, False),
    ]
    assert (len(lower), lower.fs, lower.grid) == (6, 25, "seconds")
    assert columns(tied)[0] == (0, 3, 60, 9, True)
    assert columns(tied.transpose(np.int64(3)))[0] == (0, 3, 63, 9, True)


@given(rolls(min_notes=1), st.data())
def test_transpose_shifts_pitches_alone_and_back(roll, data):
    pitch = roll.notes["pitch"]
    by = data.draw(st.integers(-int(pitch.min()), 127 - int(pitch.max())))
    moved = roll.transpose(by)
    assert columns(moved) == shifted(columns(roll), by)
    assert (len(moved), moved.fs, moved.grid) == (len(roll), roll.fs, roll.grid)
    assert moved.tempo_map == roll.tempo_map
    assert moved.transpose(-by) == roll
    assert np.array_equal(np.roll(roll.velocity, by, axis=1), moved.velocity)


@given(rolls(min_notes=1), st.data())
def test_transpose_shifts_each_chord(roll, data):
    pitch = roll.notes["pitch"]
    by = data.draw(st.integers(-int(pitch.min()), 127 - int(pitch.max())))
    first = data.draw(st.integers(0, len(roll) - 1))
    part = roll[first:]  # with ties
    (sequence,) = pl.ChordTokenizer(max_tokens=1).fit_transform([part.transpose(by)])
    found = [reference.chord_of_bits(c) for c in sequence.chords(np.zeros((1, 4), np.uint64))]
    expected = reference.chords(columns(part), len(part))
    assert found == [
        tuple(frozenset(p + by for p in pitches) for pitches in chord) for chord in expected
    ]


def test_a_roll_without_notes_can_go_anywhere():
    silent = PianoRoll.from_notes([], [], [], n_frames=5)
    assert silent.transpose(127) == silent and silent.transpose(-127) == silent


@pytest.mark.parametrize(
    ("semitones", "message"),
    [
        (61, "Transposed by 61 semitones, pitches 60 to 67 would leave 0-127"),
        (-61, "Transposed by -61 semitones, pitches 60 to 67 would leave 0-127; choose a smaller"),
        (128, "semitones must lie between -127 and 127; got values from 128"),
        (1.5, "semitones: expected whole numbers; got fractions"),
        ("up", "semitones: expected finite numbers"),
    ],
)
def test_transpose_refuses(semitones, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        ROLL.transpose(semitones)


def test_the_widest_transpositions():
    assert ROLL.transpose(60).notes["pitch"].max() == 127
    assert ROLL.transpose(-60).notes["pitch"].min() == 0


def test_stretch_by_hand():
    # Halves go up: 1 and 3 frames are 1.5 and 4.5; 5 and 7 are 7.5 and 10.5; the end, 9, is 13.5.
    roll = PianoRoll.from_notes(
        [0, 1, 3], [2, 3, 7], [60, 64, 67], [9, 8, 7], n_frames=9, fs=25, tied=[True, False, False]
    )
    longer = roll.stretch(1.5)
    assert columns(longer) == [(0, 3, 60, 9, True), (2, 5, 64, 8, False), (5, 11, 67, 7, False)]
    assert (len(longer), longer.fs, longer.grid) == (14, 25, "seconds")
    # 1 and 3 frames are 0.5 and 1.5: up again; a note keeps a frame, and the roll has room for it.
    shorter = roll.stretch(0.5)
    assert columns(shorter) == [(0, 1, 60, 9, True), (1, 2, 64, 8, False), (2, 4, 67, 7, False)]
    assert len(shorter) == 5
    last = PianoRoll.from_notes([8], [9], [60], n_frames=9).stretch(0.1)
    assert (columns(last), len(last)) == ([(1, 2, 60, 64, False)], 2)


@given(rolls(grid="seconds"), st.sampled_from([2, 3, 4, np.float32(8), np.int64(2)]))
def test_stretch_there_and_back_is_the_identity_on_seconds(roll, factor):
    longer = roll.stretch(factor)
    k = int(factor)
    assert columns(longer) == [(k * a, k * b, *rest) for a, b, *rest in columns(roll)]
    assert len(longer) == k * len(roll)
    if k != 3:  # a third is no float
        assert longer.stretch(1 / k) == roll


@given(rolls(min_notes=1, grid="seconds"), st.sampled_from([0.3125, 0.5, 0.75, 1.3125]))
def test_stretch_counts_the_notes_it_merges(roll, factor):
    exact = Fraction(factor)
    moved = [
        (reference.nearest(a * exact), reference.nearest(b * exact), *rest)
        for a, b, *rest in columns(roll)
    ]
    expected = reference.canonical(moved)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stretched = roll.stretch(factor)
    assert columns(stretched) == expected
    lost = len(roll.notes) - len(expected)
    message = (
        f"{lost} of {len(roll.notes)} notes begin in one frame with another of their pitch "
        f"when stretched by {factor}, and were merged with it."
    )
    assert [str(w.message) for w in caught] == [message] * (lost > 0)


def test_merged_notes_are_counted_by_hand():
    # Frames 0, 1 | 2 | 4, 5 of pitch 60 come to 0, 1 | 1 | 2, 3; pitch 61 has a frame of its own.
    roll = PianoRoll.from_notes(
        [0, 1, 2, 4, 5, 1], [1, 2, 4, 5, 6, 2], [60] * 5 + [61], [9, 8, 7, 6, 5, 4]
    )
    message = r"^1 of 6 notes begin in one frame with another of their pitch when stretched by 0\.5"
    with pytest.warns(pl.DataLossWarning, match=message) as caught:
        shorter = roll.stretch(0.5)
    assert columns(shorter) == [
        (0, 1, 60, 9, False),
        (1, 2, 60, 8, False),
        (1, 2, 61, 4, False),
        (2, 3, 60, 6, False),
        (3, 4, 60, 5, False),
    ]
    assert (len(caught), caught[0].filename) == (1, __file__)


@given(rolls(grid="beats"), st.sampled_from([0.5, 2, 1.1, 1 / 3]))
def test_stretch_on_beats_scales_the_tempo_alone(roll, factor):
    stretched = roll.stretch(factor)
    assert columns(stretched) == columns(roll)
    assert (len(stretched), stretched.fs, stretched.grid) == (len(roll), roll.fs, "beats")
    tempo = roll.tempo_map
    expected = TempoMap(
        tempo.ticks.tolist(),
        [round(m * factor) for m in tempo.microseconds.tolist()],
        tempo.ticks_per_quarter,
    )
    assert stretched.tempo_map == expected
    quarters = len(roll) / roll.fs
    assert stretched.seconds == pytest.approx(roll.seconds * factor, abs=0.6e-6 * quarters + 1e-9)
    if factor == 2:
        assert stretched.stretch(0.5) == roll


def test_stretch_on_beats_by_hand():
    tempo = TempoMap([0, 240], [500_000, 300_001], 240)
    roll = PianoRoll.from_notes([0, 5], [3, 9], [60, 62], fs=4, grid="beats", tempo_map=tempo)
    stretched = roll.stretch(1.5)
    assert stretched.tempo_map == TempoMap([0, 240], [750_000, 450_002], 240)
    assert columns(stretched) == columns(roll)


@pytest.mark.parametrize("grid", ["seconds", "beats"])
@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf"), "2", None])
def test_stretch_refuses_factors(grid, factor):
    roll = PianoRoll.from_notes([0], [4], [60], grid=grid)
    with pytest.raises(
        pl.InvalidInputError, match=f"factor must be a number above 0; got {factor!r}"
    ):
        roll.stretch(factor)


def test_stretch_refuses_what_no_file_can_hold():
    roll = PianoRoll.from_notes(
        [0], [4], [60], fs=4, grid="beats", tempo_map=TempoMap([0], [500_000])
    )
    assert roll.stretch(33.5).tempo_map.microseconds.tolist() == [16_750_000]
    message = "Stretched by 34, the slowest tempo has 17,000,000 micro.* at most 16,777,215"
    with pytest.raises(pl.InvalidInputError, match=message):
        roll.stretch(34)
    assert roll.stretch(1e-6).tempo_map.microseconds.tolist() == [1]
    long = PianoRoll.from_notes([0], [4], [60], n_frames=10_000)
    with pytest.raises(pl.InvalidInputError, match="more than 2,147,483,647 frames"):
        long.stretch(300_000)


def test_to_midi_at_a_constant_tempo():
    tempo = TempoMap([0, 480], [500_000, 1_000_000])
    roll = PianoRoll.from_notes([0, 6], [4, 12], [60, 62], fs=4, grid="beats", tempo_map=tempo)
    times, tempi = roll.to_midi(tempo=90).get_tempo_changes()
    assert times.tolist() == [0] and tempi == pytest.approx([90], rel=1e-6)
    (piano,) = roll.to_midi(tempo=90).instruments
    assert [(n.start, n.end) for n in piano.notes] == [
        pytest.approx((0, 2 / 3), abs=1e-6),
        pytest.approx((1, 2), abs=2e-6),
    ]
    assert len(roll.to_midi().get_tempo_changes()[0]) == 2


@pytest.mark.parametrize("tempo", [0, -60, float("nan"), float("inf"), "fast", 3.5, 1.3e8])
def test_to_midi_refuses_tempi(tempo):
    roll = PianoRoll.from_notes([0], [4], [60], fs=4, grid="beats")
    message = rf"tempo must be a number of quarter notes a minute, 3\.58 to 6e7; got {tempo!r}"
    with pytest.raises(pl.InvalidInputError, match=message.replace("+", r"\+")):
        roll.to_midi(tempo=tempo)


def test_a_tempo_belongs_to_beats():
    with pytest.raises(pl.InvalidInputError, match=r'tempo belongs to grid="beats".*roll\.stretch'):
        ROLL.to_midi(tempo=120)


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
        ("a.mid", r"got one str\. Read it first: PianoRollEncoder\(.*\.transform\(\[X\]\)"),
        ({"a": ROLL}, r"got a dict\. Write list\(X\.values\(\)\)"),
        ([ROLL, b"MThd"], r"holds bytes objects; turn .*\.transform\(X\)"),
        ([ROLL.to_midi()], "holds PrettyMIDI objects"),
        (7, "must be a list of PianoRoll or of arrays .*; got int"),
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
