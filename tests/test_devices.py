"""Several devices and several processes: what one device would have come to."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

import pianolstm as pl

EXAMPLE = Path(__file__).parents[1] / "examples" / "several_hosts.py"

SCRIPT = """
import sys
import jax
import numpy as np
import pianolstm as pl

model = pl.SequenceGenerator(**SETTINGS).fit(pl.datasets.load_chorales("train")[:8])
music = model.generate(30, random_state=1)
np.savez(
    sys.argv[1],
    n_devices=jax.device_count(),
    music=np.asarray(music),
    bias=model._model.params["bias"],
    **{key: model.history_[key] for key in ("epoch", "loss", "val_loss", "accuracy")},
)
"""

SETTINGS = {
    "clock": "frames",
    "arch": "hybrid_stacked",
    "units": 8,
    "embedding": 6,
    "window_size": 24,
    "batch_size": 12,  # 8 devices fill it up to 16
    "max_epochs": 2,
    "augment": 2,
    "time_budget": 1e6,
    "spell": False,  # the two processes spell
    "recall": False,
    "random_state": 0,
}


def test_eight_devices_learn_what_one_learns(tmp_path):
    flags = "--xla_force_host_platform_device_count=8"
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.replace("SETTINGS", repr(SETTINGS)), tmp_path / "found.npz"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )
    model = pl.SequenceGenerator(**SETTINGS).fit(pl.datasets.load_chorales("train")[:8])
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors[-2000:]
    with np.load(tmp_path / "found.npz") as found:
        assert found["n_devices"] == 8
        for key in ("epoch", "loss", "val_loss", "accuracy"):
            np.testing.assert_allclose(found[key], model.history_[key], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["bias"], model._model.params["bias"], rtol=1e-4, atol=1e-5)
        assert np.array_equal(found["music"], model.generate(30, random_state=1))


def test_two_processes_learn_what_one_learns(tmp_path):
    """As the example does it."""
    paths = []
    for i, roll in enumerate(pl.datasets.load_chorales("train")[:8]):
        paths.append(tmp_path / f"{i}.mid")
        roll.to_midi().write(str(paths[-1]))
    encoder = pl.PianoRollEncoder(fs=4, grid="beats")
    store = pl.TokenStore(tmp_path / "store", encoder=encoder).write(paths)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Of three windows one device has two, the other one.
    options = f"--at 127.0.0.1:{port} --processes 2 --epochs 2 --verbose 0 --batch-size 3".split()
    options += ["--arch", "lstm"]  # one layer compiles sooner; above there are two
    names = [tmp_path / f"{i}.safetensors" for i in range(2)]
    both = [
        subprocess.Popen(
            [sys.executable, EXAMPLE, store.path, name, *options, "--number", str(i)],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, name in enumerate(names)
    ]
    one = pl.SequenceGenerator(batch_size=3, max_epochs=2, random_state=0).fit(store)
    for running in both:
        _, errors = running.communicate(timeout=300)
        assert running.returncode == 0, errors[-2000:]
    assert [name.exists() for name in names] == [True, False]
    two = pl.SequenceGenerator.load(names[0])
    for key in ("epoch", "loss", "val_loss", "accuracy"):
        np.testing.assert_allclose(two.history_[key][:2], one.history_[key][:2], rtol=1e-6)
        # Differences of rounding grow a hundredfold in an epoch, where a ReLU is about to open: two
        # devices of one process come to the same.
        np.testing.assert_allclose(two.history_[key], one.history_[key], rtol=1e-3)
    assert np.array_equal(*(m.generate(30, random_state=1) for m in (one, two)))
