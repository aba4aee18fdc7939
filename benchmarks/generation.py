"""Generation: frames a second beside PyTorch and Keras as published, and how soon frames come.

`stacked`, 2 x 256 units, 4,300 chords, untrained weights; in turn, each library in a process of its
own, medians. Then, with the vocabulary of the 86 pieces: the time from frame to frame of a stream
with top_p, memory along it, and what a cold process needs until its first frame: with a closed
vocabulary (`spell=False`) and without recall, and again with both.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from common import arguments, pieces, publish

TOKENS, EMBEDDING, UNITS, WINDOW = 4300, 128, 256, 200
N_FRAMES, N_PIECES, N_PRODUCTS = 512, 64, 4


def untrained(rolls, *, spell=False, recall=False):
    import pianolstm as pl

    warnings.simplefilter("ignore")
    model = pl.SequenceGenerator(
        arch="stacked",
        clock="frames",
        spell=spell,
        recall=recall,
        early_stopping=False,
        time_budget=0,
        random_state=0,
    )
    return model.fit(rolls)


def many_chords():
    """A roll of 4,299 different chords; with the rest that is the vocabulary."""
    import pianolstm as pl

    rng = np.random.default_rng(0)
    plane = np.zeros((TOKENS - 1, 128), bool)
    seen = set()
    for row in plane:
        chord = tuple(sorted(rng.choice(np.arange(30, 90), 4, replace=False)))
        while chord in seen:
            chord = tuple(sorted(rng.choice(np.arange(30, 90), 4, replace=False)))
        seen.add(chord)
        row[list(chord)] = True
    # Every second frame is another chord, and none is struck again.
    return pl.PianoRoll.from_array(plane, onset=plane & ~np.roll(plane, 1, axis=0))


def ours():
    import itertools

    import jax.numpy as jnp
    from jax import jit

    model, spelling = (untrained([many_chords()], spell=spell) for spell in (False, True))
    recalling = untrained([many_chords()], recall=True)
    a, product = jnp.ones((2048, 2048)), jit(jnp.matmul)
    layers = (EMBEDDING + UNITS) * 4 * UNITS + 2 * UNITS * 4 * UNITS
    rows = len(model._decoder().weights["bias"])
    frame = layers + UNITS * UNITS + UNITS * EMBEDDING + EMBEDDING * (rows + 256)
    stream = model.stream(random_state=0)

    def products():
        for _ in range(N_PRODUCTS):
            product(a, a).block_until_ready()

    def many():
        model.generate(N_FRAMES, n_pieces=N_PIECES, random_state=0)

    def frames():
        for _ in itertools.islice(stream, N_FRAMES):
            pass

    return {
        "matrix product": (products, N_PRODUCTS * 2048**3),
        "ours, stream": (frames, N_FRAMES * frame),
        "ours, generate": (lambda: model.generate(N_FRAMES, random_state=0), N_FRAMES * frame),
        "ours, spelling": (lambda: spelling.generate(N_FRAMES, random_state=0), N_FRAMES * frame),
        "ours, recalling": (lambda: recalling.generate(N_FRAMES, random_state=0), N_FRAMES * frame),
        "ours, 64 pieces": (many, N_PIECES * N_FRAMES * frame),
    }


def theirs_torch():
    import torch

    embedding = torch.nn.Embedding(TOKENS, EMBEDDING)
    lstm = torch.nn.LSTM(EMBEDDING, UNITS, num_layers=2, batch_first=True)
    output = torch.nn.Linear(UNITS, TOKENS)

    @torch.no_grad()
    def run():
        state, token = None, torch.zeros(1, 1, dtype=torch.long)
        for _ in range(N_FRAMES):
            h, state = lstm(embedding(token), state)
            token = torch.multinomial(torch.softmax(output(h[:, 0]), -1), 1)

    return {"torch": (run, 0)}


def theirs_keras():
    """The published loop: the window through `predict` for each frame, the most likely taken."""
    from training import published_network

    network = published_network()
    window = np.zeros((1, WINDOW, 1), np.float32)

    def run():
        nonlocal window
        for _ in range(8):
            token = network.predict(window, verbose=0).argmax()
            window = np.append(window[:, 1:], [[[token / TOKENS]]], axis=1).astype(np.float32)

    return {"Keras, as published": (run, 0)}


WORKERS = {"ours": ours, "torch": theirs_torch, "Keras": theirs_keras}
FRAMES = {"Keras, as published": 8, "ours, 64 pieces": N_PIECES * N_FRAMES}


def throughput(repeats):
    from training import run_in_turn  # the same measure, other rows

    times, limits, _ = run_in_turn(__file__, WORKERS, repeats)
    lines = [f"{'':<22}{'frames/s':>10}{'of torch':>10}{'of Keras':>10}{'of limit':>10}"]
    rates = {
        name: FRAMES.get(name, N_FRAMES) / statistics.median(seconds)
        for name, seconds in times.items()
    }
    for name, rate in rates.items():
        shares = [rate / rates.get(peer, np.nan) for peer in ("torch", "Keras, as published")]
        limit = f"{limits[name]:.2f}" if limits[name] else ""
        lines.append(f"{name:<22}{rate:>10,.0f}{shares[0]:>10.2f}{shares[1]:>10.0f}{limit:>10}")
    return lines


def streaming(path, n_long):
    """In a process of its own: seconds of frames, and memory after 1,000 and many frames."""
    import itertools
    import resource

    import pianolstm as pl

    model = pl.SequenceGenerator.load(path)
    stream = model.stream(top_p=0.95, random_state=0)
    peaks, seconds = [], []
    for frames in (200, 800, n_long):
        seconds = []
        for _ in itertools.islice(stream, frames):
            seconds.append(time.perf_counter())
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    steps = np.diff(seconds)
    print(json.dumps({"p50": np.median(steps), "p99": np.quantile(steps, 0.99), "mb": peaks}))


def cold(path):
    """In a process of its own: parts of the time to the first frame."""
    marks = [time.perf_counter()]
    import pianolstm as pl

    pl.SequenceGenerator  # noqa: B018, it is imported when it is first used
    marks.append(time.perf_counter())
    model = pl.SequenceGenerator.load(path)
    marks.append(time.perf_counter())
    stream = model.stream(random_state=0)
    marks.append(time.perf_counter())
    next(stream)
    marks.append(time.perf_counter())
    next(stream)
    marks.append(time.perf_counter())
    print(json.dumps(np.diff(marks).tolist()))


def latency(args, rolls, *, default):
    model = untrained(rolls, spell=default, recall=default)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        model.save(path)
        run = [sys.executable, __file__, "--path", path]

        def colds(**environment):
            found = [
                subprocess.check_output(
                    [*run, "--worker", "cold"], text=True, env={**os.environ, **environment}
                )
                for _ in range(6)
            ]
            # The first of them fills the caches.
            return np.median([json.loads(line) for line in found[1:]], axis=0)

        both = {
            "cold process to the first frame": colds(),
            "with JAX's compilation cache": colds(JAX_COMPILATION_CACHE_DIR=folder),
        }
        command = [*run, "--worker", "streaming", "--frames", str(args.frames)]
        found = json.loads(subprocess.check_output(command, text=True))
    n_chords = model.tokenizer_.n_tokens_
    kind = ", spelling and recalling" if default else ""
    names = ("imports", "load", "compile and begin", "first frame", "second frame")
    steps = f"median {1e3 * found['p50']:.2f} ms, 99th percentile {1e3 * found['p99']:.2f} ms"
    memory = ", ".join(f"{mb:.0f}" for mb in found["mb"])
    return [
        "",
        f"{n_chords:,} chords{kind}, a stream with top_p=0.95, {args.frames:,} frames",
        f"from frame to frame: {steps}",
        f"peak memory after 200, 1,000 and all frames: {memory} MB",
        *(
            f"{label}: {parts[:4].sum():.2f} s (medians of 5): "
            + ", ".join(f"{n} {s:.3f} s" for n, s in zip(names, parts, strict=True))
            for label, parts in both.items()
        ),
    ]


def main():
    args = arguments(__doc__.splitlines()[0], repeats=7, frames=100_000, worker="", path="")
    if args.worker == "cold":
        return cold(args.path)
    if args.worker == "streaming":
        return streaming(args.path, args.frames)
    if args.worker:
        from training import work

        return work(WORKERS[args.worker])
    import pianolstm as pl

    warnings.simplefilter("ignore")
    rolls = pl.PianoRollEncoder().transform(pieces(args))
    lines = throughput(args.repeats)
    for default in (False, True):
        lines += latency(args, rolls, default=default)
    publish(args, "generation", "\n".join(lines))


if __name__ == "__main__":
    main()
