"""Play what a model writes, while it writes it: to a MIDI port, or to a file.

    python examples/play.py model.safetensors [--seconds 30] [--port NAME] [--out played.mid]

Without a model it trains a small one on Bach's chorales first. It sounds where there is a port, and
is written to the file in any case.
"""

import argparse
import contextlib
import time

import mido

import pianolstm as pl


def open_port(name):
    """A port to play to; None where the machine has none."""
    try:
        names = mido.get_output_names()
    except ImportError:  # no python-rtmidi
        names = []
    if name is None and not names:
        return None
    return mido.open_output(name or names[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--port")
    parser.add_argument("--out", default="played.mid")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    if args.model:
        model = pl.SequenceGenerator.load(args.model)
    else:
        model = pl.SequenceGenerator(units=64, embedding=32, time_budget=20, random_state=0)
        model.fit(pl.datasets.load_chorales("train"))
    stream = model.stream(top_p=0.95, random_state=args.seed)
    port = open_port(args.port)
    file, track, written = mido.MidiFile(), mido.MidiTrack(), 0
    file.tracks.append(track)  # 480 ticks a quarter of half a second

    def send(event):
        nonlocal written
        message = mido.Message(event.kind, note=event.pitch, velocity=event.velocity)
        if port is not None:
            port.send(message)
        tick = round(event.time * 960)
        track.append(message.copy(time=tick - written))
        written = tick

    began = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        while stream.index * stream.seconds_per_frame < args.seconds:
            frame = next(stream)
            if port is not None:
                time.sleep(max(0, began + frame.time - time.monotonic()))
            for event in frame.events:
                send(event)
    for event in stream.release():
        send(event)
    file.save(args.out)
    print(f"played to {port.name if port else 'no port'}, written to {args.out}")


if __name__ == "__main__":
    main()
