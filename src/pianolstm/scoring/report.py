"""Tables of sets of rolls beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pianolstm.exceptions import PianoLSTMError
from pianolstm.rolls import PianoRoll
from pianolstm.scoring.baselines import chord_bigram, chords_shuffled, notes_by_chance
from pianolstm.scoring.distances import DISTANCES, distance
from pianolstm.scoring.features import FEATURES
from pianolstm.scoring.real_music import RealMusic
from pianolstm.scoring.tables import table
from pianolstm.scoring.typicality import mean_of_known

COLUMNS = ("rank", "name", "pieces", "seconds", "score", "overall")
MAX_NAME = 19

N_BASELINE = 20
"""Pieces of each row that a report adds."""

N_DRAWS = 100
"""Draws of the pieces of a set, and of as many real excerpts."""


@dataclass(frozen=True)
class DistributionReport:
    """Scores of several sets of rolls, most like real music first; `print` shows a table.

    The table has the score, the typicality of all features together (`Typicality.overall`), and
    the mean typicality of each group of features; real music has 0.5. `rows` has all numbers.
    Names in parentheses are what each report is to be read against: real music, each excerpt judged
    by other pieces alone, and machines that write none.

    Attributes
    ----------
    groups : tuple of str
        Groups of features that the table has a column for.
    rows : tuple of dict
        One a set: ``rank``, ``name``, ``pieces``, ``seconds``, ``notes``, ``score``,
        ``overall``, the mean typicality of each of `groups`, and for each feature

        - ``<feature> typicality``: its mean over the pieces;
        - ``<feature> <distance>``: of the whole set from the corpus, by each kind of distance; and
          by the scorer's, ``<feature> low`` and ``<feature> high``, an interval of 90 % with the
          pieces drawn anew (bootstrap, without its bias), and ``<feature> real``, the median of as
          many real excerpts, as long, from the rest of the corpus (of features that are one number,
          the typicality alone).
    """

    groups: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]

    @property
    def frame(self) -> Any:
        """The rows as a `pandas.DataFrame`.

        Raises
        ------
        PianoLSTMError
            If pandas is not installed.
        """
        try:
            import pandas as pd  # pyright: ignore[reportMissingImports] (optional)
        except ImportError:
            raise PianoLSTMError(
                "A report's frame needs pandas; install it with: pip install pandas. Its rows are "
                "dicts and need nothing."
            ) from None
        return pd.DataFrame(list(self.rows))

    def __str__(self) -> str:
        columns = [*COLUMNS, *self.groups]
        return table(columns, [[_cell(c, row[c]) for c in columns] for row in self.rows])


def _cell(column: str, value: Any) -> str:
    if column == "name":
        name = str(value)
        return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
    if column == "seconds":
        return f"{value:.1f}"
    if not isinstance(value, float):
        return str(value)
    return "-" if np.isnan(value) else f"{value:.3f}"


def report_of(sets: Mapping[str, Sequence[PianoRoll]], real: RealMusic) -> DistributionReport:
    """Score sets, and what they are to be read against, and rank them."""
    lengths = [len(part) for rolls in sets.values() for part in real.parts(rolls)[0]]
    added = _added(real, int(np.median(lengths)))
    rows = [_row(name, rolls, real) for name, rolls in sets.items()]
    rows += [_row(name, rolls, real, pieces) for name, rolls, pieces in added]
    rows.sort(key=lambda row: -row["score"])
    ranked = tuple({"rank": i + 1, **row} for i, row in enumerate(rows))
    return DistributionReport(_groups(real), ranked)


def distances_of(
    rolls: Sequence[PianoRoll], real: RealMusic, pieces: np.ndarray | None = None
) -> dict[str, float]:
    """Distances of rolls, taken together, from the corpus, but for the pieces that they are of."""
    corpus, found = real.corpus, {}
    bags = corpus.count(rolls)
    for name in _distributions(real):
        rest = corpus.without([] if pieces is None else np.unique(pieces).tolist(), name)
        sample = corpus.pool(bags, name)
        for metric in DISTANCES:
            found[f"{name} {metric}"] = distance(metric, FEATURES[name].bins, rest, sample)
    return found


def _added(
    real: RealMusic, n_frames: int
) -> Iterator[tuple[str, list[PianoRoll], np.ndarray | None]]:
    """Rows that each report has: name, rolls, and the pieces of the corpus that they are of."""
    rng = np.random.default_rng((real.seed, n_frames, 1))
    excerpts, pieces = real.draw(n_frames, N_BASELINE, rng)
    yield "(real, left out)", excerpts, pieces
    yield "(chords shuffled)", chords_shuffled(excerpts, rng), pieces
    yield "(bigram of chords)", chord_bigram(real.rolls, n_frames, N_BASELINE, rng), None
    yield "(notes by chance)", notes_by_chance(real.rolls, n_frames, N_BASELINE, rng), None


def _row(
    name: str, rolls: Sequence[PianoRoll], real: RealMusic, pieces: np.ndarray | None = None
) -> dict[str, Any]:
    found = real.typicality(rolls, pieces)
    typical = dict(zip(found.features, mean_of_known(found.values).tolist(), strict=True))
    groups = {}
    for group in _groups(real):
        members = [value for name, value in typical.items() if FEATURES[name].group == group]
        groups[group] = float(mean_of_known(np.array(members)))
    return {
        "name": name,
        "pieces": len(rolls),
        "seconds": sum(roll.seconds for roll in rolls),
        "notes": sum(len(roll.notes) for roll in rolls),
        "score": found.score,
        "overall": float(found.overall.mean()),
        **groups,
        **{f"{feature} typicality": value for feature, value in typical.items()},
        **distances_of(rolls, real, pieces),
        **_intervals(rolls, real, pieces),
    }


def _intervals(
    rolls: Sequence[PianoRoll], real: RealMusic, pieces: np.ndarray | None
) -> dict[str, float]:
    """Percentiles of each distance with the pieces drawn anew; the median of real music's."""
    rng = np.random.default_rng(real.seed)
    corpus, found = real.corpus, {}
    bags = corpus.count(rolls)
    draws = rng.multinomial(len(rolls), np.full(len(rolls), 1 / len(rolls)), size=N_DRAWS)
    as_much = real.pooled([len(part) for part in real.parts(rolls)[0]], N_DRAWS, real.seed)
    for name in _distributions(real):
        rest = corpus.without([] if pieces is None else np.unique(pieces).tolist(), name)
        whole, *drawn = (
            distance(real.metric, FEATURES[name].bins, rest, corpus.pool(bags, name, weights))
            for weights in (np.ones(len(rolls), np.int64), *draws)
        )
        found[f"{name} low"], found[f"{name} high"] = _interval(whole, np.array(drawn))
        found[f"{name} real"] = float(np.median(as_much[name]))
    return found


def _interval(whole: float, drawn: np.ndarray) -> tuple[float, float]:
    """The 5th and 95th percentile, moved by what lies between the median and the whole set.

    Draws have some pieces more than once and others not at all, and so lie further than the set.
    """
    if not np.isfinite(drawn).all():
        return whole, whole
    low, middle, high = np.percentile(drawn, [5, 50, 95]).tolist()
    return max(0.0, whole + low - middle), whole + high - middle


def _distributions(real: RealMusic) -> list[str]:
    return [name for name in real.features if FEATURES[name].bins != "number"]


def _groups(real: RealMusic) -> tuple[str, ...]:
    used = {FEATURES[name].group for name in real.features}
    return tuple(dict.fromkeys(f.group for f in FEATURES.values() if f.group in used))
