"""Windows, against double loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl
import reference
from pianolstm import ChordSequence, WindowDataset
from pianolstm.windows import PAD, START, split_pieces
from strategies import token_pieces

TARGETS = ["sequence", "next"]
SEVEN, FOUR = np.arange(10, 17), np.arange(50, 54)


def arrays(pieces):
    return [np.array(p, np.int32) for p in pieces]


def rows_of(batches):
    """All rows of all batches as lists."""
    return [
        row
        for batch in batches
        for row in zip(batch.inputs.tolist(), batch.targets.tolist(), batch.mask.tolist())  # noqa: B905
    ]


def frame_before(token):
    """What comes before a token of `token_pieces`: its piece's previous frame, or START."""
    return START if token % 1000 == 0 else token - 1


# ---------------------------------------------------------------------------------- whole windows


def test_windows_by_hand():
    dataset = WindowDataset([SEVEN, FOUR], window_size=3, stride=2)
    found = [(x.tolist(), y.tolist()) for x, y in dataset]
    assert found == [
        ([10, 11, 12], [11, 12, 13]),
        ([12, 13, 14], [13, 14, 15]),
        ([50, 51, 52], [51, 52, 53]),
    ]
    dataset = WindowDataset([SEVEN, FOUR], window_size=3, stride=2, target="next")
    assert [int(y) for _, y in dataset] == [13, 15, 53]


@given(token_pieces(), st.integers(1, 8), st.integers(1, 8) | st.none(), st.sampled_from(TARGETS))
def test_windows_equal_a_double_loop(pieces, window_size, stride, target):
    dataset = WindowDataset(arrays(pieces), window_size=window_size, stride=stride, target=target)
    if stride is None:
        stride = window_size if target == "sequence" else 1
    expected = reference.whole_windows(pieces, window_size, stride, target)
    found = [(x.tolist(), y.tolist()) for x, y in dataset]
    assert found == expected
    assert len(dataset) == len(expected)
    for i in range(-len(expected), 0):
        x, y = dataset[i]
        assert (x.tolist(), y.tolist()) == expected[i]
    for i in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError, match=f"window {i} of {len(expected)}"):
            dataset[i]
    inputs, targets = dataset.to_numpy()
    assert list(zip(inputs.tolist(), targets.tolist(), strict=True)) == expected
    assert inputs.dtype == targets.dtype == np.int32
    assert inputs.shape == (len(expected), window_size)


def test_windows_are_views():
    x, y = WindowDataset([SEVEN], window_size=4)[0]
    assert np.shares_memory(x, SEVEN) and np.shares_memory(y, SEVEN)


def test_one_hot_by_hand():
    dataset = WindowDataset([np.array([2, 0, 1, 2])], window_size=2, stride=1, target="next")
    inputs, targets = dataset.to_numpy(one_hot=4)
    assert inputs.tolist() == [[2, 0], [0, 1]]
    assert targets.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert targets.dtype == np.float32
    sequence = WindowDataset([np.array([2, 0, 1, 2])], window_size=3).to_numpy(one_hot=3)[1]
    assert sequence.tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]


def test_one_hot_too_small():
    dataset = WindowDataset([np.array([0, 5, 3])], window_size=1)
    assert dataset.to_numpy(one_hot=6)[1].shape == (2, 1, 6)
    with pytest.raises(
        pl.InvalidInputError, match=r"one_hot=5 is smaller .* there are targets from 3 to 5"
    ):
        dataset.to_numpy(one_hot=5)


def test_chord_sequences_are_pieces():
    roll = pl.PianoRoll.from_notes([0, 2, 4], [2, 4, 6], [60, 62, 64])
    sequences = pl.ChordTokenizer(max_tokens=2).fit_transform([roll])
    dataset = WindowDataset(sequences, window_size=4)
    assert dataset[0][0].tolist() == sequences[0].tokens[:4].tolist()
    assert np.shares_memory(dataset[0][0], sequences[0].tokens)


# --------------------------------------------------------------------------------------- batches


def test_batches_by_hand():
    dataset = WindowDataset([SEVEN, FOUR[:2]], window_size=3)
    first, second = dataset.batches(2, shuffle=False)
    assert first.inputs.tolist() == [[START, 10, 11], [12, 13, 14]]
    assert first.targets.tolist() == [[10, 11, 12], [13, 14, 15]]
    assert first.mask.all()
    assert second.inputs.tolist() == [[15, PAD, PAD], [START, 50, PAD]]
    assert second.targets.tolist() == [[16, 0, 0], [50, 51, 0]]
    assert second.mask.tolist() == [[True, False, False], [True, True, False]]


def test_batches_of_next_by_hand():
    dataset = WindowDataset([SEVEN, FOUR[:1]], window_size=3, target="next", stride=2)
    first, second = dataset.batches(3, shuffle=False)
    assert first.inputs.tolist() == [[PAD, PAD, START], [START, 10, 11], [11, 12, 13]]
    assert first.targets.tolist() == [[10], [12], [14]]
    assert second.inputs.tolist() == [[13, 14, 15], [PAD, PAD, START], [PAD, PAD, PAD]]
    assert second.targets.tolist() == [[16], [50], [0]]
    assert second.mask.tolist() == [[True], [True], [False]]


@given(token_pieces(), st.integers(1, 9), st.integers(1, 5))
def test_batches_in_order_equal_a_double_loop(pieces, window_size, batch_size):
    batches = list(
        WindowDataset(arrays(pieces), window_size=window_size).batches(batch_size, shuffle=False)
    )
    expected = reference.padded_sequences(pieces, window_size, START, PAD)
    empty = ([PAD] * window_size, [0] * window_size, [False] * window_size)
    expected += [empty] * (-len(expected) % batch_size)
    assert rows_of(batches) == expected
    assert all(len(batch.inputs) == batch_size for batch in batches)
    assert all(batch.inputs.dtype == batch.targets.dtype == np.int32 for batch in batches)


@given(token_pieces(), st.integers(1, 9), st.integers(1, 7), st.integers(1, 5))
def test_batches_of_next_in_order_equal_a_double_loop(pieces, window_size, stride, batch_size):
    dataset = WindowDataset(arrays(pieces), window_size=window_size, stride=stride, target="next")
    expected = reference.padded_next(pieces, window_size, stride, START, PAD)
    found = rows_of(dataset.batches(batch_size, shuffle=False))
    assert [(x, y[0]) for x, y, m in found if m == [True]] == expected
    assert all(x == [PAD] * window_size and y == [0] for x, y, m in found if m == [False])


@given(token_pieces(), st.integers(1, 9), st.integers(1, 5), st.integers(0, 10**6))
def test_every_frame_is_a_target_once_an_epoch(pieces, window_size, batch_size, seed):
    dataset = WindowDataset(arrays(pieces), window_size=window_size)
    batches = list(dataset.batches(batch_size, random_state=seed))
    assert len(batches) <= dataset.n_batches(batch_size)
    met = []
    for inputs, targets, mask in rows_of(batches):
        n = sum(mask)
        assert mask == [True] * n + [False] * (window_size - n)
        assert inputs[:n] == [frame_before(t) for t in targets[:n]]
        assert inputs[n:] == [PAD] * (window_size - n)
        assert targets[n:] == [0] * (window_size - n)
        assert len({t // 1000 for t in targets[:n]}) <= 1  # of one piece
        met += targets[:n]
    assert sorted(met) == sorted(t for piece in pieces for t in piece)


@given(
    token_pieces(),
    st.integers(1, 9),
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(0, 10**6),
)
def test_next_meets_every_stride_th_frame(pieces, window_size, stride, batch_size, seed):
    dataset = WindowDataset(arrays(pieces), window_size=window_size, stride=stride, target="next")
    batches = list(dataset.batches(batch_size, random_state=seed))
    assert len(batches) <= dataset.n_batches(batch_size)
    met = {p: [] for p in range(1, len(pieces) + 1)}
    for inputs, (target,), (real,) in rows_of(batches):
        if not real:
            continue
        window, token = [], target
        for _ in range(window_size):  # back from the target, as far as the piece goes
            token = PAD if token in (START, PAD) else frame_before(token)
            window.append(token)
        assert inputs == window[::-1]
        met[target // 1000].append(target % 1000)
    for p, piece in enumerate(pieces, start=1):
        frames = sorted(met[p])
        assert bool(frames) == bool(piece)
        if piece:
            assert frames == list(range(frames[0], len(piece), stride))
            assert frames[0] < stride


@pytest.mark.parametrize("target", TARGETS)
def test_each_piece_has_a_phase_of_its_own(target):
    pieces = [np.arange(1000, 1023), np.arange(2000, 2023)]
    dataset = WindowDataset(pieces, window_size=5, stride=5, target=target)
    phases = set()
    for seed in range(200):
        (batch,) = dataset.batches(20, random_state=seed)
        ends = batch.targets[np.arange(20), batch.mask.sum(1) - 1][batch.mask.any(1)]
        phases.add((min(t for t in ends if t < 2000) % 5, min(t for t in ends if t >= 2000) % 5))
    assert len(phases) == 25


def test_batches_depend_on_the_seed_alone():
    pieces = [np.arange(30), np.arange(100, 145)]
    dataset = WindowDataset(pieces, window_size=4)

    def epoch(seed):
        return rows_of(dataset.batches(3, random_state=seed))

    np.random.seed(0)  # noqa: NPY002 (global state must not matter)
    one = epoch(7)
    np.random.seed(1)  # noqa: NPY002
    assert epoch(7) == one
    assert epoch(np.random.default_rng(7)) == one
    assert epoch(8) != one
    rng = np.random.default_rng(7)
    assert epoch(rng) == one and epoch(rng) != one  # the next epoch has phases of its own


@pytest.mark.parametrize("target", TARGETS)
def test_batches_come_in_no_order(target):
    dataset = WindowDataset([np.arange(40)], window_size=4, stride=4, target=target)
    orders = []
    for seed in range(20):
        (batch,) = dataset.batches(11, random_state=seed)
        orders.append(batch.targets[batch.mask.any(1), 0].tolist())
    assert all(order != sorted(order) for order in orders)


def test_n_batches_counts_the_longest_epoch():
    dataset = WindowDataset([np.arange(10), np.arange(3)], window_size=4)
    assert len(list(dataset.batches(2, shuffle=False))) == 2
    assert dataset.n_batches(2) == 3  # (3 + 1) + (1 + 1) windows at the most
    longest = max(len(list(dataset.batches(2, random_state=s))) for s in range(30))
    assert longest == 3


# ------------------------------------------------------------------------------ the end as a target


END = 99_999


def with_end(pieces):
    return [[*piece, END] for piece in pieces]


def test_the_end_is_the_target_after_the_last_frame():
    dataset = WindowDataset([SEVEN[:4], FOUR[:2]], window_size=3, end=7)
    first, second = dataset.batches(2, shuffle=False)
    assert first.inputs.tolist() == [[START, 10, 11], [12, 13, PAD]]
    assert first.targets.tolist() == [[10, 11, 12], [13, 7, 0]]
    assert first.mask.tolist() == [[True, True, True], [True, True, False]]
    assert second.inputs.tolist() == [[START, 50, 51], [PAD, PAD, PAD]]
    assert second.targets.tolist() == [[50, 51, 7], [0, 0, 0]]
    assert second.mask.tolist() == [[True] * 3, [False] * 3]


def test_the_end_is_the_target_of_the_last_window():
    dataset = WindowDataset([SEVEN[:4], FOUR[:1]], window_size=3, target="next", stride=2, end=7)
    (batch,) = dataset.batches(4, shuffle=False)
    assert batch.inputs.tolist() == [
        [PAD, PAD, START],
        [START, 10, 11],
        [11, 12, 13],
        [PAD, PAD, START],
    ]
    assert batch.targets.tolist() == [[10], [12], [7], [50]]
    assert batch.mask.all()


def test_whole_windows_have_no_end():
    for target in TARGETS:
        with_one, without = (
            WindowDataset([SEVEN, FOUR], window_size=2, target=target, end=end)
            for end in (99, None)
        )
        for one, other in zip(with_one.to_numpy(), without.to_numpy(), strict=True):
            assert np.array_equal(one, other)


@given(token_pieces(), st.integers(1, 9), st.integers(1, 5))
def test_batches_with_ends_equal_a_double_loop(pieces, window_size, batch_size):
    dataset = WindowDataset(arrays(pieces), window_size=window_size, end=END)
    found = rows_of(dataset.batches(batch_size, shuffle=False))
    expected = reference.padded_sequences(with_end(pieces), window_size, START, PAD)
    assert [row for row in found if any(row[2])] == expected
    assert len(found) - len(expected) == -len(expected) % batch_size


@given(token_pieces(), st.integers(1, 9), st.integers(1, 7), st.integers(1, 5))
def test_batches_of_next_with_ends_equal_a_double_loop(pieces, window_size, stride, batch_size):
    dataset = WindowDataset(
        arrays(pieces), window_size=window_size, stride=stride, target="next", end=END
    )
    found = rows_of(dataset.batches(batch_size, shuffle=False))
    expected = reference.padded_next(with_end(pieces), window_size, stride, START, PAD)
    assert [(x, y[0]) for x, y, m in found if m == [True]] == expected


@given(token_pieces(), st.integers(1, 9), st.integers(1, 5), st.integers(0, 10**6))
def test_every_end_is_a_target_once_an_epoch(pieces, window_size, batch_size, seed):
    dataset = WindowDataset(arrays(pieces), window_size=window_size, end=END)
    batches = list(dataset.batches(batch_size, random_state=seed))
    assert len(batches) <= dataset.n_batches(batch_size)
    pairs = [
        pair
        for inputs, targets, mask in rows_of(batches)
        for pair, is_one in zip(zip(inputs, targets, strict=True), mask, strict=True)
        if is_one
    ]
    expected = [
        (frame_before(t) if t != END else (piece[-2] if len(piece) > 1 else START), t)
        for piece in with_end(pieces)
        for t in piece
    ]
    assert sorted(pairs) == sorted(expected)


@given(token_pieces(), st.integers(1, 9), st.integers(1, 7), st.integers(0, 10**6))
def test_next_meets_ends_at_every_stride_th_frame(pieces, window_size, stride, seed):
    dataset = WindowDataset(
        arrays(pieces), window_size=window_size, stride=stride, target="next", end=END
    )
    batches = list(dataset.batches(2, random_state=seed))
    assert len(batches) <= dataset.n_batches(2)
    every = WindowDataset(arrays(pieces), window_size=window_size, target="next", end=END)
    possible = rows_of(every.batches(1, shuffle=False))
    found = [row for row in rows_of(batches) if row[2] == [True]]
    assert all(row in possible for row in found)
    n = [len(piece) + 1 for piece in pieces]
    assert sum(k // stride or 1 for k in n) <= len(found) <= sum(-(-k // stride) for k in n)


@pytest.mark.parametrize("target", TARGETS)
def test_a_split_keeps_the_end(target):
    dataset = WindowDataset(
        [SEVEN, FOUR, SEVEN + 50], window_size=3, stride=1, target=target, end=END
    )
    for part in dataset.split(0.3, random_state=0):
        targets = [t for _, row, _ in rows_of(part.batches(4, shuffle=False)) for t in row]
        assert targets.count(END) == len(part.tokens)


# ----------------------------------------------------------------------------------------- split


@given(st.integers(2, 30), st.floats(0.02, 0.6), st.integers(0, 1000))
def test_pieces_are_split_once_each(n, fraction, seed):
    kept, held = split_pieces(n, fraction, seed)
    assert sorted(kept + held) == list(range(n))
    assert kept == sorted(kept) and held == sorted(held)
    assert len(held) == max(1, round(fraction * n))
    assert split_pieces(n, fraction, seed) == (kept, held)


def test_every_piece_is_held_out_by_some_seed():
    assert {split_pieces(6, 0.1, seed)[1][0] for seed in range(60)} == set(range(6))


def test_a_split_dataset_shares_no_piece():
    pieces = [np.arange(1000 * p, 1000 * p + 9) for p in range(10)]
    dataset = WindowDataset(pieces, window_size=3, stride=2, target="next")
    kept, held = dataset.split(0.3, random_state=0)
    parts = [{int(t) // 1000 for _, t in part} for part in (kept, held)]
    assert (len(parts[0]), len(parts[1])) == (7, 3)
    assert parts[0] | parts[1] == set(range(10))
    assert (held.window_size, held.stride, held.target) == (3, 2, "next")
    assert len(kept) + len(held) == len(dataset)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan")])
def test_a_fraction_outside_0_to_1(fraction):
    with pytest.raises(pl.InvalidInputError, match=f"between 0 and 1; got {fraction}"):
        WindowDataset([SEVEN, FOUR], window_size=2).split(fraction)


@pytest.mark.parametrize(("n", "fraction"), [(1, 0.1), (2, 0.9)])
def test_too_few_pieces_to_split(n, fraction):
    with pytest.raises(pl.InvalidInputError, match=rf"{n} piece\(s\) can't be split .*{fraction}"):
        WindowDataset([SEVEN] * n, window_size=2).split(fraction)


# -------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"window_size": 0}, "window_size must be at least 1; got 0"),
        ({"window_size": 2.5}, "window_size must be a whole number; got 2.5"),
        ({"window_size": None}, "window_size"),
        ({"stride": 0}, "stride must be at least 1; got 0"),
        ({"stride": -1}, "stride must be at least 1; got -1"),
        ({"target": "last"}, """target must be "sequence" or "next"; got 'last'"""),
    ],
)
def test_windows_refuse_parameters(keywords, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        WindowDataset([SEVEN], **keywords)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (SEVEN, r"list with one entry a piece; wrap it in a list: \[tokens\]"),
        (ChordSequence(SEVEN), "wrap it in a list"),
        ([SEVEN, SEVEN * 0.5], r"tokens\[1\]: expected integers .*; got float64 of shape \(7,\)"),
        ([np.zeros((3, 128), int)], r"tokens\[0\]: .*got int64 of shape \(3, 128\)"),
    ],
)
def test_windows_refuse_tokens(tokens, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        WindowDataset(tokens)


def test_no_pieces_are_an_error():
    with pytest.raises(pl.InvalidInputError, match="at least one"):
        WindowDataset([])


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_need_a_size(batch_size):
    with pytest.raises(pl.InvalidInputError, match="batch_size"):
        list(WindowDataset([SEVEN], window_size=2).batches(batch_size))


def test_timing_goes_with_its_tokens():
    """Of the token before the first input, and of each input; START and PAD have none."""
    tokens, durations = [np.arange(10, 17), np.array([30, 31])], [np.arange(1, 8), np.array([9, 4])]
    timing = [np.stack([lengths, 2 * lengths], axis=1) for lengths in durations]
    both = {"window_size": 4, "timing": timing, "end": 99}
    (batch,) = pl.WindowDataset(tokens, **both).batches(3, shuffle=False)
    assert batch.inputs.tolist() == [[-1, 10, 11, 12], [13, 14, 15, 16], [-1, 30, 31, -2]]
    assert batch.timing[..., 0].tolist() == [[0, 0, 1, 2, 3], [3, 4, 5, 6, 7], [0, 0, 9, 4, 0]]
    assert np.array_equal(batch.timing[..., 1], 2 * batch.timing[..., 0])
    following = pl.WindowDataset(tokens, target="next", stride=3, **both)
    (batch,) = following.batches(4, shuffle=False)
    assert batch.inputs.tolist() == [
        [-2, -2, -2, -1],
        [-1, 10, 11, 12],
        [12, 13, 14, 15],
        [-2, -2, -2, -1],
    ]
    assert batch.timing[..., 0].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 1, 2, 3],
        [2, 3, 4, 5, 6],
        [0, 0, 0, 0, 0],
    ]
    first, second = following.split(0.5, random_state=0)
    for part in (first, second):
        (piece,), (lengths,) = part.tokens, part.timing
        assert len(piece) == len(lengths) == {10: 7, 30: 2}[piece[0]]
    with pytest.raises(pl.exceptions.InvalidInputError, match=r"\[7, 3\] for \[7, 2\] tokens"):
        pl.WindowDataset(tokens, timing=[timing[0], np.ones((3, 2), int)])
    assert next(pl.WindowDataset(tokens).batches(2)).timing is None
