"""Which notes come back from a piano roll: ours beside the published encoding.

The published encoding is `pretty_midi.PrettyMIDI.get_piano_roll`, made binary, whose runs are the
notes. The judge is mir_eval: an onset within the tolerance, of the same pitch, one to one.
"""

import numpy as np
import pretty_midi
from mir_eval.transcription import match_notes

import pianolstm as pl
from common import arguments, pieces, publish

# At 5 and 10 frames a second 50 ms is less than rounding takes: a whole frame beside it.
CASES = (
    *((5, 0.2), (5, 0.05), (10, 0.1), (10, 0.05), (20, 0.05), (40, 0.05)),
    *((100, 0.05), (100, 0.01)),
)


def matches(notes, found, tolerance):
    """Pairs that mir_eval matches; pitch by pitch, since others can't match."""
    pairs = []
    for pitch in np.intersect1d(notes["pitch"], found["pitch"]):
        ours, theirs = (np.flatnonzero(n["pitch"] == pitch) for n in (notes, found))
        intervals = [
            np.stack([n["start"][i], np.maximum(n["end"][i], n["start"][i] + 1e-4)], axis=1)
            for n, i in ((notes, ours), (found, theirs))
        ]
        same = [np.full(len(i), 440.0) for i in (ours, theirs)]
        pairs += [
            (ours[a], theirs[b])
            for a, b in match_notes(
                intervals[0], same[0], intervals[1], same[1], tolerance, offset_ratio=None
            )
        ]
    return np.array(pairs).reshape(-1, 2)


def loudest(notes, fs):
    """Velocity of each note, or of a louder one that strikes its key in the same frame.

    Both hands may strike one key at once; a roll has one note for them, the louder.
    """
    frame = np.floor(notes.start * fs + 0.5).astype(np.int64)
    _, key = np.unique(128 * frame + notes.pitch, return_inverse=True)
    most = np.zeros(key.max() + 1, np.uint8)
    np.maximum.at(most, key, notes.velocity)
    return most[key]


def columns(roll):
    notes = roll.notes
    times = {name: roll.frames_to_seconds(notes[name]) for name in ("start", "end")}
    return {**times, "pitch": notes["pitch"], "velocity": notes["velocity"]}


def main():
    args = arguments(__doc__.splitlines()[0], pieces=1000)
    paths = pieces(args)[: args.pieces]
    originals = [pl.read_notes(path) for path in paths]
    theirs = [pretty_midi.PrettyMIDI(str(path)) for path in paths]
    lines = [
        f"{len(paths)} pieces, {sum(map(len, originals)):,} notes; onset F1, all notes pooled",
        "",
        (
            f"{'fs':>4} {'tolerance':>10} {'published':>10} {'ours':>9} {'precision':>10} "
            f"{'recall':>9} {'velocity exact':>15}"
        ),
    ]
    for fs, tolerance in CASES:
        rolls = pl.PianoRollEncoder(fs=fs).transform(paths)
        published = [
            pl.PianoRoll.from_array(midi.get_piano_roll(fs).T > 0, fs=fs) for midi in theirs
        ]
        scores = {}
        for name, set_of_rolls in (("published", published), ("ours", rolls)):
            matched = n = found = exact = 0
            for original, roll in zip(originals, set_of_rolls, strict=True):
                notes, back = vars(original), columns(roll)
                pairs = matches(notes, back, tolerance)
                matched, n, found = matched + len(pairs), n + len(original), found + len(roll.notes)
                exact += np.sum(loudest(original, fs)[pairs[:, 0]] == back["velocity"][pairs[:, 1]])
            scores[name] = 2 * matched / (n + found), matched / found, matched / n, exact / matched
        lines.append(
            f"{fs:>4} {1000 * tolerance:>7.0f} ms {scores['published'][0]:>10.4f} "
            + "{:>9.5f} {:>10.5f} {:>9.5f} {:>15.5f}".format(*scores["ours"])
        )
        print(lines[-1], flush=True)
    publish(args, "round_trip", "\n".join(lines))


if __name__ == "__main__":
    main()
