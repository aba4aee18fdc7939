"""Token sequences as the networks take them, and what a chord outside the vocabulary costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from pianolstm.chords import as_words, find, held_on, unique_chords, unpack
from pianolstm.tokens import TokenCorpus, count_frames

ROW_MULTIPLE = 256
"""The vocabulary is padded to a multiple of this, so that few sizes are compiled."""


CHUNK = 1 << 14
"""Chords whose bits are unpacked at once."""

Clock: TypeAlias = Literal["frames", "changes"]
"""What a step of a network is: a frame, or a chord that begins and the frames that it lasts."""

CLOCKS: tuple[Clock, ...] = ("frames", "changes")

N_POSITIONS = 48
"""Metrical positions that are told apart: the twelfths of a quarter note, in four of these."""

END, OTHER = -2, -1
"""The last rows of the softmax: the piece ends; any chord outside the vocabulary."""


def n_rows(n_tokens: int) -> int:
    """Rows of the softmax for a vocabulary, padded.

    The last two are `END` and `OTHER`.
    """
    return -(-(n_tokens + 2) // ROW_MULTIPLE) * ROW_MULTIPLE


@dataclass(frozen=True, eq=False)
class Corpus:
    """Pieces as tokens, seen through a vocabulary."""

    tokens: Sequence[np.ndarray]  # int32 (n_steps,) for each piece: ids, rows of `chords`
    chords: np.ndarray  # uint64 (n_chords, 4): bits of each id
    rows: np.ndarray  # int32 (n_chords,): the chord's number in the vocabulary, -1 where outside
    held: np.ndarray  # int64 (n_chords,): id of each chord held on, nothing in it struck again
    vocabulary: np.ndarray  # uint64 (n_tokens, 4): bits of the vocabulary's chords
    durations: Sequence[np.ndarray]  # int32 (n_steps,): frames of each step, from 1 on
    clock: Clock = "frames"
    beat: float = 0.0  # frames a quarter note that steps are placed by; 0 where they are not

    @classmethod
    def of(
        cls,
        vocabulary: np.ndarray,  # uint64 (n_tokens, 4)
        corpus: TokenCorpus,
        clock: Clock = "frames",
    ) -> Corpus:
        """See a corpus through a vocabulary."""
        held = held_on(corpus.chords)
        lacking = unique_chords(held[find(corpus.chords, held) < 0])[0]
        chords = np.concatenate([corpus.chords, lacking])
        rows = find(vocabulary, chords).astype(np.int32)
        held = find(chords, held_on(chords))
        if clock == "frames":
            tokens = corpus.tokens
            durations = [np.broadcast_to(np.int32(1), len(piece)) for piece in tokens]
        else:
            tokens, durations = zip(*(runs(piece, held) for piece in corpus.tokens), strict=True)
        beat = beat_of(corpus.fs, corpus.grid, clock)
        return cls(tokens, chords, rows, held, vocabulary, durations, clock, beat)

    def take(self, n: int) -> Corpus:
        """The first n pieces."""
        return replace(self, tokens=self.tokens[:n], durations=self.durations[:n])

    @property
    def timing(self) -> list[np.ndarray]:  # int32 (n_steps, 2) for each piece
        """Frames that each step lasts, and the metrical position at which it ends."""
        return [
            np.stack([frames, metrical_position(np.cumsum(frames), self.beat)], 1).astype(np.int32)
            for frames in self.durations
        ]

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)

    @property
    def end(self) -> int:
        """Id that stands for the end of a piece, as a target only.

        Without an end to learn, the long last chords of pieces teach that long chords never end,
        and music freezes on them.
        """
        return len(self.chords)

    def counts(self) -> np.ndarray:  # int64 (n_chords,)
        """Steps of each id."""
        return count_frames(self.tokens, len(self.chords))

    def onsets(self) -> np.ndarray:  # int64 (n_pieces,)
        """Notes of each piece, by their onsets."""
        counts = []
        for tokens in self.tokens:
            chords = self.chords[tokens]
            before = np.concatenate([np.zeros((1, 2), np.uint64), chords[:-1, :2]])
            begun = (chords[:, :2] & ~before) | chords[:, 2:]
            counts.append(int(np.bitwise_count(begun).sum()))
        return np.array(counts, np.int64)

    def longest_hold(self) -> int:
        """Most frames that a chord lasts before another follows; last chords of pieces aside."""
        holds, last = [], []
        for tokens, durations in zip(self.tokens, self.durations, strict=True):
            lengths = durations
            if self.clock == "frames":
                begins = np.flatnonzero(np.append(True, tokens[1:] != tokens[:-1]))
                lengths = np.diff(begins, append=len(tokens))
            holds.append(lengths[:-1])
            last.append(lengths[-1:])
        followed = np.concatenate(holds)
        return int(followed.max() if len(followed) else np.concatenate(last).max())

    def begun_once(self) -> np.ndarray:  # int64 (n,)
        """Ids of vocabulary chords that the corpus begins just once, in the vocabulary's order."""
        begun = np.zeros(len(self.chords), np.int64)
        for tokens in self.tokens:
            begins = np.append(True, tokens[1:] != tokens[:-1])[: len(tokens)]
            begins |= self.clock == "changes"
            begun += np.bincount(tokens[begins], minlength=len(begun))
        ids = np.flatnonzero((begun == 1) & (self.rows >= 0))
        return ids[np.argsort(self.rows[ids])]


def beat_of(fs: float, grid: str, clock: Clock) -> float:
    """Frames a quarter note that the steps of a network are placed by; 0 where they are not."""
    return fs if grid == "beats" and clock == "changes" else 0.0


def metrical_position(
    frames: Any,  # int (…): since the piece began
    beat: float,  # frames a quarter note
) -> Any:  # int (…)
    """Where frames stand in four quarter notes; 0 where there is no beat. NumPy or JAX."""
    if beat == 0:
        return 0 * frames
    n = 4 * round(beat)
    return frames % n * N_POSITIONS // n


def runs(
    tokens: np.ndarray,  # int32 (n_frames,)
    held: np.ndarray,  # int64 (n_chords,): id of each chord held on
) -> tuple[np.ndarray, np.ndarray]:  # int32 (n_chords,), int32 (n_chords,)
    """Chords that begin, and for how many frames each lasts: until another begins."""
    begins = np.append(True, tokens[1:] != held[tokens[:-1]])[: len(tokens)]
    at = np.flatnonzero(begins)
    return tokens[at], np.diff(at, append=len(tokens)).astype(np.int32)


class PitchBernoulli:
    """Each pitch on its own: what a chord outside the vocabulary costs, given that it is one.

    Every pitch sounds with its share of the training frames; a pitch that sounds in two frames in
    a row is struck again with one common share. Counts start at one half (Krichevsky and Trofimov
    1981), so that no chord is impossible.
    """

    def __init__(
        self,
        sounding: np.ndarray,  # float64 (128,): probability of each pitch
        again: float,  # that a pitch that goes on is struck again
    ) -> None:
        self.sounding = np.asarray(sounding, np.float64)
        self.again = float(again)

    @classmethod
    def fit(cls, corpus: Corpus) -> PitchBernoulli:
        """Count over the frames of a corpus."""
        frames = corpus.counts()
        sounding = np.zeros(128)
        for a in range(0, len(frames), CHUNK):
            part = slice(a, a + CHUNK)
            sounding += frames[part] @ unpack(corpus.chords[part])[:, :128].astype(np.float64)
        going_on, again = 0, 0
        for tokens in corpus.tokens:
            chords = corpus.chords[tokens]
            going_on += int(np.bitwise_count(chords[1:, :2] & chords[:-1, :2]).sum())
            again += int(np.bitwise_count(chords[1:, 2:]).sum())
        return cls((sounding + 0.5) / (frames.sum() + 1), (again + 0.5) / (going_on + 1))

    def log_likelihood(
        self,
        chords: np.ndarray,  # uint64 (n, 4)
        before: np.ndarray,  # uint64 (n, 4)
    ) -> np.ndarray:  # float64 (n,)
        """Nats of each chord after the chord of the frame before it."""
        sounding = unpack(chords)[:, :128].astype(np.float64)
        log_p = sounding @ np.log(self.sounding) + (1 - sounding) @ np.log1p(-self.sounding)
        going_on = np.bitwise_count(chords[:, :2] & before[:, :2]).sum(1).astype(np.float64)
        again = np.bitwise_count(chords[:, 2:]).sum(1).astype(np.float64)
        return log_p + again * np.log(self.again) + (going_on - again) * np.log1p(-self.again)


def padded_vocabulary(
    vocabulary: np.ndarray,  # uint64 (n_tokens, 4)
) -> np.ndarray:  # uint32 (n_rows, 8)
    """Bits of the rows of the softmax; zeros in the padding."""
    words = np.zeros((n_rows(len(vocabulary)), 8), np.uint32)
    words[: len(vocabulary)] = as_words(vocabulary)
    return words
