"""SequenceGenerator: what it learns, writes, scores, keeps and refuses."""

import copy
import functools
import subprocess
import sys
import time

import jax
import mido
import numpy as np
import optax
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

import pianolstm as pl
from pianolstm._learning import training
from pianolstm.hyperparameters import optimizer_of
from pianolstm.tokens import TokenCorpus

ARCHITECTURES = ("lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked")


def cycle(n_frames, offset=0, n_chords=20):
    """A piece that repeats a sequence of chords for ever, one a frame."""
    rng = np.random.default_rng(7)
    chords = [rng.choice(np.arange(40, 90), rng.integers(1, 5), False) for _ in range(n_chords)]
    plane = np.zeros((n_frames, 128), bool)
    for t in range(n_frames):
        plane[t, chords[(t + offset) % n_chords]] = True
    return pl.PianoRoll.from_array(plane)


def small(**changes):
    settings = {
        "clock": "frames",
        "augment": 0,
        "units": 48,
        "embedding": 24,
        "window_size": 24,
        "batch_size": 8,
        "max_epochs": 40,
        "learning_rate": 0.01,
        "dropout": 0.0,
        "spell": False,  # compiles in half the time; see TestSpelling
        "recall": False,  # see test_recall.py
        "random_state": 0,
    }
    return pl.SequenceGenerator(**{**settings, **changes})


def tiny(**changes):
    return small(**{"units": 8, "embedding": 6, "max_epochs": 2, **changes})


@pytest.fixture(scope="module")
def fitted(pieces):
    return tiny().fit(pieces)


@pytest.fixture
def compiled():
    """Names of events of the compiler, as they happen."""
    events, is_over = [], False

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration" and not is_over:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    is_over = True  # older releases of JAX can't unregister it


class TestLearning:
    @pytest.mark.parametrize("arch", ARCHITECTURES)
    def test_every_network_learns_a_repeating_sequence(self, arch):
        model = small(arch=arch).fit([cycle(200)] * 3)
        assert -model.score([cycle(200)]) < 0.05
        # From where in the cycle it is primed, there it goes on.
        for offset in (0, 7):
            piece = cycle(65, offset)
            music = model.generate(40, prime=piece[:25], temperature=0)
            assert np.array_equal(np.asarray(music) > 0, np.asarray(piece[25:]) > 0)

    def test_history_is_complete_and_the_best_epoch_is_kept(self, pieces):
        model = tiny(max_epochs=6, learning_rate=0.2).fit(pieces)
        history = model.history_
        assert set(history) == set(training.HISTORY_KEYS)
        assert {len(v) for v in history.values()} == {7}
        assert history["epoch"] == list(range(7))
        best = int(np.argmin(history["val_loss"]))
        assert model.best_epoch_ == best
        held_out = [pieces[i] for i in model.held_out_]
        assert -model.score(held_out) == pytest.approx(history["val_loss"][best], abs=1e-5)

    def test_early_stopping_waits_n_epochs(self, pieces):
        model = tiny(max_epochs=50, learning_rate=0.5, n_iter_no_change=3).fit(pieces)
        assert model.history_["epoch"][-1] == model.best_epoch_ + 3

    def test_without_early_stopping_all_pieces_are_learned_and_the_last_epoch_kept(self, pieces):
        model = tiny(early_stopping=False).fit(pieces)
        assert model.held_out_ == []
        assert model.best_epoch_ == 2
        assert np.all(np.isnan(model.history_["val_loss"]))
        assert model.tokenizer_.coverage(pieces) == 1

    def test_the_training_loss_is_that_of_the_frames(self):
        """Where no chord is begun only once, loss and score are the same measure."""
        rolls = [cycle(96), cycle(96, 5)]
        model = tiny(early_stopping=False, learning_rate=0.0, max_epochs=1).fit(rolls)
        # Every window of the cycle is one of a piece's first windows, but for where it begins.
        assert model.history_["loss"][1] == pytest.approx(-model.score(rolls), abs=0.05)
        learned = tiny(early_stopping=False, max_epochs=12).fit(rolls).history_["loss"]
        assert learned[-1] < learned[0] - 0.5

    def test_the_vocabulary_is_that_of_the_training_pieces(self, pieces):
        model = tiny(max_epochs=1).fit(pieces)
        train = [p for i, p in enumerate(pieces) if i not in model.held_out_]
        expected = pl.ChordTokenizer().fit(train).vocabulary_
        assert np.array_equal(model.tokenizer_.vocabulary_, expected)
        assert model.tokenizer_.coverage([pieces[i] for i in model.held_out_]) < 1

    def test_x_val_is_validated_on(self, pieces):
        model = tiny(max_epochs=1).fit(pieces[1:], X_val=pieces[:1])
        assert model.held_out_ == []
        assert -model.score(pieces[:1]) == pytest.approx(min(model.history_["val_loss"]), abs=1e-5)

    def test_one_piece_is_split_in_time_with_a_gap(self):
        roll = cycle(100)
        model = tiny(max_epochs=1).fit([roll])
        corpus = TokenCorpus.of([roll])
        (train,), (held_out,) = (part.tokens for part in model._split(corpus, None, 0)[:2])
        assert np.array_equal(train, corpus.tokens[0][: 100 - 2 * 24])
        assert np.array_equal(held_out, corpus.tokens[0][76:])

    def test_the_same_seed_gives_the_same_model(self, pieces, fitted):
        again = tiny().fit(pieces)
        other = tiny(random_state=1).fit(pieces)
        assert again.history_["loss"] == fitted.history_["loss"]
        assert other.history_["loss"] != fitted.history_["loss"]

    def test_nothing_is_compiled_twice(self, pieces, compiled):
        """Not after the first step and validation, and not at all for a clone's fit."""

        class Watch(pl.callbacks.Callback):
            def on_epoch_end(self, model):
                counts.append(len(compiled))

        counts = []
        decayed = functools.partial(optax.adamw, weight_decay=0.015)
        model = tiny(units=7, optimizer=decayed, augment=2, max_epochs=3, callbacks=[Watch()])
        model.fit(pieces)
        assert 0 < counts[0] == counts[-1]
        after_one = len(compiled)
        again = clone(model).set_params(
            learning_rate=lambda step: 0.01 / (1 + step), clip_norm=0.5, random_state=5, augment=1
        )
        again.fit(pieces)
        assert len(compiled) == after_one

    def test_optimisers_are_those_of_optax(self, pieces, fitted):
        of_optax = tiny(optimizer=optax.adam, learning_rate=lambda step: 0.01).fit(pieces)
        assert of_optax.history_["val_loss"] == fitted.history_["val_loss"]
        losses = {tuple(fitted.history_["val_loss"])}
        for optimizer in ("sgd", functools.partial(optax.sgd, momentum=0.9)):
            model = tiny(optimizer=optimizer, learning_rate=0.02).fit(pieces)
            assert model.history_["val_loss"][-1] < model.history_["val_loss"][0]
            losses.add(tuple(model.history_["val_loss"]))
        assert len(losses) == 3
        for name in ("adam", "adamw", "rmsprop", "sgd"):
            assert optimizer_of(name) is getattr(optax, name)

    def test_a_schedule_counts_steps(self, pieces):
        class Count(pl.callbacks.Callback):
            def on_batch_end(self, model, step, n_steps, loss):
                done.append(step)

            def on_epoch_end(self, model):
                ends.append(len(done))

        def schedule(step):
            asked.add(step)
            return 0.02 / 2**step if step < 9 else 0.0

        done, ends, asked = [], [], set()
        model = tiny(learning_rate=schedule, max_epochs=8, callbacks=[Count()]).fit(pieces)
        assert asked == set(range(len(done))) and len(done) > 12
        assert model.history_["learning_rate"] == [0.02, *(schedule(n - 1) for n in ends)]
        # At last the parameters stand still, and their average comes to them.
        gains = -np.diff(model.history_["val_loss"])
        assert gains[0] > 10 * abs(gains[-1])

    def test_transposition_teaches_other_keys(self):
        """What is validated is as it was written; what is learned is heard in other keys."""
        low, high = cycle(200), cycle(200).transpose(3)
        # All chords of the other key are known, not their order.
        rng = np.random.default_rng(0)
        plane = np.asarray(high) > 0
        known = pl.PianoRoll.from_array(plane[rng.permutation(200)])
        models = [
            small(augment=n, max_epochs=12, early_stopping=False).fit([low] * 3 + [known])
            for n in (0, 3)
        ]
        plain, moved = (model.score([high]) for model in models)
        assert moved > plain + 1
        assert moved > -1.5

    def test_a_batch_without_targets_changes_nothing(self):
        """All chords leave the vocabulary when transposed; the end of a piece is all that stays."""
        low, high = (pl.PianoRoll.from_notes([0], [60], [p], n_frames=60) for p in (40, 61))
        model = small(augment=5, batch_size=1, max_epochs=3, early_stopping=False)
        model.fit([low, high])
        assert np.isfinite(model.history_["loss"]).all()
        assert np.isfinite(model.score([low, high]))

    def test_validation_is_as_it_was_written(self, pieces):
        plain, moved = (tiny(augment=n, max_epochs=1).fit(pieces).history_ for n in (0, 5))
        assert plain["val_loss"][0] == moved["val_loss"][0]
        assert plain["val_loss"][1] != moved["val_loss"][1]

    def test_any_optimisers_state_grows_with_the_vocabulary(self):
        """Adafactor keeps sums of rows and columns, which have other shapes than the parameters."""
        model = tiny(optimizer=optax.adafactor, tokenizer=pl.ChordTokenizer(max_tokens=600))
        rng = np.random.default_rng(0)
        for n in (20, 300):
            chords = rng.random((2 * n, 128)) < 0.04
            model.partial_fit([pl.PianoRoll.from_array(np.repeat(chords, 2, axis=0))])
        assert np.isfinite(model.history_["loss"]).all()
        assert model.tokenizer_.n_tokens_ > 512

    def test_partial_fit_goes_on(self, pieces):
        model, rolls = tiny(), [cycle(96), cycle(96, 5)]
        for _ in range(6):
            model.partial_fit(rolls)
        assert model.history_["epoch"] == list(range(7))
        assert model.history_["loss"][-1] < model.history_["loss"][1]

    def test_partial_fit_adds_the_chords_of_new_pieces(self, pieces):
        model, rolls = tiny(), [cycle(96), cycle(96, 5)]
        for _ in range(30):
            model.partial_fit(rolls)
        vocabulary, before = model.tokenizer_.vocabulary_, model.score(rolls)
        assert model.tokenizer_.coverage(pieces) < 0.5
        model.extend(pieces)
        assert np.array_equal(model.tokenizer_.vocabulary_[: len(vocabulary)], vocabulary)
        assert model.tokenizer_.coverage(pieces) == 1
        # The new chords take a little of the probability, and nothing else has changed.
        assert before - 0.2 < model.score(rolls) < before
        scores = [model.score(pieces)]
        for _ in range(5):
            model.partial_fit(pieces)
            scores.append(model.score(pieces))
        assert scores[-1] > scores[0] + 0.5
        new = {tuple(c) for c in model.tokenizer_.vocabulary_[len(vocabulary) :].tolist()}
        written = TokenCorpus.of([model.generate(300, random_state=0)])
        assert new & {tuple(c) for c in written.chords.tolist()}

    def test_a_frozen_vocabulary_does_not_grow(self, pieces):
        tokenizer = FrozenEstimator(pl.ChordTokenizer().fit(pieces[:2]))
        model = tiny(tokenizer=tokenizer).partial_fit(pieces[:2]).partial_fit(pieces)
        assert model.tokenizer_.n_tokens_ == tokenizer.estimator.n_tokens_
        assert np.isfinite(model.score(pieces))

    def test_warm_start_goes_on(self, pieces):
        rolls = [cycle(96), cycle(96, 5)]
        model = tiny(warm_start=True, early_stopping=False, max_epochs=10).fit(rolls)
        n_tokens, learned = model.tokenizer_.n_tokens_, model.score(rolls)
        model.set_params(max_epochs=2).fit(rolls)
        assert model.history_["epoch"] == list(range(13))
        assert model.score(rolls) > learned
        assert model.tokenizer_.n_tokens_ == n_tokens
        model.fit(pieces)
        assert model.tokenizer_.n_tokens_ > n_tokens

    def test_warm_start_after_early_stopping_learns_again(self, pieces):
        """The patience of the fit before, and its losses on other pieces, don't count."""
        model = tiny(warm_start=True, learning_rate=0.0, max_epochs=9, n_iter_no_change=2)
        model.fit(pieces[:3])
        assert model.history_["epoch"] == [0, 1, 2]  # nothing gained twice: stopped
        model.set_params(learning_rate=0.01, max_epochs=4)
        before = model.fit(pieces, X_val=[cycle(96)]).score([cycle(96)])
        assert model.history_["epoch"] == [0, 1, 2, 3, 4, 5, 6]
        assert -before == pytest.approx(min(model.history_["val_loss"][3:]), abs=1e-5)
        # What it begins with is the bar: a fit that only spoils it gives it back.
        model.set_params(learning_rate=1.0, max_epochs=2).fit(pieces, X_val=[cycle(96)])
        assert min(model.history_["val_loss"][-2:]) > -before + 0.5
        assert model.score([cycle(96)]) == before
        assert tiny(early_stopping=False).fit(pieces).fit(pieces).history_["epoch"] == [0, 1, 2]

    def test_time_budget_ends_in_a_validation(self, pieces):
        model = tiny(time_budget=3, max_epochs=10**6, n_iter_no_change=10**6).fit(pieces)
        assert sum(model.history_["seconds"]) < 6
        assert np.isfinite(model.history_["val_loss"][-1])

    def test_compiling_is_not_taken_for_validating(self, pieces, monkeypatch):
        taken = []
        validate = training.Trainer.validate

        def timed(trainer):
            began = time.monotonic()
            losses = validate(trainer)
            taken.append((time.monotonic() - began, trainer.validation_seconds))
            return losses

        monkeypatch.setattr(training.Trainer, "validate", timed)
        # It would compile what validating needs.
        monkeypatch.setattr(training.Trainer, "_first_loss", lambda _: 0.0)
        tiny(units=9, max_epochs=1).fit(pieces)  # a size that no other test compiles
        (first, first_reserved), (second, second_reserved) = taken
        assert first_reserved < 0.7 * first
        assert second_reserved == pytest.approx(second, rel=0.5, abs=0.02)

    def test_a_budget_too_short_for_a_step_leaves_the_untrained_model(self, pieces):
        model = tiny(time_budget=0).fit(pieces)
        assert model.history_["epoch"] == [0]
        assert model.best_epoch_ == 0
        assert len(model.generate(5)) == 5

    def test_ctrl_c_in_the_first_epoch_keeps_what_was_learned(self, pieces):
        class Interrupt(pl.callbacks.Callback):
            def on_batch_end(self, model, step, n_steps, loss):
                raise KeyboardInterrupt

        untrained = tiny(time_budget=0).fit(pieces)
        with pytest.warns(ConvergenceWarning, match="interrupted in epoch 1"):
            model = tiny(callbacks=[Interrupt()]).fit(pieces)
        assert model.score(pieces) != untrained.score(pieces)

    def test_a_frozen_tokenizer_is_used_as_it_is(self, pieces):
        tokenizer = pl.ChordTokenizer().fit(pieces)
        model = tiny(max_epochs=1, tokenizer=FrozenEstimator(tokenizer)).fit(pieces)
        assert np.array_equal(model.tokenizer_.vocabulary_, tokenizer.vocabulary_)

    def test_a_tokenizer_is_cloned(self, pieces):
        tokenizer = pl.ChordTokenizer(max_tokens=10)
        model = tiny(max_epochs=1, tokenizer=tokenizer).fit(pieces)
        assert model.tokenizer_.n_tokens_ == 10
        assert not hasattr(tokenizer, "vocabulary_")

    def test_callbacks_are_called_and_can_stop(self, pieces):
        calls = []

        class Recorder(pl.callbacks.Callback):
            def on_fit_begin(self, model):
                calls.append(("begin", len(model.history_["epoch"])))

            def on_batch_end(self, model, step, n_steps, loss):
                calls.append(("batch", step))
                assert 0 <= step < n_steps and loss > 0

            def on_epoch_end(self, model):
                calls.append(("epoch", model.history_["epoch"][-1]))
                return model.history_["epoch"][-1] == 2

            def on_fit_end(self, model):
                calls.append(("end", model.best_epoch_))

        model = tiny(max_epochs=9, callbacks=[Recorder()]).fit(pieces)
        assert [c for c in calls if c[0] != "batch"] == [
            ("begin", 1),
            ("epoch", 1),
            ("epoch", 2),
            ("end", model.best_epoch_),
        ]
        assert calls.count(("batch", 0)) == 2

    def test_ctrl_c_keeps_the_best_model(self, pieces):
        class Interrupt(pl.callbacks.Callback):
            def on_batch_end(self, model, step, n_steps, loss):
                if len(model.history_["epoch"]) == 3:
                    raise KeyboardInterrupt

        with pytest.warns(
            ConvergenceWarning, match=r"interrupted in epoch 3; the best model so far"
        ):
            model = tiny(max_epochs=9, callbacks=[Interrupt()]).fit(pieces)
        assert model.history_["epoch"] == [0, 1, 2]
        held_out = [pieces[i] for i in model.held_out_]
        assert -model.score(held_out) == pytest.approx(min(model.history_["val_loss"]), abs=1e-5)
        assert len(model.generate(5)) == 5

    def test_a_loss_that_is_not_finite_stops_with_the_best_model(self, pieces):
        model = tiny(learning_rate=1e30, clip_norm=1e30, max_epochs=9)
        match = r"The loss became (nan|inf) in step [2-9] of epoch 1; .* that of epoch 0\."
        with pytest.raises(pl.PianoLSTMError, match=match):
            model.fit(pieces)
        untrained = tiny(time_budget=0).fit(pieces)
        assert model.score(pieces) == untrained.score(pieces)
        assert model.best_epoch_ == 0

    def test_verbose_shows_the_epochs(self, pieces, capsys):
        tiny(verbose=1).fit(pieces)
        shown = capsys.readouterr()
        assert "epoch 2" in shown.err and "val_loss" in shown.err
        assert shown.out == ""


class TestScoring:
    def test_pieces_alone_equal_pieces_together(self, pieces, fitted):
        together = fitted.score_samples(pieces)
        alone = [fitted.score([piece]) for piece in pieces]
        np.testing.assert_allclose(together, alone, atol=1e-5)
        lengths = [len(piece) for piece in pieces]
        assert fitted.score(pieces) == pytest.approx(np.average(together, weights=lengths))

    def test_the_probabilities_of_a_frame_sum_to_one(self, pieces, fitted):
        """Of a closed vocabulary: over its chords and the one row for any other."""
        prime = pieces[0][:30]
        tokenizer = fitted.tokenizer_
        total = 0.0
        for chord in range(tokenizer.n_tokens_):
            (sequence,) = tokenizer.transform([prime])
            tokens = np.append(sequence.tokens, chord).astype(np.int32)
            rows = np.arange(tokenizer.n_tokens_)
            corpus = training.Corpus(
                [tokens], tokenizer.vocabulary_, rows, rows, tokenizer.vocabulary_, [tokens * 0 + 1]
            )
            total += np.exp(self._last(fitted, corpus))
        unknown = np.array([[1 << 3, 1 << 9, 0, 0]], np.uint64)
        chords = np.concatenate([tokenizer.vocabulary_, unknown])
        tokens[-1] = tokenizer.n_tokens_
        corpus = training.Corpus(
            [tokens],
            chords,
            np.append(rows, -1),
            np.arange(len(chords)),
            tokenizer.vocabulary_,
            [tokens * 0 + 1],
        )
        spelled = fitted._model.bernoulli.log_likelihood(unknown, chords[tokens[-2:-1]])
        total += np.exp(self._last(fitted, corpus) - spelled[0])
        assert total == pytest.approx(1, abs=1e-5)

    @staticmethod
    def _last(model, corpus):
        found = training.evaluate(
            model._model.config,
            model._model.params,
            model._model.vocabulary,
            corpus,
            model._model.bernoulli,
        )
        return found[0].log_p[-1]

    def test_music_with_unknown_chords_has_a_finite_score(self, fitted):
        strange = pl.PianoRoll.from_notes([0, 2, 4], [3, 9, 9], [1, 2, 126])
        assert fitted.tokenizer_.coverage([strange]) == 0
        assert -1000 < fitted.score([strange]) < -10

    def test_arrays_are_pieces_too(self, pieces, fitted):
        roll = pieces[0]
        plain = pl.PianoRoll.from_array(np.asarray(roll))  # loses strikes, as an array does
        assert fitted.score([np.asarray(roll)]) == fitted.score([plain])


class TestGenerating:
    def test_length_grid_and_seed(self, fitted):
        music = fitted.generate(300, random_state=3)
        assert (len(music), music.fs, music.grid) == (300, 20, "seconds")
        assert music == fitted.generate(300, random_state=3)
        assert music != fitted.generate(300, random_state=4)
        assert fitted.generate(300) != fitted.generate(300)

    def test_a_shorter_call_is_the_beginning_of_a_longer_one(self, fitted):
        long = fitted.generate(300, random_state=3)
        short = fitted.generate(120, random_state=3)
        assert short == long[:120]

    def test_a_generator_as_seed_moves_on(self, fitted):
        rng = np.random.default_rng(0)
        one, two = (fitted.generate(60, random_state=rng) for _ in range(2))
        assert one != two
        assert one == fitted.generate(60, random_state=np.random.default_rng(0))

    def test_primes_of_any_length(self, pieces, fitted):
        prime = pieces[0]
        single_note = pl.PianoRoll.from_notes([0], [4], [60])
        for given in (prime[:0], prime[:1], prime, single_note, np.asarray(prime)):
            assert len(fitted.generate(10, prime=given, random_state=0)) == 10
        repeated = pl.PianoRoll.concatenate([prime] * 5)  # longer than a block
        assert len(repeated) > 512
        music = {n: fitted.generate(40, prime=repeated[:n], random_state=1) for n in (0, 150, 750)}
        assert music[0] != music[150]
        assert len(music[750]) == 40

    def test_a_note_that_goes_on_is_tied(self, pieces, fitted):
        prime = pieces[0][:40]
        for seed in range(40):
            music = fitted.generate(20, prime=prime, random_state=seed)
            whole = pl.PianoRoll.concatenate([prime, music])
            again, once = fitted.tokenizer_.transform([whole[40:], music])
            assert np.array_equal(again.before, once.before)
            if music.notes["tied"].any():
                assert len(whole.notes) < len(prime.notes) + len(music.notes)
                return
        pytest.fail("no seed went on with a note of the prime")

    def test_the_tempo_of_the_prime_goes_on(self):
        slow = pl.TempoMap.constant(900_000)
        rolls = [
            pl.PianoRoll.from_notes(
                np.arange(60),
                np.arange(60) + 1,
                60 + np.arange(60) % n,
                fs=4,
                grid="beats",
                tempo_map=pl.TempoMap.constant(600_000),
            )
            for n in (3, 4, 5)
        ]
        model = tiny(max_epochs=1).fit(rolls)
        assert model.generate(8).seconds == pytest.approx(2 * 0.6)
        prime = pl.PianoRoll.from_notes([0], [4], [60], fs=4, grid="beats", tempo_map=slow)
        assert model.generate(8, prime=prime).seconds == pytest.approx(2 * 0.9)

    def test_generating_compiles_once(self, pieces, fitted, compiled):
        c = pl.constraints
        fitted.generate(5, prime=pieces[1][:3], n_candidates=2)
        fitted.generate(5, n_pieces=3)
        next(fitted.stream(constraints=c.PitchRange(0, 127)))
        before = len(compiled)
        rules = (None, c.MaxNotes(3), c.PitchRange(40, 90) & c.MaxSilence(1), c.Bass(pieces[0][:5]))
        for i in range(50):
            fitted.generate(
                1 + 7 * i % 130,
                n_pieces=1 + i % 11,
                prime=pieces[1][: 5 * (i % 4)] if i % 2 else None,
                temperature=0.1 * i,
                top_k=None if i % 3 else 1 + i,
                top_p=None if i % 5 else 0.9,
                repetition_penalty=1 + i % 2,
                constraints=rules[i % 4],
                n_candidates=1 + i % 2,
                random_state=i,
            )
        assert len(compiled) == before

    def test_a_piece_of_many_is_the_piece_alone(self, pieces, fitted):
        seeds = [4, 8, 15, 16, 23, 42, 5, 6, 7, 9]
        primes = [pieces[i % 4][: 11 * i] for i in range(10)]
        heat = [0.5 + 0.1 * i for i in range(10)]
        many = fitted.generate(
            70, n_pieces=10, prime=primes, temperature=heat, random_state=seeds, return_prime=True
        )
        for i in (0, 3, 9):
            alone = fitted.generate(70, prime=primes[i], temperature=heat[i], random_state=seeds[i])
            assert many[i][len(primes[i]) :] == alone
        assert len({roll.notes.tobytes() for roll in many}) == 10

    def test_pieces_of_one_seed_differ_and_the_first_is_that_of_a_single_call(self, fitted):
        three = fitted.generate(60, n_pieces=3, random_state=3)
        assert three[0] == fitted.generate(60, random_state=3)
        assert three[0] != three[1] != three[2]

    def test_eight_threads_at_once(self, fitted):
        from concurrent.futures import ThreadPoolExecutor

        seeds = list(range(16))
        expected = [fitted.generate(90, random_state=seed) for seed in seeds]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda s: fitted.generate(90, random_state=s), seeds))
        assert found == expected

    def test_the_likeliest_candidate_is_chosen(self, pieces, fitted):
        prime = pieces[0]
        settings = {"prime": prime, "top_p": None}

        def nats(music):
            whole = pl.PianoRoll.concatenate([prime, music])
            return sum(fitted._log_likelihoods(*fitted._seen([whole]))[0][len(prime) :])

        seeds = [5, 10, 29]  # the first of these ends no piece, which `nats` could not tell
        ones = [fitted.generate(30, random_state=seed, **settings) for seed in seeds]
        best = fitted.generate(30, n_pieces=3, random_state=seeds, n_candidates=6, **settings)
        gains = [nats(b) - nats(one) for b, one in zip(best, ones, strict=True)]
        assert min(gains) >= 0 < max(gains)
        assert best[2] == fitted.generate(30, random_state=29, n_candidates=6, **settings)

    def test_constraints_hold(self, pieces, fitted):
        c = pl.constraints
        melody = pieces[1][:40]
        rule = c.Melody(melody, onsets=False) & c.MaxNotes(2)
        music = fitted.generate(60, constraints=rule, random_state=1)
        plane = np.asarray(music) > 0
        assert plane.sum(1).max() == 2
        highest = [np.flatnonzero(row).max(initial=-1) for row in plane[:40]]
        asked = [np.flatnonzero(row).max(initial=-1) for row in np.asarray(melody)]
        assert all(h == a for h, a in zip(highest, asked, strict=True) if a >= 0)
        free = fitted.generate(60, random_state=1)
        assert (np.asarray(free) > 0).sum(1).max() > 2

    def test_return_prime(self, pieces, fitted):
        prime = pieces[0][:40]
        music = fitted.generate(30, prime=prime, random_state=6)
        whole = fitted.generate(30, prime=prime, random_state=6, return_prime=True)
        assert whole == pl.PianoRoll.concatenate([prime, music])
        assert fitted.generate(30, random_state=6, return_prime=True) == fitted.generate(
            30, random_state=6
        )

    def test_deadline(self, fitted):
        whole = fitted.generate(2000, random_state=1)
        part = fitted.generate(2000, random_state=1, deadline=0)
        assert 0 < len(part) < 200
        assert part == whole[: len(part)]
        assert len(fitted.generate(70, random_state=1, deadline=60)) == 70

    def test_a_bar_of_frames(self, fitted, capsys):
        fitted.set_params(verbose=1)
        try:
            fitted.generate(10, n_pieces=3, random_state=0)
        finally:
            fitted.set_params(verbose=0)
        assert "30/30" in capsys.readouterr().err

    def test_copies_and_pickles_write_the_same(self, fitted):
        import copy
        import pickle

        expected = fitted.generate(40, random_state=1)
        assert copy.deepcopy(fitted).generate(40, random_state=1) == expected
        assert pickle.loads(pickle.dumps(fitted)).generate(40, random_state=1) == expected

    def test_what_was_learned_since_is_heard(self, pieces):
        model = tiny().fit(pieces)
        before = model.generate(60, random_state=1)
        assert model.partial_fit(pieces).generate(60, random_state=1) != before


class TestFiles:
    def test_a_new_process_writes_the_same_music(self, pieces, fitted, tmp_path):
        path = tmp_path / "model.safetensors"
        fitted.save(path)
        code = (
            "import pianolstm as pl, hashlib\n"
            f"model = pl.SequenceGenerator.load({str(path)!r})\n"
            "print(hash(0), hashlib.sha256(model.generate(200, random_state=5).notes.tobytes())"
            ".hexdigest(), model.best_epoch_)"
        )
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        import hashlib

        notes = fitted.generate(200, random_state=5).notes
        assert out.split()[1] == hashlib.sha256(notes.tobytes()).hexdigest()

    @pytest.mark.parametrize("arch", ["lstm", "bilstm", "hybrid_stacked"])
    def test_everything_comes_back(self, arch, pieces, tmp_path):
        # Of the size of those that learn a sequence, so that programs are shared.
        model = small(arch=arch, max_epochs=1, tokenizer=pl.ChordTokenizer(min_count=2))
        model.fit(pieces)
        model.save(tmp_path / "m.safetensors")
        loaded = pl.SequenceGenerator.load(tmp_path / "m.safetensors")
        assert loaded.history_ == model.history_
        mine, theirs = (m.get_params(deep=False) for m in (loaded, model))
        assert mine.pop("tokenizer").get_params() == theirs.pop("tokenizer").get_params()
        assert mine == {**theirs, "callbacks": ()}
        assert loaded.score_samples(pieces).tolist() == model.score_samples(pieces).tolist()
        assert loaded.generate(60, random_state=1) == model.generate(60, random_state=1)
        loaded.partial_fit(pieces)  # and learning can go on
        assert loaded.history_["epoch"] == [*model.history_["epoch"], 2]

    def test_a_model_without_pieces_held_out_comes_back(self, pieces, tmp_path):
        model = tiny(early_stopping=False, max_epochs=1).fit(pieces)
        model.save(tmp_path / "m.safetensors")
        loaded = pl.SequenceGenerator.load(tmp_path / "m.safetensors")
        assert np.isnan(loaded.history_["val_loss"]).all()

    def test_a_failed_write_leaves_the_old_file(self, fitted, tmp_path, monkeypatch):
        path = tmp_path / "m.safetensors"
        fitted.save(path)
        before = path.read_bytes()

        def full(*_):
            raise OSError("no space left on device")

        monkeypatch.setattr("pianolstm.files.os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            fitted.save(path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]

    def test_files_that_are_no_model(self, fitted, tmp_path):
        from safetensors.numpy import load_file, save_file

        path = tmp_path / "m.safetensors"
        fitted.save(path)
        whole = path.read_bytes()
        load = pl.SequenceGenerator.load
        with pytest.raises(pl.ModelFileError, match="there is no such file"):
            load(tmp_path / "none.safetensors")
        for n in (0, 5, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:n])
            with pytest.raises(pl.ModelFileError, match="may be cut short: save the model again"):
                load(path)
        path.write_bytes(b"MThd" + bytes(100))
        with pytest.raises(pl.ModelFileError, match=r"expected a whole \.safetensors file"):
            load(path)
        save_file({"a": np.zeros(3)}, path)
        with pytest.raises(pl.ModelFileError, match="holds arrays but no pianolstm model"):
            load(path)
        path.write_bytes(whole.replace(b'"format_version":"1"', b'"format_version":"9"'))
        with pytest.raises(pl.ModelFileError, match="format version 9, this release"):
            load(path)
        path.write_bytes(whole)
        arrays = load_file(path)
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
        changed = dict(arrays)
        del changed["params.dense.bias"]
        save_file(changed, path, metadata)
        with pytest.raises(pl.ModelFileError, match=r"dense\.bias of shape \(8,\) is missing"):
            load(path)
        changed = {**arrays, "params.dense.bias": np.zeros(3, np.float32)}
        save_file(changed, path, metadata)
        with pytest.raises(
            pl.ModelFileError, match=r"dense\.bias has shape \(3,\).*call for \(8,\)"
        ):
            load(path)
        save_file(arrays, path, {**metadata, "header": "{}"})
        with pytest.raises(pl.ModelFileError, match="header is not that of a pianolstm model"):
            load(path)

    def test_saving_into_no_folder(self, fitted, tmp_path):
        with pytest.raises(pl.ModelFileError, match="there is no folder"):
            fitted.save(tmp_path / "none" / "m.safetensors")


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"arch": "gru"}, "arch must be one of lstm, bilstm, .*got 'gru'"),
            ({"window_size": 1}, "window_size must be at least 2; got 1"),
            ({"units": 2.5}, r"units must be a whole number; got 2\.5"),
            ({"embedding": 0}, "embedding must be at least 1"),
            ({"dropout": 1.0}, "dropout must be between 0 and 0.95"),
            ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
            ({"clip_norm": -1}, "clip_norm must be at least 0"),
            ({"batch_size": True}, "batch_size must be a whole number"),
            ({"max_epochs": 0}, "max_epochs must be at least 1"),
            ({"validation_fraction": 2}, "validation_fraction must be between 0 and 1"),
            ({"n_iter_no_change": 0}, "n_iter_no_change must be at least 1"),
            ({"time_budget": -1}, "time_budget must be at least 0"),
            ({"augment": 1.5}, "augment must be a whole number; got 1.5"),
            ({"augment": 61}, "augment must be between 0 and 60; got 61"),
            ({"learning_rate": "fast"}, "learning_rate must be a finite number; got 'fast'"),
            ({"learning_rate": lambda step: -1.0 * step}, "the schedule gave -1.0 at step 1"),
            ({"learning_rate": lambda step: float("nan")}, "the schedule gave nan at step 0"),
            ({"optimizer": ["adam"]}, r"optimizer must be one of adam, .*got \['adam'\]"),
            ({"optimizer": float}, "must make an optax.GradientTransformation .* made 0.0"),
            ({"optimizer": "adm"}, "optimizer must be one of adam, .*callable.*; got 'adm'"),
            (
                {"optimizer": lambda rate: optax.adam(2 * rate)},
                "can't be pickled .*functools",
            ),
            ({"checkpoint_minutes": 5}, "checkpoint_minutes=5 needs a checkpoint_dir"),
            ({"batch_size": "big"}, "batch_size must be a whole number; got 'big'"),
            ({"arch": "hybrid", "window_size": 25}, "even window_size; got 25, try 26"),
            ({"random_state": -1}, r"random_state must be an int from 0 .*got -1"),
            ({"random_state": "x"}, "random_state must be an int"),
        ],
    )
    def test_parameters(self, changes, match, pieces):
        with pytest.raises(pl.InvalidInputError, match=match):
            tiny(**changes).fit(pieces)

    def test_what_is_no_list_of_pieces(self, pieces):
        array = np.asarray(pieces[0])
        for X, match in (
            ([], "X is empty"),
            (array, r"one piece.*Wrap it in a list"),
            (pieces[0], r"one piece.*Wrap it in a list"),
            ([array.T], r"time first.*array\.T"),
            ([array.astype(int) * 200], "between 0 and 127"),
            ([pieces[0], pl.PianoRoll.from_notes([0], [9], [60], fs=10)], "fs=10"),
            (["a.mid"], "holds paths"),
            ([pieces[0], pieces[0][:0]], r"X\[1\] has no frames"),
        ):
            with pytest.raises(pl.InvalidInputError, match=match):
                tiny().fit(X)

    def test_what_is_no_callback_and_no_tokenizer(self, pieces):
        for changes, match in (
            ({"callbacks": [print]}, r"callbacks\[0\] is <built-in function print>"),
            ({"callbacks": pl.callbacks.ProgressBar()}, r"Wrap one in a list: \[callback\]"),
            ({"callbacks": [pl.callbacks.ProgressBar]}, r"give an object of it: ProgressBar\(\)"),
            ({"tokenizer": pl.ChordTokenizer}, r"the class ChordTokenizer \(give an object of it"),
            ({"tokenizer": FrozenEstimator(pl.NgramBaseline())}, "tokenizer must be a ChordTok"),
            ({"clip_norm": 0}, "clip_norm must be above 0"),
            ({"spell": 1}, "spell must be True or False; got 1"),
            ({"checkpoint_dir": 3}, "checkpoint_dir must be a path or None; got 3"),
        ):
            with pytest.raises(pl.InvalidInputError, match=match):
                tiny(**changes).fit(pieces)
        with pytest.raises(NotFittedError):
            tiny(tokenizer=FrozenEstimator(pl.ChordTokenizer())).fit(pieces)

    def test_files_and_objects_of_other_programs_are_read_on_the_grid(
        self, fitted, pieces, tmp_path
    ):
        midi, path = pieces[1].to_midi(), tmp_path / "piece.mid"
        midi.write(str(path))
        file = mido.MidiFile(path)
        for source in (path, str(path), midi, file, path.read_bytes()):
            assert fitted.score([source, pieces[0]]) == fitted.score([pieces[1], pieces[0]])
            expected = fitted.generate(9, prime=pieces[1], random_state=0)
            assert fitted.generate(9, prime=source, random_state=0) == expected
            several = fitted.generate(
                9, n_pieces=2, prime=[None, source], random_state=[4, 0], temperature=np.array(1.0)
            )
            assert several[1] == expected
        stream = fitted.stream(prime=path, random_state=0)
        assert next(stream.blocks(9)) == expected
        with pytest.raises(pl.MidiError, match=r"gone\.mid: there is no such file"):
            fitted.generate(8, prime="gone.mid")

    def test_a_piece_too_short_to_be_split(self):
        with pytest.raises(pl.InvalidInputError, match=r"expected 72 frames or more.*got 71"):
            tiny().fit([cycle(71)])
        tiny(max_epochs=1).fit([cycle(72)])

    def test_a_fraction_that_holds_out_everything(self, pieces):
        with pytest.raises(pl.InvalidInputError, match="one part would be empty"):
            tiny(validation_fraction=0.9).fit(pieces)

    def test_an_unknown_chord_where_none_is_allowed(self, pieces):
        tokenizer = pl.ChordTokenizer(unknown="error").fit([cycle(30)])
        with pytest.raises(pl.InvalidInputError, match="does not know"):
            tiny(tokenizer=FrozenEstimator(tokenizer)).fit(pieces)

    def test_before_fit(self, pieces):
        model = tiny()
        for call in (
            lambda: model.generate(5),
            lambda: model.score(pieces),
            lambda: model.score_samples(pieces),
            lambda: model.save("m.safetensors"),
        ):
            with pytest.raises(NotFittedError, match="is not fitted yet"):
                call()

    def test_generating(self, pieces, fitted):
        other_fs = pl.PianoRoll.from_notes([0], [9], [60], fs=10)
        beats = pl.PianoRoll.from_notes([0], [9], [60], fs=20, grid="beats")
        for arguments, match in (
            ({"n_frames": 0}, "n_frames must be at least 1"),
            ({"n_frames": 2.5}, "n_frames must be a whole number"),
            ({"n_frames": 5, "temperature": -1}, "temperature must be at least 0"),
            ({"n_frames": 5, "temperature": float("inf")}, "temperature must be a finite"),
            ({"n_frames": 5, "random_state": 2**32}, "random_state must be an int"),
            ({"n_frames": 5, "prime": other_fs}, r"prime\[0\] has fs=10.*expected fs=20"),
            ({"n_frames": 5, "prime": beats}, r"prime\[0\] .*grid of beats; expected"),
            ({"n_frames": 5, "prime": np.zeros((128, 30))}, "time first"),
            ({"n_frames": 5, "top_k": 0}, "top_k must be at least 1"),
            ({"n_frames": 5, "top_p": 1.5}, "top_p must be between 0 and 1"),
            ({"n_frames": 5, "top_p": 0}, "top_p must be above 0"),
            ({"n_frames": 5, "repetition_penalty": 0.5}, "repetition_penalty must be at least 1"),
            ({"n_frames": 5, "n_candidates": 0}, "n_candidates must be at least 1"),
            ({"n_frames": 5, "deadline": -1}, "deadline must be at least 0"),
            ({"n_frames": 5, "constraints": "C major"}, "constraints must be an object of"),
            ({"n_frames": 5, "temperature": [1, 2]}, "temperature is a list, which needs n_pieces"),
            ({"n_frames": 5, "n_pieces": 3, "top_k": [1, 2]}, "top_k has 2 entries for n_pieces=3"),
            ({"n_frames": 5, "n_pieces": 2, "prime": pieces[:1]}, "prime has 1 entries"),
            ({"n_frames": 5, "n_pieces": 2, "random_state": [1]}, "random_state has 1 entries"),
            ({"n_frames": 5, "prime": pieces[:1]}, "prime is a list, which needs n_pieces=?"),
        ):
            with pytest.raises(pl.InvalidInputError, match=match):
                fitted.generate(**arguments)

    def test_scoring(self, pieces, fitted):
        with pytest.raises(pl.InvalidInputError, match="fs=10"):
            fitted.score([pl.PianoRoll.from_notes([0], [9], [60], fs=10)])
        with pytest.raises(pl.InvalidInputError, match="Wrap it in a list"):
            fitted.score(pieces[0])

    def test_the_estimator_is_sklearns(self):
        model = tiny(arch="stacked")
        again = clone(model)
        assert again.get_params() == model.get_params()
        assert again is not model
        with pytest.raises(ValueError, match="Invalid parameter"):
            model.set_params(layers=3)


@pytest.fixture(scope="module")
def model(pieces):
    return tiny(spell=True, recall=True, augment=3, max_epochs=4).fit(pieces)


def test_what_was_learned_goes_on_with_its_network(pieces, fitted):
    """Settings of another network are of no account until the next fit, and never mixed."""
    model = copy.deepcopy(fitted)
    expected = model.score(pieces)
    model.set_params(units=16, spell=True)
    assert model.score(pieces) == expected
    assert np.array_equal(model.generate(20, random_state=1), fitted.generate(20, random_state=1))
    with pytest.raises(pl.InvalidInputError, match=r"goes on with units=8; got units=16"):
        model.partial_fit(pieces)
    with pytest.raises(pl.InvalidInputError, match=r"spell=False; got spell=True"):
        model.set_params(units=8, warm_start=True).fit(pieces)


def test_extending_by_a_long_chord_reaches_the_writer(pieces):
    """Though the vocabulary stays as it is."""
    model = tiny().fit(pieces)
    before = model._decoder().digest
    roll = pl.PianoRoll.from_notes([0], [300], [60], fs=pieces[0].fs, grid=pieces[0].grid)
    model.extend([roll])
    n = model.tokenizer_.n_tokens_
    longer = pl.PianoRoll.from_notes([0], [500], [60], fs=pieces[0].fs, grid=pieces[0].grid)
    model.extend([longer])
    assert model.tokenizer_.n_tokens_ == n
    assert model._decoder().usual_hold == model._model.longest_hold == 500
    assert model._decoder().digest != before


class TestSpelling:
    """Music with chords outside the vocabulary."""

    def test_music_has_chords_that_the_corpus_lacks(self, pieces, model):
        music = model.generate(200, n_pieces=8, random_state=0)
        assert model.tokenizer_.coverage(music) < 1
        closed = tiny(spell=False).fit(pieces).generate(200, random_state=0)
        assert model.tokenizer_.coverage([closed]) == 1

    def test_a_piece_is_the_same_in_any_company(self, pieces, model):
        settings = {"prime": pieces[0][:10], "temperature": 1.3}
        together = model.generate(100, n_pieces=3, random_state=[5, 1, 2], **settings)
        alone = model.generate(100, random_state=1, **settings)
        stream = model.stream(random_state=1, **settings)
        frames = [next(stream) for _ in range(60)]
        elsewhere = model.stream(state=stream.state)
        frames += [next(elsewhere) for _ in range(40)]
        assert together[1] == alone
        assert [f.pitches for f in frames] == [
            tuple(np.flatnonzero(row)) for row in np.asarray(alone)
        ]

    def test_a_model_from_a_file_writes_and_scores_the_same(self, pieces, model, tmp_path):
        model.save(tmp_path / "model.safetensors")
        loaded = pl.SequenceGenerator.load(tmp_path / "model.safetensors")
        assert loaded.generate(40, random_state=3) == model.generate(40, random_state=3)
        assert loaded.score(pieces) == model.score(pieces)

    def test_scores_per_frame_note_and_second(self, pieces, model):
        nats = model.surprise(pieces)
        assert [len(n) for n in nats] == [len(p) for p in pieces]
        total = -sum(n.sum() for n in nats)
        frames = sum(map(len, pieces))
        assert model.score(pieces) == pytest.approx(total / frames)
        assert model.score(pieces, unit="bits") == pytest.approx(total / frames / np.log(2))
        assert model.score(pieces, per="second") == pytest.approx(total / (frames / 20))
        notes = [len(p.notes) for p in pieces]
        assert model.score(pieces, per="note") == pytest.approx(total / sum(notes))
        each = model.score_samples(pieces, per="note", unit="bits")
        np.testing.assert_allclose(
            each, [-n.sum() / k / np.log(2) for n, k in zip(nats, notes, strict=True)]
        )
        np.testing.assert_allclose(
            model.surprise(pieces[:2], unit="bits")[1], nats[1] / np.log(2), rtol=1e-5
        )

    def test_probabilities_of_the_vocabulary(self, pieces, model):
        piece = pieces[0].transpose(1)  # has other chords too
        (p,) = model.predict_proba([piece])
        assert p.shape == (len(piece), model.tokenizer_.n_tokens_)
        assert (p >= 0).all() and (p.sum(1) <= 1 + 1e-6).all()
        assert p.sum(1).min() < 0.999  # some is left for other chords
        (tokens,) = model.tokenizer_.transform([piece])
        tokens = np.asarray(tokens)
        known = tokens < p.shape[1]
        likelihood = np.exp(-model.surprise([piece])[0])
        assert known.any() and not known.all()
        # Spelling adds a little to what the vocabulary says.
        by_row = p[known, tokens[known]]
        assert (by_row <= likelihood[known] * (1 + 1e-5)).all()
        assert by_row.sum() > 0.5 * likelihood[known].sum()

    def test_new_chords_join_the_vocabulary(self, pieces):
        model = tiny(spell=True, recall=True, augment=3, max_epochs=4).fit(pieces)
        others = [piece.transpose(2) for piece in pieces[:3]]
        before, n_before = model.score(others), model.tokenizer_.n_tokens_
        assert model.extend(others) is model
        assert model.tokenizer_.coverage(others) == 1
        assert model.tokenizer_.n_tokens_ > n_before
        assert model.score(others) > before - 0.5
        assert len(model.generate(20, random_state=0)) == 20
        frozen = pl.SequenceGenerator(tokenizer=FrozenEstimator(model.tokenizer_))
        frozen.set_params(units=8, embedding=6, max_epochs=1, window_size=24, spell=False)
        with pytest.raises(pl.InvalidInputError, match="The tokenizer is frozen"):
            frozen.fit(pieces).extend(others)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"per": "bar"}, """per must be "frame", "note" or "second"; got 'bar'"""),
            ({"unit": "dB"}, """unit must be "nats" or "bits"; got 'dB'"""),
        ],
    )
    def test_units_that_there_are_not(self, pieces, model, settings, message):
        with pytest.raises(pl.InvalidInputError, match=message):
            model.score(pieces, **settings)

    def test_silence_has_no_notes(self, model):
        silence = pl.PianoRoll.from_array(np.zeros((9, 128)))
        assert np.isfinite(model.score([silence]))
        with pytest.raises(pl.InvalidInputError, match=r"X\[0\] has no notes"):
            model.score([silence], per="note")


NUMPYS = {
    "int64": lambda value: np.array([value])[0],
    "no_axes": np.array,
}


@pytest.mark.parametrize("kind", NUMPYS)
def test_numbers_of_numpy_do_as_pythons(kind, pieces, tmp_path):
    make = NUMPYS[kind]
    settings = {
        "window_size": 16,
        "units": 8,
        "embedding": 6,
        "spell": False,
        "recall": True,
        "dropout": 0.25,
        "learning_rate": 0.01,
        "clip_norm": 1.0,
        "batch_size": 4,
        "augment": 1,
        "max_epochs": 2,
        "early_stopping": True,
        "validation_fraction": 0.25,
        "n_iter_no_change": 3,
        "warm_start": False,
        "checkpoint_minutes": 5.0,
        "time_budget": 1000.0,
        "verbose": 0,
        "random_state": 3,
    }
    numpys = {name: make(value) for name, value in settings.items()}
    models = []
    for i, given in enumerate((settings, numpys)):
        tokenizer = pl.ChordTokenizer(max_tokens=50 if i == 0 else make(50), min_count=make(1))
        model = pl.SequenceGenerator(
            **given, arch="hybrid", tokenizer=tokenizer, checkpoint_dir=tmp_path / str(i)
        )
        model.fit(pieces).save(tmp_path / f"{i}.safetensors")
        models += [model, pl.SequenceGenerator.load(tmp_path / f"{i}.safetensors")]
        models.append(pl.SequenceGenerator.load(tmp_path / str(i) / "checkpoint.safetensors"))
    scores = {model.score(pieces) for model in models}
    assert len(scores) == 1
    music = [m.generate(n, n_pieces=n, random_state=n) for m in models for n in (3, make(3))]
    assert all(music[0] == other for other in music)
    assert models[4].get_params(deep=False)["units"] == 8


def test_a_grid_search_over_numpy_numbers_can_be_saved(pieces, tmp_path):
    search = GridSearchCV(tiny(max_epochs=1), {"window_size": np.arange(24, 33, 8)}, cv=2)
    best = search.fit(pieces).best_estimator_
    best.save(tmp_path / "best.safetensors")
    loaded = pl.SequenceGenerator.load(tmp_path / "best.safetensors")
    assert loaded.score(pieces) == best.score(pieces)
    assert loaded.window_size == search.best_params_["window_size"]
