"""Rows of the softmax: logits, probabilities, and drawing one."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from pianolstm._decoding.masks import Masks, strikes
from pianolstm._decoding.notes import LARGE, sharpness_of
from pianolstm._decoding.random_numbers import sample_rows
from pianolstm._decoding.state import Context, SamplingParameters, State, timing_of
from pianolstm._decoding.stepping import chord_features
from pianolstm._model.lstm import affine
from pianolstm._model.networks import NetworkConfig
from pianolstm.vocabulary import END, HOLD, OTHER


class Rows(NamedTuple):
    """The softmax of a draw."""

    logits: Array  # (lanes, n_rows): minus infinity where a row is impossible
    allowed: Array  # bool (lanes, n_rows): what may be drawn, but for any other chord
    p: Array  # (lanes, n_rows): probabilities, relative to the most likely one


def rows_of(
    config: NetworkConfig,
    context: Context,
    masks: Masks,
    has_ended: Array,  # bool (lanes,): where another piece begins
) -> Rows:
    """Logits and probabilities of all rows."""
    weights, _, sampling, _, state = context
    n_rows = len(weights["bias"])
    rows = jnp.arange(n_rows, dtype=jnp.int32)[None]
    logits = affine((weights["table"], weights["bias"]), features_of(config, context, has_ended))
    may_end = masks.may_end & ~has_ended
    allowed = masks.allowed & (rows != masks.held_too_long[:, None])
    allowed |= (rows == n_rows + END) & may_end[:, None]
    if config.spell or config.clock == "changes":
        impossible = _impossible(config, context, masks, has_ended)
        logits, allowed = jnp.where(impossible, -jnp.inf, logits), allowed & ~impossible
    if config.spell and config.clock == "frames":
        can_hold = masks.is_outside & ~has_ended & masks.may_hold
        allowed |= (rows == n_rows + HOLD) & can_hold[:, None]

    def relative(logits: Array) -> tuple[Array, Array]:
        """Probabilities, relative to the most likely row's, and the logit of that."""
        highest = jnp.max(jnp.where(allowed, logits, -jnp.inf), axis=1, keepdims=True)
        p = jnp.where(allowed, jnp.exp((logits - highest) * sharpness_of(sampling)), 0)
        return p, highest

    p, highest = lax.cond(
        jnp.any(sampling.penalty > 0),
        lambda: relative(logits - _penalties(sampling, state, rows)),
        lambda: relative(logits),
    )
    if config.spell:
        other = jnp.where(masks.may_spell, _other(logits, highest, sampling), 0)
        p = jnp.where(rows == n_rows + OTHER, other[:, None], p)
    return Rows(logits, allowed, p)


def features_of(
    config: NetworkConfig,
    context: Context,
    has_ended: Array,  # bool (lanes,): where another piece begins
) -> Array:  # (lanes, embedding)
    """What predicts the next chord of each lane."""
    weights, _, _, _, state = context
    _, first = weights["begin"]
    features = jnp.where(has_ended[:, None], first.features, state.stepped.features)
    return chord_features(config, weights, features, timing_of(config, state, has_ended))


def _impossible(
    config: NetworkConfig,
    context: Context,
    masks: Masks,
    has_ended: Array,  # bool (lanes,)
) -> Array:  # bool (lanes, n_rows)
    """Rows that can't come, whatever the constraints."""
    n_rows = len(context.weights["bias"])
    rows = jnp.arange(n_rows, dtype=jnp.int32)[None]
    if config.clock == "changes":
        # What sounds, held on, is no chord that begins.
        impossible = (rows == context.state.hold[:, None]) & ~has_ended[:, None]
    else:
        can_hold = masks.is_outside & ~has_ended
        impossible = (rows == n_rows + HOLD) & ~can_hold[:, None]
    if config.spell:
        impossible |= masks.impossible
        impossible |= strikes(context.vocabulary)[None] & has_ended[:, None]
    return lax.optimization_barrier(impossible)  # or each use computes it again


class Drawn(NamedTuple):
    """A row in each lane."""

    row: Array  # int32 (lanes,)
    is_cut: Array  # bool (lanes,): whether top-k or top-p leave it out
    bound: Array  # (lanes,): rows of this probability and below are then drawn no more


def draw_row(
    config: NetworkConfig,
    sampling: SamplingParameters,
    p: Array,  # (lanes, n_rows)
    above: Array,  # (lanes,): rows below are drawn no more
    spells: Array,  # bool (lanes,): whether any other chord may be drawn
    u: Array,  # (lanes,): in [0, 1)
) -> Drawn:
    """A row by the inverse of the running sum of the probabilities, and whether it is kept."""
    n_rows = p.shape[1]
    rows = jnp.arange(n_rows, dtype=jnp.int32)[None]
    is_left = p > above[:, None]
    if config.spell:
        # Where it is drawn no more, its share counts in top_p nevertheless.
        is_left = jnp.where(rows == n_rows + OTHER, spells[:, None], is_left)
    drawn = sample_rows(jnp.where(is_left, p, 0), u)
    is_cut = (sampling.top_k < n_rows) | (sampling.top_p < 1)

    def rejected() -> tuple[Array, Array]:
        bound = jnp.take_along_axis(p, drawn[:, None], axis=1)
        # All chords outside the vocabulary count as less likely than those within; the end of
        # the piece is no chord.
        bound = jnp.where((drawn == n_rows + OTHER)[:, None], 0, bound)
        likelier = jnp.where((p > bound) & (rows < n_rows + END), p, 0)
        n, share = jnp.sum(likelier > 0, axis=1), jnp.sum(likelier, axis=1)
        is_kept = (n < sampling.top_k) & (share < sampling.top_p * jnp.sum(p, axis=1))
        is_kept |= n == 0  # the most likely is, even where nothing is allowed
        return is_cut & ~is_kept, bound[:, 0]

    no = jnp.zeros(len(drawn), bool)
    return Drawn(drawn, *lax.cond(jnp.any(is_cut), rejected, lambda: (no, above)))


def log_row(
    config: NetworkConfig,
    logits: Array,  # (lanes, n_rows)
    row: Array,  # int32 (lanes,)
    notes: Array,  # (lanes,): nats of the chord's notes, if it is spelled
) -> Array:  # (lanes,)
    """Nats of the chord that has this row, by both routes."""
    known, other = _known(config, logits)
    highest, total, _ = _sums(known, jnp.ones((len(row), 1)))
    at_row = jnp.take_along_axis(known - highest, row[:, None], axis=1)[:, 0]
    if other is not None:
        other -= highest[:, 0]
        at_row = jnp.logaddexp(at_row, other + notes)
        total = jnp.logaddexp(total, other)
    return at_row - total


def log_allowed(
    config: NetworkConfig,
    sampling: SamplingParameters,
    logits: Array,  # (lanes, n_rows)
    may_follow: Array,  # bool (lanes, n_rows): any other chord among them
) -> Array:  # (lanes,)
    """Nats of all that may follow, at the lanes' temperatures."""
    sharpness = sharpness_of(sampling)
    known, other = _known(config, logits)
    highest, total, total_tempered = _sums(known, sharpness)
    # What is allowed may be too unlikely for a float, but not for its logarithm.
    allowed = jnp.where(may_follow, known, -jnp.inf)
    most = jnp.maximum(jnp.max(allowed, axis=1, keepdims=True), -LARGE)
    found = jnp.log(jnp.sum(jnp.exp((allowed - most) * sharpness), axis=1))
    found += ((most - highest) * sharpness)[:, 0]
    if other is not None:
        # As likely as without temperature.
        share = other - highest[:, 0] - total + total_tempered
        may_be = jnp.where(may_follow[:, OTHER], share, -jnp.inf)
        found = jnp.logaddexp(found, may_be)
        total_tempered = jnp.logaddexp(total_tempered, share)
    return found - total_tempered


def _known(
    config: NetworkConfig,
    logits: Array,  # (lanes, n_rows)
) -> tuple[Array, Array | None]:  # (lanes, n_rows), (lanes,)
    """Logits without any other chord's, and that."""
    if not config.spell:
        return logits, None
    n_rows = logits.shape[1]
    known = jnp.where(jnp.arange(n_rows)[None] == n_rows + OTHER, -jnp.inf, logits)
    return known, logits[:, OTHER]


def _sums(
    logits: Array,  # (lanes, n_rows)
    sharpness: Array,  # (lanes, 1)
) -> tuple[Array, Array, Array]:  # (lanes, 1), (lanes,), (lanes,)
    """The highest logit of each lane; log sum exp of all, and of all times sharpness, above it."""
    highest = jnp.max(logits, axis=1, keepdims=True)
    past = logits - highest
    plain, sharp = (jnp.log(jnp.sum(jnp.exp(x), axis=1)) for x in (past, past * sharpness))
    return highest, plain, sharp


def _other(
    logits: Array,  # (lanes, n_rows)
    highest: Array,  # (lanes, 1)
    sampling: SamplingParameters,
) -> Array:  # (lanes,)
    """Probability of any other chord, relative to that of the row that has the highest logit.

    Temperature acts within the chords of the vocabulary, and within those outside, and leaves it as
    likely as it is that a chord is the one or the other.
    """
    is_known = jnp.arange(logits.shape[1])[None] != logits.shape[1] + OTHER

    def tempered() -> Array:
        sharpness = sharpness_of(sampling)
        most, plain, sharp = _sums(jnp.where(is_known, logits, -jnp.inf), sharpness)
        share = logits[:, OTHER] - most[:, 0] - plain
        share += sharp + ((most - highest) * sharpness)[:, 0]
        # The same for each lane, whether others have a temperature or not.
        return jnp.where(sampling.temperature == 1, direct, share)

    direct = logits[:, OTHER] - highest[:, 0]
    relative = lax.cond(jnp.any(sampling.temperature != 1), tempered, lambda: direct)
    # Where no row of the vocabulary is left, any number above 0 will do.
    return jnp.exp(jnp.clip(relative, -60, 60))


def _penalties(
    sampling: SamplingParameters,
    state: State,
    rows: Array,  # int32 (1, n_rows)
) -> Array:  # (lanes, n_rows)
    """What is taken from the logits of chords begun of late."""
    is_recent = _is_recent(sampling, state) & (state.begun < rows.shape[1])
    lanes = jnp.arange(len(state.begun))[:, None]
    zeros = jnp.zeros((len(lanes), rows.shape[1]))
    penalties = jnp.where(is_recent, sampling.penalty[:, None], 0)
    penalty = zeros.at[lanes, jnp.maximum(state.begun, 0)].add(penalties)
    return jnp.where(rows == state.hold[:, None], 0, penalty)


def times_begun(
    sampling: SamplingParameters,
    state: State,
    number: Array,  # int32 (lanes,): see `chord_number`
) -> Array:  # int32 (lanes,)
    """How often a chord was begun of late."""
    return jnp.sum((state.begun == number[:, None]) & _is_recent(sampling, state), axis=1)


def _is_recent(sampling: SamplingParameters, state: State) -> Array:  # bool (lanes, N_BEGUN)
    """Which of the chords begun count."""
    ago = state.position[:, None] - state.begun_at
    return (state.begun >= 0) & (ago <= sampling.recent[:, None])
