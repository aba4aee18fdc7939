"""Draws steps.png: what a step is with each clock, on the beginning of a chorale."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pianolstm as pl

roll = pl.datasets.load_chorales("train")[0][:33]
sounds, struck = np.asarray(roll) > 0, roll.onset
begins = np.append(True, np.any(sounds[1:] != sounds[:-1], axis=1) | struck[1:].any(1))
steps = {"frames": np.arange(len(roll)), "changes": np.flatnonzero(begins)}

figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
for ax, (clock, at) in zip(axes, steps.items(), strict=True):
    roll.plot(ax=ax)
    low, high = ax.get_ylim()
    ax.vlines(roll.frames_to_seconds(at), low, high, color="#c0392b", linewidth=0.6, alpha=0.8)
    ax.set_title(f'clock="{clock}": {len(at)} steps', loc="left", fontsize=10)
axes[0].set_xlabel("")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
