"""What real excerpts have in common with other pieces: the measure of what is much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pianolstm.scoring.passages import Index, Line, n_different


class Calibration:
    """Pieces of a corpus, each compared with all that are no copies of it.

    Parameters
    ----------
    lines : sequence of Line
        One entry a piece.
    lengths : sequence of ndarray of int64, shape (n_chords,)
        For each piece and chord, the changes of the longest passage from there on that another
        piece has; 0 where there is none.
    fewest : int
        Fewest different changes that make a passage.
    """

    def __init__(self, lines: Sequence[Line], lengths: Sequence[np.ndarray], fewest: int) -> None:
        self.sizes = np.array([len(line) for line in lines])
        self._fewest = fewest
        self._before, self._ends, self._values = [], [], []
        for line, length in zip(lines, lengths, strict=True):
            before, start = line.before(), np.arange(len(line))
            self._before.append(before)
            self._ends.append(start + length)
            self._values.append(value(n_different(before, start, start + length), fewest))

    @classmethod
    def of(
        cls, lines: Sequence[Line], index: Index, pieces: Sequence[int], kinds: Sequence[str]
    ) -> dict[str, Calibration]:
        """Some pieces of an index, for each kind of passage."""
        lengths: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
        for i in pieces:
            matches = index.matches(lines[i], kinds, but=int(index.groups[i]))
            for kind in kinds:
                lengths[kind].append(matches.longest(kind, len(lines[i])))
        chosen = [lines[i] for i in pieces]
        return {kind: cls(chosen, lengths[kind], index.seed_length) for kind in kinds}

    def longest(self, piece: int, start: int, n: int) -> int:
        """Different changes of the longest passage within n chords of a piece from `start` on."""
        last = start + n - 1
        ends, values = self._ends[piece][start:last], self._values[piece][start:last]
        is_whole = ends <= last
        longest = int(values[is_whole].max(initial=0))
        if not is_whole.all():
            # Of those that the excerpt cuts off the first holds all others.
            first = start + int(np.argmin(is_whole))
            n_first = np.count_nonzero(self._before[piece][first:last] < first)
            longest = max(longest, int(value(np.array(n_first), self._fewest)))
        return longest


def value(n: np.ndarray, fewest: int) -> np.ndarray:
    """Different changes, none where there are too few for a passage."""
    return np.where(n >= fewest, n, 0)


def draw(
    sizes: np.ndarray,  # int64 (n_pieces,)
    n: int,
    n_excerpts: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Pieces and first chords of excerpts of n chords, and n.

    Any excerpt is as likely as any other. Where no piece has n chords, n is what the longest has.
    """
    n = min(n, int(sizes.max()))
    begins = np.cumsum(np.maximum(sizes - n + 1, 0))
    chosen = rng.integers(begins[-1], size=n_excerpts)
    piece = np.searchsorted(begins, chosen, "right")
    return piece, chosen - (begins[piece] - np.maximum(sizes - n + 1, 0)[piece]), n
