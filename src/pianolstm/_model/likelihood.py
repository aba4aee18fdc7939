"""Likelihood of pieces under a network, frame by frame."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pianolstm._jax.programs import program
from pianolstm._model.config import NetworkConfig
from pianolstm._model.durations import STARTS
from pianolstm._model.gates import RecalledBatch
from pianolstm._model.inputs import LAST, SKIPPED, Reader, spelled
from pianolstm._model.losses import Output, log_likelihoods, logits_of
from pianolstm._model.networks import Carry, Params, bind, duration_gate_of, gate_of, log_spelled
from pianolstm._model.note_decoder import Spelled
from pianolstm._model.planes import unpack_words
from pianolstm._model.recall import Recalled
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
    stride : int, default=1
        Bi-LSTM only: predict one frame of every `stride`, drawn once and for all.
    """
    reader = Reader(corpus, spell=config.spell)
    steps = _steps(corpus, 1 if config.is_causal else stride)
    read = _read_steps(config, params, corpus, reader, steps)
    # The chords of steps that have one: the last only lasts, until the piece ends.
    chords = [at[at < len(tokens)] for at, tokens in zip(steps, corpus.tokens, strict=True)]
    pairs = list(zip(read, chords, strict=True))
    if config.spell:
        found = [(part.log_p[: len(at)], part.right[: len(at)]) for part, at in pairs]
    else:
        output = output_table(config, True, params, vocabulary, np.int32(corpus.n_tokens))
        features = np.concatenate([part.features[: len(at)] for part, at in pairs])
        found = _likelihoods(config, output, features, reader, corpus, chords)
    pieces = [
        PieceLikelihood(at, log_p.astype(float), right.copy())
        for at, (log_p, right) in zip(chords, found, strict=True)
    ]
    if not config.spell:
        _add_unknown(pieces, corpus, bernoulli)
    for i, piece in enumerate(pieces):
        if read[i].recalled is not None:
            _mix_recalled(piece, read[i], corpus.tokens[i])
    if config.clock == "frames":
        return pieces
    return [
        _by_frame(piece, _Ages.of(corpus, i, steps[i], read[i])) for i, piece in enumerate(pieces)
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
        read: Read,  # of these steps
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
        assert read.holds is not None
        z = read.holds[step, np.searchsorted(STARTS, np.maximum(ages, 1), "right") - 1].astype(
            float
        )
        ends, goes_on = -np.logaddexp(0, -z), -np.logaddexp(0, z)
        if read.recalled is not None and read.duration_gate is not None:
            log_g, log_rest = _log_shares(read.duration_gate[step])
            recalled = read.recalled.durations[step]
            ends, goes_on = _mix_durations(ends, goes_on, ages, (log_g, log_rest), recalled)
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
    shares: tuple[np.ndarray, np.ndarray],  # float64 (n,): nats of recalling, and of not doing it
    recalled: np.ndarray,  # int (n,): the duration that is recalled
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,), float64 (n,)
    """The same where one duration has a share of its own."""
    total = np.cumsum(goes_on)
    at = np.arange(len(ages)) - ages  # the frame before the step's first
    before = np.where(at >= 0, total[at], 0)
    lasted = np.where(ages > 1, total - goes_on - before, 0)  # nats of the ages before
    log_share, log_rest = shares
    alive = np.logaddexp(np.where(recalled >= ages, log_share, -np.inf), log_rest + lasted)
    end = np.logaddexp(np.where(recalled == ages, log_share, -np.inf), log_rest + lasted + ends)
    on = np.logaddexp(np.where(recalled > ages, log_share, -np.inf), log_rest + lasted + goes_on)
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
    piece: PieceLikelihood,
    read: Read,
    tokens: np.ndarray,  # int32 (n_steps,)
) -> None:
    """Give what is recalled its share."""
    assert read.recalled is not None and read.gate is not None
    n = len(piece.frames)
    came = read.recalled.ids[:n] == tokens[piece.frames]
    log_g, log_rest = _log_shares(read.gate[:n])
    piece.log_p[:] = np.logaddexp(log_rest + piece.log_p, np.where(came, log_g, -np.inf))
    piece.right[:] = np.where(read.gate[:n] > 0, came, piece.right)


def _log_shares(
    gate: np.ndarray,  # (n,)
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,), float64 (n,)
    """Nats of taking what is recalled, and of not taking it."""
    gate = gate.astype(float)
    return -np.logaddexp(0, -gate), -np.logaddexp(0, gate)


def probabilities(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8)
    corpus: Corpus,
) -> list[np.ndarray]:  # (n_frames, n_tokens) for each piece
    """Of each chord of the vocabulary."""
    reader = Reader(corpus, spell=config.spell)
    steps = _steps(corpus, 1)
    read = _read_steps(config, params, corpus, reader, steps, has_targets=False)
    found = []
    for i, (tokens, its) in enumerate(zip(corpus.tokens, read, strict=True)):
        ages = _Ages.of(corpus, i, steps[i], its) if config.clock == "changes" else None
        step = np.arange(len(tokens)) if ages is None else ages.step
        at = None if ages is None else ages.at(corpus.beat).astype(np.int32)
        before = np.append(START, tokens)[step]
        barred = reader.targets(np.zeros_like(before), before).barred
        recalled = None if its.recalled is None else Recalled(*(a[step] for a in its.recalled))
        columns = _Columns(
            its.hidden[step],
            None if its.heard is None else its.heard[step],
            at,
            barred,
            reader.inputs(before)[1],
            None if recalled is None else reader.recalled(recalled, before),
        )
        p, gate = _probabilities(config, params, vocabulary, corpus, columns)
        if recalled is not None:
            share = np.exp(_log_shares(gate)[0])
            p *= (1 - share[:, None]).astype(np.float32)
            known = np.flatnonzero(corpus.rows[recalled.ids] >= 0)
            p[known, corpus.rows[recalled.ids[known]]] += share[known]
        if ages is not None:
            p *= ages.hazard[:, None].astype(np.float32)
            held = corpus.rows[np.append(corpus.held, -1)[before]]
            known = np.flatnonzero((before >= 0) & (held >= 0))
            p[known, held[known]] = 1 - ages.hazard[known]
        found.append(p)
    return found


class _Columns(NamedTuple):
    """What chords are predicted from."""

    hidden: Any  # (n, units): from `ChordNetwork.dense`
    heard: Any  # (n, n_pitches, state), of networks that spell
    timing: Any  # int32 (n, 2): with a clock of changes, of what has sounded
    barred: Any  # int32 (n,)
    before: Any  # uint32 (n, 8)
    recalled: RecalledBatch | None  # (n, …)


def _probabilities(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8)
    corpus: Corpus,
    columns: _Columns,
) -> tuple[np.ndarray, np.ndarray]:  # (n, n_tokens), (n,)
    """Of each chord of the vocabulary, by the network alone; and logits of the gate."""
    n = len(columns.before)
    p, gate = np.empty((n, corpus.n_tokens), np.float32), np.empty(n, np.float32)
    if config.spell:
        chords = spelled(corpus.vocabulary)
        # As many as there are rows, so that few sizes are compiled.
        missing = n_rows(len(chords)) - len(chords)
        chords = np.pad(chords, [(0, missing), (0, 0)], constant_values=SKIPPED)
        rows = partial(_spelled_rows, config, params, chords)
    else:
        output = output_table(config, True, params, vocabulary, np.int32(corpus.n_tokens))
        rows = partial(_softmax_rows, config, params, output)

    def part(a: np.ndarray, first: int) -> np.ndarray:  # (n, …) -> (ROWS[0], …)
        a = a[first : first + ROWS[0]]
        return np.pad(a, [(0, ROWS[0] - len(a))] + [(0, 0)] * (a.ndim - 1))

    for first in range(0, n, ROWS[0]):
        now = slice(first, first + ROWS[0])
        found = rows(jax.tree.map(partial(part, first=first), columns))
        its, gates = (np.asarray(a)[: len(p[now])] for a in found)
        p[now], gate[now] = its[:, : corpus.n_tokens], gates
    return p, gate


@program()
def _softmax_rows(
    config: NetworkConfig, params: Params, output: Output, columns: _Columns
) -> tuple[Array, Array]:  # (n, n_rows), (n,)
    network = bind(config, params)
    hidden = network.timed(columns.hidden, columns.timing)
    logits = logits_of(network.features(hidden), output, columns.barred)
    gate = jnp.zeros(len(hidden))
    if columns.recalled is not None:
        gate = gate_of(network, hidden, columns.recalled, None)
    return jax.nn.softmax(logits), gate


@program()
def _spelled_rows(
    config: NetworkConfig,
    params: Params,
    chords: Array,  # int16 (n_rows, length): symbols
    columns: _Columns,
) -> tuple[Array, Array]:  # (n, n_rows), (n,)
    network = bind(config, params)
    before, heard, recalled = columns.before, columns.heard, columns.recalled
    hidden = network.timed(columns.hidden, columns.timing)
    features = network.features(hidden)
    struck = jnp.where((chords >= N_PITCHES) & (chords < LAST), chords - N_PITCHES, -1)
    sounded = unpack_words(before[:, :4]) > 0

    def spell(symbols: Array) -> Spelled:  # int16 (length,)
        repeated = jnp.broadcast_to(symbols, (len(hidden), len(symbols)))
        bits = None if recalled is None else recalled.bits
        rest = columns.barred, repeated, before
        return log_spelled(network, heard, features, *rest, goes_on=True, recalled=bits)

    def of_chord(symbols: tuple[Array, Array]) -> Array:  # int16 (length,) twice -> (n,)
        its, again = symbols
        # Struck again is only what sounded.
        is_silent = jnp.any((again >= 0)[None] & ~sounded[:, jnp.maximum(again, 0)], axis=1)
        return jnp.where(is_silent | (its[0] < 0), 0, jnp.exp(spell(its).log_p))

    gate = jnp.zeros(len(hidden))
    if recalled is not None:
        gate = gate_of(network, hidden, recalled, spell(chords[0]).log_first)
    return jax.lax.map(of_chord, (chords, struck)).T, gate


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


class Read(NamedTuple):
    """What a network makes of steps; (n, …), or (batch, n_targets, …)."""

    log_p: Any = None  # (…): nats of what comes, of networks that spell
    right: Any = None  # bool (…): whether each draw was the likeliest
    features: Any = None  # (…, embedding): what predicts it, of others
    hidden: Any = None  # (…, units): where nothing is told, from `ChordNetwork.dense`
    heard: Any = None  # (…, n_pitches, state): and states of pitches, of networks that spell
    gate: Any = None  # (…): logits of recalling the chord, where it is told what comes
    duration_gate: Any = None  # (…): and how long the one before lasts, with a clock of changes
    holds: Any = None  # (…, N_CLASSES): with a clock of changes, logits of the hazards
    recalled: Recalled | None = None  # (…)


@program()
def _read(
    config: NetworkConfig,
    params: Params,
    carry: Carry,
    ids: Array,  # int32 (batch, time)
    bits: Array,  # uint32 (batch, time, 8)
    timing: Array | None,  # int32 (batch, time + 1, 2): see `WindowBatch`
    targets: tuple[Array, Array] | None,  # (batch, n_targets, …): barred and symbols
    recalled: RecalledBatch | None,  # (batch, n_targets, …)
) -> tuple[Read, Carry]:
    """What the network makes of steps, where nothing is told of what is to come, or of that."""
    network = bind(config, params)
    before = None if timing is None else timing[:, :-1]
    (h, heard), carry = network.read(ids, bits, carry, None, before)
    timing = None if timing is None else timing[:, -h.shape[1] :]
    dense = network.dense(h)
    found = Read(holds=None if timing is None else network.holds(h))
    if timing is not None and recalled is not None:
        gate = duration_gate_of(network, dense, recalled, found.holds)
        found = found._replace(duration_gate=gate)
    if targets is None:
        return found._replace(hidden=dense, heard=heard), carry
    hidden = network.timed(dense, timing)
    features, log_first = network.features(hidden), None
    if heard is None:
        found = found._replace(features=features)
    else:
        arrays = heard, features, *targets, bits[:, -h.shape[1] :]
        rows = (a.reshape(-1, *a.shape[2:]) for a in arrays)
        words = None if recalled is None else recalled.bits.reshape(-1, 8)
        spelled = log_spelled(network, *rows, goes_on=True, recalled=words)
        log_p, right, log_first = jax.tree.map(lambda a: a.reshape(h.shape[:2]), spelled)
        found = found._replace(log_p=log_p, right=right)
    if recalled is not None:
        found = found._replace(gate=gate_of(network, hidden, recalled, log_first))
    return found, carry


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
) -> list[Read]:
    """What `_read` gives for the given steps of each piece; causal networks read all of them."""
    recalled: list[Recalled] = []
    if config.recall:
        n = len(corpus.tokens)
        recalled = [Recalled.along(corpus, i, spell=config.spell) for i in range(n)]
    arguments = config, params, corpus, reader, recalled
    if config.is_causal:
        return _carried(*arguments, has_targets)
    return _windowed(*arguments, steps, has_targets)


def _carried(
    config: NetworkConfig,
    params: Params,
    corpus: Corpus,
    reader: Reader,
    recalled: list[Recalled],  # of each piece, if anything is
    has_targets: bool,
) -> list[Read]:
    """Of every step of each piece; pieces side by side, state carried along them."""
    time, is_timed = config.window_size, corpus.clock == "changes"
    timing = corpus.timing if is_timed else []
    lengths = [len(tokens) + is_timed for tokens in corpus.tokens]
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    found: dict[int, Read] = {}
    for first in range(0, len(longest_first), LANES[-1]):
        group = longest_first[first : first + LANES[-1]]
        ids = np.full((LANES[-1], 1 + -(-lengths[group[0]] // time) * time), PAD, np.int32)
        times = np.zeros((len(ids), 1 + ids.shape[1], 2), np.int32) if is_timed else None
        ids[:, 0] = START
        before = Recalled(*np.zeros((5, LANES[-1], ids.shape[1] - 1), np.int32))
        for lane, i in enumerate(group):
            ids[lane, 1 : 1 + len(corpus.tokens[i])] = corpus.tokens[i]
            if times is not None:
                times[lane, 2 : 2 + len(corpus.tokens[i])] = timing[i]
            for column, its in zip(before, recalled[i] if recalled else (), strict=False):
                n = min(len(its), column.shape[1])
                column[lane, :n] = its[:n]
        n_lanes = LANES[-1]
        carry = bind(config, params).initial_carry(n_lanes, np)
        parts: list[list[Read]] = [[] for _ in group]
        for a in range(0, ids.shape[1] - 1, time):
            # Pieces that go on come first: as others end, fewer lanes are left to compute.
            going_on = sum(lengths[i] > a for i in group)
            lanes = next(n for n in LANES if n >= going_on)
            if lanes < n_lanes:
                # By NumPy: JAX would compile a slice of each size.
                carry = jax.tree.map(lambda leaf, n=lanes: np.asarray(leaf)[:n], carry)
                n_lanes = lanes
            now = ids[:lanes, a : a + time]
            after = ids[:lanes, a + 1 :][:, :time]
            its = Recalled(*(column[:lanes, a : a + time] for column in before))
            part, carry = _read(
                config,
                params,
                carry,
                *reader.inputs(now),
                None if times is None else times[:lanes, a : a + time + 1],
                reader.targets(after, now)[1:] if has_targets else None,
                reader.recalled(its, after) if recalled else None,
            )
            part = jax.tree.map(np.asarray, part)._replace(recalled=its if recalled else None)
            for lane, i in enumerate(group[:going_on]):
                of_lane = partial(_of_lane, lane=lane, n=lengths[i] - a)
                parts[lane].append(jax.tree.map(of_lane, part))
        for i, piece in zip(group, parts, strict=True):
            found[i] = jax.tree.map(lambda *columns: np.concatenate(columns), *piece)
    return [found[i] for i in range(len(lengths))]


def _of_lane(
    a: np.ndarray,  # (lanes, time, …)
    lane: int,
    n: int,
) -> np.ndarray:  # (n, …)
    return a[lane, :n]


def _windowed(
    config: NetworkConfig,
    params: Params,
    corpus: Corpus,
    reader: Reader,
    recalled: list[Recalled],  # of each piece, if anything is
    steps: list[np.ndarray],  # int64 (n,) for each piece
    has_targets: bool,
) -> list[Read]:
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
        targets = its = None
        if has_targets:
            targets = reader.targets(after[:, None], windows[:, -1:])[1:]
        if recalled:
            its = Recalled(*np.zeros((5, lanes, 1), np.int32))
            for row, (i, t) in enumerate(places[first : first + lanes].tolist()):
                for column, of_piece in zip(its, recalled[i], strict=True):
                    column[row] = of_piece[t]
        before = None if its is None else reader.recalled(its, after[:, None])
        part, _ = _read(config, params, carry, *reader.inputs(windows), times, targets, before)
        part = part._replace(recalled=its)
        parts.append(jax.tree.map(lambda column: np.asarray(column)[:, 0], part))
    whole = jax.tree.map(lambda *columns: np.concatenate(columns)[: len(places)], *parts)
    ends = np.append(0, np.cumsum(counts))
    return [
        jax.tree.map(lambda column, a=a, b=b: column[a:b], whole)
        for a, b in itertools.pairwise(ends.tolist())
    ]


@program()
def _score_rows(
    _: NetworkConfig,
    output: Output,
    features: Array,  # (n, width)
    rows: Array,  # int32 (n,)
    barred: Array,  # int32 (n,)
) -> tuple[Array, Array]:  # (n,), bool (n,)
    return log_likelihoods(features, output, rows, barred)


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
