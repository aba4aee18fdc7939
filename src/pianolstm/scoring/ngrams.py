"""Chord counts as a yardstick: what a network must beat to have learned anything."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import Grid
from pianolstm.tokens import ChordTokenizer, Pieces, as_corpus
from pianolstm.vocabulary import Corpus, PitchBernoulli


class NgramBaseline(BaseEstimator):
    """Unigram or bigram of chords, interpolated and smoothed after Witten and Bell.

    A chord y after a chord x has the probability ``(c(x, y) + d(x) p(y)) / (c(x) + d(x))``: c
    counts in the training pieces, d is how many different chords follow x, and p the unigram,
    ``c(y) / (N + D)`` for one of the D chords of N training frames. What is left, ``D / (N + D)``,
    is the probability of any other chord, whose pitches then cost what they cost a
    `SequenceGenerator`: so the scores compare.

    Parameters
    ----------
    order : {1, 2}, default=2
        1 is the unigram, 2 the bigram.

    Attributes
    ----------
    tokenizer_ : ChordTokenizer
        Fitted on the training pieces.

    References
    ----------
    Witten and Bell (1991), The zero-frequency problem, method C.

    Examples
    --------
    >>> import pianolstm as pl
    >>> rolls = pl.datasets.load_chorales("train")
    >>> held_out = pl.datasets.load_chorales("validation")
    >>> unigram, bigram = (pl.NgramBaseline(order=n).fit(rolls).score(held_out) for n in (1, 2))
    >>> unigram < bigram < 0
    True
    """

    def __init__(self, *, order: int = 2) -> None:
        self.order = order

    def fit(self, X: Pieces, y: Any = None) -> NgramBaseline:
        """Count the chords of a corpus.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            One entry a piece.
        y : ignored

        Returns
        -------
        NgramBaseline
            Itself.
        """
        if self.order not in (1, 2):
            raise InvalidInputError(f"order must be 1 or 2; got {self.order!r}.")
        tokens = as_corpus(X)
        self.fs_ = tokens.fs
        self.grid_: Grid = tokens.grid
        self.tokenizer_ = ChordTokenizer().fit(tokens)
        corpus = Corpus.of(self.tokenizer_.vocabulary_, tokens)
        self._bernoulli = PitchBernoulli.fit(corpus)
        n = corpus.n_tokens
        self._counts = np.zeros(n, np.int64)
        np.add.at(self._counts, corpus.rows, corpus.counts())
        pairs = np.concatenate([self._pairs(self._seen(corpus.rows[t])) for t in corpus.tokens])
        self._pair_keys, self._pair_counts = np.unique(pairs, return_counts=True)
        before = self._pair_keys // (n + 1)
        self._followed = np.bincount(before, weights=self._pair_counts, minlength=n + 2)
        self._followers = np.bincount(before, minlength=n + 2)
        return self

    def score(self, X: Pieces, y: Any = None) -> float:
        """Mean log-likelihood in nats per frame, over all frames of all pieces.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            One entry a piece.
        y : ignored

        Returns
        -------
        float
            Higher is better; at most 0.
        """
        check_is_fitted(self, "tokenizer_")
        tokens = as_corpus(X, fs=self.fs_, grid=self.grid_)
        corpus = Corpus.of(self.tokenizer_.vocabulary_, tokens)
        n = corpus.n_tokens
        log_p = []
        for tokens in corpus.tokens:
            ids = self._seen(corpus.rows[tokens])
            p = self._unigram(ids)
            if self.order == 2:
                keys = self._pairs(ids)
                before = keys // (n + 1)
                at = np.searchsorted(self._pair_keys, keys)
                at = np.minimum(at, len(self._pair_keys) - 1)
                count = np.where(self._pair_keys[at] == keys, self._pair_counts[at], 0)
                followers, followed = self._followers[before], self._followed[before]
                p = np.where(
                    followed > 0,
                    (count + followers * p) / np.maximum(followed + followers, 1),
                    p,
                )
            piece = np.log(p)
            chords = corpus.chords[tokens]
            previous = np.concatenate([np.zeros((1, 4), np.uint64), chords[:-1]])
            unknown = ids == n
            piece[unknown] += self._bernoulli.log_likelihood(chords[unknown], previous[unknown])
            log_p.append(piece)
        return float(np.concatenate(log_p).mean())

    def _seen(self, rows: np.ndarray) -> np.ndarray:
        """Rows, n_tokens for any chord that the training pieces lack (the rest may be one)."""
        n = self.tokenizer_.n_tokens_
        rows = np.where(rows < 0, n, rows)
        return np.where(np.append(self._counts, 0)[rows] > 0, rows, n)

    def _unigram(self, ids: np.ndarray) -> np.ndarray:
        """Probability of each id; id n_tokens is any chord outside the vocabulary."""
        n_seen = np.count_nonzero(self._counts)
        return np.append(self._counts, n_seen)[ids] / (self._counts.sum() + n_seen)

    def _pairs(self, ids: np.ndarray) -> np.ndarray:
        """One number for each frame and the frame before it; a piece begins after id n + 1."""
        n = self.tokenizer_.n_tokens_
        ids = ids.astype(np.int64)
        return np.append(n + 1, ids[:-1]) * (n + 1) + ids
