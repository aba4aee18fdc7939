"""What `generate` does: settings piece by piece, primes, candidates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from pianolstm._decoding.batches import Decoder, Request, SamplingSettings, write_all
from pianolstm._jax.keys import fold, key_of
from pianolstm.checks import as_seed, check_number, plain
from pianolstm.chords import as_chords, unique_chords
from pianolstm.constraints import limits_of
from pianolstm.encoder import read_files
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import PianoRoll, as_rolls
from pianolstm.tempo import TempoMap
from pianolstm.tokens import ChordSequence, TokenCorpus, decode

RECENT = 8.0
"""How far back `repetition_penalty` looks: seconds, or twice as many quarter notes."""

SETTINGS = ("temperature", "top_k", "top_p", "repetition_penalty", "constraints")
"""What may differ from piece to piece, and change while a stream runs."""


def request_of(
    decoder: Decoder,
    prime: PianoRoll | None,
    key: np.ndarray,
    *,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    repetition_penalty: Any,
    constraints: Any,
) -> Request:
    """A piece to write from settings as users give them.

    Raises
    ------
    InvalidInputError
        If one is out of range, or the constraints leave no chord.
    """
    check_number("temperature", temperature, 0, None)
    if top_k is not None:
        check_number("top_k", top_k, 1, None, whole=True)
    if top_p is not None:
        check_number("top_p", top_p, 0, 1)
        if top_p == 0:
            raise InvalidInputError("top_p must be above 0; for the most likely chord, top_k=1.")
    check_number("repetition_penalty", repetition_penalty, 1, None)
    limits = limits_of(
        constraints, decoder.chords, fs=decoder.fs, grid=decoder.grid, spell=decoder.config.spell
    )
    sampling = SamplingSettings(
        temperature=float(temperature),
        top_k=None if top_k is None else int(top_k),
        top_p=None if top_p is None else float(top_p),
        repetition_penalty=float(repetition_penalty),
        recent=round(RECENT * decoder.fs * (2 if decoder.grid == "beats" else 1)),
    )
    if prime is None:
        return Request(key, sampling, limits)
    corpus = TokenCorpus.of([prime])
    given = decoder.forced(corpus.chords[corpus.tokens[0]])
    return Request(key, sampling, limits, given, len(prime))


def primes_of(decoder: Decoder, prime: Any, n_pieces: int | None) -> list[PianoRoll | None]:
    """The prime of each piece; None where there is none, or where it has no frames."""
    n = 1 if n_pieces is None else n_pieces
    primes = list(prime) if isinstance(prime, (list, tuple)) else [prime] * n
    if len(primes) != n or (n_pieces is None and isinstance(prime, (list, tuple))):
        raise _wrong_count("prime", len(primes), n_pieces)
    is_list, grid = isinstance(prime, (list, tuple)), {"fs": decoder.fs, "grid": decoder.grid}
    primes = read_files(primes if is_list else primes[:1], **grid)
    given = [
        i for i, p in enumerate(primes) if p is not None and (not hasattr(p, "__len__") or len(p))
    ]
    if not given:
        return [None] * n
    rolls = as_rolls([primes[i] for i in given], "prime", **grid)
    if not is_list:
        return [*rolls] * n
    found: list[PianoRoll | None] = [None] * n
    for i, roll in zip(given, rolls, strict=False):
        found[i] = roll
    return found


def keys_of(random_state: Any, n_pieces: int | None) -> np.ndarray:
    """A key for each piece: uint32, shape (n, 2)."""
    n = 1 if n_pieces is None else n_pieces
    random_state = plain(random_state)
    if isinstance(random_state, (list, tuple, np.ndarray)):
        if n_pieces is None or len(random_state) != n:
            raise _wrong_count("random_state", len(random_state), n_pieces)
        seeds, numbers = [as_seed(s) for s in random_state], [0] * n
    else:
        seeds, numbers = [as_seed(random_state)] * n, list(range(n))
    return np.stack([fold(key_of(seed), i) for seed, i in zip(seeds, numbers, strict=True)])


def _wrong_count(name: str, got: int, n_pieces: int | None) -> InvalidInputError:
    if n_pieces is None:
        return InvalidInputError(
            f"{name} is a list, which needs n_pieces; give n_pieces={got}, or one alone."
        )
    return InvalidInputError(
        f"{name} has {got} entries for n_pieces={n_pieces}; give one for each, or one for all."
    )


def generate(
    decoder: Decoder,
    n_frames: int,
    *,
    n_pieces: int | None,
    prime: Any,
    random_state: Any,
    return_prime: bool,
    n_candidates: int,
    deadline: float | None,
    verbose: bool,
    **settings: Any,
) -> PianoRoll | list[PianoRoll]:
    """As `SequenceGenerator.generate`."""
    began = time.monotonic()
    check_number("n_frames", n_frames, 1, None, whole=True)
    check_number("n_candidates", n_candidates, 1, None, whole=True)
    if n_pieces is not None:
        check_number("n_pieces", n_pieces, 1, None, whole=True)
    if deadline is not None:
        check_number("deadline", deadline, 0, None)
    n_frames, n_candidates = plain(n_frames), plain(n_candidates)
    n_pieces = plain(n_pieces)
    n = 1 if n_pieces is None else n_pieces
    primes = primes_of(decoder, prime, n_pieces)
    settings = {name: plain(value) for name, value in settings.items()}
    each = {name: [value] * n for name, value in settings.items()}
    for name, value in settings.items():
        if isinstance(value, (list, tuple, np.ndarray)):
            if n_pieces is None or len(value) != n:
                raise _wrong_count(name, len(value), n_pieces)
            each[name] = list(value)
    keys = keys_of(random_state, n_pieces)
    requests = []
    for i in range(n):
        request = request_of(decoder, primes[i], keys[i], **{k: v[i] for k, v in each.items()})
        if n_pieces is not None:
            request.name = f" of piece {i}"
        requests.append(request)
        # Keys of candidates are far from those of frames, which count from 0.
        requests += [
            replace(request, key=fold(request.key, 2**32 - c)) for c in range(1, int(n_candidates))
        ]
    total = sum(request.n_prime + n_frames for request in requests)
    with show_progress(total, verbose) as progress:
        written = write_all(
            decoder,
            requests,
            int(n_frames),
            deadline=None if deadline is None else began + deadline,
            is_weighed=n_candidates > 1,
            progress=progress,
        )
    rolls = []
    for i in range(n):
        candidates = written[i * n_candidates : (i + 1) * n_candidates]
        # A deadline may have left some shorter than others.
        best = max(candidates, key=lambda w: float(w.log_p.mean()) if len(w.tokens) else -np.inf)
        rolls.append(roll_of(decoder, as_chords(best.bits), primes[i], return_prime=return_prime))
    return rolls[0] if n_pieces is None else rolls


def roll_of(
    decoder: Decoder, chords: np.ndarray, prime: PianoRoll | None, *, return_prime: bool = False
) -> PianoRoll:
    """The music of chords after a prime, in the prime's last tempo."""
    before, tempo_map = np.zeros(4, np.uint64), decoder.tempo_map
    if prime is not None:
        before, tempo_map = last_chord(prime), tempo_after(decoder, prime)
    music = music_of(decoder, chords, before, tempo_map)
    if return_prime and prime is not None:
        return PianoRoll.concatenate([prime, music])
    return music


def music_of(
    decoder: Decoder, chords: np.ndarray, before: np.ndarray, tempo_map: TempoMap | None
) -> PianoRoll:
    """The music of chords, uint64 of shape (n, 4), after the chord before them."""
    table, tokens = unique_chords(chords)
    sequence = ChordSequence(
        tokens.astype(np.int32),
        fs=decoder.fs,
        grid=decoder.grid,
        tempo_map=tempo_map,
        before=before,
    )
    return decode(table, sequence)


def last_chord(roll: PianoRoll) -> np.ndarray:
    """Bits of the last frame: uint64, shape (4,)."""
    corpus = TokenCorpus.of([roll])
    return corpus.chords[corpus.tokens[0][-1]]


def tempo_after(decoder: Decoder, prime: PianoRoll | None) -> TempoMap | None:
    """The tempo in which music goes on."""
    if prime is None or prime.tempo_map is None:
        return decoder.tempo_map
    return TempoMap.constant(
        int(prime.tempo_map.microseconds[-1]), prime.tempo_map.ticks_per_quarter
    )


@contextmanager
def show_progress(total: int, verbose: bool) -> Iterator[Callable[[int], Any] | None]:
    """What is to be called with how many frames are done; None unless `verbose`."""
    if not verbose:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit="frame") as bar:
        yield lambda done: bar.update(min(done, total) - bar.n)
