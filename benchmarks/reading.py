"""MIDI files to tokens: how fast, beside pretty_midi's parse and piano roll alone.

Both run in turn in one process, each over all files; the ratio is that of the medians.
"""

import statistics
import sys
import time
import warnings

import numpy as np
import pretty_midi

import pianolstm as pl
from common import arguments, peak_mb, pieces, publish

MEMORY = """
import sys
import pianolstm as pl
rolls = pl.PianoRollEncoder(fs=int(sys.argv[1])).transform(sys.argv[2:])
pl.ChordTokenizer().fit_transform(rolls)
"""


def ours(paths, fs):
    rolls = pl.PianoRollEncoder(fs=fs).transform(paths)
    return pl.ChordTokenizer().fit_transform(rolls)


def theirs(paths, fs):
    for path in paths:
        pretty_midi.PrettyMIDI(str(path)).get_piano_roll(fs)


def seconds(function, *args):
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


def main():
    warnings.simplefilter("ignore")
    args = arguments(__doc__.splitlines()[0], repeats=3)
    paths = pieces(args)
    worst, n = 0.0, 0
    for path in paths:
        judge = [x for i in pretty_midi.PrettyMIDI(str(path)).instruments for x in i.notes]
        expected = sorted((x.pitch, x.start, x.velocity) for x in judge)
        notes = pl.read_notes(path)
        found = sorted(zip(notes.pitch.tolist(), notes.start.tolist(), notes.velocity.tolist()))  # noqa: B905
        worst = max(worst, np.abs(np.array(expected) - np.array(found))[:, 1].max())
        n += len(found)
    ours(paths[:1], 20), theirs(paths[:1], 20)  # imports
    pl_times, pm_times = [], []
    for _ in range(args.repeats):
        pl_times.append(seconds(ours, paths, 20))
        pm_times.append(seconds(theirs, paths, 20))
        print(f"ours {pl_times[-1]:.2f} s, pretty_midi {pm_times[-1]:.2f} s", file=sys.stderr)
    ratio = statistics.median(pm_times) / statistics.median(pl_times)
    # What Python and the imports take is part of the peak; it is told beside it.
    base = peak_mb("import pianolstm as pl; pl.PianoRollEncoder; pl.ChordTokenizer")
    peaks = {fs: peak_mb(MEMORY, str(fs), *map(str, paths)) for fs in (20, 100)}
    lines = [
        (
            f"{len(paths)} files, {n:,} notes; largest difference of an onset to pretty_midi's: "
            f"{worst:.1e} s"
        ),
        "",
        f"path to tokens, ours            {statistics.median(pl_times):8.2f} s",
        f"parse and piano roll, pretty_midi {statistics.median(pm_times):6.2f} s",
        f"ratio of medians of {args.repeats}           {ratio:8.1f}",
        "",
        f"peak memory at fs=20            {peaks[20]:8.0f} MB",
        f"peak memory at fs=100           {peaks[100]:8.0f} MB",
        f"of which Python and imports     {base:8.0f} MB",
    ]
    publish(args, "reading", "\n".join(lines))


if __name__ == "__main__":
    main()
