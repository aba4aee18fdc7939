"""Reports as text."""

from __future__ import annotations

from collections.abc import Sequence

NAMES = ("name", "measure")
"""Columns whose cells are words."""


def table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Lines of cells in columns, names to the left and all others to the right."""
    lines = [columns, *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in NAMES else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )
