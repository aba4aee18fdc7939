"""What `SequenceGenerator.infill` does: particles that are weighed by what has to follow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from pianolstm._decoding.batches import Batch, Decoder, Request, check_tokens
from pianolstm._decoding.stepping import LANES
from pianolstm._jax.keys import fold
from pianolstm.checks import RandomState, check_number
from pianolstm.chords import as_chords
from pianolstm.constraints import with_pitches
from pianolstm.encoder import read_files
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import N_PITCHES, PianoRoll, as_rolls
from pianolstm.tokens import ChordSequence, TokenCorpus, decode
from pianolstm.writing import keys_of, request_of, show_progress

LOOK = 8
"""Frames between two looks at the weights."""


def infill(
    decoder: Decoder,
    roll: Any,
    keep: Any,
    *,
    n_particles: int,
    random_state: RandomState,
    verbose: bool,
    **settings: Any,
) -> PianoRoll:
    """As `SequenceGenerator.infill`."""
    (roll,) = read_files([roll], decoder.fs, decoder.grid)
    (roll,) = as_rolls([roll], "roll", fs=decoder.fs, grid=decoder.grid)
    check_number("n_particles", n_particles, 1, None, whole=True)
    mask = _mask(keep, len(roll))
    whole = np.asarray(mask.all(axis=1))
    if whole.all():
        return roll
    n_prime = int(np.argmin(whole))  # what stands before the first frame to write
    corpus = TokenCorpus.of([roll])
    chords = corpus.chords[corpus.tokens[0]]
    forced = replace(decoder.forced(chords), is_forced=whole)
    ((key,), sounding) = keys_of(random_state, None), np.asarray(roll) > 0
    base = request_of(decoder, None, key, **settings)
    required = mask & ~whole[:, None]
    limits = with_pitches(
        base.limits,
        decoder.chords,
        (required & sounding)[n_prime:],
        (required & ~sounding)[n_prime:],
        spell=decoder.config.spell,
    )
    sampling = replace(base.sampling, may_end=False, is_proposed=True)
    n_groups = -(-int(n_particles) // LANES)
    batches = [
        Batch(
            decoder,
            [
                Request(fold(key, 2**32 - 1 - g * LANES - i), sampling, limits, forced, n_prime)
                for i in range(LANES)
            ],
        )
        for g in range(n_groups)
    ]
    with show_progress(len(roll), verbose) as progress:
        written = _weighed(decoder, batches, len(roll), np.random.default_rng(key), progress)
    return _joined(roll, mask, np.where(whole[:, None], chords, written))


def _mask(keep: Any, n: int) -> np.ndarray:
    """What is kept, frame by frame and pitch by pitch."""
    keep = np.asarray(keep)
    if keep.dtype != bool or keep.shape not in ((n,), (n, N_PITCHES)):
        raise InvalidInputError(
            f"keep must be bool, with an entry for each frame or for each frame and pitch: shape "
            f"({n},) or ({n}, {N_PITCHES}); got {keep.dtype} of shape {keep.shape}."
        )
    return np.repeat(keep[:, None], N_PITCHES, axis=1) if keep.ndim == 1 else keep


def _weighed(
    decoder: Decoder, batches: Sequence[Batch], n: int, rng: np.random.Generator, progress: Any
) -> np.ndarray:
    """Chords of one particle, drawn by weight: uint64, shape (n, 4).

    A particle's weight is the probability of all that it had to do: of the frames kept, and of the
    chords that a frame's kept pitches leave. Where few carry all the weight, particles are drawn
    anew by weight (systematic resampling), so that those that lead nowhere end.
    """
    n_particles = len(batches) * LANES
    tokens, weights = np.empty((0, n_particles), np.int32), np.zeros(n_particles)
    chords = np.empty((0, n_particles, 4), np.uint64)
    p = weights
    with ThreadPoolExecutor(min(len(batches), os.cpu_count() or 1)) as pool:
        while len(tokens) < n:
            m = min(LOOK, decoder.block, n - len(tokens))
            blocks = list(pool.map(lambda g, m=m: g.advance(m, is_weighed=True), batches))
            tokens = np.concatenate([tokens, np.concatenate([b.tokens for b in blocks], axis=1)])
            new = np.concatenate([as_chords(b.bits) for b in blocks], axis=1)
            chords = np.concatenate([chords, new])
            weights += np.concatenate([b.log_allowed.sum(0, np.float64) for b in blocks])
            stuck = (tokens < 0).any(axis=0)
            if stuck.all():
                furthest = int(np.argmax(np.argmax(tokens < 0, axis=0)))
                check_tokens(tokens[:, furthest], -batches[0].requests[0].n_prime, "")
            weights[stuck] = -np.inf
            p = np.exp(weights - weights.max())
            p /= p.sum()
            if len(tokens) < n and 1 / np.sum(p**2) < n_particles / 2:
                ahead = (rng.random() + np.arange(n_particles)) / n_particles
                kept = np.searchsorted(np.cumsum(p)[:-1], ahead)
                _rearrange(batches, kept)
                tokens, chords, weights = tokens[:, kept], chords[:, kept], np.zeros(n_particles)
            if progress is not None:
                progress(len(tokens))
    return chords[:, rng.choice(n_particles, p=p)]


def _rearrange(batches: Sequence[Batch], kept: np.ndarray) -> None:
    """Give each lane of all groups the state of another."""

    def moved(*leaves: Any) -> list[Any]:
        """The parts of all groups, from those of all groups."""
        whole = np.concatenate([np.asarray(leaf) for leaf in leaves])[kept]
        return [jax.device_put(part) for part in np.split(whole, len(batches))]

    whole = jax.tree.map(moved, *(batch.state for batch in batches))
    for g, batch in enumerate(batches):
        batch.state = jax.tree.map(
            lambda parts, g=g: parts[g], whole, is_leaf=lambda x: isinstance(x, list)
        )


def _joined(roll: PianoRoll, mask: np.ndarray, chords: np.ndarray) -> PianoRoll:
    """Kept notes as they were, the others as they were written."""
    table, tokens = np.unique(chords, axis=0, return_inverse=True)
    sequence = ChordSequence(
        tokens.reshape(-1).astype(np.int32), fs=roll.fs, grid=roll.grid, tempo_map=roll.tempo_map
    )
    music = decode(table, sequence)
    before = np.asarray(roll)
    velocity = np.where(mask & (before > 0), before, np.asarray(music))
    onset = np.where(mask, roll.onset, music.onset)
    joined = PianoRoll.from_array(
        velocity, onset=onset, fs=roll.fs, grid=roll.grid, tempo_map=roll.tempo_map
    )
    notes = joined.notes
    tied = roll.notes["pitch"][roll.notes["tied"]]
    return PianoRoll.from_notes(
        notes["start"],
        notes["end"],
        notes["pitch"],
        notes["velocity"],
        n_frames=len(roll),
        fs=roll.fs,
        grid=roll.grid,
        tempo_map=roll.tempo_map,
        tied=(notes["start"] == 0) & np.isin(notes["pitch"], tied[mask[:1, tied].ravel()]),
    )
