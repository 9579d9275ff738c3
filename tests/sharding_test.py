from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vie_jax import sharding


def places(array):
  """device id -> the part of the array that it holds."""
  return {
    shard.device.id: np.asarray(shard.data)
    for shard in array.addressable_shards
  }


@pytest.mark.parametrize('number', [1, 2, 8])
def test_a_mesh_has_one_axis_over_the_first_devices(number):
  mesh = sharding.make_mesh(number)
  assert mesh.axis_names == ('data',)
  assert list(mesh.devices) == jax.devices()[:number]


def test_devices_of_a_process_lie_together(monkeypatch):
  class Device(NamedTuple):
    process_index: int
    id: int

  # As on a torus of chips: numbers do not follow the processes.
  devices = [Device(number // 2 % 2, number) for number in range(8)]
  monkeypatch.setattr(jax, 'devices', lambda: devices)
  monkeypatch.setattr(
    sharding, 'Mesh', lambda devices, *args, **options: devices.tolist()
  )
  laid_out = sharding.make_mesh()
  assert [d[1] for d in laid_out] == [0, 1, 4, 5, 2, 3, 6, 7]


def test_an_array_that_all_have_is_placed_like_any_other(mesh):
  array = np.arange(16 * 32.0, dtype=np.float32).reshape(16, 32)
  for placement in (
    sharding.rows(mesh),
    sharding.columns(mesh),
    sharding.replicated(mesh),
  ):
    placed = sharding.place(array, placement)
    expected = jax.device_put(array, placement)
    assert placed.sharding == expected.sharding
    np.testing.assert_array_equal(placed, expected)


def test_zero_takes_all_devices():
  assert sharding.make_mesh(0).size == jax.device_count() == 8
  assert sharding.make_mesh().size == 8


def test_more_devices_than_there_are_is_refused():
  with pytest.raises(ValueError, match='9 devices asked for, 8 here'):
    sharding.make_mesh(9)


def test_a_negative_number_of_devices_is_refused():
  with pytest.raises(ValueError, match='-1 devices asked for'):
    sharding.make_mesh(-1)


def test_layouts_split_what_they_say(mesh):
  array = np.arange(16 * 32.0).reshape(16, 32)
  rows = places(jax.device_put(array, sharding.rows(mesh)))
  columns = places(jax.device_put(array, sharding.columns(mesh)))
  whole = places(jax.device_put(array, sharding.replicated(mesh)))
  for number, device in enumerate(mesh.devices):
    by_row, by_column = 16 // mesh.size, 32 // mesh.size
    np.testing.assert_array_equal(
      rows[device.id], array[number * by_row : (number + 1) * by_row]
    )
    np.testing.assert_array_equal(
      columns[device.id],
      array[:, number * by_column : (number + 1) * by_column],
    )
    np.testing.assert_array_equal(whole[device.id], array)


def test_a_batch_is_split_over_the_devices_in_order(mesh):
  rng = np.random.default_rng(0)
  batch = {
    'window': rng.integers(0, 256, (16, 1, 4, 4, 3), dtype=np.uint8),
    'crop': rng.uniform(size=(16, 4)).astype(np.float32),
    'instance_index': rng.permutation(16).astype(np.int32),
  }
  on_mesh = sharding.global_batch(batch, mesh)
  assert set(on_mesh) == set(batch)
  for name, value in batch.items():
    assert on_mesh[name].sharding.spec == PartitionSpec('data')
    assert on_mesh[name].dtype == value.dtype
    np.testing.assert_array_equal(on_mesh[name], value)
    share = 16 // mesh.size
    for number, device in enumerate(mesh.devices):
      np.testing.assert_array_equal(
        places(on_mesh[name])[device.id],
        value[number * share : (number + 1) * share],
      )
