"""Loops, music in chance order, written and real music, told apart by their structure over time.

Sixty-four minutes from the pieces of the study, evenly spaced; the first eight or four seconds of
each again and again; its chords in an order of chance, or four seconds of it at a time. With
`--model`, what that model writes after the ten seconds before each minute. The table holds means,
and how often a minute of each kind has a higher number than a real one (the area under the ROC
curve: 0.5 where they can't be told apart).
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import pianolstm as pl
from common import arguments, pieces, publish

FS, N_PIECES = 20, 64
PRIME, MUSIC = 10 * FS, 60 * FS


def excerpts(rolls: list[pl.PianoRoll]) -> list[pl.PianoRoll]:
    """Of pieces that are long enough, evenly spaced."""
    starts = [(i, a) for i, roll in enumerate(rolls) for a in range(len(roll) - PRIME - MUSIC + 1)]
    chosen = np.linspace(0, len(starts) - 1, N_PIECES).round().astype(int)
    return [rolls[i][a : a + PRIME + MUSIC] for i, a in (starts[k] for k in chosen)]


def loop(roll: pl.PianoRoll, n: int) -> pl.PianoRoll:
    """The first n frames again and again."""
    return pl.PianoRoll.concatenate([roll[:n]] * -(-len(roll) // n))[: len(roll)]


def shuffled(roll: pl.PianoRoll, edges: np.ndarray, rng: np.random.Generator) -> pl.PianoRoll:
    """What lies between edges in an order of chance."""
    parts = [roll[a:b] for a, b in pairwise(edges)]
    return pl.PianoRoll.concatenate([parts[i] for i in rng.permutation(len(parts))])


def kinds(real: list[pl.PianoRoll]) -> dict[str, list[pl.PianoRoll]]:
    """Real music, and what is made of it."""
    rng = np.random.default_rng(0)
    changes = [np.unique(np.concatenate([[0, MUSIC], roll.notes["start"]])) for roll in real]
    return {
        "real": real,
        "loop of 8 s": [loop(roll, 8 * FS) for roll in real],
        "loop of 4 s": [loop(roll, 4 * FS) for roll in real],
        "chords shuffled": [shuffled(r, at, rng) for r, at in zip(real, changes, strict=True)],
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


def main() -> None:
    args = arguments(__doc__.splitlines()[0], model="")
    rolls = pl.PianoRollEncoder(fs=FS).fit_transform(pieces(args))
    chosen = excerpts(rolls)
    music = kinds([roll[PRIME:] for roll in chosen])
    if args.model:
        model = pl.SequenceGenerator.load(Path(args.model))
        primes = [roll[:PRIME] for roll in chosen]
        music["written"] = model.generate(MUSIC, n_pieces=N_PIECES, prime=primes, random_state=0)
    music["whole pieces"] = rolls
    found = {name: measured(rolls) for name, rolls in music.items()}
    names = ("harmony", "any key", "rhythm")
    head = f"{'':>16}" + f"{'returning':>12}{'locality':>10}" * 3
    lines = [
        f"{'':>16}" + "".join(f"{name:>22}" for name in names),
        head + f"{'notes/s':>9}{'sounding':>10}{'rest':>6}",
    ]
    for name, numbers in found.items():
        mean = numbers.mean(axis=0)
        cells = "".join(f"{a:>12.3f}{b:>10.3f}" for a, b in mean[:6].reshape(3, 2))
        lines.append(f"{name:>16}{cells}{mean[6]:>9.2f}{mean[7]:>10.2f}{mean[8]:>6.2f}")
    lines += ["", "how often a minute has the higher number, beside a real one", head]
    for name in list(found)[1:-1]:
        both = np.concatenate([found["real"], found[name]])
        is_it = np.repeat([0, 1], [len(found["real"]), len(found[name])])
        areas = np.array([roc_auc_score(is_it, column) for column in both[:, :6].T])
        cells = "".join(f"{a:>12.2f}{b:>10.2f}" for a, b in areas.reshape(3, 2))
        lines.append(f"{name:>16}{cells}")
    publish(args, "structure", "\n".join(lines))


if __name__ == "__main__":
    main()
