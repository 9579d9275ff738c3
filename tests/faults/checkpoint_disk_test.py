"""R7, R8: no room while saving, and folders that cannot be written to."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import jax.numpy as jnp
import pytest
import tiny_run
from faults import checkpoint_program

from vie_jax import checkpoint, sharding


def run_out_of_room(workdir, tries):
  """Fails every second save; returns what was said."""
  program = 'tests.faults.checkpoint_disk_program'
  output = tiny_run.run([sys.executable, '-m', program, workdir, str(tries)])
  assert output.strip().split('\n')[-1] == f'{tries} failed saves'
  return output


def check_room(tmp_path, tries):
  output = run_out_of_room(str(tmp_path), tries)
  lines = [line for line in output.split('\n') if 'could not be saved' in line]
  # Twice each: in the log, and what `wait` raises.
  assert len(lines) == 2 * tries
  folder = tmp_path / 'checkpoints'
  for step in range(2, 2 * tries + 1, 2):
    (line, *_) = [line for line in lines if f'checkpoints/{step} ' in line]
    assert f'The checkpoint {folder / str(step)} could not be saved: ' in line
    assert re.search(r'\([\d,.]+ MB free, about [\d,.]+ MB needed\)', line)
    assert f'that of step {step - 1} is kept' in line
  kept = sorted(int(path.name) for path in folder.iterdir())
  assert kept == [2 * tries - 1, 2 * tries + 1]
  with checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints:
    shapes = checkpoint_program.shapes(sharding.make_mesh(1))
    for step in kept:
      assert int(checkpoints.restore(step, shapes).step) == step


def test_a_save_without_room_costs_nothing_but_itself(tmp_path):
  check_room(tmp_path, 2)


@pytest.mark.slow
def test_twenty_saves_without_room(tmp_path):
  check_room(tmp_path, 20)


@contextlib.contextmanager
def small_disk(folder, size):
  """A file system of some bytes; skips where none can be mounted."""
  folder.mkdir()
  mounting = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder]
  if (
    not shutil.which('mount')
    or subprocess.run(mounting, check=False).returncode
  ):
    pytest.skip('no file system can be mounted here')
  try:
    yield folder
  finally:
    subprocess.run(['umount', folder], check=True)


def state_of(step):
  state = checkpoint_program.first_state(sharding.make_mesh(1))
  return state.replace(step=jnp.asarray(step, jnp.int32))


def poll_until_told(checkpoints):
  """Polls as a training does at each line of its log."""
  deadline = time.monotonic() + 60
  while checkpoints._failure is None and time.monotonic() < deadline:
    checkpoints.poll()
    time.sleep(0.01)


def test_a_full_disk_is_noticed_and_left_as_it_was(tmp_path, caplog):
  with (
    small_disk(tmp_path / 'disk', '4m') as disk,
    checkpoint.Checkpoints(disk, keep=3) as checkpoints,
  ):
    checkpoints.save(state_of(1), {})
    checkpoints.wait()
    (disk / 'other').write_bytes(bytes(shutil.disk_usage(disk).free - 2**16))
    for step in (2, 3):
      free = shutil.disk_usage(disk).free
      caplog.clear()
      checkpoints.save(state_of(step), {})
      poll_until_told(checkpoints)
      (line,) = [m for m in caplog.messages if 'could not be saved' in m]
      assert 'No space left' in line
      assert line.endswith('The next one is tried as usual.')
      checkpoints._failure = None
      assert shutil.disk_usage(disk).free == free
      assert [p.name for p in checkpoints.directory.iterdir()] == ['1']
    (disk / 'other').unlink()
    checkpoints.save(state_of(4), {})
    checkpoints.wait()
    assert checkpoints.latest_step == 4


def test_by_config_a_failed_save_ends_the_training(tmp_path):
  with checkpoint.Checkpoints(tmp_path, on_failed_save='stop') as checkpoints:
    checkpoints.save(state_of(1), {})
    checkpoints.wait()
    shutil.move(checkpoints.directory, tmp_path / 'away')
    checkpoints.save(state_of(2), {})
    with pytest.raises(checkpoint.SaveFailedError) as error:
      poll_until_told(checkpoints)
    assert 'The folder is gone' in str(error.value)
    assert 'run the same command again' in str(error.value)
    shutil.move(tmp_path / 'away', checkpoints.directory)
    checkpoints.save(state_of(3), {})
  assert (tmp_path / 'checkpoints' / '3').is_dir()


def as_nobody(folder):
  """What a user without rights is told who wants to save there."""
  code = (
    'import os, sys\n'
    'from vie_jax import checkpoint\n'
    'os.setgid(65534); os.setuid(65534)\n'
    'try:\n'
    '  checkpoint.Checkpoints(sys.argv[1])\n'
    'except checkpoint.CheckpointError as error:\n'
    '  print(error)\n'
  )
  return tiny_run.run([sys.executable, '-c', code, str(folder)])


@pytest.mark.skipif(os.getuid() != 0, reason='needs root, to be another user')
def test_a_folder_without_rights_is_refused_at_once():
  # Others may not look into pytest's own folders.
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    message = as_nobody(folder)
  assert 'checkpoints cannot be written to: Permission denied.' in message
