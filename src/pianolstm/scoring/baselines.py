"""Machines that write no music, for scores to tell from it: notes by chance, chords in any order.

Each keeps something of real music and loses the rest. Random numbers come from a
`numpy.random.Generator`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pianolstm.chords import N_WORDS
from pianolstm.rolls import N_PITCHES, PianoRoll
from pianolstm.tokens import ChordSequence, TokenCorpus, decode
from pianolstm.vocabulary import Corpus


def notes_by_chance(
    rolls: Sequence[PianoRoll], n_frames: int, n_pieces: int, rng: np.random.Generator
) -> list[PianoRoll]:
    """Pieces in which each key sounds in each frame as often as in real music, and by chance.

    They have the corpus's pitches and no order in time at all.

    Parameters
    ----------
    rolls : sequence of PianoRoll
        Real music.
    n_frames, n_pieces : int
        How long, and how many.
    rng : numpy.random.Generator

    Returns
    -------
    list of PianoRoll
    """
    sounds = np.zeros(N_PITCHES)
    for roll in rolls:
        length = roll.notes["end"] - roll.notes["start"]
        sounds += np.bincount(roll.notes["pitch"], weights=length, minlength=N_PITCHES)
    share = sounds / sum(len(roll) for roll in rolls)
    planes = (rng.random((n_frames, N_PITCHES)) < share for _ in range(n_pieces))
    first = rolls[0]
    return [PianoRoll.from_array(plane, fs=first.fs, grid=first.grid) for plane in planes]


def chords_shuffled(rolls: Sequence[PianoRoll], rng: np.random.Generator) -> list[PianoRoll]:
    """Real pieces with their chords in another order.

    A chord begins where any note begins, ends or is struck again. The times at which chords begin
    stay where they are, so that pitches, chords and rhythm are real, and only the order is not.

    Parameters
    ----------
    rolls : sequence of PianoRoll
        Real music.
    rng : numpy.random.Generator

    Returns
    -------
    list of PianoRoll
        One for each roll, as long.
    """
    no_vocabulary = np.empty((0, N_WORDS), np.uint64)
    corpus = Corpus.of(no_vocabulary, TokenCorpus.of(rolls), "changes")
    shuffled = []
    for tokens, durations, roll in zip(corpus.tokens, corpus.durations, rolls, strict=True):
        tokens = rng.permutation(tokens)
        frames = np.repeat(corpus.held[tokens], durations)
        frames[np.cumsum(durations) - durations] = tokens
        sequence = ChordSequence(
            frames.astype(np.int32), fs=roll.fs, grid=roll.grid, tempo_map=roll.tempo_map
        )
        shuffled.append(decode(corpus.chords, sequence))
    return shuffled


def chord_bigram(
    rolls: Sequence[PianoRoll], n_frames: int, n_pieces: int, rng: np.random.Generator
) -> list[PianoRoll]:
    """Pieces drawn frame by frame from the bigram of chords that `NgramBaseline` fits.

    After a chord x that c frames of the corpus have, and d different chords follow, a chord comes
    from those frames' followers with the probability c / (c + d), and else from all frames.

    Parameters
    ----------
    rolls : sequence of PianoRoll
        Real music.
    n_frames, n_pieces : int
        How long, and how many.
    rng : numpy.random.Generator

    Returns
    -------
    list of PianoRoll
    """
    corpus = TokenCorpus.of(rolls)
    n = len(corpus.chords)
    before = np.concatenate([tokens[:-1] for tokens in corpus.tokens]).astype(np.int64)
    after = np.concatenate([tokens[1:] for tokens in corpus.tokens])
    every = np.concatenate(corpus.tokens)
    followed = np.bincount(before, minlength=n)
    followers = np.bincount(np.unique(before * n + after) // n, minlength=n)
    after = after[np.argsort(before, kind="stable")]  # chord by chord
    first = np.cumsum(followed) - followed
    frames = np.empty((n_pieces, n_frames), np.int32)
    begins = np.array([tokens[0] for tokens in corpus.tokens if len(tokens)])
    frames[:, 0] = rng.choice(begins, n_pieces)
    for t in range(1, n_frames):
        x = frames[:, t - 1]
        at = rng.random(n_pieces) * (followed[x] + followers[x])
        seen = first[x] + np.minimum(at, followed[x] - 1).astype(np.int64)
        by_chance = every[rng.integers(len(every), size=n_pieces)]
        frames[:, t] = np.where(at < followed[x], after[np.maximum(seen, 0)], by_chance)
    first = rolls[0]
    return [
        decode(corpus.chords, ChordSequence(tokens, fs=first.fs, grid=first.grid))
        for tokens in frames
    ]
