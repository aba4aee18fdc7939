"""Pieces in lanes: what goes into the compiled program and comes out, on the host's side."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from pianolstm._decoding.sampling import write
from pianolstm._decoding.state import (
    BLOCK,
    Frames,
    Rules,
    State,
    Vocabulary,
    Written,
    begin,
    spread,
)
from pianolstm._decoding.stepping import FEW, LANES, adds_up_alike, lay_out
from pianolstm._jax.host import guest
from pianolstm._jax.programs import hold
from pianolstm._model.networks import NetworkConfig, Params
from pianolstm.chords import as_words, find, held_on
from pianolstm.constraints import Limits
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import Grid
from pianolstm.tempo import TempoMap
from pianolstm.vocabulary import HOLD, padded_vocabulary
from pianolstm.windows import START

UNLIMITED = np.iinfo(np.int32).max

WINDOWED_BLOCK = 4
"""Frames of a block of the Bi-LSTM, which reads a window for each."""


@dataclass(frozen=True)
class Draw:
    """How a piece is drawn: the settings of `SequenceGenerator.generate`, checked."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    recent: int = 0
    may_end: bool = True
    is_proposed: bool = False


@dataclass(frozen=True, eq=False)
class Given:
    """Frames that are not drawn.

    Attributes
    ----------
    is_given : ndarray of bool, shape (n,)
    ids : ndarray of int32, shape (n,)
        Tokens; any number from n_rows up stands for a chord outside the vocabulary.
    bits : ndarray of uint32, shape (n, 8)
    held : ndarray of int32, shape (n,)
        The row that holds each chord on, see `Vocabulary`.
    """

    is_given: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    bits: np.ndarray = field(default_factory=lambda: np.empty((0, 8), np.uint32))
    held: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))


@dataclass(eq=False)
class Piece:
    """One piece to write.

    Attributes
    ----------
    key : ndarray of uint32, shape (2,)
    draw : Draw
    limits : Limits
        What its constraints come to; those of single frames count from `limits_from` on.
    given : Given
        The prime, and frames after it that are to be kept.
    n_prime : int
        Frames of `given` that are the prime.
    limits_from : int
    name : str
        What follows the number of a frame in an error: " of piece 3", or nothing.
    """

    key: np.ndarray
    draw: Draw
    limits: Limits
    given: Given = field(default_factory=Given)
    n_prime: int = 0
    limits_from: int = 0
    name: str = ""


class Writer:
    """A model, ready to write.

    Parameters
    ----------
    config, params
        The network.
    vocabulary : ndarray of uint64, shape (n_tokens, 4)
    usual_hold : int
        Frames after which a chord is held no longer, if any other is allowed.
    fs, grid, tempo_map
        Of what is written.
    shares : ndarray of float32, default=None
        Of what is recalled, see `Recall`; the network says whether anything is.
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
        shares: np.ndarray | None = None,
    ) -> None:
        # Without dropout nothing depends on its rate: models that differ in it share a program.
        self.config = config = replace(config, dropout=0.0)
        self.params, self.usual_hold = params, usual_hold
        self._size = hold(config.size)
        self.fs, self.tempo_map = fs, tempo_map
        self.grid: Grid = grid
        self.chords = vocabulary
        words = padded_vocabulary(vocabulary)
        self.n_rows = len(words)
        held = np.full(self.n_rows, -1, np.int32)
        held[: len(vocabulary)] = self._held(vocabulary)
        self.vocabulary = jax.device_put(Vocabulary(np.ascontiguousarray(words.T), held))
        self.laid = lay_out(config, params, words, len(vocabulary))
        self.laid["recall"] = None if shares is None else jax.device_put(shares)
        self._few = FEW if adds_up_alike(config, self.laid) else LANES
        self.block = BLOCK if config.is_causal else WINDOWED_BLOCK
        self.start = self._started()
        self.laid["begin"] = jax.device_put((self.start.carry, self.start.features))

    def _started(self) -> State:
        """The state that has read the start of a piece, by the program that reads all frames."""
        features = np.zeros((1, self.config.embedding), np.float32)
        zeros = begin(self.config, self.laid["begin"], features)
        self.laid["begin"] = zeros.carry, zeros.features
        sign = np.full(1, START, np.int32)
        start = Given(np.ones(1, bool), sign, np.zeros((1, 8), np.uint32), np.full(1, -1, np.int32))
        everything = Limits(np.ones(len(self.chords), bool))
        piece = Piece(np.zeros(2, np.uint32), Draw(), everything, start)
        group = Group(self, [piece], zeros)
        group.advance(1)
        state = jax.tree.map(lambda a: np.asarray(a)[:1], group.state)
        return begin(self.config, state.carry, state.features)

    def n_lanes(self, n_pieces: int) -> int:
        """Lanes in which so many pieces are written."""
        return self._few if n_pieces <= self._few else LANES

    @cached_property
    def digest(self) -> str:
        """Tells one model from another."""
        shares = None if self.laid["recall"] is None else self.laid["recall"].tolist()
        settings = repr((self.config, self.usual_hold, shares)).encode()
        digest = hashlib.sha256(settings + self.chords.tobytes())
        for leaf in jax.tree.leaves(self.params):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def given(self, chords: np.ndarray) -> Given:
        """Frames with these chords, uint64 of shape (n, 4)."""
        ids = find(self.chords, chords)
        ids = np.where(ids < 0, self.n_rows, ids).astype(np.int32)
        return Given(np.ones(len(ids), bool), ids, as_words(chords), self._held(chords))

    def _held(self, chords: np.ndarray) -> np.ndarray:
        """The row that holds each chord on, see `Vocabulary`."""
        rows = find(self.chords, held_on(chords))
        missing = self.n_rows + HOLD if self.config.spell else -1
        return np.where(rows < 0, missing, rows).astype(np.int32)

    def rules(self, pieces: Sequence[Piece], n_lanes: int) -> Rules:
        """The settings of pieces, each in a lane."""
        rows = [self._rule(piece) for piece in pieces]
        rows += rows[:1] * (n_lanes - len(pieces))
        return jax.device_put(Rules(*map(np.stack, zip(*rows, strict=True))))

    def _rule(self, piece: Piece) -> tuple[Any, ...]:
        draw, limits = piece.draw, piece.limits
        allowed = np.zeros(self.n_rows, bool)
        allowed[: len(self.chords)] = limits.allowed
        return (
            piece.key,
            np.float32(draw.temperature),
            np.int32(self.n_rows if draw.top_k is None else min(draw.top_k, self.n_rows)),
            np.float32(1 if draw.top_p is None else draw.top_p),
            np.float32(np.log(draw.repetition_penalty)),
            np.int32(draw.recent),
            np.int32(min(limits.max_hold, UNLIMITED)),
            np.int32(min(limits.max_silence, UNLIMITED)),
            np.int32(min(self.usual_hold, UNLIMITED)),
            np.bool_(draw.may_end),
            np.float32(limits.allowed.sum()),
            np.bool_(draw.is_proposed),
            allowed,
            np.packbits(limits.pitches, bitorder="little").view("<u4").astype(np.uint32),
            np.int32(limits.max_notes),
            np.int32(limits.span),
            np.int32(limits.hand),
            np.bool_(limits.may_rest),
        )


class Group:
    """As many pieces as there are lanes, or fewer, at one point in time.

    Parameters
    ----------
    writer : Writer
    pieces : list of Piece
    state : State, default=None
        Where to go on from, in one lane or in all; None begins.
    n_lanes : int, default=None
        By default as many as so few pieces need.
    clock : int, default=None
        The next frame, if the state is given.
    """

    def __init__(
        self,
        writer: Writer,
        pieces: Sequence[Piece],
        state: State | None = None,
        clock: Sequence[int] | None = None,
        *,
        n_lanes: int | None = None,
    ) -> None:
        self.writer, self.pieces = writer, list(pieces)
        self.n_lanes = writer.n_lanes(len(pieces)) if n_lanes is None else n_lanes
        self.clock = np.array([-p.n_prime for p in pieces] if clock is None else clock, np.int64)
        if state is None:
            clocks = np.zeros(self.n_lanes, np.int32)
            clocks[: len(pieces)] = self.clock
            state = spread(writer.start, self.n_lanes)._replace(clock=jax.device_put(clocks))
        elif len(state.clock) != self.n_lanes:
            state = spread(state, self.n_lanes)
        self.state = state
        self.rules = writer.rules(pieces, self.n_lanes)
        self._free = jax.device_put(self._frames(0))

    def advance(self, n: int, *, is_weighed: bool = False) -> Written:
        """Write up to a block of frames; arrays (n, n_pieces)."""
        writer = self.writer
        frames = self._frames(n)
        self.state, written = write(
            writer.config,
            writer.laid,
            writer.vocabulary,
            self.rules,
            self._free if frames is None else frames,
            self.state,
            np.int32(n),
            np.bool_(is_weighed),
        )
        self.clock = self.clock + n
        return Written(*(np.asarray(a)[:n, : len(self.pieces)] for a in written))

    def _frames(self, n: int) -> Frames | None:
        """What is known of the next frames; None if that is nothing."""
        pieces = list(zip(self.pieces, self.clock.tolist(), strict=True))
        if n and all(
            clock >= len(piece.given.ids) - piece.n_prime
            and clock >= len(piece.limits.required) + piece.limits_from
            for piece, clock in pieces
        ):
            return None
        is_given = np.zeros((BLOCK, self.n_lanes), bool)
        is_given[:, len(self.pieces) :] = True  # idle lanes rest
        ids, held = np.zeros((2, BLOCK, self.n_lanes), np.int32)
        bits, required, forbidden = np.zeros((3, BLOCK, self.n_lanes, 8), np.uint32)
        for lane, (piece, clock) in enumerate(pieces):
            given, limits = piece.given, piece.limits
            a = clock + piece.n_prime
            at = slice(a, a + n)
            m = len(given.ids[at])
            if m:
                is_given[:m, lane], ids[:m, lane] = given.is_given[at], given.ids[at]
                bits[:m, lane], held[:m, lane] = given.bits[at], given.held[at]
            a = clock - piece.limits_from
            skipped = max(0, -a)
            asked = limits.required[max(0, a) : max(0, a + n)]
            if len(asked):
                rows = slice(skipped, skipped + len(asked))
                required[rows, lane] = asked
                forbidden[rows, lane] = limits.forbidden[max(0, a) : max(0, a + n)]
        return Frames(is_given, ids, bits, held, required, forbidden)


def chords_of(written: Written) -> np.ndarray:
    """Chords that were written: uint64, shape (…, 4)."""
    return np.ascontiguousarray(written.bits).view("<u8").astype(np.uint64)


def write_all(
    writer: Writer,
    pieces: Sequence[Piece],
    n_frames: int,
    *,
    deadline: float | None = None,
    is_weighed: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> list[Written]:
    """Write pieces, some groups of lanes at once: a core for each.

    Parameters
    ----------
    writer : Writer
    pieces : list of Piece
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
    order = sorted(range(len(pieces)), key=lambda i: pieces[i].n_prime)
    n_lanes = writer.n_lanes(len(pieces))
    chunks = [order[a : a + n_lanes] for a in range(0, len(order), n_lanes)]
    groups = [Group(writer, [pieces[i] for i in chunk], n_lanes=n_lanes) for chunk in chunks]
    totals = [max(pieces[i].n_prime for i in chunk) + n_frames for chunk in chunks]
    parts: list[list[Written]] = [[] for _ in groups]
    done = [0] * len(groups)

    @guest  # in a thread of its own
    def advance(g: int) -> None:
        n = min(writer.block, totals[g] - done[g])
        clocks = groups[g].clock
        written = groups[g].advance(n, is_weighed=is_weighed)
        for piece, clock, tokens in zip(groups[g].pieces, clocks, written.tokens.T, strict=True):
            # A piece may be done before others; what it is given beyond its end is of no account.
            check_tokens(tokens[: max(0, n_frames - clock)], clock, piece.name)
        parts[g].append(written)
        done[g] += n

    n_threads = min(len(groups), os.cpu_count() or 1)
    with ThreadPoolExecutor(n_threads) as pool:
        open_groups = list(range(len(groups)))
        while open_groups and (deadline is None or time.monotonic() < deadline or not any(done)):
            # With one group, this thread does the work: Ctrl-C then acts at once.
            list(pool.map(advance, open_groups) if n_threads > 1 else map(advance, open_groups))
            if progress is not None:
                progress(sum(d * len(c) for d, c in zip(done, chunks, strict=True)))
            open_groups = [g for g in open_groups if done[g] < totals[g]]
    results: list[Any] = [None] * len(pieces)
    for chunk, blocks in zip(chunks, parts, strict=True):
        whole = [np.concatenate(column) for column in zip(*blocks, strict=True)]
        for lane, i in enumerate(chunk):
            at = slice(pieces[i].n_prime, pieces[i].n_prime + n_frames)
            results[i] = Written(*(a[at, lane] for a in whole))
    return results


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
