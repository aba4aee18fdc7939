"""The program that the library is a guest in: its JAX settings, and its processes.

Whatever the host has set, the library computes the same, and leaves the settings as they were: in
its own calls, in its own threads, it puts those that change what JAX computes or refuses to
JAX's defaults.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import ParamSpec, TypeAlias, TypeVar

import jax
import jax.experimental

from pianolstm.exceptions import PianoLSTMError

P = ParamSpec("P")
R = TypeVar("R")

Value: TypeAlias = bool | str | None
"""What a setting of JAX may be."""

Setter: TypeAlias = Callable[..., AbstractContextManager[object]]
"""Takes a value; gives a context that has the setting at it."""

# Before JAX 0.8 it was experimental.
_enable_x64: Setter = getattr(jax if hasattr(jax, "enable_x64") else jax.experimental, "enable_x64")  # noqa: B009

SETTINGS: dict[str, tuple[tuple[Value, ...], Setter, Value]] = {
    # name: (values that do no harm, context that sets it, what it is set to)
    "jax_enable_x64": ((False,), _enable_x64, False),
    "jax_numpy_rank_promotion": (("allow",), jax.numpy_rank_promotion, "allow"),
    "jax_numpy_dtype_promotion": (("standard",), jax.numpy_dtype_promotion, "standard"),
    "jax_threefry_partitionable": ((True,), jax.threefry_partitionable, True),
    "jax_debug_nans": ((False,), jax.debug_nans, False),
    "jax_debug_infs": ((False,), jax.debug_infs, False),
    "jax_disable_jit": ((False,), jax.disable_jit, False),
    **{
        f"jax_transfer_guard_{direction}": (
            (None, "allow"),
            getattr(jax, f"transfer_guard_{direction}"),
            "allow",
        )
        for direction in ("host_to_device", "device_to_host", "device_to_device")
    },
}
"""Settings of JAX under which the library would compute something else, or not at all."""


class _Here(threading.local):
    """Of each thread: the host's settings that `as_guest` has put others in place of."""

    replaced: dict[str, Value] = {}  # noqa: RUF012 (replaced, never changed)


_here = _Here()
_is_forked = False


def _after_fork() -> None:
    global _is_forked  # noqa: PLW0603 (a fact about the process)
    _is_forked = _is_forked or _jax_has_run()


def _jax_has_run() -> bool:
    """Whether JAX has threads of its own, which a fork leaves behind."""
    try:
        from jax._src.xla_bridge import backends_are_initialized
    except ImportError:  # not public; without it, take no chances
        return True
    return backends_are_initialized()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def as_guest() -> ExitStack:
    """A context in which JAX computes as the library expects, in this thread.

    Raises
    ------
    PianoLSTMError
        In a process that was forked after JAX had run: JAX would wait for ever for threads that
        the fork left behind.
    """
    if _is_forked:
        raise PianoLSTMError(
            "This process was forked after JAX had run, and JAX hangs in such a process. Start "
            'processes afresh: multiprocessing.get_context("spawn"), or '
            'ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")).'
        )
    stack = ExitStack()
    replaced = {}
    for name, (harmless, context, value) in SETTINGS.items():
        current = getattr(jax.config, name)
        if current not in harmless:
            stack.enter_context(context(value))
            replaced[name] = current
    if replaced:
        stack.callback(setattr, _here, "replaced", _here.replaced)
        _here.replaced = _here.replaced | replaced
    return stack


def as_host() -> ExitStack:
    """The reverse, within `as_guest`: the host's own settings, for its code that is called back."""
    stack = ExitStack()
    for name, value in _here.replaced.items():
        stack.enter_context(SETTINGS[name][1](value))
    return stack


def guest(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function run in `as_guest`."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with as_guest():
            return function(*args, **kwargs)

    return run
