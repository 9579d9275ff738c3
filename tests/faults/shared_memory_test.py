"""A /dev/shm without room: training and evaluation do not use it."""

import shutil
import subprocess

import fault_runs
import pytest
import tiny_run

OPTIONS = {
  'num_devices': 1,
  'num_steps': 4,
  'eval_every_steps': 4,
  'checkpoint_every_steps': 2,
}
# In a mount namespace of its own, so that nobody else notices.
FILL = (
  'mount -t tmpfs -o size=4k none /dev/shm && '
  '{ head -c 100000 /dev/zero > /dev/shm/full; exec "$@"; }'
)
UNSHARE = ['unshare', '--mount', 'sh', '-c', FILL, 'sh']


def can_mount():
  if not shutil.which('unshare'):
    return False
  done = subprocess.run([*UNSHARE, 'true'], capture_output=True, check=False)
  return done.returncode == 0


@pytest.mark.slow
def test_a_run_does_not_need_shared_memory(demo_dataset, tmp_path):
  if not can_mount():
    pytest.skip('mounting needs root')
  command = tiny_run.command(tmp_path, demo_dataset, **OPTIONS)
  full = ['dd', 'if=/dev/zero', 'of=/dev/shm/more', 'bs=4k', 'count=2']
  probe = subprocess.run([*UNSHARE, *full], capture_output=True, check=False)
  assert b'No space left' in probe.stderr
  ended = fault_runs.finish([*UNSHARE, *command])
  assert ended.code == 0, ended.output
  assert fault_runs.steps_of(tmp_path) == [2, 4]
