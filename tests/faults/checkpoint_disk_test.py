"""R7, R8: no room while saving, and folders that cannot be written to."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import fault_runs
import jax.numpy as jnp
import pytest
import tiny_run
from faults import checkpoint_program
from tensorboard.backend.event_processing import event_accumulator

from vie_jax import checkpoint, guarded_saves, sharding


def run_out_of_room(workdir, tries):
  """Fails every second save; returns what was said."""
  program = 'tests.faults.checkpoint_disk_program'
  output = tiny_run.run([sys.executable, '-m', program, workdir, str(tries)])
  assert output.strip().split('\n')[-1] == f'{tries} failed saves'
  return output


def check_room(tmp_path, tries):
  output = run_out_of_room(str(tmp_path), tries)
  lines = [line for line in output.split('\n') if 'could not be saved' in line]
  # Once each: what `wait` raises.
  assert len(lines) == tries
  folder = tmp_path / 'checkpoints'
  for step in range(2, 2 * tries + 1, 2):
    (line,) = [line for line in lines if f'checkpoints/{step} ' in line]
    assert f'The checkpoint {folder / str(step)} could not be saved: ' in line
    assert (
      'File too large for the limit of files (ulimit -f) or a quota' in line
    )
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
    fault_runs.small_disk(tmp_path / 'disk', '4m') as disk,
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


def test_a_save_that_could_not_write_a_byte_does_not_fail_the_next(
  tmp_path, caplog
):
  with (
    fault_runs.small_disk(tmp_path / 'disk', '4m') as disk,
    checkpoint.Checkpoints(disk, keep=3) as checkpoints,
  ):
    checkpoints.save(state_of(1), {})
    checkpoints.wait()
    fault_runs.fill(disk / 'other')
    checkpoints.save(state_of(2), {})
    poll_until_told(checkpoints)
    assert checkpoints.latest_step == 1
    caplog.clear()
    checkpoints.save(state_of(3), {})
    with pytest.raises(checkpoint.SaveFailedError, match='could not be saved'):
      checkpoints.wait()
    # Whoever ends the run logs what was raised.
    assert not [m for m in caplog.messages if 'could not be saved' in m]
    (disk / 'other').unlink()
    checkpoints.save(state_of(4), {})
    checkpoints.wait()
    assert checkpoints.latest_step == 4


def test_a_last_save_without_room_is_said_to_have_failed(tmp_path, caplog):
  def save_twice(disk):
    with checkpoint.Checkpoints(disk) as checkpoints:
      checkpoints.save(state_of(1), {})
      checkpoints.wait()
      fault_runs.fill(disk / 'other')
      checkpoints.save(state_of(2), {})

  with (
    fault_runs.small_disk(tmp_path / 'disk', '4m') as disk,
    pytest.raises(checkpoint.SaveFailedError, match='No space left') as error,
  ):
    save_twice(disk)
  assert re.search(
    r'\([\d,.]+ MB free, about [\d,.]+ MB needed\); that of step 1 is kept\.$',
    str(error.value),
  )
  # Whoever ends the run logs what was raised.
  assert not [line for line in caplog.messages if 'could not be saved' in line]


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


@pytest.mark.parametrize('is_known', [True, False])
@pytest.mark.parametrize('policy', ['retry', 'stop'])
def test_a_failed_save_is_told_of_once_where_a_training_diverges(
  tmp_path, caplog, policy, is_known
):
  with checkpoint.Checkpoints(tmp_path, on_failed_save=policy) as checkpoints:
    saves = guarded_saves.GuardedSaves(
      *(checkpoints, None, None),
      **dict.fromkeys(('record', 'check_state', 'check_lock')),
    )
    checkpoints.save(state_of(1), {})
    checkpoints.wait()
    shutil.move(checkpoints.directory, tmp_path / 'away')
    checkpoints.save(state_of(2), {})
    if is_known and policy == 'retry':
      poll_until_told(checkpoints)
    saves.end()
    (line,) = [m for m in caplog.messages if 'could not be saved' in m]
    assert 'The folder is gone' in line
    shutil.move(tmp_path / 'away', checkpoints.directory)
    checkpoints.save(state_of(3), {})
    caplog.clear()
    saves.end()
    assert not caplog.messages
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


@contextlib.contextmanager
def ending(process):
  """Ends a run, if it has not ended, whatever becomes of the test."""
  try:
    yield process
  finally:
    if process.poll() is None:
      process.kill()
      process.wait()


def events(workdir):
  """Steps of the losses that TensorBoard reads."""
  accumulator = event_accumulator.EventAccumulator(
    str(workdir), size_guidance={event_accumulator.TENSORS: 0}
  )
  accumulator.Reload()
  return {event.step for event in accumulator.Tensors('train/loss')}


@pytest.mark.slow
def test_a_run_survives_a_disk_that_is_full_for_a_while(demo_dataset, tmp_path):
  options = {'num_steps': 120, 'eval_every_steps': 60}
  whole = tmp_path / 'whole'
  tiny_run.run(tiny_run.command(whole, demo_dataset, **options))
  with fault_runs.small_disk(tmp_path / 'disk', '64m') as disk:
    workdir, said = disk / 'run', tmp_path / 'said'
    with said.open('w') as output:
      process = subprocess.Popen(
        tiny_run.command(workdir, demo_dataset, **options),
        cwd=tiny_run.REPOSITORY,
        env=tiny_run.environment(),
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
      )
    with ending(process):
      fault_runs.wait_until(fault_runs.has_step(workdir, 15), process)
      fault_runs.fill(disk / 'other')

      def have_saves_and_figures_met_it():
        log = said.read_text()
        return (
          log.count('could not be saved') >= 3
          and 'There is no room for the figures' in log
        )

      fault_runs.wait_until(have_saves_and_figures_met_it, process)
      (disk / 'other').unlink()
      assert process.wait(tiny_run.PATIENCE_SECONDS) == 0, said.read_text()
    log = said.read_text()
    assert log.count('There is no room for the figures') == 1
    assert log.count('There is room for the figures again') == 1
    config = tiny_run.config(demo_dataset, **options)
    fault_runs.assert_same_end(whole, workdir, config)
    assert fault_runs.figures(workdir) == fault_runs.figures(whole)
    assert events(workdir) == {*range(1, 121)}
    # The log waited, too. On standard error orbax has words of its own.
    told = (workdir / 'train.log').read_text()
    assert 'Traceback' not in told
    assert told.count('could not be saved') == log.count('could not be saved')


@contextlib.contextmanager
def read_only(workdir):
  """Has a workdir take no new files, as a file system that lost its disk."""
  fault_runs.mount('--bind', workdir, workdir)
  try:
    fault_runs.mount('-o', 'remount,ro,bind', workdir)
    yield
  finally:
    # Lazily: the run may just be looking at a file there.
    subprocess.run(['umount', '--lazy', workdir], check=True)


@contextlib.contextmanager
def replaced_by_a_file(workdir):
  """Has a file lie where the folder of the checkpoints is expected."""
  folder, aside = workdir / 'checkpoints', workdir / 'aside'
  folder.rename(aside)
  folder.write_text('not a folder')
  try:
    yield
  finally:
    folder.unlink()
    aside.rename(folder)


@pytest.mark.slow
@pytest.mark.parametrize('obstacle', [read_only, replaced_by_a_file])
@pytest.mark.parametrize('policy', ['retry', 'stop'])
def test_a_run_that_cannot_save_for_a_while(
  demo_dataset, tmp_path, obstacle, policy
):
  options = {'num_steps': 120, 'eval_every_steps': 60, 'on_failed_save': policy}
  whole, workdir = tmp_path / 'whole', tmp_path / 'run'
  tiny_run.run(tiny_run.command(whole, demo_dataset, **options))
  command = tiny_run.command(workdir, demo_dataset, **options)
  with ending(tiny_run.start(command)) as process:
    fault_runs.wait_until(fault_runs.has_step(workdir, 15), process)
    kept = fault_runs.steps_of(workdir)
    with obstacle(workdir):
      fault_runs.wait_until(
        fault_runs.has_logged(workdir, 'could not be saved'), process
      )
      if policy == 'stop':
        output = tiny_run.output_of(process)
    if policy == 'retry':
      output = tiny_run.output_of(process)
  if policy == 'stop':
    assert process.returncode == fault_runs.RETRY, output
    assert 'run the same command again' in output.splitlines()[-1]
    assert max(kept) <= max(fault_runs.steps_of(workdir))
    output = tiny_run.run(command)
  else:
    assert process.returncode == 0, output
    assert 'The next one is tried as usual.' in output
  assert 'Traceback' not in (workdir / 'train.log').read_text()
  config = tiny_run.config(demo_dataset, **options)
  fault_runs.assert_same_end(whole, workdir, config)
  assert fault_runs.figures(workdir) == fault_runs.figures(whole)


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['retry', 'stop'])
def test_a_disk_that_turns_read_only_ends_a_run_which_goes_on_later(
  demo_dataset, tmp_path, policy
):
  options = {'num_steps': 60, 'eval_every_steps': 30, 'on_failed_save': policy}
  whole = tmp_path / 'whole'
  tiny_run.run(tiny_run.command(whole, demo_dataset, **options))
  with fault_runs.FailingDisk(tmp_path) as disk:
    workdir = disk.folder / 'run'
    command = tiny_run.command(workdir, demo_dataset, **options)
    with ending(tiny_run.start(command)) as process:
      fault_runs.wait_until(fault_runs.has_step(workdir, 15), process)
      disk.fail()
      output = tiny_run.output_of(process)
    assert process.returncode == fault_runs.RETRY, output
    assert 'Read-only file system' in output.splitlines()[-1]
    assert 'run the same command again' in output.splitlines()[-1]
    assert 'Traceback' not in output
    disk.repair()
    kept = fault_runs.steps_of(workdir)
    assert kept[-1] >= 8, kept
    said = tiny_run.run(command)
    assert f'Going on from the checkpoint of step {kept[-1]}.' in said
    config = tiny_run.config(demo_dataset, **options)
    fault_runs.assert_same_end(whole, workdir, config)
    assert fault_runs.figures(workdir) == fault_runs.figures(whole)
