"""Streams: the music of `generate`, frame by frame, in pieces, elsewhere."""

import copy
import itertools
import subprocess
import sys

import numpy as np
import pytest

import pianolstm as pl


def make(pieces, arch="lstm", **changes):
    # As in test_generator, so that programs are shared.
    sizes = {"units": 8, "embedding": 6, "window_size": 24, "batch_size": 8, "max_epochs": 2}
    settings = {
        "clock": "frames",
        "augment": 0,
        "dropout": 0.0,
        "learning_rate": 0.01,
        "spell": False,
        "recall": False,
        "random_state": 0,
    }
    return pl.SequenceGenerator(arch=arch, **{**settings, **sizes, **changes}).fit(pieces)


@pytest.fixture(scope="module")
def model(pieces):
    return make(pieces)


def take(stream, n):
    return list(itertools.islice(stream, n))


@pytest.mark.parametrize("arch", ["bilstm", "hybrid_stacked"])
def test_every_network_streams_and_resumes(arch, pieces):
    # As in test_generator again, where these networks are larger.
    model = make(pieces, arch, units=48, embedding=24, early_stopping=False)
    settings = {"prime": pieces[0][:30], "top_p": 0.9, "random_state": 5}
    whole = model.generate(40, **settings)
    stream = model.stream(**settings)
    begun = next(stream.blocks(15))
    resumed = model.stream(state=stream.state)
    rest = next(resumed.blocks(25))
    assert pl.PianoRoll.concatenate([begun, rest]) == whole


def test_frames_and_events_are_those_of_generate(model, pieces):
    prime = pieces[0][:40]
    music = model.generate(80, prime=prime, random_state=7)
    frames = take(model.stream(prime=prime, random_state=7), 80)
    plane, onset = np.asarray(music) > 0, music.onset
    for t, frame in enumerate(frames):
        assert (frame.index, frame.time) == (t, pytest.approx(t / 20))
        assert list(frame.pitches) == np.flatnonzero(plane[t]).tolist()
        struck = [e.pitch for e in frame.events if e.kind == "note_on"]
        assert struck == np.flatnonzero(onset[t]).tolist()
        assert all(e.time == frame.time for e in frame.events)
    events = [event for frame in frames for event in frame.events]
    # Each key goes up before it goes down again; those of the prime go up alone.
    down = set(np.flatnonzero(np.asarray(prime)[-1]).tolist())
    for event in events:
        assert (event.pitch in down) == (event.kind == "note_off")
        down ^= {event.pitch}
        assert event.velocity == (64 if event.kind == "note_on" else 0)
    again = model.stream(prime=prime, random_state=7)
    assert take(again.events(), len(events)) == events
    assert {e.pitch for e in again.release()} == {
        e.pitch for e in model.stream(state=again.state).release()
    }


def test_blocks_are_the_whole(model):
    whole = model.generate(150, random_state=3)
    for n in (1, 7, 150):
        blocks = take(model.stream(random_state=3).blocks(n), -(-150 // n))
        assert pl.PianoRoll.concatenate(blocks)[:150] == whole


def test_forks_go_their_own_way(model):
    stream = model.stream(random_state=1)
    take(stream, 20)
    fork, copied = stream.fork(), copy.copy(stream)
    fork.set(temperature=5.0)
    changed, same = take(fork, 60), take(copied, 60)
    assert take(stream, 60) == same != changed
    assert stream.index == 80


def test_settings_change_while_it_runs(model, pieces):
    c = pl.constraints
    stream = model.stream(random_state=1)
    first = take(stream, 20)
    assert [f.pitches for f in first] != [()] * 20
    stream.set(constraints=c.MaxNotes(1) & c.Bass(pieces[1][:10], onsets=False))
    asked = [np.flatnonzero(row)[:1].tolist() for row in np.asarray(pieces[1][:10])]
    for frame, bass in zip(take(stream, 10), asked, strict=True):
        assert len(frame.pitches) <= 1
        assert not bass or list(frame.pitches) == bass
    stream.set(temperature=0.7)  # the constraint stays, from where it is
    assert max(len(f.pitches) for f in take(stream, 40)) == 1
    resumed = model.stream(state=stream.state)
    resumed.set(top_k=3)
    stream.set(top_k=3)
    assert take(resumed, 40) == take(stream, 40)
    stream.set(constraints=None, top_k=None, temperature=1.0)
    assert max(len(f.pitches) for f in take(stream, 60)) > 1
    for changes, match in (
        ({"top_p": 2}, "top_p must be between"),
        ({"seed": 3}, "A stream has the settings temperature"),
    ):
        with pytest.raises(pl.InvalidInputError, match=match):
            stream.set(**changes)


@pytest.mark.parametrize("clock", ["frames", "changes"])
def test_what_is_written_ahead_is_not_heard(clock, pieces, monkeypatch):
    """Settings act, and states are, as if each frame were written when it is read."""
    model = make(pieces, clock=clock)

    def played(k):
        stream = model.stream(random_state=6, constraints=pl.constraints.Melody(pieces[1][:30]))
        frames = take(stream, k)
        stream.set(temperature=0.4)
        frames += take(stream, 3)
        assert take(model.stream(state=stream.state), 9) == take(stream.fork(), 9)
        stream.set(constraints=pl.constraints.MaxNotes(2), top_k=4)
        return frames + take(stream, 21)

    ahead = [played(k) for k in range(1, 18)]
    monkeypatch.setattr("pianolstm.streams.AHEAD", 1)
    assert ahead == [played(k) for k in range(1, 18)]


def test_a_frame_that_can_not_be_written_leaves_the_stream_where_it_was(model, pieces):
    silent = pl.constraints.PitchRange(0, 9) & pl.constraints.MaxSilence(0.55)  # 11 frames
    stream = model.stream(random_state=8, constraints=silent)
    assert [frame.pitches for frame in take(stream, 11)] == [()] * 11
    for _ in range(2):
        with pytest.raises(pl.InvalidInputError, match="at frame 11;"):
            next(stream)
    with pytest.raises(pl.InvalidInputError, match="at frame 11;"):
        next(stream.blocks(5))
    assert stream.index == 11
    stream.set(constraints=None)
    other = model.stream(random_state=8, constraints=silent)
    next(other.blocks(11))
    other.set(constraints=None)
    assert take(stream, 30) == take(other, 30)


def test_a_melody_goes_on_after_resuming(model, pieces):
    melody = pl.constraints.Melody(pieces[1][:60], onsets=False)
    whole = take(model.stream(constraints=melody, random_state=2), 70)
    stream = model.stream(constraints=melody, random_state=2)
    assert take(stream, 25) == whole[:25]
    assert take(model.stream(state=stream.state), 45) == whole[25:]


def test_another_process_goes_on(model, tmp_path):
    stream = model.stream(random_state=4, temperature=0.8, repetition_penalty=1.5)
    take(stream, 33)
    model.save(tmp_path / "model.safetensors")
    (tmp_path / "state").write_bytes(stream.state)
    code = (
        "import pianolstm as pl, pathlib, itertools\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "model = pl.SequenceGenerator.load(folder / 'model.safetensors')\n"
        "stream = model.stream(state=(folder / 'state').read_bytes())\n"
        "print([f.pitches for f in itertools.islice(stream, 50)])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str([f.pitches for f in take(stream, 50)])


def test_states_of_other_models(model, pieces):
    state = model.stream(random_state=0).state
    other = make(pieces[1:])
    with pytest.raises(pl.ModelFileError, match="another model"):
        other.stream(state=state)
    for broken in (b"", state[:100], b"nonsense" * 40):
        with pytest.raises(pl.ModelFileError, match="not that of a stream"):
            model.stream(state=broken)


def test_memory_does_not_grow(model):
    stream = model.stream(random_state=0)
    take(stream, 300)
    size = len(stream.state)
    take(stream, 300)
    assert len(stream.state) == size


def test_time_on_the_grid_of_beats():
    rolls = [
        pl.PianoRoll.from_notes(
            np.arange(60), np.arange(60) + 1, 60 + np.arange(60) % n,
            fs=4, grid="beats", tempo_map=pl.TempoMap.constant(600_000),
        )
        for n in (3, 4, 5)
    ]  # fmt: skip
    model = make(rolls)
    assert take(model.stream(), 9)[8].time == pytest.approx(8 * 0.6 / 4)
    slow = pl.TempoMap.constant(900_000)
    prime = pl.PianoRoll.from_notes([0], [4], [60], fs=4, grid="beats", tempo_map=slow)
    stream = model.stream(prime=prime)
    assert stream.seconds_per_frame == pytest.approx(0.9 / 4)
    assert next(stream.blocks(8)).seconds == pytest.approx(1.8)
    # A repetition is what came in the last 8 seconds, or 16 quarter notes.
    penalised = model.stream(repetition_penalty=2.0)
    assert penalised._batch.requests[0].sampling.recent == 16 * 4
