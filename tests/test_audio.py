"""Sound: pitch, time and loudness measured in the samples; the WAV file; the notebook's player."""

import base64
import io
import os
import re
import sys
import wave

import numpy as np
import pytest

import pianolstm as pl
from pianolstm import audio

RATE = 16_000
A4 = pl.PianoRoll.from_notes([10], [30], [69], fs=20, n_frames=40)  # from 0.5 to 1.5 s of 2 s

needs_piano = pytest.mark.skipif(not audio._has_synthesiser(), reason="needs the extra audio")


@pytest.fixture
def no_synthesiser(monkeypatch):
    monkeypatch.setitem(sys.modules, "midirenderer", None)


def render(music, **keywords):
    return pl.audio.render(music, sampling_rate=RATE, **keywords)


def loudness(sound, begin, end):
    """Root mean square of what sounds between two times in seconds."""
    part = sound[round(begin * RATE) : round(end * RATE)]
    return float(np.sqrt((part.astype(float) ** 2).mean()))


def pitch_of(sound, begin, end, low, high):
    """Frequency in Hz of the strongest partial within limits, to a fraction of a cent."""
    part = sound[round(begin * RATE) : round(end * RATE)].mean(axis=1)
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 2**20))
    frequency = np.fft.rfftfreq(2**20, 1 / RATE)
    inside = (frequency > low) & (frequency < high)
    return frequency[inside][spectrum[inside].argmax()]


def cents(frequency, other):
    return 1200 * np.log2(frequency / other)


# ------------------------------------------------------------------------------------- the sound


@needs_piano
@pytest.mark.parametrize(("pitch", "frequency"), [(69, 440.0), (57, 220.0), (81, 880.0)])
def test_pitch_is_that_of_equal_temperament(pitch, frequency):
    roll = pl.PianoRoll.from_notes([10], [30], [pitch], n_frames=40)
    sound = render(roll)
    found = pitch_of(sound, 0.6, 1.5, frequency / 1.5, frequency * 1.5)
    assert abs(cents(found, frequency)) < 7  # the SoundFont's own A3 is 5.5 cents flat
    # The octave below, where a wrong sampling rate or octave would put it, is far weaker.
    part = np.abs(np.fft.rfft(sound[round(0.6 * RATE) : round(1.5 * RATE)].mean(axis=1), 2**18))
    at = [round(f * 2**18 / RATE) for f in (frequency, frequency / 2)]
    assert part[at[0]] > 20 * part[at[1]]


@needs_piano
@pytest.mark.parametrize("sampling_rate", [8_000, 44_100, 48_000])
def test_pitch_does_not_depend_on_the_sampling_rate(sampling_rate):
    sound = pl.audio.render(A4, sampling_rate=sampling_rate)
    assert sound.shape == (5 * sampling_rate, 2) and sound.dtype == np.float32
    part = sound[round(0.6 * sampling_rate) : round(1.5 * sampling_rate)].mean(axis=1)
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 2**21))
    assert abs(cents(spectrum.argmax() * sampling_rate / 2**21, 440)) < 5


@needs_piano
def test_notes_begin_and_end_when_the_roll_says():
    sound = render(A4)
    assert np.abs(sound[: round(0.49 * RATE)]).max() < 1e-3
    assert loudness(sound, 0.52, 0.6) > 0.1
    assert loudness(sound, 1.2, 1.5) > 4 * loudness(sound, 2, 2.3)  # released at 1.5 s
    # It rings out: no click at the end, and silence there.
    assert np.abs(sound[-RATE // 2 :]).max() < 1e-3
    assert np.abs(np.diff(sound, axis=0)[round(1.6 * RATE) :]).max() < 0.1


@needs_piano
def test_a_louder_velocity_is_louder_and_nothing_clips():
    roll = pl.PianoRoll.from_notes([0, 40, 80], [20, 60, 100], [60] * 3, [30, 70, 120])
    sound = render(roll)
    soft, middle, loud = (loudness(sound, begin, begin + 1) for begin in (0, 2, 4))
    assert 1.5 * soft < middle and 1.5 * middle < loud
    assert np.abs(sound).max() == pytest.approx(audio.PEAK, abs=1e-6)
    # Sixty keys at once, as loud as can be, would be more than the synthesiser's sixteen bits hold.
    cluster = pl.PianoRoll.from_notes([0] * 60, [20] * 60, range(30, 90), 127)
    played = audio._played(cluster.to_midi(), 4.0, audio._read_soundfont(None))
    assert -32768 < played.min() < -1000 and 1000 < played.max() < 32767
    assert np.abs(render(cluster)).max() == pytest.approx(audio.PEAK, abs=1e-6)


@needs_piano
def test_tempo_is_followed():
    tempi = pl.TempoMap([0, 4], [500_000, 1_000_000], 4)  # 120 for one quarter note, then 60
    roll = pl.PianoRoll.from_notes(
        [0, 4, 8], [1, 5, 9], [72] * 3, n_frames=12, fs=4, grid="beats", tempo_map=tempi
    )
    assert roll.seconds == 2.5
    sound = render(roll)
    assert len(sound) == round(5.5 * RATE)
    for onset in (0.5, 1.5):
        assert loudness(sound, onset + 0.01, onset + 0.06) > 3 * loudness(
            sound, onset - 0.06, onset - 0.01
        )
    assert loudness(sound, 1.0, 1.05) < loudness(sound, 0.5, 0.55) / 3  # nothing begins at 1 s


@needs_piano
def test_a_pretty_midi_plays_its_own_instrument_and_is_left_as_it_was():
    midi = A4.to_midi(program=19)  # an organ, which does not decay
    before = io.BytesIO()
    midi.write(before)
    organ, piano = render(midi), render(A4)
    after = io.BytesIO()
    midi.write(after)
    assert before.getvalue() == after.getvalue()
    assert loudness(organ, 1.2, 1.4) > 0.8 * loudness(organ, 0.7, 0.9)
    assert loudness(piano, 1.2, 1.4) < 0.7 * loudness(piano, 0.55, 0.75)


@needs_piano
@pytest.mark.parametrize("n_frames", [0, 40])
def test_silence_is_silent(n_frames):
    sound = render(pl.PianoRoll.from_notes([], [], [], n_frames=n_frames))
    assert sound.shape == ((n_frames // 20 + 3) * RATE, 2)
    assert not sound.any()


@needs_piano
def test_a_long_silence_keeps_its_length():
    sound = render(pl.PianoRoll.from_notes([0, 1990], [10, 2000], [60, 60]))
    assert len(sound) == 103 * RATE
    assert np.abs(sound[10 * RATE : 99 * RATE]).max() < 1e-6
    assert loudness(sound, 99.5, 100) > 0.1


@needs_piano
def test_a_soundfont_of_ones_own(tmp_path):
    path = tmp_path / "piano.sf2"
    path.write_bytes(audio._read_soundfont(None))
    assert np.array_equal(render(A4, soundfont=path), render(A4))
    path.write_bytes(b"RIFF, but cut short")
    with pytest.raises(pl.InvalidInputError, match=r"can't read the SoundFont: .*an \.sf2 file"):
        render(A4, soundfont=path)
    with pytest.raises(pl.InvalidInputError, match=r"none\.sf2 can't be read: No such file"):
        render(A4, soundfont=tmp_path / "none.sf2")


def test_without_a_synthesiser_sine_waves_sound_and_a_warning_says_why(no_synthesiser, tmp_path):
    with pytest.warns(UserWarning, match=r'sine waves.*pip install "pianolstm\[audio\]"') as caught:
        sound = render(A4)
    assert caught[0].filename == __file__ or caught[0].filename.endswith("test_audio.py")
    assert sound.shape == (5 * RATE, 2) and sound.dtype == np.float32
    assert abs(cents(pitch_of(sound, 0.6, 1.4, 100, 2000), 440)) < 5
    assert np.abs(sound).max() == pytest.approx(audio.PEAK, abs=1e-6)
    assert not sound[: round(0.49 * RATE)].any()
    with pytest.warns(UserWarning, match="sine waves") as caught:
        pl.audio.write_wav(tmp_path / "a.wav", A4, sampling_rate=RATE)
    assert caught[0].filename.endswith("test_audio.py")
    with pytest.warns(UserWarning, match="sine waves"):
        assert not render(pl.PianoRoll.from_notes([], [], [])).any()


@pytest.mark.parametrize(
    ("music", "keywords", "message"),
    [
        ([A4], {}, "Expected one PianoRoll or pretty_midi.PrettyMIDI; got list.*concatenate"),
        ("a.mid", {}, "got str"),
        (A4, {"sampling_rate": 7999}, "sampling_rate must be between 8000 and 192000; got 7999"),
        (A4, {"sampling_rate": 44100.5}, "sampling_rate must be a whole number"),
    ],
)
def test_bad_input_is_told(music, keywords, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        pl.audio.render(music, **keywords)


# -------------------------------------------------------------------------------------- the file


@needs_piano
def test_the_file_holds_the_samples(tmp_path):
    path = tmp_path / "a4.wav"
    path.write_text("something older")
    pl.audio.write_wav(path, A4, sampling_rate=np.int64(RATE))
    with wave.open(str(path)) as file:
        assert file.getparams()[:4] == (2, 2, RATE, 5 * RATE)
        samples = np.frombuffer(file.readframes(5 * RATE), "<i2").reshape(-1, 2)
    assert np.abs(samples / 32767 - render(A4)).max() <= 0.5 / 32767 + 1e-7
    assert os.listdir(tmp_path) == ["a4.wav"]


def test_a_wav_file_of_known_samples():
    sound = np.array([[0.0, 1.0], [-1.0, 0.5]])
    with wave.open(io.BytesIO(audio.wav_bytes(sound, 8000))) as file:
        assert np.frombuffer(file.readframes(2), "<i2").tolist() == [0, 32767, -32767, 16384]


@needs_piano
def test_a_file_that_can_not_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a4.wav"
    path.write_text("something older")

    def full(handle):
        raise OSError("No space left on device")

    monkeypatch.setattr("pianolstm.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        pl.audio.write_wav(path, A4, sampling_rate=RATE)
    assert path.read_text() == "something older"
    assert os.listdir(tmp_path) == ["a4.wav"]


@needs_piano
def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(pl.InvalidInputError, match=r"there is no folder .*nowhere; make it first"):
        pl.audio.write_wav(tmp_path / "nowhere" / "a.wav", A4, sampling_rate=RATE)


# ---------------------------------------------------------------------------------- the notebook


def embedded(html):
    (data,) = re.findall(r'<audio controls src="data:audio/wav;base64,([^"]*)"></audio>', html)
    return wave.open(io.BytesIO(base64.b64decode(data)))


@needs_piano
def test_a_notebook_shows_the_picture_and_a_player():
    pytest.importorskip("matplotlib")
    html = A4._repr_html_()
    assert html.startswith('<img alt="&lt;PianoRoll 1 note, 40 frames at fs=20 (2.0 s)')
    (png,) = re.findall('src="data:image/png;base64,([^"]*)"', html)
    assert base64.b64decode(png).startswith(b"\x89PNG\r\n")
    with embedded(html) as file:
        assert file.getparams()[:4] == (1, 2, 22_050, 5 * 22_050)
    assert html.endswith("</audio>")


@needs_piano
def test_of_a_long_roll_a_notebook_plays_the_beginning():
    tempi = pl.TempoMap.constant(2_000_000, 4)  # half a frame a second at fs=1
    roll = pl.PianoRoll.from_notes(
        range(600), range(1, 601), [60] * 600, fs=1, grid="beats", tempo_map=tempi
    )
    assert roll.seconds == 1200
    html = roll._repr_html_()
    with embedded(html) as file:
        assert file.getnframes() == 33 * 22_050
    assert html.endswith("the first 30 of 1200 seconds")
    assert len(html) < 2.5e6
    # A frame longer than that is left out.
    with embedded(pl.PianoRoll.from_notes([0], [2], [60], fs=0.01)._repr_html_()) as file:
        assert file.getnframes() == 3 * 22_050


def test_without_a_synthesiser_a_notebook_shows_the_picture_alone(no_synthesiser):
    assert A4._repr_html_() is None  # and no warning
    assert A4._repr_png_() is not None


@needs_piano
def test_without_matplotlib_a_notebook_shows_the_player_alone(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert A4._repr_html_().startswith("<audio controls")
