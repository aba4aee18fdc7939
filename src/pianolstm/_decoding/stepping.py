"""One frame of a network at a time, for some pieces side by side.

A row computed in batches of different size may differ in its last bits, and so draw another token.
So music is written in a fixed number of lanes, of which some may be idle: a lane's numbers are then
the same whatever the others do. There are `LANES`; or `FEW`, which take half the time, where
`rounds_alike` finds that products of as many rows come to the same bits.

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
from pianolstm._model.lstm import affine
from pianolstm._model.networks import (
    HybridBody,
    NetworkConfig,
    Params,
    RecurrentBody,
    age_class,
    begins_chord,
    bind,
    unpack_words,
)
from pianolstm._model.note_decoder import Speller
from pianolstm.rolls import N_PITCHES
from pianolstm.windows import START

LANES = 8
"""Pieces side by side."""

FEW = 2
"""The same for one piece or two. (A product of one row is added up in another order.)"""

LOOKED_UP = ("begin", "inputs", "held", "lasted", "metre", "recall")
"""Weights of which rows are picked; the others are multiplied with."""

StepWeights: TypeAlias = dict[str, Any]
"""Parameters by name, see `step_weights`."""

Carry: TypeAlias = Any
"""State of the network, leaves (lanes, …): what `step` takes and gives."""


def step_weights(
    config: NetworkConfig, params: Params, vocabulary: np.ndarray, n_tokens: int
) -> StepWeights:
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
        chords where the network does; ``begin`` is the state before the start of a piece, in one
        lane. `Decoder` puts that after the start in its place, with the features, and adds the
        shares of what is recalled as ``recall``.
    """
    # All but the table is laid out by NumPy: compiling takes longer than doing it.
    network = bind(config, jax.tree.map(np.asarray, params))
    inputs, table, bias = _tables(config, params, vocabulary, np.int32(n_tokens))
    weights: StepWeights = {"table": table, "bias": bias}
    if config.is_causal:
        weights |= {
            "inputs": inputs,
            "pitch": network.chords_in.pitch[...],
            "start": network.start[...],
            "held": network.held[...],
            "dense": _weights(network.dense),
            "project": _weights(network.project),
        }
        body: Any = network.body
        first = body.first_carry(config)
        if config.clock == "frames":
            first = first, np.zeros((1, 8), np.uint32), np.zeros(1, np.int32)
        weights |= {"body": body.step_weights(), "begin": first}
    else:
        weights |= {"params": params, "begin": network.initial_carry(1, np)}
    if config.clock == "changes":
        weights["lasted"], weights["project"] = network.lasted[...], _weights(network.project)
        if config.beat:
            weights["metre"] = network.metre[...], network.metre_next[...]
        holds = network.holds
        weights["holds"] = _weights(holds.read), (holds.write[...], holds.bias[...])
    if config.spell:
        weights["speller"] = _speller_weights(network.speller)
    return jax.device_put(weights)


def _speller_weights(speller: Speller) -> StepWeights:
    kernel, bias = (
        np.concatenate(parts, axis=-1)
        for parts in zip(_weights(speller.write), _weights(speller.again), strict=True)
    )
    return {
        "read": _weights(speller.read),
        # After the notes and the end, whether they are struck again; the end never is. Columns
        # that fill a register: products of few rows then add up as those of many. (So below.)
        "write": (np.pad(kernel, ((0, 0), (0, 15))), np.pad(bias, (0, 15))),
        "before": speller.before[...],
        "spelled": speller.spelled[...],
        # Makes running sums over the pitches and the end.
        "sums": np.triu(np.ones((N_PITCHES + 1, 144), np.float32)),
    }


@program()
def _tables(
    config: NetworkConfig, params: Params, vocabulary: Array, n_tokens: Array
) -> tuple[Array, Array, Array]:
    """Vectors of all chords, in and out, and biases."""
    network = bind(config, params)
    table, bias, _ = network.output(vocabulary, n_tokens, goes_on=False)
    return network.chords_in.table(vocabulary), table.T, bias


def rounds_alike(config: NetworkConfig, weights: StepWeights) -> bool:
    """Whether products of few rows and of many come to the same bits, here and at these sizes.

    Only a processor's are tried: elsewhere an algorithm may be chosen anew for each program. And
    only those of networks that carry a state: the Bi-LSTM's are of other numbers of rows.
    """
    if not config.is_causal or jax.default_backend() != "cpu":
        return False
    leaves = jax.tree.leaves({k: part for k, part in weights.items() if k not in LOOKED_UP})
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
    config: NetworkConfig,
    weights: StepWeights,
    carry: Carry,  # leaves (lanes, …)
    ids: Array,  # int32 (lanes,)
    bits: Array,  # uint32 (lanes, 8)
    timing: Array,  # int32 (lanes, 2): with the clock of changes, see `Corpus.timing`
) -> tuple[Carry, Array, Array | None]:  # (lanes, …), (lanes, N_CLASSES)
    """Read a step in every lane; the same function as the network's, of one step.

    Gives what predicts the next chord, see `chord_features`, and with the clock of changes the
    logits of the hazards.
    """
    is_timed = config.clock == "changes"
    if not config.is_causal:
        network = bind(config, weights["params"])
        before = timing[:, None] if is_timed else None
        h, carry = network.read(ids[:, None], bits[:, None], carry, None, before)
        if not is_timed:
            return carry, network.predict(h, None)[:, 0], None
        return carry, network.dense(h)[:, 0], network.holds(h)[:, 0]
    body, age = carry, timing[:, 0]
    if not is_timed:
        body, past, age = carry
        age = jnp.where(begins_chord(past, bits), 0, age + 1)
    x = _vectors(weights, ids, bits) + weights["held"][age_class(age)]
    if config.beat:
        x = x + weights["metre"][0][timing[:, 1]]
    h, body = _body(config).step(weights["body"], x, body)
    hidden = affine(weights["dense"], h)
    if not is_timed:
        return (body, bits, age), affine(weights["project"], jax.nn.relu(hidden)), None
    read, write = weights["holds"]
    return body, hidden, affine(write, jax.nn.relu(affine(read, h)))


def _vectors(
    weights: StepWeights,
    ids: Array,  # int32 (lanes,)
    bits: Array,  # uint32 (lanes, 8)
) -> Array:  # (lanes, embedding)
    inputs = weights["inputs"]
    known = (ids >= 0) & (ids < inputs.shape[0])
    x = inputs[jnp.where(known, ids, 0)]
    x = lax.cond(
        jnp.all(known),
        lambda: x,
        lambda: jnp.where(known[:, None], x, unpack_words(bits) @ weights["pitch"]),
    )
    return jnp.where((ids == START)[:, None], weights["start"], x)


def chord_features(
    config: NetworkConfig,
    weights: StepWeights,
    features: Array,  # (lanes, …): from `step`
    timing: Array,  # int32 (lanes, 2): with the clock of changes, of what sounds up to here
) -> Array:  # (lanes, embedding)
    """What predicts the next chord, by ``features @ table + bias``."""
    if config.clock == "frames":
        return features
    hidden = features + weights["lasted"][age_class(timing[:, 0])]
    if config.beat:
        hidden = hidden + weights["metre"][1][timing[:, 1]]
    return affine(weights["project"], jax.nn.relu(hidden))


def _body(config: NetworkConfig) -> Any:
    """The kind of body that a causal network has."""
    return HybridBody if config.arch.startswith("hybrid") else RecurrentBody


def _weights(dense: Any) -> tuple[np.ndarray, np.ndarray]:
    return dense.kernel[...], dense.bias[...]
