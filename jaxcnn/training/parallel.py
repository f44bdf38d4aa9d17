"""Data parallelism: a step under `jit`, `jit(shard_map)` over a mesh, or `pmap`.

All three compute the same: the batch is split evenly by example over the mesh axis "data", the
state and the resident set are replicated on every device, and the metrics cover the whole batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from jaxcnn._checks import one_of
from jaxcnn.runtime import compilation, distributed
from jaxcnn.training.step import RESIDENT, multi_step

AXIS = "data"
MODES = ("jit", "shard_map", "pmap")
BN_SYNC = ("local", "global")


def make_mesh(devices: int | None = None, available: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes a mesh with the single axis "data".

    With several processes the mesh is ordered by process, so the shard of each process is
    contiguous.

    Args:
      devices: number of devices to use, by default all; with several processes it must be all.
      available: the devices to choose from, such as those of a topology; by default those that JAX
        sees.

    Returns:
      The mesh.

    Raises:
      ValueError: this many devices are not available, or several processes do not use all devices.
    """
    place = "this machine" if available is None else "the slice"
    available = jax.devices() if available is None else available
    present, processes = len(available), process_count(available)
    devices = present if devices is None else devices
    if processes > 1 and devices != present:
        raise ValueError(
            f"config.train.devices is {devices}; with {processes} processes it must be all "
            f"{present} devices"
        )
    if not 1 <= devices <= present:
        raise ValueError(f"config.train.devices is {devices}; {place} has {present}")
    if processes > 1:
        ordered = sorted(available, key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(ordered), (AXIS,), axis_types=(AxisType.Auto,))
    return jax.make_mesh(
        (devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:devices]
    )


def process_count(devices: Sequence[jax.Device]) -> int:
    """Returns the number of processes that the devices belong to."""
    return len({device.process_index for device in devices})


def axis_name(mode: str) -> str | None:
    """Returns the `axis_name` of a step for a mode. Raises ValueError for an unknown mode."""
    return None if one_of("parallel", mode, MODES) == "jit" else AXIS


def batch_norm_axis(mode: str, bn_sync: str, bn_group: int | None = None) -> str | None:
    """Returns the `axis_name` of a model, the axis over which BatchNorm averages.

    Args:
      mode: one of `MODES`.
      bn_sync: "global" for statistics of the whole batch, "local" for those of a device's shard.
      bn_group: size of BatchNorm groups, which may span several devices; replaces `bn_sync`.

    Returns:
      The axis, or None if BatchNorm does not communicate.

    Raises:
      ValueError: `mode` or `bn_sync` is unknown.
    """
    one_of("bn_sync", bn_sync, BN_SYNC)
    return axis_name(mode) if bn_sync == "global" or bn_group is not None else None


def batch_norm_examples(
    batch_size: int, devices: int, accumulate: int, bn_sync: str, bn_group: int | None
) -> int:
    """Returns the number of examples in each set of BatchNorm statistics.

    Raises:
      ValueError: `accumulate` does not divide a device's shard, or the microbatches cannot be
        divided into groups of `bn_group` examples.
    """
    shard = batch_size // devices
    if shard % accumulate:
        raise ValueError(
            f"config.train.accumulate is {accumulate}; it must divide a device's {shard} examples"
        )
    microbatch = shard // accumulate
    if bn_group is None:
        return microbatch * devices if bn_sync == "global" else microbatch
    spans_devices = accumulate == 1 and bn_group % microbatch == 0 and batch_size % bn_group == 0
    if not (microbatch % bn_group == 0 or spans_devices):
        valid_sizes = [
            size
            for size in range(1, (microbatch if accumulate > 1 else batch_size) + 1)
            if microbatch % size == 0 or (size % microbatch == 0 and batch_size % size == 0)
        ]
        raise ValueError(
            f"config.train.bn_group is {bn_group}; with {microbatch} examples at once on each of "
            f"{devices} devices it must be one of {', '.join(map(str, valid_sizes))}"
        )
    return bn_group


def parallelize(
    step: Callable,
    mode: str,
    mesh: Mesh,
    *,
    donate: bool = False,
    steps: int = 1,
    deterministic: bool = False,
) -> Callable:
    """Compiles a train or evaluation step for the devices of a mesh.

    Args:
      step: (state, batch, key) to (state, metrics) or (state, batch) to metrics, made with
        `axis_name(mode)`.
      mode: "jit" (one device), "shard_map", or "pmap" (one process).
      mesh: of `make_mesh`.
      donate: whether the new state reuses the memory of the old state, which becomes invalid.
      steps: number of train steps per call, over stacked batches; see `step.multi_step`.
      deterministic: see `compilation.jit`; not supported with "pmap".

    Returns:
      A function of the same arguments, which must be placed by `place_state` and `place_batch`. It
      has `.lower(...).compile()`.

    Raises:
      ValueError: the mode is unknown, "jit" is used on several devices, or "pmap" with several
        processes or with `deterministic`.
    """
    if axis_name(mode) is None and mesh.size > 1:
        raise ValueError(f"parallel is 'jit' on {mesh.size} devices; it must be 'shard_map' there")
    processes = process_count(list(mesh.devices.flat))
    if mode == "pmap" and processes > 1:
        raise ValueError(
            f"parallel is 'pmap' with {processes} processes; it must be 'shard_map' there"
        )
    if mode == "pmap" and deterministic:
        raise ValueError("deterministic is set; parallel must be 'jit' or 'shard_map', not 'pmap'")
    if steps > 1:
        step = multi_step(step, steps)
    donated = (0,) if donate else ()
    options: Any = {
        "donate_argnums": donated,
        "deterministic": deterministic,
        "platform": mesh.devices.flat[0].platform,
    }
    if mode == "pmap":
        return _pmap(step, mesh, donated, stacked=steps > 1)
    if mode == "jit":
        return compilation.jit(step, **options)

    def sharded(state, batch, *key):
        specs = {name: _spec(name, steps > 1) for name in batch}
        # With check_vma=True the gradients of replicated parameters are already summed over the
        # devices, and the mean in the step would make them too large by the number of devices.
        return jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(PartitionSpec(), specs, *(PartitionSpec() for _ in key)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )(state, batch, *key)

    return compilation.jit(sharded, **options)


def place_state(state: Any, mesh: Mesh) -> Any:
    """Replicates the state on every device of the mesh.

    The result is a copy: donating it to a step does not affect the original.
    """
    if distributed.count() > 1:
        return jax.tree.map(lambda leaf: _on_every_host(leaf, mesh), state)
    state = jax.tree.map(lambda leaf: leaf.copy(), state)
    return jax.device_put(state, sharding(mesh))


def place_batch(batch: Mapping[str, Any], mesh: Mesh, *, stacked: bool = False) -> dict[str, Any]:
    """Places a batch on the mesh: split by example, the resident set replicated.

    Every process passes the whole batch, and its devices receive their shards. If each process has
    only its shard, use `place_shard`.

    Args:
      batch: name to array.
      mesh: of `make_mesh`.
      stacked: whether the arrays have a leading axis of steps.

    Returns:
      The batch on the devices.

    Raises:
      ValueError: the examples cannot be split evenly.
    """
    for name, value in batch.items():
        if name not in RESIDENT:
            check_batch_size(np.shape(value)[int(stacked)], mesh.size)
    targets = {name: sharding(mesh, _spec(name, stacked)) for name in batch}
    if distributed.count() > 1:
        return {name: _from_whole(value, targets[name]) for name, value in batch.items()}
    return {name: jax.device_put(value, targets[name]) for name, value in batch.items()}


def abstract_state(shapes: Any, mesh: Mesh) -> Any:
    """Returns the shapes, types and placement of `place_state`, without its computation."""
    return jax.tree.map(lambda leaf: _abstract(leaf, sharding(mesh)), shapes)


def abstract_batch(
    batch: Mapping[str, Any], mesh: Mesh, *, stacked: bool = False
) -> dict[str, Any]:
    """Returns the shapes, types and placement of `place_batch`, without placing anything.

    Args:
      batch: name to array, or anything else with a shape and a dtype.
      mesh: see `place_batch`.
      stacked: see `place_batch`.
    """
    return {
        name: _abstract(value, sharding(mesh, _spec(name, stacked)))
        for name, value in batch.items()
    }


def _abstract(leaf: Any, target: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=target)


def place_shard(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """Like `place_batch`, but each process passes only the examples of its devices."""
    if distributed.count() == 1:
        return place_batch(batch, mesh)
    target = sharding(mesh, PartitionSpec(AXIS))
    return {
        name: jax.make_array_from_process_local_data(target, value) for name, value in batch.items()
    }


def on_this_host(tree: Any) -> Any:
    """Fetches a replicated tree, such as a state, for computations within one process."""
    return jax.device_get(tree) if distributed.count() > 1 else tree


def sharding(mesh: Mesh, spec: PartitionSpec = PartitionSpec()) -> Sharding:  # noqa: B008
    """Returns the sharding of an array on the mesh, by default replicated.

    On one device it does not refer to the mesh: tracing would propagate the mesh, and jax 0.7 has
    no batching rule for convolutions with one.
    """
    if mesh.size == 1:
        return SingleDeviceSharding(mesh.devices.flat[0])
    return NamedSharding(mesh, spec)


def check_batch_size(batch_size: int, devices: int, name: str = "batch size") -> None:
    """Raises ValueError, which names the field, unless devices can share the examples evenly."""
    if batch_size < 1 or batch_size % devices:
        below = batch_size // devices * devices
        sizes = [str(n) for n in (below, below + devices) if n > 0]
        raise ValueError(
            f"{name} is {batch_size}, which cannot be split evenly over {devices} devices; the "
            f"nearest valid size{'s are' * (len(sizes) > 1) or ' is'} {' and '.join(sizes)}"
        )


def _from_whole(value: Any, target: Sharding) -> jax.Array:
    whole = np.asarray(value)
    return jax.make_array_from_callback(whole.shape, target, lambda index: whole[index])


def _on_every_host(leaf: jax.Array, mesh: Mesh) -> jax.Array:
    if not leaf.is_fully_addressable:
        return leaf.copy()
    target = sharding(mesh)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _from_whole(jax.random.key_data(leaf), target)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return _from_whole(leaf, target)


def _spec(name: str, stacked: bool) -> PartitionSpec:
    if name in RESIDENT:
        return PartitionSpec()
    return PartitionSpec(None, AXIS) if stacked else PartitionSpec(AXIS)


def _pmap(step: Callable, mesh: Mesh, donated: tuple[int, ...], *, stacked: bool) -> Callable:
    axis = int(stacked)

    @functools.cache
    def compiled(names, keys):
        in_axes = (None, {n: None if n in RESIDENT else axis for n in names}, *(None,) * keys)
        return jax.pmap(
            step,
            AXIS,
            in_axes=in_axes,
            out_axes=None,
            devices=list(mesh.devices.flat),
            donate_argnums=donated,
        )

    def split(name, value):
        if name in RESIDENT:
            return value
        shape = np.shape(value)
        check_batch_size(shape[axis], mesh.size)
        return value.reshape(*shape[:axis], mesh.size, -1, *shape[axis + 1 :])

    def arguments(state, batch, *key):
        return state, {name: split(name, value) for name, value in batch.items()}, *key

    def call(state, batch, *key):
        return compiled(tuple(batch), len(key))(*arguments(state, batch, *key))

    def lower(state, batch, *key):
        return compiled(tuple(batch), len(key)).lower(*arguments(state, batch, *key))

    call.lower = lower  # type: ignore[attr-defined]
    return call
