"""What the pictures show: bars, limits, ticks and labels, on figures without a window."""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import pianolstm as pl
from pianolstm import plotting

ROLL = pl.PianoRoll.from_notes([0, 10, 15], [10, 15, 35], [57, 62, 61], [127, 1, 64], n_frames=50)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def no_matplotlib(monkeypatch):
    """As if matplotlib were not installed."""
    names = {n for n in sys.modules if n.split(".")[0] == "matplotlib"}
    for name in names | {"matplotlib", "matplotlib.pyplot", "matplotlib.figure"}:
        monkeypatch.setitem(sys.modules, name, None)


def new_axes():
    return Figure().add_subplot()


def boxes(ax):
    """Left, right, bottom, top of each bar of a roll."""
    (bars,) = ax.collections
    return [
        (*path.vertices[:, 0][[0, 2]], path.vertices[:, 1].min(), path.vertices[:, 1].max())
        for path in bars.get_paths()
    ]


def test_a_roll_is_drawn_as_bars_in_seconds():
    ax = ROLL.plot(ax=new_axes())
    np.testing.assert_allclose(
        boxes(ax),
        [(0.0, 0.5, 56.55, 57.45), (0.5, 0.75, 61.55, 62.45), (0.75, 1.75, 60.55, 61.45)],
    )
    assert ax.get_xlim() == (0, 2.5)
    assert ax.get_ylim() == (55, 64)
    assert (ax.get_yticks().tolist(), ax.get_yticklabels()[0].get_text()) == ([60], "C4")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "pitch")
    assert not ax.lines and not ax.patches  # no prime


def test_louder_notes_are_darker():
    colours = ROLL.plot(ax=new_axes(), colour="red").collections[0].get_facecolor()
    np.testing.assert_allclose(colours[:, :3], [to_rgba("red")[:3]] * 3)
    np.testing.assert_allclose(
        colours[:, 3], [1.0, 0.45 + 0.55 / 127, 0.45 + 0.55 * 64 / 127], rtol=1e-6
    )


def test_beats_are_drawn_in_seconds():
    tempo = pl.TempoMap([0, 480], [500_000, 1_000_000])
    roll = pl.PianoRoll.from_notes([0, 4], [4, 6], [60, 64], fs=4, grid="beats", tempo_map=tempo)
    np.testing.assert_allclose(
        [b[:2] for b in boxes(roll.plot(ax=new_axes()))], [(0, 0.5), (0.5, 1)]
    )


def test_octaves_are_named():
    roll = pl.PianoRoll.from_notes([0, 0], [1, 1], [0, 127])
    ax = roll.plot(ax=new_axes())
    assert ax.get_ylim() == (-2, 129)
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == [f"C{n}" for n in range(-1, 10)]
    assert ax.get_yticks().tolist() == list(range(0, 128, 12))


def test_the_prime_is_marked():
    ax = ROLL.plot(ax=new_axes(), prime_seconds=0.75)
    (line,) = ax.lines
    assert list(line.get_xdata()) == [0.75, 0.75]
    (shade,) = ax.patches
    assert (shade.get_x(), shade.get_width()) == (0, 0.75)
    assert [t.get_text() for t in ax.texts] == ["prime"]
    assert ax.texts[0].xy == (0.75, 1)


def test_an_empty_roll_has_axes_all_the_same():
    ax = pl.PianoRoll.from_notes([], [], [], n_frames=30).plot(ax=new_axes())
    assert boxes(ax) == []
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1.5), (58, 74))


def test_without_axes_a_figure_is_made():
    ax = ROLL.plot()
    assert ax.figure.get_size_inches().tolist() == [10, 4]
    assert plt.get_fignums() == [ax.figure.number]
    assert len(boxes(ax)) == 3
    assert plotting.plot_history({"epoch": [0], "loss": [1.0], "val_loss": [2.0]}).figure is not ax


def test_surprise_is_drawn_behind_the_roll():
    ax = Figure().add_subplot()
    nats = np.linspace(0, 5, len(ROLL)) ** 2
    assert plotting.plot_surprise(ROLL, nats, ax=ax) is ax
    bars, mesh = ax.collections
    np.testing.assert_allclose(mesh.get_array().ravel(), nats)
    corners = mesh.get_coordinates()[0, :, 0]
    np.testing.assert_allclose(corners, np.arange(len(ROLL) + 1) / ROLL.fs)
    assert mesh.zorder < bars.zorder
    with pytest.raises(
        pl.InvalidInputError, match=r"each of the roll's 50 frames; got shape \(3,\)"
    ):
        plotting.plot_surprise(ROLL, nats[:3], ax=ax)


def test_histograms_side_by_side():
    shares = {"corpus": np.array([0.5, 0.2, 0.3]), "made": np.array([0.1, 0.9, 0.0])}
    ax = plotting.plot_histograms(shares, ["C", "", "D"], ax=new_axes(), xlabel="class")
    assert [bar.get_height() for bar in ax.patches] == [0.5, 0.2, 0.3]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    np.testing.assert_allclose(centres, [0, 1, 2])
    (line,) = ax.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([0, 1, 2], [0.1, 0.9, 0.0])
    assert ax.get_xticks().tolist() == [0, 2]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["C", "D"]
    assert {t.get_text() for t in ax.get_legend().get_texts()} == {"corpus", "made"}
    assert line.get_label() == "made"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("class", "share")
    np.testing.assert_allclose(ax.get_xlim(), (-0.6, 2.6))
    assert ax.get_ylim()[0] == 0


def test_history_marks_the_best_epoch():
    history = {"epoch": [0, 1, 2, 3], "loss": [5.0, 4.0, 3.0, 2.0], "val_loss": [5, 4.25, 3.5, 4.0]}
    ax = plotting.plot_history(history, ax=new_axes())
    training, held_out, best = ax.lines
    assert training.get_ydata().tolist() == [5, 4, 3, 2]
    assert held_out.get_ydata().tolist() == [5, 4.25, 3.5, 4]
    assert held_out.get_xdata().tolist() == [0, 1, 2, 3]
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([2], [3.5])
    assert [t.get_text() for t in ax.texts] == ["3.50"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["training", "held out"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "nats per frame")


def test_history_with_nothing_held_out():
    nan = float("nan")
    history = {"epoch": [0, 1], "loss": [5.0, 4.0], "val_loss": [nan, nan]}
    ax = plotting.plot_history(history, ax=new_axes())
    assert len(ax.lines) == 1 and not ax.texts
    history = {"epoch": [0, 1, 2], "loss": [5.0, 4.0, 3.0], "val_loss": [nan, 3.75, 4.0]}
    assert plotting.plot_history(history, ax=new_axes()).texts[0].get_text() == "3.75"


def test_notebook_png_is_what_plot_draws():
    drawn = []
    png = plotting.notebook_png(lambda ax: drawn.append(ROLL.plot(ax=ax)))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(png[16:20]) == 800  # 10 inches at 80 dots
    assert len(boxes(drawn[0])) == 3
    assert plt.get_fignums() == []  # no figure stays open


@pytest.mark.parametrize(
    "draw",
    [
        ROLL.plot,
        lambda: plotting.plot_histograms({"a": np.ones(1)}, ["C"]),
        lambda: plotting.plot_history({"epoch": [0], "loss": [1.0], "val_loss": [2.0]}),
        lambda: plotting.plot_passages([ROLL], [(0, 1)], ["a"]),
    ],
    ids=["roll", "histograms", "history", "passages"],
)
def test_without_matplotlib_a_message_says_what_to_install(no_matplotlib, draw):
    with pytest.raises(pl.PianoLSTMError, match=r'pip install "pianolstm\[plot\]"'):
        draw()


def test_without_matplotlib_a_notebook_shows_the_text(no_matplotlib):
    assert ROLL._repr_png_() is None
