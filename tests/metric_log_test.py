import json

import numpy as np
import pytest
from clu import metric_writers

from vie_jax import metric_log


def write(workdir, steps, *, from_step=None):
  writer = metric_log.JsonLinesWriter(workdir, from_step=from_step)
  for step in steps:
    writer.write_scalars(step, {'loss': step / 2})
  writer.close()


def steps_of(workdir):
  return [line['step'] for line in metric_log.read(workdir)]


def test_lines_are_there_as_soon_as_they_are_written(tmp_path):
  writer = metric_log.JsonLinesWriter(tmp_path, from_step=None)
  writer.write_scalars(3, {'loss': 0.5, 'rate': np.float32(0.25)})
  text = (tmp_path / metric_log.FILE_NAME).read_text()
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
  path = tmp_path / metric_log.FILE_NAME
  torn = json.dumps({'step': 3, 'loss': 1.5})[:length]
  path.write_text(path.read_text() + torn)
  assert steps_of(tmp_path) == [1, 2]
  write(tmp_path, [3, 4], from_step=2)
  assert steps_of(tmp_path) == [1, 2, 3, 4]
  for line in path.read_text().splitlines():
    json.loads(line)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_figure_that_is_not_finite_becomes_null(tmp_path, value):
  writer = metric_log.JsonLinesWriter(tmp_path, from_step=None)
  writer.write_scalars(1, {'loss': value, 'rate': 0.5})
  writer.close()
  text = (tmp_path / metric_log.FILE_NAME).read_text()
  assert text == '{"step": 1, "loss": null, "rate": 0.5}\n'


def test_curve_gives_steps_and_values_of_one_figure(tmp_path):
  writer = metric_log.JsonLinesWriter(tmp_path, from_step=None)
  writer.write_scalars(2, {'loss': 4.0})
  writer.write_scalars(2, {'knn': 0.5})
  writer.write_scalars(4, {'loss': 3.0})
  writer.close()
  assert metric_log.curve(tmp_path, 'loss') == ([2, 4], [4.0, 3.0])
  assert metric_log.curve(tmp_path, 'knn') == ([2], [0.5])
  assert metric_log.curve(tmp_path, 'other') == ([], [])


def test_a_folder_without_a_log_has_no_lines(tmp_path):
  assert list(metric_log.read(tmp_path / 'nowhere')) == []


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
