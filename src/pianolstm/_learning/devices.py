"""Several devices: batches are shared out among all of them, parameters are on each.

One process sees its own devices; after ``jax.distributed.initialize`` the processes see those of
all. Each process makes the same batches, from the same seed, and gives its devices their rows; so
the outcome is that of one device, but for the order in which floats are added up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"

Tree = TypeVar("Tree")

Shared: TypeAlias = Any
"""Array of a batch: as it was on one device, else JAX's, with rows on each device."""


@lru_cache(maxsize=1)
def mesh() -> Mesh:
    """All devices of all processes, in a row."""
    return Mesh(np.array(jax.devices()), (AXIS,))


def shared_out(tree: Tree) -> Tree:
    """Arrays of a batch, (n, …), each with as many rows on each device; filled up with zeros."""
    n_devices = jax.device_count()
    if n_devices == 1:
        return tree
    sharding = NamedSharding(mesh(), PartitionSpec(AXIS))

    def shared(a: np.ndarray) -> jax.Array:  # (n, …) -> (n, …), n a multiple of the devices
        of_device = -(-len(a) // n_devices)
        of_process = of_device * n_devices // jax.process_count()
        first = jax.process_index() * of_process
        a = np.pad(a, [(0, of_device * n_devices - len(a))] + [(0, 0)] * (a.ndim - 1))
        part = a[first : first + of_process]
        return jax.make_array_from_process_local_data(sharding, part, a.shape)

    return jax.tree.map(shared, tree)


def on_all(tree: Tree) -> Tree:
    """Arrays whole on each device."""
    if jax.device_count() == 1:
        return tree
    sharding = NamedSharding(mesh(), PartitionSpec())
    return jax.tree.map(
        lambda a: jax.make_array_from_process_local_data(sharding, np.asarray(a), np.shape(a)), tree
    )


def on_one(tree: Tree) -> Tree:
    """Arrays on one device of this process, which need the other processes no more."""
    if jax.device_count() == 1:
        return tree
    return jax.tree.map(lambda a: jax.device_put(np.asarray(a)), tree)


def over_devices(
    function: Callable[..., Tree], whole: tuple[object, ...], batch: tuple[object, ...]
) -> Tree:
    """Sums over a batch, each device adding up its own rows; to be called in a compiled function.

    Parameters
    ----------
    function : callable
        Called with the arrays of `whole` and rows of those of `batch`; returns a pytree of sums.
    whole, batch : tuple of pytrees
        What each device has all of, and what it has its rows of.
    """
    if jax.device_count() == 1:
        return function(*whole, *batch)
    all_of, rows_of = PartitionSpec(), PartitionSpec(AXIS)

    def on_each(*arrays: object) -> Tree:
        return jax.lax.psum(function(*arrays), AXIS)

    return jax.shard_map(
        on_each,
        mesh=mesh(),
        in_specs=(all_of,) * len(whole) + (rows_of,) * len(batch),
        out_specs=all_of,
        check_vma=False,
    )(*whole, *batch)


def is_first_process() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return jax.process_index() == 0


def agreed(value: int) -> int:
    """What the first process says; clocks and seeds differ, and all must take the same steps."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.array(value, np.uint32)))
