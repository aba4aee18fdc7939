"""The chorales, against their table and music known from elsewhere; folders of files."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

import pianolstm as pl
import reference
from pianolstm import datasets

SPLITS = ("train", "validation", "test")
NOTE = reference.midi_bytes([reference.note_events([(0, 480, 60, 64)])])
LONG = reference.midi_bytes([reference.note_events([(0, 960, 72, 64)])])


@pytest.fixture(scope="module")
def table():
    with np.load(files("pianolstm") / "data" / "chorales.npz") as data:
        return {key: data[key] for key in data.files}


def test_chorales_equal_their_table(table):
    rolls = datasets.load_chorales()
    assert len(rolls) == len(table["name"]) > 350
    notes = zip(*(table[k].tolist() for k in ("start", "duration", "pitch")), strict=True)
    for i, roll in enumerate(rolls):
        expected = [next(notes) for _ in range(table["n_notes"][i])]
        found = roll.notes
        duration = found["end"] - found["start"]
        columns = (found["start"].tolist(), duration.tolist(), found["pitch"].tolist())
        assert list(zip(*columns, strict=True)) == expected
        assert len(roll) == table["n_frames"][i]
        assert (roll.fs, roll.grid) == (4, "beats")
    assert next(notes, None) is None


def test_chorales_begin_as_in_the_scores(table):
    names = table["name"].tolist()
    rolls = datasets.load_chorales()
    # BWV 269: an upbeat of G major, then the bass an octave higher and the soprano held.
    first = rolls[names.index("bwv269")].velocity[[0, 3, 4]]
    assert [np.flatnonzero(f).tolist() for f in first] == [
        [43, 59, 62, 67],
        [43, 59, 62, 67],
        [55, 59, 62, 67],
    ]
    # BWV 66.6: the soprano's upbeat of two eighths, C sharp and B.
    first = rolls[names.index("bwv66.6")]
    soprano = [int(np.flatnonzero(f).max()) for f in first.velocity[:8]]
    assert soprano == [73, 73, 71, 71, 69, 69, 69, 69]


def test_the_parts_are_the_whole(table):
    everything = datasets.load_chorales("all")
    parts = {split: datasets.load_chorales(split) for split in SPLITS}
    assert sum(map(len, parts.values())) == len(everything)
    queues = {split: iter(part) for split, part in parts.items()}
    for i, roll in zip(table["split"], everything, strict=True):
        assert next(queues[SPLITS[i]]) == roll
    assert len(parts["train"]) > 5 * len(parts["test"]) > 100


def test_chorales_have_one_tempo():
    tempo = datasets.load_chorales("test")[0].tempo_map
    assert tempo == pl.TempoMap.constant(600_000)


def test_no_chorale_is_in_two_parts_in_any_transposition():
    def intervals(roll):
        notes = roll.notes
        return (notes["start"].tobytes(), np.diff(notes["pitch"].astype(int)).tobytes())

    parts = [{intervals(r) for r in datasets.load_chorales(split)} for split in SPLITS]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_an_unknown_part():
    message = r"split must be one of \('train', 'validation', 'test'\) or \"all\"; got 'valid'"
    with pytest.raises(pl.InvalidInputError, match=message):
        datasets.load_chorales("valid")


# ---------------------------------------------------------------------------------------- folders


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "c.mid").mkdir()  # a folder, whatever its name
    (tmp_path / "b" / "2.MID").write_bytes(LONG)
    (tmp_path / "a.midi").write_bytes(NOTE)
    (tmp_path / "d.mid").write_bytes(NOTE)
    (tmp_path / "notes.txt").write_bytes(LONG)
    rolls = datasets.load_folder(tmp_path)
    assert [(len(r), r.notes["pitch"].tolist()) for r in rolls] == [
        (10, [60]),
        (20, [72]),
        (10, [60]),
    ]
    assert datasets.load_folder(str(tmp_path / "b")) == rolls[1:2]


def test_a_folder_is_read_with_the_encoder_given(tmp_path):
    (tmp_path / "a.mid").write_bytes(LONG)
    (roll,) = datasets.load_folder(tmp_path, pl.PianoRollEncoder(fs=6, grid="beats"))
    assert (roll.fs, roll.grid, len(roll)) == (6, "beats", 12)


def test_broken_files_of_a_folder_are_left_out_with_a_warning(tmp_path):
    (tmp_path / "a.mid").write_bytes(NOTE)
    (tmp_path / "b.mid").write_bytes(b"no music")
    with pytest.warns(pl.DataLossWarning, match="1 of 2 files could not be read"):
        assert len(datasets.load_folder(tmp_path)) == 1
    with pytest.raises(pl.MidiError, match=r"b\.mid"):
        datasets.load_folder(tmp_path, pl.PianoRollEncoder())
    (tmp_path / "a.mid").unlink()
    with pytest.raises(pl.MidiError, match=r"None of the 1 files could be read.*b\.mid"):
        datasets.load_folder(tmp_path)


def test_a_folder_tells_which_roll_is_of_which_file(tmp_path):
    for name, data in (
        ("a.kar", NOTE),
        ("b.mid", b"<html>"),
        ("c.rmi", LONG),
        ("d.mid", LONG[:-9]),
    ):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "e.mid").symlink_to(tmp_path / "a.kar")  # one file, one piece
    with pytest.warns(pl.DataLossWarning, match=r"2 of 4 files .*b\.mid: expected a MIDI file"):
        found = datasets.load_folder(tmp_path)
    assert isinstance(found, list)
    assert [path.name for path in found.paths] == ["a.kar", "c.rmi"]
    assert [roll.notes["pitch"][0] for roll in found] == [60, 72]
    assert [path.name for path, _ in found.skipped] == ["b.mid", "d.mid"]
    assert "cut short" in str(found.skipped[1][1])
    with pytest.warns(pl.DataLossWarning, match=r"1 of 4 files .* 1 of 4 files were read in part"):
        found = datasets.load_folder(tmp_path, pl.PianoRollEncoder(on_error="repair"))
    assert [path.name for path in found.paths] == ["a.kar", "c.rmi", "d.mid"]
    assert [path.name for path, _ in found.repaired] == ["d.mid"]


def test_a_folder_of_nothing(tmp_path):
    (tmp_path / "notes.txt").write_bytes(NOTE)
    with pytest.raises(
        pl.MidiError, match=r"expected MIDI files \(.mid, .midi, .rmi, .kar\); there are"
    ):
        datasets.load_folder(tmp_path)
    for path in (tmp_path / "gone", tmp_path / "notes.txt"):
        with pytest.raises(pl.MidiError, match=rf"{path.name}: expected a folder .*no such folder"):
            datasets.load_folder(path)
