"""Types and topologies of TPUs: chips and machines."""

import pytest
from job.training_command import LaunchError
from tpu import tpu_slices

from vie_jax.planning import accelerators


@pytest.mark.parametrize(
  'name, chips, hosts',
  [
    # Cores, eight on a machine.
    ('v2-8', 4, 1),
    ('v3-32', 16, 4),
    ('v4-8', 4, 1),
    ('v4-16', 8, 2),
    ('v5p-8', 4, 1),
    ('v5p-32', 16, 4),
    # Chips, four on a machine of a slice.
    ('v5litepod-1', 1, 1),
    ('v5litepod-4', 4, 1),
    ('v5litepod-8', 8, 1),
    ('v5litepod-16', 16, 4),
    ('v5litepod-256', 256, 64),
    ('v6e-8', 8, 1),
    ('v6e-64', 64, 16),
  ],
)
def test_accelerator_types(name, chips, hosts):
  found = tpu_slices.of_type(name)
  assert (found.chips, found.hosts) == (chips, hosts)
  assert found.chips_per_host * hosts == chips


@pytest.mark.parametrize(
  'version, planned',
  [
    ('v4', 'tpu_v4'),
    ('v5litepod', 'tpu_v5e'),
    ('v5p', 'tpu_v5p'),
    ('v6e', 'tpu_v6e'),
  ],
)
def test_a_plan_has_as_many_machines(version, planned):
  device = accelerators.ACCELERATORS[planned]
  for chips in (4, 8, 16, 64, 256):
    cores = chips * tpu_slices.VERSIONS[version].cores_per_chip
    found = tpu_slices.of_type(f'{version}-{cores}')
    assert found.devices == chips
    assert device.hosts(chips) == found.hosts, chips


@pytest.mark.parametrize(
  'name, devices', [('v2-8', 8), ('v3-32', 32), ('v4-16', 8), ('v6e-64', 64)]
)
def test_jax_sees_chips_as_one_device_from_v4_on(name, devices):
  assert tpu_slices.of_type(name).devices == devices


@pytest.mark.parametrize(
  'name',
  [
    *('v5e-16', 'v4', 'v4-0', 'v4-4', 'v4-12', 'v5litepod-2', 'v6e-24'),
    *('v6e-512', 'v5p-４096', 'v5p-٣٢', 'v4-032', 'v4-' + '8' * 5000),
  ],
)
def test_types_that_there_are_not(name):
  with pytest.raises(LaunchError, match=name):
    tpu_slices.of_type(name)


@pytest.mark.parametrize(
  'version, topology, chips, hosts',
  [
    ('v5litepod', '1x1', 1, 1),
    ('v5litepod', '2x4', 8, 1),
    ('v6e', '4x4', 16, 4),
    ('v6e', '16x16', 256, 64),
    ('v5p', '2x2x1', 4, 1),
    ('v5p', '2x2x2', 8, 2),
    ('v4', '4x4x8', 128, 32),
  ],
)
def test_topologies(version, topology, chips, hosts):
  found = tpu_slices.of_topology(version, topology)
  assert (found.chips, found.hosts) == (chips, hosts)


@pytest.mark.parametrize(
  'version, topology',
  [
    ('v6e', '3x3'),
    ('v6e', '2x2x1'),
    ('v5p', '4x4'),
    ('v5p', '4x4x6'),
    ('v5p', '0x4x4'),
    ('v5p', '４x４x４'),
    ('v5p', '04x4x4'),
    ('v5p', '4x4x' + '4' * 5000),
    ('v5litepod', '4'),
    ('v5litepod', ''),
    ('v3', '2x2'),
    ('v7', '2x2'),
  ],
)
def test_topologies_that_there_are_not(version, topology):
  with pytest.raises(LaunchError):
    tpu_slices.of_topology(version, topology)
