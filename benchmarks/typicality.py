"""Whether typicality tells real music from what is none.

Each piece of a corpus in turn is left out, and judged by the others: five excerpts of it as they
are; one with its chords shuffled, durations kept; one of its bars over and over; and notes drawn by
chance from the others' pitches, as long. Real music should have a typicality of 0.5 on every
feature, and each machine less than 0.05 on some of order or form. The chorales of the package in
twelve bars (few are much longer), and the pieces of the study in 60 seconds, 20 frames a second.

Then the quickstart: a network trained for a minute on the chorales continues one with 20 seeds, and
each continuation is scored beside chorales held out, as long. Last, the time that a report of 100
pieces of a minute takes.
"""

import time

import numpy as np

import pianolstm as pl
from common import arguments, pieces, publish
from pianolstm.scoring.baselines import chords_shuffled, notes_by_chance
from pianolstm.scoring.features import FEATURES
from pianolstm.scoring.typicality import Typicality

FS = 20
N_SEEDS, NEW_FRAMES, PRIME_FRAMES = 20, 320, 32
N_REAL = 5
KINDS = ("real", "shuffled", "bar again", "by chance")


def left_out(
    rolls: list[pl.PianoRoll], n_frames: int, bar: int, n_excerpts: int
) -> dict[str, list[Typicality]]:
    """Each piece that is long enough, judged by the others."""
    rng = np.random.default_rng(0)
    found: dict[str, list[Typicality]] = {kind: [] for kind in KINDS}
    for i in [i for i, roll in enumerate(rolls) if len(roll) >= n_frames]:
        others = rolls[:i] + rolls[i + 1 :]
        scorer = pl.NoteDistributionScorer(n_excerpts=n_excerpts).fit(others)
        starts = rng.integers(len(rolls[i]) - n_frames + 1, size=N_REAL).tolist()
        excerpts = [rolls[i][start : start + n_frames] for start in starts]
        found["real"] += [scorer.typicality([roll]) for roll in excerpts]
        real = excerpts[0]
        again = pl.PianoRoll.concatenate([real[:bar]] * -(-n_frames // bar))[:n_frames]
        (shuffled,) = chords_shuffled([real], rng)
        (chance,) = notes_by_chance(others, n_frames, 1, rng)
        for kind, roll in zip(KINDS[1:], (shuffled, again, chance), strict=True):
            found[kind].append(scorer.typicality([roll]))
    return found


def table(title: str, found: dict[str, list[Typicality]]) -> list[str]:
    """Medians over the pieces."""
    names = [name for name in FEATURES if any(name in t.features for t in found["real"])]
    lines = [f"{title}, {len(found['shuffled'])} left out in turn"]
    lines += ["median typicality".ljust(32) + "".join(f"{kind:>12}" for kind in KINDS)]
    for name in names:
        cells = []
        for kind in KINDS:
            values = [t.values[0, t.features.index(name)] for t in found[kind]]
            known = [v for v in values if not np.isnan(v)]
            cells.append(f"{np.median(known):>12.3f}" if known else f"{'-':>12}")
        lines.append(f"{FEATURES[name].group + ': ' + name:32}".ljust(32) + "".join(cells))
    for label, of in (("all together", lambda t: t.overall[0]), ("score", lambda t: t.score)):
        cells = [f"{np.median([of(t) for t in found[kind]]):>12.3f}" for kind in KINDS]
        lines.append(label.ljust(32) + "".join(cells))
    return [*lines, ""]


def quickstart(minutes: float) -> list[str]:
    """Continuations by 20 seeds beside real chorales."""
    train = pl.datasets.load_chorales("train")
    held_out = pl.datasets.load_chorales("validation") + pl.datasets.load_chorales("test")
    model = pl.SequenceGenerator(time_budget=60 * minutes, random_state=0).fit(train)
    real = [roll[:NEW_FRAMES] for roll in held_out if len(roll) >= NEW_FRAMES]
    prime = pl.datasets.load_chorales("validation")[0][:PRIME_FRAMES]
    written = [model.generate(NEW_FRAMES, prime=prime, random_state=s) for s in range(N_SEEDS)]
    scorer = pl.NoteDistributionScorer().fit(train)
    bach = scorer.score(real)
    scores = [scorer.score([roll]) for roll in written]
    worst = min(scorer.score([roll]) for roll in real)
    n_above = sum(score < bach for score in scores)
    n_worst = sum(score < worst for score in scores)
    report = scorer.report({"written": written, "chorales, held out": real})
    return [
        f"quickstart, trained for {60 * minutes:.0f} s: {N_SEEDS} continuations score",
        f"{min(scores):.2f} to {max(scores):.2f}, {len(real)} chorales held out {bach:.2f},",
        f"the worst {worst:.2f}. All chorales together rank above {n_above} of {N_SEEDS},",
        f"the worst above {n_worst}",
        "",
        str(report),
        "",
    ]


def speed(rolls: list[pl.PianoRoll]) -> list[str]:
    """Seconds of a whole report."""
    length = 60 * FS
    samples = [roll[a : a + length] for roll in rolls for a in range(0, len(roll) - length, length)]
    began = time.perf_counter()
    scorer = pl.NoteDistributionScorer().fit(rolls)
    report = scorer.report({"samples": samples[:100]})
    seconds = time.perf_counter() - began
    return [
        f"fit and report of {len(samples[:100])} samples of a minute: {seconds:.0f} s",
        str(report),
    ]


def main() -> None:
    args = arguments(__doc__.splitlines()[0], minutes=1.0, excerpts=200)
    rolls = pl.PianoRollEncoder(fs=FS).fit_transform(pieces(args))
    chorales = pl.datasets.load_chorales("train")
    lines = table(
        "chorales, 12 bars", left_out(chorales, n_frames=192, bar=16, n_excerpts=args.excerpts)
    )
    lines += table(
        "pieces of the study, 60 s",
        left_out(rolls, n_frames=60 * FS, bar=2 * FS, n_excerpts=args.excerpts),
    )
    lines += quickstart(args.minutes)
    lines += speed(rolls)
    publish(args, "typicality", "\n".join(lines))


if __name__ == "__main__":
    main()
