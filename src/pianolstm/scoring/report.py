"""Tables of sets of rolls beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pianolstm.exceptions import PianoLSTMError

COLUMNS = ("rank", "name", "pieces", "seconds", "score")
MAX_NAME = 32


@dataclass(frozen=True)
class DistributionReport:
    """Scores of several sets of rolls, most like real music first; `print` shows a table.

    The table has the score and the mean typicality of each group of features; `rows` has all
    numbers. Names in parentheses are what each report is to be read against: real music, and
    machines that write none.

    Attributes
    ----------
    groups : tuple of str
        Groups of features that the table has a column for.
    rows : tuple of dict
        One a set: ``rank``, ``name``, ``pieces``, ``seconds``, ``notes``, ``score``, the mean
        typicality of each of `groups`, and for each feature

        - ``<feature> typicality``: its mean over the pieces;
        - ``<feature> <distance>``: of the whole set from the corpus, by each kind of distance; and
          by the scorer's, ``<feature> low`` and ``<feature> high``, the 5th and 95th percentile
          with the pieces drawn anew (bootstrap), and ``<feature> real``, the median of as many
          real excerpts, as long, whose pieces are left out of the corpus. NaN where the corpus has
          one piece only.
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
            import pandas as pd
        except ImportError:
            raise PianoLSTMError(
                "A report's frame needs pandas; install it with: pip install pandas. Its rows are "
                "dicts and need nothing."
            ) from None
        return pd.DataFrame(list(self.rows))

    def __str__(self) -> str:
        columns = [*COLUMNS, *self.groups]
        return table(columns, [[_cell(c, row[c]) for c in columns] for row in self.rows])


def table(columns: list[str], cells: list[list[str]]) -> str:
    """Lines of cells in columns, the column ``name`` to the left and the others to the right."""
    lines = [columns, *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == "name" else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(column: str, value: Any) -> str:
    if column == "name":
        name = str(value)
        return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
    if column == "seconds":
        return f"{value:.1f}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
