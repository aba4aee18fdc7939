"""What Hypothesis draws: arbitrary notes, rolls and tempo maps."""

from __future__ import annotations

from hypothesis import strategies as st

from pianolstm import PianoRoll, TempoMap

# Few pitches often, so that notes meet; the borders of the 64-bit words; and all others.
pitches = st.one_of(st.sampled_from([0, 59, 60, 63, 64, 67, 127]), st.integers(0, 127))
velocities = st.integers(1, 127)


@st.composite
def note_lists(draw, min_size=0, max_size=25, last_start=40):
    """(start, end, pitch, velocity) in frames: overlapping, of no length, in any order."""
    starts = st.one_of(st.sampled_from([0, 1, 2, 5]), st.integers(0, last_start))
    note = st.tuples(starts, st.integers(0, 20), pitches, velocities)
    notes = draw(st.lists(note, min_size=min_size, max_size=max_size))
    return [(start, start + length, pitch, velocity) for start, length, pitch, velocity in notes]


def length_of(notes):
    """Frames that notes take, each at least one."""
    return max((max(end, start + 1) for start, end, *_ in notes), default=0)


def roll_of(notes, n_frames, **kwargs):
    """A roll from (start, end, pitch, velocity) tuples, of which there may be none."""
    start, end, pitch, velocity = zip(*notes, strict=True) if notes else ((), (), (), ())
    return PianoRoll.from_notes(start, end, pitch, velocity, n_frames=n_frames, **kwargs)


@st.composite
def tempo_maps(draw, ticks_per_quarter=None):
    """Up to six tempi between 30 and 1200 quarter notes a minute."""
    entry = st.tuples(st.integers(0, 6000), st.integers(50_000, 2_000_000))
    entries = draw(st.lists(entry, min_size=1, max_size=6))
    if ticks_per_quarter is None:
        ticks_per_quarter = draw(st.sampled_from([24, 96, 100, 220, 384, 480, 1024]))
    return TempoMap(*zip(*entries, strict=True), ticks_per_quarter)


@st.composite
def rolls(draw, min_notes=0, fs=None, grid=None):
    """Rolls on both grids, with rests at the end."""
    notes = draw(note_lists(min_size=min_notes))
    n_frames = length_of(notes) + draw(st.integers(0, 15))
    if (grid or draw(st.sampled_from(["seconds", "beats"]))) == "seconds":
        return roll_of(notes, n_frames, fs=fs or draw(st.sampled_from([20, 25, 100, 12.5])))
    return roll_of(
        notes,
        n_frames,
        fs=fs or draw(st.sampled_from([1, 4, 6, 24])),
        grid="beats",
        tempo_map=draw(tempo_maps()),
    )


@st.composite
def token_pieces(draw, min_pieces=1):
    """Pieces whose tokens tell where they stand: frame t of piece p is 1000 * (p + 1) + t."""
    lengths = draw(st.lists(st.integers(0, 25), min_size=min_pieces, max_size=4))
    return [[1000 * (p + 1) + t for t in range(n)] for p, n in enumerate(lengths)]
