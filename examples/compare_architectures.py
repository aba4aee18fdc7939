"""Train the study's five networks for the same time and compare them in one table.

    python examples/compare_architectures.py --minutes 2

Learns Bach's chorales; with ``--folder`` one's own MIDI files.
"""

import argparse
from pathlib import Path
from statistics import median

from sklearn.model_selection import train_test_split

import pianolstm as pl

ARCHITECTURES = ("lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2, help="time for each (default: 2)")
    parser.add_argument("--folder", type=Path, help="MIDI files to learn from")
    parser.add_argument("--pieces", type=int, help="learn from this many pieces only")
    parser.add_argument("--units", type=int, default=256, help="width of a layer (default: 256)")
    parser.add_argument("--window-size", type=int, help="default: 64, with --folder 200")
    parser.add_argument(
        "--arch", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES, help="default: all five"
    )
    args = parser.parse_args()

    if args.folder:
        rolls = pl.datasets.load_folder(args.folder)[: args.pieces]
        train, held_out = train_test_split(rolls, test_size=0.1, random_state=0)
    else:
        train = pl.datasets.load_chorales("train")[: args.pieces]
        held_out = pl.datasets.load_chorales("validation")[: args.pieces]
    scorer = pl.NoteDistributionScorer().fit(train)
    prime = held_out[0][: round(8 * held_out[0].fs)]
    length = round(60 * train[0].fs)

    sets = {"held-out music": held_out}
    header = ("arch", "parameters", "epochs", "s/epoch", "nats/frame", "accuracy")
    print(("{:<15}" + "{:>12}" * 5).format(*header), flush=True)
    for arch in args.arch:
        model = pl.SequenceGenerator(
            arch=arch,
            clock="frames",  # as in the study
            augment=0,
            units=args.units,
            window_size=args.window_size or (200 if args.folder else 64),
            dropout=0.3,
            learning_rate=0.003,
            time_budget=60 * args.minutes,
            random_state=0,
        ).fit(train, X_val=held_out)
        history = model.history_
        best = history["epoch"].index(model.best_epoch_)
        # The first epoch also compiles; a last one that was cut short is scaled up.
        rates = [
            spent / (epoch - before)
            for spent, epoch, before in zip(
                history["seconds"][1:], history["epoch"][1:], history["epoch"], strict=False
            )
        ]
        seconds = median(rates[1:] or rates) if rates else float("nan")
        print(
            f"{arch:<15}{model.n_parameters_:>12,}{history['epoch'][-1]:>12.2f}"
            f"{seconds:>12.1f}{history['val_loss'][best]:>12.3f}"
            f"{history['accuracy'][best]:>12.3f}",
            flush=True,
        )
        sets[arch] = [model.generate(length, prime=prime, random_state=i) for i in range(4)]
    print("\nHow like real music (-1 is the best score; of typicalities, real music has 0.5):")
    print(scorer.report(sets))


if __name__ == "__main__":
    main()
