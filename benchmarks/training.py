"""Training throughput beside PyTorch, Keras as published, and what the machine's products allow.

Batch 64, window 200, 4,300 tokens, embedding 128, 2 layers of 256 units, every position a target,
Adam, clipping, no dropout; the whole step, input to updated parameters. All run in turn, several
times, each library in a process of its own; figures are medians of the steps, ratios medians over
the rounds.

- torch: `torch.nn.LSTM`, a linear output over the tokens, cross entropy
- ours, the same: an embedding, this library's LSTM layers and its softmax over 256 features; with
  one device for JAX, and with a device for each core, as docs/howto.md shows
- ours, low rank: the library's `stacked` network as it is (chord vectors from pitches, dense layer,
  output of rank 128), with a device for each core
- ours, spelling: the same with `spell=True`, of chords that last for three frames each, as in music
  at 20 frames a second; the share of the limit counts what the network has in common alone
- Keras: the published model, one target a window of one-hot softmax

The limit is the time of our own multiply-adds at the rate of a large product in the same run.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from common import arguments, publish
from pianolstm._learning.devices import on_all, over_devices, shared_out
from pianolstm._learning.training import (
    StepSettings,
    TrainingBatch,
    train_step,
    with_moments,
)
from pianolstm._model.config import NetworkConfig
from pianolstm._model.inputs import spelled
from pianolstm._model.losses import Output, Targets, softmax_loss
from pianolstm._model.lstm import LSTMLayer
from pianolstm._model.networks import flatten, initialise
from pianolstm._model.note_decoder import NEVER
from pianolstm._model.pitch_lstm import Range
from pianolstm.model import TrainState
from pianolstm.vocabulary import n_rows

BATCH, TIME, TOKENS, EMBEDDING, UNITS = 64, 200, 4300, 128, 256
TARGETS = BATCH * TIME
N_PRODUCTS = 4


class Plain(nnx.Module):
    """The architecture of the torch row, of this library's parts."""

    def __init__(self, rngs):
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (TOKENS, EMBEDDING)))
        self.lower = LSTMLayer(EMBEDDING, UNITS, rngs=rngs)
        self.upper = LSTMLayer(UNITS, UNITS, rngs=rngs)
        self.table = nnx.Param(0.05 * jax.random.normal(rngs.params(), (TOKENS, UNITS)))
        self.bias = nnx.Param(jnp.zeros(TOKENS))

    def loss(self, ids, targets):
        x = self.embedding[...][ids]
        for layer in (self.lower, self.upper):
            x, _ = layer(x, layer.initial_carry(len(ids)))
        n = targets.size
        nothing = Targets(
            targets.reshape(-1),
            jnp.full(n, -1, jnp.int32),
            jnp.zeros((n, 4), jnp.uint32),
            jnp.full(n, NEVER),
        )
        output = Output(self.table[...], self.bias[...], None)
        loss, _ = softmax_loss(x.reshape(-1, UNITS), output, nothing, jnp.ones(n))
        return loss / TARGETS


def data():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, TOKENS, (BATCH, TIME + 1)).astype(np.int32)
    return tokens[:, :-1], tokens[:, 1:]


def ours_plain(*, is_shared):
    """One device has the batch, or (`is_shared`) each its rows of it."""
    graph, state = nnx.split(Plain(nnx.Rngs(0)))
    params = nnx.to_pure_dict(state)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    moments = optimizer.init(params)

    def gradients(params, ids, targets):
        def loss(params):
            fresh = jax.tree.map(lambda leaf: leaf, state)
            nnx.replace_by_pure_dict(fresh, params)
            return nnx.merge(graph, fresh).loss(ids, targets)

        return jax.value_and_grad(loss)(params)

    @jax.jit
    def step(params, moments, *batch):
        if is_shared:
            value, grads = over_devices(gradients, (params,), batch)
        else:
            value, grads = gradients(params, *batch)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    arrays = data()
    holder = list(on_all((params, moments)) if is_shared else (params, moments))

    def run():
        batch = shared_out(*arrays) if is_shared else arrays
        holder[0], holder[1], value = step(*holder, *batch)
        value.block_until_ready()

    # Products: input, recurrent and output, forward and twice backward.
    layers = EMBEDDING * 4 * UNITS + 3 * UNITS * 4 * UNITS
    return run, 3 * TARGETS * (layers + UNITS * TOKENS)


def ours_low_rank(*, spell):
    """The library's own network; with `spell`, on chords that last for three frames each."""
    rows = n_rows(TOKENS)
    piano = Range(16, 96)  # those of the chords below, and half an octave around them
    settings = {"dropout": 0.0, "window_size": TIME, "spell": spell, "pitches": piano}
    config = NetworkConfig("stacked", 0 if spell else rows, UNITS, EMBEDDING, **settings)
    params = jax.device_put(flatten(initialise(config, 0)))
    state = with_moments(TrainState(params, params), config, optax.adam)
    rng = np.random.default_rng(0)
    words = np.zeros((rows, 8), np.uint32)
    for row in words[:TOKENS]:
        for pitch in rng.choice(np.arange(21, 109), 4, replace=False):
            row[pitch // 32] |= np.uint32(1) << np.uint32(pitch % 32)
    ids, targets = data()
    if spell:
        tokens = np.repeat(ids, 3, axis=1)[:, : TIME + 1]
        ids, targets = tokens[:, :-1], tokens[:, 1:]
    symbols = spelled(words.view("<u8").astype(np.uint64))[targets]
    barred, weights = np.full(ids.shape, -1, np.int32), np.ones(ids.shape, np.float32)
    arrays = ids, words[ids], targets, barred, symbols, weights
    holder = list(on_all((state.params, state.average, state.opt_state)))
    vocabulary = on_all(jnp.asarray(words))

    def run():
        step = StepSettings(
            np.int32(1000), np.zeros(3, np.uint32), np.float32(1e-3), np.float32(1.0)
        )
        *holder[:], sums = train_step(
            config,
            optax.adam,
            *holder,
            vocabulary,
            np.int32(TOKENS),
            shared_out(TrainingBatch(*arrays)),
            step,
        )
        sums.block_until_ready()

    layers = EMBEDDING * 4 * UNITS + 3 * UNITS * 4 * UNITS
    dense = UNITS * UNITS + UNITS * EMBEDDING
    pitches = 256 * EMBEDDING  # the chords' vectors from their pitches; no gradient of the bits
    frames = 3 * TARGETS * (layers + dense + EMBEDDING * rows) + 2 * TARGETS * pitches
    return run, frames + 2 * rows * pitches


def theirs_torch():
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(TOKENS, EMBEDDING)
            self.lstm = torch.nn.LSTM(EMBEDDING, UNITS, num_layers=2, batch_first=True)
            self.output = torch.nn.Linear(UNITS, TOKENS)

        def forward(self, ids):
            return self.output(self.lstm(self.embedding(ids))[0])

    network = Network()
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    ids, targets = (torch.from_numpy(x.astype(np.int64)) for x in data())

    def run():
        adam.zero_grad()
        logits = network(ids)
        torch.nn.functional.cross_entropy(
            logits.reshape(-1, TOKENS), targets.reshape(-1)
        ).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()

    return run


def published_network():
    """The published stacked network: a window of numbers in, a softmax over all tokens out."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    layers = [
        keras.layers.Input((TIME, 1)),
        keras.layers.LSTM(UNITS, return_sequences=True),
        keras.layers.LSTM(UNITS),
        keras.layers.Dense(UNITS, activation="relu"),
        keras.layers.Dense(TOKENS, activation="softmax"),
    ]
    return keras.Sequential(layers)


def theirs_keras():
    """The published training: one one-hot target a window."""
    network = published_network()
    network.compile(loss="categorical_crossentropy", optimizer="adam")
    ids, targets = data()
    x = ids[..., None].astype(np.float32) / TOKENS
    y = np.zeros((BATCH, TOKENS), np.float32)
    y[np.arange(BATCH), targets[:, -1]] = 1
    return partial(network.train_on_batch, x, y)


def matrix_rate():
    """Multiply-adds a second of a large float32 product."""
    a, b = (jnp.ones((2048, 2048)) for _ in range(2))
    product = jax.jit(jnp.matmul)

    def run():
        for _ in range(N_PRODUCTS):
            product(a, b).block_until_ready()

    return run, N_PRODUCTS * 2048**3


def ours():
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", n_cores)
    return {
        "matrix product": matrix_rate(),
        "ours, the same": ours_plain(is_shared=True),
        "ours, one device": ours_plain(is_shared=False),
        "ours, low rank": ours_low_rank(spell=False),
        "ours, spelling": ours_low_rank(spell=True),
    }


WORKERS = {
    "ours": ours,
    "torch": lambda: {"torch": (theirs_torch(), 0)},
    "Keras": lambda: {"Keras, as published": (theirs_keras(), 0)},
}


def work(make):
    """In a process of its own: run the row named by each line that comes, and print its seconds."""
    rows = make()
    for run, _ in rows.values():
        run()  # compiles
    print(json.dumps({name: count for name, (_, count) in rows.items()}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        rows[line.strip()][0]()
        print(time.perf_counter() - began, flush=True)


def run_in_turn(script, workers, repeats):
    """Run the rows of all workers in turn, each worker in a process of its own.

    Returns the seconds of each row, the median share of the limit (None where nothing is counted),
    and the multiply-adds a second of matrix products.
    """
    processes, counts = {}, {}
    for worker in workers:
        process = subprocess.Popen(
            [sys.executable, script, "--worker", worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        line = process.stdout.readline()
        if not line:
            print(f"{worker} is left out: {process.stderr.read()[-200:]}", file=sys.stderr)
            continue
        for name, count in json.loads(line).items():
            processes[name], counts[name] = process, count

    def seconds_of(name):
        processes[name].stdin.write(name + "\n")
        return float(processes[name].stdout.readline())

    rows = [name for name in processes if name != "matrix product"]
    times, limits, products = {name: [] for name in rows}, {name: [] for name in rows}, []
    for _ in range(repeats):
        for name in rows:
            # The machine's speed changes within seconds: products just before and just after.
            before = seconds_of("matrix product")
            times[name].append(seconds_of(name))
            products.append((before + seconds_of("matrix product")) / 2)
            share = counts[name] / counts["matrix product"]
            limits[name].append(products[-1] * share / times[name][-1])
    for process in processes.values():
        process.stdin.close()
    rate = counts["matrix product"] / statistics.median(products)
    limits = {name: statistics.median(x) if counts[name] else None for name, x in limits.items()}
    return times, limits, rate


def main():
    args = arguments(__doc__.splitlines()[0], repeats=7, worker="")
    if args.worker:
        return work(WORKERS[args.worker])
    times, limits, rate = run_in_turn(__file__, WORKERS, args.repeats)
    lines = [
        f"matrix product: {2 * rate / 1e9:.0f} GFLOP/s",
        "",
        f"{'':<22}{'targets/s':>10}{'of torch':>10}{'of limit':>10}",
    ]
    for name, seconds in times.items():
        targets = BATCH if name.startswith("Keras") else TARGETS
        per_second = targets / statistics.median(seconds)
        # Medians over the rounds: the machine's speed changes from one to the next.
        torch = times.get("torch", [float("nan")] * args.repeats)
        of_torch = statistics.median(a / b for a, b in zip(torch, seconds, strict=True))
        limit = f"{limits[name]:.2f}" if limits[name] else ""
        of_torch *= targets / TARGETS
        lines.append(f"{name:<22}{per_second:>10,.0f}{of_torch:>10.2f}{limit:>10}")
    publish(args, "training", "\n".join(lines))


if __name__ == "__main__":
    main()
