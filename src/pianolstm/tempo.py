"""Tempo along a piece, in whole microseconds and ticks; grids of frames that fall on ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pianolstm.exceptions import InvalidInputError

DEFAULT_MICROSECONDS = 500_000
"""Microseconds per quarter note where a file sets no tempo (MIDI 1.0: 120 beats a minute)."""

MAX_TICKS_PER_QUARTER = 32_767
"""The division field of a MIDI header has 15 bits."""

MAX_TICKS = 10_000_000
"""pretty_midi takes a longer file for a corrupt one."""

MAX_MICROSECONDS = 2**24 - 1
"""Slowest tempo of a MIDI file: three bytes of microseconds per quarter note."""


class TempoMap:
    """Tempo along a piece: whole microseconds per quarter note from exact ticks on.

    The map is canonical: it starts at tick 0, its ticks ascend, and no entry repeats the tempo
    before it. Two maps are equal if they have the same entries at the same resolution.

    Parameters
    ----------
    ticks : array-like of int, shape (n_changes,)
        Where each tempo begins.
    microseconds : array-like of int, shape (n_changes,)
        Microseconds per quarter note from there on.
    ticks_per_quarter : int, default=480
        Ticks in a quarter note.

    Examples
    --------
    >>> from pianolstm import TempoMap
    >>> tempo = TempoMap([0, 960], [500_000, 1_000_000])
    >>> tempo.to_seconds([480, 960, 1440]).tolist()
    [0.5, 1.0, 2.0]
    >>> tempo.to_ticks([0.5, 2.0]).tolist()
    [480.0, 1440.0]
    """

    __slots__ = ("_seconds", "microseconds", "ticks", "ticks_per_quarter")

    def __init__(
        self,
        ticks: Any = (0,),
        microseconds: Any = (DEFAULT_MICROSECONDS,),
        ticks_per_quarter: int = 480,
    ) -> None:
        at = np.asarray(ticks, dtype=np.int64)
        tempo = np.asarray(microseconds, dtype=np.int64)
        if at.ndim != 1 or at.shape != tempo.shape or at.size == 0:
            raise InvalidInputError(
                "A tempo map takes two 1-D sequences of one length, ticks and microseconds, with "
                f"at least one entry; got shapes {at.shape} and {tempo.shape}."
            )
        if (at < 0).any() or (tempo < 1).any() or ticks_per_quarter < 1:
            raise InvalidInputError(
                "Ticks must be at least 0, microseconds and ticks_per_quarter at least 1; got "
                f"ticks from {at.min()}, microseconds from {tempo.min()}, "
                f"ticks_per_quarter={ticks_per_quarter}."
            )
        order = np.argsort(at, kind="stable")
        at, tempo = at[order], tempo[order]
        last_at_tick = np.append(at[1:] != at[:-1], True)
        at, tempo = at[last_at_tick], tempo[last_at_tick]
        if at[0] > 0:
            at, tempo = np.append(0, at), np.append(DEFAULT_MICROSECONDS, tempo)
        changes = np.append(True, tempo[1:] != tempo[:-1])
        self.ticks, self.microseconds = at[changes], tempo[changes]
        self.ticks_per_quarter = int(ticks_per_quarter)
        # Tick differences times microseconds are whole numbers: the sum is exact.
        elapsed = np.append(0, np.cumsum(np.diff(self.ticks) * self.microseconds[:-1]))
        self._seconds = elapsed / (1e6 * self.ticks_per_quarter)
        for array in (self.ticks, self.microseconds, self._seconds):
            array.setflags(write=False)

    @classmethod
    def constant(
        cls, microseconds: int = DEFAULT_MICROSECONDS, ticks_per_quarter: int = 480
    ) -> TempoMap:
        """One tempo throughout, in microseconds per quarter note."""
        return cls((0,), (microseconds,), ticks_per_quarter)

    def to_seconds(self, ticks: Any) -> np.ndarray:
        """Seconds at each tick (ticks may be fractions)."""
        ticks = np.asarray(ticks, dtype=np.float64)
        i = np.searchsorted(self.ticks, ticks, side="right") - 1
        return self._seconds[i] + (ticks - self.ticks[i]) * self._seconds_per_tick()[i]

    def to_ticks(self, seconds: Any) -> np.ndarray:
        """Ticks (float64, not rounded) at each time in seconds."""
        seconds = np.asarray(seconds, dtype=np.float64)
        i = np.searchsorted(self._seconds, seconds, side="right") - 1
        return self.ticks[i] + (seconds - self._seconds[i]) / self._seconds_per_tick()[i]

    def _seconds_per_tick(self) -> np.ndarray:
        return self.microseconds / (1e6 * self.ticks_per_quarter)

    def at_resolution(self, ticks_per_quarter: int) -> TempoMap:
        """The same tempi at another resolution; ticks are rounded where they must be."""
        ticks = np.rint(self.ticks * (ticks_per_quarter / self.ticks_per_quarter))
        return TempoMap(ticks, self.microseconds, ticks_per_quarter)

    def coarsest_resolution(self) -> int:
        """Fewest ticks per quarter note at which every change stays where it is."""
        return self.ticks_per_quarter // math.gcd(self.ticks_per_quarter, *self.ticks.tolist())

    def from_tick(self, tick: int) -> TempoMap:
        """The map as heard from `tick` on, which becomes tick 0."""
        return TempoMap(np.maximum(self.ticks - tick, 0), self.microseconds, self.ticks_per_quarter)

    def until_tick(self, tick: int) -> TempoMap:
        """The map without the changes at `tick` and later (the first tempo stays)."""
        kept = (self.ticks < tick) | (self.ticks == 0)
        return TempoMap(self.ticks[kept], self.microseconds[kept], self.ticks_per_quarter)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TempoMap):
            return NotImplemented
        return (
            self.ticks_per_quarter == other.ticks_per_quarter
            and np.array_equal(self.ticks, other.ticks)
            and np.array_equal(self.microseconds, other.microseconds)
        )

    def __hash__(self) -> int:
        return hash((self.ticks_per_quarter, self.ticks.tobytes(), self.microseconds.tobytes()))

    def __repr__(self) -> str:
        bpm = 6e7 / self.microseconds
        tempi = f"{bpm[0]:.4g}" if bpm.size == 1 else f"{bpm.min():.4g}-{bpm.max():.4g}"
        return (
            f"<TempoMap {tempi} quarter notes a minute, {bpm.size} "
            f"{'entry' if bpm.size == 1 else 'entries'}, "
            f"{self.ticks_per_quarter} ticks per quarter>"
        )


def constant_tempo(tempo: float, ticks_per_quarter: int) -> TempoMap:
    """One tempo throughout, in quarter notes a minute.

    Raises
    ------
    InvalidInputError
        If a MIDI file can't hold it.
    """
    is_number = isinstance(tempo, (int, float, np.integer, np.floating))
    microseconds = round(6e7 / tempo) if is_number and 0 < tempo < np.inf else 0
    if not 1 <= microseconds <= MAX_MICROSECONDS:
        raise InvalidInputError(
            f"tempo must be a number of quarter notes a minute, {6e7 / MAX_MICROSECONDS:.3g} to "
            f"6e7; got {tempo!r}."
        )
    return TempoMap.constant(microseconds, ticks_per_quarter)


def common_resolution(maps: Sequence[TempoMap], fs: int, n_frames: int) -> int:
    """Ticks per quarter note for a piece of these tempi, at which its frames begin on ticks.

    The common multiple, if a MIDI file of this many frames can hold it; else the finest at which no
    tempo change moves; else the finest, where changes move, once, by less than a tick.
    """
    if fs > MAX_TICKS_PER_QUARTER:
        raise InvalidInputError(
            f"fs={fs} frames per quarter note are finer than a MIDI file can tell: it holds at "
            f"most {MAX_TICKS_PER_QUARTER} ticks per quarter note; choose a smaller fs."
        )
    most = min(MAX_TICKS_PER_QUARTER, fs * max(1, (MAX_TICKS - 1) // max(n_frames, 1)))
    common = math.lcm(fs, *(m.ticks_per_quarter for m in maps))
    if common <= most:
        return common
    unmoved = math.lcm(fs, *(m.coarsest_resolution() for m in maps))
    step = unmoved if unmoved <= most else fs
    return step * (most // step)


def joined(maps: Sequence[TempoMap], fs: int, offsets: Sequence[int]) -> TempoMap:
    """The tempi of pieces one after the other.

    Parameters
    ----------
    maps : sequence of TempoMap
    fs : int
        Frames per quarter note.
    offsets : sequence of int
        Frames at which the pieces begin, and the frame after the last.
    """
    resolution = common_resolution(maps, fs, offsets[-1])
    ticks, tempi = [], []
    for tempo_map, offset in zip(maps, offsets, strict=False):
        tempo_map = tempo_map.at_resolution(resolution)
        ticks.append(tempo_map.ticks + offset * (resolution // fs))
        tempi.append(tempo_map.microseconds)
    return TempoMap(np.concatenate(ticks), np.concatenate(tempi), resolution)


@lru_cache(maxsize=256)
def seconds_grid_ticks(fs: float, n_frames: int) -> tuple[int, TempoMap]:
    """Ticks per frame, and a constant tempo, that put each frame of 1/fs s on an exact tick.

    The tempo is near 120 a minute. A MIDI tempo is a whole number of microseconds per quarter
    note; of the resolutions that leave a piece of this length few enough ticks, the one whose
    tempo needs the least rounding is taken (none, for most whole fs), 480 or the next if several.
    """
    resolution = np.arange(24, MAX_TICKS_PER_QUARTER + 1)
    ticks_per_frame = np.maximum(1, np.rint(2 * resolution / fs))
    microseconds = 1e6 * resolution / (fs * ticks_per_frame)
    error = np.abs(np.rint(microseconds) / microseconds - 1)
    fits = (ticks_per_frame * n_frames < MAX_TICKS) | (ticks_per_frame == 1)
    error[(np.rint(microseconds) < 1) | (microseconds >= 2**24) | ~fits] = np.inf
    least = np.flatnonzero(error <= error.min() + 1e-12)
    usual = least[resolution[least] >= 480]
    best = int(usual[0] if len(usual) else least[-1])
    tempo = TempoMap.constant(round(microseconds[best]), int(resolution[best]))
    return int(ticks_per_frame[best]), tempo
