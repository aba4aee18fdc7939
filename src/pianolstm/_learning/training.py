"""The training loop: steps, epochs, early stopping."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from pianolstm._jax.keys import seed_key
from pianolstm._jax.programs import LARGE_PROGRAM, program
from pianolstm._learning.augmentation import Transpositions
from pianolstm._learning.devices import (
    agreed,
    is_first_process,
    on_all,
    on_one,
    over_devices,
    shared_out,
)
from pianolstm._model import networks
from pianolstm._model.config import NetworkConfig
from pianolstm._model.durations import log_duration
from pianolstm._model.gates import RecalledBatch, log_mixed
from pianolstm._model.inputs import SKIPPED, Reader
from pianolstm._model.likelihood import evaluate
from pianolstm._model.losses import TargetRows, softmax_loss
from pianolstm._model.networks import Params, Tree, bind, duration_gate_of, gate_of, log_spelled
from pianolstm._model.planes import NEVER
from pianolstm._model.recall import Recalled
from pianolstm.exceptions import PianoLSTMError
from pianolstm.model import HISTORY_KEYS, History, Model, OptimizerFactory, TrainState, new_history
from pianolstm.tokens import TokenCorpus
from pianolstm.vocabulary import OTHER, Corpus
from pianolstm.windows import WindowBatch, WindowDataset

HIDDEN_SHARE = 0.5
"""Share of the chords begun once that an epoch of a closed vocabulary treats as unknown.

A new piece begins unknown chords about as often as the corpus begins chords that it has just once
(Good 1953); hiding them teaches the network when to expect one. Half, so that they are learned too.
"""

MOST_FIRST = 16
"""Training pieces, at most, whose loss is taken before any step."""

AVERAGED = 0.99
"""Share of the running average of the parameters that a step keeps.

The average is what is validated, kept and used (Polyak and Juditsky 1992): single steps of Adam
throw the loss of held-out music up and down, by 0.2 nats a frame on the chorales.
"""


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


class _Compiling:
    """Adds up the seconds that JAX compiles in this process."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event: str, duration_secs: float, **kwargs: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.seconds += duration_secs


_compiling = _Compiling()


@dataclass(frozen=True)
class Settings:
    """How to train; none of it is part of a compiled program. `deadline` is a monotonic time."""

    batch_size: int
    optimizer: OptimizerFactory
    learning_rate: Callable[[int], float]
    clip_norm: float
    first_epoch: int
    last_epoch: int
    n_iter_no_change: int | None
    deadline: float | None
    seed: int
    augment: int = 0
    checkpoint_minutes: float | None = None


Moving: TypeAlias = tuple[Array, Array, optax.OptState | None]
"""Arrays of a `TrainState`: parameters, their average, moments."""


@dataclass(frozen=True)
class Progress:
    """All that training has come to; a checkpoint holds it beside the best model so far.

    Attributes
    ----------
    state, best : TrainState
        Where it is, and where the loss on the pieces held out was lowest.
    history : History
    best_epoch, best_loss : float
        The epoch of `best`, and its loss.
    step : int
        Steps of the epoch in progress that are done.
    totals : ndarray
        Their sums of loss, right guesses and weights.
    """

    state: TrainState
    best: TrainState
    history: History = field(default_factory=new_history)
    best_epoch: float = 0
    best_loss: float = np.inf
    step: int = 0
    totals: np.ndarray = field(default_factory=lambda: np.zeros(3))  # float64 (3,)

    def moved(self, move: Callable[[Moving], Moving]) -> Progress:
        """The same with all arrays on other devices."""

        def of(state: TrainState) -> TrainState:
            params, average, moments = move((state.params, state.average, state.opt_state))
            return replace(state, params=params, average=average, opt_state=moments)

        state = of(self.state)
        best = state if self.best is self.state else of(self.best)
        return replace(self, state=state, best=best)


Call: TypeAlias = Callable[..., list[bool | None]]
"""Calls all callbacks' method of this name, with further arguments; gives what they return."""


class LossNotFiniteError(PianoLSTMError):
    """The loss became infinite or NaN: training can't go on."""


class Trainer:
    """Trains one network on one corpus.

    Parameters
    ----------
    model : Model
        What is not trained of it is used: vocabulary, and what validation counts beside.
    config : NetworkConfig
        Its network, as it is trained.
    progress : Progress
        Where to start from.
    train : TokenCorpus
        Training pieces.
    held_out : TokenCorpus or None
        Validation pieces.
    settings : Settings
    save : callable, default=None
        Called with the progress after each epoch, and every `checkpoint_minutes` within one.

    Attributes
    ----------
    progress : Progress
        What training has come to, at any moment: it is replaced as a whole.
    """

    def __init__(
        self,
        model: Model,
        config: NetworkConfig,
        progress: Progress,
        train: TokenCorpus,
        held_out: TokenCorpus | None,
        settings: Settings,
        save: Callable[[Progress], None] | None = None,
    ) -> None:
        self.model, self.config, self.settings, self.save = model, config, settings, save
        self.vocabulary = on_all(model.vocabulary)
        self.progress = progress.moved(on_all)
        self.corpus = corpus = model.corpus(train)
        known = model.tokenizer.vocabulary_
        self.held_out = None if held_out is None else Corpus.of(known, held_out, config.clock)
        # The Bi-LSTM reads a window for each target: an eighth of a window apart.
        self.target_stride = max(1, config.window_size // 8)
        self.dataset = WindowDataset(
            corpus.tokens,
            window_size=config.window_size,
            stride=None if config.is_causal else self.target_stride,
            target="sequence" if config.is_causal else "next",
            end=corpus.end,
            timing=corpus.timing if config.clock == "changes" else None,
        )
        self.recalled: list[Recalled] | None = None
        if config.recall:
            n_pieces = len(corpus.tokens)
            self.recalled = [Recalled.along(corpus, i, spell=config.spell) for i in range(n_pieces)]
        self.begun_once = corpus.begun_once()
        self.transpositions = Transpositions(corpus, settings.augment)
        self.validation_seconds = 0.0
        # Typical cost of a training frame outside the vocabulary, beside being one.
        self.unknown_cost = self._unknown_cost()

    def has_learned(self, before: TrainState) -> bool:
        """Whether there is something to keep that was not there before."""
        state = self.progress.state
        return state.epoch > before.epoch or (state.epoch == 0 and state.n_steps > before.n_steps)

    def best(self, *, is_interrupted: bool = False) -> Progress:
        """What to keep of what training has come to, on one device."""
        progress = self.progress
        best = progress.best
        if is_interrupted and progress.state.epoch == 0:
            # No epoch was finished: what was learned so far beats nothing.
            best = progress.state
        return replace(progress, best=replace(best, epoch=progress.state.epoch)).moved(on_one)

    def train(self, show: Callable[[Progress], None], call: Call) -> None:
        """Train until a limit, early stopping or a callback; `progress` has the outcome.

        Parameters
        ----------
        show : callable
            Called with the progress before callbacks are.
        call : Call

        Raises
        ------
        LossNotFiniteError
        """
        began, settings = time.monotonic(), self.settings
        self._saved = began
        if not self.progress.history["epoch"]:
            self.progress = self._recorded(0, self._first_loss(), float("nan"), began)
        elif self.held_out is not None and np.isinf(self.progress.best_loss):
            # It goes on from another fit, whose losses may be of other pieces.
            loss, _ = self.validate()
            self.progress = replace(self.progress, best_loss=loss)
        show(self.progress)
        call("on_fit_begin")
        while self.progress.state.epoch < settings.last_epoch and not self._is_stalled():
            epoch_began = time.monotonic()
            loss, accuracy, share = self._epoch(call)
            if share == 0:  # no time for a single step
                break
            epoch = self.progress.state.epoch + (1 if share == 1 else round(share, 3))
            recorded = self._recorded(epoch, loss, accuracy, epoch_began)
            state = replace(recorded.state, epoch=recorded.state.epoch + 1)
            best = state if recorded.best_epoch == epoch else recorded.best
            self.progress = replace(recorded, state=state, best=best, step=0, totals=np.zeros(3))
            self._checkpoint()
            show(self.progress)
            if any(call("on_epoch_end")) or share < 1:
                break

    def _is_stalled(self) -> bool:
        """Whether too many epochs have gone by without a gain."""
        settings, progress = self.settings, self.progress
        last_gain = max(progress.best_epoch, settings.first_epoch)
        patience = settings.n_iter_no_change
        return patience is not None and progress.state.epoch - last_gain >= patience

    def _checkpoint(self) -> None:
        if self.save is not None and is_first_process():
            self.save(self.progress)
            self._saved = time.monotonic()

    def _epoch(self, call: Call) -> tuple[float, float, float]:
        """One pass over the corpus: loss, accuracy, and the share of it that time allowed."""
        settings, first = self.settings, self.progress
        state, totals = first.state, first.totals
        deadline, minutes = settings.deadline, settings.checkpoint_minutes
        rng = np.random.default_rng((settings.seed, state.epoch))
        reader = self._reader(rng)
        n_steps = self.dataset.n_batches(settings.batch_size)
        pending: tuple[Array, int] | None = None
        share = 1.0
        batches = self.dataset.batches(settings.batch_size, random_state=rng)
        # Steps that a checkpoint has are drawn again, so that the others are as they would be.
        for step, batch in itertools.islice(enumerate(batches), first.step, None):
            if deadline is not None and agreed(
                time.monotonic() + self.validation_seconds > deadline
            ):
                share = min(step / n_steps, 0.999)
                break
            params, average, opt_state, sums = train_step(
                self.config,
                settings.optimizer,
                state.params,
                state.average,
                state.opt_state,
                self.vocabulary,
                np.int32(self.corpus.n_tokens),
                self._read(reader, batch),
                StepSettings(
                    np.int32(state.n_steps),
                    np.array([settings.seed, state.epoch, step], np.uint32),
                    np.float32(settings.learning_rate(state.n_steps)),
                    np.float32(settings.clip_norm),
                ),
            )
            state = replace(
                state,
                params=params,
                average=average,
                opt_state=opt_state,
                n_steps=state.n_steps + 1,
            )
            # What a checkpoint would go on from changes when one is written alone.
            self.progress = replace(self.progress, state=state)
            # The sums of the step before are read while this one runs.
            if pending is not None:
                totals = totals + self._read_sums(*pending, n_steps, call)
            pending = sums, step
            if minutes is not None and agreed(time.monotonic() - self._saved > 60 * minutes):
                totals = totals + self._read_sums(*pending, n_steps, call)
                pending = None
                self.progress = replace(self.progress, step=step + 1, totals=totals)
                self._checkpoint()
        if pending is not None:
            totals = totals + self._read_sums(*pending, n_steps, call)
        loss, n_right, weight = totals
        return loss / max(weight, 1), n_right / max(weight, 1), share

    def _reader(self, rng: np.random.Generator) -> Reader:
        """Reads the corpus with some of the chords begun once hidden, and each piece transposed."""
        hidden = self.begun_once[rng.random(len(self.begun_once)) < HIDDEN_SHARE]
        transposed = self.transpositions.draw(rng)
        return Reader(self.corpus, hidden, transposed, spell=self.config.spell)

    def _read(self, reader: Reader, batch: WindowBatch) -> TrainingBatch:
        """A batch as the network takes it, shared out among the devices."""
        before = batch.inputs[:, -batch.targets.shape[1] :]
        rows, barred, symbols = reader.targets(batch.targets, before, batch.pieces)
        is_target = batch.mask & (rows >= 0)
        rows, weights = np.where(is_target, rows, 0), is_target.astype(np.float32)
        ids, bits = reader.inputs(batch.inputs, batch.pieces)
        recalled = None
        if self.recalled is not None:
            its = [
                Recalled(*(column[first : first + is_target.shape[1]] for column in piece))
                for piece, first in zip(
                    (self.recalled[i] for i in batch.pieces), batch.first, strict=True
                )
            ]
            missing = [is_target.shape[1] - len(part.classes) for part in its]
            columns = (
                np.stack([np.pad(a, (0, n)) for a, n in zip(column, missing, strict=True)])
                for column in zip(*its, strict=True)
            )
            recalled = reader.recalled(Recalled(*columns), batch.targets, batch.pieces)
        return shared_out(
            TrainingBatch(ids, bits, rows, barred, symbols, weights, batch.timing, recalled)
        )

    def _read_sums(
        self,
        sums: Array,  # (5,)
        step: int,
        n_steps: int,
        call: Call,
    ) -> np.ndarray:  # float64 (3,)
        """Sums of loss, right guesses and weights of a step."""
        values = np.asarray(sums, np.float64)
        loss, n_right, n_frames, n_unknown, n_targets = values.tolist()
        loss += n_unknown * self.unknown_cost
        if not np.isfinite(loss):
            epoch = self.progress.state.epoch + 1
            raise LossNotFiniteError(
                f"The loss became {loss} in step {step + 1} of epoch {epoch}; training "
                f"stopped, and the model is that of epoch {self.progress.best_epoch:g}. Try "
                "a smaller learning_rate."
            )
        call("on_batch_end", step, n_steps, loss / max(n_frames, 1))
        return np.array([loss, n_right * n_frames / max(n_targets, 1), n_frames])

    def _recorded(self, epoch: float, loss: float, accuracy: float, began: float) -> Progress:
        """Validate; the progress with a row more in its history."""
        progress = self.progress
        val_loss = float("nan")
        if self.held_out is not None:
            val_loss, accuracy = self.validate()
        row = (
            epoch,
            loss,
            val_loss,
            accuracy,
            time.monotonic() - began,
            self.settings.learning_rate(max(0, progress.state.n_steps - 1)),
        )
        history = {
            key: [*progress.history[key], float(value)]
            for key, value in zip(HISTORY_KEYS, row, strict=True)
        }
        # Without pieces held out the last epoch is the best that is known.
        score = val_loss if self.held_out is not None else -epoch
        if score < progress.best_loss:
            return replace(progress, history=history, best_loss=score, best_epoch=epoch)
        return replace(progress, history=history)

    def validate(self) -> tuple[float, float]:
        """Nats per frame and accuracy on the pieces held out."""
        began, compiled = time.monotonic(), _compiling.seconds
        assert self.held_out is not None
        found = self._evaluate(self.held_out)
        # What the next one will take: programs are compiled once.
        compiling = _compiling.seconds - compiled
        self.validation_seconds = max(0.0, time.monotonic() - began - compiling)
        return found

    def _first_loss(self) -> float:
        """Nats per frame of some training pieces before any step."""
        # As many as are held out need the same programs.
        n = 1 if self.held_out is None else min(len(self.held_out.tokens), MOST_FIRST)
        return self._evaluate(self.corpus.take(n))[0]

    def _evaluate(self, corpus: Corpus) -> tuple[float, float]:
        """Nats per frame and accuracy of the running average."""
        pieces = evaluate(
            self.config,
            jax.device_put(
                networks.unflatten(self.config, np.asarray(self.progress.state.average))
            ),
            on_one(self.vocabulary),
            corpus,
            self.model.bernoulli,
            stride=self.target_stride,
        )
        log_p = np.concatenate([p.log_p for p in pieces])
        right = np.concatenate([p.right for p in pieces])
        return float(-log_p.mean()), float(right.mean())

    def _unknown_cost(self) -> float:
        """Mean nats of a hidden training chord's pitches, so that losses and scores compare."""
        corpus = self.corpus
        if self.config.spell:
            return 0.0
        unknown = np.flatnonzero((corpus.rows < 0) & (corpus.counts() > 0))
        ids = unknown if len(unknown) else self.begun_once
        if len(ids) == 0:
            return 0.0
        chords = corpus.chords[ids]
        return float(-self.model.bernoulli.log_likelihood(chords, np.zeros_like(chords)).mean())


class TrainingBatch(NamedTuple):
    """Windows of training pieces, see `Reader`; n_targets is time, and 1 for the Bi-LSTM."""

    ids: Any  # int32 (batch, time)
    bits: Any  # uint32 (batch, time, 8)
    rows: Any  # int32 (batch, n_targets)
    barred: Any  # int32 (batch, n_targets)
    symbols: Any  # int16 (batch, n_targets, length)
    weights: Any  # (batch, n_targets): 0 leaves a frame out
    timing: Any = None  # int32 (batch, time + 1, 2): see `Corpus.timing`
    recalled: RecalledBatch | None = None  # before each target


class StepSettings(NamedTuple):
    """What one step differs by from others."""

    n_before: ArrayLike  # int32 (): steps that came before
    number: Array | np.ndarray  # uint32 (3,): seed, epoch, step, which dropout masks follow from
    learning_rate: ArrayLike  # ()
    clip_norm: ArrayLike  # ()


def _sums(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8)
    n_tokens: Array,  # int32 ()
    batch: TrainingBatch,
    key: Array | None,  # key (batch,)
) -> tuple[Array, Array]:  # (), (5,)
    """Sum of the loss; and sums of loss, right guesses, frames, unknown chords, targets."""
    network = bind(config, params)
    masks = network.masks(key)
    ids, bits, rows, barred, symbols, weights, timing, recalled = batch
    targets = rows, barred, symbols, weights
    carry = network.initial_carry(ids.shape[0])
    before = None if timing is None else timing[:, :-1]
    (h, heard), _ = network.read(ids, bits, carry, masks, before)
    n_targets = h.shape[1]
    if timing is not None:
        timing = timing[:, -n_targets:]
    dense = network.dense(h)
    hidden = network.timed(dense, timing)
    features = network.features(hidden, masks)

    def rows_of(tree: Tree) -> Tree:  # (batch, n_targets, …) -> (batch * n_targets, …)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)

    columns = features, hidden, bits[:, -n_targets:], targets, recalled, heard
    features, hidden, before, targets, recalled, heard = rows_of(columns)
    rows, barred, symbols, weights = targets
    if heard is not None:
        symbols = jnp.where(weights[:, None] > 0, symbols, SKIPPED)
        keep = network.kept_notes(masks, n_targets)
        found = log_spelled(
            network,
            heard,
            features,
            barred,
            symbols,
            before,
            keep,
            recalled=None if recalled is None else recalled.bits,
        )
        log_p, n_right = found.log_p, jnp.sum(jnp.where(found.right, weights, 0))
        if recalled is not None:
            gate = gate_of(network, hidden, recalled, found.log_first)
            log_p = log_mixed(gate, recalled.is_next, log_p)
        loss = -jnp.sum(weights * log_p)
    else:
        output = network.output(vocabulary, n_tokens, goes_on=False)
        is_next, gate = jnp.zeros_like(rows, bool), jnp.full_like(weights, NEVER)
        if recalled is not None:
            is_next, gate = recalled.is_next, gate_of(network, hidden, recalled, None)
        target_rows = TargetRows(rows, barred, gate, is_next)
        loss, n_right = softmax_loss(features, output, target_rows, weights)
    weight = n_frames = weights.sum()
    if timing is not None:
        durations, holds = timing[..., 0].reshape(-1), rows_of(network.holds(h))
        log_p = log_duration(holds, durations)
        if recalled is not None:
            gate = duration_gate_of(network, rows_of(dense), recalled, holds)
            log_p = log_mixed(gate, recalled.durations == durations, log_p)
        # Nothing lasts before the first chord of a piece.
        loss -= jnp.sum(jnp.where(durations > 0, weights * log_p, 0))
        n_frames = jnp.sum(weights * durations.astype(weights.dtype))
    n_unknown = jnp.sum(jnp.where(rows == config.n_rows + OTHER, weights, 0))
    return loss, jnp.stack([loss, n_right, n_frames, n_unknown, weight])


def _gradients(
    config: NetworkConfig,
    params: Array,  # (n_parameters,)
    *arrays: Array | TrainingBatch,  # as `_sums` takes them
) -> tuple[Array, Array]:  # (5,), (n_parameters,)
    """Sums over a batch, as in `_sums`, and the gradients of its loss."""
    loss, tree = partial(_sums, config), networks.unflatten(config, params)
    (_, sums), gradients = jax.value_and_grad(loss, has_aux=True)(tree, *arrays)
    return sums, networks.flatten(gradients, jnp)


@program(n_static=2, weight=LARGE_PROGRAM)
def train_step(
    config: NetworkConfig,
    factory: OptimizerFactory,
    params: Array,  # (n_parameters,)
    average: Array,  # (n_parameters,)
    opt_state: optax.OptState,
    vocabulary: Array,  # uint32 (n_rows, 8)
    n_tokens: Array,  # int32 ()
    batch: TrainingBatch,
    step: StepSettings,
) -> tuple[Array, Array, optax.OptState, Array]:  # (n_parameters,), (n_parameters,), …, (5,)
    """One step on one batch: parameters, their average, moments, sums as in `_sums`."""
    seed, *numbers = step.number
    key = reduce(jax.random.fold_in, numbers, seed_key(seed))
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(batch.ids)))
    sums, gradients = over_devices(
        partial(_gradients, config), (params, vocabulary, n_tokens), (batch, keys)
    )
    weight = jnp.maximum(sums[4], 1)  # a batch may have no target
    steps = optimizer(config, factory, step.learning_rate, step.clip_norm)
    with jax.numpy_dtype_promotion("standard"):  # which optax's optimisers need
        updates, opt_state = steps.update(gradients / weight, opt_state, params)
    params = jnp.add(params, updates)  # pyright: ignore[reportArgumentType]
    new = jnp.maximum(1 - AVERAGED, 9 / (11 + step.n_before))  # the first steps count less
    return params, average + new * (params - average), opt_state, sums


def with_moments(state: TrainState, config: NetworkConfig, factory: OptimizerFactory) -> TrainState:
    """The state, ready for a step."""
    if state.opt_state is not None and state.optimizer is factory:
        return state
    moments = _first_moments(config, factory, state.params)
    return replace(state, opt_state=moments, optimizer=factory)


@program(n_static=2)
def _first_moments(
    config: NetworkConfig,
    factory: OptimizerFactory,
    params: Array,  # (n_parameters,)
) -> optax.OptState:
    return optimizer(config, factory, 0.0, 0.0).init(params)


def optimizer(
    config: NetworkConfig,
    factory: OptimizerFactory,
    learning_rate: ArrayLike,  # ()
    clip_norm: ArrayLike,  # ()
) -> optax.GradientTransformation:
    """An optimiser of the vector of parameters, after clipping by the global norm.

    Both numbers may be traced. One that is not of `OPTIMIZERS` may treat kernels and biases each in
    a way of its own: it sees the tree.
    """
    made = factory(learning_rate)
    if factory not in OPTIMIZERS.values():
        made = _of_tree(config, made)
    return optax.chain(optax.clip_by_global_norm(clip_norm), made)  # pyright: ignore[reportArgumentType]


def _of_tree(
    config: NetworkConfig, of_tree: optax.GradientTransformation
) -> optax.GradientTransformation:
    """An optimiser of trees, as one of vectors."""
    tree = partial(networks.unflatten, config)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = of_tree.update(tree(updates), state, tree(params))
        return networks.flatten(updates, jnp), state

    return optax.GradientTransformation(lambda params: of_tree.init(tree(params)), update)
