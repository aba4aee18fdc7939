"""Is written music copied from the pieces that a model learned from?

Conventions
-----------
Music is taken as the chords that it strikes, one after another, whatever sounds on from before.
From each to the next is a *chord change*. A passage is as long as it has *different* chord changes:
a trill has two however long it lasts, and a bar that comes over and over those of one bar. So what
music has in common with much other music, by its nature, hardly counts.

Composers borrow, too. How much is much is told by excerpts of the training pieces, as long as the
music in question, each compared with all pieces but its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from pianolstm import plotting
from pianolstm.checks import RandomState, as_seed, check_number
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import Grid, as_rolls
from pianolstm.scoring.borrowing import PASSAGES, Borrowing, NoveltyReport, Passage
from pianolstm.scoring.calibration import Calibration, draw, value
from pianolstm.scoring.passages import Index, Line, Matches, lines, n_different, ngrams
from pianolstm.tokens import ChordSequence, Pieces, as_corpus, decode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHORD_PASSAGES = PASSAGES[:3]

CALIBRATION_CHORDS = 150_000
"""Chords of the training pieces that are compared with the others, at the most."""


class NoveltyScorer(BaseEstimator):
    """Find what music has in common with the pieces that a model learned from.

    It looks for the longest passages that stand in a training piece too: as they are, transposed,
    at another speed; and for the share of short runs of chord changes that do. Each is compared
    with what real excerpts have in common with the other training pieces.

    Training pieces that are copies of one another (of one, half of the different runs of four
    chord changes stand in the other) are never compared.

    Parameters
    ----------
    n : int, default=4
        Chord changes of the runs that `Borrowing.ngrams` counts.
    n_excerpts : int, default=200
        Real excerpts that a piece is compared with.
    random_state : int, numpy.random.Generator or None, default=0
        Which excerpts; None draws others at each `fit`.

    Attributes
    ----------
    copies_ : ndarray of int64, shape (n_pieces,)
        Training pieces that are copies of one another have one number.
    fs_, grid_
        The grid of the training pieces, which X has to be on.

    See Also
    --------
    repetition : How music repeats itself.

    Notes
    -----
    A passage has at least four different changes; where music is so uniform that a run of four
    stands in very many places, a few more. Where music is faster than in a training piece, chords
    one frame apart may come to stand in one frame, and a passage ends there. What sounds on from
    before a piece counts as struck at its first frame. A piece that is longer than any training
    piece is compared with the longest.

    The corpus is indexed by its runs of four chord changes; where they agree, passages are put
    together along the diagonals of the dot plot (Church and Helfman 1993) of the two pieces.

    References
    ----------
    Church and Helfman (1993), Dotplot: a program for exploring self-similarity in millions of
    lines of text and code.

    Examples
    --------
    >>> import pianolstm as pl
    >>> rolls = pl.datasets.load_chorales("train")
    >>> scorer = pl.NoveltyScorer().fit(rolls)
    >>> copy = rolls[7][:64].transpose(3)
    >>> (found,) = scorer.passages([copy])
    >>> found.transposed.piece, found.transposed.n_changes, found.transposed.semitones
    (7, 20, 3)
    >>> found.typicality["transposed"]
    0.0
    >>> scorer.score(pl.datasets.load_chorales("validation")) > 0.4
    True
    """

    def __init__(self, *, n: int = 4, n_excerpts: int = 200, random_state: RandomState = 0) -> None:
        self.n = n
        self.n_excerpts = n_excerpts
        self.random_state = random_state

    def fit(self, X: Pieces, y: Any = None) -> NoveltyScorer:
        """Index a corpus, and compare its pieces with one another.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            The pieces that a model learned from, one entry a piece.
        y : ignored

        Returns
        -------
        NoveltyScorer
            Itself.

        Raises
        ------
        InvalidInputError
            If X is no list of pieces, has no notes or fewer than two pieces that are no copies of
            one another, or a parameter is out of range.
        """
        check_number("n", self.n, 1, None, whole=True)
        check_number("n_excerpts", self.n_excerpts, 1, None, whole=True)
        seed = as_seed(self.random_state)
        corpus = as_corpus(X)
        chords, melodies = lines(corpus)
        index, sizes = Index(chords), np.array([len(line) for line in chords])
        if len(np.unique(index.groups[sizes > 0])) < 2:
            raise InvalidInputError(
                "Expected at least two pieces with notes that are no copies of one another; got "
                f"{len(chords)} that are. What real pieces have in common can't be told from one."
            )
        melody = Index(melodies, index.groups)
        pieces = np.random.default_rng(seed).permutation(np.flatnonzero(sizes))
        enough = int(np.searchsorted(np.cumsum(sizes[pieces]), CALIBRATION_CHORDS))
        pieces = pieces[: enough + 1].tolist()
        excerpts = Calibration.of(chords, index, pieces, CHORD_PASSAGES)
        excerpts["melody"] = Calibration.of(melodies, melody, pieces, ["any_speed"])["any_speed"]
        shared = index.shared(int(self.n))
        self._n_shared = [
            np.cumsum(np.append(0, shared[index.offsets[i] : index.offsets[i + 1]])) for i in pieces
        ]
        self._ngrams = np.sort(ngrams(index.changes, int(self.n))[index.within(int(self.n))])
        self._n, self._n_excerpts, self._seed = int(self.n), int(self.n_excerpts), seed
        self._corpus, self._index, self._melody, self._excerpts = corpus, index, melody, excerpts
        self.fs_ = corpus.fs
        self.grid_: Grid = corpus.grid
        self.copies_ = index.groups
        return self

    def passages(self, X: Pieces) -> list[Borrowing]:
        """What each piece has in common with the training pieces.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.

        Returns
        -------
        list of Borrowing
            One a piece.
        """
        check_is_fitted(self, "copies_")
        corpus = as_corpus(X, fs=self.fs_, grid=self.grid_)
        return [self._borrowing(*both) for both in zip(*lines(corpus), strict=True)]

    def score(self, X: Pieces, y: Any = None) -> float:
        """How usual for real music what X has in common with the training pieces is.

        The mean over the pieces of the share of real excerpts, as long as the piece, whose longest
        passage, at any pitch and speed, is at least as long as the piece's.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128), or TokenStore
            One entry a piece.
        y : ignored

        Returns
        -------
        float
            Between 0 and 1. Higher is more novel: copies are near 0, real music that was held out
            is at about 0.6, and what has nothing in common with the training pieces at 1.
        """
        return float(np.mean([found.typicality["any_speed"] for found in self.passages(X)]))

    def report(self, sets: Mapping[str, Sequence[Any]]) -> NoveltyReport:
        """Compare several sets of rolls with the training pieces, the most novel first.

        Parameters
        ----------
        sets : mapping of str to list of PianoRoll
            The sets by name.

        Returns
        -------
        NoveltyReport
            `print` shows it as a table.

        Raises
        ------
        InvalidInputError
            If there is no set.
        """
        if not sets:
            raise InvalidInputError("report takes at least one named set of rolls; got none.")
        check_is_fitted(self, "copies_")
        rows = []
        for name, X in sets.items():
            rolls = as_rolls(X, name, fs=self.fs_, grid=self.grid_)
            found = self.passages(rolls)
            row = {
                "name": name,
                "pieces": len(rolls),
                "seconds": sum(roll.seconds for roll in rolls),
                "score": float(np.mean([piece.typicality["any_speed"] for piece in found])),
            }
            for kind in PASSAGES:
                longest = (getattr(piece, kind) for piece in found)
                row[kind] = max((p.n_changes for p in longest if p is not None), default=0)
            rows.append({**row, "ngrams": float(np.mean([piece.ngrams for piece in found]))})
        rows.sort(key=lambda row: -row["score"])
        return NoveltyReport(tuple({"rank": i + 1, **row} for i, row in enumerate(rows)))

    def plot(
        self, roll: Any, kind: str = "any_speed", *, axes: Sequence[Axes] | None = None
    ) -> Sequence[Axes]:
        """Draw the longest passage of a piece above the same passage of the training piece.

        Parameters
        ----------
        roll : PianoRoll or array-like of shape (n_frames, 128)
        kind : {"exact", "transposed", "any_speed", "melody"}, default="any_speed"
            Which passage.
        axes : sequence of two matplotlib.axes.Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        sequence of two matplotlib.axes.Axes

        Raises
        ------
        InvalidInputError
            If there is no such passage.
        """
        if kind not in PASSAGES:
            raise InvalidInputError(f"kind must be one of {PASSAGES}; got {kind!r}.")
        check_is_fitted(self, "copies_")
        (roll,) = as_rolls([roll], "roll", fs=self.fs_, grid=self.grid_)
        passage = getattr(self.passages([roll])[0], kind)
        if passage is None:
            raise InvalidInputError(
                f"The piece has no passage in common with the training pieces (kind={kind!r}); "
                "there is nothing to draw."
            )
        corpus = self._corpus
        tokens, tempo_map = corpus.tokens[passage.piece], corpus.tempo_maps[passage.piece]
        piece = decode(
            corpus.chords,
            ChordSequence(np.asarray(tokens), fs=self.fs_, grid=self.grid_, tempo_map=tempo_map),
        )
        return plotting.plot_passages(
            [roll, piece],
            [(passage.start, passage.end), (passage.piece_start, passage.piece_end)],
            ["written", f"piece {passage.piece}"],
            melody=kind == "melody",
            axes=axes,
        )

    def _borrowing(self, chords: Line, melody: Line) -> Borrowing:
        found: dict[str, Passage | None] = {}
        matches = self._index.matches(chords, CHORD_PASSAGES)
        for kind in CHORD_PASSAGES:
            found[kind] = self._longest(self._index, chords, matches, kind)
        matches = self._melody.matches(melody, ["any_speed"])
        found["melody"] = self._longest(self._melody, melody, matches, "any_speed")
        typicality = {}
        for kind, passage in found.items():
            real = self._real(kind, len(melody if kind == "melody" else chords))
            typicality[kind] = float(np.mean(real >= (passage.n_changes if passage else 0)))
        grams = ngrams(chords.changes, self._n)
        first, last = (np.searchsorted(self._ngrams, grams, side) for side in ("left", "right"))
        share = float(np.mean(last > first)) if len(grams) else 0.0
        typicality["ngrams"] = float(np.mean(self._real_shares(len(chords)) >= share))
        return Borrowing(**found, ngrams=share, typicality=typicality)

    def _longest(self, index: Index, line: Line, matches: Matches, kind: str) -> Passage | None:
        """The longest passage of a kind: most different changes, most chords, first in the line."""
        length = matches.longest(kind, len(line))
        end = np.arange(len(line)) + length
        # What ends no later than one that begins before it is a part of that one.
        starts = np.flatnonzero(end > np.append(0, np.maximum.accumulate(end)[:-1]))
        starts = starts[length[starts] > 0]
        n = value(n_different(line.before(), starts, end[starts]), index.seed_length)
        if not n.any():
            return None
        best = np.lexsort((starts, -length[starts], -n))[0]
        start, size = int(starts[best]), int(length[starts[best]])
        others = matches.other[(matches.place == start) & (matches.lengths[kind] == size)]
        other, stretch = self._nearest(index, line, others, start, size)
        return Passage(
            n_changes=int(n[best]),
            n_chords=size + 1,
            start=float(line.time[start] / self.fs_),
            end=float(line.time[start + size] / self.fs_),
            piece=int(index.piece[other]),
            piece_start=float(index.time[other] / self.fs_),
            piece_end=float(index.time[other + size] / self.fs_),
            semitones=int(line.pitch[start] - index.pitch[other]),
            speed=1 / stretch,
            grid=self.grid_,
        )

    @staticmethod
    def _nearest(
        index: Index, line: Line, others: np.ndarray, start: int, size: int
    ) -> tuple[int, float]:
        """Of the places in the index that have a passage the likest, and how much it is stretched.

        The rhythm counts first, then speed, then key; then the first place.
        """
        durations = np.diff(line.time[start : start + size + 1])
        theirs = np.diff(index.time[others[:, None] + np.arange(size + 1)])  # (n_places, size)
        stretch = durations.sum() / theirs.sum(axis=1)
        misfit = np.abs(durations - stretch[:, None] * theirs).sum(axis=1).round(6)
        semitones = np.abs(line.pitch[start] - index.pitch[others])
        best = np.lexsort((others, semitones, np.abs(np.log(stretch)), misfit))[0]
        return int(others[best]), float(stretch[best])

    def _real(self, kind: str, n: int) -> np.ndarray:  # int64 (n_excerpts,)
        """Different changes of the longest passages of real excerpts of n chords."""
        excerpts = self._excerpts[kind]
        pieces, starts, n = self._draw(excerpts.sizes, n)
        return np.array([excerpts.longest(i, a, n) for i, a in zip(pieces, starts, strict=True)])

    def _real_shares(self, n: int) -> np.ndarray:  # float64 (n_excerpts,)
        """Shares of the n-grams of real excerpts of n chords that other pieces have."""
        pieces, starts, n = self._draw(self._excerpts["exact"].sizes, n)
        size = n - self._n
        if size < 1:
            return np.zeros(len(pieces))
        both = zip(pieces, starts, strict=True)
        counts = [self._n_shared[i][a + size] - self._n_shared[i][a] for i, a in both]
        return np.array(counts) / size

    def _draw(self, sizes: np.ndarray, n: int) -> tuple[list[int], list[int], int]:
        rng = np.random.default_rng([self._seed, n])
        pieces, starts, n = draw(sizes, max(n, 1), self._n_excerpts, rng)
        return pieces.tolist(), starts.tolist(), n
