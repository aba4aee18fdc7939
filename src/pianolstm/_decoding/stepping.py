"""One frame of a network at a time, for some pieces side by side.

A row computed in batches of different size may differ in its last bits, and so draw another token.
So music is written in a fixed number of lanes, of which some may be idle: a lane's numbers are then
the same whatever the others do. There are `LANES`; or `FEW`, which take half the time, where
`adds_up_alike` finds that products of as many rows come to the same bits.

Conventions
-----------
Arrays have the lanes first: (lanes, features).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pianolstm._jax.programs import program
from pianolstm._model.networks import (
    CONV_FRAMES,
    NetworkConfig,
    Params,
    RecurrentBody,
    age_class,
    begins_chord,
    bind,
    unpack_words,
)
from pianolstm.rolls import N_PITCHES
from pianolstm.windows import START

LANES = 8
"""Pieces side by side."""

FEW = 2
"""The same for one piece or two. (A product of one row is added up in another order.)"""

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
        ``table`` (embedding, n_rows) and ``bias`` (n_rows,) are the softmax, ``speller`` spells
        chords where the network does; ``begin`` is the state that reads the start of a piece, in
        one lane.
    """
    # All but the table is laid out by NumPy: compiling takes longer than doing it.
    network = bind(config, jax.tree.map(np.asarray, params))
    inputs, table, bias = _tables(config, params, vocabulary, np.int32(n_tokens))
    laid: Laid = {"table": table, "bias": bias}
    if config.is_causal:
        laid |= {
            "inputs": inputs,
            "pitch": network.chords_in.pitch[...],
            "start": network.start[...],
            "held": network.held[...],
            "dense": _weights(network.dense),
            "project": _weights(network.project),
        }
        body: Any = network.body
        if not isinstance(body, RecurrentBody):
            kernel, bias = _weights(body.conv)
            laid["conv"] = kernel.reshape(-1, kernel.shape[-1]), bias
            body = body.recurrent
        laid["layers"] = [_weights_of_cell(layer.cell) for layer in body.layers]
        laid["begin"] = _initial_carry(config)
    else:
        laid |= {"params": params, "begin": network.initial_carry(1)}
    if config.spell:
        speller = network.speller
        kernel, bias = (
            np.concatenate(parts, axis=-1)
            for parts in zip(_weights(speller.write), _weights(speller.again), strict=True)
        )
        laid["speller"] = {
            "read": _weights(speller.read),
            # After the notes and the end, whether they are struck again; the end never is. Columns
            # that fill a register: products of few rows then add up as those of many. (So below.)
            "write": (np.pad(kernel, ((0, 0), (0, 15))), np.pad(bias, (0, 15))),
            "before": speller.before[...],
            "spelled": speller.spelled[...],
            # Makes running sums over the pitches and the end.
            "sums": np.triu(np.ones((N_PITCHES + 1, 144), np.float32)),
        }
    return jax.device_put(laid)


@program()
def _tables(
    config: NetworkConfig, params: Params, vocabulary: Array, n_tokens: Array
) -> tuple[Array, Array, Array]:
    """Vectors of all chords, in and out, and biases."""
    network = bind(config, params)
    table, bias, _ = network.output(vocabulary, n_tokens, goes_on=False)
    return network.chords_in.table(vocabulary), table.T, bias


def adds_up_alike(config: NetworkConfig, laid: Laid) -> bool:
    """Whether products of few rows and of many come to the same bits, here and at these sizes.

    Only a processor's are tried: elsewhere an algorithm may be chosen anew for each program. And
    only those of networks that carry a state: the Bi-LSTM's are of other numbers of rows.
    """
    if not config.is_causal or jax.default_backend() != "cpu":
        return False
    leaves = jax.tree.leaves({name: part for name, part in laid.items() if name != "begin"})
    kernels = {leaf.shape: leaf for leaf in leaves if leaf.ndim == 2 and leaf.dtype == np.float32}
    assert kernels
    pairs, *many = (
        _products(config, [_like_pairs(n_rows, n) for n, _ in kernels], list(kernels.values()))
        for n_rows in sorted({FEW, LANES, 4 * FEW, 4 * LANES})  # a note adds up four rows a lane
    )
    return all(
        np.array_equal(product, np.tile(pair, (len(product) // FEW, 1)))
        for products in many
        for product, pair in zip(products, pairs, strict=True)
    )


def _like_pairs(n_rows: int, n: int) -> np.ndarray:
    """Rows of which each pair is the same."""
    pair = np.sin(np.arange(FEW * n, dtype=np.float32)).reshape(FEW, n)
    return np.tile(pair, (n_rows // FEW, 1))


@program()
def _products(_: NetworkConfig, rows: list[Array], kernels: list[Array]) -> list[Array]:
    return [x @ kernel for x, kernel in zip(rows, kernels, strict=True)]


def step(
    config: NetworkConfig, laid: Laid, carry: Carry, ids: Array, bits: Array
) -> tuple[Carry, Array]:
    """Read a frame in every lane; the same function as the network's, of one frame.

    Parameters
    ----------
    config, laid
        The network, from `lay_out`.
    carry : pytree
        Leaves (lanes, …).
    ids : Array of int32, shape (lanes,)
    bits : Array of uint32, shape (lanes, 8)

    Returns
    -------
    carry : pytree
    features : Array, shape (lanes, embedding)
        Predict the frame after, by ``features @ table + bias``.
    """
    if not config.is_causal:
        network = bind(config, laid["params"])
        features, carry = network(ids[:, None], bits[:, None], carry)
        return carry, features[:, 0]
    body, past, age = carry
    age = jnp.where(begins_chord(past, bits), 0, age + 1)
    inputs = laid["inputs"]
    known = (ids >= 0) & (ids < inputs.shape[0])
    x = inputs[jnp.where(known, ids, 0)]
    x = lax.cond(
        jnp.all(known),
        lambda: x,
        lambda: jnp.where(known[:, None], x, unpack_words(bits) @ laid["pitch"]),
    )
    x = jnp.where((ids == START)[:, None], laid["start"], x)
    x = x + laid["held"][age_class(age)]
    if "conv" in laid:
        seen, last, (next_phase, other_phase) = body
        seen = jnp.concatenate([seen, x], axis=1)
        local = jax.nn.relu(_affine(laid["conv"], seen))
        h, stepped = _recurrent(laid, jnp.maximum(local, last), next_phase)
        body = seen[:, x.shape[1] :], local, (other_phase, stepped)
    else:
        h, body = _recurrent(laid, x, body)
    features = _affine(laid["project"], jax.nn.relu(_affine(laid["dense"], h)))
    return (body, bits, age), features


def _recurrent(laid: Laid, x: Array, carry: Any) -> tuple[Array, Any]:
    carries = []
    for layer, (c, h) in zip(laid["layers"], carry, strict=True):
        gates = _affine(layer, jnp.concatenate([x, h], axis=1))
        i, f, g, o = jnp.split(gates, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        x = jax.nn.sigmoid(o) * jnp.tanh(c)
        carries.append((c, x))
    return x, tuple(carries)


def _initial_carry(config: NetworkConfig) -> Carry:
    zeros = np.zeros((1, config.units), np.float32)
    n_layers = 2 if config.arch in ("stacked", "hybrid_stacked") else 1
    body: Any = ((zeros, zeros),) * n_layers
    if config.arch.startswith("hybrid"):
        seen = np.zeros((1, (CONV_FRAMES - 1) * config.embedding), np.float32)
        body = seen, zeros, (body, body)
    return body, np.zeros((1, 8), np.uint32), np.zeros(1, np.int32)


def _weights(dense: Any) -> tuple[np.ndarray, np.ndarray]:
    return dense.kernel[...], dense.bias[...]


def _weights_of_cell(cell: Any) -> tuple[np.ndarray, np.ndarray]:
    kernels = cell.dense_i.kernel[...], cell.dense_h.kernel[...]
    return np.concatenate(kernels), cell.dense_h.bias[...]


def _affine(weights: tuple[Array, Array], x: Array) -> Array:
    kernel, bias = weights
    return x @ kernel + bias
