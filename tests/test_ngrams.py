"""The yardstick of chord counts, against numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import pianolstm as pl
from pianolstm import NgramBaseline, PianoRoll
from strategies import rolls

# Chords: 60 60 64.
TRAINING = [PianoRoll.from_notes([0, 2], [2, 3], [60, 64])]


def nats(*probabilities):
    return np.mean(np.log(probabilities))


def test_unigram_by_hand():
    # Two chords in three frames: (2, 1 and, for any other, 2) of 5.
    assert NgramBaseline(order=1).fit(TRAINING).score(TRAINING) == pytest.approx(
        nats(0.4, 0.4, 0.2)
    )


def test_bigram_by_hand():
    # After nothing: 60 once, one follower. After 60: 60 and 64 once each, two followers.
    after_nothing, after_60 = (1 + 1 * 0.4) / 2, ((1 + 2 * 0.4) / 4, (1 + 2 * 0.2) / 4)
    found = NgramBaseline().fit(TRAINING).score(TRAINING)
    assert found == pytest.approx(nats(after_nothing, *after_60))


def test_other_chords_cost_their_pitches():
    # Held-out chords: 70 60 64 60. Each pitch alone has (2, 1 or 0 + 1/2) of 4 frames.
    pitches = (0.5 / 4) * (1 - 2.5 / 4) * (1 - 1.5 / 4) * (1 - 0.5 / 4) ** 125
    held_out = [PianoRoll.from_notes([0, 1, 2, 3], [1, 2, 3, 4], [70, 60, 64, 60])]
    found = NgramBaseline(order=1).fit(TRAINING).score(held_out)
    assert found == pytest.approx(nats(0.4 * pitches, 0.4, 0.2, 0.4))
    # 70 was never followed by anything, nor was 64: the unigram stands in.
    found = NgramBaseline(order=2).fit(TRAINING).score(held_out)
    expected = nats((0 + 1 * 0.4) / 2 * pitches, 0.4, (1 + 2 * 0.2) / 4, 0.4)
    assert found == pytest.approx(expected)


def test_a_rest_that_was_never_there_is_another_chord():
    silence = PianoRoll.from_notes([], [], [], n_frames=1)
    pitches = (1 - 2.5 / 4) * (1 - 1.5 / 4) * (1 - 0.5 / 4) ** 126
    found = NgramBaseline(order=1).fit(TRAINING).score([silence])
    assert found == pytest.approx(nats(0.4 * pitches))


@given(st.lists(rolls(fs=20, grid="seconds", min_notes=1), min_size=1, max_size=3), st.randoms())
def test_the_order_of_pieces_is_irrelevant(pieces, random):
    shuffled = list(pieces)
    random.shuffle(shuffled)
    for order in (1, 2):
        one = NgramBaseline(order=order).fit(pieces).score(pieces)
        assert NgramBaseline(order=order).fit(shuffled).score(shuffled) == pytest.approx(one)
        assert one <= 0


def test_the_baseline_is_a_scikit_learn_estimator():
    assert NgramBaseline().get_params() == {"order": 2}
    baseline = NgramBaseline(order="many")
    assert vars(baseline) == {"order": "many"} == clone(baseline).get_params()
    with pytest.raises(pl.InvalidInputError, match="order must be 1 or 2; got 'many'"):
        baseline.fit(TRAINING)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        baseline.score(TRAINING)


def test_the_baseline_wants_lists_of_its_own_grid():
    baseline = NgramBaseline().fit(TRAINING)
    for call in (baseline.fit, baseline.score):
        with pytest.raises(pl.InvalidInputError, match="Wrap it in a list"):
            call(TRAINING[0])
    with pytest.raises(pl.InvalidInputError, match=r"fs=10 .*expected fs=20"):
        baseline.score([PianoRoll.from_notes([0], [1], [60], fs=10)])
