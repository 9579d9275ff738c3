"""Cloud TPU slices: how many chips and machines a type or topology has.

Source: the pages "TPU versions", "TPU software versions" and "Plan TPUs in GKE"
of Google Cloud's documentation, as of 2026. Nothing asks the cloud.
"""

import dataclasses
import math
import re

from job import training_command

# Digits are those of ASCII, and so few that they are no other error of Python's.
_NUMBER = r'[1-9][0-9]{0,5}'
_TYPE = re.compile(rf'(v2|v3|v4|v5litepod|v5p|v6e)-({_NUMBER})')
_TOPOLOGY = re.compile(rf'{_NUMBER}(x{_NUMBER}){{1,2}}')


@dataclasses.dataclass(frozen=True)
class Version:
  """A generation of TPUs.

  Attributes:
    gke_name: value of the node label cloud.google.com/gke-tpu-accelerator.
    runtime: software of the machines.
    cores_per_chip: what the number in an accelerator type counts, per chip.
    dimensions: of a topology, such as 4x4.
    single_host: chips of slices of one machine.
  """

  gke_name: str
  runtime: str
  cores_per_chip: int
  dimensions: int
  single_host: tuple[int, ...]


# Machines of a slice have four chips; single machines may have others.
CHIPS_PER_HOST = 4
VERSIONS = {
  'v2': Version('', 'tpu-ubuntu2204-base', 2, 2, (4,)),
  'v3': Version('', 'tpu-ubuntu2204-base', 2, 2, (4,)),
  'v4': Version('tpu-v4-podslice', 'tpu-ubuntu2204-base', 2, 3, (4,)),
  'v5litepod': Version(
    'tpu-v5-lite-podslice', 'v2-alpha-tpuv5-lite', 1, 2, (1, 4, 8)
  ),
  'v5p': Version('tpu-v5p-slice', 'v2-alpha-tpuv5', 2, 3, (4,)),
  'v6e': Version('tpu-v6e-slice', 'v2-alpha-tpuv6e', 1, 2, (1, 4, 8)),
}
# Slices of v5e and v6e; those of others are any that are made of whole cubes.
_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_SMALL_CUBES = ('2x2x1', '2x2x2', '2x2x4', '2x4x4')


@dataclasses.dataclass(frozen=True)
class Slice:
  """Machines that are rented as one.

  Attributes:
    version: key of `VERSIONS`.
    chips: in all.
    hosts: machines, each of which runs one process.
  """

  version: str
  chips: int
  hosts: int

  @property
  def chips_per_host(self) -> int:
    """Chips of each machine."""
    return self.chips // self.hosts

  @property
  def devices(self) -> int:
    """Devices of all machines, as JAX counts them: cores of v2 and v3."""
    return self.chips * (2 if self.version in ('v2', 'v3') else 1)


def _slice(version: str, chips: int) -> Slice:
  is_single = chips in VERSIONS[version].single_host
  return Slice(version, chips, 1 if is_single else chips // CHIPS_PER_HOST)


def of_type(name: str) -> Slice:
  """The slice of an accelerator type such as v5litepod-16.

  Raises:
    training_command.LaunchError: if there is none of that name.
  """
  found = _TYPE.fullmatch(name)
  if not found:
    raise training_command.LaunchError(
      f'--accelerator-type={name}: write one of {", ".join(VERSIONS)}, "-" and '
      'a number, such as v5litepod-16.'
    )
  version, number = found[1], int(found[2])
  chips, rest = divmod(number, VERSIONS[version].cores_per_chip)
  is_single = chips in VERSIONS[version].single_host
  if rest or not (is_single or (chips > 4 and chips % CHIPS_PER_HOST == 0)):
    unit = 'chips' if VERSIONS[version].cores_per_chip == 1 else 'cores'
    raise training_command.LaunchError(
      f'--accelerator-type={name}: there is no {version} of {number} {unit}; '
      'machines have four chips.'
    )
  if VERSIONS[version].dimensions == 2 and version in ('v5litepod', 'v6e'):
    sizes = sorted({_chips(topology) for topology in _FLAT})
    if chips not in sizes:
      raise training_command.LaunchError(
        f'--accelerator-type={name}: {version} comes with '
        f'{", ".join(map(str, sizes))} chips.'
      )
  return _slice(version, chips)


def _chips(topology: str) -> int:
  return math.prod(map(int, topology.split('x')))


def of_topology(version: str, topology: str) -> Slice:
  """The slice of a version with a topology, such as v6e and 4x4.

  Raises:
    training_command.LaunchError: if there is none, or GKE has none of it.
  """
  known = [name for name, facts in VERSIONS.items() if facts.gke_name]
  if version not in known:
    raise training_command.LaunchError(
      f'--tpu={version} must be one of {", ".join(known)}.'
    )
  if not _TOPOLOGY.fullmatch(topology):
    raise training_command.LaunchError(
      f'--topology={topology}: write numbers with "x" between, such as 4x4.'
    )
  if VERSIONS[version].dimensions == 2:
    is_known, such_as = topology in _FLAT, ', '.join(_FLAT)
  else:
    sides = [int(side) for side in topology.split('x')]
    is_cubes = len(sides) == 3 and all(s and s % 4 == 0 for s in sides)
    is_known = topology in _SMALL_CUBES or is_cubes
    such_as = f'{", ".join(_SMALL_CUBES)} or three multiples of 4'
  if not is_known:
    raise training_command.LaunchError(
      f'--topology={topology}: {version} has {such_as}.'
    )
  return _slice(version, _chips(topology))
