"""The five networks of the study, after its figure 3, made causal.

Conventions
-----------
Input at step t is the chord of the frame before the one to predict. A chord is read as its bits,
eight ``uint32`` words (see `pianolstm.chords`), which pick its pitches' vectors.

A network that spells writes chords note by note, and knows no vocabulary. One that does not has a
softmax of `n_rows` rows: the chords of the vocabulary, padding, and two more (see
`pianolstm.vocabulary`); its chords have a vector of their own each, by their ids.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from numpy.typing import ArrayLike

from pianolstm._jax.keys import Keys, Rngs
from pianolstm._model.bodies import (
    BidirectionalBody,
    BodyCarry,
    HybridBody,
    RecurrentBody,
    drop,
    dropout_masks,
    lecun,
)
from pianolstm._model.config import NetworkConfig
from pianolstm._model.durations import Holds, log_duration
from pianolstm._model.gates import Gate, RecalledBatch, gate_logit
from pianolstm._model.losses import Output
from pianolstm._model.lstm import (
    Initializer,
    from_numpy,
    no_draw,
    zeros,
)
from pianolstm._model.note_decoder import NoteDecoder, Spelled
from pianolstm._model.pitch_lstm import PitchCarry, PitchLSTM
from pianolstm._model.planes import N_AGES, NEVER, age_class, begins_chord, unpack_words
from pianolstm.vocabulary import END, N_POSITIONS
from pianolstm.windows import PAD, START

Leaf: TypeAlias = Array | np.ndarray
"""A parameter."""

Params: TypeAlias = dict[str, "Leaf | Params"]
"""Parameters by the names of modules and of their own."""

Carry: TypeAlias = tuple[BodyCarry, tuple[Array, Array, Array], PitchCarry | None]
"""State of a network: of its body; what is needed of the frames before, ids int32 (batch, n), bits
uint32 (batch, n, 8), and for how many frames the last has been held, int32 (batch,), of the Bi-LSTM
with the clock of changes their timing, int32 (batch, n, 2); and of its pitches, if it has any."""

Hidden: TypeAlias = tuple[Array, Array | None]
"""What the body makes of all that came (batch, n_targets, units), twice as wide of the Bi-LSTM; and
the state of each pitch (batch, n_targets, n_pitches, state), if there are any."""

Tree = TypeVar("Tree")


class Masks(NamedTuple):
    """Which features dropout keeps; bool (batch, 1, width) each."""

    x: Array  # of the vectors read
    h: Array  # of what the body gives
    dense: Array
    body: list[Array]  # between its layers
    heard: Array | None = None  # of the states of pitches
    notes: Array | None = None  # of the layer above


N_BITS = 256


def _normal(scale: float) -> Initializer:
    return from_numpy(lambda rng, shape: scale * rng.standard_normal(shape))


class ChordVectors(nnx.Module):
    """A vector for each chord: the sum of its pitches' vectors, and one of its own if it is a row.

    Parameters
    ----------
    rows : int
        0 for no vectors of chords of their own.
    width : int
    scale : float
        Standard deviation of the pitches' vectors at first.
    """

    def __init__(self, rows: int, width: int, scale: float, *, rngs: Rngs) -> None:
        init = _normal(scale)
        self.pitch = nnx.Param(init(rngs.params(), (N_BITS, width)))
        if rows:
            # Zero at first: a rare chord begins as the sum of its pitches.
            self.own = nnx.Param(no_draw(rows, width))
        self.rows = rows

    def of(
        self,
        ids: Array,  # int32 (…)
        bits: Array,  # uint32 (…, 8)
    ) -> Array:  # (…, width)
        """Vectors of the given chords; an id outside the rows has none of its own."""
        if not self.rows:
            return unpack_words(bits) @ self.pitch[...]
        own = self.own[...]
        known = (ids >= 0) & (ids < own.shape[0])
        picked = jnp.where(known[..., None], own[jnp.where(known, ids, 0)], 0)
        return unpack_words(bits) @ self.pitch[...] + picked

    def table(self, bits: Array) -> Array:  # uint32 (rows, 8) -> (rows, width)
        """Vectors of all rows."""
        return unpack_words(bits) @ self.pitch[...] + self.own[...]


class ChordNetwork(nnx.Module):
    """Chord vectors → body → dense, ReLU → notes, or a softmax over chords by their vectors."""

    def __init__(self, config: NetworkConfig, *, rngs: Rngs) -> None:
        width, units = config.embedding, config.units
        self.chords_in = ChordVectors(config.n_rows, width, 0.5, rngs=rngs)
        self.start = nnx.Param(_normal(0.5)(rngs.params(), (width,)))
        self.held = nnx.Param(_normal(0.5)(rngs.params(), (N_AGES, width)))
        self.window_size = None if config.is_causal else config.window_size
        n_layers = config.n_layers
        out = units
        if config.arch == "bilstm":
            self.body = BidirectionalBody(width, units, rngs=rngs)
            out = 2 * units
        elif config.arch.startswith("hybrid"):
            self.body = HybridBody(width, units, n_layers, config.dropout, rngs=rngs)
        else:
            self.body = RecurrentBody(width, units, n_layers, config.dropout, rngs=rngs)
        self.dense = nnx.Linear(out, units, kernel_init=lecun, bias_init=zeros, rngs=rngs)
        self.project = nnx.Linear(units, width, kernel_init=lecun, bias_init=zeros, rngs=rngs)
        self.pitches = config.pitches
        if not config.spell:
            self.chords_out = ChordVectors(config.n_rows, width, width**-0.5, rngs=rngs)
            self.bias = nnx.Param(no_draw(config.n_rows))
        else:
            read, state, hidden, first = config.pitch_widths
            self.hearing = PitchLSTM(read, state, rngs=rngs)
            self.overheard = nnx.Param(lecun(rngs.params(), (state, width)))
            self.decoder = NoteDecoder(width, state, hidden, first, rngs=rngs)
        self.spell, self.clock, self.dropout = config.spell, config.clock, config.dropout
        self.gate = Gate(units, rngs=rngs)
        if config.clock == "changes":
            self.duration_gate = Gate(units, rngs=rngs)
            self.holds = Holds(out, width, rngs=rngs)
            self.lasted = nnx.Param(no_draw(N_AGES, units))
        self.beat = config.beat
        if config.beat:
            self.metre = nnx.Param(_normal(0.5)(rngs.params(), (N_POSITIONS, width)))
            self.metre_next = nnx.Param(no_draw(N_POSITIONS, units))

    def __call__(
        self,
        ids: Array,  # int32 (batch, time): token of each frame, `START` or `PAD`
        bits: Array,  # uint32 (batch, time, 8): its chord
        carry: Carry,  # from `initial_carry` or an earlier call
        key: Array | None = None,  # key (batch,): draws the dropout masks of a row; None for none
    ) -> tuple[Array, Carry]:  # (batch, n_targets, embedding)
        """Read frames; give what predicts the frame after each.

        That is to be multiplied with the chords' output vectors; n_targets is time, and 1 for the
        Bi-LSTM.
        """
        masks = self.masks(key)
        (h, _), carry = self.read(ids, bits, carry, masks)
        return self.predict(h, None, masks), carry

    def masks(
        self,
        key: Array | None,  # key (batch,)
    ) -> Masks | None:
        """Dropout masks; None for none."""
        if key is None or self.dropout == 0:
            return None
        widths = [self.start.shape[0], self.dense.in_features, self.dense.out_features]
        of_body = list(self.body.mask_widths)
        of_notes = self.decoder.hear[...].shape if self.spell else ()
        masks = dropout_masks(key, self.dropout, [*widths, *of_body, *of_notes])
        n = len(widths) + len(of_body)
        of_x, of_h, of_dense = masks[:3]
        of_heard, of_written = masks[n:] or (None, None)
        return Masks(of_x, of_h, of_dense, masks[3:n], of_heard, of_written)

    def kept_notes(
        self, masks: Masks | None, n_targets: int
    ) -> Array | None:  # (batch * n_targets, hidden)
        """What dropout keeps of the layer that writes notes, scaled up; None for all."""
        if masks is None or masks.notes is None:
            return None
        keep = masks.notes.astype(jnp.float32) / (1 - self.dropout)
        return jnp.repeat(keep[:, 0], n_targets, axis=0)

    def read(
        self,
        ids: Array,  # int32 (batch, time): token of each step, `START` or `PAD`
        bits: Array,  # uint32 (batch, time, 8): its chord
        carry: Carry,  # from `initial_carry` or an earlier call
        masks: Masks | None = None,
        timing: Array | None = None,  # int32 (batch, time, 2): of the chord before each
    ) -> tuple[Hidden, Carry]:
        """What the network makes of all that came.

        With the clock of changes `timing` (see `Corpus.timing`) tells how long the chord before
        lasted and where this one begins; with that of frames it is None, and how long a chord has
        been held is counted here.
        """
        body_carry, (past_ids, past_bits, age), pitch_carry = carry
        if self.window_size is not None:
            if ids.shape[1] == 1:
                ids = jnp.concatenate([past_ids[:, 1:], ids], axis=1)
                bits = jnp.concatenate([past_bits[:, 1:], bits], axis=1)
            past_ids, past_bits = ids, bits
        if timing is not None:
            if self.window_size is not None:
                if timing.shape[1] == 1:
                    timing = jnp.concatenate([age[:, 1:], timing], axis=1)
                age = timing
            ages = timing[..., 0]
        elif self.window_size is not None:
            ages = _ages(jnp.zeros_like(bits[:, :1]), bits, jnp.zeros_like(age))
        else:
            ages = _ages(past_bits, bits, age)
            past_bits, age = bits[:, -1:], ages[:, -1]
        x = self.chords_in.of(ids, bits)
        x = jnp.where((ids == START)[..., None], self.start[...], x)
        x = x + self.held[...][age_class(ages)]
        if timing is not None and self.beat:
            x = x + self.metre[...][timing[..., 1]]
        heard = None
        if self.spell:
            valid = None
            if self.window_size is not None:
                valid, pitch_carry = ids != PAD, self.initial_pitches(len(ids), jnp)
            assert pitch_carry is not None
            heard, pitch_carry = self.hearing(bits, ages, pitch_carry, self.pitches, valid)
            kept = None if masks is None or masks.heard is None else masks.heard[:, :, None]
            heard = drop(heard, self.dropout, kept)
            x = x + jnp.mean(heard, axis=2) @ self.overheard[...]
        x = drop(x, self.dropout, masks and masks.x)
        h, body_carry = self.body(x, body_carry, ids != PAD, masks and masks.body)
        if heard is not None:
            heard = heard[:, -h.shape[1] :]
        hidden = drop(h, self.dropout, masks and masks.h), heard
        return hidden, (body_carry, (past_ids, past_bits, age), pitch_carry)

    def predict(
        self,
        h: Array,  # (batch, n_targets, units): from `read`
        timing: Array | None,  # int32 (batch, n_targets, 2): of each chord, see `read`
        masks: Masks | None = None,
    ) -> Array:  # (batch, n_targets, embedding)
        """What predicts the chord after each, to be multiplied with the chords' output vectors."""
        return self.features(self.timed(self.dense(h), timing), masks)

    def timed(
        self,
        hidden: Array,  # (…, units): from `dense`
        timing: Array | None,  # int32 (…, 2): of each chord, see `read`
    ) -> Array:  # (…, units)
        """The hidden layer, before its ReLU, where it is known how long each chord lasts."""
        if timing is None:
            return hidden
        hidden = hidden + self.lasted[...][age_class(timing[..., 0])]
        if self.beat:
            hidden = hidden + self.metre_next[...][timing[..., 1]]
        return hidden

    def features(
        self,
        hidden: Array,  # (batch, n_targets, units): from `timed`
        masks: Masks | None = None,
    ) -> Array:  # (batch, n_targets, embedding)
        """What predicts the chord after each."""
        return self.project(drop(jax.nn.relu(hidden), self.dropout, masks and masks.dense))

    def initial_carry(self, batch: int, xp: ModuleType = jnp) -> Carry:
        """State of the body, and what is needed of the frames before: a window, or the last one.

        `xp` is NumPy or its namesake in JAX; the former compiles nothing where it is called outside
        of a compiled function.
        """
        n = self.window_size or 1
        past_ids = xp.full((batch, n), PAD, np.int32)
        past_bits = xp.zeros((batch, n, 8), np.uint32)
        is_window = self.clock == "changes" and self.window_size is not None
        age = xp.zeros((batch, n, 2) if is_window else batch, np.int32)
        body = self.body.initial_carry(batch, xp)
        return body, (past_ids, past_bits, age), self.initial_pitches(batch, xp)

    def initial_pitches(self, batch: int, xp: ModuleType) -> PitchCarry | None:
        """State of the pitches, if the network spells."""
        if not self.spell:
            return None
        return self.hearing.initial_carry(batch, self.pitches, xp)

    def output(
        self,
        vocabulary: Array,  # uint32 (n_rows, 8): bits of the chords
        n_tokens: Array,  # int32 (): how many rows are chords
        *,
        goes_on: bool,  # whether it is given that the piece does not end here
    ) -> Output:
        """The softmax; padding is never chosen."""
        rows = jnp.arange(self.bias.shape[0])
        padding = (rows >= n_tokens) & (rows < rows.shape[0] + END)
        if goes_on:
            padding |= rows == rows.shape[0] + END
        table, bias = self.chords_out.table(vocabulary), jnp.where(padding, NEVER, self.bias[...])
        return Output(table, bias)


def gate_of(
    network: ChordNetwork,
    hidden: Array,  # (…, units): from `timed`
    recalled: RecalledBatch,  # of shape (…)
    log_p: Array | None,  # (…): nats of it by the network, as far as they are known
) -> Array:  # (…)
    """Logit of that the chord that is recalled is taken."""
    log_p = jnp.zeros(recalled.durations.shape) if log_p is None else log_p
    return gate_logit(network.gate.weights(), hidden, recalled.match, log_p)


def duration_gate_of(
    network: ChordNetwork,
    hidden: Array,  # (…, units): from `dense`
    recalled: RecalledBatch,  # of shape (…)
    holds: Array,  # (…, N_CLASSES): logits of the hazards
) -> Array:  # (…)
    """Logit of that the duration that is recalled is taken; with the clock of changes."""
    log_p = log_duration(holds, jnp.maximum(recalled.durations, 1))
    return gate_logit(network.duration_gate.weights(), hidden, recalled.match, log_p)


def log_spelled(
    network: ChordNetwork,
    heard: Array,  # (n, n_pitches, state)
    features: Array,  # (n, embedding)
    barred: Array,  # int32 (n,): as of `pianolstm._model.inputs.Targets`
    symbols: Array,  # int16 (n, length)
    before: Array,  # uint32 (n, 8): the frames before
    keep: Array | None = None,  # (n, hidden): what dropout keeps of the layer that writes notes
    *,
    goes_on: bool = False,  # whether it is given that the piece does not end
    recalled: Array | None = None,  # uint32 (n, 8)
) -> Spelled:
    """Likelihoods of what comes, by a network that spells; see `NoteDecoder`."""
    return network.decoder(
        network.pitches,
        heard,
        features,
        symbols,
        before[:, :4],
        barred >= 0,
        keep,
        goes_on=goes_on,
        recalled=recalled,
    )


def initialise(
    config: NetworkConfig,
    seed: int,
    bias: ArrayLike | None = None,  # (n_rows,): first logits of rows, e.g. logarithms of shares
    hold_bias: ArrayLike | None = None,  # (N_CLASSES,): those of the hazards, of a clock of changes
    shares: np.ndarray | None = None,  # (2, n_classes): see `pianolstm._model.recall.shares`
) -> Params:
    """Initial parameters as a plain tree."""
    network = ChordNetwork(config, rngs=Keys(seed))
    params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    if hold_bias is not None:
        params["holds"]["bias"] = jax.device_put(np.asarray(hold_bias))
    if shares is not None:
        logits = np.log(shares) - np.log1p(-shares)
        for name, its in zip(("gate", "duration_gate"), logits.astype(np.float32), strict=True):
            if name in params:
                params[name]["shares"] = jax.device_put(its)
    if bias is not None:
        params["bias"] = jax.device_put(np.asarray(bias))
    return params


def shapes(config: NetworkConfig) -> Params:
    """What `initialise` gives, as shapes and types."""
    return nnx.to_pure_dict(_abstract(config)[1])


def grow(tree: Tree, n_old: int, n_new: int, rows_before: int, n_rows: int, bias: float) -> Tree:
    """Parameters, or an optimiser's moments of them, for a vocabulary with more chords.

    Parameters
    ----------
    tree : pytree
        Holds leaves by the names of the parameters.
    n_old, n_new : int
        Chords before and after; the old keep their rows, and so do `END` and `OTHER`.
    rows_before, n_rows : int
        Rows before and after.
    bias : float
        Bias of the new chords.
    """

    def resized(path: jax.tree_util.KeyPath, leaf: Array) -> Array:  # (rows, …)
        name = tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))
        of_chords = name in (("chords_in", "own"), ("chords_out", "own"), ("bias",))
        if not of_chords or leaf.shape[:1] != (rows_before,):
            return leaf
        old = np.asarray(leaf)  # by NumPy, which need not compile for each size
        rows = np.zeros((n_rows, *old.shape[1:]), old.dtype)
        rows[:n_old], rows[END:] = old[:n_old], old[END:]
        if name == ("bias",):
            rows[n_old:n_new] = bias
        return jax.device_put(rows)

    return jax.tree_util.tree_map_with_path(resized, tree)


def flatten(
    params: Any,  # leaves (…)
    xp: ModuleType = np,
) -> Any:  # (n_parameters,)
    """All parameters in one vector, as training holds them: what is done to each is done at once.

    `xp` is NumPy, or its namesake in JAX inside of a compiled function.
    """
    # (`np.reshape` of an array of JAX would be JAX's, and compile for each shape.)
    return xp.concatenate([xp.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(params)])


def unflatten(
    config: NetworkConfig,
    vector: Any,  # (n_parameters,)
) -> Params:
    """The reverse of `flatten`; of an array of NumPy, views."""
    leaves, structure = jax.tree.flatten(shapes(config))
    ends = np.cumsum([leaf.size for leaf in leaves]).tolist()
    parts = [vector[end - leaf.size : end] for leaf, end in zip(leaves, ends, strict=True)]
    parts = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, parts)


def bind(config: NetworkConfig, params: Params) -> ChordNetwork:
    """The network with these parameters."""
    graph, state = _structure(config)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


def n_parameters(params: Params) -> int:
    """How many numbers there are to learn."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _structure(config: NetworkConfig) -> tuple[nnx.GraphDef[ChordNetwork], nnx.State]:
    graph, state = _abstract(config)
    return graph, jax.tree.map(lambda leaf: leaf, state)


@lru_cache(maxsize=16)
def _abstract(config: NetworkConfig) -> tuple[nnx.GraphDef[ChordNetwork], nnx.State]:
    network = nnx.eval_shape(lambda: ChordNetwork(config, rngs=nnx.Rngs(params=0)))
    return nnx.split(network)


def _ages(
    before: Array,  # uint32 (batch, 1, 8): the chord before the first frame
    bits: Array,  # uint32 (batch, time, 8)
    age: Array,  # int32 (batch,): for how many frames `before` has been held
) -> Array:  # int32 (batch, time)
    """For how many frames each chord has been held: 0 where it begins or is struck again."""
    last = jnp.concatenate([before, bits[:, :-1]], axis=1)
    begins = begins_chord(last, bits)
    time = jnp.arange(bits.shape[1])
    began = jnp.where(begins, time[None], -1 - age[:, None])
    return time[None] - lax.cummax(began, axis=1)
