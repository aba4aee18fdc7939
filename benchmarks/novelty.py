"""Copies found, false alarms, and what they cost.

Planted copies: passages of training pieces, unique in them whatever the key and of as many chord
changes, no two alike, are cut out, transposed by 5, played at another speed, and joined to half a
minute of random chords on either side. (Rows with a star: changes may be alike, so that trills and
bars that are repeated are among the passages.) A copy is found if the longest passage at any pitch
and speed is of the right piece, within the copy, in its place, with its transposition and its
speed, as far as frames tell. What sounds on at the cut is struck again there, so that the first
chord is often not that of the piece. Passages of the pieces of the study at 20 frames a second, and
of the chorales that come with the library on the grid of beats.

False alarms: ten minutes of the pieces held out of each of ten parts of the study's, a hundred in
all; for each measure the share of minutes that borrow so much that only 1, 5, 10 or 20% of the real
excerpts of the training pieces borrow as much.

Cost: of the pieces of the study, and of all pieces of piano-midi.de, three times in other keys.
"""

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

import pianolstm as pl
from common import arguments, peak_mb, pieces, publish
from pianolstm.scoring import passages
from pianolstm.scoring.borrowing import PASSAGES
from pianolstm.tokens import as_corpus

FS, N, SHIFT = 20, 100, 5
LEVELS = (0.01, 0.05, 0.1, 0.2)

MILLION = f"""
import sys, time
from pathlib import Path
import pianolstm as pl
from pianolstm.tokens import as_corpus
folders = [Path(sys.argv[1], name) for name in ("piano-midi", "piano-midi-more")]
paths = sorted(path for folder in folders for path in folder.rglob("*.mid"))
rolls = pl.PianoRollEncoder(fs={FS}).fit_transform(paths)
rolls = [r.transpose(k) for k in (-5, 0, 4) for r in rolls
         if 0 <= int(r.notes["pitch"].min()) + k and int(r.notes["pitch"].max()) + k < 128]
corpus = as_corpus(rolls)
minutes = [r[len(r) // 2 :][: 60 * {FS}] for r in rolls if len(r) > 120 * {FS}][:20]
if sys.argv[2] == "search":
    start = time.perf_counter()
    scorer = pl.NoveltyScorer().fit(corpus)
    fitted = time.perf_counter()
    scorer.passages(minutes)
    print(len(scorer._index.piece), fitted - start, (time.perf_counter() - fitted) / len(minutes))
"""


def noise(rng: np.random.Generator, roll: pl.PianoRoll, n_frames: int) -> pl.PianoRoll:
    """Random chords of one to three notes in a roll's range of pitches, with its durations."""
    onsets = np.unique(roll.notes["start"])
    start = np.append(0, np.cumsum(rng.choice(np.diff(onsets), n_frames)))
    start = start[start < n_frames]
    start = np.repeat(start, rng.integers(1, 4, len(start)))
    pitch = rng.integers(roll.notes["pitch"].min(), roll.notes["pitch"].max() + 1, len(start))
    end = np.minimum(start + rng.integers(1, FS, len(start)), n_frames)
    return pl.PianoRoll.from_notes(start, end, pitch, n_frames=n_frames, fs=roll.fs, grid=roll.grid)


def slower(roll: pl.PianoRoll, factor: float) -> pl.PianoRoll:
    """The same notes on frames `factor` times as far apart, on either grid."""
    times = [np.floor(roll.notes[name] * factor + 0.5).astype(int) for name in ("start", "end")]
    last = int(max(times[1].max(), times[0].max() + 1))
    return pl.PianoRoll.from_notes(
        *times, roll.notes["pitch"], n_frames=last, fs=roll.fs, grid=roll.grid
    )


def unique_passages(
    rng: np.random.Generator, rolls: list[pl.PianoRoll], n: int, *, alike: bool
) -> Iterator[tuple[int, int, int]]:
    """Piece, first frame and the frame after the last, of passages of n changes."""
    chords, _ = passages.lines(as_corpus(rolls))
    grams = [passages.ngrams(line.changes, n) for line in chords]
    _, places, counts = np.unique(np.concatenate(grams), return_inverse=True, return_counts=True)
    is_unique = np.split(counts[places] == 1, np.cumsum([len(g) for g in grams])[:-1])
    while True:
        i = int(rng.integers(len(rolls)))
        line, lasts = chords[i], len(grams[i]) - 1
        if lasts < 1 or int(line.pitch.max()) + SHIFT + 40 > 127:
            continue
        a = int(rng.integers(lasts))
        different = passages.n_different(line.before(), np.array([a]), np.array([a + n]))
        if is_unique[i][a] and (alike or different[0] == n):
            yield i, int(line.time[a]), int(line.time[a + n + 1])


def is_found(
    scorer: pl.NoveltyScorer,
    rng: np.random.Generator,
    roll: pl.PianoRoll,
    place: tuple[int, int, int],
    factor: float,
) -> bool:
    """Plant a copy in noise, and look for it."""
    piece, first, last = place
    copy = slower(roll[first:last], factor).transpose(SHIFT)
    edges = [noise(rng, roll, round(30 * roll.fs)) for _ in range(2)]
    music = pl.PianoRoll.concatenate([edges[0], copy, edges[1]])
    found = scorer.passages([music])[0].any_speed
    if found is None:
        return False
    start, end = ((t * roll.fs - len(edges[0])) / factor for t in (found.start, found.end))
    other_start, other_end = found.piece_start * roll.fs - first, found.piece_end * roll.fs - first
    frame = 1 + 1 / factor
    return (
        (found.piece, found.semitones) == (piece, SHIFT)
        and abs(start - other_start) <= frame
        and abs(end - other_end) <= frame
        and abs((end - start) * found.speed * factor - (end - start)) <= 2 * frame
        and -frame <= start < end <= (last - first) + frame
    )


def planted(name: str, rolls: list[pl.PianoRoll], *, alike: bool = False) -> list[str]:
    scorer, lines = pl.NoveltyScorer().fit(rolls), []
    for n in (8, 12, 16, 32):
        row = []
        for factor in (1, 1.25, 1.5, 0.8):
            rng = np.random.default_rng(n)
            places = unique_passages(rng, rolls, n, alike=alike)
            both = ((place, rolls[place[0]]) for place, _ in zip(places, range(N), strict=False))
            row.append(sum(is_found(scorer, rng, roll, place, factor) for place, roll in both))
        lines.append(f"{name:>10}{n:>10}" + "".join(f"{count:>10}" for count in row))
    return lines


def false_alarms(rolls: list[pl.PianoRoll]) -> list[str]:
    rng, found = np.random.default_rng(0), []
    for part in range(10):
        scorer = pl.NoveltyScorer().fit([r for i, r in enumerate(rolls) if i % 10 != part])
        held_out = [r for i, r in enumerate(rolls) if i % 10 == part and len(r) >= 60 * FS]
        for k in range(N // 10):
            roll = held_out[k % len(held_out)]
            start = int(rng.integers(len(roll) - 60 * FS + 1))
            found += scorer.passages([roll[start : start + 60 * FS]])
    head = f"{'':>12}{'longest':>9}{'median':>8}{'mean':>8}"
    lines = [head + "".join(f"{f'<= {level}':>9}" for level in LEVELS)]
    for kind in (*PASSAGES, "ngrams"):
        typicality = np.array([piece.typicality[kind] for piece in found])
        values = [getattr(piece, kind) for piece in found]
        values = values if kind == "ngrams" else [v.n_changes if v else 0 for v in values]
        shares = "".join(f"{np.mean(typicality <= level):>9.2f}" for level in LEVELS)
        lines.append(
            f"{kind:>12}{max(values):>9.3g}{np.median(values):>8.2g}{typicality.mean():>8.2f}{shares}"
        )
    return lines


def cost(rolls: list[pl.PianoRoll], data: str) -> list[str]:
    start = time.perf_counter()
    corpus = as_corpus(rolls)
    index = [passages.Index(lines) for lines in passages.lines(corpus)]
    indexed = time.perf_counter()
    scorer = pl.NoveltyScorer().fit(corpus)
    fitted = time.perf_counter()
    minutes = [roll[: 60 * FS] for roll in rolls if len(roll) >= 60 * FS]
    scorer.passages(minutes)
    query = (time.perf_counter() - fitted) / len(minutes)
    line = (
        f"the study's pieces, {len(index[0].piece):,} chords: index {indexed - start:.2f} s, fit "
        f"{fitted - indexed:.2f} s, a minute of music {1000 * query:.0f} ms"
    )
    return [line, million(data)]


def million(data: str) -> str:
    """The cost of a million chords, in processes of their own."""
    done = subprocess.run(
        [sys.executable, "-c", MILLION, data, "search"], check=True, capture_output=True, text=True
    )
    n, fit, query = (float(x) for x in done.stdout.split())
    memory = peak_mb(MILLION, data, "search") - peak_mb(MILLION, data, "read")
    return (
        f"all pieces in three keys, {n:,.0f} chords: fit {fit:.1f} s, a minute of music "
        f"{1000 * query:.0f} ms, {memory:.0f} MB more than the music"
    )


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    rolls = pl.PianoRollEncoder(fs=FS).fit_transform(pieces(args))
    head = f"{'':>10}{'changes':>10}" + "".join(f"{f'x {f}':>10}" for f in (1, 1.25, 1.5, 0.8))
    lines = [f"planted copies found, of {N}, by how many times as long they take", head]
    lines += planted("fs=20", rolls)
    lines += planted("fs=20 *", rolls, alike=True)
    lines += planted("chorales", pl.datasets.load_chorales("train"))
    lines += ["", f"{N} real minutes that were held out", *false_alarms(rolls)]
    lines += ["", *cost(rolls, str(args.data))]
    publish(args, "novelty", "\n".join(lines))


if __name__ == "__main__":
    main()
