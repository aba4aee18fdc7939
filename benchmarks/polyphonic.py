"""Nats per frame on the four classic sets of polyphonic music.

Trains on a set's `train`, keeps the epoch that does best on `valid`, and writes the weights and a
JSON object to results/polyphonic/. Where the weights are there already, they are scored and not
trained again; `--anew` trains. A run that was stopped goes on where it was.

    python benchmarks/polyphonic.py jsb_chorales
    python benchmarks/polyphonic.py jsb_chorales --test test.npz    # keys test, test_lengths
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optax

import pianolstm as pl
from common import DATA, HERE, machine

SETS = ("jsb_chorales", "nottingham", "musedata", "piano_midi")
FOLDER = HERE / "results" / "polyphonic"
N_PITCHES, LOWEST = 88, 21

# What was chosen on `valid`; `steps` is the length of the schedule.
COMMON = {"clock": "frames", "window_size": 96, "batch_size": 8, "dropout": 0.4}
COMMON |= {"augment": 0, "learning_rate": 0.003}
SETTINGS: dict[str, dict[str, Any]] = {
    "jsb_chorales": {
        "window_size": 48,
        "dropout": 0.2,
        "augment": 6,
        "learning_rate": 0.004,
        "max_epochs": 50,
        "steps": 2250,
    },
    "nottingham": {"max_epochs": 24, "steps": 8800},
    "piano_midi": {"augment": 6, "max_epochs": 30, "steps": 3750},
    "musedata": {
        "units": 384,
        "embedding": 192,
        "max_epochs": 24,
        "steps": 9300,
    },
}
SETTINGS = {name: COMMON | settings for name, settings in SETTINGS.items()}


def load(path: Path, part: str, fs: float) -> list[pl.PianoRoll]:
    """The pieces of a part; a note that goes on is held."""
    data = np.load(path)
    frames = np.unpackbits(data[part], axis=1)[:, :N_PITCHES]
    rolls = []
    for piece in np.split(frames, np.cumsum(data[f"{part}_lengths"])[:-1]):
        plane = np.zeros((len(piece), 128), bool)
        plane[:, LOWEST : LOWEST + N_PITCHES] = piece
        onset = plane & ~np.roll(plane, 1, axis=0)
        onset[0] = plane[0]
        rolls.append(pl.PianoRoll.from_array(plane, onset=onset, fs=fs, grid="beats"))
    return rolls


def bernoulli(train: list[pl.PianoRoll], rolls: list[pl.PianoRoll]) -> float:
    """Nats per frame of each pitch on its own, with its share of the training frames.

    Counts begin at one half, for pitches that no training piece has.
    """
    pitches = slice(LOWEST, LOWEST + N_PITCHES)
    seen, new = (
        np.concatenate([np.asarray(roll)[:, pitches] > 0 for roll in part])
        for part in (train, rolls)
    )
    p = (seen.sum(0) + 0.5) / (len(seen) + 1)
    return float(np.where(new, -np.log(p), -np.log1p(-p)).sum(1).mean())


def scores(model: pl.SequenceGenerator, rolls: list[pl.PianoRoll], part: str) -> dict[str, float]:
    """In both conventions, by the network alone too; frames with a chord outside the vocabulary."""
    found = {"unknown_share": 1 - model.tokenizer_.coverage(rolls)}
    for recall, name in ((False, f"{part}_nats_without_recall"), (True, f"{part}_nats")):
        nats = model.set_params(recall=recall).surprise(rolls)
        found[name] = float(np.concatenate(nats).mean())
        found[f"{name}_from_frame_2"] = float(np.concatenate([n[1:] for n in nats]).mean())
    return found


def new_chords(model: pl.SequenceGenerator, rolls: list, valid: list) -> dict[str, float]:
    """Shares of frames whose chord no training piece has: of real pieces, and of written ones."""
    known = pl.ChordTokenizer().fit(rolls)
    written = model.generate(256, n_pieces=64, random_state=0)
    return {
        f"new_chord_share_{name}": 1 - known.coverage(part)
        for name, part in (("valid", valid), ("written", written))
    }


def train(name: str, arch: str, rolls: list, valid: list, path: Path) -> pl.SequenceGenerator:
    settings = dict(SETTINGS[name])
    schedule = optax.cosine_decay_schedule(
        settings.pop("learning_rate"), settings.pop("steps"), alpha=0.02
    )
    model = pl.SequenceGenerator(
        arch=arch,
        learning_rate=schedule,
        n_iter_no_change=60,
        checkpoint_dir=path.parent / f"{path.stem}.checkpoint",
        random_state=0,
        verbose=1,
        **settings,
    )
    model.fit(rolls, X_val=valid)
    model.save(path)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--arch", default="stacked")
    parser.add_argument("--data", type=Path, default=DATA, help=f"default: {DATA}")
    parser.add_argument("--test", type=Path, help="an .npz with keys test, test_lengths")
    parser.add_argument("--anew", action="store_true", help="train, whatever there is")
    args = parser.parse_args()
    warnings.simplefilter("ignore", pl.exceptions.DataLossWarning)
    fs = 1 if args.set == "jsb_chorales" else 2  # frames a quarter note
    archive = args.data / "polyphonic" / f"{args.set}.npz"
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{args.set}-{args.arch}.safetensors"
    if args.test is not None:
        model, rolls = pl.SequenceGenerator.load(path), load(args.test, "test", fs)
        result = scores(model, rolls, "test")
        if archive.exists():
            result["bernoulli_nats"] = bernoulli(load(archive, "train", fs), rolls)
    else:
        if args.set not in SETTINGS and not path.exists():
            parser.error(f"no settings were chosen for {args.set} yet")
        rolls, valid = load(archive, "train", fs), load(archive, "valid", fs)
        if args.anew or not path.exists():
            model = train(args.set, args.arch, rolls, valid, path)
        else:
            model = pl.SequenceGenerator.load(path)
        result = scores(model, valid, "valid") | new_chords(model, rolls, valid)
        result["bernoulli_nats"] = bernoulli(rolls, valid)
    result |= {
        "set": args.set,
        "arch": args.arch,
        "seconds": round(sum(model.history_["seconds"])),
        "epochs": model.history_["epoch"][-1],
        "best_epoch": model.best_epoch_,
        "n_parameters": model.n_parameters_,
        "settings": SETTINGS[args.set],
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
    text = json.dumps(dict(sorted(result.items())), indent=1)
    part = "test" if args.test is not None else "valid"
    (FOLDER / f"{args.set}-{args.arch}.{part}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
