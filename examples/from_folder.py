"""Learn from one's own MIDI files, within a time, and write more of the kind.

python examples/from_folder.py FOLDER --arch stacked --fs 20 --minutes 10
"""

import argparse
from pathlib import Path

import pianolstm as pl


class Report(pl.callbacks.Callback):
    """Prints the loss on the pieces held out, epoch by epoch."""

    def on_fit_begin(self, model: pl.SequenceGenerator) -> None:
        self.on_epoch_end(model)

    def on_epoch_end(self, model: pl.SequenceGenerator) -> None:
        last = {key: values[-1] for key, values in model.history_.items()}
        print(
            f"epoch {last['epoch']:g}: held out {last['val_loss']:.3f} nats per frame, "
            f"accuracy {last['accuracy']:.1%}, training {last['loss']:.3f}, "
            f"{last['seconds']:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with MIDI files")
    parser.add_argument("--arch", default="stacked", help="network (default: stacked)")
    parser.add_argument("--fs", type=float, default=20, help="frames per second (default: 20)")
    parser.add_argument("--clock", default="changes", help="frames or changes (default: changes)")
    parser.add_argument("--minutes", type=float, default=10, help="training time (default: 10)")
    parser.add_argument("--units", type=int, default=256, help="width of a layer (default: 256)")
    parser.add_argument("--seconds", type=float, default=60, help="music to write (default: 60)")
    parser.add_argument("--out", type=Path, default=Path("new.mid"), help="file to write")
    args = parser.parse_args()

    encoder = pl.PianoRollEncoder(fs=args.fs, on_error="skip")
    rolls = pl.datasets.load_folder(args.folder, encoder)
    for index, error in encoder.skipped_:
        print(f"left out file {index}: {error}")
    print(f"{len(rolls)} pieces, {sum(map(len, rolls)):,} frames")

    model = pl.SequenceGenerator(
        arch=args.arch,
        units=args.units,
        clock=args.clock,
        time_budget=60 * args.minutes,
        callbacks=[Report()],
        random_state=0,
    ).fit(rolls)
    print(
        f"{model.n_parameters_:,} parameters over {model.tokenizer_.n_tokens_:,} chords; "
        f"kept epoch {model.best_epoch_:g}"
    )

    prime = rolls[model.held_out_[0]][: round(5 * args.fs)]
    music = model.generate(round(args.seconds * args.fs), prime=prime, random_state=0)
    music.to_midi().write(str(args.out))
    pl.audio.write_wav(args.out.with_suffix(".wav"), pl.PianoRoll.concatenate([prime, music]))
    model.save(args.out.with_suffix(".safetensors"))
    print(f"wrote {args.out}: {music}")


if __name__ == "__main__":
    main()
