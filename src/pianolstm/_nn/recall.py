"""What a piece has had before, recalled: music repeats itself, and networks forget.

Where the last frames of a piece have come before in it, the chord that followed them then is likely
to follow again. How likely is counted over the training pieces, by how many frames agree:

    p(frame) = share · [frame is the one recalled] + (1 - share) · p(frame) by the network

Of all places where the last frames have come before, one is recalled where most agree, by the
lengths of `LENGTHS`; of those the latest. Frames agree that have the same chord for as many frames:
else each held chord would agree with itself. (Mixing a model with what followed a like history is
the cache of Kuhn and De Mori 1990; long matches as contexts are those of PPM*, Cleary and Teahan
1997.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pianolstm._nn.corpus import Corpus
from pianolstm._nn.networks import begins_chord

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Frames that agree, the classes that are counted apart."""

HALVES = {2: (1, 1), 3: (2, 1), 4: (2, 2), 6: (4, 2), 8: (4, 4)}
HALVES |= {12: (8, 4), 16: (8, 8), 24: (16, 8), 32: (16, 16)}
"""Each length as the sum of two shorter ones."""

MEMORY = 4096
"""Frames that are remembered."""


@dataclass(frozen=True)
class Recall:
    """How often what is recalled comes.

    Attributes
    ----------
    counts : ndarray of int64, shape (2, 1 + len(LENGTHS))
        For each class of agreement, frames of the training pieces; and those among them whose
        chord was the one recalled. Class 0 is of frames where nothing is recalled.
    """

    counts: np.ndarray

    @classmethod
    def fit(cls, corpus: Corpus) -> Recall:
        """Count over the pieces of a corpus."""
        counts = np.zeros((2, 1 + len(LENGTHS)), np.int64)
        for tokens in corpus.tokens:
            classes, sources = find_sources(corpus, tokens)
            came = (classes > 0) & (tokens[sources] == tokens)
            for row, which in enumerate((classes, classes[came])):
                counts[row] += np.bincount(which, minlength=counts.shape[1])
        return cls(counts)

    def __add__(self, other: Recall) -> Recall:
        return Recall(self.counts + other.counts)

    @property
    def shares(self) -> np.ndarray:
        """Probability of what is recalled, by class: float32, never 1."""
        n, came = self.counts
        return (came / (n + 1)).astype(np.float32)

    def of(self, corpus: Corpus, tokens: np.ndarray, *, spell: bool) -> tuple[np.ndarray, ...]:
        """Along a piece, the share of what is recalled, and its id: float64 and int, (n_frames,).

        Without spelling no chord outside the vocabulary is recalled.
        """
        classes, sources = find_sources(corpus, tokens)
        ids = tokens[sources]
        shares = self.shares.astype(np.float64)[classes]
        return np.where(spell | (corpus.rows[ids] >= 0), shares, 0), ids


def find_sources(corpus: Corpus, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is recalled along a piece.

    Parameters
    ----------
    corpus : Corpus
    tokens : ndarray of int32, shape (n,)
        Ids of the piece's chords.

    Returns
    -------
    classes : ndarray of int, shape (n,)
        How many frames before each frame agree, as a number of `LENGTHS` from 1 on; 0 for none.
    sources : ndarray of int, shape (n,)
        The frame that is recalled, an earlier one; 0 for none.
    """
    n = len(tokens)
    classes, sources = np.zeros((2, n), np.int64)
    frames = np.stack([tokens, _ages(corpus.chords[tokens])], axis=1)
    # Contexts that end with each frame, numbered so that like ones have the same number; -1 where
    # the piece is too young.
    contexts = {1: _numbered(frames)}
    for number, length in enumerate(LENGTHS, 1):
        if length > 1:
            first, second = HALVES[length]
            before = np.concatenate([np.full(second, -1), contexts[first]])[:n]
            pairs = np.stack([before, contexts[second]], axis=1)
            contexts[length] = np.where(before < 0, -1, _numbered(pairs))
        context = contexts[length]
        order = np.argsort(context, kind="stable")
        same = (context[order][1:] == context[order][:-1]) & (context[order][1:] >= 0)
        lag = np.zeros(n, np.int64)
        lag[order[1:]] = np.where(same, np.diff(order), 0)
        # What follows is recalled in the next frame.
        at = np.flatnonzero((lag[:-1] > 0) & (lag[:-1] <= MEMORY)) + 1
        classes[at], sources[at] = number, at - lag[at - 1]
    return classes, sources


def _numbered(pairs: np.ndarray) -> np.ndarray:
    """Rows of two numbers as one, the same for like rows."""
    wide = pairs[:, 0].astype(np.int64) * (int(pairs[:, 1].max(initial=0)) + 1) + pairs[:, 1]
    return np.unique(wide, return_inverse=True)[1].reshape(-1)


def _ages(chords: np.ndarray) -> np.ndarray:
    """For how many frames each chord has been held, uint64 (n, 4); as the networks count them."""
    before = np.concatenate([np.zeros((1, 4), np.uint64), chords[:-1]])
    begins = (chords[:, :2] != before[:, :2]).any(1) | (chords[:, 2:] > 0).any(1)
    time = np.arange(len(chords))
    return time - np.maximum.accumulate(np.where(begins, time, -1))


class Memory(NamedTuple):
    """What the last frames were, in lanes; a ring of `MEMORY` places.

    Attributes
    ----------
    heard : Array of uint32, shape (lanes, 2 * MEMORY)
        Numbers that tell frames from one another, 0 for none; the ring twice, so that all of it
        stands in a row from any place on.
    agree : Array of int32, shape (lanes, MEMORY)
        From `MEMORY` frames before the last one up to the frame before it: how many frames up to
        that one agree with as many up to the last, at most 32.
    frames : Array of uint32, shape (lanes, MEMORY, 10)
        The chords' bits; the rows of the softmax that write them and hold them on.
    newest : Array of int32, shape (lanes,)
        Place of the last frame, the same in all lanes.
    past : Array of uint32, shape (lanes, 8)
        The last chord.
    age : Array of int32, shape (lanes,)
        For how many frames it has been held.
    piece : Array of int32, shape (lanes,)
        How many pieces have ended.
    """

    heard: Any
    agree: Any
    frames: Any
    newest: Any
    past: Any
    age: Any
    piece: Any


def nothing_heard() -> Memory:
    """The beginning of a piece, in one lane."""
    return Memory(
        np.zeros((1, 2 * MEMORY), np.uint32),
        np.zeros((1, MEMORY), np.int32),
        np.zeros((1, MEMORY, 10), np.uint32),
        np.zeros(1, np.int32),
        np.zeros((1, 8), np.uint32),
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
    )


def hear(
    memory: Memory, bits: Array, ids: Array, hold: Array, number: Array, begins: Array
) -> Memory:
    """Remember a frame in every lane.

    Parameters
    ----------
    memory : Memory
    bits : Array of uint32, shape (lanes, 8)
        The chord.
    ids, hold : Array of int32, shape (lanes,)
        The rows that write it and hold it on.
    number : Array of int32, shape (lanes,)
        Tells chords from one another.
    begins : Array of bool, shape (lanes,)
        Whether it is the first frame of a piece: all before is forgotten.
    """
    past = jnp.where(begins[:, None], 0, memory.past)
    age = jnp.where(begins, 0, memory.age)
    age = jnp.where(begins_chord(past, bits), 0, age + 1)
    piece = memory.piece + begins
    # Frames of other pieces have other numbers: nothing has to be cleared.
    factors = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B)
    sign = number.astype(jnp.uint32)
    sign += age.astype(jnp.uint32) * factors[0] + piece.astype(jnp.uint32) * factors[1]
    sign = (sign * 2) | 1
    n = memory.agree.shape[1]
    place = (memory.newest[0] + 1) % n
    window = lax.dynamic_slice_in_dim(memory.heard, place, n, 1)
    agree = jnp.where(window == sign[:, None], jnp.minimum(memory.agree, LENGTHS[-1] - 1) + 1, 0)
    heard = lax.dynamic_update_index_in_dim(memory.heard, sign, place, 1)
    rows = jnp.stack([ids, hold], axis=1).astype(jnp.uint32)
    frame = jnp.concatenate([bits, rows], axis=1)
    return Memory(
        lax.dynamic_update_index_in_dim(heard, sign, place + n, 1),
        agree.astype(memory.agree.dtype),
        lax.dynamic_update_index_in_dim(memory.frames, frame, place, 1),
        jnp.full_like(memory.newest, place),
        bits,
        age,
        piece,
    )


class Recalled(NamedTuple):
    """What is recalled for the next frame; arrays of shape (lanes,) if not said otherwise.

    Attributes
    ----------
    classes : Array of int32
        As from `find_sources`.
    bits : Array of uint32, shape (lanes, 8)
    ids, hold : Array of int32
        The rows that write the chord and hold it on.
    """

    classes: Any
    bits: Any
    ids: Any
    hold: Any


def recalled(memory: Memory) -> Recalled:
    """What is recalled for the next frame."""
    n = memory.agree.shape[1]
    longest = jnp.max(memory.agree, axis=1, keepdims=True)
    lengths = jnp.array((1, *LENGTHS), memory.agree.dtype)
    classes = jnp.sum(longest >= lengths[1:], axis=1)
    numbers = jnp.arange(n, dtype=jnp.int32)
    agrees = memory.agree >= lengths[classes][:, None]
    latest = jnp.max(jnp.where(agrees, numbers, 0), axis=1)
    place = (memory.newest[0] + 1 + latest) % n
    frames = memory.frames[jnp.arange(len(place)), place]
    ids, hold = frames[:, 8:].astype(jnp.int32).T
    return Recalled(classes, frames[:, :8], ids, hold)
