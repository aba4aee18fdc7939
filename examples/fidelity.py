"""What a piano roll keeps of a piece, at every sampling frequency: the study's first experiment.

python examples/fidelity.py PIECE.mid

The published encoding, a binary roll, stands beside this library's: it merges a note that is
struck again with the one before, so that no sampling frequency brings all notes back.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pretty_midi

import pianolstm as pl

FREQUENCIES = (2, 4, 5, 8, 10, 16, 20, 30, 40, 60, 80, 100)


def published_recall(original: pl.Notes, midi: pretty_midi.PrettyMIDI, fs: float) -> float:
    """Share of the notes that the published encoding brings back, each within a frame."""
    roll = pl.PianoRoll.from_array(midi.get_piano_roll(fs).T > 0, fs=fs)
    n_kept = 0
    for pitch in np.unique(original.pitch):
        onsets = np.sort(original.start[original.pitch == pitch])
        found = list(roll.notes["start"][roll.notes["pitch"] == pitch] / fs)
        for onset in onsets:
            while found and found[0] < onset - 1 / fs:
                found.pop(0)  # too early for this onset and all later ones
            if found and found[0] <= onset + 1 / fs:
                found.pop(0)
                n_kept += 1
    return n_kept / len(original)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("piece", type=Path, help="a MIDI file")
    parser.add_argument("--out", type=Path, default=Path("fidelity.png"), help="picture to write")
    args = parser.parse_args()

    original = pl.read_notes(args.piece)
    midi = pretty_midi.PrettyMIDI(str(args.piece))
    print(f"{args.piece.name}: {len(original)} notes, {original.seconds:.0f} s")
    print(f"{'fs':>4}{'recall':>9}{'published':>11}{'onset ms':>10}{'struck again kept':>19}")
    recalls: dict[str, list[float]] = {"this library": [], "published encoding": []}
    for fs in FREQUENCIES:
        # A frame is what an onset may be off by.
        kept = pl.PianoRollEncoder(fs=fs).fidelity([args.piece], tolerance=1 / fs)
        recall = published_recall(original, midi, fs)
        recalls["this library"].append(kept["recall"][0])
        recalls["published encoding"].append(recall)
        print(
            f"{fs:>4}{kept['recall'][0]:>9.3f}{recall:>11.3f}{kept['onset_ms'][0]:>10.1f}"
            f"{kept['struck_again_kept'][0]:>19.3f}"
        )

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, values in recalls.items():
        axes.plot(FREQUENCIES, values, "o-", label=name)
    axes.set(xlabel="frames a second", ylabel="share of the notes that come back", xscale="log")
    axes.set_xticks(FREQUENCIES, [str(fs) for fs in FREQUENCIES])
    axes.minorticks_off()
    axes.set_ylim(None, 1.02)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(args.out, dpi=120)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
