"""Every constraint alone and every two together: 100,000 frames each, and not one breach.

Models of Bach's chorales, of both clocks, trained for a minute, with a closed vocabulary and
spelling, write 64 pieces for each case; the rolls are then checked by plain code that knows nothing
of tokens.
"""

import itertools

import numpy as np

import pianolstm as pl
from common import arguments, publish

C = pl.constraints


def in_two_hands(pitches, span, notes):
    def fits(hand):
        return len(hand) == 0 or (hand[-1] - hand[0] <= span and len(hand) <= notes)

    return any(fits(pitches[:k]) and fits(pitches[k:]) for k in range(len(pitches) + 1))


def every(rule):
    """A check of each different chord."""
    return lambda plane, onset: all(rule(np.flatnonzero(row)) for row in np.unique(plane, axis=0))


def longest(plane, onset, *, silent):
    """Frames of the longest chord without a strike, or of the longest silence."""
    new = np.any(plane[1:] != plane[:-1], axis=1) | onset[1:].any(1)
    begins = np.flatnonzero(np.append(True, new))
    lengths = np.diff(begins, append=len(plane))
    is_rest = ~plane[begins].any(1)
    return max(lengths[is_rest] if silent else lengths, default=0)


def cases(model, roll, bass):
    fs, asked, struck = model.fs_, np.asarray(roll) > 0, roll.onset

    def voice(line, highest):
        asked = np.asarray(line) > 0

        def check(plane, onset):
            for t, row in enumerate(asked):
                wanted, found = np.flatnonzero(row), np.flatnonzero(plane[t])
                if len(wanted) and wanted[-1 if highest else 0] != found[-1 if highest else 0]:
                    return False
            return True

        return check

    def has_all(plane, onset):
        n = len(asked)
        return not (asked & ~plane[:n]).any() and not (asked & (onset[:n] != struck))[1:].any()

    return {
        "PitchRange": (C.PitchRange(45, 76), every(lambda p: all((p >= 45) & (p <= 76)))),
        "Scale": (
            C.Scale("G major"),
            every(lambda p: not len(np.intersect1d(p % 12, [1, 3, 5, 8, 10]))),
        ),
        "MaxNotes": (C.MaxNotes(3), every(lambda p: len(p) <= 3)),
        "TwoHands": (C.TwoHands(9, 2), every(lambda p: in_two_hands(p, 9, 2))),
        "MaxHold": (C.MaxHold(0.75), lambda *a: longest(*a, silent=False) <= 0.75 * fs),
        "MaxSilence": (C.MaxSilence(0.5), lambda *a: longest(*a, silent=True) <= 0.5 * fs),
        "Melody": (C.Melody(roll, onsets=False), voice(roll, True)),
        "Bass": (C.Bass(bass, onsets=False), voice(bass, False)),
        "Contains": (C.Contains(roll), has_all),
    }


def breaches(model, n_frames):
    """Lines that tell what came of all cases."""
    # A melody and a bass within the ranges and scales above: notes of G major, with rests.
    rng = np.random.default_rng(0)
    lines = rng.choice([67, 69, 71, 72, 74, 76], 120), rng.choice([47, 48, 50, 52, 55], 120)
    starts = np.arange(120) * 4
    roll, bass = (
        pl.PianoRoll.from_notes(starts, starts + 3, line, fs=model.fs_, grid=model.grid_)
        for line in lines
    )
    rules = cases(model, roll, bass)
    counts, outside, impossible = [], [], []
    for names in [*((n,) for n in rules), *itertools.combinations(rules, 2)]:
        rule = rules[names[0]][0]
        for name in names[1:]:
            rule = rule & rules[name][0]
        try:
            music = model.generate(n_frames, n_pieces=64, constraints=rule, random_state=1)
        except pl.InvalidInputError as error:
            impossible.append(f"{' & '.join(names)}: {error}")
            continue
        counts.append(
            sum(
                not rules[name][1](np.asarray(piece) > 0, piece.onset)
                for name in names
                for piece in music
            )
        )
        outside.append(1 - model.tokenizer_.coverage(music))
        print(" & ".join(names), counts[-1], f"{outside[-1]:.3f}", flush=True)
    share = f"{np.mean(outside):.1%} of them outside the vocabulary"
    total = f"{len(counts)} cases of {64 * n_frames:,} frames"
    return [
        f"clock={model.clock}, spell={model.spell}: {total}, {share}: {sum(counts)} breaches",
        f"{len(impossible)} cases that leave no chord, each refused with an error:",
        *(f"  {line}" for line in impossible),
    ]


def main():
    args = arguments(__doc__.splitlines()[0], frames=100_000, seconds=60, clocks="frames,changes")
    train = pl.datasets.load_chorales("train")
    n_frames = -(-args.frames // 64)
    lines = []
    for clock, spell in itertools.product(args.clocks.split(","), (False, True)):
        model = pl.SequenceGenerator(
            units=64,
            embedding=32,
            clock=clock,
            spell=spell,
            time_budget=args.seconds,
            random_state=0,
        )
        lines += breaches(model.fit(train), n_frames)
    publish(args, "constraints", "\n".join(lines))


if __name__ == "__main__":
    main()
