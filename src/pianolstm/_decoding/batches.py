"""Pieces in lanes: what goes into the compiled program and comes out, on the host's side."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from pianolstm._decoding.sampling import write_block
from pianolstm._decoding.state import (
    BLOCK,
    ForcedFrames,
    SamplingParameters,
    State,
    Vocabulary,
    Written,
    initial_state,
    repeat_lanes,
)
from pianolstm._decoding.stepping import FEW, LANES, Stepped, rounds_alike, step_weights
from pianolstm._jax.host import guest
from pianolstm._jax.programs import hold
from pianolstm._model.config import NetworkConfig
from pianolstm._model.durations import N_CLASSES
from pianolstm._model.networks import Params
from pianolstm._model.note_decoder import N_FIRST
from pianolstm._model.recall import LONGEST_PASSAGE
from pianolstm.chords import N_PITCHES, as_words, find, held_on, pack
from pianolstm.constraints import Limits
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import Grid
from pianolstm.tempo import TempoMap
from pianolstm.vocabulary import padded_vocabulary
from pianolstm.windows import START

UNLIMITED = np.iinfo(np.int32).max

WINDOWED_BLOCK = 4
"""Frames of a block of the Bi-LSTM, which reads a window for each."""


@dataclass(frozen=True)
class SamplingSettings:
    """How a piece is drawn: the settings of `SequenceGenerator.generate`, checked."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    recent: int = 0
    may_end: bool = True
    is_proposed: bool = False


@dataclass(frozen=True, eq=False)
class Forced:
    """Frames that are not drawn.

    Attributes
    ----------
    is_forced : ndarray of bool, shape (n,)
    ids : ndarray of int32, shape (n,)
        Rows; any number from n_rows up stands for a chord outside the vocabulary. 0 of networks
        that spell.
    bits : ndarray of uint32, shape (n, 8)
    held : ndarray of int32, shape (n,)
        The row that holds each chord on, see `Vocabulary`.
    """

    is_forced: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    bits: np.ndarray = field(default_factory=lambda: np.empty((0, 8), np.uint32))
    held: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))


@dataclass(eq=False)
class Request:
    """One piece to write.

    Attributes
    ----------
    key : ndarray of uint32, shape (2,)
    sampling : SamplingSettings
    limits : Limits
        What its constraints come to; those of single frames count from `limits_from` on.
    forced : Forced
        The prime, and frames after it that are to be kept.
    n_prime : int
        Frames of `forced` that are the prime.
    limits_from : int
    name : str
        What follows the number of a frame in an error: " of piece 3", or nothing.
    """

    key: np.ndarray
    sampling: SamplingSettings
    limits: Limits
    forced: Forced = field(default_factory=Forced)
    n_prime: int = 0
    limits_from: int = 0
    name: str = ""


class Decoder:
    """A model, ready to write.

    Parameters
    ----------
    config, params
        The network.
    vocabulary : ndarray of uint64, shape (n_tokens, 4)
        The rows of its softmax; a network that spells needs none.
    usual_hold : int
        Frames after which a chord is held no longer, if any other is allowed.
    fs, grid, tempo_map
        Of what is written.
    usual_repeats : int
        Times in a row that a passage comes, if no constraint says otherwise.
    """

    def __init__(
        self,
        config: NetworkConfig,
        params: Params,
        vocabulary: np.ndarray,
        usual_hold: int,
        *,
        fs: float,
        grid: Grid,
        tempo_map: TempoMap | None,
        usual_repeats: int = UNLIMITED,
    ) -> None:
        # Without dropout nothing depends on its rate: models that differ in it share a program.
        self.config = config = replace(config, dropout=0.0)
        self.params, self.usual_hold, self.usual_repeats = params, usual_hold, usual_repeats
        self._size = hold(config.size)
        self.fs, self.tempo_map = fs, tempo_map
        self.grid: Grid = grid
        self.chords = vocabulary = vocabulary[: 0 if config.spell else None]
        self.vocabulary: Vocabulary | None = None
        words = np.empty((0, 8), np.uint32)
        if not config.spell:
            words = padded_vocabulary(vocabulary)
            held = np.full(len(words), -1, np.int32)
            held[: len(vocabulary)] = find(vocabulary, held_on(vocabulary))
            self.vocabulary = jax.device_put(Vocabulary(np.ascontiguousarray(words.T), held))
        self.weights = step_weights(config, params, words, len(vocabulary))
        self._few = FEW if rounds_alike(config, self.weights) else LANES
        self.block = BLOCK if config.is_causal else WINDOWED_BLOCK
        self.start = self._started()
        self.weights["begin"] = jax.device_put((self.start.carry, self.start.stepped))

    def _started(self) -> State:
        """The state that has read the start of a piece, by the program that reads all frames."""
        is_timed = self.config.clock == "changes"
        _, state, _, _ = self.config.pitch_widths
        heard = np.zeros((1, self.config.pitches.n_pitches, state), np.float32)
        stepped = Stepped(
            np.zeros((1, self.config.units), np.float32),
            np.zeros((1, N_CLASSES), np.float32) if is_timed else None,
            heard if self.config.spell else None,
        )
        zeros = initial_state(self.config, self.weights["begin"], stepped)
        self.weights["begin"] = zeros.carry, zeros.stepped
        sign = np.full(1, START, np.int32)
        start = Forced(
            np.ones(1, bool), sign, np.zeros((1, 8), np.uint32), np.full(1, -1, np.int32)
        )
        everything = Limits(np.ones(len(self.chords), bool))
        request = Request(np.zeros(2, np.uint32), SamplingSettings(), everything, start)
        batch = Batch(self, [request], zeros)
        batch.advance(1)
        state = jax.tree.map(lambda a: np.asarray(a)[:1], batch.state)
        return initial_state(self.config, state.carry, state.stepped)

    def n_lanes(self, n_pieces: int) -> int:
        """Lanes in which so many pieces are written."""
        return self._few if n_pieces <= self._few else LANES

    @cached_property
    def digest(self) -> str:
        """Tells one model from another."""
        settings = repr((self.config, self.usual_hold, self.usual_repeats)).encode()
        digest = hashlib.sha256(settings + self.chords.tobytes())
        for leaf in jax.tree.leaves(self.params):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def forced(self, chords: np.ndarray) -> Forced:
        """Frames with these chords, uint64 of shape (n, 4)."""
        words, zeros = as_words(chords), np.zeros(len(chords), np.int32)
        if self.config.spell:
            return Forced(np.ones(len(chords), bool), zeros, words, zeros)
        ids, held = (find(self.chords, a).astype(np.int32) for a in (chords, held_on(chords)))
        ids = np.where(ids < 0, np.int32(self.config.n_rows), ids)
        return Forced(np.ones(len(chords), bool), ids, words, held)

    def sampling(self, requests: Sequence[Request], n_lanes: int) -> SamplingParameters:
        """The settings of pieces, each in a lane."""
        rows = [self._parameters(request) for request in requests]
        rows += rows[:1] * (n_lanes - len(requests))
        return jax.device_put(SamplingParameters(*map(np.stack, zip(*rows, strict=True))))

    def _parameters(self, request: Request) -> tuple[Any, ...]:
        sampling, limits = request.sampling, request.limits
        allowed = np.zeros(self.config.n_rows, bool)
        allowed[: len(self.chords)] = limits.allowed
        most = self.config.n_rows or N_FIRST
        is_usual = limits.max_repeats == UNLIMITED
        repeats = self.usual_repeats if is_usual else limits.max_repeats
        return (
            request.key,
            np.float32(sampling.temperature),
            np.int32(most if sampling.top_k is None else min(sampling.top_k, most)),
            np.float32(1 if sampling.top_p is None else sampling.top_p),
            np.float32(np.log(sampling.repetition_penalty)),
            np.int32(sampling.recent),
            np.int32(min(limits.max_hold, UNLIMITED)),
            np.int32(min(limits.max_silence, UNLIMITED)),
            np.int32(min(self.usual_hold, UNLIMITED)),
            np.int32(min(repeats, UNLIMITED // LONGEST_PASSAGE - 1)),
            np.bool_(sampling.may_end),
            np.float32(limits.allowed.sum()),
            np.bool_(sampling.is_proposed),
            allowed,
            as_words(pack(np.pad(limits.pitches, (0, N_PITCHES))))[0, :4],
            np.int32(limits.max_notes),
            np.int32(limits.span),
            np.int32(limits.hand),
            np.bool_(limits.may_rest),
            np.bool_(limits.is_restricted),
        )


class Batch:
    """As many pieces as there are lanes, or fewer, at one point in time.

    Parameters
    ----------
    decoder : Decoder
    requests : list of Request
    state : State, default=None
        Where to go on from, in one lane or in all; None begins.
    n_lanes : int, default=None
        By default as many as so few pieces need.
    position : int, default=None
        The next frame, if the state is given.
    """

    def __init__(
        self,
        decoder: Decoder,
        requests: Sequence[Request],
        state: State | None = None,
        position: Sequence[int] | None = None,
        *,
        n_lanes: int | None = None,
    ) -> None:
        self.decoder, self.requests = decoder, list(requests)
        self.n_lanes = decoder.n_lanes(len(requests)) if n_lanes is None else n_lanes
        self.position = np.array(
            [-p.n_prime for p in requests] if position is None else position, np.int64
        )
        if state is None:
            positions = np.zeros(self.n_lanes, np.int32)
            positions[: len(requests)] = self.position
            state = repeat_lanes(decoder.start, self.n_lanes)._replace(
                position=jax.device_put(positions)
            )
        elif len(state.position) != self.n_lanes:
            state = repeat_lanes(state, self.n_lanes)
        self.state = state
        self.sampling = decoder.sampling(requests, self.n_lanes)
        self._free = jax.device_put(self._frames(0))

    def advance(self, n: int, *, is_weighed: bool = False) -> Written:
        """Write up to a block of frames; arrays (n, n_pieces)."""
        decoder = self.decoder
        frames = self._frames(n)
        self.state, written = write_block(
            decoder.config,
            decoder.weights,
            decoder.vocabulary,
            self.sampling,
            self._free if frames is None else frames,
            self.state,
            np.int32(n),
            np.bool_(is_weighed),
        )
        self.position = self.position + n
        return Written(*(np.asarray(a)[:n, : len(self.requests)] for a in written))

    def _frames(self, n: int) -> ForcedFrames | None:
        """What is known of the next frames; None if that is nothing."""
        requests = list(zip(self.requests, self.position.tolist(), strict=True))
        if n and all(
            position >= len(request.forced.ids) - request.n_prime
            and position >= len(request.limits.required) + request.limits_from
            for request, position in requests
        ):
            return None
        is_forced = np.zeros((BLOCK, self.n_lanes), bool)
        is_forced[:, len(self.requests) :] = True  # idle lanes rest
        ids, held = np.zeros((2, BLOCK, self.n_lanes), np.int32)
        bits, required, forbidden = np.zeros((3, BLOCK, self.n_lanes, 8), np.uint32)
        for lane, (request, position) in enumerate(requests):
            forced, limits = request.forced, request.limits
            a = position + request.n_prime
            at = slice(a, a + n)
            m = len(forced.ids[at])
            if m:
                is_forced[:m, lane], ids[:m, lane] = forced.is_forced[at], forced.ids[at]
                bits[:m, lane], held[:m, lane] = forced.bits[at], forced.held[at]
            a = position - request.limits_from
            skipped = max(0, -a)
            requirements = limits.required[max(0, a) : max(0, a + n)]
            if len(requirements):
                rows = slice(skipped, skipped + len(requirements))
                required[rows, lane] = requirements
                forbidden[rows, lane] = limits.forbidden[max(0, a) : max(0, a + n)]
        return ForcedFrames(is_forced, ids, bits, held, required, forbidden)


def write_all(
    decoder: Decoder,
    requests: Sequence[Request],
    n_frames: int,
    *,
    deadline: float | None = None,
    is_weighed: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> list[Written]:
    """Write pieces, some groups of lanes at once: a core for each.

    Parameters
    ----------
    decoder : Decoder
    requests : list of Request
    n_frames : int
        Frames after the prime.
    deadline : float, default=None
        Monotonic time at which what is ready is returned.
    is_weighed : bool, default=False
        Whether to compute likelihoods.
    progress : callable, default=None
        Called after each block with how many frames have been written or read.

    Returns
    -------
    list of Written
        One a piece, its frames after the prime, arrays of shape (n,).
    """
    # Primes of like length side by side, so that none waits long for the others.
    order = sorted(range(len(requests)), key=lambda i: requests[i].n_prime)
    # Chords agree in few lanes and in many; likelihoods may differ in their last bits.
    n_lanes = LANES if is_weighed else decoder.n_lanes(len(requests))
    groups = [
        _Group(decoder, requests, order[a : a + n_lanes], n_frames, n_lanes, is_weighed)
        for a in range(0, len(order), n_lanes)
    ]
    n_threads = min(len(groups), os.cpu_count() or 1)
    with ThreadPoolExecutor(n_threads) as pool:
        left = groups
        while left and (
            deadline is None or time.monotonic() < deadline or not any(g.done for g in groups)
        ):
            # With one group, this thread does the work: Ctrl-C then acts at once.
            list(pool.map(_Group.advance, left) if n_threads > 1 else map(_Group.advance, left))
            if progress is not None:
                progress(sum(group.done * len(group.pieces) for group in groups))
            left = [group for group in left if group.done < group.total]
    written = dict(pair for group in groups for pair in group.written())
    return [written[i] for i in range(len(requests))]


class _Group:
    """Pieces that are written side by side, all at once."""

    def __init__(
        self,
        decoder: Decoder,
        requests: Sequence[Request],
        pieces: Sequence[int],
        n_frames: int,
        n_lanes: int,
        is_weighed: bool,
    ) -> None:
        self.pieces, self.n_frames, self.is_weighed = pieces, n_frames, is_weighed
        self.batch = Batch(decoder, [requests[i] for i in pieces], n_lanes=n_lanes)
        self.total = max(requests[i].n_prime for i in pieces) + n_frames
        self.done = 0
        self.parts: list[Written] = []

    @guest  # in a thread of its own
    def advance(self) -> None:
        """Write a block of frames."""
        n = min(self.batch.decoder.block, self.total - self.done)
        positions = self.batch.position
        written = self.batch.advance(n, is_weighed=self.is_weighed)
        for request, position, tokens in zip(
            self.batch.requests, positions, written.tokens.T, strict=True
        ):
            # A piece may be done before others; what it is given beyond its end is of no account.
            check_tokens(tokens[: max(0, self.n_frames - position)], position, request.name)
        self.parts.append(written)
        self.done += n

    def written(self) -> Iterator[tuple[int, Written]]:
        """The number of each piece, and its frames after the prime."""
        whole = [np.concatenate(column) for column in zip(*self.parts, strict=True)]
        for lane, (i, request) in enumerate(zip(self.pieces, self.batch.requests, strict=True)):
            at = slice(request.n_prime, request.n_prime + self.n_frames)
            yield i, Written(*(a[at, lane] for a in whole))


def check_tokens(tokens: np.ndarray, first: int, name: str) -> None:
    """Raise where no chord was allowed.

    Parameters
    ----------
    tokens : ndarray of int32, shape (n,)
        Of one piece.
    first : int
        Number of the first of these frames.
    name : str
        Of the piece.

    Raises
    ------
    InvalidInputError
        If its constraints left no chord at a frame.
    """
    stuck = np.flatnonzero(tokens < 0)
    if len(stuck):
        raise InvalidInputError(
            f"The constraints leave no chord that the model can write at frame {first + stuck[0]}"
            f"{name}; loosen them, or train on music that has such chords."
        )
