"""Which files for TensorBoard a run shortens, and that none ends it."""

import contextlib
import os
import shutil
import subprocess

import fault_runs
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator

from vie_jax.telemetry import metric_log


def leave(workdir, steps, *, from_step=None):
  """Writes as a training does that begins or goes on, and is then killed."""
  writer = metric_log.open_writers(workdir, from_step=from_step, is_main=True)
  for step in steps:
    writer.write_scalars(step, {'loss': step / 2})
  return writer


def file_of(workdir):
  (path,) = workdir.glob('*tfevents*')
  return path


def test_a_folder_with_hard_links_to_the_files_of_another_run(tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  leave(one, range(1, 6))
  shutil.copytree(one, two, copy_function=os.link)
  leave(two, [4], from_step=3)
  assert fault_runs.tensorboard_steps(one) == [1, 2, 3, 4, 5]
  assert fault_runs.tensorboard_steps(two) == [1, 2, 3, 4]


def test_a_symlink_is_not_followed(tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  leave(one, range(1, 6))
  path = file_of(one)
  two.mkdir()
  (two / path.name).symlink_to(path)
  leave(two, [4], from_step=3)
  assert fault_runs.tensorboard_steps(one) == [1, 2, 3, 4, 5]
  assert (two / path.name).is_symlink()


@pytest.mark.parametrize('from_step', [None, 1])
def test_a_file_of_another_tool_stays_as_it_is(tmp_path, from_step):
  with tf.summary.create_file_writer(str(tmp_path)).as_default():
    for step in range(4):
      tf.summary.scalar('other', 0.5, step=step)
  path = file_of(tmp_path)
  before = path.read_bytes()
  leave(tmp_path, [2], from_step=from_step)
  assert path.read_bytes() == before
  assert 2 in fault_runs.tensorboard_steps(tmp_path)


def test_a_file_that_needs_no_cut_is_not_replaced(tmp_path):
  leave(tmp_path, range(1, 3))
  path = file_of(tmp_path)
  before = path.stat()
  leave(tmp_path, [4], from_step=3)
  after = path.stat()
  assert before.st_ino == after.st_ino
  assert before.st_mtime_ns == after.st_mtime_ns


@pytest.mark.parametrize('first', range(500, 560, 3))
@pytest.mark.parametrize('size', [1, 30])
def test_damage_takes_nothing_behind_it(tmp_path, first, size):
  leave(tmp_path, range(1, 19))
  path = file_of(tmp_path)
  data = bytearray(path.read_bytes())
  data[first : first + size] = b'\xff' * size
  path.write_bytes(data)
  leave(tmp_path, [20], from_step=19)
  assert path.read_bytes() == data


def test_steps_behind_damage_are_dropped(tmp_path):
  leave(tmp_path, range(1, 20))
  path = file_of(tmp_path)
  data = path.read_bytes()
  at = data.index(b'loss')
  path.write_bytes(data[:at] + b'lost' + data[at + 4 :])
  leave(tmp_path, [11], from_step=10)
  assert len(path.read_bytes()) < len(data)
  assert path.read_bytes().startswith(data[:at] + b'lost')


def test_a_file_that_is_cut_keeps_its_rights_and_leaves_no_other(tmp_path):
  leave(tmp_path, range(1, 6))
  path = file_of(tmp_path)
  path.chmod(0o440)
  (tmp_path / 'events.vie_jax.tmp').write_text('what a kill left')
  leave(tmp_path, [4], from_step=3)
  assert fault_runs.tensorboard_steps(tmp_path) == [1, 2, 3, 4]
  assert path.stat().st_mode & 0o777 == 0o440
  assert not [*tmp_path.glob('*.tmp')]


@contextlib.contextmanager
def unwritable(path):
  """Has a file be one that nobody, root included, may write or replace."""
  fault_runs.mount('--bind', path, path)
  try:
    fault_runs.mount('-o', 'remount,ro,bind', path)
    yield
  finally:
    subprocess.run(['umount', '--lazy', path], check=True)


@pytest.mark.parametrize('from_step, warnings', [(6, 0), (3, 1)])
def test_a_file_that_may_not_be_written_stops_no_run(
  tmp_path, caplog, from_step, warnings
):
  leave(tmp_path, range(1, 6))
  path = file_of(tmp_path)
  with unwritable(path):
    writer = leave(tmp_path, [from_step + 1], from_step=from_step)
    assert metric_log.make_safe(writer)
  said = [line for line in caplog.messages if 'TensorBoard may show' in line]
  assert len(said) == warnings
  assert all(str(path) in line for line in said)
  # A TensorBoard in Python goes by the word of the new file then.
  tensorboard = plugin_event_accumulator.EventAccumulator(str(tmp_path))
  tensorboard.Reload()
  assert [event.step for event in tensorboard.Tensors('loss')] == [
    *range(1, min(from_step, 5) + 1),
    from_step + 1,
  ]


@pytest.mark.parametrize('is_renamed', [False, True])
def test_a_file_that_is_gone_costs_no_checkpoint(tmp_path, is_renamed):
  writer = leave(tmp_path, range(1, 6))
  path = file_of(tmp_path)
  if is_renamed:
    path.rename(path.with_name('mine'))
  else:
    path.unlink()
  assert metric_log.make_safe(writer)
  writer.write_scalars(6, {'loss': 3.0})
  assert metric_log.make_safe(writer)
  assert fault_runs.tensorboard_steps(tmp_path) == [5, 6]
