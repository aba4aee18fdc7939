"""Throw mutated MIDI files at the reader: nothing but notes or a MidiError may come of them.

Each is read as it is and with repair. Then files are broken in one place only, and it is counted
how many of their notes (pitch, velocity and length; and those whose onset is the same too, as what
is lost of a track takes its time along) repair gives back.

Bytes of real files (the folder of cases, and the smallest of the 86 pieces) are changed, cut out,
doubled, moved and filled in at random, anywhere, or within one track, whose length is then mended.
"""

import contextlib
import random
import resource
import statistics
import sys
import time
import traceback
import warnings
from collections import Counter

import numpy as np

import pianolstm as pl
from common import arguments, pieces, publish

INTERESTING = [bytes([b]) for b in (0, 1, 0x2F, 0x51, 0x7F, 0x80, 0x90, 0xB0, 0xF0, 0xF7, 0xFF)]
INTERESTING += [
    b"MTrk",
    b"MThd",
    b"\xff\x2f\x00",
    b"\xff\x51\x03",
    b"\xff\xff\xff\x7f",
    b"\xf0\x7f",
]


def mutate(data, rng, others):
    data = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        span = min(len(data) - at, 1 << rng.randrange(8))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            piece = rng.choice(INTERESTING)
            data[at : at + len(piece)] = piece
        elif kind == 2:
            del data[at : at + span]
        elif kind == 3:
            data[at:at] = data[at : at + span]
        elif kind == 4:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            data[at:at] = other[begin : begin + span]
        else:
            data[at : at + span] = rng.randbytes(span)
    return bytes(data)


def mutate_track(data, rng, others):
    """Mutate what is in one track and mend its length, so that the file stays whole around it."""
    places, at = [], 14
    while data[at : at + 4] == b"MTrk":
        length = int.from_bytes(data[at + 4 : at + 8], "big")
        places.append((at, at + 8 + length))
        at += 8 + length
    if not places:
        return mutate(data, rng, others)
    a, b = rng.choice(places)
    track = mutate(data[a + 8 : b], rng, others)
    return data[:a] + b"MTrk" + len(track).to_bytes(4, "big") + track + data[b:]


def main():
    warnings.simplefilter("error")
    args = arguments(__doc__.splitlines()[0], mutations=20_000, seed=0)
    seeds = [p.read_bytes() for p in sorted((args.data / "midi-cases").rglob("*.mid"))]
    seeds += sorted((p.read_bytes() for p in pieces(args)), key=len)[:10]
    seeds = [s for s in seeds if s]
    rng = random.Random(args.seed)
    encoders = [
        pl.PianoRollEncoder(**settings, on_error=on_error)
        for on_error in ("raise", "repair")
        for settings in ({"pedal": True}, {"fs": 12, "grid": "beats"})
    ]
    read, refused, mended, slowest, messages = 0, 0, 0, 0.0, set()
    for n in range(args.mutations):
        data = rng.choice((mutate, mutate_track))(rng.choice(seeds), rng, seeds)
        began = time.process_time()
        try:
            encoders[n % 2].transform([data])
            read += 1
        except pl.MidiError as error:
            refused += 1
            messages.add("".join(c for c in str(error) if not c.isdigit())[:40])
            mended += repaired(encoders[2 + n % 2], data)
        except BaseException:
            with open("fuzz_crash.mid", "wb") as file:
                file.write(data)
            traceback.print_exc()
            sys.exit(f"mutation {n} of seed {args.seed} crashed; its bytes are in fuzz_crash.mid")
        slowest = max(slowest, time.process_time() - began)
        if n % 2000 == 1999:
            print(f"{n + 1}: {read} read, {refused} refused", file=sys.stderr, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    publish(
        args,
        "fuzz_reader",
        f"{args.mutations:,} mutations of {len(seeds)} files: {read:,} read, {refused:,} refused "
        f"with a MidiError of {len(messages)} kinds, nothing else; of these, repair reads "
        f"{mended:,} ({mended / max(refused, 1):.0%}). Slowest, both readings together, "
        f"{slowest:.2f} s; peak memory of the process {peak:,.0f} MB.\n\n"
        + broken_once(seeds, rng),
    )


def repaired(encoder, data):
    """Whether notes come of it; a MidiError is the only other outcome."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pl.DataLossWarning)
        try:
            encoder.transform([data])
        except pl.MidiError:
            return False
    return True


BREAKS = {
    "a bit flipped": lambda data, at, n, rng: (
        data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    ),
    "a byte replaced": lambda data, at, n, rng: data[:at] + rng.randbytes(1) + data[at + 1 :],
    "1 to 8 bytes deleted": lambda data, at, n, rng: data[:at] + data[at + n :],
    "1 to 8 bytes inserted": lambda data, at, n, rng: data[:at] + rng.randbytes(n) + data[at:],
    "1 to 8 bytes doubled": lambda data, at, n, rng: data[: at + n] + data[at:],
    "cut": lambda data, at, n, rng: data[:at],
}
"""Ways to break a file in one place."""


def broken_once(seeds, rng, n=200):
    """A table: of each kind of break that is refused, how much repair gives back."""
    whole = []
    for data in seeds:
        with contextlib.suppress(pl.MidiError):
            notes = pl.read_notes(data)
            if len(notes) >= 20:
                whole.append((data, notes))
    place = f"broken in one place ({n} refused of each kind, {len(whole)} files)"
    table = [
        f"| {place} | repaired | median of the notes | with their onsets |",
        "|---|---|---|---|",
    ]
    everywhere = []
    for name, break_ in BREAKS.items():
        shares = []
        while len(shares) < n:
            data, notes = rng.choice(whole)
            broken = break_(data, rng.randrange(14, len(data)), rng.randrange(1, 9), rng)
            try:
                pl.read_notes(broken)
            except pl.MidiError:
                shares.append(given_back(broken, notes))
        table.append(row(name, shares))
        everywhere += shares if name != "cut" else []
    return "\n".join([*table, row("all but cut", everywhere)])


def given_back(broken, notes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pl.DataLossWarning)
        try:
            found = pl.read_notes(broken, on_error="repair")
        except pl.MidiError:
            return None
    return [(a & b).total() / len(notes) for a, b in zip(counts(notes), counts(found), strict=True)]


def counts(notes):
    """How many notes there are of each pitch, velocity and length; and of each onset too."""
    start, length = np.rint(100 * notes.start), np.rint(100 * (notes.end - notes.start))
    rows = [notes.pitch.tolist(), notes.velocity.tolist(), length.tolist()]
    return Counter(zip(*rows, strict=True)), Counter(zip(*rows, start.tolist(), strict=True))


def row(name, shares):
    found = [s for s in shares if s is not None]
    medians = [f"{statistics.median(column):.3f}" for column in zip(*found, strict=True)]
    return f"| {name} | {len(found) / len(shares):.0%} | {' | '.join(medians)} |"


if __name__ == "__main__":
    main()
