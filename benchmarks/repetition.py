"""How written music repeats itself, beside real music.

One model of the pieces of the study, nine of the 86 held out (as in `time_to_quality.py`), trained
for ten minutes, or read from a file. It continues 64 primes of 10 seconds from the pieces held out,
evenly spaced, by a minute each; beside them stand the real continuations. Written as it is, with
what is recalled as often in a row as the network says (the limit of writing off), and with
`recall=False`.
"""

import sys
from pathlib import Path

import numpy as np

import pianolstm as pl
from common import arguments, pieces, publish
from pianolstm._decoding import sampling
from pianolstm._jax.programs import programs
from time_to_quality import FS

N_PIECES, PRIME, MUSIC = 64, 10 * FS, 60 * FS


def excerpts(rolls: list[pl.PianoRoll]) -> list[pl.PianoRoll]:
    """Of pieces that are long enough, evenly spaced."""
    starts = [(i, a) for i, roll in enumerate(rolls) for a in range(len(roll) - PRIME - MUSIC + 1)]
    chosen = np.linspace(0, len(starts) - 1, N_PIECES).round().astype(int)
    return [rolls[i][a : a + PRIME + MUSIC] for i, a in (starts[k] for k in chosen)]


def line(name: str, rolls: list[pl.PianoRoll]) -> str:
    found = pl.repetition(rolls)
    return (
        f"{name:>24}{found.twice:>8.3f}{found.thrice:>8.3f}{found.most:>6}{found.returns:>9.3f}"
        f"{found.gap:>8.1f}{found.chords_per_minute:>12.0f}"
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
    head = f"{'':>24}{'twice':>8}{'thrice':>8}{'most':>6}{'returns':>9}{'gap':>8}{'chords/min':>12}"
    lines = [head, line("real", [roll[PRIME:] for roll in real])]
    usual = sampling.MAX_RECALLED
    for name, limit, recall in (
        ("written", usual, True),
        ("without the limit", sys.maxsize >> 32, True),
        ("recall=False", usual, False),
    ):
        sampling.MAX_RECALLED = limit
        programs.clear()  # the limit is compiled in
        model.set_params(recall=recall).__dict__.pop("_decoder_", None)
        music = model.generate(MUSIC, n_pieces=N_PIECES, prime=primes, random_state=0)
        lines.append(line(name, music))
    publish(args, "repetition", "\n".join(lines))


if __name__ == "__main__":
    main()
