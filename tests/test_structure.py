"""Structure over time: by hand, by a slow reference, and by laws."""

import tracemalloc
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import pianolstm as pl
from pianolstm.scoring.repetition import returns_by_lag
from pianolstm.scoring.structure import self_similarity
from strategies import length_of, note_lists, roll_of

ROOT_HALF = 0.5**0.5


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def tune(pitches, fs=1):
    """One note a frame, each struck anew."""
    n = len(pitches)
    return pl.PianoRoll.from_notes(range(n), range(1, n + 1), pitches, fs=fs)


def short_rolls(multiple_of=1):
    """Rolls of chance, of a whole number of slices if asked for."""

    def padded(notes):
        n = max(length_of(notes), 1)
        return roll_of(notes, -(-n // multiple_of) * multiple_of, fs=4)

    return note_lists().map(padded)


def test_harmony_by_hand():
    # Slices of a frame: C and E, C, rest, G, C an octave higher, rest, C and E; windows of four.
    start, pitch = [0, 0, 1, 3, 4, 6, 6], [60, 64, 60, 67, 72, 60, 64]
    roll = pl.PianoRoll.from_notes(start, np.add(start, 1), pitch, fs=1)
    found = pl.structure(roll)
    assert (found.window, found.hop, found.times.tolist()) == (4, 1, [0, 1, 2, 3])
    # Windows 0 and 1: CE with C, C with rest, rest with G, G with C.
    # 0 and 2: CE with rest, C with G, rest with C, G with rest.
    # 0 and 3: CE with G, C with C, rest with rest, G with CE.
    # 1 and 2: C with rest, rest with G, G with C, C with rest.
    # 1 and 3: C with G, rest with C, G with rest, C with CE.
    # 2 and 3: rest with G, G with C, C with rest, rest with CE.
    expected = np.eye(4)
    expected[0, 1:] = expected[1:, 0] = [ROOT_HALF / 4, 0, 0.5]
    expected[1, 2:] = expected[2:, 1] = [0, ROOT_HALF / 4]
    np.testing.assert_allclose(found.similarity, expected, atol=1e-6)


def test_how_long_a_pitch_class_sounds_counts():
    # Two frames a slice: C for one and G for two of the first's; C for both of the second's.
    roll = pl.PianoRoll.from_notes([0, 0, 2], [1, 2, 4], [60, 67, 60], fs=2, n_frames=4)
    found = pl.structure(roll, window=4)
    assert found.similarity.shape == (1, 1)  # shorter than a window: one of two slices
    content = np.zeros((2, 12))
    content[0, [0, 7]], content[1, 0] = (1, 2), 2
    np.testing.assert_allclose(self_similarity(content, 1)[0], [1, 5**-0.5], atol=1e-6)


def test_a_window_is_transposed_as_a_whole():
    #            up by two       the same up by five      each note moved, by its own interval
    roll = tune([60, 62, 67, 64, 65, 67, 72, 69, 60, 64, 67, 62])
    harmony = pl.structure(roll).similarity
    any_key = pl.structure(roll, compare="any_key").similarity
    np.testing.assert_allclose(harmony[0, [4, 8]], [0, 0.5], atol=1e-6)
    np.testing.assert_allclose(any_key[0, [4, 8]], [1, 0.5], atol=1e-6)
    assert (any_key >= harmony - 1e-6).all()


def test_rhythm_by_hand():
    # Slices of four frames. Onsets: 0 and 2, two at 0, none but a tie's end, 3, then 0 and 2 again.
    roll = pl.PianoRoll.from_notes(
        [0, 2, 4, 4, 15, 16, 18], [1, 3, 11, 5, 16, 17, 20], [50, 51, 60, 61, 50, 70, 71], fs=4
    )
    found = pl.structure(roll, compare="rhythm")
    # Slice by slice, window 0 with 1: {0, 2} {0}, {0} none, none {3}, {3} {0, 2}.
    np.testing.assert_allclose(
        found.similarity, [[1, ROOT_HALF / 4], [ROOT_HALF / 4, 1]], atol=1e-6
    )
    # A note that goes on from before the roll is not struck in it.
    tied = pl.PianoRoll.from_notes([0], [8], [60], fs=4, n_frames=20, tied=True)
    found = pl.structure(tied, compare="rhythm")
    assert found.similarity.tolist() == [[1, 1], [1, 1]] and found.density.tolist() == [0, 0]


def test_density_polyphony_and_rests_by_hand():
    # Two frames a slice; the last slice is cut short.
    roll = pl.PianoRoll.from_notes(
        [0, 0, 3, 6, 8],
        [2, 5, 4, 7, 9],
        [50, 60, 60, 70, 80],
        fs=2,
        n_frames=11,
        tied=[1, 0, 0, 0, 0],
    )
    found = pl.structure(roll)
    assert found.times.tolist() == [0, 1, 2]
    # Struck: 60 at 0, 60 at 3, 70 at 6, 80 at 8. Notes end where their pitch is struck again.
    np.testing.assert_allclose(found.density, [3 / 4, 3 / 4, 2 / 3.5])
    np.testing.assert_allclose(found.polyphony, [(2 + 3 + 1 + 1) / 8, (1 + 1 + 1 + 1) / 8, 2 / 7])
    assert found.rests == pytest.approx((2 + 1 + 2) / 11)
    assert found.longest_rest == 1
    leading = pl.structure(pl.PianoRoll.from_notes([6], [8], [60], fs=2))
    assert (leading.rests, leading.longest_rest) == (0.75, 3)


def slow_similarity(roll, hop, compare):
    """Frame by frame and pair by pair."""
    plane, onset = roll.velocity > 0, roll.onset
    slices = []
    for a in range(0, len(roll), hop):
        content = np.zeros(4 if compare == "rhythm" else 12)
        for t in range(a, min(a + hop, len(roll))):
            for pitch in range(128):
                if compare == "rhythm":
                    content[(t - a) * 4 // hop] += onset[t, pitch]
                else:
                    content[pitch % 12] += plane[t, pitch]
        slices.append(content)

    def cosine(a, b):
        if not (a.any() and b.any()):
            return float(a.any() == b.any())
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    size = min(4, len(slices))
    n = len(slices) - size + 1
    shifts = range(12) if compare == "any_key" else [0]
    found = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            pairs = list(zip(slices[i : i + size], slices[j : j + size], strict=True))
            found[i, j] = max(np.mean([cosine(a, np.roll(b, s)) for a, b in pairs]) for s in shifts)
    return found


@given(short_rolls(), st.integers(2, 7), st.sampled_from(["harmony", "any_key", "rhythm"]))
def test_the_matrix_is_that_of_a_slow_search(roll, hop, compare):
    found = pl.structure(roll, window=hop, compare=compare)  # four frames a second, four slices
    assert found.hop * roll.fs == hop
    np.testing.assert_allclose(found.similarity, slow_similarity(roll, hop, compare), atol=1e-5)


@given(short_rolls(), st.integers(-12, 12))
def test_what_is_transposed_has_the_same_matrix(roll, semitones):
    pitches = roll.notes["pitch"].astype(int) + semitones
    assume(pitches.min(initial=0) >= 0 and pitches.max(initial=0) <= 127)
    moved = roll.transpose(semitones)
    for compare in ("harmony", "any_key", "rhythm"):
        before, after = (pl.structure(r, window=2, compare=compare) for r in (roll, moved))
        np.testing.assert_allclose(after.similarity, before.similarity, atol=1e-6)
        assert after.exact.tolist() == before.exact.tolist()


@given(st.lists(st.integers(0, 11), min_size=4, max_size=12), st.data())
def test_windows_transposed_apart_keep_the_matrix_of_any_key(pitches, data):
    # Rests of a window between, so that no window holds notes of two parts.
    parts = [tune([60 + p for p in pitches]), pl.PianoRoll.from_notes([], [], [], n_frames=4, fs=1)]
    moved = parts[0].transpose(data.draw(st.integers(-24, 24)))
    same = pl.structure(pl.PianoRoll.concatenate([*parts, parts[0]]), compare="any_key")
    apart = pl.structure(pl.PianoRoll.concatenate([*parts, moved]), compare="any_key")
    np.testing.assert_allclose(apart.similarity, same.similarity, atol=1e-6)


@given(short_rolls(multiple_of=3))
def test_time_reversed_mirrors(roll):
    notes = roll.notes
    turned = pl.PianoRoll.from_notes(
        len(roll) - notes["end"],
        len(roll) - notes["start"],
        notes["pitch"],
        n_frames=len(roll),
        fs=4,
    )
    found, mirrored = (pl.structure(r, window=3) for r in (roll, turned))
    np.testing.assert_allclose(mirrored.similarity, found.similarity[::-1, ::-1], atol=1e-6)
    np.testing.assert_allclose(mirrored.polyphony, found.polyphony[::-1], atol=1e-12)
    assert (mirrored.rests, mirrored.longest_rest) == (found.rests, found.longest_rest)
    np.testing.assert_allclose(mirrored.locality, found.locality, atol=1e-6)


def test_a_theme_that_comes_back():
    # A of eight frames, A again, B of ten, A: none of their windows alike but A's own.
    a, b = [0, 2, 4, 5, 7, 9, 11, 1], [3, 6, 8, 10, 1, 3, 10, 6, 8, 10]
    found = pl.structure(tune([60 + p for p in [*a, *a, *b, *a]]))
    assert len(found.similarity) == 34 - 3
    later, earlier = np.nonzero(np.tril(found.similarity >= 0.9, -1))
    # The five windows of A alone; those that reach into its neighbours are like none.
    assert later.tolist() == [8, 9, 10, 11, 12, *np.repeat(range(26, 31), 2)]
    assert set((later - earlier).tolist()) == {8, 18, 26}
    np.testing.assert_allclose(found.lags, 4 * 2 ** (np.arange(8) / 2))
    # Lags from 4, 5.7, 8, 11.3, 16, 22.6 and 32 on.
    np.testing.assert_allclose(found.alike, np.array([0, 0, 5, 0, 5, 5, 0]) / 31)
    np.testing.assert_allclose(found.exact, np.array([0, 0, 8, 0, 8, 8, 0]) / 34)
    assert found.returning == pytest.approx(10 / 31)


def test_windows_that_share_music_do_not_count_as_coming_back():
    found = pl.structure(tune([60] * 12))  # nine windows, all alike
    np.testing.assert_allclose(found.similarity, np.ones((9, 9)), atol=1e-6)
    # Lags from 4, 5.7, 8 and 11.3 on.
    np.testing.assert_allclose(found.alike, np.array([5, 3, 1, 0]) / 9)
    assert found.returning == pytest.approx(1 / 9)  # with a window between


def test_locality_by_hand():
    # Twelve frames of C and twelve of G: 21 windows.
    found = pl.structure(tune([60] * 12 + [67] * 12))
    chord = [0] * 12 + [1] * 12
    alike = [[np.mean([chord[i + k] == chord[j + k] for k in range(4)]) for j in range(21)]
             for i in range(21)]  # fmt: skip
    near = [alike[i][j] for i in range(21) for j in range(i + 4, min(i + 8, 21))]
    far = [alike[i][j] for i in range(21) for j in range(i + 8, 21)]
    assert found.locality == pytest.approx(np.mean(near) - np.mean(far), abs=1e-6)
    assert np.isnan(pl.structure(tune([60] * 11)).locality)
    assert pl.structure(tune([60] * 12)).locality == pytest.approx(0, abs=1e-6)


def test_loops_and_chance_are_told_from_music():
    piece = pl.PianoRoll.concatenate(pl.datasets.load_chorales("validation")[:8])
    onsets = np.unique(piece.notes["start"]).tolist()
    parts = [piece[a:b] for a, b in pairwise([*onsets, len(piece)])]
    order = np.random.default_rng(0).permutation(len(parts))
    chance = pl.PianoRoll.concatenate([parts[i] for i in order])
    loop = pl.PianoRoll.concatenate([piece[:64]] * (len(piece) // 64))
    music, chance, loop = map(pl.structure, (piece, chance, loop))
    assert loop.returning > 0.9 and 0.5 > music.returning > chance.returning
    assert music.locality > 0.05 > abs(chance.locality)
    assert music.locality > 0.05 > loop.locality


def slow_returns(chords, lengths, min_length, low, high):
    """Steps of passages that stand before too, and began from low to below high before."""
    first, found = np.cumsum([0, *lengths]), set()
    for earlier in range(len(chords)):
        for later in range(earlier + 1, len(chords)):
            if earlier and chords[earlier - 1] == chords[later - 1]:
                continue  # no passage begins here
            n = 0
            while later + n < len(chords) and chords[earlier + n] == chords[later + n]:
                n += 1
            if n >= min_length and low <= first[later] - first[earlier] < high:
                found |= set(range(later, later + n))
    return sum(lengths[i] for i in found) / sum(lengths)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=20), st.integers(0, 99), st.integers(1, 4))
def test_returns_by_lag_are_those_of_a_slow_search(steps, seed, min_length):
    chords = (np.cumsum(steps) % 4).tolist()  # each another than the one before
    lengths = np.random.default_rng(seed).integers(1, 4, len(chords)).tolist()
    ends = np.cumsum(lengths)
    roll = pl.PianoRoll.from_notes(ends - lengths, ends, np.add(60, chords))
    edges = np.array([2, 3, 7.5, 20])
    expected = [slow_returns(chords, lengths, min_length, *pair) for pair in pairwise(edges)]
    np.testing.assert_allclose(returns_by_lag(roll, edges, min_length=min_length), expected)
    anywhere = returns_by_lag(roll, np.array([0, np.inf]), min_length=min_length)[0]
    assert anywhere >= pl.repetition([roll], min_length=min_length).returns - 1e-12


def test_times_are_in_quarter_notes_on_the_grid_of_beats():
    tempo = pl.TempoMap([0, 480], [500_000, 1_000_000])
    notes = pl.PianoRoll.from_notes(range(0, 48, 4), range(4, 52, 4), range(60, 72), fs=4).notes
    found = pl.structure(pl.PianoRoll(notes, 56, 4, "beats", tempo), window=2)
    assert (found.window, found.hop, found.times[-1]) == (2, 0.5, 12)
    assert found.density[0] == 1 and found.longest_rest == 2
    assert "25 windows of 2 quarter notes by harmony" in repr(found)
    axes = found.plot()
    assert axes[0].get_xlim() == axes[1].get_xlim() == axes[2].get_ylim() == (0, 14)
    assert axes[0].collections[0].get_paths()[-1].vertices[:, 0].max() == 12
    assert axes[2].get_xlabel() == "time (quarter notes)"
    assert axes[3].get_xlabel() == "lag (quarter notes)"
    assert axes[1].get_legend_handles_labels()[1][0] == "notes struck a quarter note"


def test_the_picture_shows_the_numbers():
    found = pl.structure(tune([60, 62, 64, 65, 67, 69] * 4), compare="any_key")
    roll, fullness, matrix, lags = found.plot()
    assert len(roll.collections[0].get_paths()) == 24
    density, polyphony = fullness.lines
    np.testing.assert_array_equal(density.get_xdata(), found.times + 2)
    np.testing.assert_array_equal(density.get_ydata(), found.density)
    np.testing.assert_array_equal(polyphony.get_ydata(), found.polyphony)
    (image,) = matrix.images
    np.testing.assert_array_equal(image.get_array(), found.similarity)
    assert image.get_extent() == [1.5, 22.5, 1.5, 22.5]  # each window at its middle
    assert (image.origin, image.get_clim()) == ("lower", (0, 1))
    assert matrix.get_title(loc="left") == "similarity: any key"
    alike, exact = lags.patches
    np.testing.assert_array_equal(alike.get_data().values, found.alike)
    np.testing.assert_array_equal(exact.get_data().edges, found.lags)
    np.testing.assert_array_equal(exact.get_data().values, found.exact)
    assert [t.get_text() for t in lags.get_xticklabels()] == ["4", "8", "16", "32"]
    given = Figure().subplots(4)
    assert found.plot(given) is given and given[2].images


@pytest.mark.parametrize("n_frames", [1, 2, 7])
def test_pieces_shorter_than_a_window(n_frames):
    found = pl.structure(np.zeros((n_frames, 128)))
    assert found.similarity.tolist() == [[1]]
    assert (found.density.tolist(), found.polyphony.tolist(), found.rests) == ([0], [0], 1)
    assert found.lags.tolist() == [4] and len(found.alike) == len(found.exact) == 0
    assert found.longest_rest == n_frames / 20 and found.returning == 0
    assert len(found.plot()) == 4


def test_long_pieces_cost_little():
    rng = np.random.default_rng(0)
    start = np.sort(rng.integers(0, 119_900, 5_000))
    roll = pl.PianoRoll.from_notes(start, start + 90, rng.integers(21, 108, 5_000), fs=100)
    tracemalloc.start()
    found = pl.structure(roll, compare="any_key")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert 590 < len(found.similarity) <= 600
    assert found.hop == pytest.approx(2, abs=0.01)
    assert found.window == pytest.approx(4 * found.hop)


def test_bad_input_is_told():
    roll = tune([60, 62])
    with pytest.raises(pl.InvalidInputError, match=r"one piece; got a list of 2. Call structure"):
        pl.structure([roll, roll])
    with pytest.raises(pl.InvalidInputError, match="roll holds paths; turn them into rolls first"):
        pl.structure("piece.mid")
    with pytest.raises(pl.InvalidInputError, match="roll has no frames"):
        pl.structure(np.zeros((0, 128)))
    with pytest.raises(pl.InvalidInputError, match=r"window must be at least 4\.0; got 3"):
        pl.structure(roll, window=3)
    with pytest.raises(pl.InvalidInputError, match="window must be a finite number; got 'bar'"):
        pl.structure(roll, window="bar")
    with pytest.raises(pl.InvalidInputError, match=r"compare must be .*; got 'melody'"):
        pl.structure(roll, compare="melody")
