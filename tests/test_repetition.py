"""How music repeats itself: by hand, and by a plain search."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl


def roll(chords, lengths=None, fs=10):
    """A piece of single notes, named by letters; each is struck anew."""
    lengths = [1] * len(chords) if lengths is None else lengths
    ends = np.cumsum(lengths)
    pitches = [60 + "abcdefghijklmnopqrstuvwxyz".index(c) for c in chords]
    return pl.PianoRoll.from_notes(ends - lengths, ends, pitches, fs=fs)


def test_what_comes_again_at_once_by_hand():
    #                              twice: cd ... ab, ab again; three times: the last ab
    found = pl.repetition([roll("xabababy", [1, 2, 3, 4, 5, 6, 7, 2])])
    assert found.twice == pytest.approx((4 + 5 + 6 + 7) / 30)
    assert found.thrice == pytest.approx((6 + 7) / 30)
    assert found.most == 3
    assert found.returns == 0 and np.isnan(found.gap)
    assert found.chords_per_minute == pytest.approx(4 / 3 * 60)
    # One chord again and again is no passage; a passage too long is none that comes at once.
    still = pl.repetition([roll("aaaaaaaa")])
    assert still[:4] == (0, 0, 1, 0)
    assert pl.repetition([roll("abcabc")]).twice == 0.5
    assert pl.repetition([roll("abcabc")], max_period=2)[:3] == (0, 0, 1)


def test_what_comes_back_by_hand():
    #                  four chords, two others that last for nine frames, the four again
    piece = roll("abcdxyabcdz", [1, 1, 1, 1, 4, 5, 2, 3, 1, 1, 1])
    found = pl.repetition([piece], min_length=4)
    assert found.returns == pytest.approx(7 / 21)
    assert found.gap == pytest.approx(0.9)  # seconds
    assert pl.repetition([piece], min_length=5).returns == 0
    assert found.twice == 0 and found.most == 1
    assert pl.repetition([roll("abcdabcd")], min_length=4).returns == 0  # that is at once
    # Of two pieces, all together; nothing comes from one to the other.
    both = pl.repetition([piece, roll("abcd")], min_length=4)
    assert both.returns == pytest.approx(7 / 25)
    assert both.chords_per_minute == pytest.approx((7 + 4) / 2.5 * 60)


def test_a_loop_is_told_from_music():
    real = pl.datasets.load_chorales("validation")
    loop = [pl.PianoRoll.concatenate([r[:16]] * (len(r) // 16)) for r in real if len(r) > 64]
    assert pl.repetition(loop).thrice > 0.5
    assert pl.repetition(real).thrice < 0.1
    assert pl.repetition(loop).most > pl.repetition(real).most


def by_search(chords, lengths, max_period):
    """Each passage and the places before it, one by one: steps said twice, and three times."""
    twice, thrice, most = set(), set(), 1
    for n in range(2, len(chords) + 1):
        for a in range(n, len(chords) - n + 1):
            passage, times = chords[a : a + n], 1
            while a >= times * n and chords[a - times * n : a - (times - 1) * n] == passage:
                times += 1
            if times == 1 or sum(lengths[a - 1 : a + n - 1]) > max_period:
                continue
            most = max(most, times)
            twice |= set(range(a, a + n))
            thrice |= set(range(a, a + n)) if times > 2 else set()
    return twice, thrice, most


@given(st.lists(st.integers(1, 2), min_size=1, max_size=24), st.integers(0, 99), st.integers(2, 30))
def test_at_once_is_what_a_search_finds(intervals, seed, max_period):
    # Each chord is another than the one before it: one that is struck again is not the same.
    chords = "".join("abc"[i] for i in np.cumsum(intervals) % 3)
    lengths = np.random.default_rng(seed).integers(1, 4, len(chords)).tolist()
    twice, thrice, most = by_search(chords, lengths, max_period)
    found = pl.repetition([roll(chords, lengths)], max_period=max_period)
    total = sum(lengths)
    assert found.twice == pytest.approx(sum(lengths[i] for i in twice) / total)
    assert found.thrice == pytest.approx(sum(lengths[i] for i in thrice) / total)
    assert found.most == most


def test_bad_input_is_told():
    with pytest.raises(pl.InvalidInputError, match="max_period"):
        pl.repetition([roll("ab")], max_period=0)
    with pytest.raises(pl.InvalidInputError, match="no frames"):
        pl.repetition([pl.PianoRoll.from_array(np.zeros((0, 128)), fs=10)])
