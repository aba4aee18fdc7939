"""How written music repeats itself, beside real music.

One model of the pieces of the study, nine of the 86 held out (as in `time_to_quality.py`), trained
for ten minutes, or read from a file. It continues 64 primes of 10 seconds from the pieces held out,
evenly spaced, by a minute each; beside them stand the real continuations. Written with the
defaults, with other settings, without the limits on repeating, and with `recall=False`.
"""

from pathlib import Path
from typing import Any

import numpy as np

import pianolstm as pl
from common import arguments, pieces, publish
from pianolstm._decoding import sampling
from pianolstm._jax.programs import programs
from time_to_quality import FS, like

N_PIECES, PRIME, MUSIC = 64, 10 * FS, 60 * FS
SETTINGS = (
    {"top_p": None},
    {"top_p": 0.99},
    {"top_p": 0.97},
    {"top_p": 0.95},
    {"top_p": None, "temperature": 0.95},
    {"top_p": None, "temperature": 0.9},
    {"repetition_penalty": 1.3},
)


def excerpts(rolls: list[pl.PianoRoll]) -> list[pl.PianoRoll]:
    """Of pieces that are long enough, evenly spaced."""
    starts = [(i, a) for i, roll in enumerate(rolls) for a in range(len(roll) - PRIME - MUSIC + 1)]
    chosen = np.linspace(0, len(starts) - 1, N_PIECES).round().astype(int)
    return [rolls[i][a : a + PRIME + MUSIC] for i, a in (starts[k] for k in chosen)]


def line(name: str, rolls: list[pl.PianoRoll]) -> str:
    found = pl.repetition(rolls)
    notes, long, longest = like(rolls)
    return (
        f"{name:>30}{found.twice:>8.3f}{found.thrice:>8.3f}{found.most:>6}{found.returns:>9.3f}"
        f"{found.gap:>6.1f}{found.chords_per_minute:>12.0f}{notes:>9.2f}{long:>7.3f}{longest:>9.1f}"
    )


def main() -> None:
    args = arguments(__doc__.splitlines()[0], model="", minutes=10.0)
    rolls = pl.PianoRollEncoder(fs=FS).fit_transform(pieces(args))
    held_out = [roll for i, roll in enumerate(rolls) if i % 10 == 4]
    train = [roll for i, roll in enumerate(rolls) if i % 10 != 4]
    if args.model:
        model = pl.SequenceGenerator.load(Path(args.model))
    else:
        model = pl.SequenceGenerator(time_budget=60 * args.minutes, random_state=0).fit(train)
    real = excerpts(held_out)
    primes = [roll[:PRIME] for roll in real]
    head = f"{'':>30}{'twice':>8}{'thrice':>8}{'most':>6}{'returns':>9}{'gap':>6}{'chords/min':>12}"
    head += f"{'notes/s':>9}{'3 s':>7}{'longest':>9}"
    lines = [head, line("real", [roll[PRIME:] for roll in real])]

    def add(name: str, **settings: Any) -> None:
        music = model.generate(MUSIC, n_pieces=N_PIECES, prime=primes, random_state=0, **settings)
        lines.append(line(name, music))

    add("written")
    for settings in SETTINGS:
        add(", ".join(f"{name}={value}" for name, value in settings.items()), **settings)
    add("MaxRepeats(2)", constraints=pl.constraints.MaxRepeats(2))
    model.set_params(recall=False)
    add("recall=False")
    # What is recalled comes as often in a row as the gate says; the limit is compiled in.
    sampling.MAX_RECALLED = 10**6
    programs.clear()
    model.set_params(recall=True).__dict__.pop("_decoder_", None)
    add("without the limits", constraints=pl.constraints.MaxRepeats(10**6))
    publish(args, "repetition", "\n".join(lines))


if __name__ == "__main__":
    main()
