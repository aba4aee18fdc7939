"""Sliding windows over token sequences, and batches of them for training.

Conventions
-----------
A batch is (batch, time). Inputs are the frames before their targets; every piece begins with
`START`, which stands for "nothing yet"; `PAD` fills a window that is shorter than the others.
Windows never cross pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pianolstm.checks import check_number
from pianolstm.exceptions import InvalidInputError
from pianolstm.tokens import ChordSequence, TokenCorpus

START = -1
"""Input before the first frame of a piece."""

PAD = -2
"""Input that is not there."""


@dataclass(frozen=True)
class WindowBatch:
    """A batch of windows, padded to one size.

    Attributes
    ----------
    inputs : ndarray of int32, shape (batch, window_size)
        Tokens, `START` or `PAD`.
    targets : ndarray of int32, shape (batch, n_targets)
        The frame after each input (``target="sequence"``; n_targets = window_size), or after the
        window (``target="next"``; n_targets = 1). 0 where `mask` is False.
    mask : ndarray of bool, shape (batch, n_targets)
        False where there is no target.
    pieces : ndarray of int64, shape (batch,)
        Number of the piece that each window is of; 0 where a row only fills the batch.
    first : ndarray of int64, shape (batch,)
        Number in its piece of each window's first target.
    timing : ndarray of int32, shape (batch, window_size + 1, k), or None
        Timing of the token before the first input, and of each input; 0 where there is none. None
        where the dataset has no timing.
    """

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    pieces: np.ndarray
    first: np.ndarray
    timing: np.ndarray | None = None


class WindowDataset:
    """Windows over the tokens of many pieces, as views.

    ``dataset[i]`` gives the i-th whole window as a pair of views of the piece's tokens, which is
    what map-style loaders expect; `batches` gives what networks train on: every frame of every
    piece, the first and the last included, padded and masked.

    Parameters
    ----------
    tokens : list of ChordSequence or array-like of int, shape (n_frames,), or TokenStore
        One entry a piece.
    window_size : int, default=200
        Frames in a window.
    stride : int, default=None
        Frames from one window to the next; None is `window_size` for ``target="sequence"`` and 1
        for ``target="next"``.
    target : {"sequence", "next"}, default="sequence"
        Whether the target is the window one frame on, or the one frame after the window.
    end : int, default=None
        Token that `batches` gives as the target after a piece's last frame; None for no such
        target.
    timing : list of array-like of int, shape (n_frames, k), default=None
        Numbers that go with each token, such as how long it lasts; batches then have them too.

    Examples
    --------
    >>> import numpy as np, pianolstm as pl
    >>> dataset = pl.WindowDataset([np.arange(10, 20)], window_size=4, target="next", stride=3)
    >>> len(dataset)
    2
    >>> [(x.tolist(), int(y)) for x, y in dataset]
    [([10, 11, 12, 13], 14), ([13, 14, 15, 16], 17)]
    """

    def __init__(
        self,
        tokens: Sequence[ChordSequence | np.ndarray] | TokenCorpus,
        *,
        window_size: int = 200,
        stride: int | None = None,
        target: Literal["sequence", "next"] = "sequence",
        end: int | None = None,
        timing: Sequence[np.ndarray] | None = None,
    ) -> None:
        if target not in ("sequence", "next"):
            raise InvalidInputError(f'target must be "sequence" or "next"; got {target!r}.')
        check_number("window_size", window_size, 1, None, whole=True)
        if stride is not None:
            check_number("stride", stride, 1, None, whole=True)
        if isinstance(tokens, (ChordSequence, np.ndarray)):
            raise InvalidInputError(
                "tokens must be a list with one entry a piece; wrap it in a list: [tokens]."
            )
        if isinstance(tokens, TokenCorpus):
            tokens = tokens.tokens
        self.tokens = [np.asarray(t.tokens if isinstance(t, ChordSequence) else t) for t in tokens]
        for i, piece in enumerate(self.tokens):
            if piece.ndim != 1 or piece.dtype.kind not in "iu":
                raise InvalidInputError(
                    f"tokens[{i}]: expected integers of shape (n_frames,); got {piece.dtype} of "
                    f"shape {piece.shape}."
                )
        if not self.tokens:
            raise InvalidInputError("tokens is empty; expected at least one piece.")
        self.timing = None if timing is None else [np.asarray(t) for t in timing]
        if self.timing is not None and list(map(len, self.timing)) != self._n_tokens():
            raise InvalidInputError(
                "timing must have a row for each token, piece by piece; got "
                f"{list(map(len, self.timing))} for {self._n_tokens()} tokens."
            )
        self.window_size = int(window_size)
        self.target: Literal["sequence", "next"] = target
        self.stride = int(stride or (window_size if target == "sequence" else 1))
        self.end = end
        # A whole window needs one frame more than its size: the last target.
        counts = [max(0, (len(t) - 1 - self.window_size) // self.stride + 1) for t in self.tokens]
        self._first = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        i = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= i < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        piece = int(np.searchsorted(self._first, i, side="right")) - 1
        a = (i - int(self._first[piece])) * self.stride
        tokens, b = self.tokens[piece], a + self.window_size
        return tokens[a:b], tokens[a + 1 : b + 1] if self.target == "sequence" else tokens[b]

    def split(
        self, fraction: float = 0.1, random_state: int | np.random.Generator | None = None
    ) -> tuple[WindowDataset, WindowDataset]:
        """Split by piece, so that no window of one part overlaps one of the other.

        Parameters
        ----------
        fraction : float, default=0.1
            Share of the pieces in the second part; at least one piece.
        random_state : int, Generator or None, default=None
            Draws the pieces.

        Returns
        -------
        tuple of WindowDataset
            The larger part and the part held out.

        Raises
        ------
        InvalidInputError
            If there are fewer than two pieces or the fraction leaves one part empty.
        """
        kept, held = split_pieces(len(self.tokens), fraction, random_state)
        first, second = (
            WindowDataset(
                [self.tokens[i] for i in part],
                window_size=self.window_size,
                stride=self.stride,
                target=self.target,
                end=self.end,
                timing=None if self.timing is None else [self.timing[i] for i in part],
            )
            for part in (kept, held)
        )
        return first, second

    def to_numpy(self, one_hot: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """All whole windows as two arrays, for other libraries.

        Parameters
        ----------
        one_hot : int, default=None
            Size of the vocabulary: targets become one-hot float32 over it. The published study
            trains on these; they cost ``4 * one_hot`` bytes a target.

        Returns
        -------
        inputs : ndarray of int32, shape (n_windows, window_size)
        targets : ndarray
            Shape (n_windows, window_size) or (n_windows,), with one_hot another axis at the end.

        Raises
        ------
        InvalidInputError
            If a target is outside the one-hot vocabulary.
        """
        pairs = [self[i] for i in range(len(self))]
        inputs = np.array([x for x, _ in pairs], np.int32).reshape(-1, self.window_size)
        targets = np.array([y for _, y in pairs], np.int32)
        if self.target == "sequence":
            targets = targets.reshape(-1, self.window_size)
        if one_hot is None:
            return inputs, targets
        if targets.size and not 0 <= targets.min() <= targets.max() < one_hot:
            raise InvalidInputError(
                f"one_hot={one_hot} is smaller than the vocabulary: there are targets from "
                f"{targets.min()} to {targets.max()}."
            )
        dense = np.zeros((*targets.shape, one_hot), np.float32)
        np.put_along_axis(dense, targets[..., None], 1, axis=-1)
        return inputs, dense

    def batches(
        self,
        batch_size: int,
        *,
        random_state: int | np.random.Generator | None = None,
        shuffle: bool = True,
    ) -> Iterator[WindowBatch]:
        """One epoch: windows in batches of one size, the last filled with masked rows.

        For ``target="sequence"`` windows lie side by side and every frame is a target once,
        whatever the stride. For ``target="next"`` every `stride`-th frame is a target, read from
        the window before it, which is padded on the left where the piece has not gone on for so
        long.

        Parameters
        ----------
        batch_size : int
            Windows in a batch.
        random_state : int, Generator or None, default=None
            Draws the phase of each piece (where its windows begin) and the order.
        shuffle : bool, default=True
            False puts the windows in order, at phase 0.

        Yields
        ------
        WindowBatch
        """
        check_number("batch_size", batch_size, 1, None, whole=True)
        batch_size = int(batch_size)
        rng = np.random.default_rng(random_state) if shuffle else None
        places = self._places(rng)
        for first in range(0, len(places), batch_size):
            yield self._gather(places[first : first + batch_size], batch_size)

    def n_batches(self, batch_size: int) -> int:
        """How many batches an epoch has at the most, whatever the phases."""
        step = self.window_size if self.target == "sequence" else self.stride
        extra = 1 if self.target == "sequence" else 0
        n = sum(-(-length // step) + extra for length in self._lengths() if length)
        return -(-n // batch_size)

    def _n_tokens(self) -> list[int]:
        return [len(t) for t in self.tokens]

    def _lengths(self) -> list[int]:
        """Targets of each piece."""
        return [len(t) + (self.end is not None) for t in self.tokens]

    def _places(self, rng: np.random.Generator | None) -> np.ndarray:
        """(piece, first target, end of targets) of each window of an epoch."""
        step = self.window_size if self.target == "sequence" else self.stride
        places = []
        for i, n in enumerate(self._lengths()):
            phase = int(rng.integers(step)) if rng is not None else 0
            if self.target == "sequence":
                edges = np.unique(np.clip(np.arange(phase - step, n + step, step), 0, n))
                rows = np.stack([np.full(len(edges) - 1, i), edges[:-1], edges[1:]], axis=1)
            else:
                # A piece shorter than the stride has a target all the same.
                t = np.arange(phase % n if n else 0, n, step)
                rows = np.stack([np.full(len(t), i), t, t + 1], axis=1)
            places.append(rows)
        rows = np.concatenate(places)
        if rng is not None:
            rng.shuffle(rows)
        return rows

    def _gather(self, places: np.ndarray, batch_size: int) -> WindowBatch:
        n_targets = self.window_size if self.target == "sequence" else 1
        inputs = np.full((batch_size, self.window_size), PAD, np.int32)
        targets = np.zeros((batch_size, n_targets), np.int32)
        mask = np.zeros((batch_size, n_targets), bool)
        pieces, first_targets = np.zeros((2, batch_size), np.int64)
        pieces[: len(places)], first_targets[: len(places)] = places[:, 0], places[:, 1]
        timing = None
        if self.timing is not None:
            timing = np.zeros(
                (batch_size, self.window_size + 1, *self.timing[0].shape[1:]), np.int32
            )
        for row, (i, a, b) in enumerate(places.tolist()):
            tokens = self.tokens[i]
            frames = tokens[a:b]
            targets[row, : len(frames)] = frames
            if self.end is not None and len(frames) < b - a:
                targets[row, len(frames)] = self.end
            mask[row, : b - a] = True
            first = a - 1 if self.target == "sequence" else a - self.window_size
            column = 0 if self.target == "sequence" else max(0, -1 - first)
            if first < 0:
                inputs[row, column] = START
                column, first = column + 1, 0
            stop = b - 1
            inputs[row, column : column + stop - first] = tokens[first:stop]
            if timing is not None and self.timing is not None:
                its = self.timing[i][first:stop]
                timing[row, column + 1 : column + 1 + len(its)] = its
                if first > 0:
                    timing[row, column] = self.timing[i][first - 1]
        return WindowBatch(inputs, targets, mask, pieces, first_targets, timing)


def split_pieces(
    n_pieces: int, fraction: float, random_state: int | np.random.Generator | None
) -> tuple[list[int], list[int]]:
    """Indices of the pieces kept and of those held out, each in ascending order.

    Raises
    ------
    InvalidInputError
        If there are fewer than two pieces, or the fraction leaves one part empty.
    """
    if not 0 < fraction < 1:
        raise InvalidInputError(f"The fraction held out must lie between 0 and 1; got {fraction}.")
    n_held = max(1, round(fraction * n_pieces))
    if n_held >= n_pieces:
        raise InvalidInputError(
            f"{n_pieces} piece(s) can't be split with a fraction of {fraction}: one part would be "
            "empty. Give more pieces or a smaller fraction."
        )
    order = np.random.default_rng(random_state).permutation(n_pieces)
    return sorted(order[n_held:].tolist()), sorted(order[:n_held].tolist())
