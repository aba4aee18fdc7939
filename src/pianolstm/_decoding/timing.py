"""When a chord ends, with the clock of changes: a draw before any chord is looked at."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._decoding.notes import sharpness_of
from pianolstm._decoding.random_numbers import row_at
from pianolstm._decoding.state import SamplingParameters, State, match_of
from pianolstm._decoding.stepping import StepWeights
from pianolstm._model.durations import SIZES, STARTS, class_of, log_duration, log_survival
from pianolstm._model.gates import gate_logit
from pianolstm._model.planes import NEVER

ENDS = STARTS + SIZES.clip(max=2**30)
"""The first age after each class."""


class Hazard(NamedTuple):
    """Whether what sounds ends with the last frame."""

    hazard: Array  # (lanes,): probability at the lane's temperature
    log_ends: Array  # (lanes,): nats, temperature 1
    log_goes_on: Array  # (lanes,)


def hazard_of(weights: StepWeights, sampling: SamplingParameters, state: State) -> Hazard:
    """The hazard of each lane at the age that its chord has; 1 where none has begun."""
    age = jnp.maximum(state.lasted, 1)
    gate, spike = _recalled_duration(weights, state)
    z = row_at(state.stepped.holds, class_of(age))
    log_h, log_s = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    if state.recalled is not None:
        log_share = jax.nn.log_sigmoid(gate)
        rest = jax.nn.log_sigmoid(-gate) + log_survival(state.stepped.holds, age - 1)

        def mixed(is_spike: Array, by_network: Array) -> Array:
            return jnp.logaddexp(jnp.where(is_spike, log_share, -jnp.inf), rest + by_network)

        alive = mixed(spike >= age, jnp.zeros_like(z))
        log_h, log_s = mixed(spike == age, log_h) - alive, mixed(spike > age, log_s) - alive
    plain = jnp.exp(log_h)

    def tempered() -> Array:
        found = _tempered(state.stepped.holds, age, sharpness_of(sampling), gate, spike)
        return jnp.where(sampling.temperature == 1, plain, found)

    hazard = lax.cond(jnp.any(sampling.temperature != 1), tempered, lambda: plain)
    sounds = state.lasted > 0
    return Hazard(
        jnp.where(sounds, hazard, 1),
        jnp.where(sounds, log_h, 0),
        jnp.where(sounds, log_s, -jnp.inf),
    )


def _recalled_duration(
    weights: StepWeights, state: State
) -> tuple[Array, Array]:  # (lanes,), int32 (lanes,)
    """The duration that is recalled of what sounds, and the logit of taking it."""
    if state.recalled is None:
        return jnp.full(len(state.lasted), NEVER), jnp.zeros_like(state.lasted)
    hidden, holds, _ = state.stepped
    duration = state.recalled.duration
    log_p = log_duration(holds, jnp.maximum(duration, 1))
    match = match_of(state.recalled)
    return gate_logit(weights["duration_gate"], hidden, match, log_p), duration


def _tempered(
    logits: Array,  # (lanes, N_CLASSES)
    age: Array,  # int32 (lanes,)
    sharpness: Array,  # (lanes, 1): the inverse of the temperature
    gate: Array,  # (lanes,): logit of taking the duration that is recalled
    spike: Array,  # int32 (lanes,)
) -> Array:  # (lanes,)
    """The hazard where each duration has its probability to the power of 1 / temperature.

    (A hazard raised frame by frame would make chords last for ever.) The ages of a class are a
    geometric series.
    """
    starts, age = jnp.asarray(STARTS)[None], age[:, None]
    log_s = jax.nn.log_sigmoid(-logits)
    log_h, rest = log_s + logits, jax.nn.log_sigmoid(-gate)[:, None]
    first = jnp.maximum(starts, age)
    left = jnp.maximum(jnp.asarray(ENDS)[None] - first, 0).astype(jnp.float32)
    sizes = jnp.asarray(ENDS[:-1] - STARTS[:-1], jnp.float32)[None]
    before = jnp.pad(jnp.cumsum(log_s[:, :-1] * sizes, axis=1), ((0, 0), (1, 0)))
    # Nats of lasting until the first age of a class that is left.
    begin = before + (first - starts).astype(jnp.float32) * log_s
    terms = sharpness * (begin + log_h + rest)
    ratio = jnp.minimum(sharpness * log_s, -1e-30)
    series = jnp.where(left > 0, terms + _log1mexp(left * ratio) - _log1mexp(ratio), -jnp.inf)
    total = jax.nn.logsumexp(series, axis=1, keepdims=True)
    now = jnp.take_along_axis(terms, class_of(age), axis=1)
    at_spike = rest + log_duration(logits, jnp.maximum(spike, 1))[:, None]
    with_share = sharpness * jnp.logaddexp(jax.nn.log_sigmoid(gate)[:, None], at_spike)
    is_ahead = (gate[:, None] > NEVER) & (spike[:, None] >= age)
    more = with_share + _log1mexp(jnp.minimum(sharpness * at_spike - with_share, -1e-30))
    total = jnp.where(is_ahead, jnp.logaddexp(total, more), total)
    now = jnp.where(is_ahead & (spike[:, None] == age), with_share, now)
    return jnp.minimum(jnp.exp(now - total), 1)[:, 0]


def _log1mexp(
    x: Array,  # below 0
) -> Array:
    """log(1 - exp(x))."""
    return jnp.log(-jnp.expm1(x))
