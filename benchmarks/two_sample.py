"""The two-sample test by a classifier: real music against real music, and machines against it.

On Bach's chorales and on the pieces of the study. Real pieces are dealt out at random into two
halves 100 times, and likewise 20 of them into two tens: by chance the AUC is 0.5, and p-values are
uniform (Kolmogorov-Smirnov). Beside it the AUC with folds that know nothing of real and written,
and the scores of all folds pooled. Then half of the real pieces stand against what three machines
make of the other half: notes drawn one by one from its pitches and durations, as many as it has;
its chords shuffled, each change where it was; loops, a bar of each piece 30 times.
"""

import time

import numpy as np
from scipy.stats import kstest
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pianolstm as pl
from common import arguments, pieces, publish
from pianolstm.scoring.baselines import chords_shuffled
from pianolstm.scoring.excerpt_features import Excerpts
from pianolstm.scoring.two_sample import N_FOLDS, _tested, _usable

FS, LENGTH, N_DEALS, N_PERMUTATIONS = 20, 30, 100, 99


def by_chance(excerpts: Excerpts, n: int, rng: np.random.Generator) -> str:
    """Random halves of n pieces."""
    found, pooled = [], []
    for _ in range(N_DEALS):
        chosen = rng.choice(np.unique(excerpts.piece), n, replace=False)
        rows = np.isin(excerpts.piece, chosen)
        written = np.zeros(len(excerpts.written), bool)
        written[chosen[: n // 2]] = True
        group = np.unique(excerpts.piece[rows], return_inverse=True)[1]
        size = np.bincount(group)
        weight = len(group) / (n * size[group])
        part = Excerpts(excerpts.features[rows], excerpts.piece[rows], group, weight, written)
        found.append(_tested(part, LENGTH, "seconds", N_PERMUTATIONS, rng))
        pooled.append(pooled_auc(part))
    aucs, p = np.array([test.auc for test in found]), np.array([test.p_value for test in found])
    told = np.mean([test.features[0]["p_value"] <= 0.05 for test in found])
    return (
        f"real, {n // 2} and {n - n // 2} pieces".ljust(28)
        + f"{aucs.mean():>8.3f} ± {aucs.std():.3f}{np.mean(p <= 0.05):>12.2f}"
        + f"{kstest(p, 'uniform').pvalue:>12.2f}{told:>12.2f}{np.mean(pooled):>12.3f}"
    )


def pooled_auc(excerpts: Excerpts) -> float:
    """The AUC as it is often taken: folds by piece alone, the scores of all of them together."""
    X, _ = _usable(excerpts.features)
    is_written = excerpts.written[excerpts.piece]
    classify = make_pipeline(StandardScaler(), KernelRidge(kernel="rbf"))
    folds = GroupKFold(N_FOLDS)
    scores = cross_val_predict(classify, X, is_written, groups=excerpts.group, cv=folds)
    return float(roc_auc_score(is_written, scores))


def random_notes(rolls: list[pl.PianoRoll], rng: np.random.Generator) -> list[pl.PianoRoll]:
    """Notes of all pieces, drawn one by one; each piece as long as one of them, as many a frame."""
    notes = np.concatenate([roll.notes for roll in rolls])
    per_frame = len(notes) / sum(map(len, rolls))
    made = []
    for roll in rolls:
        n = rng.poisson(per_frame * len(roll))
        drawn, others = rng.choice(notes, n), rng.choice(notes, n)
        start = rng.integers(len(roll), size=n)
        end = np.minimum(start + others["end"] - others["start"], len(roll))
        made.append(
            pl.PianoRoll.from_notes(
                *(start, end, drawn["pitch"], drawn["velocity"]),
                n_frames=len(roll),
                fs=roll.fs,
                grid=roll.grid,
            )
        )
    return made


def loops(rolls: list[pl.PianoRoll], rng: np.random.Generator) -> list[pl.PianoRoll]:
    """Two seconds, or four quarter notes, of each piece, 30 times."""
    made = []
    for roll in rolls:
        n = int(roll.fs * (2 if roll.grid == "seconds" else 4))
        a = int(rng.integers(len(roll) // n)) * n
        made.append(pl.PianoRoll.concatenate([roll[a : a + n]] * 30))
    return made


def against(name: str, test: pl.TwoSampleTest) -> str:
    tells = ", ".join(
        f"{row['feature']} ({row['written']:.3g}, real {row['real']:.3g})"
        for row in test.features[:3]
    )
    return f"{name:<28}{test.auc:>8.3f}{test.p_value:>22.3f}   {tells}"


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    corpora = {
        "chorales": pl.datasets.load_chorales("train"),
        "piano pieces": pl.PianoRollEncoder(fs=FS).fit_transform(pieces(args)),
    }
    lines = []
    for corpus, rolls in corpora.items():
        rng = np.random.default_rng(0)
        began = time.perf_counter()
        excerpts = Excerpts.of((rolls[:1], rolls[1:]), LENGTH, None)
        took = 1000 * (time.perf_counter() - began) / len(excerpts.piece)
        n = len(np.unique(excerpts.piece))
        lines += [
            f"{corpus}: {n} pieces, {len(excerpts.piece)} excerpts, {took:.1f} ms each to describe",
            f"{'':<28}{'AUC':>16}{'p <= 0.05':>12}{'uniform':>12}{'a feature':>12}{'pooled':>12}",
            by_chance(excerpts, n, rng),
            by_chance(excerpts, 20, rng),
            f"{'':<28}{'AUC':>8}{'p':>22}   most telling",
        ]
        for machine in (random_notes, chords_shuffled, loops):
            made = machine(rolls[1::2], rng)
            test = pl.two_sample_test(rolls[::2], made, length=LENGTH, random_state=0)
            lines.append(against(machine.__name__.replace("_", " "), test))
        lines.append("")
    publish(args, "two_sample", "\n".join(lines[:-1]))


if __name__ == "__main__":
    main()
