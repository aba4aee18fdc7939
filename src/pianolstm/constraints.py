"""Rules that written music keeps: small objects, joined with ``&``.

Each frame that `SequenceGenerator.generate` or `stream` draws keeps all of them: a chord that does
not is never drawn. Primes, and frames that `infill` keeps, are left as they are.

Examples
--------
>>> import pianolstm as pl
>>> c = pl.constraints
>>> rule = c.Scale("D minor") & c.PitchRange(36, 84) & c.TwoHands() & c.MaxSilence(2)
>>> rule.allows([[62, 65, 69], [62, 66, 69], [30, 62]]).tolist()
[True, False, False]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from pianolstm.checks import check_number
from pianolstm.chords import as_chords, as_words, chord_pitches, pack, unpack
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import N_PITCHES, Grid, PianoRoll, as_rolls

__all__ = [
    "MODES",
    "Bass",
    "Constraint",
    "Contains",
    "MaxHold",
    "MaxNotes",
    "MaxRepeats",
    "MaxSilence",
    "Melody",
    "PitchRange",
    "Scale",
    "TwoHands",
]

UNLIMITED = 2**31 - 1

MODES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "melodic minor": (0, 2, 3, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "whole tone": (0, 2, 4, 6, 8, 10),
    "octatonic": (0, 2, 3, 5, 6, 8, 9, 11),
    "chromatic": tuple(range(12)),
}
"""Semitones above the tonic."""

_NATURALS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}


class Requirements(NamedTuple):
    """What chords have to keep, n of them or one for all; arrays of NumPy or of JAX.

    Attributes
    ----------
    allowed : bool
        Pitches that may sound.
    required, struck, unstruck : bool
        Pitches that must sound; that must be struck again where they sounded before, and must not.
    max_notes, span, hand : int
        Notes at most; semitones and notes of a hand at most.
    may_rest : bool
        Whether nothing may sound.
    """

    allowed: Any  # (n, 128)
    required: Any  # (n, 128)
    struck: Any  # (n, 128)
    unstruck: Any  # (n, 128)
    max_notes: Any  # (n,)
    span: Any  # (n,)
    hand: Any  # (n,)
    may_rest: Any  # (n,)


def satisfies(
    requirements: Requirements,
    planes: Any,  # bool (n, 256): pitches that sound, pitches that are struck again
    before: Any,  # bool (n, 128): what sounded in the frame before
    xp: ModuleType,
) -> Any:  # bool (n,)
    """Whether chords keep what is asked: the one place that says what rules mean.

    `xp` is NumPy or its namesake in JAX, which compiles the same rules for what is written.
    """
    sounding, struck = planes[:, :N_PITCHES], planes[:, N_PITCHES:]
    pitch = xp.arange(N_PITCHES)[None]
    wrong = (sounding & ~requirements.allowed) | (requirements.required & ~sounding)
    wrong |= (requirements.struck & before & ~struck) | (requirements.unstruck & struck)
    # The left hand takes from below all that it can; the right hand has to take the others.
    lowest = xp.min(xp.where(sounding, pitch, N_PITCHES), axis=1, keepdims=True)
    n_below = sounding.astype(np.float32) @ (pitch >= pitch.T).astype(np.float32)
    hand = requirements.hand[:, None].astype(np.float32)
    left = (pitch <= lowest + requirements.span[:, None]) & (n_below <= hand)
    right = sounding & ~left
    ends = xp.max(xp.where(right[None], xp.stack([pitch, -pitch]), -N_PITCHES), axis=2)
    n, n_right, n_wrong = xp.sum(xp.stack([sounding, right, wrong]), axis=2)
    fits = (
        (n <= requirements.max_notes)
        & (requirements.may_rest | (n > 0))
        & (n_right <= requirements.hand)
    )
    return fits & (ends[0] + ends[1] <= requirements.span) & (n_wrong == 0)


def has_and_lacks(chords: Any, required: Any, forbidden: Any) -> Any:
    """Whether chords have all bits required and none forbidden, word by word."""
    return ((chords & required) == required) & ((chords & forbidden) == 0)


@dataclass(frozen=True, eq=False)
class Limits:
    """What constraints come to for one vocabulary: the form that all of them have in common.

    Attributes
    ----------
    allowed : ndarray of bool, shape (n_tokens,)
        Chords that may be drawn at all.
    required, forbidden : ndarray of uint32, shape (n_frames, 8)
        Pitches of the first frames (as in tokens, sounding and struck again) that the chord must
        have and must not have.
    max_hold, max_silence : int
        Frames.
    pitches : ndarray of bool, shape (128,)
        Pitches that may sound in other chords than those of the vocabulary.
    may_rest : bool
        Whether there may be none.
    max_notes : int
        How many there may be.
    span, hand : int
        How many semitones a hand may span, and of how many notes.
    max_repeats : int
        Times in a row that a passage may come; `UNLIMITED` leaves it to the model.
    """

    allowed: np.ndarray
    required: np.ndarray = field(default_factory=lambda: np.empty((0, 8), np.uint32))
    forbidden: np.ndarray = field(default_factory=lambda: np.empty((0, 8), np.uint32))
    max_hold: int = UNLIMITED
    max_silence: int = UNLIMITED
    pitches: np.ndarray = field(default_factory=lambda: np.ones(N_PITCHES, bool))
    may_rest: bool = True
    max_notes: int = N_PITCHES
    span: int = N_PITCHES
    hand: int = N_PITCHES
    max_repeats: int = UNLIMITED

    @property
    def is_restricted(self) -> bool:
        """Whether there are chords that may not come, in any frame."""
        sizes = self.max_notes, self.span, self.hand
        is_free = self.may_rest and sizes == (N_PITCHES,) * 3
        return not (is_free and bool(self.allowed.all()) and bool(self.pitches.all()))

    def satisfied_by(self, sounding: np.ndarray) -> np.ndarray:  # (n, 128) -> bool (n,)
        """Which chords may sound, whatever the frame."""
        nothing = np.zeros((1, N_PITCHES), bool)
        numbers = (np.array([a]) for a in (self.max_notes, self.span, self.hand, self.may_rest))
        asked = Requirements(self.pitches[None], nothing, nothing, nothing, *numbers)
        planes = np.concatenate([sounding, np.zeros_like(sounding)], axis=1)
        return satisfies(asked, planes, nothing, np)

    def spellable(self, required: np.ndarray, forbidden: np.ndarray) -> bool:
        """Whether another chord may have all pitches required and none forbidden: bool, (128,)."""
        some = replace(self, pitches=self.pitches & ~forbidden, may_rest=True)
        can_sound = self.may_rest or bool(np.any(some.pitches))
        return can_sound and bool(some.satisfied_by(required[None])[0])


class Constraint:
    """A rule; ``a & b`` is the rule that keeps both."""

    def __and__(self, other: Constraint) -> Constraint:
        if not isinstance(other, Constraint):
            return NotImplemented
        return _All((*_parts(self), *_parts(other)))

    def allows(self, chords: Iterable[Iterable[int]]) -> np.ndarray:
        """Which chords may be drawn at all, whatever the frame.

        Parameters
        ----------
        chords : iterable of iterables of int
            The pitches of each.

        Returns
        -------
        ndarray of bool, shape (n_chords,)
        """
        chords = [list(chord) for chord in chords]
        planes = np.zeros((len(chords), N_PITCHES), bool)
        for plane, chord in zip(planes, chords, strict=True):
            plane[chord] = True
        return self._allows(planes)

    def _allows(self, sounding: np.ndarray) -> np.ndarray:
        """As `allows`, of planes (n, 128)."""
        notes, span, hand = self._sizes()
        limits = Limits(
            np.ones(0, bool), pitches=self._pitches(), max_notes=notes, span=span, hand=hand
        )
        return limits.satisfied_by(sounding)

    def _pitches(self) -> np.ndarray:
        """Pitches that may sound: bool, (128,)."""
        return np.ones(N_PITCHES, bool)

    def _asks(self, fs: float, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Pitches that the first frames must have and must not have: bool, (n, 2, 128) each."""
        nothing = np.zeros((0, 2, N_PITCHES), bool)
        return nothing, nothing

    def _frames(self, fs: float) -> tuple[int, int]:
        """The longest that a chord and a rest may last."""
        return UNLIMITED, UNLIMITED

    def _repeats(self) -> int:
        """Times in a row that a passage may come."""
        return UNLIMITED

    def _sizes(self) -> tuple[int, int, int]:
        """Notes at most; semitones and notes of a hand at most."""
        return N_PITCHES, N_PITCHES, N_PITCHES


@dataclass(frozen=True)
class _All(Constraint):
    parts: tuple[Constraint, ...]

    def __repr__(self) -> str:
        return " & ".join(map(repr, self.parts))

    def _allows(self, sounding: np.ndarray) -> np.ndarray:
        return np.all([part._allows(sounding) for part in self.parts], axis=0)

    def _pitches(self) -> np.ndarray:
        return np.all([part._pitches() for part in self.parts], axis=0)

    def _asks(self, fs: float, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        asked = [part._asks(fs, grid) for part in self.parts]
        both = np.zeros((2, max(len(required) for required, _ in asked), 2, N_PITCHES), bool)
        for part in asked:
            both[:, : len(part[0])] |= part
        return both[0], both[1]

    def _frames(self, fs: float) -> tuple[int, int]:
        holds, silences = zip(*(part._frames(fs) for part in self.parts), strict=True)
        return min(holds), min(silences)

    def _repeats(self) -> int:
        return min(part._repeats() for part in self.parts)

    def _sizes(self) -> tuple[int, int, int]:
        notes, spans, hands = zip(*(part._sizes() for part in self.parts), strict=True)
        return min(notes), min(spans), min(hands)


@dataclass(frozen=True)
class PitchRange(Constraint):
    """No pitch outside a range.

    Parameters
    ----------
    lowest, highest : int, default=21, 108
        MIDI numbers, both included; the default is a piano's.
    """

    lowest: int = 21
    highest: int = 108

    def __post_init__(self) -> None:
        check_number("lowest", self.lowest, 0, 127, whole=True)
        check_number("highest", self.highest, self.lowest, 127, whole=True)

    def _pitches(self) -> np.ndarray:
        pitch = np.arange(N_PITCHES)
        return (pitch >= self.lowest) & (pitch <= self.highest)


@dataclass(frozen=True)
class Scale(Constraint):
    """No pitch outside a scale or key.

    Parameters
    ----------
    scale : str or iterable of int
        A tonic and a mode, ``"D minor"``, ``"F# dorian"``, ``"Bb major pentatonic"`` (`MODES` has
        their names; minor is the natural one); or pitch classes, C being 0.
    """

    scale: str | Iterable[int]

    def __post_init__(self) -> None:
        if not isinstance(self.scale, str):
            object.__setattr__(self, "scale", tuple(self.scale))
        _ = self.pitch_classes

    @property
    def pitch_classes(self) -> frozenset[int]:
        """Pitch classes of the scale, C being 0."""
        if not isinstance(self.scale, str):
            classes = tuple(self.scale)
            if not classes or not all(
                isinstance(c, (int, np.integer)) and 0 <= c < 12 for c in classes
            ):
                raise InvalidInputError(
                    f"Pitch classes are whole numbers from 0 to 11; got {classes!r}."
                )
            return frozenset(int(c) for c in classes)
        tonic, _, mode = self.scale.strip().partition(" ")
        letter, accidentals = tonic[:1].lower(), tonic[1:].replace("♯", "#").replace("♭", "b")
        steps = MODES.get(mode.strip().lower())
        if letter not in _NATURALS or (accidentals.strip("#") and accidentals.strip("b")):
            raise InvalidInputError(f'{self.scale!r} is no scale; expected one like "D minor".')
        if steps is None:
            raise InvalidInputError(
                f"{self.scale!r}: the mode must be one of {', '.join(MODES)}; got {mode!r}."
            )
        shift = accidentals.count("#") - accidentals.count("b")
        return frozenset((_NATURALS[letter] + shift + step) % 12 for step in steps)

    def _pitches(self) -> np.ndarray:
        return np.isin(np.arange(N_PITCHES) % 12, list(self.pitch_classes))


@dataclass(frozen=True)
class MaxNotes(Constraint):
    """At most so many notes at once.

    Parameters
    ----------
    notes : int
        1 is a single voice; 0 is silence.
    """

    notes: int

    def __post_init__(self) -> None:
        check_number("notes", self.notes, 0, N_PITCHES, whole=True)

    def _sizes(self) -> tuple[int, int, int]:
        return self.notes, N_PITCHES, N_PITCHES


@dataclass(frozen=True)
class TwoHands(Constraint):
    """Chords that two hands can play.

    Parameters
    ----------
    span : int, default=14
        Semitones between the outer notes of a hand at the most; 14 is a ninth.
    notes : int, default=5
        Notes of a hand at the most.
    """

    span: int = 14
    notes: int = 5

    def __post_init__(self) -> None:
        check_number("span", self.span, 0, N_PITCHES, whole=True)
        check_number("notes", self.notes, 1, 10, whole=True)

    def _sizes(self) -> tuple[int, int, int]:
        return N_PITCHES, self.span, self.notes


@dataclass(frozen=True)
class MaxHold(Constraint):
    """No chord held for longer, until another follows or it is struck again.

    Parameters
    ----------
    duration : float
        Seconds; quarter notes where the grid is of beats.
    """

    duration: float

    def __post_init__(self) -> None:
        check_number("duration", self.duration, 0, None)

    def _frames(self, fs: float) -> tuple[int, int]:
        frames = _whole_frames(self.duration, fs)
        if frames < 1:
            raise InvalidInputError(
                f"MaxHold({self.duration:g}) is less than a frame; expected {1 / fs:g} or more."
            )
        return frames, UNLIMITED


@dataclass(frozen=True)
class MaxRepeats(Constraint):
    """No passage said more often in a row.

    Without it that is as often as the training pieces say one at the most. A passage is of up to
    128 chords that begin (frames, with ``clock="frames"``), not all the same; what the prime says
    counts. Where the network ends a piece and begins another with what sounds, held on, and that
    had been struck again, it counts as another chord.

    Parameters
    ----------
    times : int
        1 lets nothing be said again at once. More than in the training pieces is allowed, too.
    """

    times: int

    def __post_init__(self) -> None:
        check_number("times", self.times, 1, UNLIMITED, whole=True)

    def _repeats(self) -> int:
        return int(self.times)


@dataclass(frozen=True)
class MaxSilence(Constraint):
    """No silence for longer.

    Parameters
    ----------
    duration : float
        Seconds; quarter notes where the grid is of beats. 0 allows none at all.
    """

    duration: float

    def __post_init__(self) -> None:
        check_number("duration", self.duration, 0, None)

    def _frames(self, fs: float) -> tuple[int, int]:
        return UNLIMITED, _whole_frames(self.duration, fs)


@dataclass(frozen=True, eq=False)
class Contains(Constraint):
    """The music has at least the notes of a roll, frame by frame from its first.

    Parameters
    ----------
    roll : PianoRoll or array-like of shape (n_frames, 128)
        Chords to keep, from the first frame written on; after its last frame all is free.
    onsets : bool, default=True
        Whether the notes must begin where they do in the roll; if not, they have to sound, and may
        be struck at other times too.
    """

    roll: Any
    onsets: bool = True

    def __post_init__(self) -> None:
        as_rolls([self.roll], "roll", **_grid(self.roll))

    def _asks(self, fs: float, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        (roll,) = as_rolls([self.roll], "roll", fs=fs, grid=grid)
        sounding = self._line(np.asarray(roll) > 0)
        onset = roll.onset & sounding
        required = np.stack([sounding, onset & self.onsets], axis=1)
        forbidden = np.stack([self._beyond(sounding), sounding & ~onset & self.onsets], axis=1)
        return required, forbidden

    def _line(self, sounding: np.ndarray) -> np.ndarray:
        """Of the pitches of each frame, those asked for."""
        return sounding

    def _beyond(self, sounding: np.ndarray) -> np.ndarray:
        """Pitches that may not sound beside them."""
        return np.zeros_like(sounding)


class Melody(Contains):
    """The music has the highest notes of a roll as its highest: write what lies below a melody.

    Where the roll rests, all is free.

    Parameters
    ----------
    roll : PianoRoll or array-like of shape (n_frames, 128)
        Of several notes at once, the highest counts.
    onsets : bool, default=True
        Whether the notes must begin where they do in the roll.
    """

    def _line(self, sounding: np.ndarray) -> np.ndarray:
        return sounding & (np.cumsum(sounding[:, ::-1], axis=1)[:, ::-1] == 1)

    def _beyond(self, sounding: np.ndarray) -> np.ndarray:
        return np.cumsum(sounding, axis=1) - sounding > 0


class Bass(Contains):
    """The music has the lowest notes of a roll as its lowest: write what lies above a bass.

    Where the roll rests, all is free.

    Parameters
    ----------
    roll : PianoRoll or array-like of shape (n_frames, 128)
        Of several notes at once, the lowest counts.
    onsets : bool, default=True
        Whether the notes must begin where they do in the roll.
    """

    def _line(self, sounding: np.ndarray) -> np.ndarray:
        return sounding & (np.cumsum(sounding, axis=1) == 1)

    def _beyond(self, sounding: np.ndarray) -> np.ndarray:
        return np.cumsum(sounding[:, ::-1], axis=1)[:, ::-1] - sounding > 0


def limits_of(
    constraint: Constraint | None,
    vocabulary: np.ndarray,
    *,
    fs: float,
    grid: Grid,
    spell: bool = False,
) -> Limits:
    """What a constraint comes to for a vocabulary.

    Parameters
    ----------
    constraint : Constraint or None
    vocabulary : ndarray of uint64, shape (n_tokens, 4)
    fs, grid
        Of the model.
    spell : bool, default=False
        Whether the model writes other chords too.

    Raises
    ------
    InvalidInputError
        If no chord is left for a frame, as far as that can be known before.
    """
    if constraint is None:
        return Limits(np.ones(len(vocabulary), bool))
    if not isinstance(constraint, Constraint):
        raise InvalidInputError(
            "constraints must be an object of pianolstm.constraints, or several joined with &; got "
            f"{constraint!r}."
        )
    planes = unpack(vocabulary).reshape(-1, 2, N_PITCHES).astype(bool)
    allowed = constraint._allows(planes[:, 0])
    max_hold, max_silence = constraint._frames(fs)
    if max_silence == 0:
        allowed &= planes[:, 0].any(1)
    required, forbidden = constraint._asks(fs, grid)
    limits = Limits(
        allowed,
        _words(required),
        _words(forbidden),
        max_hold,
        max_silence,
        constraint._pitches(),
        max_silence > 0,
        *constraint._sizes(),
        constraint._repeats(),
    )
    nothing = np.zeros(N_PITCHES, bool)
    if not allowed.any() and not (spell and limits.spellable(nothing, nothing)):
        raise InvalidInputError(
            f"{constraint!r} leaves no chord{'' if spell else ' of the vocabulary'}; loosen it"
            f"{'' if spell else _TRAIN_ON}."
        )
    _check_frames(limits, vocabulary, spell)
    return limits


_TRAIN_ON = ", or train on music that has such chords"


def with_pitches(
    limits: Limits,
    vocabulary: np.ndarray,
    required: np.ndarray,
    forbidden: np.ndarray,
    *,
    spell: bool = False,
) -> Limits:
    """The limits, and pitches that each frame must have and must not have: bool, (n_frames, 128).

    Raises
    ------
    InvalidInputError
        If that leaves no chord for a frame.
    """
    n = max(len(limits.required), len(required))
    words = np.zeros((2, n, 8), np.uint32)
    words[0, : len(limits.required)] = limits.required
    words[1, : len(limits.forbidden)] = limits.forbidden
    planes = np.zeros((2, n, 2, N_PITCHES), bool)
    planes[0, : len(required), 0], planes[1, : len(forbidden), 0] = required, forbidden
    words |= np.stack([_words(plane) for plane in planes])
    joined = replace(limits, required=words[0], forbidden=words[1])
    _check_frames(joined, vocabulary, spell)
    return joined


def _check_frames(limits: Limits, vocabulary: np.ndarray, spell: bool) -> None:
    """Raise if what a frame asks for leaves no chord, whatever came before it."""
    if not len(limits.required):
        return
    certain = limits.required.copy()
    certain[0, 4:] = 0
    certain[1:, 4:] &= limits.required[:-1, :4]  # struck again is what is sure to have sounded
    asked = np.concatenate([certain, limits.forbidden], axis=1)
    first = np.unique(asked, axis=0, return_index=True)[1]
    chords = as_words(vocabulary[limits.allowed])
    for i in sorted(first.tolist()):
        need, ban = asked[i, :8], asked[i, 8:]
        fits = has_and_lacks(chords, need, ban).all(1)
        planes = [unpack(as_chords(words)[None])[0].astype(bool) for words in (need, ban)]
        is_clear = not np.any(planes[0] & planes[1])
        if spell and is_clear and limits.spellable(*(p[:N_PITCHES] for p in planes)):
            continue
        if not fits.any():
            raise InvalidInputError(
                f"The constraints leave no chord{'' if spell else ' of the vocabulary'} at frame "
                f"{i}: none with pitches {chord_pitches(as_chords(need)) or 'as asked'} keeps the "
                "other rules. Loosen them (with onsets=False notes may be struck at other times)"
                f"{'' if spell else _TRAIN_ON}."
            )


def _words(planes: np.ndarray) -> np.ndarray:
    """Planes (n, 2, 128) as bits: uint32, shape (n, 8)."""
    return as_words(pack(planes.reshape(len(planes), 2 * N_PITCHES)))


def _parts(constraint: Constraint) -> tuple[Constraint, ...]:
    return constraint.parts if isinstance(constraint, _All) else (constraint,)


def _grid(roll: Any) -> dict[str, Any]:
    return {"fs": roll.fs, "grid": roll.grid} if isinstance(roll, PianoRoll) else {}


def _whole_frames(duration: float, fs: float) -> int:
    return int(min(np.floor(duration * fs * (1 + 1e-9) + 1e-9), UNLIMITED))
