"""The examples, each run as a user would run it, at small size."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest

import pianolstm as pl
from pianolstm._model.config import ARCHITECTURES

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments, cwd):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart(tmp_path):
    out = run("quickstart.py", "--seconds", 20, cwd=tmp_path)
    result = json.loads(out.splitlines()[-1])
    assert set(result) == {
        "val_nats_before",
        "val_nats_after",
        "val_nats_unigram",
        "val_nats_bigram",
        "seconds",
        "midi",
        "notes",
    }
    assert result["val_nats_after"] < result["val_nats_before"]
    train, held_out = (pl.datasets.load_chorales(s) for s in ("train", "validation"))
    for order, name in ((1, "val_nats_unigram"), (2, "val_nats_bigram")):
        score = pl.NgramBaseline(order=order).fit(train).score(held_out)
        assert result[name] == pytest.approx(-score, abs=1e-3)
    midi = pretty_midi.PrettyMIDI(str(tmp_path / result["midi"]))
    assert sum(len(i.notes) for i in midi.instruments) == result["notes"] > 0
    assert midi.get_end_time() == pytest.approx(48, abs=0.1)
    assert (tmp_path / "quickstart.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "quickstart.wav").read_bytes()[:4] == b"RIFF"
    assert "generated" in out and "nats per frame" in out


def test_from_folder(tmp_path):
    folder = tmp_path / "music" / "bach"
    folder.mkdir(parents=True)
    for i, roll in enumerate(pl.datasets.load_chorales("train")[:10]):
        roll.to_midi().write(str(folder / f"{i}.mid"))
    (folder / "broken.mid").write_bytes(b"MThd, but not really")
    out = run(
        "from_folder.py",
        tmp_path / "music",
        *("--arch", "hybrid", "--fs", 8, "--minutes", 0.15, "--units", 24, "--seconds", 10),
        cwd=tmp_path,
    )
    assert "10 pieces" in out and "left out file" in out
    nats = [
        float(line.split("held out ")[1].split()[0])
        for line in out.splitlines()
        if line.startswith("epoch")
    ]
    assert len(nats) > 1 and nats[-1] < nats[0]
    notes = pl.read_notes(tmp_path / "new.mid")
    assert notes.seconds == pytest.approx(10, abs=0.1)
    model = pl.SequenceGenerator.load(tmp_path / "new.safetensors")
    assert model.arch == "hybrid" and model.fs_ == 8


def test_play(tmp_path):
    rolls = pl.datasets.load_chorales("train")[:6]
    # As in test_recall, so that programs are shared.
    model = pl.SequenceGenerator(
        tokenizer=pl.ChordTokenizer(),
        units=8,
        embedding=6,
        window_size=16,
        max_epochs=1,
        early_stopping=False,
        clock="frames",
        augment=0,
        random_state=0,
    ).fit(rolls)
    model.save(tmp_path / "model.safetensors")
    out = run("play.py", "model.safetensors", "--seconds", 8, "--seed", 3, cwd=tmp_path)
    assert "written to played.mid" in out
    notes = pl.read_notes(tmp_path / "played.mid")
    stream = model.stream(top_p=0.95, random_state=3)
    n_frames = int(np.ceil(8 / stream.seconds_per_frame))
    music = model.generate(n_frames, top_p=0.95, random_state=3)
    assert len(notes.pitch) == len(music.notes)
    np.testing.assert_allclose(
        np.sort(notes.start), np.sort(music.notes["start"]) * stream.seconds_per_frame, atol=2e-3
    )


def test_fidelity(tmp_path):
    midi = pretty_midi.PrettyMIDI()
    midi.instruments = [pretty_midi.Instrument(0)]
    # The second note follows the first at once: a binary roll can't tell.
    for start, end, pitch in ((0.0, 1.0, 60), (1.0, 2.0, 60), (0.5, 1.5, 64), (3.0, 3.25, 67)):
        midi.instruments[0].notes.append(pretty_midi.Note(80, pitch, start, end))
    midi.write(str(tmp_path / "piece.mid"))
    out = run("fidelity.py", "piece.mid", cwd=tmp_path)
    rows = {row[0]: [float(x) for x in row[1:]] for row in map(str.split, out.splitlines()[2:-1])}
    recall, published, onset_ms, again_kept = rows["20"]
    assert (recall, published, again_kept) == (1.0, 0.75, 1.0)
    assert onset_ms < 0.5
    assert (tmp_path / "fidelity.png").read_bytes()[:4] == b"\x89PNG"


def test_compare_architectures(tmp_path):
    arguments = ("--minutes", 0.06, "--pieces", 6, "--units", 16, "--window-size", 32)
    # All five take their time to compile, and none is treated in a way of its own.
    out = run("compare_architectures.py", *arguments, "--arch", "stacked", "lstm", cwd=tmp_path)
    table, distances = out.split("\n\n")
    rows = [line.split() for line in table.splitlines()]
    assert [row[0] for row in rows[1:]] == ["stacked", "lstm"]
    parameters = {row[0]: int(row[1].replace(",", "")) for row in rows[1:]}
    assert parameters["stacked"] > parameters["lstm"]
    assert all(float(row[4]) > 0 for row in rows[1:])
    assert len(distances.splitlines()) == 2 + 3 + 4  # what each report adds
    by_default = runpy.run_path(str(EXAMPLES / "compare_architectures.py"))["ARCHITECTURES"]
    assert by_default == ("lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked") == ARCHITECTURES


@pytest.mark.slow
def test_study(tmp_path):
    out = run(
        "study.py",
        *("--minutes", 0.1, "--sweep", 4, "--pieces", 80, "--units", 16),
        cwd=tmp_path,
    )
    ranking = json.loads((tmp_path / "study" / "ranking.json").read_text())
    assert set(ranking) == set(ARCHITECTURES)
    assert all(0.9 < row["auc"] <= 1 for row in ranking.values())  # nothing is learned so fast
    assert "real music: distance" in out
    for name in ("1_fidelity", "2_window_and_fs", "3_loss", "4_pitches", "5_music", "6_ranking"):
        assert (tmp_path / "study" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "study" / "listening" / "page" / "index.html").exists()
