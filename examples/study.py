"""The study's experiments on one's own MIDI files, or on Bach's chorales.

    python examples/study.py --minutes 10
    python examples/study.py FOLDER --minutes 10 --seeds 3

What a roll keeps of a piece at each sampling frequency; what a longer window and a higher sampling
frequency cost, step by step and from chord to chord; the five networks, each trained for the same
time, ranked by likelihood, distance, typicality, a classifier that tells them from real music, and
novelty; and whether these rankings agree. Writes six pictures, what each network wrote as MIDI and
sound, a listening test with the study's two questions, and ranking.json.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np

import pianolstm as pl

ARCHITECTURES = ("lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked")
CLOCKS = ("frames", "changes")
MEASURES = {  # what is better: more, or less
    "nats_per_second": -1,
    "distance": -1,
    "typicality": 1,
    "auc": -1,
    "novelty": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="MIDI files (default: the chorales)")
    parser.add_argument("--minutes", type=float, default=10, help="for each network (default: 10)")
    parser.add_argument("--sweep", type=float, default=30, help="seconds for each window and fs")
    parser.add_argument("--seeds", type=int, default=1, help="networks of each kind (default: 1)")
    parser.add_argument("--pieces", type=int, help="read this many pieces only")
    parser.add_argument("--units", type=int, default=256, help="width of a layer (default: 256)")
    parser.add_argument("--out", type=Path, default=Path("study"), help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pieces = Pieces(args.folder, args.pieces)
    fidelity(pieces, args)
    sweep(pieces, args)
    compare(pieces, args)


class Pieces:
    """The corpus on any grid; every tenth piece is held out."""

    def __init__(self, folder: Path | None, n: int | None) -> None:
        if folder is None:
            self.grid, self.usual, self.frequencies = "beats", 4, (1, 2, 4, 8)
            self.midi = [roll.to_midi() for roll in pl.datasets.load_chorales("train")[:n]]
            self.length = 32  # quarter notes that are written
        else:
            self.grid, self.usual, self.frequencies = "seconds", 20, (5, 10, 20, 50)
            paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".mid", ".midi"))
            self.midi = list(map(str, paths[:n]))
            self.length = 30  # seconds

    def rolls(self, fs: float) -> tuple[list[pl.PianoRoll], list[pl.PianoRoll]]:
        """Those to learn from, and those held out."""
        encoder = pl.PianoRollEncoder(fs=fs, grid=self.grid, on_error="skip")
        rolls = encoder.fit_transform(self.midi)
        held_out = [roll for i, roll in enumerate(rolls) if i % 10 == 4]
        return [roll for i, roll in enumerate(rolls) if i % 10 != 4], held_out


def fidelity(pieces: Pieces, args: argparse.Namespace) -> None:
    """Figure 1: what a roll keeps of the pieces' notes."""
    kept = [
        pl.PianoRollEncoder(fs=fs, grid=pieces.grid, on_error="skip").fidelity(pieces.midi[:10])
        for fs in pieces.frequencies
    ]
    recall = [mean(found["recall"]) for found in kept]
    print("share of the notes that a roll keeps, each within 50 ms:")
    rows = zip(pieces.frequencies, recall, strict=True)
    print("  " + ", ".join(f"fs={fs}: {share:.3f}" for fs, share in rows))
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(pieces.frequencies, recall, "o-")
    axes.set(xlabel="fs", ylabel="share of the notes kept", xscale="log")
    axes.set_xticks(pieces.frequencies, [str(fs) for fs in pieces.frequencies])
    axes.minorticks_off()
    save(figure, args.out / "1_fidelity.png")


def sweep(pieces: Pieces, args: argparse.Namespace) -> None:
    """Figure 2: sampling frequency and window, with both clocks."""
    print(f"\none LSTM, {args.sweep:g} s of training for each row:")
    print("{:<9}{:>5}{:>8}{:>11}{:>17}".format("clock", "fs", "window", "s/epoch", "nats/second"))
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for clock in CLOCKS:
        for window in (32, 128):
            rows = []
            for fs in pieces.frequencies:
                train, held_out = pieces.rolls(fs)
                model = pl.SequenceGenerator(
                    clock=clock,
                    window_size=window,
                    units=args.units,
                    early_stopping=False,
                    time_budget=args.sweep,
                    random_state=0,
                ).fit(train)
                seconds = seconds_an_epoch(model)
                rows.append((seconds, -model.score(held_out, per="second")))
                print(f"{clock:<9}{fs:>5}{window:>8}{seconds:>11.1f}{rows[-1][1]:>17.2f}")
            for ax, values in zip(axes, zip(*rows, strict=True), strict=True):
                ax.plot(pieces.frequencies, values, "o-", label=f"{clock}, window {window}")
    for ax, label in zip(axes, ("seconds an epoch", "held-out nats a second"), strict=True):
        ax.set(xlabel="fs", ylabel=label, xscale="log")
        ax.set_xticks(pieces.frequencies, [str(fs) for fs in pieces.frequencies])
        ax.minorticks_off()
    axes[0].legend(frameon=False)
    save(figure, args.out / "2_window_and_fs.png")


def seconds_an_epoch(model: pl.SequenceGenerator) -> float:
    epochs = model.history_["epoch"][-1]
    return sum(model.history_["seconds"]) / epochs if epochs else float("nan")


def compare(pieces: Pieces, args: argparse.Namespace) -> None:
    """Figures 3 to 6: the five networks, what they write, and how it is ranked."""
    train, held_out = pieces.rolls(pieces.usual)
    length, prime = pieces.length * pieces.usual, pieces.length * pieces.usual // 4
    held_out = [roll for roll in held_out if len(roll) >= prime + length]
    primes = [roll[:prime] for roll in held_out]
    real = [roll[prime : prime + length] for roll in held_out]
    print(f"\n{len(train)} pieces to learn from; {len(held_out)} held out that are long enough")
    notes, novelty = pl.NoteDistributionScorer().fit(train), pl.NoveltyScorer().fit(train)
    written, rows, histories = {}, {}, {}
    print(f"{'':<15}" + "".join(f"{name:>17}" for name in MEASURES))
    for arch in ARCHITECTURES:
        found = []
        for seed in range(args.seeds):
            model = pl.SequenceGenerator(
                arch=arch, units=args.units, time_budget=60 * args.minutes, random_state=seed
            ).fit(train)  # stops by pieces of its own choice: those held out are for the ranking
            music = model.generate(length, n_pieces=len(primes), prime=primes, random_state=seed)
            test = pl.two_sample_test(
                real,
                music,
                length=pieces.length,
                groups=2 * list(range(len(real))),  # a continuation stands beside the real one
                random_state=0,
            )
            if seed == 0:
                written[arch], histories[arch] = music, model.history_
            found.append(
                {
                    "nats_per_second": -model.score(held_out, per="second"),
                    "distance": notes.distances(music)["pitch jensen_shannon"],
                    "typicality": notes.score(music),
                    "auc": test.auc,
                    "novelty": novelty.score(music),
                }
            )
        rows[arch] = {name: mean(row[name] for row in found) for name in MEASURES}
        print(f"{arch:<15}" + "".join(f"{rows[arch][name]:>17.3f}" for name in MEASURES))
    of_real = notes.distances(real)["pitch jensen_shannon"], notes.score(real), novelty.score(real)
    print("real music: distance {:.3f}, typicality {:.3f}, novelty {:.3f}".format(*of_real))
    agreement(rows)
    (args.out / "ranking.json").write_text(json.dumps(rows, indent=1))
    draw(histories, written, real, rows, notes, args.out)
    for arch, music in written.items():
        whole = pl.PianoRoll.concatenate([primes[0], music[0]])
        whole.to_midi().write(str(args.out / f"{arch}.mid"))
        pl.audio.write_wav(args.out / f"{arch}.wav", whole)
    samples = {"real": real[:1], **{arch: music[:1] for arch, music in written.items()}}
    if not (args.out / "listening").exists():
        page = pl.listening_test(samples, args.out / "listening", velocity=64, random_state=0)
        print(f"wrote {page}: open it, save the answers, pl.read_listening_test")


def agreement(rows: dict[str, dict[str, float]]) -> None:
    """Whether each measure ranks the networks as their likelihood does."""
    print("\nrank correlation with the likelihood (Spearman's rho, exact p):")
    ranks = {
        name: {arch: -sign * row[name] for arch, row in rows.items()}
        for name, sign in MEASURES.items()
    }
    for name in list(MEASURES)[1:]:
        if len(set(ranks[name].values())) == 1:
            print(f"  {name:<12} the same for all")
            continue
        found = pl.rank_correlation(ranks["nats_per_second"], ranks[name])
        print(f"  {name:<12}{found.rho:>6.2f}  (p = {found.rho_pvalue:.2f})")


def draw(histories, written, real, rows, notes, out: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for arch, history in histories.items():
        axes.plot(history["epoch"], history["val_loss"], ".-", label=arch)
    axes.set(xlabel="epoch", ylabel="nats per frame, pieces that training stops by")
    axes.legend(frameon=False)
    save(figure, out / "3_loss.png")

    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    notes.plot({"real, held out": real, **written}, ax=axes)
    save(figure, out / "4_pitches.png")

    figure, axes = plt.subplots(len(written) + 1, figsize=(9, 12), layout="constrained")
    for ax, (name, music) in zip(axes, {"real": real, **written}.items(), strict=True):
        music[0].plot(ax)
        ax.set_title(name, loc="left", fontsize="medium")
    save(figure, out / "5_music.png")

    figure, axes = plt.subplots(1, len(MEASURES), figsize=(13, 3), layout="constrained")
    for ax, (name, sign) in zip(axes, MEASURES.items(), strict=True):
        values = np.array([row[name] for row in rows.values()])
        ax.barh(list(rows), values, color="#b8c4d0")
        ax.set_title(f"{name}\n({'more' if sign > 0 else 'less'} is better)", fontsize="medium")
        ax.invert_yaxis()
        if ax is not axes[0]:
            ax.set_yticks([])
    save(figure, out / "6_ranking.png")


def save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
