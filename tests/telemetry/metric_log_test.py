import contextlib
import errno
import json
import os
import pathlib
import time

import fault_runs
import numpy as np
import pytest
from clu import metric_writers
from tensorboard.backend.event_processing import plugin_event_accumulator

from vie_jax import finite
from vie_jax.files import patient_file
from vie_jax.telemetry import metric_log, metrics_file


def write(workdir, steps, *, from_step=None):
  writer = metric_log.JsonLinesWriter(workdir, from_step=from_step)
  for step in steps:
    writer.write_scalars(step, {'loss': step / 2})
  writer.close()


def steps_of(workdir):
  return [line['step'] for line in metrics_file.read(workdir)]


def test_lines_are_there_as_soon_as_they_are_written(tmp_path):
  writer = metric_log.JsonLinesWriter(tmp_path, from_step=None)
  writer.write_scalars(3, {'loss': 0.5, 'rate': np.float32(0.25)})
  text = (tmp_path / metrics_file.NAME).read_text()
  assert json.loads(text) == {'step': 3, 'loss': 0.5, 'rate': 0.25}
  writer.close()


def test_going_on_drops_the_lines_after_the_checkpoint(tmp_path):
  write(tmp_path, [1, 2, 3, 4, 5])
  write(tmp_path, [4, 5, 6], from_step=3)
  assert steps_of(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_new_start_drops_all_lines(tmp_path):
  write(tmp_path, [0, 1, 2])
  write(tmp_path, [0])
  assert steps_of(tmp_path) == [0]


@pytest.mark.parametrize('length', [1, 9, 20])
def test_a_torn_last_line_is_left_out_and_overwritten(tmp_path, length):
  write(tmp_path, [1, 2])
  path = tmp_path / metrics_file.NAME
  torn = json.dumps({'step': 3, 'loss': 1.5})[:length]
  path.write_text(path.read_text() + torn)
  assert steps_of(tmp_path) == [1, 2]
  write(tmp_path, [3, 4], from_step=2)
  assert steps_of(tmp_path) == [1, 2, 3, 4]
  for line in path.read_text().splitlines():
    json.loads(line)


@pytest.mark.parametrize(
  'line',
  [
    '{"step": "x"}',
    '{"step": null}',
    '{"step": true}',
    '{"step": 1.0}',
    '{"step": NaN}',
    '{"step": [1]}',
    '{"step": -1}',
    '{"step": 2147483648}',
    '{"loss": 0.5}',
    '1',
  ],
)
def test_a_line_without_a_step_is_left_out_and_dropped(tmp_path, line):
  write(tmp_path, [1])
  path = tmp_path / metrics_file.NAME
  path.write_text(path.read_text() + line + '\n')
  assert steps_of(tmp_path) == [1]
  write(tmp_path, [2], from_step=1)
  assert [json.loads(line) for line in path.read_text().splitlines()] == [
    {'step': 1, 'loss': 0.5},
    {'step': 2, 'loss': 1.0},
  ]


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_figure_that_is_not_finite_becomes_null(tmp_path, value):
  writer = metric_log.JsonLinesWriter(tmp_path, from_step=None)
  writer.write_scalars(1, {'loss': value, 'rate': 0.5})
  writer.close()
  text = (tmp_path / metrics_file.NAME).read_text()
  assert text == '{"step": 1, "loss": null, "rate": 0.5}\n'


def test_curve_gives_steps_and_values_of_one_figure(tmp_path):
  writer = metric_log.JsonLinesWriter(tmp_path, from_step=None)
  writer.write_scalars(2, {'loss': 4.0})
  writer.write_scalars(2, {'knn': 0.5})
  writer.write_scalars(4, {'loss': 3.0})
  writer.close()
  assert metrics_file.curve(tmp_path, 'loss') == ([2, 4], [4.0, 3.0])
  assert metrics_file.curve(tmp_path, 'knn') == ([2], [0.5])
  assert metrics_file.curve(tmp_path, 'other') == ([], [])


def test_a_folder_without_a_log_has_no_lines(tmp_path):
  assert list(metrics_file.read(tmp_path / 'nowhere')) == []


def test_other_kinds_of_records_pass_through_a_set_of_writers(tmp_path):
  writer = metric_writers.MultiWriter(
    [metric_log.JsonLinesWriter(tmp_path, from_step=None)]
  )
  writer.write_texts(1, {'config': 'text'})
  writer.write_images(1, {'picture': np.zeros((1, 2, 2, 3))})
  writer.write_histograms(1, {'weights': np.zeros(4)})
  writer.write_hparams({'rate': 1})
  writer.write_scalars(1, {'loss': 1})
  writer.flush()
  writer.close()
  assert steps_of(tmp_path) == [1]


def write_losses(writer, steps):
  for step in steps:
    writer.write_scalars(step, {'loss': step / 2})


def test_figures_wait_for_room_and_all_are_written(tmp_path, caplog):
  with fault_runs.small_disk(tmp_path / 'disk', '4m') as disk:
    workdir, steps = disk / 'run', list(range(600))
    writer = metric_log.open_writers(
      workdir, from_step=None, is_main=True, waits_for_room=True
    )
    write_losses(writer, steps[:50])
    fault_runs.fill(disk / 'other')
    write_losses(writer, steps[50:500])
    assert writer.is_behind
    assert not metric_log.make_safe(writer)
    (disk / 'other').unlink()
    write_losses(writer, steps[500:])
    assert metric_log.make_safe(writer)
    writer.close()
    assert metrics_file.curve(workdir, 'loss') == (
      steps,
      [s / 2 for s in steps],
    )
    assert fault_runs.tensorboard_steps(workdir) == steps
  said = [line for line in caplog.messages if 'room for the figures' in line]
  assert len(said) == 2
  assert 'There is no room' in said[0]
  assert said[1].endswith('those that waited are written.')


def leave(workdir, steps, *, from_step=None, again=None):
  """Writes as a training does that begins or goes on, and is then killed."""
  writer = metric_log.open_writers(
    workdir, from_step=from_step, again=again, is_main=True
  )
  writer.write_texts(from_step or 0, {'config': 'text'})
  write_losses(writer, steps)
  return writer


def test_tensorboard_drops_what_a_kill_has_lost(tmp_path):
  leave(tmp_path, range(1, 6))
  leave(tmp_path, range(1, 50))
  leave(tmp_path, range(41, 53), from_step=40)
  leave(tmp_path, [41], from_step=40)
  leave(tmp_path, range(42, 45), from_step=41)
  assert fault_runs.tensorboard_steps(tmp_path) == [*range(1, 45)]
  assert fault_runs.tensorboard_steps(tmp_path, 'config') == [0, 40, 41]


def test_a_tensorboard_that_is_open_drops_what_a_kill_has_lost(tmp_path):
  leave(tmp_path, range(1, 50))
  opened = plugin_event_accumulator.EventAccumulator(str(tmp_path))
  opened.Reload()
  for last in (45, 43):
    leave(tmp_path, range(41, last), from_step=40)
    opened.Reload()
    steps = [event.step for event in opened.Tensors('loss')]
    assert steps == [*range(1, last)]


@pytest.mark.parametrize('torn', [b'', b'abc', bytes(11), b'x' * 40])
def test_a_file_for_tensorboard_that_a_kill_cut_short(tmp_path, torn):
  leave(tmp_path, range(1, 4))
  (path,) = tmp_path.glob('events.*')
  path.write_bytes(path.read_bytes() + torn)
  leave(tmp_path, range(4, 6), from_step=3)
  assert fault_runs.tensorboard_steps(tmp_path) == [1, 2, 3, 4, 5]


def test_tensorboard_has_an_evaluation_that_is_made_again_once(tmp_path):
  writer = leave(tmp_path, range(1, 5))
  writer.write_scalars(4, {'knn': 0.5, 'seconds': 2.0})
  writer.write_scalars(4, {'rate': np.nan})
  writer = leave(tmp_path, [], from_step=4, again='seconds')
  writer.write_scalars(4, {'knn': 0.5, 'seconds': 1.0})
  write_losses(writer, [5])
  assert fault_runs.tensorboard_steps(tmp_path) == [1, 2, 3, 4, 5]
  for name in ('knn', 'seconds', 'rate'):
    assert fault_runs.tensorboard_steps(tmp_path, name) == [4]


@pytest.fixture
def set_clock(monkeypatch):
  """Function that stops the clock at some seconds, for names of files."""

  def to(seconds):
    monkeypatch.setattr(time, 'time', lambda: seconds)

  return to


def test_a_clock_that_is_set_back_hides_no_restart(tmp_path, set_clock):
  for seconds, first in ((2e9, 1), (1e9, 4), (1e9, 6), (1.5e9, 3)):
    set_clock(seconds)
    leave(tmp_path, range(first, 10), from_step=first - 1)
  assert fault_runs.tensorboard_steps(tmp_path) == [*range(1, 10)]


def test_the_files_that_are_written_are_brought_to_the_disk(
  tmp_path, monkeypatch
):
  leave(tmp_path, [1])
  (old,) = tmp_path.glob('events.*')
  later = time.time_ns() + 10**12
  os.utime(old, ns=(later, later))
  writer = leave(tmp_path, [2], from_step=1)
  (new,) = {*tmp_path.glob('events.*')} - {old}
  synced = []
  monkeypatch.setattr(
    metric_log.disk, 'sync', lambda path: synced.append(pathlib.Path(path))
  )
  assert metric_log.make_safe(writer)
  assert {*synced} == {new, tmp_path, tmp_path / metrics_file.NAME}


def test_by_choice_figures_do_not_wait_for_room(tmp_path):
  with fault_runs.small_disk(tmp_path / 'disk', '1m') as disk:
    writer = metric_log.open_writers(disk, from_step=None, is_main=True)
    fault_runs.fill(disk / 'other')
    with pytest.raises(OSError, match='No space left'):
      write_losses(writer, range(600))


@pytest.mark.parametrize('waits', [False, True])
def test_a_disk_that_turns_read_only_is_an_error_of_the_disk(tmp_path, waits):
  with fault_runs.FailingDisk(tmp_path) as disk:
    writer = metric_log.open_writers(
      disk.folder, from_step=None, is_main=True, waits_for_room=waits
    )
    writer.write_scalars(1, {'loss': 1.0})
    disk.fail()
    for step in (2, 3):
      with pytest.raises(OSError) as error:
        writer.write_scalars(step, {'loss': 1.0})
      assert error.value.errno == errno.EROFS
    with pytest.raises(OSError, match='Read-only'):
      writer.close()
    assert metrics_file.curve(disk.folder, 'loss') == ([1], [1.0])


def test_figures_that_are_safe_outlive_the_disk(tmp_path):
  """What only the system had in memory is gone, as after a power cut."""
  with fault_runs.FailingDisk(tmp_path) as disk:
    workdir = disk.folder / 'run'
    writer = metric_log.open_writers(workdir, from_step=None, is_main=True)
    write_losses(writer, range(1, 4))
    assert metric_log.make_safe(writer)
    write_losses(writer, range(4, 6))
    disk.fail()
    writer.close()
    disk.repair()
    steps, _ = metrics_file.curve(workdir, 'loss')
    assert steps == [1, 2, 3]
    assert fault_runs.tensorboard_steps(workdir)[:3] == [1, 2, 3]


def test_a_process_that_writes_no_figures_is_never_behind(tmp_path):
  writer = metric_log.open_writers(tmp_path, from_step=None, is_main=False)
  writer.write_scalars(1, {'loss': 1.0})
  assert metric_log.make_safe(writer)
  assert list(tmp_path.iterdir()) == []


def test_no_room_at_the_end_does_not_hide_what_ended_the_run():
  def run(error):
    writer = patient_file.PatientFile('/dev/full')
    with contextlib.ExitStack() as stack:
      stack.push(metric_log.closing(writer))
      writer.write('a line\n')
      if error is not None:
        raise error

  with pytest.raises(finite.DivergedError, match='the loss'):
    run(finite.DivergedError('the loss is nan'))
  with pytest.raises(OSError, match='No space left'):
    run(None)
