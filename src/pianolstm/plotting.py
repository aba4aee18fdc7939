"""Pictures of rolls, note distributions and training, with matplotlib (extra ``plot``).

Functions take arrays and draw on one matplotlib `Axes`, which they return. matplotlib is imported
when a picture is drawn and not before.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pianolstm.exceptions import InvalidInputError, PianoLSTMError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pianolstm.rolls import PianoRoll

__all__ = ["plot_among", "plot_histograms", "plot_history", "plot_roll", "plot_surprise"]

NOTE_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


def plot_roll(
    start: np.ndarray,
    end: np.ndarray,
    pitch: np.ndarray,
    velocity: np.ndarray,
    *,
    seconds: float,
    ax: Axes | None = None,
    colour: str = "#1f4e79",
    prime_seconds: float | None = None,
) -> Axes:
    """Draw notes as bars over time, darker where louder.

    Parameters
    ----------
    start, end : ndarray, shape (n_notes,)
        Onset and release in seconds.
    pitch, velocity : ndarray, shape (n_notes,)
        MIDI pitch and velocity.
    seconds : float
        Length of the time axis.
    ax : matplotlib.axes.Axes, default=None
        Where to draw; None makes a new figure.
    colour : str, default="#1f4e79"
        Colour of the bars.
    prime_seconds : float, default=None
        Shade the time before this, given music that a model continues.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax, figsize=(10, 4))
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    start, end, pitch = (np.asarray(a, dtype=float) for a in (start, end, pitch))
    top, bottom = pitch + 0.45, pitch - 0.45
    corners = np.stack(
        [np.stack([start, start, end, end], 1), np.stack([bottom, top, top, bottom], 1)], axis=2
    )
    colours = np.tile(to_rgba(colour), (len(pitch), 1))
    colours[:, 3] = 0.45 + 0.55 * np.asarray(velocity, dtype=float) / 127
    ax.add_collection(
        PolyCollection(list(corners), facecolors=colours, edgecolors="white", linewidths=0.3)
    )
    ax.set_xlim(0, max(seconds, 1e-3))
    low, high = (pitch.min(), pitch.max()) if len(pitch) else (60, 72)
    low, high = low - 2, high + 2
    ax.set_ylim(low, high)
    octaves = [p for p in range(0, 128, 12) if low <= p <= high]
    ax.set_yticks(octaves, [f"C{p // 12 - 1}" for p in octaves])
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
    if prime_seconds:
        ax.axvspan(0, prime_seconds, color="black", alpha=0.06, linewidth=0)
        ax.axvline(prime_seconds, color="black", alpha=0.5, linewidth=0.8)
        ax.annotate(
            "prime",
            (prime_seconds, 1),
            xytext=(-3, -3),
            textcoords="offset points",
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            fontsize="small",
        )
    ax.set_xlabel("time (s)")
    ax.set_ylabel("pitch")
    return ax


def plot_surprise(roll: PianoRoll, surprise: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Draw a roll over how little each of its frames was expected.

    Parameters
    ----------
    roll : PianoRoll
    surprise : ndarray, shape (n_frames,)
        From `SequenceGenerator.surprise`; the darker a frame, the less it was expected.
    ax : matplotlib.axes.Axes, default=None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InvalidInputError
        If there is not one number a frame.
    """
    surprise = np.asarray(surprise, float)
    if surprise.shape != (len(roll),):
        raise InvalidInputError(
            f"surprise must have one number for each of the roll's {len(roll)} frames; got shape "
            f"{surprise.shape}."
        )
    ax = roll.plot(ax=_axes(ax, figsize=(10, 4)))
    edges = roll.frames_to_seconds(np.arange(len(roll) + 1))
    low, high = ax.get_ylim()
    mesh = ax.pcolormesh(
        edges, [low, high], surprise[None], cmap="OrRd", vmin=0, alpha=0.7, zorder=0, linewidth=0
    )
    ax.figure.colorbar(mesh, ax=ax, label="surprise", pad=0.01)
    return ax


def plot_histograms(
    shares: Mapping[str, np.ndarray],
    labels: Sequence[str],
    *,
    ax: Axes | None = None,
    xlabel: str = "",
) -> Axes:
    """Draw note distributions side by side.

    Parameters
    ----------
    shares : mapping of str to ndarray, shape (n_bins,)
        One distribution a name; the first is drawn as bars, the others as lines over it.
    labels : sequence of str, length n_bins
        Names of the bins; an empty one gets no tick.
    ax : matplotlib.axes.Axes, default=None
        Where to draw; None makes a new figure.
    xlabel : str, default=""
        Label of the horizontal axis.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax, figsize=(8, 3.5))
    x = np.arange(len(labels))
    for i, (name, share) in enumerate(shares.items()):
        if i == 0:
            ax.bar(x, share, color="#b8c4d0", label=name, width=0.9)
        else:
            ax.step(x, share, where="mid", label=name, linewidth=1.4)
    ticks = [i for i, label in enumerate(labels) if label]
    ax.set_xticks(ticks, [labels[i] for i in ticks])
    ax.set_xlim(-0.6, len(labels) - 0.4)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("share")
    ax.legend(frameon=False)
    return ax


def plot_among(
    reference: np.ndarray, values: np.ndarray, *, ax: Axes | None = None, xlabel: str = ""
) -> Axes:
    """Draw where values lie in the histogram of a reference.

    Parameters
    ----------
    reference : ndarray of float, shape (n_reference,)
        What is drawn as a histogram.
    values : ndarray of float, shape (n_values,)
        A line each. Infinite values and NaN have no place, here or in the reference.
    ax : matplotlib.axes.Axes, default=None
        Where to draw; None makes a new figure.
    xlabel : str, default=""
        Label of the horizontal axis.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax, figsize=(8, 3.5))
    reference, values = (np.asarray(a, dtype=float) for a in (reference, values))
    reference, values = (a[np.isfinite(a)] for a in (reference, values))
    ends = (min(reference.min(), values.min()), max(reference.max(), values.max()))
    ax.hist(reference, bins=40, range=ends, color="#b8c4d0", label="real excerpts")
    for i, value in enumerate(values):
        ax.axvline(value, color="#c0392b", linewidth=1.2, alpha=0.7, label="" if i else "pieces")
    ax.set_xlabel(xlabel)
    ax.set_ylabel("real excerpts")
    ax.legend(frameon=False)
    return ax


def plot_history(history: Mapping[str, Sequence[float]], *, ax: Axes | None = None) -> Axes:
    """Draw the loss curves of a fitted `SequenceGenerator`.

    Parameters
    ----------
    history : mapping
        ``history_`` of the model: lists ``epoch``, ``loss``, ``val_loss``.
    ax : matplotlib.axes.Axes, default=None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax, figsize=(6, 4))
    epoch = np.asarray(history["epoch"], dtype=float)
    ax.plot(epoch, history["loss"], label="training", color="#8899aa", marker=".")
    val_loss = np.asarray(history["val_loss"], dtype=float)
    if np.isfinite(val_loss).any():
        ax.plot(epoch, val_loss, label="held out", color="#c0392b", marker=".")
        best = int(np.nanargmin(val_loss))
        ax.plot(epoch[best], val_loss[best], "o", color="#c0392b", markersize=8, fillstyle="none")
        ax.annotate(
            f"{val_loss[best]:.2f}",
            (epoch[best], val_loss[best]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
        )
    ax.margins(x=0.1)  # room for the label of the last epoch
    ax.set_xlabel("epoch")
    ax.set_ylabel("nats per frame")
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return ax


def notebook_png(plot: Callable[[Axes], Any]) -> bytes | None:
    """The picture that `plot` draws, as PNG; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(10, 4), layout="constrained")
    plot(figure.add_subplot())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _axes(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise PianoLSTMError(
            'Pictures need matplotlib; install it with: pip install "pianolstm[plot]".'
        ) from None
    return plt.subplots(figsize=figsize, layout="constrained")[1]
