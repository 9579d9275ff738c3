"""What the environment says of the processes of a run.

Three variables of JAX say it all; SLURM and Cloud TPUs have their own, which
JAX reads by itself.
"""

import glob
import importlib.util
import re
from collections.abc import Mapping

CHOICES = ('auto', 'on', 'off')
ADDRESS = 'JAX_COORDINATOR_ADDRESS'
COUNT = 'JAX_NUM_PROCESSES'
INDEX = 'JAX_PROCESS_ID'
VARIABLES = f'{ADDRESS}, {COUNT} and {INDEX}'
_LAST_PORT = 65535
_SLURM = (
  'SLURM_JOB_ID',
  'SLURM_STEP_NODELIST',
  'SLURM_NTASKS',
  'SLURM_PROCID',
  'SLURM_LOCALID',
)


class DistributedError(ValueError):
  """The processes cannot be one run: started wrongly, or not alike."""


def find_start(choice: str, environ: Mapping[str, str]) -> dict | None:
  """Says how this process is to be connected with others.

  Args:
    choice: 'auto' connects where the environment tells of more than one
      process, 'on' always, 'off' never.
    environ: the environment.

  Returns:
    Arguments of `jax.distributed.initialize`, which looks for missing ones
    by itself; None for a process on its own.

  Raises:
    DistributedError: if variables are missing or wrong.
  """
  if choice == 'off':
    return None
  given = _given(environ)
  if given is not None:
    is_alone = choice == 'auto' and given['num_processes'] == 1
    return None if is_alone else given
  if all(name in environ for name in _SLURM):
    if _number(environ, 'SLURM_NTASKS') > 1 or choice == 'on':
      return _of_slurm(environ)
  elif ADDRESS in environ and not _has_tpus():
    raise DistributedError(
      f'{ADDRESS} is set, {COUNT} and {INDEX} are not: set all three, or '
      'start with --distributed=off.'
    )
  hosts = environ.get('TPU_PROCESS_ADDRESSES')
  hosts = environ.get('TPU_WORKER_HOSTNAMES') if hosts is None else hosts
  if hosts is None:
    # Not on GKE: JAX asks the machine's metadata for the other workers.
    is_slice = _has_tpus() and 'TPU_SKIP_MDS_QUERY' not in environ
  else:
    is_slice = len(hosts.split(',')) > 1
  return {} if is_slice or choice == 'on' else None


def _given(environ):
  """What the three variables say, or None without those only we read."""
  if COUNT not in environ and INDEX not in environ:
    return None
  missing = [n for n in (ADDRESS, COUNT, INDEX) if not environ.get(n)]
  if missing:
    raise DistributedError(
      f'{" and ".join(missing)} must be set, too: several processes need '
      f'{VARIABLES}. Or start with --distributed=off.'
    )
  address = environ[ADDRESS]
  found = re.fullmatch(r'.+:([0-9]{1,5})', address)
  if not found or not 0 < int(found[1]) <= _LAST_PORT:
    raise DistributedError(
      f'{ADDRESS} is {address!r}; it must be host:port of process 0.'
    )
  count, index = _number(environ, COUNT), _number(environ, INDEX)
  if count < 1:
    raise DistributedError(f'{COUNT} is {count}; it must be at least 1.')
  if not 0 <= index < count:
    raise DistributedError(
      f'{INDEX} is {index}, which is out of range: {COUNT} is {count}, so '
      f'that processes are numbered from 0 to {count - 1}.'
    )
  return {
    'coordinator_address': address,
    'num_processes': count,
    'process_id': index,
    # All that this process sees, unless JAX_LOCAL_DEVICE_IDS says otherwise.
    'cluster_detection_method': 'deactivate',
  }


def _number(environ, name):
  try:
    return int(environ[name])
  except ValueError:
    raise DistributedError(
      f'{name} is {environ[name]!r}; it must be a number.'
    ) from None


def _of_slurm(environ):
  """Started by srun: JAX reads the rest from SLURM's variables.

  JAX gives each task the one device of its number on the node. That is not
  meant where a node has a single task, nor where srun has left it one device.
  """
  nodes = environ.get('SLURM_STEP_NUM_NODES')
  visible = environ.get('CUDA_VISIBLE_DEVICES', '')
  has_node = nodes == environ['SLURM_NTASKS']
  has_device = bool(visible) and ',' not in visible
  if (has_node or has_device) and 'JAX_LOCAL_DEVICE_IDS' not in environ:
    return {'local_device_ids': []}
  return {}


def _has_tpus():
  """Whether this is a machine with TPUs, and set up for them."""
  if importlib.util.find_spec('libtpu') is None:
    return False
  return bool(glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*'))
