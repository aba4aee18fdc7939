"""The store on disk, against rolls tokenised in memory, and against kills."""

from __future__ import annotations

import io
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl
import reference
from pianolstm import (
    ChordTokenizer,
    NgramBaseline,
    PianoRoll,
    PianoRollEncoder,
    SequenceGenerator,
    TempoMap,
    TokenStore,
    WindowDataset,
)
from pianolstm.tokens import TokenCorpus
from strategies import rolls

ENCODERS = {
    "seconds": PianoRollEncoder(fs=10),
    "beats": PianoRollEncoder(fs=4, grid="beats"),
}


def some_rolls(n, grid="seconds", fs=10):
    """Pieces of different lengths, some chords shared, each with notes struck again."""
    rng = np.random.default_rng(11)
    pieces = []
    for i in range(n):
        start = np.sort(rng.integers(0, 40 + 5 * i, 20 + i))
        end = start + rng.integers(1, 6, len(start))
        tempi = TempoMap([0, 480 * (1 + i)], [500_000 + 1000 * i, 400_000], 480)
        pieces.append(
            PianoRoll.from_notes(
                start,
                end,
                rng.integers(60, 66, len(start)),
                rng.integers(1, 128, len(start)),
                n_frames=int(end.max()) + 3 * i,
                fs=fs,
                grid=grid,
                tempo_map=tempi if grid == "beats" else None,
            )
        )
    return pieces


def written(folder, pieces, name="piece"):
    """Paths of MIDI files of rolls."""
    paths = [str(folder / f"{name}{i}.mid") for i in range(len(pieces))]
    for path, roll in zip(paths, pieces, strict=True):
        roll.to_midi().write(path)
    return paths


def with_velocity_64(roll):
    notes = roll.notes.copy()
    notes["velocity"] = 64
    return PianoRoll(notes, len(roll), roll.fs, roll.grid, roll.tempo_map)


def chords_in(corpus):
    """The bits of the chord of each frame of each piece."""
    return [corpus.chords[tokens].tolist() for tokens in corpus.tokens]


def assert_holds(store, pieces, sources):
    """The store has these pieces, exactly, and a table of chords without repeats."""
    assert len(store) == len(pieces) and store.sources == sources
    assert list(store) == [with_velocity_64(roll) for roll in pieces]
    if pieces:
        assert chords_in(store) == chords_in(TokenCorpus.of(pieces))
    assert store.tempo_maps == [roll.tempo_map for roll in pieces]
    assert store.chords[0].tolist() == [0, 0, 0, 0]
    assert len(np.unique(np.asarray(store.chords), axis=0)) == len(store.chords)


@pytest.fixture(scope="module", params=["seconds", "beats"])
def corpus(request, tmp_path_factory):
    """Six pieces as rolls, as files, and in a store."""
    folder = tmp_path_factory.mktemp(request.param)
    encoder = ENCODERS[request.param]
    paths = written(folder, some_rolls(6, request.param, encoder.fs))
    store = TokenStore(folder / "store", encoder=encoder).write(paths)
    return encoder.transform(paths), paths, store


# ------------------------------------------------------------------------------------ what it holds


def test_a_store_by_hand(tmp_path):
    # Frames: 60 | 60 64 | 60* 64 | rest | 127, and 64 | 60.
    first = PianoRoll.from_notes([0, 1, 2, 4], [2, 3, 3, 5], [60, 64, 60, 127], [9, 8, 7, 6], fs=8)
    second = PianoRoll.from_notes([0, 1], [1, 2], [64, 60], [1, 2], fs=8)
    paths = written(tmp_path, [first, second])
    store = TokenStore(tmp_path / "a" / "b", encoder=PianoRollEncoder(fs=8)).write(paths)
    assert repr(store) == "<TokenStore 2 pieces, 7 frames, 6 chords, fs=8>"
    names = [[pl.chord_pitches(c) for c in store.chords[tokens]] for tokens in store.tokens]
    assert names == [["60", "60 64", "60* 64", "", "127"], ["64", "60"]]
    assert store.tokens[0][3] == 0 and store.tokens[0][0] == store.tokens[1][1]
    assert store.tokens[0].dtype == np.int32 and store.chords.dtype == np.uint64
    assert (store.fs, store.grid, store.tempo_maps) == (8, "seconds", [None, None])
    assert store.counts().sum() == 7
    assert store[-1] == with_velocity_64(second)
    with pytest.raises(IndexError, match="out of range"):
        store[2]


def test_a_store_equals_the_rolls_tokenised_at_once(corpus):
    pieces, paths, store = corpus
    assert_holds(store, pieces, paths)
    assert sum(map(len, store.tokens)) == sum(map(len, pieces))


def test_a_store_is_the_same_when_opened_again(corpus):
    pieces, paths, store = corpus
    again = TokenStore(store.path)
    assert_holds(again, pieces, paths)
    assert (again.fs, again.grid) == (pieces[0].fs, pieces[0].grid)
    assert [t.tolist() for t in again.tokens] == [t.tolist() for t in store.tokens]
    assert_holds(TokenStore(str(store.path), encoder=store.encoder), pieces, paths)


@given(st.lists(rolls(min_notes=1, fs=4, grid="beats"), min_size=1, max_size=4), st.data())
def test_any_rolls_can_be_stored(tmp_path_factory, pieces, data):
    folder = tmp_path_factory.mktemp("any")
    paths = written(folder, pieces)
    store = TokenStore(folder / "store", encoder=PianoRollEncoder(fs=4, grid="beats"))
    cut = data.draw(st.integers(0, len(paths)))
    store.write(paths[:cut]).write(paths[cut:])
    assert_holds(store, pieces, paths)


def test_chords_of_all_pitches_are_kept(tmp_path):
    piece = PianoRoll.from_notes(
        [0, *[3] * 128, *[4] * 128], [1, *[4] * 128, *[9] * 128], [0, *range(128), *range(128)]
    )
    (path,) = written(tmp_path, [piece])
    assert TokenStore(tmp_path / "store").write([path])[0] == piece


def test_a_table_of_chords_has_the_order_in_which_they_came(corpus):
    # Ids are kept when more is written, so the chords of the first pieces come first.
    store = corpus[2]
    highest = [int(t.max()) for t in store.tokens]
    seen = 0
    for tokens, top in zip(store.tokens, highest, strict=True):
        new = np.unique(tokens[tokens > seen])
        assert new.tolist() == list(range(seen + 1, max(seen, top) + 1))
        seen = max(seen, top)
    assert len(store.chords) == seen + 1


# ------------------------------------------------------------------------------------ writing more


def test_more_can_be_written_later(tmp_path):
    pieces = some_rolls(5)
    paths = written(tmp_path, pieces)
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"])
    assert store.write(paths[:2]) is store
    before = [t.tolist() for t in store.tokens]
    later = TokenStore(tmp_path / "store").write(paths[2:4])
    later.write(paths[4:])
    assert_holds(later, pieces, paths)
    assert [t.tolist() for t in later.tokens[:2]] == before
    at_once = TokenStore(tmp_path / "other", encoder=ENCODERS["seconds"]).write(paths)
    assert [t.tolist() for t in at_once.tokens] == [t.tolist() for t in later.tokens]
    assert np.array_equal(at_once.chords, later.chords)


def test_known_files_and_duplicates_are_passed_over(tmp_path):
    pieces = some_rolls(3)
    paths = written(tmp_path, pieces)
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"])
    store.write([paths[0], Path(paths[0]), paths[1], paths[0]])
    assert_holds(store, pieces[:2], paths[:2])
    pieces[2].to_midi().write(paths[0])  # known by its path, whatever it has now
    store.write(path for path in [*reversed(paths), paths[2]])
    assert_holds(store, pieces, paths)
    sizes = [path.stat().st_size for path in sorted(store.path.iterdir())]
    store.write(paths)
    assert [path.stat().st_size for path in sorted(store.path.iterdir())] == sizes


def test_what_can_be_no_path_is_refused(tmp_path):
    store = TokenStore(tmp_path / "store")
    with pytest.raises(pl.InvalidInputError, match=r"'a\\x00b.mid' can't be the path of a file"):
        store.write(["a\0b.mid"])
    assert not store.path.exists()


def test_a_new_store_is_empty_until_written(tmp_path):
    store = TokenStore(tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert repr(store) == "<TokenStore 0 pieces, 0 frames, 1 chords, fs=20>"
    assert repr(store.write([])) == repr(store)
    with pytest.raises(pl.InvalidInputError, match="X is empty; expected at least one piece"):
        ChordTokenizer().fit(store)
    with pytest.raises(pl.InvalidInputError, match="tokens is empty"):
        WindowDataset(store)
    (tmp_path / "empty").mkdir()
    assert len(TokenStore(tmp_path / "empty").write([])) == 0


def test_bad_files_are_left_out_and_read_once_they_are_mended(tmp_path):
    pieces = some_rolls(4)
    paths = written(tmp_path, pieces)
    Path(paths[1]).write_bytes(b"no music")
    Path(paths[3]).unlink()
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"])
    message = "^2 of 4 files could not be read and were left out \\(see skipped_\\)"
    with pytest.warns(pl.DataLossWarning, match=message) as caught:
        store.write(paths)
    assert (len(caught), caught[0].filename) == (1, __file__)
    assert_holds(store, [pieces[0], pieces[2]], [paths[0], paths[2]])
    assert [name for name, _ in store.skipped_] == [paths[1], paths[3]]
    assert all(isinstance(error, pl.MidiError) for _, error in store.skipped_)
    assert "piece1.mid: expected a MIDI file" in str(store.skipped_[0][1])
    assert "no such file" in str(store.skipped_[1][1])

    pieces[1].to_midi().write(paths[1])
    with pytest.warns(pl.DataLossWarning, match="1 of 4 files"):
        store.write(paths)
    assert [name for name, _ in store.skipped_] == [paths[3]]
    pieces[3].to_midi().write(paths[3])
    store.write(paths)  # no warning
    assert store.skipped_ == []
    order = [0, 2, 1, 3]
    assert_holds(store, [pieces[i] for i in order], [paths[i] for i in order])


def test_files_over_a_limit_are_left_out(tmp_path):
    pieces = some_rolls(2)
    paths = written(tmp_path, pieces)
    encoder = PianoRollEncoder(fs=10, max_frames=len(pieces[0]), on_error="skip")
    store = TokenStore(tmp_path / "store", encoder=encoder)
    with pytest.warns(pl.DataLossWarning, match="1 of 2 files"):
        store.write(paths)
    assert "over the limit max_frames" in str(store.skipped_[0][1])
    # The limits are no part of what the tokens are.
    store = TokenStore(tmp_path / "store", encoder=PianoRollEncoder(fs=10.0, max_notes=9999))
    assert_holds(store.write(paths), pieces, paths)


def test_what_the_encoder_reads_is_what_is_stored(tmp_path):
    voices = [[(0, 480, 60, 64)], [(0, 960, 72, 64)]]
    events = [reference.note_events(v, channel=i) for i, v in enumerate(voices)]
    events[1].append((480, b"\xb1\x40\x7f"))  # the pedal, down to the end
    events[1].append((1440, b"\xb1\x7b\x50"))
    path = tmp_path / "two.mid"
    path.write_bytes(reference.midi_bytes(events))
    encoder = PianoRollEncoder(fs=4, tracks=np.array([1]), pedal=True, programs=range(8))
    store = TokenStore(tmp_path / "store", encoder=encoder).write([path])
    expected = PianoRoll.from_notes([0], [6], [72], fs=4)
    assert store[0] == expected
    again = TokenStore(tmp_path / "store")
    assert again[0] == expected
    parameters = again.encoder.get_params()
    assert parameters["tracks"] == [1] and parameters["programs"] == list(range(8))
    assert parameters["pedal"] is True
    same = PianoRollEncoder(fs=4, tracks=(1,), pedal=np.True_, programs=[*range(7, -1, -1)])
    assert TokenStore(tmp_path / "store", encoder=same)[0] == expected


def test_a_progress_bar_is_shown_on_demand(tmp_path, capsys):
    paths = written(tmp_path, some_rolls(2))
    TokenStore(tmp_path / "quiet").write(paths)
    assert capsys.readouterr() == ("", "")
    TokenStore(tmp_path / "store").write(paths, verbose=1)
    out, err = capsys.readouterr()
    assert out == "" and "100%" in err and "2/2" in err and "piece/s" in err


# ------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    "encoder",
    [
        PianoRollEncoder(fs=20),
        PianoRollEncoder(fs=10, grid="beats"),
        PianoRollEncoder(fs=10, pedal=True),
        PianoRollEncoder(fs=10, tracks=[0]),
        PianoRollEncoder(fs=10, programs=[0]),
    ],
)
def test_another_encoder_is_refused(tmp_path, encoder):
    TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"]).write([])
    message = r"store was written with PianoRollEncoder\(fs=10.*\); got PianoRollEncoder\(.*Leave"
    with pytest.raises(pl.InvalidInputError, match=f"(?s){message}"):
        TokenStore(tmp_path / "store", encoder=encoder)


def test_an_encoder_of_wrong_parameters_is_refused(tmp_path):
    with pytest.raises(pl.InvalidInputError, match="fs must be a number"):
        TokenStore(tmp_path / "store", encoder=PianoRollEncoder(fs=0))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(pl.InvalidInputError, match="holds something else; expected a TokenSt"):
            TokenStore(path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "expected the settings of a TokenStore; they can't be read"),
        ("{}", "they can't be read"),
        ("[1]", "they can't be read"),
        ('{"format_version": 1}', "they can't be read"),
        ('{"format_version": 1, "encoder": {"octave": 1}}', "they can't be read"),
        ('{"format_version": 2, "encoder": {}}', "has format version 2.*reads version 1; write"),
    ],
)
def test_broken_settings_are_refused(tmp_path, settings, message):
    TokenStore(tmp_path / "store").write([])
    (tmp_path / "store" / "settings.json").write_text(settings)
    with pytest.raises(pl.InvalidInputError, match=rf"settings\.json.*{message}"):
        TokenStore(tmp_path / "store")


@pytest.mark.parametrize("sources", ["a.mid", Path("a.mid"), b"MThd"])
def test_one_bare_path_is_refused(tmp_path, sources):
    store = TokenStore(tmp_path / "store")
    with pytest.raises(pl.InvalidInputError, match=r"Expected a list of paths, got one; wrap it"):
        store.write(sources)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("source", [b"MThd", io.BytesIO(), some_rolls(1)[0], None])
def test_what_has_no_path_is_refused(tmp_path, source):
    store = TokenStore(tmp_path / "store")
    message = f"Expected paths of MIDI files.*got {type(source).__name__}"
    with pytest.raises(pl.InvalidInputError, match=message):
        store.write(["a.mid", source])
    assert not (tmp_path / "store").exists()


# ----------------------------------------------------------------------------------------- kills


def torn(data, path, *, at_least=0, tail=True):
    """Cut a file somewhere, or leave at its end what is no whole line."""
    content = path.read_bytes()
    size = data.draw(st.integers(at_least, len(content)), label=f"bytes of {path.name}")
    if size < len(content):
        path.write_bytes(content[:size])
    elif tail:
        garbage = data.draw(st.binary(max_size=60), label=f"garbage after {path.name}")
        path.write_bytes(content + garbage.replace(b"\n", b""))


@given(st.data())
def test_a_torn_store_is_written_whole_again(corpus, tmp_path_factory, data):
    pieces, paths, store = corpus
    folder = tmp_path_factory.mktemp("torn") / "store"
    shutil.copytree(store.path, folder)
    for name in ("tokens.bin", "chords.bin", "pieces.jsonl"):
        # The rest, the first row of the chords, is there before the store is one.
        torn(data, folder / name, at_least=32 if name == "chords.bin" else 0)
    opened = TokenStore(folder)
    n = len(opened)
    assert_holds(opened, pieces[:n], paths[:n])  # what is left is whole
    opened.write(paths)
    assert_holds(opened, pieces, paths)
    assert_holds(TokenStore(folder), pieces, paths)


@given(st.data())
def test_a_line_that_is_not_whole_does_not_count(corpus, tmp_path_factory, data):
    pieces, paths, store = corpus
    folder = tmp_path_factory.mktemp("line") / "store"
    shutil.copytree(store.path, folder)
    lines = (folder / "pieces.jsonl").read_bytes()
    size = data.draw(st.integers(0, len(lines)))
    (folder / "pieces.jsonl").write_bytes(lines[:size])
    n = lines[:size].count(b"\n")
    assert_holds(TokenStore(folder), pieces[:n], paths[:n])
    # New pieces in place of those cut off: nothing of the old ones shines through.
    order = [*range(n), *range(len(paths) - 1, n - 1, -1)]
    rewritten = TokenStore(folder).write([paths[i] for i in order])
    assert_holds(rewritten, [pieces[i] for i in order], [paths[i] for i in order])


@pytest.mark.parametrize(
    ("torn_file", "size"), [("tokens.bin", -1), ("tokens.bin", 0), ("chords.bin", -1)]
)
def test_a_piece_whose_data_is_not_there_does_not_count(corpus, tmp_path, torn_file, size):
    pieces, paths, store = corpus
    shutil.copytree(store.path, tmp_path / "store")
    path = tmp_path / "store" / torn_file
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    opened = TokenStore(tmp_path / "store")
    assert len(opened) < len(pieces)
    assert_holds(opened.write(paths), pieces, paths)


@pytest.mark.parametrize("name", ["tokens.bin", "chords.bin", "pieces.jsonl"])
def test_a_store_that_has_lost_a_file_is_written_anew(tmp_path, name):
    pieces = some_rolls(2)
    paths = written(tmp_path, pieces)
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"]).write(paths)
    (store.path / name).unlink()
    again = TokenStore(store.path)
    assert len(again) == 0
    assert_holds(again.write(paths), pieces, paths)


def test_a_line_that_is_no_record_ends_the_store(tmp_path):
    pieces = some_rolls(2)
    paths = written(tmp_path, pieces)
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"]).write(paths[:1])
    with open(store.path / "pieces.jsonl", "ab") as file:
        file.write(b"5\n")
    assert_holds(TokenStore(store.path).write(paths), pieces, paths)


def test_a_store_whose_first_chord_was_not_yet_on_disk(tmp_path):
    pieces = some_rolls(2)
    paths = written(tmp_path, pieces)
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"]).write(paths)
    os.truncate(store.path / "chords.bin", 0)
    assert_holds(TokenStore(store.path).write(paths), pieces, paths)


@pytest.mark.parametrize(
    "there",
    [
        ["chords.bin"],
        ["chords.bin", "tokens.bin"],
        ["chords.bin", "tokens.bin", "pieces.jsonl"],
        ["chords.bin", "tokens.bin", "pieces.jsonl", "settings.json.new"],
    ],
)
def test_a_store_killed_as_it_was_made_is_made_again(tmp_path, there):
    pieces = some_rolls(2)
    paths = written(tmp_path, pieces)
    (tmp_path / "store").mkdir()
    for name in there:
        (tmp_path / "store" / name).write_bytes(bytes(32) if name == "chords.bin" else b"")
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"])
    assert_holds(store.write(paths), pieces, paths)


WRITER = """
import sys
import pianolstm as pl
folder, *paths = sys.argv[1:]
pl.TokenStore(folder, encoder=pl.PianoRollEncoder(fs=10)).write(paths)
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_killed_write_goes_on_where_it_was(tmp_path):
    pieces = some_rolls(60)
    paths = written(tmp_path, pieces)
    folder = tmp_path / "store"
    # The last file never comes to an end, so that the writer does not before it is killed.
    pipe = Path(paths[-1])
    whole = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder), *paths])
    try:
        lines = folder / "pieces.jsonl"
        until = time.monotonic() + 60
        while not lines.exists() or lines.read_bytes().count(b"\n") < 5:
            assert writer.poll() is None and time.monotonic() < until
            time.sleep(0.0005)
    finally:
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
    pipe.unlink()
    pipe.write_bytes(whole)

    resumed = TokenStore(folder)
    assert 5 <= len(resumed) < 60
    assert_holds(resumed, pieces[: len(resumed)], paths[: len(resumed)])
    assert_holds(resumed.write(paths), pieces, paths)
    undisturbed = TokenStore(tmp_path / "other", encoder=ENCODERS["seconds"]).write(paths)
    assert [t.tolist() for t in resumed.tokens] == [t.tolist() for t in undisturbed.tokens]
    assert np.array_equal(resumed.chords, undisturbed.chords)


HOLDER = """
import sys
import pianolstm as pl
from pianolstm.store import TokenStore
with TokenStore(sys.argv[1])._lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_one_process_writes_at_a_time(tmp_path):
    pieces = some_rolls(3)
    paths = written(tmp_path, pieces)
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"]).write(paths[:1])
    command = [sys.executable, "-c", HOLDER, str(store.path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(pl.StoreError, match=r"is being written by another process.*Try"):
            store.write(paths)
        assert_holds(TokenStore(store.path), pieces[:1], paths[:1])  # reading goes on
        store.write(paths[:1])  # nothing new, so nothing to write
        holder.kill()  # the lock ends with its process
        holder.wait()
        assert_holds(store.write(paths), pieces, paths)


def test_a_store_that_is_made_while_it_is_opened_is_opened(tmp_path, monkeypatch):
    paths = written(tmp_path, some_rolls(2))
    (tmp_path / "store").mkdir()
    is_new = TokenStore._is_new

    def overtaken(self):
        found = is_new(self)
        monkeypatch.undo()
        TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"]).write(paths)
        return found

    monkeypatch.setattr(TokenStore, "_is_new", overtaken)
    assert len(TokenStore(tmp_path / "store")) == 2


def test_what_another_has_written_since_is_kept(tmp_path):
    pieces = some_rolls(4)
    paths = written(tmp_path, pieces)
    first = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"])
    second = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"])
    first.write(paths[:2])
    assert_holds(second.write(paths[1:]), pieces, paths)
    assert_holds(first.write(paths), pieces, paths)
    third = TokenStore(tmp_path / "new", encoder=ENCODERS["seconds"])
    TokenStore(tmp_path / "new", encoder=ENCODERS["beats"]).write(paths[:1])
    with pytest.raises(pl.InvalidInputError, match=r"was written with .*beats"):
        third.write(paths)


@pytest.mark.parametrize(
    ("piece", "changes"),
    [(1, {"first": 0}), (2, {"first": 10**6}), (2, {"chords": 1}), (3, {"first": -1})],
)
def test_a_store_that_two_writers_spoiled_is_noticed(tmp_path, piece, changes):
    paths = written(tmp_path, some_rolls(4))
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"]).write(paths)
    lines = [json.loads(line) for line in (store.path / "pieces.jsonl").read_text().splitlines()]
    lines[piece] |= changes
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (store.path / "pieces.jsonl").write_text(text)
    message = f"was spoiled by two processes .*: piece {piece} .*Write the store anew, in another"
    for spoiled in (lambda: TokenStore(store.path), lambda: store.write([*paths, "more.mid"])):
        with pytest.raises(pl.StoreError, match=message):
            spoiled()


def test_one_file_under_many_names_is_one_piece(tmp_path, monkeypatch):
    pieces = some_rolls(2)
    paths = written(tmp_path, pieces)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.mid").symlink_to(paths[0])
    store = TokenStore("store", encoder=ENCODERS["seconds"])
    store.write(
        [
            "piece0.mid",
            "./piece0.mid",
            paths[0],
            "link.mid",
            Path("../") / tmp_path.name / "piece1.mid",
        ]
    )
    assert_holds(store, pieces, [os.path.realpath(path) for path in paths])
    # A store of an older release has the names as they were given.
    lines = (tmp_path / "store" / "pieces.jsonl").read_text()
    (tmp_path / "store" / "pieces.jsonl").write_text(lines.replace(str(tmp_path) + "/", "./"))
    assert TokenStore("store").sources[0].startswith("./")
    assert len(TokenStore("store").write(paths)) == 2


def test_nothing_is_written_where_nothing_is_new(tmp_path):
    paths = written(tmp_path, some_rolls(2))
    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"]).write(paths)
    before = {path: path.stat().st_mtime_ns for path in [store.path, *store.path.iterdir()]}
    store.write(paths).write([])
    assert {path: path.stat().st_mtime_ns for path in [store.path, *store.path.iterdir()]} == before


def test_a_store_repairs_where_its_encoder_does(tmp_path):
    (path,) = written(tmp_path, some_rolls(1))
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    encoder = pl.PianoRollEncoder(fs=10, on_error="repair", pitch_range=np.array([21, 108]))
    store = TokenStore(tmp_path / "store", encoder=encoder)
    message = (
        r"1 of 1 files were read in part \(see repaired_\): .*piece0\.mid: track 1: the length"
    )
    with pytest.warns(pl.DataLossWarning, match=message):
        store.write([path])
    ((name, lost),) = store.repaired_
    assert (name, "the length says" in lost) == (path, True)
    assert 0 < store[0].notes["start"].max() < len(some_rolls(1)[0]) // 2 + 5
    assert TokenStore(tmp_path / "store").encoder.pitch_range == [21, 108]
    with pytest.raises(pl.InvalidInputError, match="was written with"):
        TokenStore(tmp_path / "store", encoder=pl.PianoRollEncoder(fs=10))


def test_ctrl_c_keeps_what_was_written(tmp_path, monkeypatch):
    pieces = some_rolls(4)
    paths = written(tmp_path, pieces)
    read = PianoRollEncoder.read

    def interrupted(self, source):
        if source == paths[2]:
            raise KeyboardInterrupt
        return read(self, source)

    store = TokenStore(tmp_path / "store", encoder=ENCODERS["seconds"])
    with monkeypatch.context() as patch:
        patch.setattr(PianoRollEncoder, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.write(paths)
    assert_holds(TokenStore(tmp_path / "store"), pieces[:2], paths[:2])
    assert_holds(store.write(paths), pieces, paths)


# -------------------------------------------------------------------------------- in place of rolls


def base_of(array):
    """What holds the memory of an array in the end."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_tokens_are_read_from_the_disk_and_not_copied(corpus):
    store = corpus[2]
    dataset = WindowDataset(store, window_size=5)
    for array in (*store.tokens, store.chords, *dataset.tokens, dataset[0][0], *dataset[3]):
        assert isinstance(base_of(array), mmap.mmap)
        assert not array.flags.writeable
    for own, given_ in zip(dataset.tokens, store.tokens, strict=True):
        assert np.shares_memory(own, given_)
    taken = store.take([4, 1])
    assert np.shares_memory(taken.tokens[0], store.tokens[4])
    assert chords_in(taken) == [chords_in(store)[i] for i in (4, 1)]
    assert taken.tempo_maps == [store.tempo_maps[i] for i in (4, 1)]


@pytest.mark.parametrize("target", ["sequence", "next"])
def test_windows_of_a_store_are_those_of_its_tokens(corpus, target):
    store = corpus[2]
    keywords = {"window_size": 7, "stride": 3, "target": target, "end": 12_345}
    found = WindowDataset(store, **keywords)
    expected = WindowDataset([np.array(t) for t in store.tokens], **keywords)
    assert len(found) == len(expected) > 20
    for one, other in zip(found.to_numpy(), expected.to_numpy(), strict=True):
        assert np.array_equal(one, other)
    batches = found.batches(8, random_state=3), expected.batches(8, random_state=3)
    for one, other in zip(*batches, strict=True):
        assert np.array_equal(one.inputs, other.inputs)
        assert np.array_equal(one.targets, other.targets)
        assert np.array_equal(one.mask, other.mask)


def test_a_map_style_loader_reads_a_store(corpus):
    store = corpus[2]
    dataset = WindowDataset(store, window_size=9, stride=4)

    def loader(data, batch_size, rng):
        order = rng.permutation(len(data))
        for first in range(0, len(order), batch_size):
            samples = [data[i] for i in order[first : first + batch_size]]
            yield tuple(np.stack(column) for column in zip(*samples, strict=True))

    met = []
    for inputs, targets in loader(dataset, 8, np.random.default_rng(0)):
        assert inputs.shape == targets.shape and inputs.shape[1] == 9
        assert np.array_equal(inputs[:, 1:], targets[:, :-1])
        met += [(*x, y[-1]) for x, y in zip(inputs.tolist(), targets.tolist(), strict=True)]
    pieces = [t.tolist() for t in store.tokens]
    expected = reference.whole_windows(pieces, 9, 4, "sequence")
    assert sorted(met) == sorted((*x, y[-1]) for x, y in expected)


def test_a_tokenizer_learns_the_same_from_a_store(corpus):
    pieces, _, store = corpus
    one, other = ChordTokenizer().fit(store), ChordTokenizer().fit(pieces)
    assert np.array_equal(one.vocabulary_, other.vocabulary_)
    assert np.array_equal(one.counts_, other.counts_)
    assert (one.fs_, one.grid_) == (other.fs_, other.grid_)
    assert ChordTokenizer(max_tokens=9).fit(pieces[:2]).coverage(store) == pytest.approx(
        ChordTokenizer(max_tokens=9).fit(store.take([0, 1])).coverage(pieces)
    )
    sequences = one.transform(list(store))
    assert one.inverse_transform(sequences) == list(store)


def test_a_store_of_another_grid_is_refused(corpus):
    store = corpus[2]
    tokenizer = ChordTokenizer().fit([PianoRoll.from_notes([0], [1], [60], fs=7)])
    with pytest.raises(pl.InvalidInputError, match=r"X has fs=.*expected fs=7 on the grid of sec"):
        tokenizer.partial_fit(store)


def test_a_baseline_scores_a_store_as_its_rolls(corpus):
    pieces, _, store = corpus
    expected = NgramBaseline(order=2).fit(pieces[:4]).score(pieces[3:])
    model = NgramBaseline(order=2).fit(store.take(range(4)))
    assert model.score(store.take([3, 4, 5])) == pytest.approx(expected)
    whole = NgramBaseline(order=2).fit(store)
    assert whole.score(store) == pytest.approx(NgramBaseline(order=2).fit(pieces).score(pieces))


def tiny(**changes):
    settings = {"units": 8, "embedding": 6, "window_size": 24, "batch_size": 8, "max_epochs": 1}
    settings |= {"clock": "frames", "augment": 0}
    return SequenceGenerator(**settings, spell=False, recall=False, random_state=0, **changes)


def test_a_model_takes_a_store(corpus):
    pieces, _, store = corpus
    model, other = tiny().fit(store), tiny().fit(pieces)
    assert model.held_out_ == other.held_out_
    assert np.array_equal(model.tokenizer_.vocabulary_, other.tokenizer_.vocabulary_)
    assert model.history_["val_loss"][0] == pytest.approx(other.history_["val_loss"][0])
    assert model.score(store) == pytest.approx(model.score(pieces))
    np.testing.assert_allclose(model.score_samples(store), model.score_samples(pieces), rtol=1e-5)
    assert tiny().fit(store.take([0, 2, 3])).history_["epoch"] == [0, 1]
    validated = tiny().fit(store.take([0, 2]), X_val=store.take([1]))
    expected = tiny().fit([pieces[0], pieces[2]], X_val=[pieces[1]])
    assert validated.history_["val_loss"][0] == pytest.approx(expected.history_["val_loss"][0])


def test_a_model_learns_the_same_from_a_store(corpus):
    pieces, _, store = corpus
    one, other = tiny().fit(store), tiny().fit(pieces)
    for name in ("epoch", "loss", "val_loss", "accuracy", "learning_rate"):
        np.testing.assert_allclose(one.history_[name], other.history_[name], rtol=1e-5)
    assert one.generate(20, random_state=0) == other.generate(20, random_state=0)
