"""What a fitted model is: one frozen object, saved, loaded and compared as a whole."""

from __future__ import annotations

import copy
import hashlib
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from os import PathLike, fspath
from typing import Any, TypeAlias

import jax
import numpy as np
import optax
from jax import Array

from pianolstm._jax.programs import Size, hold
from pianolstm._model import networks
from pianolstm._model.config import NetworkConfig
from pianolstm._model.durations import initial_bias
from pianolstm._model.files import Arrays, Header, fill_leaves, named_leaves, with_nan, without_nan
from pianolstm._model.networks import Params, Tree
from pianolstm._model.pitch_lstm import ALL_PITCHES, Range
from pianolstm._model.recall import Recalled, most_in_a_row, shares
from pianolstm.checks import plain_params
from pianolstm.constraints import UNLIMITED
from pianolstm.exceptions import ModelFileError
from pianolstm.rolls import Grid
from pianolstm.tempo import TempoMap
from pianolstm.tokens import ChordTokenizer, TokenCorpus
from pianolstm.vocabulary import (
    END,
    OTHER,
    Corpus,
    PitchBernoulli,
    beat_of,
    n_rows,
    padded_vocabulary,
)

HISTORY_KEYS = ("epoch", "loss", "val_loss", "accuracy", "seconds", "learning_rate")


History: TypeAlias = dict[str, list[float]]
"""A column for each of `HISTORY_KEYS`, a row for each epoch."""

OptimizerFactory: TypeAlias = Callable[[Any], optax.GradientTransformation]
"""Makes an optimiser of a learning rate, as optax's own functions do."""


def new_history() -> History:
    """The history before training."""
    return {key: [] for key in HISTORY_KEYS}


@dataclass(frozen=True)
class TrainState:
    """What a step makes anew: parameters, their running average, the optimiser's moments.

    Parameters and average are vectors, see `pianolstm._model.networks.flatten`. The moments are
    None until training begins: a model that only writes needs none.
    """

    params: Array  # (n_parameters,)
    average: Array  # (n_parameters,)
    opt_state: optax.OptState | None = None
    epoch: int = 0
    n_steps: int = 0
    optimizer: OptimizerFactory | None = None
    """What made the moments; another one can't go on from them."""


@dataclass(frozen=True, eq=False)
class Model:
    """All that a fitted model is. Nothing in it changes: learning makes another one.

    Attributes
    ----------
    config : NetworkConfig
        The network, with the settings that it was made with; those that may change since (dropout,
        recall, the window of a network that carries a state) are taken from the estimator.
    params : Params
        The parameters that score and write: their running average.
    tokenizer : ChordTokenizer
        The vocabulary, with the counts of all chords seen.
    bernoulli : PitchBernoulli
        Cost of chords outside the vocabulary.
    longest_hold : int
        Most frames that a chord lasts in the training pieces before another follows.
    most_repeats : int
        Most times in a row that a passage comes in them, see `pianolstm._model.recall`.
    fs, grid
        Grid of the rolls.
    microseconds : int or None
        Of a quarter note in the training pieces, their median; None on the grid of seconds.
    seed : int
        Drew the pieces held out and the initial parameters.
    held_out : tuple of int
        Numbers of the pieces held out.
    history : dict of str to list of float
        See `SequenceGenerator`.
    best_epoch : float
        The epoch that the parameters are of.
    epoch : int
        Epochs of training so far.
    state : TrainState or None
        Where training goes on. It is not saved, nor compared: a model that was loaded goes on from
        `params`.
    """

    config: NetworkConfig
    params: Params
    tokenizer: ChordTokenizer
    bernoulli: PitchBernoulli
    longest_hold: int
    most_repeats: int
    fs: float
    grid: Grid
    microseconds: int | None
    seed: int
    held_out: tuple[int, ...] = ()
    history: History = field(default_factory=new_history)
    best_epoch: float = 0
    epoch: int = 0
    state: TrainState | None = None

    @classmethod
    def untrained(
        cls,
        config: NetworkConfig,
        tokenizer: ChordTokenizer,
        train: TokenCorpus,
        seed: int,
        margin: int,
    ) -> Model:
        """Initial parameters for training pieces, and all that is counted in these.

        Parameters
        ----------
        config : NetworkConfig
            Its `n_rows` follow from the tokenizer, its `beat` from the grid, its `pitches` from the
            pieces.
        tokenizer : ChordTokenizer
            Fitted.
        train : TokenCorpus
        seed : int
        margin : int
            Semitones above and below those of the pieces that the network is to hear.
        """
        corpus = Corpus.of(tokenizer.vocabulary_, tokenizer.known(train), config.clock)
        beat = beat_of(train.fs, train.grid, config.clock)
        config = replace(config, beat=beat)
        if config.spell:
            config = replace(config, pitches=Range.around(corpus.chords, margin))
        else:
            config = replace(config, n_rows=n_rows(tokenizer.n_tokens_))
        tempi = [int(m.microseconds[0]) for m in train.tempo_maps if m is not None]
        return cls(
            config=config,
            params=networks.initialise(config, seed, *_initial(config, corpus)),
            tokenizer=tokenizer,
            bernoulli=PitchBernoulli.fit(corpus),
            longest_hold=corpus.longest_hold(),
            most_repeats=most_in_a_row(corpus),
            fs=train.fs,
            grid=train.grid,
            microseconds=statistics.median_low(tempi) if tempi else None,
            seed=seed,
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "_size", hold(self.config.size))

    _size: Size = field(init=False, repr=False)
    """Programs of this size are kept as long as a model has it."""

    @cached_property
    def vocabulary(self) -> jax.Array:  # uint32 (n_rows, 8)
        """Bits of the rows of the softmax."""
        return jax.device_put(padded_vocabulary(self.tokenizer.vocabulary_))

    @property
    def tempo_map(self) -> TempoMap | None:
        """Tempo of music that continues no prime."""
        return None if self.microseconds is None else TempoMap.constant(self.microseconds)

    @property
    def train_state(self) -> TrainState:
        """Where training goes on."""
        if self.state is not None:
            return self.state
        params = jax.device_put(networks.flatten(self.params))
        return TrainState(params, params, epoch=self.epoch)

    def corpus(self, pieces: TokenCorpus) -> Corpus:
        """Training pieces through the vocabulary."""
        return Corpus.of(
            self.tokenizer.vocabulary_, self.tokenizer.known(pieces), self.config.clock
        )

    def with_pitches_of(self, pieces: TokenCorpus, margin: int) -> Model:
        """The model that hears the pitches of more pieces too, and so many around them."""
        if not self.config.spell:
            return self
        pitches = Range.around(pieces.chords, margin, self.config.pitches)
        if pitches == self.config.pitches:
            return self
        return replace(self, config=replace(self.config, pitches=pitches))

    def with_chords_of(self, pieces: TokenCorpus) -> Model:
        """The model with the chords of more pieces in its vocabulary.

        What was learned stays. With a softmax over chords a new one begins as the sum of its
        pitches' vectors, as likely as the rarest chord beside that.
        """
        tokenizer = copy.copy(self.tokenizer).partial_fit(pieces)
        n_old, n_new = self.tokenizer.n_tokens_, tokenizer.n_tokens_
        rows_before, rows = n_rows(n_old), n_rows(n_new)
        model = replace(self, tokenizer=tokenizer)
        longest_hold = max(self.longest_hold, model.corpus(pieces).longest_hold())
        model = replace(model, longest_hold=longest_hold)
        if self.config.spell or n_new == n_old:
            return model
        old = self.train_state
        latest = networks.unflatten(self.config, np.asarray(old.average))
        rarest = float(np.min(np.asarray(latest["bias"])[:n_old]))

        def grown(tree: Tree, bias: float) -> Tree:
            """Vectors of all parameters, and trees of them, with rows for the new chords."""

            def resized(leaf: Array) -> Array:
                """A vector of all parameters; other leaves are left."""
                if np.shape(leaf) != old.params.shape:
                    return leaf
                vector = networks.unflatten(self.config, np.asarray(leaf))
                vector = networks.grow(vector, n_old, n_new, rows_before, rows, bias)
                return jax.device_put(networks.flatten(vector))

            # Of optimisers of the user's own the moments may be like the parameters in structure.
            return networks.grow(jax.tree.map(resized, tree), n_old, n_new, rows_before, rows, bias)

        state = replace(
            old,
            params=grown(old.params, rarest),
            average=grown(old.average, rarest),
            opt_state=grown(old.opt_state, 0.0),
        )
        config = replace(model.config, n_rows=rows)
        return replace(model, config=config, state=state)._with_params_of(state)

    def with_counts_of(self, pieces: TokenCorpus) -> Model:
        """The model with all that is counted in more training pieces, but for their chords."""
        corpus = self.corpus(pieces)
        return replace(
            self,
            longest_hold=max(self.longest_hold, corpus.longest_hold()),
            most_repeats=max(self.most_repeats, most_in_a_row(corpus)),
        )

    def after(self, state: TrainState, history: History, best_epoch: float) -> Model:
        """The model that training has come to."""
        return replace(
            self, history=history, best_epoch=best_epoch, epoch=state.epoch, state=state
        )._with_params_of(state)

    def _with_params_of(self, state: TrainState) -> Model:
        params = networks.unflatten(self.config, np.asarray(state.average))
        return replace(self, params=jax.device_put(params))

    def __eq__(self, other: object) -> bool:
        """Whether all that is saved is the same, bit by bit."""
        if not isinstance(other, Model):
            return NotImplemented
        return self.digest == other.digest

    __hash__ = None  # pyright: ignore[reportAssignmentType] (dataclass compares by identity)

    @cached_property
    def digest(self) -> str:
        """Tells one model from another: a number of all that is saved."""
        arrays, header = self.contents()
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def contents(self) -> tuple[Arrays, Header]:
        """Arrays and header of a model file."""
        network = asdict(self.config)
        del network["n_rows"]
        header = {
            "network": network,
            "tokenizer": plain_params(self.tokenizer),
            "history": without_nan(self.history),
            "best_epoch": self.best_epoch,
            "held_out": list(self.held_out),
            "fs": self.fs,
            "grid": self.grid,
            "microseconds_per_quarter": self.microseconds,
            "seed": self.seed,
            "epoch": self.epoch,
            "pitch_again": self.bernoulli.again,
            "longest_hold": self.longest_hold,
            "most_repeats": self.most_repeats,
        }
        arrays = {f"params.{k}": np.asarray(v) for k, v in named_leaves(self.params).items()}
        arrays["vocabulary"] = self.tokenizer.vocabulary_
        arrays["counts"] = self.tokenizer.counts_
        arrays["seen"], arrays["seen_counts"] = self.tokenizer.seen_, self.tokenizer.seen_counts_
        arrays["pitch_sounding"] = self.bernoulli.sounding
        return arrays, header

    @classmethod
    def of_contents(cls, path: str | PathLike[str], arrays: Arrays, header: Header) -> Model:
        """The reverse of `contents`.

        Raises
        ------
        ModelFileError
            If something is missing, or of another kind or shape.
        """
        name = fspath(path)
        try:
            # Files from before there was a `Model` have the network among the estimator's settings,
            # and no counts of chords outside the vocabulary.
            network = header.get("network") or header["settings"]
            # Those from before there was another clock count frames.
            network = {"clock": "frames", "beat": 0.0, **network}
            if network["spell"] and "params.decoder.others.kernel" not in arrays:
                raise ModelFileError(
                    f"{name}: written by an earlier version, whose networks wrote notes otherwise; "
                    "expected a model of this one. Train it again, or load it with that version."
                )
            known = network.get("pitches")
            network["pitches"] = ALL_PITCHES if known is None else Range(**known)
            fields = NetworkConfig.__dataclass_fields__.keys() - {"n_rows"}
            rows = 0 if network["spell"] else n_rows(len(arrays["vocabulary"]))
            config = NetworkConfig(n_rows=rows, **{k: network[k] for k in fields})
            tokenizer = ChordTokenizer(**header["tokenizer"])
            tokenizer.vocabulary_, tokenizer.counts_ = arrays["vocabulary"], arrays["counts"]
            tokenizer.n_tokens_ = len(tokenizer.vocabulary_)
            tokenizer.seen_ = arrays.get("seen", tokenizer.vocabulary_)
            tokenizer.seen_counts_ = arrays.get("seen_counts", tokenizer.counts_)
            tokenizer.fs_, tokenizer.grid_ = header["fs"], header["grid"]
            named = {k.removeprefix("params."): v for k, v in arrays.items()}
            if "gate.shares" not in named:
                named |= _gates_of_counts(config, arrays["recalled"])
            return cls(
                config=config,
                params=jax.device_put(fill_leaves(networks.shapes(config), named, name)),
                tokenizer=tokenizer,
                bernoulli=PitchBernoulli(arrays["pitch_sounding"], header["pitch_again"]),
                longest_hold=header["longest_hold"],
                # Files from before that was counted.
                most_repeats=header.get("most_repeats", UNLIMITED),
                fs=header["fs"],
                grid=header["grid"],
                microseconds=header["microseconds_per_quarter"],
                seed=header["seed"],
                held_out=tuple(header["held_out"]),
                history=with_nan(header["history"]),
                best_epoch=header["best_epoch"],
                epoch=header["epoch"],
            )
        except (KeyError, TypeError) as error:
            raise ModelFileError(
                f"{name}: the header is not that of a pianolstm model ({error})."
            ) from None


def _initial(
    config: NetworkConfig, corpus: Corpus
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """What `initialise` takes, counted over the training pieces.

    Logits of rows (n_rows,) where there are any, of hazards (N_CLASSES,) with a clock of changes;
    shares of what is recalled (2, n_classes), if anything is.
    """
    hazards = initial_bias(corpus.durations) if config.clock == "changes" else None
    recalling = None
    if config.recall:
        n_pieces = len(corpus.tokens)
        recalled = [Recalled.along(corpus, i, spell=config.spell) for i in range(n_pieces)]
        recalling = shares(corpus, recalled)
    if config.spell:
        return None, hazards, recalling
    n_tokens = corpus.n_tokens
    frames = np.zeros(n_tokens + 1)  # the last counts chords outside the vocabulary
    np.add.at(frames, corpus.rows, corpus.counts())
    n = frames.sum()
    bias = np.zeros(config.n_rows, np.float32)
    bias[:n_tokens] = np.log((frames[:-1] + 0.5) / (n + 0.5 * (n_tokens + 1)))
    bias[END], bias[OTHER] = np.log([1 / n, (frames[-1] + 0.5) / n])
    return bias, hazards, recalling


def _gates_of_counts(
    config: NetworkConfig,
    counts: np.ndarray,  # int64 (2 or 3, n_classes): of steps, and of those that were as recalled
) -> Arrays:
    """Gates that take what was counted, of files from before networks had any."""
    kinds = ("gate", "duration_gate")[: len(counts) - 1]
    named = named_leaves({kind: networks.shapes(config)[kind] for kind in kinds})
    found = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in named.items()}
    for kind, came in zip(kinds, counts[1:], strict=True):
        share = (came + 0.5) / (counts[0] + 1)
        found[f"{kind}.shares"] = np.log(share / (1 - share)).astype(np.float32)
    return found
