"""The study's experiment, sampling frequency and window, with both clocks.

The 86 pieces, those with index 4, 14, 24, … of the sorted list held out; one LSTM with defaults,
trained for a minute without validation, each row in a process of its own. Seconds an epoch are
those of its steps, without compiling; memory is the peak of the process after `fit`. Nats are of
the held-out pieces, without recall. A finer grid tells more exactly when a chord begins, which
costs nats: "corrected" takes log(fs / 20) off for each chord that begins, as if the moment were
spread evenly over a frame of 20 a second, so that the rows compare.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import pianolstm as pl
from common import arguments, pieces, publish
from pianolstm.tokens import TokenCorpus
from pianolstm.vocabulary import Corpus

FREQUENCIES = (5, 10, 20, 50, 100)
ROWS = [(fs, 200) for fs in FREQUENCIES] + [(fs, 50) for fs in (5, 20, 100)]


class Steps(pl.callbacks.Callback):
    """How long the steps take; the first compiles."""

    def __init__(self):
        self.seconds, self.n, self.last = 0.0, 0, None

    def on_batch_end(self, model, step, n_steps, loss):
        now = time.monotonic()
        if self.last is not None:
            self.seconds, self.n = self.seconds + now - self.last, self.n + 1
        self.last, self.n_steps = now, n_steps

    def on_epoch_end(self, model):
        self.last = None

    def seconds_an_epoch(self):
        return self.seconds / self.n * self.n_steps


def measured(clock, fs, window, args):
    """Of one row."""
    rolls = pl.PianoRollEncoder(fs=fs).fit_transform(pieces(args))
    held_out = [roll for i, roll in enumerate(rolls) if i % 10 == 4]
    train = [roll for i, roll in enumerate(rolls) if i % 10 != 4]
    steps = Steps()
    model = pl.SequenceGenerator(
        clock=clock,
        window_size=window,
        early_stopping=False,  # the time is for steps alone
        time_budget=args.seconds,
        callbacks=[steps],
        random_state=0,
    ).fit(train)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    model.recall = False
    corpus = Corpus.of(model.tokenizer_.vocabulary_, TokenCorpus.of(held_out), "changes")
    begun = sum(map(len, corpus.tokens)) / corpus.onsets().sum()
    second, note = (-model.score(held_out, per=per) for per in ("second", "note"))
    return {
        "epoch": steps.seconds_an_epoch(),
        "epochs": model.history_["epoch"][-1],
        "peak": peak,
        "second": second,
        "note": note,
        "corrected": note - begun * float(np.log(fs / 20)),
    }


def main():
    if sys.argv[1:2] == ["--row"]:
        clock, fs, window, data, seconds = json.loads(sys.argv[2])
        given = argparse.Namespace(data=Path(data), seconds=seconds)
        print(json.dumps(measured(clock, fs, window, given)))
        return
    args = arguments(__doc__.splitlines()[0], seconds=60.0, clocks="frames,changes")
    head = f"{'clock':<9}{'fs':>4}{'window':>8}{'s/epoch':>9}{'epochs':>8}{'MB':>7}"
    lines = [head + f"{'nats/s':>8}{'nats/note':>11}{'corrected':>11}"]
    for clock in args.clocks.split(","):
        for fs, window in ROWS:
            given = json.dumps([clock, fs, window, str(args.data), args.seconds])
            command = [sys.executable, __file__, "--row", given]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row = json.loads(out.splitlines()[-1])
            lines.append(
                f"{clock:<9}{fs:>4}{window:>8}{row['epoch']:>9.1f}{row['epochs']:>8.2f}"
                f"{row['peak']:>7.0f}{row['second']:>8.2f}{row['note']:>11.3f}"
                f"{row['corrected']:>11.3f}"
            )
            print(lines[-1], flush=True)
    publish(args, "sampling_frequency", "\n".join(lines))


if __name__ == "__main__":
    main()
