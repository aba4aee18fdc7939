"""A chord as its bits, in NumPy.

Conventions
-----------
A chord is the set of sounding pitches plus the subset that is struck again. It is held as its
bits, four ``uint64`` words: pitches 0-63 and 64-127 that sound, then pitches 0-63 and 64-127 that
are struck again. A pitch is flagged as struck again only where it also sounded in the frame
before; a first strike has no flag. The rest has no bits.
"""

from __future__ import annotations

import numpy as np

N_PITCHES = 128
N_WORDS = 4


def chord_pitches(chord: np.ndarray) -> str:
    """A chord for people to read: its pitches in ascending order, ``*`` where struck again.

    Parameters
    ----------
    chord : ndarray of uint64, shape (4,)
        Bits of the chord.

    Returns
    -------
    str

    Examples
    --------
    >>> import numpy as np, pianolstm as pl
    >>> pl.chord_pitches(np.array([1 << 60, 1 << 3, 1 << 60, 0], dtype=np.uint64))
    '60* 67'
    """
    sounding, struck = unpack(chord[None])[0].reshape(2, 128)
    return " ".join(f"{p}{'*' if struck[p] else ''}" for p in np.flatnonzero(sounding | struck))


def unpack(chords: np.ndarray) -> np.ndarray:
    """Bits of chords as uint8 planes (n, 256): 128 pitches that sound, 128 struck again."""
    as_bytes = np.ascontiguousarray(chords.astype("<u8", copy=False)).view(np.uint8)
    return np.unpackbits(as_bytes, axis=-1, bitorder="little")


def pack(planes: np.ndarray) -> np.ndarray:
    """The reverse of `unpack`, of planes (…, 256): uint64, shape (…, 4)."""
    return np.packbits(planes, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


def chord_keys(chords: np.ndarray) -> np.ndarray:
    """One sortable item a chord, in the order of its words as numbers."""
    return np.ascontiguousarray(chords, dtype=">u8").view(f"S{8 * N_WORDS}").ravel()


def unkeyed(keys: np.ndarray) -> np.ndarray:
    """The chords of keys: uint64, shape (n, 4)."""
    return keys.view(">u8").reshape(-1, N_WORDS).astype(np.uint64)


def unique_chords(chords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different chords in the order of their keys, and the row of each chord in them.

    Sorts 64-bit hashes, which is several times faster than sorting chords; should two chords have
    one hash, it sorts chords.
    """
    hashes = np.zeros(len(chords), np.uint64)
    for word in chords.T:
        hashes = (hashes ^ word) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    order = np.argsort(hashes)
    hashes = hashes[order]
    is_first = np.append(True, hashes[1:] != hashes[:-1])[: len(order)]
    table = chords[order[is_first]]
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.cumsum(is_first) - 1
    if not np.array_equal(table[inverse], chords):
        keys, inverse = np.unique(chord_keys(chords), return_inverse=True)
        return unkeyed(keys), inverse
    order = np.argsort(chord_keys(table))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return table[order], rank[inverse]


def find(table: np.ndarray, chords: np.ndarray) -> np.ndarray:
    """Row of each chord in the table, -1 where it has none: int64, shape (len(chords),)."""
    unique, inverse = unique_chords(np.concatenate([table, chords]))
    row = np.full(len(unique), -1, np.int64)
    row[inverse[: len(table)]] = np.arange(len(table))
    return row[inverse[len(table) :]]


def transpose_chords(chords: np.ndarray, steps: int) -> np.ndarray:
    """Chords some semitones higher (lower, if negative): uint64, shape (…, 4).

    Pitches that leave 0 to 127 are lost.
    """
    if steps == 0:
        return chords
    low, high = chords[..., 0::2], chords[..., 1::2]  # of the pitches sounding, of those struck
    moved, rest = np.uint64(abs(steps)), np.uint64(64 - abs(steps))
    shifted = np.empty_like(chords)
    if steps > 0:
        shifted[..., 0::2], shifted[..., 1::2] = low << moved, high << moved | low >> rest
    else:
        shifted[..., 0::2], shifted[..., 1::2] = low >> moved | high << rest, high >> moved
    return shifted


def held_on(chords: np.ndarray) -> np.ndarray:
    """Each chord as it sounds when it is held: none of its pitches struck again."""
    held = chords.copy()
    held[..., 2:] = 0
    return held


def as_words(chords: np.ndarray) -> np.ndarray:
    """Chords (n, 4) as (n, 8) uint32, which JAX takes."""
    return np.ascontiguousarray(chords, dtype="<u8").view("<u4").reshape(-1, 8)


def as_chords(words: np.ndarray) -> np.ndarray:
    """The reverse of `as_words`: uint32 of shape (…, 8) as uint64 of shape (…, 4)."""
    return np.ascontiguousarray(words, dtype="<u4").view("<u8").astype(np.uint64)


def ages(chords: np.ndarray) -> np.ndarray:
    """For how many frames each chord has been held, uint64 (n, 4); as the networks count them."""
    before = np.concatenate([np.zeros((1, 4), np.uint64), chords[:-1]])
    begins = (chords[:, :2] != before[:, :2]).any(1) | (chords[:, 2:] > 0).any(1)
    time = np.arange(len(chords))
    return time - np.maximum.accumulate(np.where(begins, time, -1))
