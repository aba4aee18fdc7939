"""The estimator: rolls in, a model that writes and scores music."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from pianolstm import writing
from pianolstm._decoding.batches import Decoder
from pianolstm._jax.host import as_host, guest
from pianolstm._learning.checkpoints import Checkpoint
from pianolstm._learning.devices import agreed, is_first_process
from pianolstm._learning.training import (
    LossNotFiniteError,
    OptimizerFactory,
    Progress,
    Settings,
    Trainer,
    with_moments,
)
from pianolstm._model import networks
from pianolstm._model.config import NetworkConfig
from pianolstm._model.files import read_model, write_model
from pianolstm._model.likelihood import evaluate, probabilities
from pianolstm.callbacks import Callback, ProgressBar
from pianolstm.checks import RandomState, as_seed, plain, plain_params
from pianolstm.constraints import Constraint
from pianolstm.encoder import read_files
from pianolstm.exceptions import InvalidInputError, ModelFileError
from pianolstm.hyperparameters import check_hyperparameters, optimizer_of, rate_at
from pianolstm.infilling import infill
from pianolstm.model import Model
from pianolstm.rolls import Grid, PianoRoll
from pianolstm.streams import Stream, begin_stream, resume_stream
from pianolstm.tokens import ChordTokenizer, Pieces, TokenCorpus, as_corpus
from pianolstm.vocabulary import Clock, Corpus
from pianolstm.windows import split_pieces

MAX_TOKENS = 253
"""Chords that `predict_proba` of a network which spells tells apart by default."""

TRANSPOSITION = 6
"""Semitones that ``augment="auto"`` moves pieces by, up or down: to all keys."""

SCHEDULE_STEPS = (*range(64), *(2**k for k in range(6, 21)))
"""Steps at which schedules are compared, to tell one fit from another."""


class SequenceGenerator(BaseEstimator):
    """Learn from piano rolls, write new music that continues a prime, score any music.

    Parameters
    ----------
    arch : {"lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked"}, default="lstm"
        The network, after figure 3 of the study (see References): one LSTM; a bidirectional one
        over the past window; two LSTMs; a causal convolution and pooling before one LSTM, or
        before two.
    tokenizer : ChordTokenizer or FrozenEstimator, default=None
        A clone is fitted on the training pieces; a ``FrozenEstimator`` around a fitted tokenizer
        is used as it is. None is ``ChordTokenizer(max_tokens=253)``, whose chords are those that
        `predict_proba` tells apart, and with ``spell=False`` one without a limit.
    window_size : int, default=32
        Steps that training looks back, see `clock`, and all that the Bi-LSTM reads; even for the
        hybrids, which pool by 2. Shorter windows make for more steps of the optimiser in the same
        time, longer ones tell more of what music remembers.
    units : int, default=256
        Width of each LSTM layer.
    embedding : int, default=128
        Width of the chords' vectors, in and out.
    spell : bool, default=True
        Whether chords are written note by note, any chord whatever. False gives the study's closed
        vocabulary, and compiles in half the time.
    recall : bool, default=True
        Whether what followed before is recalled where the last steps come again in a piece: it
        then has a share of the probability, a gate that is learned with the network, which has the
        rest. After `fit` it may be set to False, and back.
    clock : {"changes", "frames"}, default="changes"
        What a step of the network is. With ``"changes"`` it is a chord that begins and all the
        frames that it lasts: the network predicts how long, frame by frame, and then the next
        chord; on the grid of beats it knows where in four quarter notes that is, counted from the
        first frame. Likelihoods, constraints and streams are by frame all the same. Music on a fine
        grid then costs what its changes cost. With ``"frames"``, as in the study, a step is one
        frame.
    dropout : float, default=0.1
        Share of features set to zero in training, with one mask a window.
    optimizer : {"adam", "adamw", "rmsprop", "sgd"} or callable, default="adam"
        Optax's optimiser of that name. A callable, which must be one that can be pickled, takes the
        learning rate and returns an ``optax.GradientTransformation``, e.g. ``optax.lion`` or
        ``functools.partial(optax.adamw, weight_decay=1e-3)``.
    learning_rate : float or callable, default=0.004
        Step size. A schedule takes the number of steps before, 0 at first, and returns a float,
        as those of Optax do, e.g. ``optax.cosine_decay_schedule(0.004, decay_steps=5000)``.
    clip_norm : float, default=1.0
        Longest gradient; a longer one is scaled down to it.
    batch_size : int or "auto", default="auto"
        Windows in a step. "auto" is 16, and 64 for the Bi-LSTM, whose windows have one target each.
    augment : int or "auto", default="auto"
        Most semitones by which a training piece is transposed, up or down, anew in each epoch;
        within the range of pitches of the training pieces. 0 leaves them as they are. "auto" is 6,
        and 0 with ``spell=False``, where a chord that this takes out of the vocabulary is read, but
        is no target.
    max_epochs : int, default=100
        Passes over the training pieces at the most.
    early_stopping : bool, default=True
        Hold pieces out (unless ``X_val`` is given), stop when they no longer gain, and restore the
        parameters of the best epoch.
    validation_fraction : float, default=0.1
        Share of the pieces held out; at least one. One piece alone is split in time.
    n_iter_no_change : int, default=10
        Epochs without a gain after which training stops.
    warm_start : bool, default=False
        Whether `fit` goes on from what an earlier call has learned, with the chords of new pieces
        added to the vocabulary, instead of beginning anew.
    checkpoint_dir : path, default=None
        Folder in which `fit` keeps all that it has come to. Killed and called again with the same
        settings and pieces, it goes on from there and ends as if nothing had happened, bit by bit
        (on the same versions and device). Once it has ended, the next call begins anew.
        ``SequenceGenerator.load(checkpoint_dir / "checkpoint.safetensors")`` gives the best model
        so far.
    checkpoint_minutes : float, default=None
        Minutes from one checkpoint to the next within an epoch; None keeps one an epoch.
    time_budget : float, default=None
        Seconds that `fit` may take; it is used up to the last validation. None sets no limit.
    callbacks : list of pianolstm.callbacks.Callback, default=()
        Called as training goes on.
    verbose : int, default=0
        1 shows a progress bar for each epoch.
    random_state : int, Generator or None, default=None
        Draws the pieces held out, the initial parameters, the order of the windows, the chords that
        are hidden, transpositions, and dropout.

    Attributes
    ----------
    tokenizer_ : ChordTokenizer
        Fitted on the training pieces.
    history_ : dict of str to list
        A row for each epoch, 0 being before training: ``epoch`` (a fraction where the time budget
        cut one short), ``loss`` and ``val_loss`` (nats per frame; NaN without pieces held out;
        the first ``loss`` is that of a few training pieces), ``accuracy`` (share of the frames held
        out, or else of the training frames, that temperature 0 would have written: each draw was
        the likeliest), ``seconds`` (of that epoch), ``learning_rate`` (of its last step).
    best_epoch_ : float
        The epoch whose parameters (a running average over the last hundred steps) are kept.
    n_parameters_ : int
        How many numbers the network has learned.
    fs_, grid_ : float, str
        Grid of the rolls it was fitted on.
    held_out_ : list of int
        Indices in X of the pieces held out.

    See Also
    --------
    ChordTokenizer, NoteDistributionScorer

    Notes
    -----
    Where the published code errs, this does otherwise. A chord is read as the sum of its pitches'
    vectors, not as its number. The Bi-LSTM reads past frames alone; published,
    its training windows held the answer. Music is drawn with a temperature; the most likely chord
    freezes on one chord. The state is carried from frame to frame, not computed anew from a window.
    The convolution sees past frames alone.

    References
    ----------
    Lorinczi and Brailovsky (2021), Music Generation Using Deep Learning.

    Examples
    --------
    >>> import pianolstm as pl
    >>> rolls = pl.datasets.load_chorales("train")[:20]
    >>> model = pl.SequenceGenerator(
    ...     units=32, embedding=16, window_size=64, max_epochs=2, random_state=0
    ... ).fit(rolls)
    >>> roll = model.generate(32, prime=rolls[0][:16], temperature=0.9, random_state=0)
    >>> len(roll), roll.grid
    (32, 'beats')
    >>> model.history_["val_loss"][-1] < model.history_["val_loss"][0]
    True
    """

    tokenizer_: ChordTokenizer
    history_: dict[str, list[float]]
    best_epoch_: float
    n_parameters_: int
    fs_: float
    grid_: Grid
    held_out_: list[int]
    _model: Model

    def __init__(
        self,
        *,
        arch: Literal["lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked"] = "lstm",
        tokenizer: ChordTokenizer | FrozenEstimator | None = None,
        window_size: int = 32,
        units: int = 256,
        embedding: int = 128,
        spell: bool = True,
        recall: bool = True,
        clock: Clock = "changes",
        dropout: float = 0.1,
        optimizer: str | OptimizerFactory = "adam",
        learning_rate: float | Callable[[int], float] = 0.004,
        clip_norm: float = 1.0,
        batch_size: int | Literal["auto"] = "auto",
        augment: int | Literal["auto"] = "auto",
        max_epochs: int = 100,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        checkpoint_dir: str | PathLike[str] | None = None,
        checkpoint_minutes: float | None = None,
        time_budget: float | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: int = 0,
        random_state: RandomState = None,
    ) -> None:
        self.arch = arch
        self.tokenizer = tokenizer
        self.window_size = window_size
        self.units = units
        self.embedding = embedding
        self.spell = spell
        self.recall = recall
        self.clock = clock
        self.dropout = dropout
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm
        self.batch_size = batch_size
        self.augment = augment
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_minutes = checkpoint_minutes
        self.time_budget = time_budget
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    @guest
    def fit(self, X: Pieces, y: Any = None, *, X_val: Pieces | None = None) -> SequenceGenerator:
        """Learn from rolls, from the start (unless ``warm_start``).

        Pieces are held out before anything is learned from the others, the vocabulary included.
        Ctrl-C ends the training with a warning and keeps the best model so far.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.
        y : ignored
        X_val : list of PianoRoll or array-like, or TokenStore, default=None
            Pieces to validate on, in place of a share of X.

        Returns
        -------
        SequenceGenerator
            Itself.

        Raises
        ------
        InvalidInputError
            If X is no list of pieces, or a parameter is out of range, or a piece alone is too
            short to be split, or the checkpoint is that of another fit.
        PianoLSTMError
            If the loss is no longer finite; the best model before that is kept.
        """
        began = time.monotonic()

        def prepare() -> Task:
            """All that may fail before anything is learned."""
            check_hyperparameters(self)
            checkpoint = self._checkpoint()
            corpus = _not_empty(as_corpus(X))
            goes_on = self.warm_start and self._is_fitted()
            if goes_on:
                _check_grid(corpus, self._model.fs, self._model.grid, "the model goes on from")
            if checkpoint is not None and checkpoint.seed is not None and not self._has_int_seed():
                seed = checkpoint.seed
            else:
                seed = agreed(as_seed(self.random_state))
            train, held_out, numbers = self._split(corpus, X_val, seed)
            if goes_on:
                model = self._extended(train).with_counts_of(train)
            else:
                model = self._untrained(train, seed)
            model = replace(model, held_out=tuple(numbers))
            return Task(model, train, held_out, seed, plain(self.max_epochs), checkpoint)

        self._learn(prepare, began)
        return self

    @guest
    def partial_fit(self, X: Pieces, y: Any = None) -> SequenceGenerator:
        """Go on learning: one more epoch, on these pieces alone.

        The first call makes the vocabulary; later ones add the chords of new pieces to it. What is
        learned of the others stays. Nothing is held out, and no checkpoint is kept.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.
        y : ignored

        Returns
        -------
        SequenceGenerator
            Itself.
        """
        began = time.monotonic()

        def prepare() -> Task:
            """All that may fail before anything is learned."""
            check_hyperparameters(self)
            if self._is_fitted():
                corpus = _on_grid_of(self._model, X)
                model = self._extended(corpus).with_counts_of(corpus)
            else:
                corpus = _not_empty(as_corpus(X))
                model = self._untrained(corpus, agreed(as_seed(self.random_state)))
            return Task(model, corpus, None, model.seed, 1, None)

        self._learn(prepare, began)
        return self

    @guest
    def generate(
        self,
        n_frames: int,
        *,
        n_pieces: int | None = None,
        prime: Any = None,
        temperature: float | Sequence[float] = 1.0,
        top_k: int | Sequence[int | None] | None = None,
        top_p: float | Sequence[float | None] | None = 0.98,
        repetition_penalty: float | Sequence[float] = 1.0,
        constraints: Constraint | Sequence[Constraint | None] | None = None,
        n_candidates: int = 1,
        return_prime: bool = False,
        deadline: float | None = None,
        random_state: RandomState | Sequence[RandomState] = None,
    ) -> Any:
        """Write music.

        The model has learned where pieces end. Where it ends one, the next frame begins another,
        so that there is music for as long as was asked for. No chord is held for longer than the
        longest in the training pieces that another follows, as long as another is allowed: beyond
        that it has learned nothing.

        A piece is the same written alone, among others, and in a `stream`, if seed and settings are
        the same. Ctrl-C acts within a tenth of a second or so. Many threads may call at once.

        Parameters
        ----------
        n_frames : int
            Frames to write; each roll has exactly as many.
        n_pieces : int, default=None
            How many pieces to write side by side; the result is then a list. With a number given,
            `prime`, `random_state` and each of the settings may be a list with one entry a piece.
        prime : PianoRoll or array-like of shape (n_frames, 128), default=None
            Music to continue, of any length, on the grid that the model was fitted on; a path, a
            `PrettyMIDI` or a ``mido.MidiFile`` is read on it. None begins a piece.
        temperature : float, default=1.0
            The logits are divided by it: below 1 plays safer, above 1 wilder; 0 takes the most
            likely chord each time. This, `top_k` and `top_p` are of the network's draws; what is
            recalled comes with its own share (at 0 where that is above one half).
        top_k : int, default=None
            Draw among so many most likely ones alone (and those as likely as the last of them):
            pitches, for each note of a chord; chords with ``spell=False``.
        top_p : float, default=0.98
            Draw among the fewest most likely ones alone that have this share of the probability,
            after `temperature` (Holtzman et al. 2020); with `top_k`, what both leave. With less,
            music repeats itself more; None draws among all.
        repetition_penalty : float, default=1.0
            A chord that was begun in the last 8 seconds (16 quarter notes where the grid is of
            beats) is so many times less likely to be begun again, for each time that it was. A
            chord held on is no repetition. At temperature 0 it acts with ``spell=False`` alone.
        constraints : pianolstm.constraints.Constraint, default=None
            What all chords written have to keep.
        n_candidates : int, default=1
            Write so many and return the likeliest under the model. The first is what
            ``n_candidates=1`` gives.
        return_prime : bool, default=False
            Whether the prime stands before what was written, as one roll.
        deadline : float, default=None
            Seconds after which what is ready is returned, shorter than asked for. A block of frames
            is always finished.
        random_state : int, Generator or None, default=None
            The same int gives the same music; None is different each time. Of several pieces drawn
            from one int, the first is that of a single call.

        Returns
        -------
        PianoRoll, or list of PianoRoll if `n_pieces` is given
            The music after the prime, velocities 64. A note that sounds on from the prime is
            tied: ``PianoRoll.concatenate([prime, roll])`` rejoins it.

        Raises
        ------
        NotFittedError
            If the model has not been fitted.
        InvalidInputError
            If a parameter is out of range, the prime is on another grid, or the constraints leave
            no chord; where that shows only in writing, the message names the frame.

        Notes
        -----
        The Bi-LSTM reads its window again for each step, which costs as much as `window_size`
        steps of another network.

        Examples
        --------
        >>> import pianolstm as pl
        >>> rolls = pl.datasets.load_chorales("train")[:20]
        >>> model = pl.SequenceGenerator(
        ...     units=32, embedding=16, window_size=64, max_epochs=1, random_state=0
        ... ).fit(rolls)
        >>> three = model.generate(
        ...     16, n_pieces=3, temperature=[0.5, 1.0, 1.5], random_state=[1, 2, 3],
        ...     constraints=pl.constraints.Scale("C major"),
        ... )
        >>> three[1] == model.generate(
        ...     16, random_state=2, constraints=pl.constraints.Scale("C major")
        ... )
        True
        """
        return writing.generate(
            self._decoder(),
            n_frames,
            n_pieces=n_pieces,
            prime=prime,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            constraints=constraints,
            n_candidates=n_candidates,
            return_prime=return_prime,
            deadline=deadline,
            random_state=random_state,
            verbose=bool(self.verbose),
        )

    @guest
    def stream(
        self,
        *,
        prime: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = 0.98,
        repetition_penalty: float = 1.0,
        constraints: Constraint | None = None,
        random_state: RandomState = None,
        state: bytes | None = None,
    ) -> Stream:
        """Write music frame by frame, for as long as it is asked for more.

        Parameters
        ----------
        prime, temperature, top_k, top_p, repetition_penalty, constraints, random_state
            As for `generate`, whose music the stream's is, frame for frame.
        state : bytes, default=None
            The `Stream.state` of another stream of this model, here or in another process: this
            one goes on where that one was, with its settings. Nothing else may be given then.

        Returns
        -------
        Stream
            An iterator of frames.

        Raises
        ------
        NotFittedError
            If the model has not been fitted.
        InvalidInputError
            As for `generate`.
        ModelFileError
            If the state is not one of this model's.

        Notes
        -----
        All networks but the Bi-LSTM carry their state from step to step. The Bi-LSTM reads its
        window again at each, which costs as much as `window_size` steps of another network.
        """
        decoder = self._decoder()
        if state is not None:
            return resume_stream(decoder, state)
        return begin_stream(
            decoder,
            prime,
            random_state,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            constraints=constraints,
        )

    @guest
    def infill(
        self,
        roll: Any,
        keep: np.ndarray,
        *,
        n_particles: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = 0.98,
        repetition_penalty: float = 1.0,
        constraints: Constraint | None = None,
        random_state: RandomState = None,
    ) -> PianoRoll:
        """Keep some frames or pitches of a roll, and write the rest anew so that all fits together.

        Many versions (particles) are written side by side. Each is weighed by how likely the model
        finds what had to follow, and those that lead nowhere are given up for copies of the others
        (sequential Monte Carlo; Doucet, de Freitas and Gordon 2001). One is drawn by weight.

        Parameters
        ----------
        roll : PianoRoll or array-like of shape (n_frames, 128)
            On the grid that the model was fitted on.
        keep : array-like of bool, shape (n_frames,) or (n_frames, 128)
            True where the roll stays as it is: whole frames, or pitches of a frame, sounding or
            silent.
        n_particles : int, default=64
            Versions; rounded up to a multiple of 8. More fit better and take longer.
        temperature, top_k, top_p, repetition_penalty, constraints, random_state
            As for `generate`; they are for frames that are not kept whole. Constraints of single
            frames begin with the first such frame.

        Returns
        -------
        PianoRoll
            As long as `roll`. What is kept sounds as before, in its velocities, the rest in 64.
            Notes kept in whole frames begin where they began.

        Raises
        ------
        NotFittedError
            If the model has not been fitted.
        InvalidInputError
            If `keep` is of another shape, a parameter is out of range, or no chord that the model
            can write has the pitches kept of a frame.

        Examples
        --------
        >>> import numpy as np, pianolstm as pl
        >>> rolls = pl.datasets.load_chorales("train")[:20]
        >>> model = pl.SequenceGenerator(
        ...     units=32, embedding=16, window_size=64, max_epochs=1, random_state=0
        ... ).fit(rolls)
        >>> keep = np.ones(len(rolls[0]), bool)
        >>> keep[16:24] = False
        >>> whole = model.infill(rolls[0], keep, n_particles=16, random_state=0)
        >>> bool((np.asarray(whole)[keep] == np.asarray(rolls[0])[keep]).all())
        True
        """
        return infill(
            self._decoder(),
            roll,
            keep,
            n_particles=n_particles,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            constraints=constraints,
            random_state=random_state,
            verbose=bool(self.verbose),
        )

    @guest
    def extend(self, X: Pieces) -> SequenceGenerator:
        """Add the pitches and chords of more pieces to what the model knows, without learning.

        With ``spell=False`` a new chord begins as the sum of its pitches' vectors, and as likely as
        the rarest chord beside that. `partial_fit` learns from the pieces too.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.

        Returns
        -------
        SequenceGenerator
            Itself.

        Raises
        ------
        NotFittedError
            If the model has not been fitted.
        InvalidInputError
            If the pieces are on another grid, or the tokenizer is a frozen one.
        """
        check_is_fitted(self)
        if isinstance(self.tokenizer, FrozenEstimator):
            raise InvalidInputError(
                "The tokenizer is frozen, so its vocabulary stays as it is; fit the model with "
                "another to extend it."
            )
        self._hold(self._extended(_on_grid_of(self._model, X)))
        return self

    @guest
    def score(
        self,
        X: Pieces,
        y: Any = None,
        *,
        per: Literal["frame", "note", "second"] = "frame",
        unit: Literal["nats", "bits"] = "nats",
    ) -> float:
        """Mean log-likelihood of music, exact, whatever its chords; all pieces together.

        The state is carried over each whole piece. With ``spell=False``, a chord outside the
        vocabulary costs the probability of such a chord, times that of its pitches as independent
        events with the shares that they have in the training frames. With ``recall=True`` what is
        recalled has its share of the likelihood.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.
        y : ignored
        per : {"frame", "note", "second"}, default="frame"
            What it is the mean of: frames; notes, by their onsets; seconds, or quarter notes where
            the grid is of beats. Models at different `fs` compare per note and per second.
        unit : {"nats", "bits"}, default="nats"
            Logarithms to base e, or to base 2.

        Returns
        -------
        float
            Higher is better; at most 0.

        Raises
        ------
        NotFittedError
            If the model has not been fitted.
        InvalidInputError
            If a piece is empty or on another grid, or there is nothing to take the mean of.
        """
        totals, counts = self._totals(X, per, unit)
        return float(totals.sum() / counts.sum())

    @guest
    def score_samples(
        self,
        X: Pieces,
        *,
        per: Literal["frame", "note", "second"] = "frame",
        unit: Literal["nats", "bits"] = "nats",
    ) -> np.ndarray:
        """Mean log-likelihood of each piece.

        Parameters
        ----------
        X, per, unit
            As for `score`.

        Returns
        -------
        ndarray of float64, shape (n_pieces,)
        """
        totals, counts = self._totals(X, per, unit)
        return totals / counts

    @guest
    def surprise(self, X: Pieces, *, unit: Literal["nats", "bits"] = "nats") -> list[np.ndarray]:
        """How little each frame was expected, along each piece: its negative log-likelihood.

        Parameters
        ----------
        X, unit
            As for `score`.

        Returns
        -------
        list of ndarray of float64, shape (n_frames,)
            One a piece; the higher, the less it was expected. `pianolstm.plotting.plot_surprise`
            draws it over the roll.

        Examples
        --------
        >>> import pianolstm as pl
        >>> rolls = pl.datasets.load_chorales("train")[:20]
        >>> model = pl.SequenceGenerator(
        ...     units=32, embedding=16, window_size=64, max_epochs=1, random_state=0
        ... ).fit(rolls)
        >>> (nats,) = model.surprise([rolls[0]])
        >>> len(nats) == len(rolls[0]), bool(abs(nats.mean() + model.score([rolls[0]])) < 1e-6)
        (True, True)
        """
        scale = _unit(unit)
        return [-log_p * scale for log_p in self._log_likelihoods(*self._seen(X))]

    @guest
    def predict_proba(self, X: Pieces) -> list[np.ndarray]:
        """Probability of each chord of the vocabulary, frame by frame, given the frames before.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.

        Returns
        -------
        list of ndarray of float32, shape (n_frames, n_tokens)
            One a piece; the columns are those of ``tokenizer_.vocabulary_``. What a row lacks of 1
            is for chords outside the vocabulary. It takes ``4 * n_frames * n_tokens`` bytes; where
            chords are spelled, each of them costs as much as a score of all frames.

        Raises
        ------
        NotFittedError
            If the model has not been fitted.
        InvalidInputError
            If a piece is empty or on another grid.
        """
        model, corpus = self._seen(X)
        return probabilities(self._config_of(model), model.params, model.vocabulary, corpus)

    @guest
    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to one ``.safetensors`` file.

        The file holds parameters, vocabulary, all that was counted in the training pieces, settings
        and history; callbacks, an optimiser or a
        schedule given as code, the checkpoints' folder and the optimiser's moments are not kept. It
        is written under another name first, so that a crash leaves the old file whole.

        Parameters
        ----------
        path : path
            Where to; the suffix ``.safetensors`` is customary.
        """
        check_is_fitted(self)
        write_model(path, *self._contents(self._model))

    @classmethod
    @guest
    def load(cls, path: str | PathLike[str]) -> SequenceGenerator:
        """Read a model that `save` wrote.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        SequenceGenerator
            It writes the same music from the same seed.

        Raises
        ------
        ModelFileError
            If there is no such file, or it is no model, cut short, or of another version.
        """
        arrays, header = read_model(path)
        model = Model.of_contents(path, arrays, header)
        try:
            tokenizer: Any = None
            if header["tokenizer_is_frozen"]:
                tokenizer = FrozenEstimator(model.tokenizer)
            elif header["tokenizer"] != _default_tokenizer(model.config.spell).get_params():
                tokenizer = clone(model.tokenizer)
            # Files from before there was another clock have none.
            settings = {"clock": model.config.clock, **header["settings"]}
            estimator = cls(**settings, tokenizer=tokenizer)
        except (KeyError, TypeError) as error:
            raise ModelFileError(
                f"{fspath(path)}: the settings are not those of a SequenceGenerator ({error})."
            ) from None
        estimator._hold(model)
        return estimator

    def _given(self) -> SimpleNamespace:
        """The parameters, NumPy's numbers as Python's own."""
        return SimpleNamespace(**plain_params(self))

    def _split(
        self, corpus: TokenCorpus, X_val: Any, seed: int
    ) -> tuple[TokenCorpus, TokenCorpus | None, list[int]]:
        """Training pieces, pieces held out, and the indices of the latter in X."""
        if X_val is not None:
            X_val = read_files(X_val, corpus.fs, corpus.grid)
            held_out = as_corpus(X_val, "X_val", fs=corpus.fs, grid=corpus.grid)
            return corpus, _not_empty(held_out, "X_val"), []
        given = self._given()
        if not given.early_stopping:
            return corpus, None, []
        if len(corpus.tokens) > 1:
            kept, held = split_pieces(len(corpus.tokens), given.validation_fraction, seed)
            return corpus.take(kept), corpus.take(held), held
        (tokens,) = corpus.tokens
        size = given.window_size
        # On the grid of beats the second part begins where the first could have begun.
        bar = 4 * round(corpus.fs) if corpus.grid == "beats" else 1
        n_held = max(size, round(given.validation_fraction * len(tokens)))
        cut = (len(tokens) - n_held) // bar * bar
        if cut < 2 * size:
            raise InvalidInputError(
                f"One piece alone is split in time into a training part, a gap and a validation "
                f"part of at least window_size frames each: expected {3 * size + bar - 1} frames "
                f"or more for window_size={size}, got {len(tokens)}. Give more pieces, a smaller "
                "window_size, X_val, or early_stopping=False."
            )
        train, held_out = (
            TokenCorpus([part], corpus.chords, corpus.fs, corpus.grid, corpus.tempo_maps)
            for part in (tokens[: cut - size], tokens[cut:])
        )
        return train, held_out, [0]

    def _has_int_seed(self) -> bool:
        return isinstance(plain(self.random_state), int)

    def _is_fitted(self) -> bool:
        return "_model" in self.__dict__

    __sklearn_is_fitted__ = _is_fitted

    def _hold(self, model: Model) -> None:
        """Be fitted as this model is; at once, whatever interrupts."""
        self.__dict__.update(
            _model=model,
            tokenizer_=model.tokenizer,
            history_={name: [*column] for name, column in model.history.items()},
            best_epoch_=model.best_epoch,
            n_parameters_=networks.n_parameters(model.params),
            fs_=model.fs,
            grid_=model.grid,
            held_out_=list(model.held_out),
        )
        self.__dict__.pop("_decoder_", None)  # of the model before, with its moments

    def _return_to(self, before: dict[str, Any]) -> None:
        """Be as a copy of the attributes says."""
        self.__dict__ = dict(before)

    def _untrained(self, train: TokenCorpus, seed: int) -> Model:
        """Fit the vocabulary and draw the initial parameters."""
        if isinstance(self.tokenizer, FrozenEstimator):
            tokenizer = copy.copy(self.tokenizer.estimator)  # whatever its owner does with it
            _check_grid(train, tokenizer.fs_, tokenizer.grid_, "the tokenizer was fitted on")
        else:
            base = self.tokenizer
            if base is None:
                base = _default_tokenizer(bool(self.spell))
            tokenizer = ChordTokenizer(**base.get_params()).fit(train)
        return Model.untrained(self._config(), tokenizer, train, seed, self._margin())

    def _extended(self, pieces: TokenCorpus) -> Model:
        """The model with the chords of more pieces, unless the tokenizer is frozen."""
        self._check_shape()
        model = self._model.with_pitches_of(pieces, self._margin())
        if isinstance(self.tokenizer, FrozenEstimator):
            return model
        return model.with_chords_of(pieces)

    def _learn(self, prepare: Callable[[], Task], began: float) -> None:
        """Train; the estimator holds the model of each epoch, and the best one in the end.

        What fails leaves the estimator as it was, but for Ctrl-C and a loss that is not finite,
        where the best model so far is kept if there is one.
        """
        before, task, trainer = dict(self.__dict__), None, None
        callbacks = [*self.callbacks] if isinstance(self.callbacks, (list, tuple)) else []
        if plain(self.verbose) and is_first_process():
            callbacks.append(ProgressBar())

        def call(method: str, *args: Any) -> list[Any]:
            with as_host():
                return [getattr(callback, method)(self, *args) for callback in callbacks]

        try:
            try:
                task = prepare()
                trainer = self._trainer(task, began)
                trainer.train(partial(self._show, task.model), call)
                best = trainer.best()
                has_ended = True
            except LossNotFiniteError:
                assert task is not None and trainer is not None
                best = trainer.best()
                self._hold(task.model.after(best.best, best.history, best.best_epoch))
                before = dict(self.__dict__)  # what is promised
                raise
            except KeyboardInterrupt:
                best, has_ended = self._interrupted(before, task, trainer), False
                if best is None:
                    return
            assert task is not None
            self._hold(task.model.after(best.best, best.history, best.best_epoch))
            call("on_fit_end")
            if has_ended and task.checkpoint is not None and is_first_process():
                self._save_checkpoint(task, best, finished=True)
        except BaseException:
            self._return_to(before)
            raise

    def _interrupted(
        self, before: dict[str, Any], task: Task | None, trainer: Trainer | None
    ) -> Progress | None:
        """What to keep after Ctrl-C, with a warning; raise where there is nothing.

        None if the model is to be as it was before.
        """
        best, kept, epoch = None, "the model is as it was", 0
        if trainer is not None:
            epoch = trainer.progress.state.epoch
        if task is not None and trainer is not None and trainer.has_learned(task.model.train_state):
            best = trainer.best(is_interrupted=True)
            kept = f"the best model so far (epoch {best.best_epoch}) is kept and can be used"
        else:
            self._return_to(before)
            if "_model" not in before:
                raise  # noqa: PLE0704 (what `_learn` has caught)
        warnings.warn(
            f"Training was interrupted in epoch {epoch + 1}; {kept}.",
            ConvergenceWarning,
            stacklevel=5,  # past `guest`, to who called fit
        )
        return best

    def _show(self, model: Model, progress: Progress) -> None:
        """Hold the model that training has come to, before callbacks look at it."""
        history = progress.history
        is_new = len(history["epoch"]) > len(model.history["epoch"])
        epoch = history["epoch"][-1] if is_new else model.best_epoch
        shown = model.after(progress.state, history, epoch)
        # Without what training alone needs, as if it had been saved and loaded.
        self._hold(replace(shown, state=None))

    def _trainer(self, task: Task, began: float) -> Trainer:
        given, model = self._given(), task.model
        config, checkpoint = self._config_of(model), task.checkpoint
        state = with_moments(model.train_state, config, optimizer_of(self.optimizer))
        progress = Progress(state, state, model.history, model.best_epoch)
        save: Callable[[Progress], None] | None = None
        if checkpoint is not None:
            checkpoint.fingerprint, checkpoint.seed = self._fingerprint(task), task.seed
            progress = checkpoint.resume(progress)
            save = partial(self._save_checkpoint, task)
        held_out = task.held_out
        patience = given.n_iter_no_change if given.early_stopping and held_out is not None else None
        settings = Settings(
            batch_size=self._batch_size(),
            optimizer=optimizer_of(self.optimizer),
            learning_rate=lambda step: rate_at(self.learning_rate, step),
            clip_norm=given.clip_norm,
            first_epoch=state.epoch,
            last_epoch=state.epoch + task.max_epochs,
            n_iter_no_change=patience,
            deadline=None if given.time_budget is None else began + given.time_budget,
            seed=task.seed,
            augment=self._augment(),
            checkpoint_minutes=None if checkpoint is None else given.checkpoint_minutes,
        )
        return Trainer(model, config, progress, task.train, held_out, settings, save)

    def _save_checkpoint(self, task: Task, progress: Progress, *, finished: bool = False) -> None:
        assert task.checkpoint is not None
        state = replace(progress.best, epoch=progress.state.epoch)
        best = task.model.after(state, progress.history, progress.best_epoch)
        task.checkpoint.write(progress, *self._contents(best), finished=finished)

    def _checkpoint(self) -> Checkpoint | None:
        return None if self.checkpoint_dir is None else Checkpoint(Path(self.checkpoint_dir))

    def _fingerprint(self, task: Task) -> str:
        """A number of all that decides what training comes to."""
        model, settings = task.model, self._settings(task.model)
        del settings["verbose"], settings["time_budget"]
        settings |= {"seed": task.seed, "tokenizer": plain_params(model.tokenizer)}
        if callable(self.optimizer):
            settings["optimizer"] = pickle.dumps(self.optimizer).hex()
        if callable(self.learning_rate):
            settings["learning_rate"] = [
                rate_at(self.learning_rate, step) for step in SCHEDULE_STEPS
            ]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(model.tokenizer.vocabulary_.tobytes())
        # Those of a warm start among them.
        digest.update(np.asarray(model.train_state.params).tobytes())
        for corpus in (task.train, task.held_out):
            lengths = None if corpus is None else [len(tokens) for tokens in corpus.tokens]
            digest.update(f"{lengths} {model.fs} {model.grid}".encode())
            if corpus is not None:
                digest.update(np.ascontiguousarray(corpus.chords).tobytes())
                for tokens in corpus.tokens:
                    digest.update(np.ascontiguousarray(tokens).tobytes())
        return digest.hexdigest()

    def _settings(self, model: Model) -> dict[str, Any]:
        """Parameters as JSON holds them; without code, and without what belongs to this machine."""
        settings = plain_params(self) | _shape(model.config)
        for name in ("tokenizer", "callbacks", "checkpoint_dir", "checkpoint_minutes"):
            del settings[name]
        if not isinstance(settings["random_state"], int):
            settings["random_state"] = None
        return {name: value for name, value in settings.items() if not callable(value)}

    def _contents(self, model: Model) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and header of a file: the model's, and the settings."""
        arrays, header = model.contents()
        header["settings"] = self._settings(model)
        header["tokenizer_is_frozen"] = isinstance(self.tokenizer, FrozenEstimator)
        return arrays, header

    def _batch_size(self) -> int:
        given = self._given()
        if isinstance(given.batch_size, str):
            return 64 if given.arch == "bilstm" else 16
        return given.batch_size

    def _augment(self) -> int:
        given = self._given()
        if isinstance(given.augment, str):
            # A closed vocabulary has no way to learn a chord that is moved out of it.
            return TRANSPOSITION if given.spell else 0
        return given.augment

    def _margin(self) -> int:
        """Semitones that a network hears above and below its pieces: those of half an octave."""
        return max(TRANSPOSITION, self._augment())

    def _config(self) -> NetworkConfig:
        """The network that the parameters ask for, without its vocabulary."""
        given = self._given()
        names = NetworkConfig.__dataclass_fields__.keys() - {"n_rows", "beat", "pitches"}
        settings: Any = {name: getattr(given, name) for name in names}
        return NetworkConfig(n_rows=0, **settings)

    def _config_of(self, model: Model) -> NetworkConfig:
        """A model's network, with the settings that may change after it was fitted."""
        if self.recall and not model.config.recall:
            raise InvalidInputError(
                "The model was learned with recall=False, so that it does not know how much to "
                "recall; got recall=True. Set it back, or fit it again."
            )
        changed: Any = {"dropout": float(self.dropout), "recall": bool(self.recall)}
        if model.config.is_causal:
            changed["window_size"] = int(self.window_size)
        return replace(model.config, **changed)

    def _check_shape(self) -> None:
        """Raise where settings have become those of another network."""
        for name, value in _shape(self._model.config).items():
            if getattr(self, name) != value:
                raise InvalidInputError(
                    f"What was learned goes on with {name}={value!r}; got "
                    f"{name}={getattr(self, name)!r}. Set it back, or fit from the start "
                    "(warm_start=False)."
                )

    def _decoder(self) -> Decoder:
        """The model as it is now, ready to write; made once."""
        check_is_fitted(self)
        model = self._model
        config = self._config_of(model)
        made_by, made_for, decoder = self.__dict__.get("_decoder_", (None, None, None))
        if decoder is None or made_by is not model or made_for != config:
            decoder = Decoder(
                config,
                model.params,
                model.tokenizer.vocabulary_,
                model.longest_hold,
                fs=model.fs,
                grid=model.grid,
                tempo_map=model.tempo_map,
                usual_repeats=model.most_repeats,
            )
            self.__dict__["_decoder_"] = model, config, decoder
        return decoder

    def __getstate__(self) -> dict[str, Any]:
        """What pickling and copying take along: not what is made anew at the next call."""
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_decoder_"}

    def _seen(self, X: Pieces) -> tuple[Model, Corpus]:
        """The model as it is now, and pieces through its vocabulary."""
        check_is_fitted(self)
        model = self._model
        vocabulary = model.tokenizer.vocabulary_
        return model, Corpus.of(vocabulary, _on_grid_of(model, X), model.config.clock)

    def _log_likelihoods(self, model: Model, corpus: Corpus) -> list[np.ndarray]:
        pieces = evaluate(
            self._config_of(model),
            model.params,
            model.vocabulary,
            corpus,
            model.bernoulli,
        )
        return [piece.log_p for piece in pieces]

    def _totals(self, X: Pieces, per: str, unit: str) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood of each piece, and how many frames, notes or seconds it has."""
        if per not in ("frame", "note", "second"):
            raise InvalidInputError(f'per must be "frame", "note" or "second"; got {per!r}.')
        scale = _unit(unit)
        model, corpus = self._seen(X)
        counts = np.array([durations.sum() for durations in corpus.durations], float)
        if per == "note":
            counts = corpus.onsets().astype(float)
            if (silent := np.flatnonzero(counts == 0)).size:
                raise InvalidInputError(
                    f'X[{silent[0]}] has no notes to take the mean of; use per="frame".'
                )
        elif per == "second":
            counts /= model.fs
        log_p = self._log_likelihoods(model, corpus)
        return scale * np.array([piece.sum() for piece in log_p]), counts


@dataclass(frozen=True)
class Task:
    """What to train: a model, pieces, and for how long.

    Attributes
    ----------
    model : Model
        Where to start from.
    train : TokenCorpus
    held_out : TokenCorpus or None
    seed : int
    max_epochs : int
    checkpoint : Checkpoint or None
    """

    model: Model
    train: TokenCorpus
    held_out: TokenCorpus | None
    seed: int
    max_epochs: int
    checkpoint: Checkpoint | None


def _shape(config: NetworkConfig) -> dict[str, Any]:
    """Settings that the network is made by: those that stay as long as it is not made anew."""
    names = ["arch", "units", "embedding", "spell", "clock"]
    if not config.is_causal:
        names.append("window_size")
    return {name: getattr(config, name) for name in names}


def _on_grid_of(model: Model, X: Any) -> TokenCorpus:
    """Pieces on the model's grid; MIDI files are read on it."""
    X = read_files(X, model.fs, model.grid)
    return _not_empty(as_corpus(X, fs=model.fs, grid=model.grid))


def _check_grid(corpus: TokenCorpus, fs: float, grid: Grid, what: str) -> None:
    """Raise where pieces are on another grid than what was fitted."""
    if (corpus.fs, corpus.grid) != (fs, grid):
        raise InvalidInputError(
            f"X has fs={corpus.fs} on the grid of {corpus.grid}, but {what} fs={fs} on the grid of "
            f"{grid}. Encode the pieces on that grid, or fit from the start."
        )


def _unit(unit: str) -> float:
    """What nats are multiplied by."""
    if unit not in ("nats", "bits"):
        raise InvalidInputError(f'unit must be "nats" or "bits"; got {unit!r}.')
    return 1.0 if unit == "nats" else 1 / np.log(2)


def _not_empty(corpus: TokenCorpus, name: str = "X") -> TokenCorpus:
    for i, tokens in enumerate(corpus.tokens):
        if len(tokens) == 0:
            raise InvalidInputError(f"{name}[{i}] has no frames; leave it out.")
    return corpus


def _default_tokenizer(spell: bool) -> ChordTokenizer:
    return ChordTokenizer(max_tokens=MAX_TOKENS if spell else None)
