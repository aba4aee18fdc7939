"""Throw mutated MIDI files at the reader: nothing but notes or a MidiError may come of them.

Bytes of real files (the folder of cases, and the smallest of the 86 pieces) are changed, cut out,
doubled, moved and filled in at random, anywhere, or within one track, whose length is then mended.
"""

import random
import sys
import time
import traceback
import warnings

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
    encoders = [pl.PianoRollEncoder(pedal=True), pl.PianoRollEncoder(fs=12, grid="beats")]
    read, refused, slowest, messages = 0, 0, 0.0, set()
    for n in range(args.mutations):
        data = rng.choice((mutate, mutate_track))(rng.choice(seeds), rng, seeds)
        began = time.process_time()
        try:
            encoders[n % 2].transform([data])
            read += 1
        except pl.MidiError as error:
            refused += 1
            messages.add("".join(c for c in str(error) if not c.isdigit())[:40])
        except BaseException:
            with open("fuzz_crash.mid", "wb") as file:
                file.write(data)
            traceback.print_exc()
            sys.exit(f"mutation {n} of seed {args.seed} crashed; its bytes are in fuzz_crash.mid")
        slowest = max(slowest, time.process_time() - began)
        if n % 2000 == 1999:
            print(f"{n + 1}: {read} read, {refused} refused", file=sys.stderr, flush=True)
    publish(
        args,
        "fuzz_reader",
        f"{args.mutations:,} mutations of {len(seeds)} files: {read:,} read, {refused:,} refused "
        f"with a MidiError of {len(messages)} kinds, nothing else; slowest {slowest:.2f} s",
    )


if __name__ == "__main__":
    main()
