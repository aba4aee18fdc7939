"""Learn Bach's chorales, write a new one, and see how near it is.

    python examples/quickstart.py

Takes about three minutes on two cores. Writes quickstart.wav to listen to, quickstart.mid and
quickstart.png; the last line of the output is one JSON object.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt

import pianolstm as pl

PRIME_FRAMES = 32  # two bars
NEW_FRAMES = 320  # twenty bars, 48 seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150, help="training time (default: 150)")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder to write to")
    args = parser.parse_args()
    began = time.monotonic()

    train = pl.datasets.load_chorales("train")
    held_out = pl.datasets.load_chorales("validation")
    print(f"{len(train)} chorales to learn from, {len(held_out)} held out")

    model = pl.SequenceGenerator(
        arch="lstm", time_budget=args.seconds, verbose=1, random_state=0
    ).fit(train, X_val=held_out)
    nats = model.history_["val_loss"]
    unigram, bigram = (pl.NgramBaseline(order=n).fit(train).score(held_out) for n in (1, 2))
    print(f"network of {model.n_parameters_:,} parameters, held-out nats per frame:")
    print(f"  {nats[0]:.2f} before training, {min(nats):.2f} after")
    print(f"  {-unigram:.2f} for counts of chords, {-bigram:.2f} for counts of pairs of chords")

    prime = held_out[0][:PRIME_FRAMES]
    music = model.generate(NEW_FRAMES, prime=prime, random_state=0)
    midi = args.out / "quickstart.mid"
    music.to_midi().write(str(midi))
    whole = pl.PianoRoll.concatenate([prime, music])
    sound = args.out / "quickstart.wav"
    pl.audio.write_wav(sound, whole)

    figure, (roll_axes, curve_axes) = plt.subplots(
        1, 2, figsize=(12, 4), width_ratios=(3, 1), layout="constrained"
    )
    whole.plot(roll_axes, prime_seconds=prime.seconds)
    pl.plotting.plot_history(model.history_, ax=curve_axes)
    picture = args.out / "quickstart.png"
    figure.savefig(picture, dpi=120)
    print(f"wrote {midi}: {music}")
    print(f"wrote {sound}, with the prime, and {picture}")

    print("\nHow like real music (-1 is the best score; of typicalities, real music has 0.5):")
    excerpts = [roll[:NEW_FRAMES] for roll in held_out if len(roll) >= NEW_FRAMES]
    scorer = pl.NoteDistributionScorer().fit(train)
    print(scorer.report({"generated": [music], "Bach, held out": excerpts}))

    result = {
        "val_nats_before": round(nats[0], 4),
        "val_nats_after": round(min(nats), 4),
        "val_nats_unigram": round(-unigram, 4),
        "val_nats_bigram": round(-bigram, 4),
        "seconds": round(time.monotonic() - began, 1),
        "midi": str(midi),
        "notes": len(music.notes),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
