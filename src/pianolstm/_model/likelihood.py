"""Likelihood of pieces under a network, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pianolstm._jax.programs import program
from pianolstm._model.durations import STARTS
from pianolstm._model.inputs import LAST, SKIPPED, Reader, spelled
from pianolstm._model.losses import Output, TargetRows, log_likelihoods, logits_of
from pianolstm._model.networks import Carry, NetworkConfig, Params, bind, log_spelled
from pianolstm._model.planes import unpack_words
from pianolstm._model.recall import Recall
from pianolstm.rolls import N_PITCHES
from pianolstm.vocabulary import Corpus, PitchBernoulli, metrical_position, n_rows
from pianolstm.windows import PAD, START

LANES = (1, 4, 16)
"""How many pieces are read side by side; few sizes, so that few programs are compiled."""

ROWS = (256, 2048)
"""How many frames are scored at once, likewise."""


@dataclass(frozen=True)
class PieceLikelihood:
    """Log-likelihoods along one piece."""

    frames: np.ndarray  # int64 (n,): the frames that were predicted
    log_p: np.ndarray  # float64 (n,): nats of each
    right: np.ndarray  # bool (n,): whether the frame's chord was the most likely one


def evaluate(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8): bits of the rows of the softmax
    corpus: Corpus,
    bernoulli: PitchBernoulli,
    recall: Recall | None = None,
    *,
    stride: int = 1,
) -> list[PieceLikelihood]:
    """Log-likelihood of every frame of each piece, chords outside the vocabulary included.

    Causal networks carry their state over the whole piece. The Bi-LSTM reads a window for each
    frame.

    Parameters
    ----------
    bernoulli : PitchBernoulli
        What a chord outside the vocabulary costs beside the probability of being one.
    recall : Recall, default=None
        What share chords have that are recalled, where any are; None gives the network's alone.
    stride : int, default=1
        Bi-LSTM only: predict one frame of every `stride`, drawn once and for all.
    """
    reader = Reader(corpus, spell=config.spell)
    steps = _steps(corpus, 1 if config.is_causal else stride)
    read = _read_steps(config, params, corpus, reader, steps)
    shares = recall if config.recall else None
    # The chords of steps that have one: the last only lasts, until the piece ends.
    chords = [at[at < len(tokens)] for at, tokens in zip(steps, corpus.tokens, strict=True)]
    pairs = list(zip(read, chords, strict=True))
    if config.spell:
        found = [(columns[0][: len(at)], columns[1][: len(at)]) for columns, at in pairs]
    else:
        output = output_table(config, True, params, vocabulary, np.int32(corpus.n_tokens))
        features = np.concatenate([columns[0][: len(at)] for columns, at in pairs])
        found = _likelihoods(config, output, features, reader, corpus, chords)
    pieces = [
        PieceLikelihood(at, log_p.astype(float), right.copy())
        for at, (log_p, right) in zip(chords, found, strict=True)
    ]
    if not config.spell:
        _add_unknown(pieces, corpus, bernoulli)
    if shares is not None:
        _mix_recalled(pieces, corpus, shares, spell=config.spell)
    if config.clock == "frames":
        return pieces
    return [
        _by_frame(piece, _Ages.of(corpus, i, steps[i], read[i][-1], shares))
        for i, piece in enumerate(pieces)
    ]


def _by_frame(piece: PieceLikelihood, ages: _Ages) -> PieceLikelihood:
    """Chords and how long they last, as log-likelihoods of frames."""
    log_p, hazard = ages.log_p.copy(), ages.hazard
    begins = np.flatnonzero(ages.begins)
    # More likely than that what sounds goes on.
    right = hazard < 0.5
    right[begins] = piece.right & (hazard[begins] * np.exp(piece.log_p) >= 1 - hazard[begins])
    log_p[begins] += piece.log_p
    return PieceLikelihood(ages.frames, log_p, right)


@dataclass(frozen=True)
class _Ages:
    """How long the chords of a piece last, frame by frame."""

    frames: np.ndarray  # int64 (n,): their numbers in the piece
    step: np.ndarray  # int64 (n,): which of the steps scored each is of
    ages: np.ndarray  # int32 (n,): frames that what sounds before has lasted; 0 at the beginning
    begins: np.ndarray  # bool (n,): whether a chord begins
    hazard: np.ndarray  # float64 (n,): probability that one does
    log_p: np.ndarray  # float64 (n,): nats of whether one does

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        number: int,  # of the piece
        steps: np.ndarray,  # int64 (n_scored,)
        logits: np.ndarray,  # (n_scored, N_CLASSES)
        recall: Recall | None,
    ) -> _Ages:
        """A step has the frames after the one in which the chord before it began, and its first."""
        durations = np.append(0, corpus.durations[number])
        first = np.cumsum(durations)  # the frame in which the chord of each step begins
        lasted = durations[steps]
        is_last = steps == len(durations) - 1
        # The first step has the first frame alone, the last has none in which a chord begins.
        n = np.where(steps == 0, 1, lasted - is_last)
        step = np.repeat(np.arange(len(steps)), n)
        place = np.arange(len(step)) - np.repeat(np.cumsum(n) - n, n)
        ages = np.where(steps[step] == 0, 0, place + 1)
        begins = (place == n[step] - 1) & ~is_last[step]
        frames = np.where(steps[step] == 0, 0, (first - durations)[steps[step]] + ages)
        z = logits[step, np.searchsorted(STARTS, np.maximum(ages, 1), "right") - 1].astype(float)
        ends, goes_on = -np.logaddexp(0, -z), -np.logaddexp(0, z)
        if recall is not None:
            share, recalled = recall.durations_of(corpus, number)
            ends, goes_on = _mix_durations(
                ends, goes_on, ages, share[steps][step], recalled[steps][step]
            )
        ends, goes_on = np.where(ages == 0, 0, ends), np.where(ages == 0, -np.inf, goes_on)
        log_p = np.where(begins, ends, goes_on)
        return cls(frames, step, ages, begins, np.exp(ends), log_p)

    def at(self, beat: float) -> np.ndarray:  # int64 (n, 2)
        """Of each frame, as `Corpus.timing` has it: how long what sounds before has lasted."""
        return np.stack([self.ages, metrical_position(self.frames, beat)], axis=1)


def _mix_durations(
    ends: np.ndarray,  # float64 (n,): nats of ending at each age, of what has lasted as long
    goes_on: np.ndarray,  # float64 (n,)
    ages: np.ndarray,  # int (n,), each step's from 1 on
    share: np.ndarray,  # float64 (n,): of the duration that is recalled
    recalled: np.ndarray,  # int (n,): that duration
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,), float64 (n,)
    """The same where one duration has a share of its own."""
    total = np.cumsum(goes_on)
    at = np.arange(len(ages)) - ages  # the frame before the step's first
    before = np.where(at >= 0, total[at], 0)
    lasted = np.where(ages > 1, total - goes_on - before, 0)  # nats of the ages before
    with np.errstate(divide="ignore"):
        log_share, log_rest = np.log(share), np.log1p(-share)
        alive = np.logaddexp(np.where(recalled >= ages, log_share, -np.inf), log_rest + lasted)
        end = np.logaddexp(np.where(recalled == ages, log_share, -np.inf), log_rest + lasted + ends)
        on = np.logaddexp(
            np.where(recalled > ages, log_share, -np.inf), log_rest + lasted + goes_on
        )
    return end - alive, on - alive


def _add_unknown(pieces: list[PieceLikelihood], corpus: Corpus, bernoulli: PitchBernoulli) -> None:
    """Add what the pitches of chords outside the vocabulary cost."""
    for piece, tokens in zip(pieces, corpus.tokens, strict=True):
        unknown = np.flatnonzero(corpus.rows[tokens[piece.frames]] < 0)
        at = piece.frames[unknown]
        before = corpus.chords[tokens[np.maximum(at - 1, 0)]] * (at > 0)[:, None].astype(np.uint64)
        piece.log_p[unknown] += bernoulli.log_likelihood(corpus.chords[tokens[at]], before)
        piece.right[unknown] = False


def _mix_recalled(
    pieces: list[PieceLikelihood], corpus: Corpus, recall: Recall, *, spell: bool
) -> None:
    """Give what is recalled its share."""
    for i, (piece, tokens) in enumerate(zip(pieces, corpus.tokens, strict=True)):
        share, ids = (a[piece.frames] for a in recall.of(corpus, i, spell=spell))
        came = ids == tokens[piece.frames]
        with np.errstate(divide="ignore"):  # a share of 0 has the logarithm minus infinity
            recalled = np.where(came, np.log(share), -np.inf)
        piece.log_p[:] = np.logaddexp(np.log1p(-share) + piece.log_p, recalled)
        piece.right[:] = np.where(share > 0.5, came, piece.right)


def probabilities(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8)
    corpus: Corpus,
    recall: Recall,
) -> list[np.ndarray]:  # (n_frames, n_tokens) for each piece
    """Of each chord of the vocabulary."""
    reader = Reader(corpus, spell=config.spell)
    steps = _steps(corpus, 1)
    read = _read_steps(config, params, corpus, reader, steps, has_targets=False)
    of_frames = partial(_probabilities, config, params, vocabulary, corpus)
    shares = recall if config.recall else None
    found = []
    for i, (tokens, columns) in enumerate(zip(corpus.tokens, read, strict=True)):
        is_timed = config.clock == "changes"
        ages = _Ages.of(corpus, i, steps[i], columns[-1], shares) if is_timed else None
        step = np.arange(len(tokens)) if ages is None else ages.step
        at = np.zeros((len(step), 2)) if ages is None else ages.at(corpus.beat)
        before = np.append(START, tokens)[step]
        barred = reader.targets(np.zeros_like(before), before).barred
        bits = reader.inputs(before)[1]
        hidden = [column[step] for column in columns[: len(columns) - is_timed]]
        p = of_frames([*hidden, at.astype(np.int32), barred, bits])
        if shares is not None:
            share, ids = (a[step] for a in shares.of(corpus, i, spell=config.spell))
            p *= (1 - share[:, None]).astype(np.float32)
            known = np.flatnonzero(corpus.rows[ids] >= 0)
            p[known, corpus.rows[ids[known]]] += share[known]
        if ages is not None:
            p *= ages.hazard[:, None].astype(np.float32)
            held = corpus.rows[np.append(corpus.held, -1)[before]]
            known = np.flatnonzero((before >= 0) & (held >= 0))
            p[known, held[known]] = 1 - ages.hazard[known]
        found.append(p)
    return found


def _probabilities(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8)
    corpus: Corpus,
    columns: list[np.ndarray],  # (n, …) each: as `_softmax_rows` and `_spelled_rows` take them
) -> np.ndarray:  # (n, n_tokens)
    """Of each chord of the vocabulary, by the network alone."""
    n = len(columns[0])
    p = np.empty((n, corpus.n_tokens), np.float32)
    if config.spell:
        chords = spelled(corpus.vocabulary)
        # As many as there are rows, so that few sizes are compiled.
        missing = n_rows(len(chords)) - len(chords)
        chords = np.pad(chords, [(0, missing), (0, 0)], constant_values=SKIPPED)
        rows = partial(_spelled_rows, config, params, chords)
    else:
        output = output_table(config, True, params, vocabulary, np.int32(corpus.n_tokens))
        rows = partial(_softmax_rows, config, params, output)
    for first in range(0, n, ROWS[0]):
        part = [a[first : first + ROWS[0]] for a in columns]
        missing = ROWS[0] - len(part[0])
        full = [np.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1)) for a in part]
        p[first : first + ROWS[0]] = np.asarray(rows(*full))[: len(part[0]), : corpus.n_tokens]
    return p


@program()
def _softmax_rows(
    config: NetworkConfig,
    params: Params,
    output: Output,
    x: Array,  # (n, width), with a clock of changes (n, units)
    timing: Array,  # int32 (n, 2): with a clock of changes, of what has sounded
    barred: Array,  # int32 (n,)
    _: Array,  # uint32 (n, 8)
) -> Array:  # (n, n_rows)
    if config.clock == "changes":
        x = bind(config, params).predict(x, timing)
    return jax.nn.softmax(logits_of(x, output, barred))


@program()
def _spelled_rows(
    config: NetworkConfig,
    params: Params,
    chords: Array,  # int16 (n_rows, length): symbols
    x: Array,  # (n, width), with a clock of changes (n, units)
    heard: Array,  # (n, n_pitches, state)
    timing: Array,  # int32 (n, 2): with a clock of changes, of what has sounded
    barred: Array,  # int32 (n,)
    before: Array,  # uint32 (n, 8)
) -> Array:  # (n, n_rows)
    network = bind(config, params)
    if config.clock == "changes":
        x = network.predict(x, timing)
    struck = jnp.where((chords >= N_PITCHES) & (chords < LAST), chords - N_PITCHES, -1)
    sounded = unpack_words(before[:, :4]) > 0

    def of_chord(symbols: tuple[Array, Array]) -> Array:  # int16 (length,) twice -> (n,)
        its, again = symbols
        repeated = jnp.broadcast_to(its, (len(x), len(its)))
        log_p, _ = log_spelled(network, heard, x, barred, repeated, before, goes_on=True)
        # Struck again is only what sounded.
        is_silent = jnp.any((again >= 0)[None] & ~sounded[:, jnp.maximum(again, 0)], axis=1)
        return jnp.where(is_silent | (its[0] < 0), 0, jnp.exp(log_p))

    return jax.lax.map(of_chord, (chords, struck)).T


@program(n_static=2)
def output_table(
    config: NetworkConfig,
    goes_on: bool,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8)
    n_tokens: Array,  # int32 ()
) -> Output:
    """The softmax; the same for every frame of a piece."""
    return bind(config, params).output(vocabulary, n_tokens, goes_on=goes_on)


@program()
def _read(
    config: NetworkConfig,
    params: Params,
    carry: Carry,
    ids: Array,  # int32 (batch, time)
    bits: Array,  # uint32 (batch, time, 8)
    timing: Array | None,  # int32 (batch, time + 1, 2): see `WindowBatch`
    targets: tuple[Array, Array] | None,  # (batch, n_targets, …): barred and symbols
) -> tuple[tuple[Array, ...], Carry]:  # (batch, n_targets, …) each
    """What a network that spells makes of what is told to come: nats, and whether each draw was the
    likeliest; of another, what predicts it. With a clock of changes the logits of the hazards last.

    Where nothing is told, what predicts it, with a clock of changes what the body gives; then the
    states of pitches, where there are any.
    """
    network = bind(config, params)
    before = None if timing is None else timing[:, :-1]
    (h, heard), carry = network.read(ids, bits, carry, None, before)
    timing = None if timing is None else timing[:, -h.shape[1] :]
    holds = () if timing is None else (network.holds(h),)
    if targets is None:
        hidden = network.predict(h, None) if timing is None else h
        return (hidden, *(() if heard is None else (heard,)), *holds), carry
    features = network.predict(h, timing)
    if heard is None:
        return (features, *holds), carry
    n = features.shape[0] * features.shape[1]
    arrays = (heard, features, *targets, bits[:, -h.shape[1] :])
    rows = (a.reshape(n, *a.shape[2:]) for a in arrays)
    found = log_spelled(network, *rows, goes_on=True)
    return (*(a.reshape(h.shape[:2]) for a in found), *holds), carry


def _steps(corpus: Corpus, stride: int) -> list[np.ndarray]:  # int64 (n,) for each piece
    """Steps of each piece to be scored: one of every `stride`.

    With a clock of changes the last of them has no chord: what sounds lasts until the piece ends.

    Drawn, and always the same: at equal distances they might all be on the beat, where chords
    begin, and each piece would count its first frame, which is hard to tell, as much as others.
    """
    rng = np.random.default_rng(0)
    counts = [len(tokens) + (corpus.clock == "changes") for tokens in corpus.tokens]
    firsts = [np.arange(0, n, stride) for n in counts]
    return [
        first + rng.integers(np.minimum(stride, n - first))
        for first, n in zip(firsts, counts, strict=True)
    ]


def _read_steps(
    config: NetworkConfig,
    params: Params,
    corpus: Corpus,
    reader: Reader,
    steps: list[np.ndarray],  # int64 (n,) for each piece
    *,
    has_targets: bool = True,
) -> list[tuple[np.ndarray, ...]]:  # (n, …) each, for each piece
    """What `_read` gives for the given steps of each piece; causal networks read all of them."""
    if config.is_causal:
        return _carried(config, params, corpus, reader, has_targets)
    return _windowed(config, params, corpus, reader, steps, has_targets)


def _carried(
    config: NetworkConfig, params: Params, corpus: Corpus, reader: Reader, has_targets: bool
) -> list[tuple[np.ndarray, ...]]:  # (n_steps, …) each, for each piece
    """Of every step of each piece; pieces side by side, state carried along them."""
    time, is_timed = config.window_size, corpus.clock == "changes"
    timing = corpus.timing if is_timed else []
    lengths = [len(tokens) + is_timed for tokens in corpus.tokens]
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    found: dict[int, tuple[np.ndarray, ...]] = {}
    for first in range(0, len(longest_first), LANES[-1]):
        group = longest_first[first : first + LANES[-1]]
        ids = np.full((LANES[-1], 1 + -(-lengths[group[0]] // time) * time), PAD, np.int32)
        times = np.zeros((len(ids), 1 + ids.shape[1], 2), np.int32) if is_timed else None
        ids[:, 0] = START
        for lane, i in enumerate(group):
            ids[lane, 1 : 1 + len(corpus.tokens[i])] = corpus.tokens[i]
            if times is not None:
                times[lane, 2 : 2 + len(corpus.tokens[i])] = timing[i]
        n_lanes = LANES[-1]
        carry = bind(config, params).initial_carry(n_lanes, np)
        parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in group]
        for a in range(0, ids.shape[1] - 1, time):
            # Pieces that go on come first: as others end, fewer lanes are left to compute.
            going_on = sum(lengths[i] > a for i in group)
            lanes = next(n for n in LANES if n >= going_on)
            if lanes < n_lanes:
                # By NumPy: JAX would compile a slice of each size.
                carry = jax.tree.map(lambda leaf, n=lanes: np.asarray(leaf)[:n], carry)
                n_lanes = lanes
            now = ids[:lanes, a : a + time]
            part, carry = _read(
                config,
                params,
                carry,
                *reader.inputs(now),
                None if times is None else times[:lanes, a : a + time + 1],
                reader.targets(ids[:lanes, a + 1 :][:, :time], now)[1:] if has_targets else None,
            )
            columns = [np.asarray(column) for column in part]
            for lane, i in enumerate(group[:going_on]):
                parts[lane].append(tuple(column[lane, : lengths[i] - a] for column in columns))
        for i, piece in zip(group, parts, strict=True):
            found[i] = tuple(np.concatenate(column) for column in zip(*piece, strict=True))
    return [found[i] for i in range(len(lengths))]


def _windowed(
    config: NetworkConfig,
    params: Params,
    corpus: Corpus,
    reader: Reader,
    steps: list[np.ndarray],  # int64 (n,) for each piece
    has_targets: bool,
) -> list[tuple[np.ndarray, ...]]:  # (n, …) each, for each piece
    """Of the given steps of each piece, each from the window before it."""
    lanes, size, is_timed = 64, config.window_size, corpus.clock == "changes"
    # The window before step t begins at t here.
    pieces = [np.concatenate([np.full(size - 1, PAD), [START], t, [PAD]]) for t in corpus.tokens]
    nothing = np.zeros((size + 1, 2), np.int32)
    timing = [np.concatenate([nothing, t]) for t in corpus.timing] if is_timed else []
    counts = [len(at) for at in steps]
    places = np.stack([np.repeat(np.arange(len(pieces)), counts), np.concatenate(steps)], axis=1)
    carry = bind(config, params).initial_carry(lanes, np)
    parts = []
    for first in range(0, len(places), lanes):
        windows, after = np.full((lanes, size), PAD, np.int32), np.full(lanes, PAD, np.int32)
        times = np.zeros((lanes, size + 1, 2), np.int32) if is_timed else None
        for row, (i, t) in enumerate(places[first : first + lanes].tolist()):
            windows[row], after[row] = pieces[i][t : t + size], pieces[i][t + size]
            if times is not None:
                times[row] = timing[i][t : t + size + 1]
        targets = None
        if has_targets:
            targets = reader.targets(after[:, None], windows[:, -1:])[1:]
        part, _ = _read(config, params, carry, *reader.inputs(windows), times, targets)
        parts.append([np.asarray(column)[:, 0] for column in part])
    columns = [np.concatenate(column)[: len(places)] for column in zip(*parts, strict=True)]
    ends = np.cumsum(counts)[:-1]
    return list(zip(*(np.split(column, ends) for column in columns), strict=True))


@program()
def _score_rows(
    _: NetworkConfig,
    output: Output,
    features: Array,  # (n, width)
    rows: Array,  # int32 (n,)
    barred: Array,  # int32 (n,)
) -> tuple[Array, Array]:  # (n,), bool (n,)
    return log_likelihoods(features, output, TargetRows(rows, barred))


def _likelihoods(
    config: NetworkConfig,
    output: Output,
    features: np.ndarray,  # (n, width): of all pieces
    reader: Reader,
    corpus: Corpus,
    steps: list[np.ndarray],  # int64 (n,) for each piece
) -> list[tuple[np.ndarray, np.ndarray]]:  # (n,), bool (n,) for each piece
    """Log-likelihood of rows and whether they are the most likely, in blocks of few sizes."""
    ids, before = (
        np.concatenate([a[at] for a, at in zip(arrays, steps, strict=True)])
        for arrays in (corpus.tokens, [np.append(START, tokens) for tokens in corpus.tokens])
    )
    rows, barred, _ = reader.targets(ids, before)
    log_p, right = np.empty(len(ids), np.float32), np.empty(len(ids), bool)
    first = 0
    while first < len(ids):
        n = ROWS[0] if len(ids) - first < ROWS[1] else ROWS[1]
        at = slice(first, first + n)
        missing = n - len(ids[at])
        columns = features[at], rows[at], barred[at]
        padded = [np.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1), "edge") for a in columns]
        found = _score_rows(config, output, *padded)
        log_p[at], right[at] = (np.asarray(column)[: n - missing] for column in found)
        first += n
    ends = np.cumsum([len(at) for at in steps])[:-1]
    return list(zip(np.split(log_p, ends), np.split(right, ends), strict=True))
