"""Draws structure.png: the structure of a chorale whose first part comes twice."""

from pathlib import Path

import pianolstm as pl

axes = pl.structure(pl.datasets.load_chorales("test")[13]).plot()
axes[0].figure.savefig(Path(__file__).with_suffix(".png"), dpi=70)
