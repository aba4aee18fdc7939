"""How long a chord lasts: a hazard for each age, and so a proper distribution over all lengths.

A chord that has lasted for a frames ends there with probability h(a), and goes on with 1 - h(a):

    p(d) = h(d) · Π_{a<d} (1 - h(a))

(a discrete hazard model; Singer and Willett 1993). Ages up to `N_EXACT` have a hazard each, older
ones share it with their neighbours, and from the last class on it stays the same, so that the
probabilities of all lengths add up to one.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from pianolstm._jax.keys import Rngs
from pianolstm._model.lstm import affine, along, from_numpy, no_draw, zeros

N_EXACT = 128
"""Ages with a class of their own: whole notes of 32 frames a quarter note."""

STARTS = np.unique(
    np.concatenate([np.arange(1, N_EXACT), np.round(N_EXACT * 2 ** np.arange(0, 5.01, 0.125))])
).astype(np.int32)
"""The first age of each class; eight to an octave from `N_EXACT` on, the last open."""

N_CLASSES = len(STARTS)

SIZES = np.append(np.diff(STARTS), np.iinfo(np.int32).max).astype(np.int32)
"""Ages of each class."""


class Holds(nnx.Module):
    """Logits of the hazards, from what the body gives when a chord begins."""

    def __init__(self, in_features: int, width: int, *, rngs: Rngs) -> None:
        normal = from_numpy(lambda rng, shape: rng.standard_normal(shape) / np.sqrt(shape[0]))
        self.read = nnx.Linear(in_features, width, kernel_init=normal, bias_init=zeros, rngs=rngs)
        self.write = nnx.Param(no_draw(width, N_CLASSES))
        self.bias = nnx.Param(no_draw(N_CLASSES))

    def __call__(
        self,
        h: Array,  # (…, in_features)
    ) -> Array:  # (…, N_CLASSES)
        return affine((self.write[...], self.bias[...]), jax.nn.relu(self.read(h)))


def class_of(
    ages: Array,  # int32 (…), from 1 on
) -> Array:  # int32 (…)
    """The class of each age."""
    # Exact ones are numbered from 0; searching a table is slow in vectors.
    later = jnp.asarray(STARTS[N_EXACT:])
    older = N_EXACT - 1 + jnp.sum(ages[..., None] >= along(later, ages), axis=-1)
    return jnp.where(ages <= N_EXACT, ages - 1, older)


def log_survival(
    logits: Array,  # (…, N_CLASSES)
    ages: Array,  # int32 (…)
) -> Array:  # (…)
    """Nats of lasting for more frames than these."""
    starts, sizes = (along(jnp.asarray(a), ages) for a in (STARTS, SIZES))
    passed = jnp.clip(ages[..., None] + 1 - starts, 0, sizes).astype(logits.dtype)
    return jnp.sum(jax.nn.log_sigmoid(-logits) * passed, axis=-1)


def log_duration(
    logits: Array,  # (…, N_CLASSES)
    durations: Array,  # int32 (…), from 1 on
) -> Array:  # (…)
    """Nats of lasting for just as many frames."""
    ends = along(jnp.arange(N_CLASSES), durations) == class_of(durations)[..., None]
    # h / (1 - h) has the logits for logarithms.
    return log_survival(logits, durations) + jnp.sum(jnp.where(ends, logits, 0), axis=-1)


def initial_bias(
    durations: Sequence[np.ndarray],  # int (n_chords,) for each piece
) -> np.ndarray:  # float32 (N_CLASSES,)
    """Logits of the hazards that the chords of some pieces have.

    Half a chord more is counted in each class, of which as many end as of all (Krichevsky and
    Trofimov 1981, with a share in place of one half).
    """
    lasted = np.concatenate(durations) if len(durations) else np.empty(0, np.int64)
    ended = np.bincount(np.searchsorted(STARTS, lasted, "right") - 1, minlength=N_CLASSES)
    # Frames at which a chord of the class's ages could have ended.
    counts = np.bincount(np.minimum(lasted, STARTS[-1] + 1)).astype(np.int64)
    alive = np.cumsum(counts[::-1])[::-1]
    alive = np.append(alive, np.zeros(max(0, STARTS[-1] + 2 - len(alive)), np.int64))
    edges = np.append(STARTS, STARTS[-1] + 1)
    at_risk = np.add.reduceat(alive, edges)[:-1]
    at_risk[-1] = np.maximum(lasted - STARTS[-1] + 1, 0).sum()
    share = (len(lasted) + 1) / (lasted.sum() + 2)
    hazard = (ended + 0.5 * share) / (at_risk + 0.5)
    hazard = np.clip(hazard, 1e-6, 1 - 1e-6)
    return (np.log(hazard) - np.log1p(-hazard)).astype(np.float32)
