"""Make the embedded corpus of Bach's four-part chorales, ``chorales.npz``.

The scores come from the corpus that the ``music21`` package ships, so run

    pip install music21
    python tools/make_chorales.py

from the repository root. The output depends on nothing but those scores: no random state, no date.
``src/pianolstm/data/PROVENANCE.md`` tells what is taken, what is done to it and which notices the
scores carry.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
from music21 import converter, corpus, note, stream

FRAMES_PER_QUARTER = 4
MICROSECONDS_PER_QUARTER = 600_000
VOICES = ("Soprano", "Alto", "Tenor", "Bass")
SPLITS = ("train", "validation", "test")
LOWEST_PITCH, HIGHEST_PITCH = 36, 81
# A bar without voices is part of some settings; more than a bar is an interlude of instruments,
# which the four voices alone would turn into a long silence.
LONGEST_SILENCE = 4 * FRAMES_PER_QUARTER
DUPLICATE_SHARE, RELATED_SHARE = 0.9, 0.5
SHORT_OPENING, LONG_OPENING = 16, 20
MELODY_SHARE = 0.8
TRANSPOSITIONS = np.arange(-12, 13)
DEFAULT_OUTPUT = Path(__file__).parents[1] / "src" / "pianolstm" / "data" / "chorales.npz"


@dataclass(frozen=True)
class Piece:
    """One chorale on the grid.

    Attributes
    ----------
    name
        Name of the source file without its suffix, such as ``bwv269``.
    notes
        Shape ``(n_notes, 3)``: start frame, duration in frames, MIDI pitch; sorted by
        (start, pitch).
    openings
        Pitches of the beginning of the soprano, cut in several ways to compare melodies by.
    """

    name: str
    notes: np.ndarray
    openings: tuple[np.ndarray, ...]


class SkippedError(Exception):
    """A source file that holds no four-part chorale; the message says why."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders ``bwv9.7`` before ``bwv10.7``."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]


def source_files() -> list[Path]:
    """Bach's scores in MusicXML, in natural order.

    The few Humdrum files beside them repeat pieces that are also there in MusicXML.
    """
    paths = (Path(p) for p in corpus.getComposer("bach", fileExtensions=("mxl", "xml")))
    return sorted(paths, key=lambda path: natural_key(path.stem))


def to_frame(offset: float | Fraction) -> int:
    """Round a time in quarter notes to the nearest frame, halves up."""
    return math.floor(offset * FRAMES_PER_QUARTER + 0.5)


def find_voices(score: stream.Score) -> list[stream.Part]:
    """Return the soprano, alto, tenor and bass parts of a score.

    Parts are told by the first word of their name, since a few name the instruments that double
    the voice as well ("Soprano Oboe 1 Violin1").

    Raises
    ------
    SkippedError
        If any of the four voices is missing or divided.
    """
    words = [(part.partName or "?").split()[0] for part in score.parts]
    counts = [words.count(voice) for voice in VOICES]
    if max(counts) > 1:
        raise SkippedError("more than four vocal parts")
    if min(counts) == 0:
        raise SkippedError("not for four voices")
    return [score.parts[words.index(voice)] for voice in VOICES]


def read_voice(part: stream.Part) -> np.ndarray:
    """Read the notes of one voice as (start, duration, pitch) rows on the grid.

    Tied notes become one and grace notes, which take no time of their own, are dropped.
    """
    merged: list[list[float | Fraction]] = []
    for element in part.recurse().getElementsByClass(note.Note):
        if element.duration.isGrace:
            continue
        start = element.getOffsetInHierarchy(part)
        end = start + element.duration.quarterLength
        pitch = element.pitch.midi
        continues = element.tie is not None and element.tie.type in ("continue", "stop")
        if continues and merged and merged[-1][1:] == [start, pitch]:
            merged[-1][1] = end
        else:
            merged.append([start, end, pitch])
    rows = []
    for start, end, pitch in merged:
        first = to_frame(start)
        rows.append((first, max(1, to_frame(end) - first), pitch))
    return np.array(rows, dtype=np.int64)


def pool_voices(voices: Iterable[np.ndarray]) -> np.ndarray:
    """Pool voices into one list of notes such as a single keyboard could play.

    Of notes with one start and pitch the longest stays; a note ends where the next of its pitch
    starts.
    """
    longest: dict[tuple[int, int], int] = {}
    for start, duration, pitch in np.concatenate(list(voices)).tolist():
        longest[start, pitch] = max(duration, longest.get((start, pitch), 0))
    next_start: dict[int, int] = {}
    rows = []
    for start, pitch in sorted(longest, reverse=True):
        limit = next_start.get(pitch, start + longest[start, pitch]) - start
        rows.append((start, min(longest[start, pitch], limit), pitch))
        next_start[pitch] = start
    return np.array(rows[::-1], dtype=np.int64)


def longest_silence(notes: np.ndarray) -> int:
    """Length in frames of the longest gap in which no voice sounds."""
    ends = np.maximum.accumulate(notes[:, 0] + notes[:, 1])
    return int(np.max(notes[1:, 0] - ends[:-1], initial=0))


def cut_openings(soprano: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cut the soprano's beginning: notes on a beat, fewer and more, and all notes.

    Passing notes, which tell settings of one melody apart, mostly fall between the beats, but
    some variants move the melody itself off them: no single cut finds all. An upbeat can shift
    the beats on the grid, so they are taken where most notes begin.
    """
    phase = soprano[:, 0] % FRAMES_PER_QUARTER
    on_beat = soprano[phase == np.bincount(phase).argmax(), 2]
    if len(on_beat) < LONG_OPENING:
        raise SkippedError("melody too short to compare")
    return on_beat[:SHORT_OPENING], on_beat[:LONG_OPENING], soprano[:LONG_OPENING, 2]


def read_piece(path: Path) -> Piece:
    """Read one score.

    Raises
    ------
    SkippedError
        If it is not a four-part chorale.
    """
    score = converter.parse(path, forceSource=True, storePickle=False)
    voices = [read_voice(part) for part in find_voices(score)]
    notes = pool_voices(voices)
    if longest_silence(notes) > LONGEST_SILENCE:
        raise SkippedError("instrumental interludes")
    notes[:, 0] -= notes[0, 0]  # a rest that is written out before the first note
    if notes[:, 2].min() < LOWEST_PITCH or notes[:, 2].max() > HIGHEST_PITCH:
        raise ValueError(f"{path.name}: pitch outside {LOWEST_PITCH}..{HIGHEST_PITCH}")
    return Piece(path.stem, notes, cut_openings(voices[0]))


def melody_matches(melody: np.ndarray, melodies: np.ndarray) -> np.ndarray:
    """Longest common subsequence of one melody with each of many, in the best transposition.

    Parameters
    ----------
    melody
        Pitches, shape ``(n,)``.
    melodies
        Pitches, shape ``(n_melodies, n)``.

    Returns
    -------
    np.ndarray
        Number of notes in common, shape ``(n_melodies,)``.
    """
    shifted = melodies.T[:, :, None] + TRANSPOSITIONS
    lengths = np.zeros((len(melody) + 1, len(melodies), len(TRANSPOSITIONS)), dtype=np.int64)
    for pitch in melody:
        before = lengths.copy()
        for j, pitches in enumerate(shifted):
            skip = np.maximum(before[j + 1], lengths[j])
            lengths[j + 1] = np.where(pitches == pitch, before[j] + 1, skip)
    return lengths[-1].max(axis=-1)


def same_melody(pieces: list[Piece]) -> np.ndarray:
    """Tell which pieces have openings with at least ``MELODY_SHARE`` of the notes in common.

    Returns
    -------
    np.ndarray
        Shape ``(n_pieces, n_pieces)``, boolean.
    """
    same = np.eye(len(pieces), dtype=bool)
    for openings in zip(*(piece.openings for piece in pieces), strict=True):
        melodies = np.stack(openings)
        matches = np.stack([melody_matches(melody, melodies) for melody in melodies])
        same |= matches >= MELODY_SHARE * melodies.shape[1]
    return same


def shared_share(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the shorter piece's (start, pitch) pairs that the other has as well.

    The best shift in pitch and in time counts: the time, because one source may write out a
    repeat that the other only marks, or set a part of the other's chorale.
    """
    # A code is a start and a pitch in one number; the step leaves room for any shift in pitch.
    step = 2 * 128
    codes = one[:, None, 0] * step + one[:, None, 2] - other[:, 0] * step - other[:, 2]
    return float(np.bincount((codes - codes.min()).ravel()).max() / min(len(one), len(other)))


def shared_shares(pieces: list[Piece]) -> np.ndarray:
    """Compute ``shared_share`` for every two pieces, shape ``(n_pieces, n_pieces)``."""
    shares = np.eye(len(pieces))
    for i, j in combinations(range(len(pieces)), 2):
        shares[i, j] = shares[j, i] = shared_share(pieces[i].notes, pieces[j].notes)
    return shares


def connect(links: np.ndarray) -> list[int]:
    """For each piece return the index of the first piece that links connect it with."""
    group = np.arange(len(links))
    for linked in links:
        joined = np.unique(group[linked])
        group[np.isin(group, joined)] = joined[0]
    return group.tolist()


def find_duplicates(shares: np.ndarray) -> dict[int, int]:
    """Map each piece that repeats an earlier one, itself no duplicate, to that one (indices)."""
    duplicates: dict[int, int] = {}
    for i, row in enumerate(shares):
        earlier = (j for j in range(i) if j not in duplicates and row[j] > DUPLICATE_SHARE)
        original = next(earlier, None)
        if original is not None:
            duplicates[i] = original
    return duplicates


def split_by_group(keys: list[str]) -> list[int]:
    """Divide the pieces into training, validation and test, about 80, 10 and 10 per cent.

    Groups stay whole. They are dealt in the order of a hash of their key: to the test until it
    has a tenth of the pieces, then to the validation likewise, the rest to the training.

    Parameters
    ----------
    keys
        For each piece the key of its group.

    Returns
    -------
    list[int]
        For each piece an index into ``SPLITS``.
    """
    sizes = Counter(keys)
    groups = sorted(sizes, key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    split_of: dict[str, int] = {}
    filled = Counter[int]()
    for key in groups:
        split = next((i for i in (2, 1) if filled[i] < len(keys) / 10), 0)
        split_of[key] = split
        filled[split] += sizes[key]
    return [split_of[key] for key in keys]


def read_notices(path: Path) -> Iterator[str]:
    """Yield every notice of rights, permission, encoder or software in a MusicXML file."""
    if path.suffix == ".mxl":
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if re.fullmatch(r"(?!META-INF/).*xml", n)]
            data = b"".join(archive.read(n) for n in names)
    else:
        data = path.read_bytes()
    text = data.decode("utf-8")
    found = re.findall(r"<(rights|encoder|software|credit-words)\b[^>]*>(.*?)</\1>", text, re.S)
    for tag, words in found:
        if tag != "credit-words" or re.search(r"©|\(c\)|copyright|permission|edit", words, re.I):
            yield f"{tag}: {words}"


def pack(pieces: list[Piece], splits: list[int]) -> dict[str, np.ndarray]:
    """Lay the pieces out as the flat arrays of ``chorales.npz``."""
    notes = np.concatenate([piece.notes for piece in pieces])
    if notes[:, 1].max() > np.iinfo(np.uint8).max:
        raise ValueError("a duration does not fit into uint8")
    n_frames = [int((piece.notes[:, 0] + piece.notes[:, 1]).max()) for piece in pieces]
    return {
        "start": notes[:, 0].astype(np.uint16),
        "duration": notes[:, 1].astype(np.uint8),
        "pitch": notes[:, 2].astype(np.uint8),
        "n_notes": np.array([len(piece.notes) for piece in pieces], dtype=np.int32),
        "n_frames": np.array(n_frames, dtype=np.int32),
        "split": np.array(splits, dtype=np.uint8),
        "name": np.array([piece.name for piece in pieces]),
        "fs": np.array(FRAMES_PER_QUARTER, dtype=np.int32),
        "microseconds_per_quarter": np.array(MICROSECONDS_PER_QUARTER, dtype=np.int32),
    }


def print_summary(arrays: dict[str, np.ndarray], output: Path) -> None:
    """Print the sizes of the corpus and of its parts."""
    n_frames = arrays["n_frames"]
    print(f"music21 {version('music21')}")
    print(f"{len(n_frames)} pieces, {len(arrays['start'])} notes, {n_frames.sum()} frames")
    print(f"frames a piece: {n_frames.min()} .. {n_frames.max()}, median {np.median(n_frames):g}")
    print(f"pitches: {arrays['pitch'].min()} .. {arrays['pitch'].max()}")
    for index, label in enumerate(SPLITS):
        chosen = arrays["split"] == index
        notes, frames = arrays["n_notes"][chosen].sum(), n_frames[chosen].sum()
        print(f"{label}: {chosen.sum()} pieces, {notes} notes, {frames} frames")
    print(f"{output.name}: {output.stat().st_size} bytes")


def print_skipped(skipped: dict[str, list[str]]) -> None:
    """Print the names of the sources that were not taken, by reason."""
    for reason, names in sorted(skipped.items()):
        print(f"skipped, {reason}: {len(names)} ({', '.join(names)})")


def print_notices(paths: list[Path], kept: set[str]) -> None:
    """Print each distinct notice and how many sources, and kept ones among them, carry it."""
    in_all, in_kept = Counter[str](), Counter[str]()
    for path in paths:
        notices = set(read_notices(path))
        in_all.update(notices)
        if path.stem in kept:
            in_kept.update(notices)
    for notice, count in sorted(in_all.items(), key=lambda item: (-item[1], item[0])):
        print(f"notice in {count} files, {in_kept[notice]} of them kept: {notice!r}")


def read_pieces(paths: list[Path]) -> tuple[list[Piece], dict[str, list[str]]]:
    """Read all scores; also return the names of those skipped, by reason."""
    pieces: list[Piece] = []
    skipped: dict[str, list[str]] = {}
    for path in paths:
        try:
            pieces.append(read_piece(path))
        except SkippedError as error:
            skipped.setdefault(str(error), []).append(path.stem)
    return pieces, skipped


def main() -> None:
    """Read the scores, write the corpus and print a summary."""
    parser = argparse.ArgumentParser(description="Make the embedded corpus of Bach's chorales.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="file to write")
    output = parser.parse_args().output

    paths = source_files()
    pieces, skipped = read_pieces(paths)
    shares = shared_shares(pieces)
    groups = connect(same_melody(pieces) | (shares > RELATED_SHARE))
    duplicates = find_duplicates(shares)
    skipped["duplicates"] = [f"{pieces[i].name} = {pieces[j].name}" for i, j in duplicates.items()]
    kept = [i for i in range(len(pieces)) if i not in duplicates]
    keys = [pieces[groups[i]].name for i in kept]
    arrays = pack([pieces[i] for i in kept], split_by_group(keys))
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(output, **arrays)

    print(f"{len(paths)} files read, {len(set(keys))} groups of related pieces")
    print_summary(arrays, output)
    print_skipped(skipped)
    print_notices(paths, {pieces[i].name for i in kept})


if __name__ == "__main__":
    main()
