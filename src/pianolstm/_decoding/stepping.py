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

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pianolstm._decoding.history import Data
from pianolstm._jax.programs import program
from pianolstm._model import pitch_lstm
from pianolstm._model.bodies import HybridBody, RecurrentBody
from pianolstm._model.config import NetworkConfig
from pianolstm._model.lstm import affine
from pianolstm._model.networks import Params, bind
from pianolstm._model.note_decoder import N_FIRST, NoteDecoder, NoteWeights
from pianolstm._model.pitch_lstm import Reading
from pianolstm._model.planes import age_class, begins_chord, unpack_words
from pianolstm.windows import START

LANES = 8
"""Pieces side by side."""

FEW = 2
"""The same for one piece or two. (A product of one row is added up in another order.)"""

LOOKED_UP = ("begin", "inputs", "held", "lasted", "metre", "gate", "duration_gate")
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
        ``table`` (embedding, n_rows) and ``bias`` (n_rows,) are the softmax, ``notes`` stands in
        its place where the network spells; ``begin`` is the state before the start of a piece, in
        one lane. `Decoder` puts that after the start in its place, with the hidden layer.
    """
    # All but the table is laid out by NumPy: compiling takes longer than doing it.
    network = bind(config, jax.tree.map(np.asarray, params))
    weights: StepWeights = {}
    if config.spell:
        reading, notes = _note_tables(config, params)
        weights["notes"] = _note_weights(network.decoder, notes)
        of_body: StepWeights = {"hearing": (reading, network.hearing.layer.step_weights())}
        of_body["overheard"] = network.overheard[...]
    else:
        inputs, table, bias = _chord_tables(config, params, vocabulary, np.int32(n_tokens))
        weights |= {"table": table, "bias": bias}
        of_body = {"inputs": inputs}
    if config.is_causal:
        weights |= {
            "pitch": network.chords_in.pitch[...],
            "start": network.start[...],
            "held": network.held[...],
            "dense": _weights(network.dense),
        }
        body: Any = network.body
        first = body.first_carry(config)
        if config.clock == "frames":
            first = first, np.zeros((1, 8), np.uint32), np.zeros(1, np.int32)
        first = first, network.initial_pitches(1, np)
        weights |= {"body": body.step_weights(), "begin": first} | of_body
    else:
        weights |= {"params": params, "begin": network.initial_carry(1, np)}
    weights["project"], weights["gate"] = _weights(network.project), network.gate.weights()
    if config.clock == "changes":
        weights["lasted"] = network.lasted[...]
        weights["duration_gate"] = network.duration_gate.weights()
        if config.beat:
            weights["metre"] = network.metre[...], network.metre_next[...]
        holds = network.holds
        weights["holds"] = _weights(holds.read), (holds.write[...], holds.bias[...])
    return jax.device_put(weights)


def _note_weights(decoder: NoteDecoder, notes: NoteWeights) -> StepWeights:
    return {
        "read": _weights(decoder.read),
        "read_first": _weights(decoder.read_first),
        # Columns that fill a register: products of few rows then add up as those of many.
        "others": tuple(
            np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 14)]) for a in _weights(decoder.others)
        ),
        "weights": notes,
        # Makes running sums over the pitches and what may come in their place. (Again.)
        "sums": np.triu(np.ones((N_FIRST, 144), np.float32)),
    }


@program()
def _chord_tables(
    config: NetworkConfig, params: Params, vocabulary: Array, n_tokens: Array
) -> tuple[Array, Array, Array]:  # (n_rows, embedding), (embedding, n_rows), (n_rows,)
    """Vectors of all chords, in and out, and biases."""
    network = bind(config, params)
    table, bias = network.output(vocabulary, n_tokens, goes_on=False)
    return network.chords_in.table(vocabulary), table.T, bias


@program()
def _note_tables(config: NetworkConfig, params: Params) -> tuple[Reading, NoteWeights]:
    """Weights that are laid out for pitches."""
    network = bind(config, params)
    return network.hearing.reading(config.pitches), network.decoder.step_weights(config.pitches)


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
    # A lane has one row, a note adds up four, and each pitch has one.
    ratio = LANES // FEW
    for n, times in ((1, (1, ratio, 4 * ratio)), (config.pitches.n_pitches, (1, ratio))):
        if n > 1 and not config.spell:
            continue
        few, *many = (
            _products(
                config,
                [_alike(FEW * n, k, width) for width, _ in kernels],
                list(kernels.values()),
            )
            for k in times
        )
        if not all(
            np.array_equal(product, np.tile(part, (len(product) // len(part), 1)))
            for products in many
            for product, part in zip(products, few, strict=True)
        ):
            return False
    return True


def _alike(n_rows: int, times: int, width: int) -> np.ndarray:
    """Rows, over and over."""
    rows = np.sin(np.arange(n_rows * width, dtype=np.float32)).reshape(n_rows, width)
    return np.tile(rows, (times, 1))


@program()
def _products(_: NetworkConfig, rows: list[Array], kernels: list[Array]) -> list[Array]:
    return [x @ kernel for x, kernel in zip(rows, kernels, strict=True)]


class Stepped(NamedTuple):
    """What the next chord is predicted from."""

    hidden: Data  # (lanes, units): see `timed`
    holds: Data  # (lanes, N_CLASSES): logits of the hazards, with the clock of changes
    heard: Data  # (lanes, n_pitches, state): of each pitch, where chords are spelled


def step(
    config: NetworkConfig,
    weights: StepWeights,
    carry: Carry,  # leaves (lanes, …)
    ids: Array,  # int32 (lanes,)
    bits: Array,  # uint32 (lanes, 8)
    timing: Array,  # int32 (lanes, 2): with the clock of changes, see `Corpus.timing`
) -> tuple[Carry, Stepped]:
    """Read a step in every lane; the same function as the network's, of one step."""
    is_timed = config.clock == "changes"
    if not config.is_causal:
        network = bind(config, weights["params"])
        before = timing[:, None] if is_timed else None
        (h, heard), carry = network.read(ids[:, None], bits[:, None], carry, None, before)
        heard = None if heard is None else heard[:, 0]
        holds = network.holds(h)[:, 0] if is_timed else None
        return carry, Stepped(network.dense(h)[:, 0], holds, heard)
    (body, hearing), age, heard = carry, timing[:, 0], None
    if not is_timed:
        body, past, age = body
        age = jnp.where(begins_chord(past, bits), 0, age + 1)
    x = _vectors(weights, ids, bits) + weights["held"][age_class(age)]
    if config.beat:
        x = x + weights["metre"][0][timing[:, 1]]
    if config.spell:
        hearing = pitch_lstm.step(weights["hearing"], bits, age, hearing, config.pitches)
        _, heard, _ = hearing
        x = x + _mean(heard) @ weights["overheard"]
    h, body = _body(config).step(weights["body"], x, body)
    hidden = affine(weights["dense"], h)
    if not is_timed:
        return ((body, bits, age), hearing), Stepped(hidden, None, heard)
    read, write = weights["holds"]
    holds = affine(write, jax.nn.relu(affine(read, h)))
    return (body, hearing), Stepped(hidden, holds, heard)


def _mean(heard: Array) -> Array:  # (lanes, n_pitches, state) -> (lanes, state)
    """Over the pitches. (The sums of the compiler itself depend on how many lanes there are.)"""
    n_pitches = n = heard.shape[1]
    while n % 2 == 0:
        n //= 2
        heard = heard[:, :n] + heard[:, n:]
    total = heard[:, 0]
    for i in range(1, n):
        total = total + heard[:, i]
    return total / n_pitches


def _vectors(
    weights: StepWeights,
    ids: Array,  # int32 (lanes,)
    bits: Array,  # uint32 (lanes, 8)
) -> Array:  # (lanes, embedding)
    if "inputs" not in weights:
        x = unpack_words(bits) @ weights["pitch"]
        return jnp.where((ids == START)[:, None], weights["start"], x)
    inputs = weights["inputs"]
    known = (ids >= 0) & (ids < inputs.shape[0])
    x = inputs[jnp.where(known, ids, 0)]
    x = lax.cond(
        jnp.all(known),
        lambda: x,
        lambda: jnp.where(known[:, None], x, unpack_words(bits) @ weights["pitch"]),
    )
    return jnp.where((ids == START)[:, None], weights["start"], x)


def timed(
    config: NetworkConfig,
    weights: StepWeights,
    hidden: Array,  # (lanes, units): from `step`
    timing: Array,  # int32 (lanes, 2): with the clock of changes, of what sounds up to here
) -> Array:  # (lanes, units)
    """The hidden layer, before its ReLU, where it is known how long the last chord lasts."""
    if config.clock == "frames":
        return hidden
    hidden = hidden + weights["lasted"][age_class(timing[:, 0])]
    if config.beat:
        hidden = hidden + weights["metre"][1][timing[:, 1]]
    return hidden


def chord_features(
    weights: StepWeights,
    hidden: Array,  # (lanes, units): from `timed`
) -> Array:  # (lanes, embedding)
    """What predicts the next chord."""
    return affine(weights["project"], jax.nn.relu(hidden))


def _body(config: NetworkConfig) -> Any:
    """The kind of body that a causal network has."""
    return HybridBody if config.arch.startswith("hybrid") else RecurrentBody


def _weights(dense: Any) -> tuple[np.ndarray, np.ndarray]:
    return dense.kernel[...], dense.bias[...]
