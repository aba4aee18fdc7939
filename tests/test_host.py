"""A guest in the host's program: its JAX settings, its threads, its forks."""

from __future__ import annotations

import runpy
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pianolstm as pl
from pianolstm._jax import host as module
from pianolstm._jax.host import as_guest, as_host, guest

HOSTS = [
    ("jax_enable_x64", True),
    ("jax_numpy_rank_promotion", "raise"),
    ("jax_numpy_dtype_promotion", "strict"),
    ("jax_debug_nans", True),
    ("jax_transfer_guard", "disallow_explicit"),
    ("jax_threefry_partitionable", False),
]


# As in test_generator, so that programs are shared.
SMALL = {
    "clock": "frames",
    "augment": 0,
    "units": 8,
    "embedding": 6,
    "window_size": 24,
    "batch_size": 8,
    "dropout": 0.0,
    "max_epochs": 1,
    "random_state": 0,
}


@pytest.fixture
def host(request):
    """JAX set as a host program may have set it."""
    name, value = request.param
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    yield name, value
    assert getattr(jax.config, name) == value
    jax.config.update(name, before)


def main_calls(pieces, folder):
    """What the main calls give, one after the other."""
    model = pl.SequenceGenerator(**{**SMALL, "augment": 2}).fit(pieces)
    yield model.score(pieces)
    yield model.surprise(pieces[:1])[0]
    yield model.predict_proba(pieces[:1])[0]
    yield model.generate(20, n_pieces=9, prime=pieces[1][:9], random_state=0, n_candidates=2)
    stream = model.stream(prime=pieces[0][:8], random_state=1)
    yield [next(stream) for _ in range(4)]
    stream.set(temperature=0.5)
    yield next(model.stream(state=stream.state))
    yield next(stream.fork())
    yield next(stream.blocks(3))
    keep = np.ones(len(pieces[0]), bool)
    keep[16:24] = False
    yield model.infill(pieces[0], keep, n_particles=8, random_state=0)
    model.partial_fit(pieces[:2]).extend(pieces[2:])
    yield model.score(pieces)
    model.save(folder / "model.safetensors")
    yield pl.SequenceGenerator.load(folder / "model.safetensors").score(pieces)


@pytest.fixture(scope="module")
def undisturbed(pieces, tmp_path_factory):
    return list(main_calls(pieces, tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize("host", HOSTS, indirect=True, ids=[name for name, _ in HOSTS])
def test_main_calls_give_the_same_whatever_the_host_has_set(host, pieces, undisturbed, tmp_path):
    results = list(main_calls(pieces, tmp_path))
    assert len(results) == len(undisturbed)
    for got, expected in zip(results, undisturbed, strict=True):
        if isinstance(expected, (float, np.ndarray)):
            np.testing.assert_allclose(got, expected, rtol=1e-6)
        else:
            assert got == expected


@pytest.mark.parametrize("host", HOSTS[:1], indirect=True)
def test_callbacks_run_under_the_settings_of_the_host(host, pieces):
    class Wide(pl.callbacks.Callback):
        dtypes: list[str] = []  # noqa: RUF012 (one list for the class)

        def note(self, *_):
            self.dtypes.append(str(jnp.zeros(1).dtype))

        on_fit_begin = on_batch_end = on_epoch_end = on_fit_end = note

    pl.SequenceGenerator(**SMALL, callbacks=[Wide()]).fit(pieces)
    assert len(Wide.dtypes) >= 4
    assert set(Wide.dtypes) == {"float64"}


@pytest.mark.parametrize("host", HOSTS[:1], indirect=True)
def test_guests_and_hosts_take_turns(host):
    @guest
    def width():
        return jnp.zeros(1).dtype.itemsize

    assert (jnp.zeros(1).dtype.itemsize, width()) == (8, 4)
    with as_guest():
        with as_host():
            assert (jnp.zeros(1).dtype.itemsize, width()) == (8, 4)
        assert width() == jnp.zeros(1).dtype.itemsize == 4
    with as_host():  # outside of any guest nothing is replaced
        assert jnp.zeros(1).dtype.itemsize == 8
    found = []
    thread = threading.Thread(target=lambda: found.extend([jnp.zeros(1).dtype.itemsize, width()]))
    thread.start()
    thread.join()
    assert found == [8, 4]


def test_every_setting_has_a_harmless_default():
    # As users have them, not as in these tests, which are under stricter ones.
    for name, (harmless, _, value) in runpy.run_path(module.__file__)["SETTINGS"].items():
        assert value in harmless
        assert getattr(jax.config, name) in harmless, name


FORKED = """
import multiprocessing, sys, warnings
import pianolstm as pl
warnings.simplefilter("ignore")  # Python and JAX warn of forks
rolls = pl.datasets.load_chorales("train")[:2]
small = SMALL
if sys.argv[1] == "ours":
    model = pl.SequenceGenerator(**small).fit(rolls)
else:  # the host's own JAX has run, ours has not
    import jax.numpy as jnp
    jnp.zeros(3) + 1
    from pianolstm import SequenceGenerator
    model = None

def child(_):
    told = []
    calls = [lambda: pl.SequenceGenerator(**small).fit(rolls)]
    if model is not None:
        stream = model.stream
        calls += [lambda: model.generate(8), lambda: model.score(rolls), lambda: stream()]
    for call in calls:
        try:
            call()
            told.append("worked")
        except pl.exceptions.PianoLSTMError as error:
            told.append("spawn" in str(error))
    return told

with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map_async(child, [0]).get(timeout=60)[0])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize(("who", "expected"), [("ours", [True] * 4), ("host", [True])])
def test_a_forked_child_says_at_once_to_spawn(who, expected):
    closed = {**SMALL, "spell": False, "recall": False}
    ran = subprocess.run(
        [sys.executable, "-c", FORKED.replace("SMALL", repr(closed)), who],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(expected)
