"""Music as sound: samples, WAV files, and the player that a notebook shows.

Notes are those of the MIDI file that `PianoRoll.to_midi` makes, played by the piano of a SoundFont
(extra ``audio``). Nothing of this is loaded before something is to sound.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
import wave
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pianolstm.checks import check_number, plain
from pianolstm.exceptions import InvalidInputError
from pianolstm.files import write_atomically

if TYPE_CHECKING:
    import pretty_midi

    from pianolstm.rolls import PianoRoll

    Music: TypeAlias = PianoRoll | pretty_midi.PrettyMIDI

__all__ = ["render", "write_wav"]

RELEASE = 3.0
"""Seconds after the music in which the last notes ring out."""

FADE = 1.0
"""Seconds at the end that fade to silence, where a SoundFont rings on for longer."""

PEAK = 0.9
"""Loudest sample, of 1: no sound clips."""

SYNTHESISER_RATE = 48_000
"""Sampling rate of `midirenderer`, in Hz."""

PLAYER_RATE = 22_050
PLAYER_SECONDS = 30
"""What a notebook embeds: at most 1.3 MB of sound."""


def render(
    music: Music,
    *,
    sampling_rate: int = 44_100,
    soundfont: str | PathLike[str] | None = None,
) -> np.ndarray:
    """Play a piece on a piano, faster than it sounds.

    Without the extra ``audio`` the piece is played on sine waves instead, with a warning.

    Parameters
    ----------
    music : PianoRoll or pretty_midi.PrettyMIDI
        One piece. ``roll.to_midi(program=19)`` plays a roll on the SoundFont's organ.
    sampling_rate : int, default=44100
        Samples a second, from 8,000 to 192,000.
    soundfont : path, default=None
        An ``.sf2`` file with another piano; None takes the one that comes with pretty_midi.

    Returns
    -------
    ndarray of float32, shape (n_samples, 2)
        Left and right, from -1 to 1. The loudest sample is at 0.9, whatever the velocities: a
        velocity tells how loud a note is beside the others of its piece. The last notes ring out
        for three seconds after the end of the piece.

    Raises
    ------
    InvalidInputError
        If it is no piece, `sampling_rate` is out of range, or the SoundFont can't be read.

    Warns
    -----
    UserWarning
        If the extra ``audio`` is not installed.

    Examples
    --------
    >>> import pianolstm as pl
    >>> roll = pl.PianoRoll.from_notes([0, 10], [10, 20], [60, 64])  # a second of music
    >>> sound = pl.audio.render(roll, sampling_rate=8000)
    >>> sound.shape, sound.dtype
    ((32000, 2), dtype('float32'))
    """
    return _render(music, sampling_rate, soundfont)


def write_wav(
    path: str | PathLike[str],
    music: Music,
    *,
    sampling_rate: int = 44_100,
    soundfont: str | PathLike[str] | None = None,
) -> None:
    """Write a piece as a WAV file: stereo, 16 bits a sample.

    The file is written under its own name only when it is whole.

    Parameters
    ----------
    path : path
        Where to; a file that is there is replaced.
    music, sampling_rate, soundfont
        As for `render`.

    Raises
    ------
    InvalidInputError
        As for `render`; and if there is no such folder.

    Warns
    -----
    UserWarning
        If the extra ``audio`` is not installed.

    Examples
    --------
    >>> import tempfile, pianolstm as pl
    >>> roll = pl.datasets.load_chorales("test")[0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pl.audio.write_wav(f"{folder}/chorale.wav", roll)
    """
    sound = _render(music, sampling_rate, soundfont)
    write_sound(path, sound, plain(sampling_rate))


def write_sound(path: str | PathLike[str], sound: np.ndarray, sampling_rate: int) -> None:
    """Write samples, float of shape (n_samples, n_channels), as a WAV file.

    Raises
    ------
    InvalidInputError
        If there is no such folder.
    """
    try:
        write_atomically(path, wav_bytes(sound, sampling_rate))
    except FileNotFoundError:
        raise InvalidInputError(
            f"{path}: there is no folder {Path(path).parent}; make it first."
        ) from None


def wav_bytes(sound: np.ndarray, sampling_rate: int) -> bytes:
    """A WAV file of 16 bits a sample from float samples of shape (n_samples, n_channels)."""
    scaled = sound * np.float32(32767)
    np.rint(scaled, out=scaled)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(scaled.astype("<i2").tobytes())
    return buffer.getvalue()


def notebook_player(roll: PianoRoll) -> str | None:
    """A player of the first 30 seconds as HTML; None where there is no synthesiser."""
    if not _has_synthesiser():
        return None
    caption, seconds = "", roll.seconds
    if seconds > PLAYER_SECONDS:
        ends = roll.frames_to_seconds(np.arange(1, len(roll) + 1))
        roll = roll[: int(np.searchsorted(ends, PLAYER_SECONDS, side="right"))]
        caption = f"<br>the first {PLAYER_SECONDS} of {seconds:.0f} seconds"
    sound = _render(roll, PLAYER_RATE, None).mean(axis=1, keepdims=True)
    data = base64.b64encode(wav_bytes(sound, PLAYER_RATE)).decode()
    return f'<audio controls src="data:audio/wav;base64,{data}"></audio>{caption}'


def _render(music: Music, sampling_rate: int, soundfont: str | PathLike[str] | None) -> np.ndarray:
    """As `render`; a warning points to who calls the caller of this."""
    check_number("sampling_rate", sampling_rate, 8_000, 192_000, whole=True)
    sampling_rate, midi = plain(sampling_rate), _midi_of(music)
    # A roll may end with rests, of which a PrettyMIDI without notes knows nothing.
    seconds = getattr(music, "seconds", midi.get_end_time()) + RELEASE
    n_samples = round(seconds * sampling_rate)
    if _has_synthesiser():
        sound = _resampled(_played(midi, seconds, _read_soundfont(soundfont)), sampling_rate)
    else:
        warnings.warn(
            "Played on sine waves: there is no synthesiser. For a piano, install it with: "
            'pip install "pianolstm[audio]".',
            UserWarning,
            stacklevel=3,
        )
        sound = _sine_waves(midi, sampling_rate)
    sound = sound[:n_samples]
    if len(sound) < n_samples:
        sound = np.pad(sound, ((0, n_samples - len(sound)), (0, 0)))
    n_fade = round(FADE * sampling_rate)
    sound[-n_fade:] *= np.linspace(1, 0, n_fade, dtype=np.float32)[:, None]
    peak = max(sound.max(), -sound.min())
    if peak > 0:
        sound *= np.float32(PEAK) / peak
    return sound


def _midi_of(music: Music) -> pretty_midi.PrettyMIDI:
    import pretty_midi

    if isinstance(music, pretty_midi.PrettyMIDI):
        return music
    if not hasattr(music, "to_midi"):
        raise InvalidInputError(
            f"Expected one PianoRoll or pretty_midi.PrettyMIDI; got {type(music).__name__}. Rolls "
            "are played one by one, or joined by PianoRoll.concatenate."
        )
    return music.to_midi()


def _has_synthesiser() -> bool:
    try:
        import midirenderer  # noqa: F401
    except ImportError:
        return False
    return True


def _read_soundfont(path: str | PathLike[str] | None) -> bytes:
    file = files("pretty_midi") / "TimGM6mb.sf2" if path is None else Path(path)
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"soundfont: {path or file} can't be read: {error.strerror}. Give the path of an .sf2 "
            "file."
        ) from None


def _played(midi: pretty_midi.PrettyMIDI, seconds: float, soundfont: bytes) -> np.ndarray:
    """Samples of the synthesiser, int16 of shape (n_samples, 2), none of them clipped."""
    import midirenderer

    samples = np.empty((0, 2), np.int16)
    for volume in (127, 64, 32, 16):  # each a quarter as loud as the one before it
        try:
            rendered = midirenderer.render_wave_from(soundfont, _to_play(midi, seconds, volume))
        except RuntimeError as error:
            raise InvalidInputError(
                f"The synthesiser can't read the SoundFont: {error}. Expected an .sf2 file."
            ) from None
        with wave.open(io.BytesIO(rendered)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        if samples.min(initial=0) > -32768 and samples.max(initial=0) < 32767:
            break
    return samples


def _to_play(midi: pretty_midi.PrettyMIDI, seconds: float, volume: int) -> bytes:
    """The MIDI file, made to last for so long, with a volume, 0-127, for each channel."""
    import mido

    written = io.BytesIO()
    midi.write(written)
    written.seek(0)
    file = mido.MidiFile(file=written)
    volumes = [
        mido.Message("control_change", channel=channel, control=7, value=volume)
        for channel in range(16)
    ]
    file.tracks.append(
        mido.MidiTrack(
            [*volumes, mido.MetaMessage("end_of_track", time=midi.time_to_tick(seconds))]
        )
    )
    played = io.BytesIO()
    file.save(file=played)
    return played.getvalue()


def _resampled(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Samples of the synthesiser as float32 at another sampling rate."""
    from scipy.signal import resample_poly

    common = math.gcd(sampling_rate, SYNTHESISER_RATE)
    up, down = sampling_rate // common, SYNTHESISER_RATE // common
    sound = np.empty((math.ceil(len(samples) * up / down), 2), np.float32)
    for channel in range(2):  # one by one: long pieces take less memory
        sound[:, channel] = resample_poly(samples[:, channel] / np.float32(32768), up, down)
    return sound


def _sine_waves(midi: pretty_midi.PrettyMIDI, sampling_rate: int) -> np.ndarray:
    """The piece on sine waves, float32 of shape (n_samples, 2)."""
    sound = midi.synthesize(fs=sampling_rate, normalize=False).astype(np.float32)
    return np.repeat(sound[:, None], 2, axis=1)
