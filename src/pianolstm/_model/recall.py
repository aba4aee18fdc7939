"""What a piece has had before, recalled: music repeats itself, and networks forget.

Where the last steps of a piece have come before in it, the chord that followed them then is likely
to follow again, and the last one to last as long as then. How likely, the network says (see
`pianolstm._model.gates`).

Of all places where the last steps have come before, one is recalled where most agree, by the
lengths of `LENGTHS`; of those the latest. With the clock of frames, frames agree that have the same
chord for as many frames: else each held chord would agree with itself. (Mixing a model with what
followed a like history is the cache of Kuhn and De Mori 1990; long matches as contexts are those of
PPM*, Cleary and Teahan 1997.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pianolstm.chords import ages
from pianolstm.vocabulary import Corpus

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Steps that agree, the classes that are told apart."""

HALVES = {2: (1, 1), 3: (2, 1), 4: (2, 2), 6: (4, 2), 8: (4, 4)}
HALVES |= {12: (8, 4), 16: (8, 8), 24: (16, 8), 32: (16, 16)}
"""Each length as the sum of two shorter ones."""

MEMORY = 4096
"""Steps that are remembered."""

LONGEST_PASSAGE = 128
"""Steps of a passage whose repeats are counted and limited."""

MOST_AGREEING = 512
"""Steps that agree which are counted: passages that come again at once may be as long."""

N_TIMES = 5
"""Classes of how often a passage has just come: once, twice, ..., the last from five times on."""

N_LAGS = 14
"""Classes of how far back it lies: octaves of steps."""


class Sources(NamedTuple):
    """What is recalled along a piece, before each step."""

    classes: np.ndarray  # int64 (n,): how many steps agree, a number of `LENGTHS`, or 0 for none
    sources: np.ndarray  # int64 (n,): the step that is recalled, an earlier one; 0 for none
    times: np.ndarray  # int64 (n,): how often the passage has just come, from 1 on; 0 for none


class Recalled(NamedTuple):
    """What is recalled along a piece, as networks take it; of each step, and of its end."""

    classes: np.ndarray  # int32 (n + 1,)
    times: np.ndarray  # int32 (n + 1,): a number below `N_TIMES`
    lags: np.ndarray  # int32 (n + 1,): a number below `N_LAGS`
    ids: np.ndarray  # int32 (n + 1,): of the chord that is recalled
    durations: np.ndarray  # int32 (n + 1,): frames that the chord before it lasted

    @classmethod
    def along(
        cls,
        corpus: Corpus,
        number: int,  # of the piece
        *,
        spell: bool,
    ) -> Recalled:
        """Without spelling no chord outside the vocabulary is recalled."""
        tokens = np.append(corpus.tokens[number], 0)
        classes, sources, times = find_sources(corpus, tokens)
        ids, lags = tokens[sources], np.arange(len(tokens)) - sources
        if not spell:
            classes = np.where(corpus.rows[ids] >= 0, classes, 0)
        columns = classes, times_class(times), lag_class(lags), ids
        # What lasted is known of steps that a source has: each has one before it.
        durations = corpus.durations[number][np.maximum(sources - 1, 0)]
        return cls(*(column.astype(np.int32) for column in (*columns, durations)))


def times_class(times: np.ndarray) -> np.ndarray:  # int (…), from 1 on -> int (…)
    """The number of how often a passage has come."""
    return np.clip(times - 1, 0, N_TIMES - 1)


def lag_class(lags: np.ndarray) -> np.ndarray:  # int (…), from 1 on -> int (…)
    """The number of how far back a step lies."""
    return np.clip(np.log2(np.maximum(lags, 1)), 0, N_LAGS - 1).astype(np.int64)


def shares(corpus: Corpus, recalled: list[Recalled]) -> np.ndarray:  # float64 (2, 1 + len(LENGTHS))
    """How often what is recalled comes, by class: the chord, and how long the one before lasts."""
    counts = np.zeros((3, 1 + len(LENGTHS)), np.int64)
    for tokens, durations, its in zip(corpus.tokens, corpus.durations, recalled, strict=True):
        classes = its.classes[:-1]
        came = its.ids[:-1] == tokens
        lasted = its.durations[:-1] == np.roll(durations, 1)
        for row, which in zip(counts, (classes, classes[came], classes[lasted]), strict=True):
            row += np.bincount(which, minlength=len(row))
    return (counts[1:] + 0.5) / (counts[0] + 1)


def find_sources(
    corpus: Corpus,
    tokens: np.ndarray,  # int32 (n,): ids of a piece's chords
) -> Sources:
    """What is recalled along a piece."""
    n = len(tokens)
    classes, sources = np.zeros((2, n), np.int64)
    # The last place of the ring has no duration yet.
    farthest = MEMORY - (corpus.clock == "changes")
    # Contexts that end with each frame, numbered so that like ones have the same number; -1 where
    # the piece is too young.
    contexts = {1: _steps(corpus, tokens)}
    for number, length in enumerate(LENGTHS, 1):
        if length > 1:
            first, second = HALVES[length]
            before = np.concatenate([np.full(second, -1), contexts[first]])[:n]
            pairs = np.stack([before, contexts[second]], axis=1)
            contexts[length] = np.where(before < 0, -1, _numbered(pairs))
        context = contexts[length]
        order = np.argsort(context, kind="stable")
        same = (context[order][1:] == context[order][:-1]) & (context[order][1:] >= 0)
        lag = np.zeros(n, np.int64)
        lag[order[1:]] = np.where(same, np.diff(order), 0)
        # What follows is recalled in the next frame.
        at = np.flatnonzero((lag[:-1] > 0) & (lag[:-1] <= farthest)) + 1
        classes[at], sources[at] = number, at - lag[at - 1]
    return Sources(classes, sources, _times_in_a_row(contexts[1], classes, sources))


def _times_in_a_row(
    frames: np.ndarray,  # int (n,): numbers of frames, the same for like ones
    classes: np.ndarray,  # int64 (n,)
    sources: np.ndarray,  # int64 (n,)
) -> np.ndarray:  # int64 (n,)
    """How often the passage has come that each step goes on with; by counting back."""
    at = np.flatnonzero(classes > 0)
    back, lag = sources[at], at - sources[at]
    times = np.zeros(len(frames), np.int64)
    length = np.zeros(len(at), np.int64)
    is_open = np.ones(len(at), bool)
    for n in range(MOST_AGREEING):
        which = np.flatnonzero(is_open)
        place = back[which] - 1 - n
        agrees = place >= 0
        agrees[agrees] &= frames[place[agrees]] == frames[at[which][agrees] - 1 - n]
        length[which[agrees]] += 1
        is_open[which[~agrees]] = False
        if not agrees.any():
            break
    times[at] = 1 + length // lag
    return times


def most_in_a_row(corpus: Corpus) -> int:
    """Most times in a row that any piece says a passage; of two steps or more, not all the same."""
    most = 1
    for tokens in corpus.tokens:
        steps, n = _steps(corpus, tokens), len(tokens)
        changed = np.cumsum(np.append(False, steps[1:] != steps[:-1])[:n])
        for lag in range(2, min(LONGEST_PASSAGE, n - 1) + 1):
            breaks = np.flatnonzero(np.r_[True, steps[lag:] != steps[:-lag], True])
            length, last = np.diff(breaks) - 1, breaks[1:] + lag - 2
            is_more = length >= most * lag
            is_more[is_more] = changed[last[is_more]] > changed[last[is_more] - lag + 1]
            most = max(most, 1 + int(np.max(length[is_more], initial=0)) // lag)
    return most


def _steps(
    corpus: Corpus,
    tokens: np.ndarray,  # int32 (n,): ids of a piece's chords
) -> np.ndarray:  # int64 (n,)
    """Numbers of steps, the same for like ones."""
    # Of chords that begin the timing is no part: performances never repeat it.
    is_held = corpus.clock == "frames"
    held = ages(corpus.chords[tokens]) if is_held else np.zeros(len(tokens), np.int64)
    return _numbered(np.stack([tokens, held], axis=1))


def _numbered(
    pairs: np.ndarray,  # int (n, 2)
) -> np.ndarray:  # int64 (n,)
    """Rows of two numbers as one, the same for like rows."""
    wide = pairs[:, 0].astype(np.int64) * (int(pairs[:, 1].max(initial=0)) + 1) + pairs[:, 1]
    return np.unique(wide, return_inverse=True)[1].reshape(-1)
