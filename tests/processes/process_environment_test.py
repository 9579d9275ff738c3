"""What the environment says of the processes of a run."""

import pytest

from vie_jax.processes import process_environment
from vie_jax.processes.process_environment import DistributedError, find_start

SECOND = {
  'JAX_COORDINATOR_ADDRESS': '10.0.0.1:1234',
  'JAX_NUM_PROCESSES': '2',
  'JAX_PROCESS_ID': '1',
}
# As srun sets them: eight tasks on two nodes.
SLURM = {
  'SLURM_JOB_ID': '7',
  'SLURM_STEP_NODELIST': 'node[1-2]',
  'SLURM_NTASKS': '8',
  'SLURM_PROCID': '5',
  'SLURM_LOCALID': '1',
  'SLURM_STEP_NUM_NODES': '2',
}


def test_without_variables_a_process_is_alone():
  assert find_start('auto', {}) is None
  assert find_start('on', {}) == {}  # JAX looks for itself


def test_the_three_variables_say_it_all():
  for choice in ('auto', 'on'):
    assert find_start(choice, SECOND) == {
      'coordinator_address': '10.0.0.1:1234',
      'num_processes': 2,
      'process_id': 1,
      'cluster_detection_method': 'deactivate',
    }
  assert find_start('off', SECOND) is None


def test_the_variables_come_before_those_of_slurm():
  assert find_start('auto', SLURM | SECOND)['num_processes'] == 2


def test_one_process_connects_only_if_told_to():
  alone = SECOND | {'JAX_NUM_PROCESSES': '1', 'JAX_PROCESS_ID': '0'}
  assert find_start('auto', alone) is None
  assert find_start('on', alone)['num_processes'] == 1


@pytest.mark.parametrize(
  'missing',
  [
    ['JAX_COORDINATOR_ADDRESS'],
    ['JAX_NUM_PROCESSES'],
    ['JAX_PROCESS_ID'],
    ['JAX_COORDINATOR_ADDRESS', 'JAX_PROCESS_ID'],
    ['JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES'],
  ],
)
def test_half_of_the_variables_are_refused(missing):
  given = {n: value for n, value in SECOND.items() if n not in missing}
  with pytest.raises(DistributedError, match=f'^{" and ".join(missing)} must'):
    find_start('auto', given)
  assert find_start('off', given) is None


def test_an_address_alone_is_refused_unless_a_cluster_says_the_rest():
  address = {'JAX_COORDINATOR_ADDRESS': 'host:1'}
  with pytest.raises(DistributedError, match='set all three'):
    find_start('auto', address)
  assert find_start('auto', SLURM | address) == {}


@pytest.mark.parametrize(
  'name, value, message',
  [
    ('JAX_PROCESS_ID', '2', 'is 2, which is out of range.*from 0 to 1'),
    ('JAX_PROCESS_ID', '-1', 'is -1, which is out of range'),
    ('JAX_PROCESS_ID', 'one', "is 'one'; it must be a number"),
    ('JAX_NUM_PROCESSES', '0', 'is 0; it must be at least 1'),
    ('JAX_NUM_PROCESSES', '2.0', "is '2.0'; it must be a number"),
    ('JAX_COORDINATOR_ADDRESS', 'host', "is 'host'; it must be host:port"),
    ('JAX_COORDINATOR_ADDRESS', 'host:', "is 'host:'; it must be host:port"),
    ('JAX_COORDINATOR_ADDRESS', 'host:0', "is 'host:0'; it must be host:port"),
    ('JAX_COORDINATOR_ADDRESS', 'host:65536', "is 'host:65536'; it must"),
  ],
)
def test_wrong_values_are_named(name, value, message):
  with pytest.raises(DistributedError, match=f'^{name} {message}'):
    find_start('auto', SECOND | {name: value})


def test_srun_starts_several_processes():
  assert find_start('auto', SLURM) == {}  # a device per task, JAX's rule
  assert find_start('auto', SLURM | {'SLURM_NTASKS': '1'}) is None


@pytest.mark.parametrize('name', ['SLURM_PROCID', 'SLURM_STEP_NODELIST'])
def test_an_allocation_without_srun_is_a_single_process(name):
  found = {n: value for n, value in SLURM.items() if n != name}
  assert find_start('auto', found) is None


@pytest.mark.parametrize(
  'changes, arguments',
  [
    # One task per node has all of its devices.
    ({'SLURM_STEP_NUM_NODES': '8'}, {'local_device_ids': []}),
    # srun has given each task a device of its own, which is its first.
    ({'CUDA_VISIBLE_DEVICES': '3'}, {'local_device_ids': []}),
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, {}),
    # The user knows better.
    ({'SLURM_STEP_NUM_NODES': '8', 'JAX_LOCAL_DEVICE_IDS': '0,1'}, {}),
  ],
)
def test_tasks_get_the_devices_that_are_meant_for_them(changes, arguments):
  assert find_start('auto', SLURM | changes) == arguments


@pytest.mark.parametrize(
  'changes, is_slice',
  [
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, True),
    ({'TPU_WORKER_HOSTNAMES': 'a'}, False),
    ({'TPU_WORKER_HOSTNAMES': 'a', 'TPU_PROCESS_ADDRESSES': 'a:1,b:1'}, True),
    ({}, True),  # not on GKE: the machine's metadata tells
    ({'TPU_SKIP_MDS_QUERY': '1'}, False),
  ],
)
def test_a_tpu_slice_is_found(monkeypatch, changes, is_slice):
  monkeypatch.setattr(process_environment, '_has_tpus', lambda: True)
  assert (find_start('auto', changes) == {}) == is_slice
  assert find_start('off', changes) is None
