"""The mesh, the layouts on it, and the way of a host's arrays onto it.

One mesh axis, `data`. Batches are split over it by their first axis, the
memory bank by its rows; parameters are replicated. One device is a mesh of
one: there is no second code path.
"""

from collections.abc import Iterable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = 'data'


def make_mesh(num_devices: int = 0) -> Mesh:
  """Lays out devices on the single axis `data`.

  Args:
    num_devices: how many devices to use; 0 takes all of them.

  Returns:
    A mesh of automatic axis type: XLA propagates the layouts.

  Raises:
    ValueError: if `num_devices` is negative, or more than there are.
  """
  devices = jax.devices()
  num_devices = num_devices or len(devices)
  if not 0 < num_devices <= len(devices):
    raise ValueError(f'{num_devices} devices asked for, {len(devices)} here.')
  return mesh_over(devices, num_devices)


def mesh_over(
  devices: Iterable[jax.Device], num_devices: int | None = None
) -> Mesh:
  """The mesh of given devices, which need not be here: see `make_mesh`.

  Args:
    devices: in any order.
    num_devices: how many of them, the first by process and number; None takes
      all.
  """
  # Not jax.make_mesh, which may change the order of the devices: the rows of
  # a global batch follow the order of the processes. Numbers of devices need
  # not follow it.
  devices = sorted(devices, key=lambda d: (d.process_index, d.id))
  return Mesh(
    np.asarray(devices[:num_devices]),
    (DATA_AXIS,),
    axis_types=(AxisType.Auto,),
  )


def host_device() -> jax.Device:
  """A CPU of this process, or its first device where JAX has none."""
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:
    # JAX_PLATFORMS names accelerators alone.
    return jax.local_devices()[0]


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
  """The first axis is split over `data`, the rest is whole."""
  return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def columns(mesh: Mesh) -> NamedSharding:
  """The second axis is split over `data`: cluster labels `[R, N]`."""
  return NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))


def place(array: np.ndarray | jax.Array, placement: NamedSharding) -> jax.Array:
  """Puts an array that every process has on the mesh.

  Args:
    array: the same in all processes, on the host or a device of each. Each
      device of the mesh gets its part of it.
    placement: where.
  """
  host = np.asarray(array)
  # Not jax.device_put, which sends the whole array to all processes to see
  # that they have the same.
  return jax.make_array_from_callback(
    host.shape, placement, lambda index: host[index]
  )


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh):
  """Puts this host's rows of a batch onto the mesh.

  Args:
    batch: name -> array `[B / hosts, ...]`, this host's contiguous rows.
    mesh: the mesh that the train step runs on.

  Returns:
    name -> global `jax.Array [B, ...]`, split over `data`.
  """
  sharding = rows(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, value)
    for name, value in batch.items()
  }
