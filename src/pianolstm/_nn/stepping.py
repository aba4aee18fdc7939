"""One frame of a network at a time, for a fixed number of pieces side by side.

A row computed in batches of different size differs in its last bits, and so can draw another token.
So all music is written in the same number of lanes, of which some may be idle; a lane's numbers are
then the same whatever the others do.

Conventions
-----------
Arrays are (features, lanes) here: with few lanes a kernel times a state runs at twice the speed of
a state times a kernel. `lay_out` turns the parameters round once for a model.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pianolstm._nn.networks import (
    CONV_FRAMES,
    NetworkConfig,
    Params,
    RecurrentBody,
    age_class,
    begins_chord,
    bind,
    unpack_words,
)
from pianolstm.windows import START

LANES = 8
"""Pieces side by side. Eight fill a vector register; more would make a single piece slower."""

Laid: TypeAlias = dict[str, Any]
Carry: TypeAlias = Any


def lay_out(config: NetworkConfig, params: Params, vocabulary: np.ndarray, n_tokens: int) -> Laid:
    """Parameters as `step` takes them, and where a piece begins.

    Parameters
    ----------
    config, params
        The network.
    vocabulary : ndarray of uint32, shape (n_rows, 8)
        Bits of the rows of the softmax.
    n_tokens : int
        How many rows are chords.

    Returns
    -------
    dict
        ``table`` (n_rows, embedding) and ``bias`` (n_rows,) are the softmax, ``speller`` spells
        chords where the network does; ``begin`` is the state that reads the start of a piece.
    """
    # All but the table is turned round by NumPy: compiling takes longer than doing it.
    network = bind(config, jax.tree.map(np.asarray, params))
    inputs, table, bias = _tables(config, params, vocabulary, np.int32(n_tokens))
    laid: Laid = {"table": table, "bias": bias}
    if config.is_causal:
        laid |= {
            "inputs": inputs,
            "pitch": np.ascontiguousarray(network.chords_in.pitch[...].T),
            "start": network.start[...],
            "held": network.held[...],
            "dense": _turned(network.dense),
            "project": _turned(network.project),
        }
        body: Any = network.body
        if not isinstance(body, RecurrentBody):
            kernel, bias = body.conv.kernel[...], body.conv.bias[...]
            kernel = kernel.reshape(-1, kernel.shape[-1]).T
            laid["conv"] = np.ascontiguousarray(kernel), bias[:, None]
            body = body.recurrent
        laid["layers"] = [_turned_cell(layer.cell) for layer in body.layers]
        laid["begin"] = _initial_carry(config)
    else:
        laid |= {"params": params, "begin": network.initial_carry(LANES)}
    if config.spell:
        speller = network.speller
        kernel, bias = (
            np.concatenate(parts)
            for parts in zip(_turned(speller.write), _turned(speller.again), strict=True)
        )
        laid["speller"] = {
            "read": _turned(speller.read),
            # Below the notes and the end, whether they are struck again; the end never is.
            "write": (np.pad(kernel, ((0, 1), (0, 0))), np.pad(bias, ((0, 1), (0, 0)))),
            "before": speller.before[...].T,
            "spelled": speller.spelled[...],
        }
    return jax.device_put(laid)


@partial(jax.jit, static_argnums=0)
def _tables(
    config: NetworkConfig, params: Params, vocabulary: Array, n_tokens: Array
) -> tuple[Array, Array, Array]:
    """Vectors of all chords, in and out, and biases."""
    network = bind(config, params)
    table, bias, _ = network.output(vocabulary, n_tokens, goes_on=False)
    return network.chords_in.table(vocabulary), table, bias


def step(
    config: NetworkConfig, laid: Laid, carry: Carry, ids: Array, bits: Array
) -> tuple[Carry, Array]:
    """Read a frame in every lane; the same function as the network's, of one frame.

    Parameters
    ----------
    config, laid
        The network, from `lay_out`.
    carry : pytree
        Leaves (…, lanes); those of the Bi-LSTM (lanes, …).
    ids : Array of int32, shape (lanes,)
    bits : Array of uint32, shape (lanes, 8)

    Returns
    -------
    carry : pytree
    features : Array, shape (embedding, lanes)
        Predict the frame after, by ``table @ features + bias``.
    """
    if not config.is_causal:
        network = bind(config, laid["params"])
        features, carry = network(ids[:, None], bits[:, None], carry)
        return carry, features[:, 0].T
    body, past, age = carry
    age = jnp.where(begins_chord(past.T, bits), 0, age + 1)
    inputs = laid["inputs"]
    known = (ids >= 0) & (ids < inputs.shape[0])
    x = inputs[jnp.where(known, ids, 0)].T
    x = lax.cond(
        jnp.all(known),
        lambda: x,
        lambda: jnp.where(known, x, laid["pitch"] @ unpack_words(bits).T),
    )
    x = jnp.where(ids == START, laid["start"][:, None], x)
    x = x + laid["held"][age_class(age)].T
    if "conv" in laid:
        seen, last, (next_phase, other_phase) = body
        seen = jnp.concatenate([seen, x])
        local = jax.nn.relu(_affine(laid["conv"], seen))
        h, stepped = _recurrent(laid, jnp.maximum(local, last), next_phase)
        body = seen[len(x) :], local, (other_phase, stepped)
    else:
        h, body = _recurrent(laid, x, body)
    features = _affine(laid["project"], jax.nn.relu(_affine(laid["dense"], h)))
    return (body, bits.T, age), features


def _recurrent(laid: Laid, x: Array, carry: Any) -> tuple[Array, Any]:
    carries = []
    for layer, (c, h) in zip(laid["layers"], carry, strict=True):
        gates = _affine(layer, jnp.concatenate([x, h]))
        i, f, g, o = jnp.split(gates, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        x = jax.nn.sigmoid(o) * jnp.tanh(c)
        carries.append((c, x))
    return x, tuple(carries)


def _initial_carry(config: NetworkConfig) -> Carry:
    zeros = np.zeros((config.units, LANES), np.float32)
    n_layers = 2 if config.arch in ("stacked", "hybrid_stacked") else 1
    body: Any = ((zeros, zeros),) * n_layers
    if config.arch.startswith("hybrid"):
        seen = np.zeros(((CONV_FRAMES - 1) * config.embedding, LANES), np.float32)
        body = seen, zeros, (body, body)
    return body, np.zeros((8, LANES), np.uint32), np.zeros(LANES, np.int32)


def _turned(dense: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(dense.kernel[...].T), dense.bias[...][:, None]


def _turned_cell(cell: Any) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.concatenate([cell.dense_i.kernel[...], cell.dense_h.kernel[...]])
    return np.ascontiguousarray(kernel.T), cell.dense_h.bias[...][:, None]


def _affine(layer: tuple[Array, Array], x: Array) -> Array:
    kernel, bias = layer
    return kernel @ x + bias
