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
    from pianolstm.scoring.structure import Structure

__all__ = [
    "plot_among",
    "plot_histograms",
    "plot_history",
    "plot_passages",
    "plot_roll",
    "plot_structure",
    "plot_surprise",
    "plot_two_sample",
]

COLOURS = ("#1f4e79", "#c0392b")
"""Of what is drawn side by side."""

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
    start, end, pitch = (np.asarray(a, dtype=float) for a in (start, end, pitch))
    _add_bars(ax, start, end, pitch, np.asarray(velocity, dtype=float), colour)
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


def _add_bars(
    ax: Axes,
    start: np.ndarray,
    end: np.ndarray,
    pitch: np.ndarray,
    velocity: np.ndarray,
    colour: str,
) -> None:
    """Add notes as bars, darker where louder."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    top, bottom = pitch + 0.45, pitch - 0.45
    corners = np.stack(
        [np.stack([start, start, end, end], 1), np.stack([bottom, top, top, bottom], 1)], axis=2
    )
    colours = np.tile(to_rgba(colour), (len(pitch), 1))
    colours[:, 3] = 0.45 + 0.55 * velocity / 127
    ax.add_collection(
        PolyCollection(list(corners), facecolors=colours, edgecolors="white", linewidths=0.3)
    )


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


def plot_passages(
    rolls: Sequence[PianoRoll],
    times: Sequence[tuple[float, float]],
    titles: Sequence[str],
    *,
    melody: bool = False,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """Draw passages of rolls one above another, with what stands around them in grey.

    Parameters
    ----------
    rolls : sequence of PianoRoll
    times : sequence of (float, float)
        When the first and the last chord of each passage are struck: in seconds, or quarter notes
        where the grid is of beats. Half as much again is drawn before and after.
    titles : sequence of str
    melody : bool, default=False
        Whether a passage is its melody alone: notes that begin while no higher one sounds.
    axes : sequence of matplotlib.axes.Axes, default=None
        Where to draw, one a roll; None makes a new figure.

    Returns
    -------
    sequence of matplotlib.axes.Axes
    """
    if axes is None:
        axes = _figure(figsize=(10, 2.6 * len(rolls)), rows=len(rolls))
    for ax, roll, (first, last), title in zip(axes, rolls, times, titles, strict=True):
        notes, margin = roll.notes, (last - first) / 2
        low, high = (round(t * roll.fs) for t in (first - margin, last + margin))
        notes = notes[(notes["end"] > low) & (notes["start"] < high)]
        # Times are frames divided by fs, so that rounding gives the frames back.
        low, high = round(first * roll.fs), round(last * roll.fs)
        inside = (notes["start"] >= low) & (notes["start"] <= high) & ~notes["tied"]
        if melody:
            inside &= _is_highest(notes)
        columns = [notes["start"] / roll.fs, notes["end"] / roll.fs]
        columns += [notes[name].astype(float) for name in ("pitch", "velocity")]
        length = roll.n_frames / roll.fs
        plot_roll(*columns, seconds=length, ax=ax, colour="#9aa5b1")
        _add_bars(ax, *(column[inside] for column in columns), colour="#1f4e79")
        ax.set_xlim(max(first - margin, 0), min(last + margin, length))
        ax.set_title(title, fontsize="medium", loc="left")
        ax.set_xlabel("time (s)" if roll.grid == "seconds" else "time (quarter notes)")
    return axes


def _is_highest(notes: np.ndarray) -> np.ndarray:
    """Whether no note sounds higher when each begins."""
    sounds = (notes["start"] <= notes["start"][:, None]) & (notes["end"] > notes["start"][:, None])
    higher = sounds & (notes["pitch"] > notes["pitch"][:, None])
    return higher.sum(axis=1) == 0


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


def plot_structure(structure: Structure, *, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draw a piece over how full it is, its self-similarity matrix, and what comes back when.

    In the matrix a block is a stretch of one kind, a line beside the diagonal something that comes
    again: as far above the diagonal as it comes later.

    Parameters
    ----------
    structure : Structure
        From `pianolstm.structure`.
    axes : sequence of four matplotlib.axes.Axes, default=None
        Where to draw; None makes a new figure.

    Returns
    -------
    sequence of four matplotlib.axes.Axes
    """
    if axes is None:
        axes = _figure(figsize=(7, 11), rows=4, height_ratios=(1.3, 0.8, 5, 0.8))
    top, fullness, matrix, returns = axes
    notes, fs, lags = structure.roll.notes, structure.roll.fs, structure.lags
    length = len(structure.roll) / fs
    in_beats = structure.roll.grid == "beats"
    unit, one = ("quarter notes", "quarter note") if in_beats else ("s", "second")
    what = structure.compare.replace("_", " ")

    columns = [notes["start"] / fs, notes["end"] / fs, notes["pitch"], notes["velocity"]]
    plot_roll(*columns, seconds=length, ax=top).set_xlabel("")
    top.collections[0].set(edgecolor="face", linewidth=0.6)  # white edges would hide short bars

    times = structure.times + structure.window / 2
    label = f"notes struck a {one}"
    fullness.plot(times, structure.density, label=label, color=COLOURS[0], lw=1.2)
    fullness.plot(times, structure.polyphony, label="notes that sound", color=COLOURS[1], lw=1.2)
    fullness.set(xlim=top.get_xlim(), ylim=(0, None))

    _add_matrix(matrix, structure.similarity, times[0], structure.hop)
    matrix.set(xlim=top.get_xlim(), ylim=top.get_xlim())
    matrix.set(xlabel=f"time ({unit})", ylabel=f"time ({unit})")
    matrix.set_title(f"similarity: {what}", fontsize="medium", loc="left")

    label = f"alike before: {what}"
    returns.stairs(structure.alike, lags, label=label, color="#8fa7bc", fill=True)
    returns.stairs(structure.exact, lags, label="chord for chord", color=COLOURS[1], lw=1.2)
    returns.set_xscale("log", base=2)
    returns.set_xticks(lags[::2], [f"{lag:.3g}" for lag in lags[::2]])
    returns.set(xlabel=f"lag ({unit})", ylabel="share", ylim=(0, 1))

    for ax in (fullness, returns):
        ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return axes


def plot_two_sample(
    auc: float,
    null: np.ndarray,
    alone: Mapping[str, float],
    *,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """Draw how well written music is told from real music, and by what.

    Parameters
    ----------
    auc : float
        Area under the ROC curve of the test.
    null : ndarray, shape (n_permutations,)
        What it is where pieces are dealt out at random.
    alone : mapping of str to float
        The AUC of single features by name, most telling first.
    axes : two matplotlib.axes.Axes, default=None
        Where to draw; None makes a new figure.

    Returns
    -------
    sequence of two matplotlib.axes.Axes
    """
    if axes is None:
        first = _axes(None, figsize=(10, 3.8))
        gridspec = first.figure.add_gridspec(1, 2, width_ratios=(2, 3))
        first.set_subplotspec(gridspec[0])
        axes = [first, first.figure.add_subplot(gridspec[1])]
    chance, bars = axes
    chance.hist(null, bins=20, color="#b8c4d0", label="random deals")
    chance.axvline(auc, color="#c0392b", label=f"written music: {auc:.2f}")
    low = min(0.4, float(np.min(null)), auc)
    chance.set_xlim(low - 0.02, 1.02)
    chance.margins(y=0.35)  # room for the legend
    chance.set_xlabel("AUC")
    chance.set_ylabel("deals")
    chance.legend(frameon=False, loc="upper center")
    more = np.array(list(alone.values())) - 0.5
    y = np.arange(len(more))
    bars.barh(y, more, left=0.5, color=np.where(more > 0, "#c0392b", "#1f4e79").tolist())
    bars.axvline(0.5, color="black", linewidth=0.8)
    bars.set_yticks(y, list(alone), fontsize="small")
    bars.invert_yaxis()
    bars.set_xlim(0, 1)
    bars.set_xlabel("AUC of the feature alone: written music has less | more")
    return axes


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


def _add_matrix(ax: Axes, matrix: np.ndarray, first: float, step: float) -> None:
    """Add a matrix over time both ways, with what its colours mean beside it."""
    low, high = first - step / 2, first + (len(matrix) - 0.5) * step
    image = ax.imshow(
        matrix,
        cmap="magma",
        vmin=0,
        vmax=1,
        origin="lower",
        extent=(low, high, low, high),
        aspect="auto",
    )
    ax.figure.colorbar(image, cax=ax.inset_axes((1.02, 0, 0.025, 1)))


def _axes(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    return ax if ax is not None else _figure(figsize)[0]


def _figure(
    figsize: tuple[float, float], rows: int = 1, height_ratios: Sequence[float] | None = None
) -> list[Axes]:
    """The axes of a new figure, one below another."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise PianoLSTMError(
            'Pictures need matplotlib; install it with: pip install "pianolstm[plot]".'
        ) from None
    _, axes = plt.subplots(
        rows, figsize=figsize, layout="constrained", squeeze=False, height_ratios=height_ratios
    )
    return list(axes[:, 0])
