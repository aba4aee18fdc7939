"""Loops, music in chance order, written and real music, told apart by their structure over time.

Sixty-four minutes from the pieces of the study, evenly spaced; the first eight or four seconds of
each again and again; its chords in an order of chance, or four seconds of it at a time. With
`--model`, what that model writes after the ten seconds before each minute. Then whole pieces, and
their chords in an order of chance. The tables hold means, and in brackets how often a piece of that
kind has a higher number than a real one (the area under the ROC curve: 0.5 where they can't be told
apart).
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import pianolstm as pl
from common import arguments, pieces, publish
from repetition import MUSIC, N_PIECES, PRIME, excerpts
from time_to_quality import FS


def loop(roll: pl.PianoRoll, n: int) -> pl.PianoRoll:
    """The first n frames again and again."""
    return pl.PianoRoll.concatenate([roll[:n]] * -(-len(roll) // n))[: len(roll)]


def shuffled(roll: pl.PianoRoll, edges: np.ndarray, rng: np.random.Generator) -> pl.PianoRoll:
    """What lies between edges in an order of chance."""
    parts = [roll[a:b] for a, b in pairwise(edges)]
    return pl.PianoRoll.concatenate([parts[i] for i in rng.permutation(len(parts))])


def chords_shuffled(roll: pl.PianoRoll, rng: np.random.Generator) -> pl.PianoRoll:
    """What lies between onsets in an order of chance."""
    return shuffled(roll, np.unique([0, len(roll), *roll.notes["start"].tolist()]), rng)


def kinds(real: list[pl.PianoRoll]) -> dict[str, list[pl.PianoRoll]]:
    """Real music, and what is made of it."""
    rng = np.random.default_rng(0)
    return {
        "real": real,
        "loop of 8 s": [loop(roll, 8 * FS) for roll in real],
        "loop of 4 s": [loop(roll, 4 * FS) for roll in real],
        "chords shuffled": [chords_shuffled(roll, rng) for roll in real],
        "4 s shuffled": [shuffled(r, np.arange(0, MUSIC + 1, 4 * FS), rng) for r in real],
    }


def measured(rolls: list[pl.PianoRoll]) -> np.ndarray:
    """Returning and locality of each roll, by each comparison; and how full it is."""
    rows = []
    for roll in rolls:
        found = [pl.structure(roll, compare=by) for by in ("harmony", "any_key", "rhythm")]
        numbers = [n for s in found for n in (s.returning, s.locality)]
        first = found[0]
        rows.append([*numbers, first.density.mean(), first.polyphony.mean(), first.longest_rest])
    return np.array(rows)


def table(music: dict[str, list[pl.PianoRoll]]) -> list[str]:
    """Means of each kind; how often one has the higher number than one of the first kind."""
    found = {name: measured(rolls) for name, rolls in music.items()}
    first = next(iter(found.values()))
    lines = [
        f"{'':>16}" + "".join(f"{name:>28}" for name in ("harmony", "any key", "rhythm")),
        f"{'':>16}" + f"{'returning':>14}{'locality':>14}" * 3 + "  notes/s  sounding  rest",
    ]
    for name, numbers in found.items():
        means = numbers.mean(axis=0)
        is_it = np.repeat([0, 1], [len(first), len(numbers)])
        both = np.concatenate([first, numbers])
        areas = [roc_auc_score(is_it, column) for column in both[:, :6].T]
        cells = [f"{mean:.3f} ({area:.2f})" for mean, area in zip(means[:6], areas, strict=True)]
        row = "".join(f"{cell:>14}" for cell in cells)
        lines.append(f"{name:>16}{row}{means[6]:>9.2f}{means[7]:>10.2f}{means[8]:>6.2f}")
    return lines


def main() -> None:
    args = arguments(__doc__.splitlines()[0], model="")
    rolls = pl.PianoRollEncoder(fs=FS).fit_transform(pieces(args))
    chosen = excerpts(rolls)
    music = kinds([roll[PRIME:] for roll in chosen])
    if args.model:
        model = pl.SequenceGenerator.load(Path(args.model))
        primes = [roll[:PRIME] for roll in chosen]
        music["written"] = model.generate(MUSIC, n_pieces=N_PIECES, prime=primes, random_state=0)
    rng = np.random.default_rng(0)
    whole = {
        "whole pieces": rolls,
        "chords shuffled": [chords_shuffled(roll, rng) for roll in rolls],
    }
    publish(args, "structure", "\n".join([*table(music), "", *table(whole)]))


if __name__ == "__main__":
    main()
