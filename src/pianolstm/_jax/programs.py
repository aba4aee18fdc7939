"""Compiled programs: a bounded number of them, shared by all models of a size.

What JAX compiles stays as long as the function that it compiled, some hundred megabytes for each
size of network, and thousands of memory maps, of which Linux allows a process 65,530. A search over
`units` would come to that. So each program here is a function of its own, in a cache that drops
those that were used least recently, and those of sizes that no model has any more.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import update_wrapper
from typing import Any, TypeAlias, TypeVar

import jax

from pianolstm._jax.host import as_guest

R = TypeVar("R")

Program: TypeAlias = Callable[..., Any]
"""A compiled function of arrays; takes NumPy's too."""

MAX_WEIGHT = 120
"""Weight of the programs that are kept, small ones counting 1 each."""

LARGE_PROGRAM = 8
"""Weight of a training step, and of the program that writes."""

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
"""Of glibc, which keeps freed memory that lies between blocks in use; compilers leave much."""

if _malloc_trim is not None:
    _malloc_trim.argtypes = [ctypes.c_size_t]

MAX_UNUSED_SIZES = 2
"""Sizes that no model has, of which programs are kept: the next fold or clone may have them."""


def _give_back() -> None:
    """Return the memory of what was dropped to the system."""
    gc.collect()  # JAX's own tables refer to programs in circles
    if _malloc_trim is not None:
        _malloc_trim(0)


class Size:
    """A size of network; as long as a model holds it, its programs are in use."""

    __slots__ = ("__weakref__", "key")

    def __init__(self, key: Hashable) -> None:
        self.key = key

    def __reduce__(self) -> tuple[Callable[[Hashable], Size], tuple[Hashable]]:
        return hold, (self.key,)  # copies and pickles hold the same size


class Programs:
    """The cache. Least recently used first.

    Parameters
    ----------
    max_weight : int
        Weight of the programs kept.
    """

    def __init__(self, max_weight: int) -> None:
        self.max_weight = max_weight
        self._programs: OrderedDict[Hashable, tuple[Program, int, Hashable]] = OrderedDict()
        self._sizes: weakref.WeakValueDictionary[Hashable, Size] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._programs)

    def hold(self, key: Hashable) -> Size:
        """The size by its key; who keeps what this returns has models of the size."""
        with self._lock:
            return self._sizes.setdefault(key, Size(key))

    def get(
        self, key: Hashable, size: Hashable, weight: int, make: Callable[[], Program]
    ) -> Program:
        """The program, made if it is not there."""
        with self._lock:
            found = self._programs.get(key)
            if found is not None:
                self._programs.move_to_end(key)
                return found[0]
            program = make()
            self._programs[key] = program, weight, size
            dropped = self._drop()
        if dropped:
            _give_back()
        return program

    def clear(self) -> None:
        """Drop all programs."""
        with self._lock:
            self._programs.clear()
        _give_back()

    def _drop(self) -> bool:
        """Drop what is too much."""
        before = len(self._programs)
        newest_first = [size for _, _, size in reversed(self._programs.values())]
        in_use = set(self._sizes.keys()) | {newest_first[0]}
        unused = [size for size in dict.fromkeys(newest_first) if size not in in_use]
        for size in unused[MAX_UNUSED_SIZES:]:
            for key in [k for k, (_, _, of) in self._programs.items() if of == size]:
                del self._programs[key]
        while sum(weight for _, weight, _ in self._programs.values()) > self.max_weight:
            self._programs.popitem(last=False)
        return len(self._programs) < before


programs = Programs(MAX_WEIGHT)
"""Those of this process."""


def hold(key: Hashable) -> Size:
    """The size by its key, of `programs`."""
    return programs.hold(key)


def _shape(argument: object) -> tuple[object, ...] | None:
    """Shapes of an array or of a tuple of arrays; None of what follows from the settings."""
    if isinstance(argument, tuple):
        return tuple(getattr(a, "shape", None) for a in argument)
    return getattr(argument, "shape", None)


def program(
    *, n_static: int = 1, weight: int = 1
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Compile a function for each size of network; its first argument is the network's config.

    Parameters
    ----------
    n_static : int, default=1
        How many of the first arguments are settings, which are hashable and part of the program.
    weight : int, default=1
        How much of the cache a program takes.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        def run(*args: Any) -> R:
            settings, arrays = args[:n_static], args[n_static:]
            # A program has one shape of each array, so that none is kept for the sake of another.
            # (Parameters and states follow from the settings and from the arrays beside them.)
            shapes = tuple(_shape(a) for a in arrays)

            def make() -> Program:
                # A function of its own, so that JAX keeps what it compiled as long as this.
                def compiled(*arrays: object) -> R:
                    return function(*settings, *arrays)

                return jax.jit(update_wrapper(compiled, function))

            with as_guest():
                compiled = programs.get(
                    (function, settings, shapes),
                    settings[0].size,
                    weight,
                    make,
                )
                return compiled(*arrays)

        return update_wrapper(run, function)

    return decorate
