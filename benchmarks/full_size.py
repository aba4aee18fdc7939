"""Training on all 86 pieces at 20 frames a second: seconds an epoch, memory, compilation.

All five networks at full size; the stacked one also at a quarter and half of the frames, and of the
vocabulary. Each in a process of its own, one after another. An epoch is the median step times the
number of steps (validation is told beside it).
"""

import json
import resource
import subprocess
import sys
import time
import warnings
from statistics import median

import pianolstm as pl
from common import arguments, pieces, publish

CASES = [
    *((arch, 1.0, 1.0) for arch in ("lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked")),
    *(("stacked", share, 1.0) for share in (0.5, 0.25)),
    *(("stacked", 1.0, share) for share in (0.5, 0.25)),
]


class Stop(pl.callbacks.Callback):
    """Notes the time of each step, and ends training after some of them."""

    def __init__(self, steps):
        self.steps, self.times, self.n_steps = steps, [], 0

    def on_batch_end(self, model, step, n_steps, loss):
        self.times.append(time.perf_counter())
        self.n_steps = n_steps
        if len(self.times) > self.steps:
            raise KeyboardInterrupt


def measure(arch, frames, vocabulary, steps, paths):
    """In a process of its own: train some steps, and print what they took."""
    import jax

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: (
            compiled.append(seconds) if event.endswith("backend_compile_duration") else None
        )
    )
    warnings.simplefilter("ignore")
    rolls = pl.PianoRollEncoder().transform(paths)
    # The same share of every piece, so that the pieces are alike.
    rolls = [roll[: max(400, round(frames * len(roll)))] for roll in rolls]
    tokenizer = pl.ChordTokenizer().fit(rolls)
    tokenizer = pl.ChordTokenizer(max_tokens=round(vocabulary * tokenizer.n_tokens_))
    stop = Stop(steps)
    model = pl.SequenceGenerator(
        arch=arch,
        clock="frames",
        augment=0,
        tokenizer=tokenizer,
        callbacks=[stop],
        random_state=0,
        validation_fraction=0.1,
    ).fit(rolls)
    steps = [b - a for a, b in zip(stop.times[1:], stop.times[2:], strict=False)]
    print(
        json.dumps(
            {
                "frames": sum(map(len, rolls)),
                "chords": model.tokenizer_.n_tokens_,
                "parameters": model.n_parameters_,
                "epoch": median(steps) * stop.n_steps,
                "validation": model.history_["seconds"][0],
                "compiled": sum(compiled),
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
        )
    )


def main():
    args = arguments(__doc__.splitlines()[0], steps=20, one="")
    paths = pieces(args)
    if args.one:
        arch, frames, vocabulary = args.one.split(",")
        return measure(arch, float(frames), float(vocabulary), args.steps, paths)
    lines = [
        (
            f"{'arch':<15}{'frames':>9}{'chords':>8}{'parameters':>12}{'s/epoch':>9}"
            f"{'first validation s':>20}{'compiling s':>13}{'peak GB':>9}"
        )
    ]
    print(lines[0])
    for arch, frames, vocabulary in CASES:
        case = f"{arch},{frames},{vocabulary}"
        command = [sys.executable, __file__, "--one", case, "--steps", str(args.steps)]
        out = subprocess.run(
            [*command, "--data", str(args.data)], check=True, capture_output=True, text=True
        ).stdout
        row = json.loads(out.splitlines()[-1])
        lines.append(
            f"{arch:<15}{row['frames']:>9,}{row['chords']:>8,}{row['parameters']:>12,}"
            f"{row['epoch']:>9.0f}{row['validation']:>20.0f}{row['compiled']:>13.1f}"
            f"{row['peak']:>9.2f}"
        )
        print(lines[-1], flush=True)
    publish(args, "full_size", "\n".join(lines))


if __name__ == "__main__":
    main()
