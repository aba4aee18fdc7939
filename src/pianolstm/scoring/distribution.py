"""How near written music lies to a corpus, measured by how near real excerpts lie.

One distance says little. A short sample is far from any corpus, even if it is a part of it; and
the nearest of all is an average of everything, which is no music. So each distance of a sample is
ranked among those of real excerpts of the same length, each of which is compared with the corpus
without the piece that it comes from: real music then lies anywhere among them, and what is no music
lies beyond them, too far or too near.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from pianolstm import plotting
from pianolstm.checks import RandomState, as_seed, check_number
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import PianoRoll, as_rolls
from pianolstm.scoring.counting import has_one_velocity
from pianolstm.scoring.distances import DISTANCES
from pianolstm.scoring.features import FEATURES, bin_labels
from pianolstm.scoring.real_music import RealMusic
from pianolstm.scoring.report import DistributionReport, distances_of, report_of
from pianolstm.scoring.typicality import Typicality

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class NoteDistributionScorer(BaseEstimator):
    """Score music by how it lies among real music, in its harmony, rhythm, order and form.

    `typicality` ranks each piece among real excerpts of the same length, feature by feature;
    `score` takes all features together; `report` puts sets of pieces beside each other, beside real
    music, and beside machines that write none; `distances` gives the bare distances.

    Fit the pieces that a model learned from. Music that is held out is then judged fairly, and so
    is what the model writes; pieces of the corpus itself, given as X, are compared with themselves
    too, and come out nearer than they should.

    Parameters
    ----------
    features : sequence of str, default=None
        Names of `pianolstm.scoring.features.FEATURES`, whose module defines each; None takes all.
        ``"velocity"`` counts only where it varies, in the corpus and in a piece.
    distance : {"jensen_shannon", "wasserstein", "kullback_leibler", "overlap"}, \
default="jensen_shannon"
        What is ranked; `distances` and `report` list all four.
    n_excerpts : int, default=200
        Real excerpts that pieces of one length are ranked among. The least typicality is about
        1 / n_excerpts.
    random_state : int, Generator or None, default=0
        Which excerpts are drawn. The same int gives the same scores.

    Attributes
    ----------
    features_ : tuple of str
        Features that are compared.
    counts_ : dict of str to ndarray of int64, shape (n_bins,)
        Counts of the corpus for each distribution.
    chords_ : ndarray of uint64, shape (n_chords, 4)
        Bits of the chord of each bin of ``"chord"``; its last bin is for chords of other music.

    See Also
    --------
    repetition : The measures of repetition, with their units.
    NgramBaseline : The likelihood that counts of chords reach.

    Examples
    --------
    >>> import pianolstm as pl
    >>> corpus = pl.datasets.load_chorales("train")[:100]
    >>> scorer = pl.NoteDistributionScorer(features=["pitch", "duration", "melodic_interval"])
    >>> scorer = scorer.fit(corpus)
    >>> bach = [roll[:128] for roll in pl.datasets.load_chorales("validation")[:20]]
    >>> bar = [pl.PianoRoll.concatenate([roll[:16]] * 8) for roll in bach]
    >>> scorer.score(bach) > scorer.score(bar)
    True
    """

    def __init__(
        self,
        *,
        features: Sequence[str] | None = None,
        distance: Literal[
            "jensen_shannon", "wasserstein", "kullback_leibler", "overlap"
        ] = "jensen_shannon",
        n_excerpts: int = 200,
        random_state: RandomState = 0,
    ) -> None:
        self.features = features
        self.distance = distance
        self.n_excerpts = n_excerpts
        self.random_state = random_state

    def fit(self, X: Sequence[Any], y: Any = None) -> NoteDistributionScorer:
        """Count the notes of a corpus.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            One entry a piece.
        y : ignored

        Returns
        -------
        NoteDistributionScorer
            Itself.

        Raises
        ------
        InvalidInputError
            If X is no list of pieces or has no notes, or a parameter is not one of its values.
        """
        self._check()
        seed = as_seed(self.random_state)
        rolls = as_rolls(X)
        if all(roll.notes["tied"].all() for roll in rolls):
            raise InvalidInputError("The rolls have no onsets; a distribution needs at least one.")
        features = tuple(FEATURES if self.features is None else self.features)
        if has_one_velocity(rolls):
            features = tuple(name for name in features if name != "velocity")
        if not features:
            raise InvalidInputError(
                'features has "velocity" alone, but all notes of X are equally loud; name others.'
            )
        self._real = RealMusic(rolls, features, self.distance, int(self.n_excerpts), seed)
        self.features_ = features
        self.counts_ = {n: c for n, c in self._real.corpus.totals.items() if n in features}
        self.chords_ = self._real.corpus.chords
        return self

    def distances(self, X: Sequence[Any]) -> dict[str, float]:
        """Distances of rolls, taken together, from the corpus.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            One entry a piece.

        Returns
        -------
        dict of str to float
            ``"<feature> <distance>"`` for each distribution and each kind of distance, as
            `pianolstm.scoring.distances` defines them: Wasserstein in bins (semitones, of pitches),
            Kullback-Leibler in bits. Infinite where X has nothing to compare.
        """
        rolls = self._as_rolls(X)
        return distances_of(rolls, self._real)

    def typicality(self, X: Sequence[Any]) -> Typicality:
        """How each piece lies among real excerpts as long, feature by feature.

        A piece longer than most of the corpus, that is, than its tenth longest piece, is cut into
        parts of that length, which overlap where they must; what is said of it are means over them.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            One entry a piece, each of one frame or more.

        Returns
        -------
        Typicality

        Raises
        ------
        InvalidInputError
            If the corpus has one piece only, or a piece of X has no frames.
        """
        rolls = self._as_rolls(X)
        return self._real.typicality(rolls)

    def score(self, X: Sequence[Any], y: Any = None) -> float:
        """How like real music rolls are, all features together; higher is more like it.

        Minus the mean over the pieces of how far each lies from the middle of real excerpts as long
        (`pianolstm.scoring.typicality.remoteness`), as a multiple of how far the median real
        excerpt does, and at least 1. So -1 is the most that there is, real music has little less,
        and what lies twice as far out as the median of real music has -2. To be more typical than
        the median real excerpt is not better, and to be nearer to the corpus than real excerpts
        are, as an average of everything is, counts as much as to be further.

        A mean of typicalities would not do: what has the notes and the rhythm of real music, and
        its chords in any order, has the typicalities of real music in all but a few features.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            One entry a piece.
        y : ignored

        Returns
        -------
        float
            At most -1.
        """
        return self.typicality(X).score

    def report(self, sets: Mapping[str, Sequence[Any]]) -> DistributionReport:
        """Score several sets of rolls and rank them, most like real music first.

        Four rows are added to read the others against, of 20 pieces each, as long as the pieces of
        the sets are in the median: excerpts of the corpus, each compared with the rest of it; the
        same excerpts with their chords shuffled; pieces drawn from the bigram of chords; and notes
        drawn by chance.

        Parameters
        ----------
        sets : mapping of str to list of PianoRoll
            The sets by name.

        Returns
        -------
        DistributionReport
            `print` shows it as a table.
        """
        check_is_fitted(self, "counts_")
        if not sets:
            raise InvalidInputError("report takes at least one named set of rolls; got none.")
        return report_of({n: self._as_rolls(X, n) for n, X in sets.items()}, self._real)

    def as_scorer(
        self, n_frames: int, n_pieces: int = 8, *, random_state: RandomState = 0
    ) -> Callable[..., float]:
        """A function that has a model write music and scores it, for `GridSearchCV`.

        Parameters
        ----------
        n_frames, n_pieces : int
            How long, and how many pieces are written.
        random_state : int, Generator or None, default=0
            What they are drawn from; all models write from the same.

        Returns
        -------
        callable
            ``(estimator, X, y=None) -> float``, for ``scoring=...`` of scikit-learn's searches. X
            and y are ignored.

        Examples
        --------
        >>> from sklearn.model_selection import GridSearchCV
        >>> import pianolstm as pl
        >>> scorer = pl.NoteDistributionScorer().fit(pl.datasets.load_chorales("train")[:40])
        >>> search = GridSearchCV(
        ...     pl.SequenceGenerator(),
        ...     {"dropout": [0.1, 0.3]},
        ...     scoring=scorer.as_scorer(128, n_pieces=16),
        ... )
        """
        check_is_fitted(self, "counts_")
        check_number("n_frames", n_frames, 1, None, whole=True)
        check_number("n_pieces", n_pieces, 1, None, whole=True)
        return partial(
            _score_written,
            scorer=self,
            n_frames=int(n_frames),
            n_pieces=int(n_pieces),
            random_state=as_seed(random_state),
        )

    def plot(
        self,
        sets: Mapping[str, Sequence[Any]] | None = None,
        *,
        feature: str = "pitch",
        max_bins: int = 40,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw a distribution of the corpus, and of sets of rolls over it.

        Parameters
        ----------
        sets : mapping of str to list of PianoRoll, default=None
            The sets by name.
        feature : str, default="pitch"
            Which distribution.
        max_bins : int, default=40
            Chords or transitions drawn, the most frequent of the corpus.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
        """
        check_is_fitted(self, "counts_")
        if feature not in self.counts_:
            raise InvalidInputError(
                f"feature must be one that the scorer was fitted with, {tuple(self.counts_)}; got "
                f"{feature!r}."
            )
        counts = {"corpus": self.counts_[feature]}
        for name, X in (sets or {}).items():
            bags = self._real.corpus.count(self._as_rolls(X, name))
            counts[name] = self._real.corpus.pool(bags, feature)
        bins, labels = bin_labels(feature, self.counts_[feature], self.chords_, max_bins)
        shares = {name: c[bins] / max(c.sum(), 1) for name, c in counts.items()}
        ax = plotting.plot_histograms(shares, labels, ax=ax, xlabel=feature.replace("_", " "))
        if FEATURES[feature].bins == "unordered":
            ax.tick_params(axis="x", labelsize=6)
        return ax

    def plot_typicality(
        self, X: Sequence[Any], *, feature: str = "pitch", ax: Axes | None = None
    ) -> Axes:
        """Draw where pieces lie among the distances of real excerpts from the corpus.

        Parameters
        ----------
        X : list of PianoRoll
            Pieces of one length.
        feature : str, default="pitch"
            Which feature.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
        """
        check_is_fitted(self, "features_")
        if feature not in self.features_:
            raise InvalidInputError(
                f"feature must be one that the scorer was fitted with, {self.features_}; got "
                f"{feature!r}."
            )
        parts, _ = self._real.parts(self._as_rolls(X))
        lengths = {len(part) for part in parts}
        if len(lengths) > 1:
            raise InvalidInputError(
                f"X has pieces of {min(lengths)} to {max(lengths)} frames; plot_typicality takes "
                "pieces of one length: cut them, roll[:n]."
            )
        j = self.features_.index(feature)
        found = self._real.statistics(parts, self._real.corpus.count(parts))[:, j]
        reference = self._real.reference(lengths.pop()).statistics[:, j]
        label = feature.replace("_", " ")
        if FEATURES[feature].bins != "number":
            label = f"{self._real.metric.replace('_', '-').title()} distance, {label}"
        return plotting.plot_among(reference, found, ax=ax, xlabel=label)

    def _check(self) -> None:
        features = tuple(FEATURES) if self.features is None else self.features
        is_list = not isinstance(features, str) and hasattr(features, "__iter__")
        if not is_list or not len(features) or not set(features) <= set(FEATURES):
            raise InvalidInputError(
                f"features must be None or some of {tuple(FEATURES)}; got {features!r}."
            )
        if self.distance not in DISTANCES:
            raise InvalidInputError(f"distance must be one of {DISTANCES}; got {self.distance!r}.")
        check_number("n_excerpts", self.n_excerpts, 2, None, whole=True)

    def _as_rolls(self, X: Any, name: str = "X") -> list[PianoRoll]:
        """Rolls of the grid of the corpus."""
        check_is_fitted(self, "counts_")
        first = self._real.rolls[0]
        return as_rolls(X, name, fs=first.fs, grid=first.grid)


def _score_written(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    scorer: NoteDistributionScorer,
    n_frames: int,
    n_pieces: int,
    random_state: int,
) -> float:
    """Score of what a model writes; at the top of the module, so that processes can share it."""
    return scorer.score(estimator.generate(n_frames, n_pieces=n_pieces, random_state=random_state))
