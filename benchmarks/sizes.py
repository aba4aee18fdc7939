"""Sixty sizes of network, fitted and written with in one process: memory maps, memory, compiling.

Linux allows a process 65,530 memory maps; each size takes some 2,500 while its programs are kept.
"""

import gc
import time
from pathlib import Path

import jax
from sklearn.base import clone

import pianolstm as pl
from common import arguments, publish

ARCHITECTURES = ("lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked")


def n_maps():
    return len(Path("/proc/self/maps").read_text().splitlines())


def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main():
    args = arguments(__doc__.splitlines()[0], sizes=60)
    rolls = pl.datasets.load_chorales("train")[:6]
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: (
            compiled.append(seconds) if event.endswith("backend_compile_duration") else None
        )
    )
    maps, memory, began = [], [], time.monotonic()
    for i in range(args.sizes):
        model = pl.SequenceGenerator(
            arch=ARCHITECTURES[i % 5],
            units=16 + 2 * (i // 10),
            embedding=8 + i % 3,
            tokenizer=pl.ChordTokenizer(max_tokens=(None, 200, 100, 50)[i % 4]),
            spell=i % 2 == 0,
            window_size=32,
            batch_size=4,
            max_epochs=1,
            random_state=0,
        ).fit(rolls)
        maps.append(n_maps())
        model.generate(8, random_state=0)
        maps.append(n_maps())
        gc.collect()
        memory.append(resident_mb())
        if i == 0:
            n = len(compiled)
            clone(model).fit(rolls)
            again = len(compiled) - n
    every = ", ".join(f"{memory[n - 1]:,.0f} ({n})" for n in range(20, args.sizes + 1, 20))
    publish(
        args,
        "sizes",
        f"{args.sizes} sizes, {time.monotonic() - began:.0f} s, {len(compiled)} programs; a "
        f"clone's fit compiled {again}.\n"
        f"Memory maps: {max(maps):,} at the most, {maps[-1]:,} at the end.\n"
        f"Resident memory in MB after so many sizes: {memory[0]:,.0f} (1), {every}; the most "
        f"after the 20th {max(memory[19:], default=0):,.0f}.",
    )


if __name__ == "__main__":
    main()
