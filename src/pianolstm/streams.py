"""Music that is written while it is played."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from safetensors.numpy import load, save

from pianolstm._decoding.batches import Batch, Decoder, Request, SamplingSettings, check_tokens
from pianolstm._decoding.state import Written
from pianolstm._jax.host import guest
from pianolstm.checks import RandomState, check_number
from pianolstm.chords import as_chords, unpack
from pianolstm.constraints import Limits
from pianolstm.exceptions import InvalidInputError, ModelFileError
from pianolstm.rolls import DEFAULT_VELOCITY, N_PITCHES, PianoRoll
from pianolstm.tempo import TempoMap
from pianolstm.writing import (
    SETTINGS,
    keys_of,
    last_chord,
    music_of,
    primes_of,
    request_of,
    tempo_after,
)

STATE_VERSION = "9"

AHEAD = 8
"""Frames that a stream writes at once at the most, while nobody changes its settings."""

LIMITS = ("max_hold", "max_silence", "may_rest", "max_notes", "span", "hand", "max_repeats")
"""Numbers of `Limits`, as a state holds them."""


class Event(NamedTuple):
    """A key that goes down or up.

    Attributes
    ----------
    time : float
        Seconds since the stream's first frame.
    kind : {"note_on", "note_off"}
    pitch : int
    velocity : int
        64, and 0 of a release.
    """

    time: float
    kind: Literal["note_on", "note_off"]
    pitch: int
    velocity: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stream.

    Attributes
    ----------
    index : int
        0 is the first after the prime.
    time : float
        Seconds since frame 0.
    pitches : tuple of int
        Pitches that sound.
    events : tuple of Event
        Releases, then strikes, at the frame's beginning.
    """

    index: int
    time: float
    pitches: tuple[int, ...]
    events: tuple[Event, ...]


class Stream:
    """An endless iterator of frames; `SequenceGenerator.stream` makes them.

    Memory is bounded however long it runs. What is read from it is what `generate` gives for the
    same seed and settings. A stream is for one thread at a time; a model may have many.

    While frames are read one after the other, up to 8 are written at once. Settings act from the
    next frame on all the same: what was written beyond it is dropped and written again. A call
    that fails leaves the stream where it was.

    Attributes
    ----------
    index : int
        Number of the next frame; frames of the prime don't count.
    seconds_per_frame : float

    Examples
    --------
    >>> import pianolstm as pl
    >>> rolls = pl.datasets.load_chorales("train")[:20]
    >>> model = pl.SequenceGenerator(
    ...     units=32, embedding=16, window_size=64, max_epochs=1, random_state=0
    ... ).fit(rolls)
    >>> stream = model.stream(prime=rolls[0][:16], random_state=3)
    >>> frames = [next(stream) for _ in range(8)]
    >>> stream.set(temperature=0.5)
    >>> elsewhere = model.stream(state=stream.state)
    >>> next(elsewhere) == next(stream)
    True
    """

    def __init__(
        self,
        decoder: Decoder,
        batch: Batch,
        sounding: np.ndarray,
        tempo_map: TempoMap | None,
    ) -> None:
        self._decoder, self._batch = decoder, batch
        # Frames before `_batch` that were written and not yet read; where writing them began.
        self._ahead = Written(*np.empty((4, 0, 1)))
        self._start = copy(batch)
        self._n_ahead = 1
        self._sounding = sounding
        self._tempo_map = tempo_map
        beats = 1.0 if tempo_map is None else int(tempo_map.microseconds[0]) / 1e6
        self.seconds_per_frame = (beats if decoder.grid == "beats" else 1.0) / decoder.fs

    @property
    def index(self) -> int:
        """Number of the next frame."""
        return int(self._batch.position[0]) - len(self._ahead.tokens)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Frame:
        index = self.index
        chord = self._chords(1)[0]
        before, self._sounding = self._sounding, chord
        was, now = _pitches(before), _pitches(chord)
        again = _pitches(chord[2:])
        time = index * self.seconds_per_frame
        released = [p for p in was if p not in now or p in again]
        struck = [p for p in now if p not in was or p in again]
        events = [Event(time, "note_off", pitch, 0) for pitch in released]
        events += [Event(time, "note_on", pitch, DEFAULT_VELOCITY) for pitch in struck]
        return Frame(index, time, tuple(now), tuple(events))

    def events(self) -> Iterator[Event]:
        """Keys that go down and up, in the order of time, for ever."""
        for frame in self:
            yield from frame.events

    def blocks(self, n_frames: int) -> Iterator[PianoRoll]:
        """Rolls of some frames each, for ever, for programs that buffer.

        Notes that sound across a seam are tied: ``PianoRoll.concatenate`` rejoins them.

        Parameters
        ----------
        n_frames : int
            Frames of each roll.
        """
        check_number("n_frames", n_frames, 1, None, whole=True)
        while True:
            before, chords = self._sounding, self._chords(int(n_frames))
            self._sounding = chords[-1]
            yield music_of(self._decoder, chords, before, self._tempo_map)

    def release(self) -> tuple[Event, ...]:
        """The releases of all that sounds, for a player that stops here."""
        time = self.index * self.seconds_per_frame
        return tuple(Event(time, "note_off", pitch, 0) for pitch in _pitches(self._sounding))

    @guest
    def set(self, **settings: Any) -> None:
        """Change settings from the next frame on; the others stay.

        Parameters
        ----------
        temperature, top_k, top_p, repetition_penalty, constraints
            As for `SequenceGenerator.generate`. Constraints of single frames, as a melody, begin
            with the next frame.

        Raises
        ------
        InvalidInputError
            If one is unknown or out of range; all stay as they were.
        """
        unknown = set(settings) - set(SETTINGS)
        if unknown:
            raise InvalidInputError(
                f"A stream has the settings {', '.join(SETTINGS)}; got {', '.join(unknown)}."
            )
        request = self._batch.requests[0]
        kept = {name: getattr(request.sampling, name, None) for name in SETTINGS}
        new = request_of(self._decoder, None, request.key, **{**kept, **settings})
        if "constraints" in settings:
            new.limits_from = self.index
        else:
            new.limits, new.limits_from = request.limits, request.limits_from
        self._go_on(Batch(self._decoder, [new], self._rewound().state, [self.index]))

    @property
    @guest
    def state(self) -> bytes:
        """All that the stream goes on from, for `SequenceGenerator.stream`: some 200,000 bytes."""
        self._go_on(self._rewound())
        batch, request = self._batch, self._batch.requests[0]
        leaves = jax.tree.leaves(batch.state)
        # Of the first lane, the only one with music.
        arrays = {f"state.{i}": np.asarray(leaf)[:1].copy() for i, leaf in enumerate(leaves)}
        skipped = self.index - request.limits_from
        limits = request.limits
        arrays |= {
            "key": np.ascontiguousarray(request.key),
            "sounding": np.ascontiguousarray(self._sounding),
            "allowed": np.packbits(limits.allowed),
            "pitches": limits.pitches,
            "required": np.ascontiguousarray(limits.required[skipped:]),
            "forbidden": np.ascontiguousarray(limits.forbidden[skipped:]),
        }
        tempo = self._tempo_map
        header = {
            "version": STATE_VERSION,
            "model": self._decoder.digest,
            "index": self.index,
            "draw": asdict(request.sampling),
            "limits": {name: getattr(limits, name) for name in LIMITS},
            "tempo": None
            if tempo is None
            else [int(tempo.microseconds[0]), int(tempo.ticks_per_quarter)],
        }
        return save(arrays, metadata={"pianolstm_stream": json.dumps(header)})

    @guest
    def fork(self) -> Stream:
        """Another stream that goes on from here, by itself."""
        self._go_on(self._rewound())
        return Stream(self._decoder, copy(self._batch), self._sounding, self._tempo_map)

    __copy__ = fork

    @guest
    def _chords(self, n: int) -> np.ndarray:
        """The next chords: uint64, shape (n, 4)."""
        before = copy(self._batch), self._start, self._ahead, self._n_ahead
        try:
            chords = []
            while n:
                if not len(self._ahead.tokens):
                    self._write_ahead(n)
                written = Written(*(a[:n] for a in self._ahead))
                check_tokens(written.tokens[:, 0], self.index, "")
                chords.append(as_chords(written.bits)[:, 0])
                self._ahead = Written(*(a[n:] for a in self._ahead))
                n -= len(written.tokens)
        except BaseException:
            self._batch, self._start, self._ahead, self._n_ahead = before
            raise
        return np.concatenate(chords)

    def _write_ahead(self, n: int) -> None:
        """Write the next frames, at least one and no more than a block."""
        self._start = copy(self._batch)
        self._ahead = self._batch.advance(min(max(n, self._n_ahead), self._decoder.block))
        # A window is read for each frame of a Bi-LSTM: nothing is saved by writing several.
        if self._decoder.config.is_causal:
            self._n_ahead = min(2 * self._n_ahead, AHEAD)

    def _rewound(self) -> Batch:
        """The batch as it is where nothing is written ahead: the same frames, written again."""
        if not len(self._ahead.tokens):
            return self._batch
        batch = copy(self._start)
        n = self.index - int(batch.position[0])
        if n:
            batch.advance(n)
        return batch

    def _go_on(self, batch: Batch) -> None:
        """Go on from a batch that stands at the next frame."""
        self._ahead = Written(*(a[:0] for a in self._ahead))
        self._batch, self._n_ahead = batch, 1


def begin_stream(
    decoder: Decoder, prime: Any, random_state: RandomState, **settings: Any
) -> Stream:
    """A stream after a prime, which is read at once."""
    (key,), (roll,) = keys_of(random_state, None), primes_of(decoder, prime, None)
    request = request_of(decoder, roll, key, **settings)
    batch = Batch(decoder, [request])
    while batch.position[0] < 0:
        batch.advance(int(min(decoder.block, -batch.position[0])))
    sounding = np.zeros(4, np.uint64) if roll is None else last_chord(roll)
    return Stream(decoder, batch, sounding, tempo_after(decoder, roll))


def resume_stream(decoder: Decoder, state: bytes) -> Stream:
    """A stream that goes on from the state of another."""
    try:
        length = int.from_bytes(state[:8], "little")
        header = json.loads(json.loads(state[8 : 8 + length])["__metadata__"]["pianolstm_stream"])
        arrays = load(state)
    except Exception as error:  # safetensors has its own
        raise ModelFileError(
            f"state is not that of a stream ({error}); expected the bytes of Stream.state."
        ) from None
    if header["version"] != STATE_VERSION or header["model"] != decoder.digest:
        raise ModelFileError(
            "state is of a stream of another model or release; resume it with the model that "
            "wrote it."
        )
    leaves, structure = jax.tree.flatten(decoder.start)
    leaves = [arrays[f"state.{i}"] for i in range(len(leaves))]
    lane = jax.tree.unflatten(structure, leaves)
    limits = Limits(
        np.unpackbits(arrays["allowed"], count=len(decoder.chords)).astype(bool),
        arrays["required"],
        arrays["forbidden"],
        pitches=arrays["pitches"],
        **header["limits"],
    )
    sampling = SamplingSettings(**header["draw"])
    index = header["index"]
    request = Request(arrays["key"], sampling, limits, limits_from=index)
    batch = Batch(decoder, [request], lane, [index])
    tempo = header["tempo"]
    return Stream(
        decoder,
        batch,
        arrays["sounding"],
        None if tempo is None else TempoMap.constant(*tempo),
    )


def _pitches(chord: np.ndarray) -> list[int]:
    """Pitches of the first half of a chord's bits, or of a half."""
    words = np.zeros((1, 4), np.uint64)
    words[0, :2] = chord[:2]
    return np.flatnonzero(unpack(words)[0, :N_PITCHES]).tolist()
