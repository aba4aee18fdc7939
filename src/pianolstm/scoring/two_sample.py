"""Can written music be told from real music? A classifier tries, and says by what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from pianolstm import plotting
from pianolstm.checks import RandomState, as_seed, check_number
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import Grid, PianoRoll, as_rolls
from pianolstm.scoring.excerpt_features import BOTH, FEATURES, REAL, WRITTEN, Excerpts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_FOLDS = 5
"""Folds of the cross-validation, and so the fewest pieces of a kind."""


@dataclass(frozen=True)
class TwoSampleTest:
    """How well written music is told from real music, and by what; `print` shows it.

    From `two_sample_test`.

    Attributes
    ----------
    auc : float
        Area under the ROC curve: how often an excerpt of written music is taken for more likely
        written than one of real music. 0.5 is chance, 1 is always told.
    p_value : float
        Share of random deals whose AUC is at least as high, the true one counted in.
    accuracy : float
        Share of excerpts taken for what they are, mean of both kinds.
    null : ndarray of float64, shape (n_permutations,)
        The AUC of each random deal.
    features : tuple of dict
        One a feature, most telling first: ``feature``; ``written`` and ``real``, its means;
        ``auc``, how well it alone tells the excerpts (below 0.5 where written music has less of
        it); ``importance``, by how much the AUC of the test falls where the values of this feature
        are shuffled; ``p_value``, the share of random deals in which any feature is as telling.
    n_pieces, n_excerpts : tuple of int
        How many real and how many written ones there are.
    length : float
        Of an excerpt, in seconds or quarter notes.
    grid : {"seconds", "beats"}
    """

    auc: float
    p_value: float
    accuracy: float
    null: np.ndarray
    features: tuple[dict[str, Any], ...]
    n_pieces: tuple[int, int]
    n_excerpts: tuple[int, int]
    length: float
    grid: Grid

    def __str__(self) -> str:
        unit = "quarter notes" if self.grid == "beats" else "s"
        head = (
            f"AUC {self.auc:.3f} (chance {self.null.mean():.3f} ± {self.null.std():.3f}, "
            f"p = {self.p_value:.3f}), accuracy {self.accuracy:.3f}\n"
            f"{self.n_excerpts[1]} excerpts of {self.n_pieces[1]} written pieces, "
            f"{self.n_excerpts[0]} of {self.n_pieces[0]} real ones, {self.length:g} {unit} each\n"
        )
        names = ("written", "real", "AUC", "importance", "p")
        lines = [head, f"{'most telling':<22}" + "".join(f"{name:>12}" for name in names)]
        for row in self.features[:10]:
            lines.append(
                f"{row['feature']:<22}{row['written']:>12.3g}{row['real']:>12.3g}"
                f"{row['auc']:>12.3f}{row['importance']:>12.3f}{row['p_value']:>12.3f}"
            )
        return "\n".join(lines)

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Draw the AUC among those of random deals, and the most telling features.

        Parameters
        ----------
        axes : two matplotlib.axes.Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        sequence of two matplotlib.axes.Axes
        """
        alone = {
            f"{row['feature']}: written {row['written']:.3g}, real {row['real']:.3g}": row["auc"]
            for row in self.features[:10]
        }
        return plotting.plot_two_sample(self.auc, self.null, alone, axes=axes)


def two_sample_test(
    real: Sequence[Any],
    written: Sequence[Any],
    *,
    length: float = 30,
    groups: Sequence[Any] | None = None,
    n_permutations: int = 200,
    random_state: RandomState = None,
) -> TwoSampleTest:
    """Test whether written music can be told from real music.

    Pieces are cut into excerpts, each described by features
    (`pianolstm.scoring.excerpt_features`). A classifier learns from four fifths of the pieces which
    excerpts are written, and tells those of the last fifth; each fifth in turn. What the AUC would
    be by chance is found by dealing out the pieces at random as real and written, and doing the
    same again.

    Parameters
    ----------
    real, written : list of PianoRoll or array-like of shape (n_frames, 128)
        One entry a piece. Real pieces should be such as the model was not trained on.
    length : float, default=30
        Of an excerpt, in seconds, or whole quarter notes on the grid of beats. Pieces are cut from
        their beginning; what is left over, and what is shorter, is left out.
    groups : sequence, default=None
        One label for each real and then each written piece. Pieces of one label belong together:
        what continues a real piece with that piece. None takes each as its own.
    n_permutations : int, default=200
        How often pieces are dealt out at random; no p-value is below 1 / (n_permutations + 1).
    random_state : int, numpy.random.Generator or None, default=None
        Seed of folds and deals.

    Returns
    -------
    TwoSampleTest
        `print` shows it, ``plot()`` draws it.

    Raises
    ------
    InvalidInputError
        If there are fewer than five groups of real or of written pieces that are long enough (or,
        where groups have both, fewer than five such groups), or a parameter is out of range.

    Notes
    -----
    The classifier is a kernel ridge regression of the labels on standardised features (a radial
    kernel, scikit-learn's defaults), each group of pieces weighing the same however long it is. On
    piano pieces it tells about as well as a support vector machine, and better than linear ones,
    while all random deals are solved at once; time grows with the cube of the excerpts, a thousand
    take seconds. Excerpts of one group are never both learned from
    and told. The AUC is the mean over five folds, so that values of different classifiers are
    never compared. The folds are stratified, and random deals keep the number of real and written
    groups in each: under the null hypothesis the AUC then has the mean 0.5 and the p-value is
    uniform, also of few pieces. Without that, a class that is rarer in what is learned from is more
    frequent in what is told, and the AUC falls below 0.5. Groups that have both kinds are dealt out
    within themselves.

    What an excerpt has nothing to measure of takes the median of all excerpts. Velocities are left
    out where all notes of the real or of the written pieces have the same.

    References
    ----------
    Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests. Phipson and Smyth (2010),
    Permutation p-values should never be zero. Westfall and Young (1993), Resampling-based multiple
    testing: the p-values of the features.

    Examples
    --------
    >>> import pianolstm as pl
    >>> chorales = pl.datasets.load_chorales("train")[:60]
    >>> high = [roll.transpose(7) for roll in chorales[30:]]
    >>> found = pl.two_sample_test(chorales[:30], high, random_state=0)
    >>> found.auc > 0.9, found.p_value < 0.01, found.features[0]["feature"]
    (True, True, 'pitch mean')
    """
    sets = _checked(real, written, length, n_permutations)
    excerpts = Excerpts.of(sets, length, groups)
    rng = np.random.default_rng(as_seed(random_state))
    return _tested(excerpts, float(length), sets[0][0].grid, n_permutations, rng)


def _tested(
    excerpts: Excerpts, length: float, grid: Grid, n_permutations: int, rng: np.random.Generator
) -> TwoSampleTest:
    folds = _folds(excerpts, rng)
    labels = _deals(excerpts, folds, n_permutations, rng)
    X, names = _usable(excerpts.features)
    fold_of = folds[excerpts.group]
    weight = excerpts.weight
    scores = _told(X, labels, weight, fold_of)
    aucs = _auc(scores, labels, weight, fold_of)
    importance = _importance(X, labels[:, :1], weight, fold_of, rng)
    is_written = labels[:, 0]
    n_written = [int(is_written.sum()), len(np.unique(excerpts.piece[is_written]))]
    return TwoSampleTest(
        auc=float(aucs[0]),
        p_value=_p_value(aucs[0], aucs[1:]),
        accuracy=_accuracy(scores[:, 0], is_written, weight, fold_of),
        null=aucs[1:],
        features=_giveaways(excerpts, X, names, labels, importance),
        n_pieces=(len(np.unique(excerpts.piece)) - n_written[1], n_written[1]),
        n_excerpts=(len(is_written) - n_written[0], n_written[0]),
        length=length,
        grid=grid,
    )


def weighted_auc(scores: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of many classifications at once.

    Parameters
    ----------
    scores : ndarray, shape (n, m) or (n, 1)
        One column a classification, or one for all.
    labels : ndarray of bool, shape (n, m)
        What should score high.
    weight : ndarray, shape (n,)
        Of each row.

    Returns
    -------
    ndarray of float64, shape (m,)
        Share of pairs of a true and a false row, by their weights, of which the true one scores
        higher; equal scores count half.

    Examples
    --------
    >>> import numpy as np
    >>> from pianolstm.scoring.two_sample import weighted_auc
    >>> labels = np.array([[False], [True], [False], [True]])
    >>> weighted_auc(np.array([[1.0], [2], [2], [3]]), labels, np.array([1.0, 2, 1, 1]))
    array([0.83333333])
    """
    n, m = labels.shape
    # Rounded: equal rows may differ in the last bit where a matrix product took them in blocks.
    rank = rankdata(np.round(scores, 9), method="dense", axis=0).astype(np.int64) - 1
    at = np.broadcast_to(rank, (n, m)) + n * np.arange(m)
    is_false = np.where(labels, 0.0, weight[:, None])
    counts = np.bincount(at.ravel(), weights=is_false.ravel(), minlength=n * m).reshape(m, n)
    below = (counts.cumsum(axis=1) - counts / 2).ravel()[at]
    is_true = np.where(labels, weight[:, None], 0.0)
    return (is_true * below).sum(axis=0) / (is_true.sum(axis=0) * is_false.sum(axis=0))


def _checked(
    real: Sequence[Any], written: Sequence[Any], length: float, n_permutations: int
) -> tuple[list[PianoRoll], list[PianoRoll]]:
    rolls = as_rolls(real, "real")
    others = as_rolls(written, "written", fs=rolls[0].fs, grid=rolls[0].grid)
    if rolls[0].grid == "beats":
        check_number("length", length, 1, None, whole=True)
    else:
        check_number("length", length, 1 / rolls[0].fs, None)
    check_number("n_permutations", n_permutations, 1, None, whole=True)
    return rolls, others


def _folds(excerpts: Excerpts, rng: np.random.Generator) -> np.ndarray:  # int64 (n_groups,)
    """The fold in which each group is told, kinds of groups evenly among them."""
    kinds = excerpts.kinds()
    counts = np.bincount(kinds, minlength=3).tolist()
    needed = counts[:BOTH] if counts[BOTH] == 0 else [n for n in counts if n > 0]
    if min(needed) < N_FOLDS:
        raise InvalidInputError(
            f"Expected at least {N_FOLDS} groups of each kind with pieces as long as an excerpt; "
            f"got {counts[REAL]} of real pieces, {counts[WRITTEN]} of written ones and "
            f"{counts[BOTH]} of both. Give more pieces, or set a shorter length."
        )
    folds = np.empty(len(kinds), np.int64)
    split = StratifiedKFold(N_FOLDS, shuffle=True, random_state=int(rng.integers(2**32)))
    for fold, (_, told) in enumerate(split.split(kinds, kinds)):
        folds[told] = fold
    return folds


def _deals(
    excerpts: Excerpts, folds: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:  # bool (n_excerpts, 1 + n)
    """Which excerpts are written: truly, and in each random deal.

    Groups of one kind change places within their fold, pieces of a group of both within the group.
    """
    is_both = excerpts.kinds()[excerpts.group] == BOTH
    unit = np.where(is_both, len(folds) + excerpts.piece, excerpts.group)
    block = np.where(is_both, N_FOLDS + excerpts.group, folds[excerpts.group])
    _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
    block, written = block[first], excerpts.written[excerpts.piece[first]]
    dealt = np.tile(written, (1 + n, 1))
    for b in np.unique(block):
        dealt[1:, block == b] = rng.permuted(dealt[1:, block == b], axis=1)
    return dealt.T[unit]


def _usable(features: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The features that vary, with the median in place of NaN, and their names."""
    columns, names = [], []
    for name, column in zip(FEATURES, features.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known) and np.ptp(known) > 0:
            columns.append(np.where(np.isnan(column), np.median(known), column))
            names.append(name)
    if not names:
        raise InvalidInputError(
            "The excerpts are alike in every feature; there is nothing to tell."
        )
    return np.stack(columns, axis=1), names


def _told(
    X: np.ndarray,  # float64 (n_excerpts, n_features)
    labels: np.ndarray,  # bool (n_excerpts, n_deals)
    weight: np.ndarray,  # float64 (n_excerpts,)
    fold_of: np.ndarray,  # int64 (n_excerpts,)
) -> np.ndarray:  # float64 (n_excerpts, n_deals)
    """Scores of excerpts by what was learned from other folds, high where likely written."""
    scores = np.empty(labels.shape)
    for fold in range(N_FOLDS):
        told = fold_of == fold
        scores[told] = _learned(X[~told], labels[~told], weight[~told])(X[told])
    return scores


def _importance(
    X: np.ndarray,  # float64 (n_excerpts, n_features)
    labels: np.ndarray,  # bool (n_excerpts, 1)
    weight: np.ndarray,
    fold_of: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:  # float64 (n_features,)
    """By how much the AUC falls where a feature of the excerpts that are told is shuffled."""
    scores, shuffled = np.empty((len(X), 1)), np.empty((X.shape[1], len(X), 1))
    for fold in range(N_FOLDS):
        told = fold_of == fold
        classify = _learned(X[~told], labels[~told], weight[~told])
        scores[told] = classify(X[told])
        for feature, taken in enumerate(shuffled):
            changed = X[told]
            rng.shuffle(changed[:, feature])
            taken[told] = classify(changed)
    auc = _auc(scores, labels, weight, fold_of)
    return np.concatenate([auc - _auc(taken, labels, weight, fold_of) for taken in shuffled])


def _learned(
    X: np.ndarray, labels: np.ndarray, weight: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """The classifier of each deal; all share their inputs, and are solved at once."""
    scaler = StandardScaler().fit(X, sample_weight=weight)
    targets = labels - np.average(labels, axis=0, weights=weight)
    ridge = KernelRidge(kernel="rbf").fit(scaler.transform(X), targets, sample_weight=weight)
    return lambda others: ridge.predict(scaler.transform(others))


def _auc(
    scores: np.ndarray, labels: np.ndarray, weight: np.ndarray, fold_of: np.ndarray
) -> np.ndarray:  # float64 (n_deals,)
    """Mean over the folds."""
    folds = [fold_of == fold for fold in range(N_FOLDS)]
    return np.mean([weighted_auc(scores[f], labels[f], weight[f]) for f in folds], axis=0)


def _accuracy(
    scores: np.ndarray, is_written: np.ndarray, weight: np.ndarray, fold_of: np.ndarray
) -> float:
    """Share of excerpts taken for what they are, mean of both kinds."""
    kinds = (is_written, ~is_written)
    right = np.empty(len(scores), bool)
    for fold in range(N_FOLDS):
        told = fold_of == fold
        # Halfway between both kinds in the other folds: those learned from are too far apart.
        means = [np.average(scores[k & ~told], weights=weight[k & ~told]) for k in kinds]
        right[told] = (scores[told] > np.mean(means)) == is_written[told]
    return float(np.mean([np.average(right[k], weights=weight[k]) for k in kinds]))


def _p_value(value: float, null: np.ndarray) -> float:
    return float((1 + np.count_nonzero(null >= value - 1e-12)) / (1 + len(null)))


def _giveaways(
    excerpts: Excerpts,
    X: np.ndarray,
    names: list[str],
    labels: np.ndarray,
    importance: np.ndarray,
) -> tuple[dict[str, Any], ...]:
    """Features, the most telling first."""
    alone = np.stack([weighted_auc(column[:, None], labels, excerpts.weight) for column in X.T])
    distance = np.abs(alone - 0.5)
    any_feature = distance[:, 1:].max(axis=0)
    order = np.argsort(-distance[:, 0], kind="stable")
    values = excerpts.features[:, [list(FEATURES).index(name) for name in names]]
    return tuple(
        {
            "feature": names[j],
            "written": _mean(values[:, j], excerpts.weight, labels[:, 0]),
            "real": _mean(values[:, j], excerpts.weight, ~labels[:, 0]),
            "auc": float(alone[j, 0]),
            "importance": float(importance[j]),
            "p_value": _p_value(distance[j, 0], any_feature),
        }
        for j in order.tolist()
    )


def _mean(values: np.ndarray, weight: np.ndarray, rows: np.ndarray) -> float:
    rows = rows & ~np.isnan(values)
    return float(np.average(values[rows], weights=weight[rows])) if rows.any() else float("nan")
