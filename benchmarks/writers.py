"""Processes that write one TokenStore at once: each writes its files, or says clearly why not.

Each of two, four or eight processes is given its part of the files, and all start at one moment.
In every second run, one that was told that another is writing tries again until it has written.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import pianolstm as pl
from common import arguments, publish

ENCODER = pl.PianoRollEncoder(fs=24, grid="beats")
N_FILES = 48

WRITER = """
import sys, time
import pianolstm as pl
folder, at, tries_again, *paths = sys.argv[1:]
store = pl.TokenStore(folder, encoder=pl.PianoRollEncoder(fs=24, grid="beats"))
time.sleep(max(0, float(at) - time.time()))
while True:
    try:
        store.write(paths)
    except pl.StoreError:
        if tries_again == "0":
            sys.exit(3)
        time.sleep(0.01)
    else:
        sys.exit(0)
"""


def run(folder, paths, n_writers, *, tries_again):
    """Exit codes of the writers."""
    at, flag = str(time.time() + 0.6 + 0.5 * n_writers), str(int(tries_again))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, folder, at, flag, *paths[i::n_writers]])
        for i in range(n_writers)
    ]
    return [writer.wait() for writer in writers]


def check(folder, parts, codes, right):
    """Pieces that are wrong, and those that a writer which said nothing did not write."""
    store = pl.TokenStore(folder)
    wrong = 0
    for i, source in enumerate(store.sources):
        roll = right[source]
        same = len(store[i]) == len(roll) and all(
            np.array_equal(store[i].notes[c], roll.notes[c]) for c in ("start", "end", "pitch")
        )
        wrong += not same
    twice = sum(n - 1 for n in Counter(store.sources).values())
    missing = sum(
        source not in store.sources
        for part, code in zip(parts, codes, strict=True)
        if code == 0
        for source in part
    )
    lines = (Path(folder) / "pieces.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == len(store)
    return wrong + twice, missing


def main():
    args = arguments(__doc__.splitlines()[0], runs=50)
    folder = Path(tempfile.mkdtemp())
    try:
        paths = []
        for i, roll in enumerate(pl.datasets.load_chorales("train")[:N_FILES]):
            paths.append(str((folder / f"{i}.mid").resolve()))
            roll.to_midi().write(paths[-1])
        right = dict(zip(paths, ENCODER.transform(paths), strict=True))
        table = ["| writers | runs | wrote all | told that another writes | wrong | missing |"]
        table.append("|---|---|---|---|---|---|")
        for n_writers in (2, 4, 8):
            counts, wrong, missing = Counter(), 0, 0
            for i in range(args.runs):
                store = str(folder / f"store-{n_writers}-{i}")
                codes = run(store, paths, n_writers, tries_again=i % 2 == 0)
                counts.update(codes)
                parts = [paths[k::n_writers] for k in range(n_writers)]
                bad = check(store, parts, codes, right)
                wrong, missing = wrong + bad[0], missing + bad[1]
                if i % 2 == 0:
                    assert len(pl.TokenStore(store)) == N_FILES
                shutil.rmtree(store)
            assert set(counts) <= {0, 3}, counts
            table.append(
                f"| {n_writers} | {args.runs} | {counts[0]} | {counts[3]} | {wrong} | {missing} |"
            )
            print(table[-1], file=sys.stderr, flush=True)
        publish(args, "writers", "\n".join(table))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
