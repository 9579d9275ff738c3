import gzip
import json

import jax
import jax.numpy as jnp
import pytest
import tiny_run

from vie_jax import train
from vie_jax.telemetry import metrics_file, step_trace


def _run(workdir, *, num_steps, new_steps=(1,), **options):
  """A loop of small steps, some with a phase; returns what `is_last` said."""
  options = {
    'is_wanted': True,
    'first_step': 0,
    'num_steps': 3,
    **options,
  }
  step = jax.jit(lambda state: state + 1)
  state, ends = jnp.zeros(4), []
  with step_trace.StepTrace(workdir, **options) as trace:
    for number in range(1, num_steps + 1):
      trace.begin(number, state=state, is_new=number in new_steps)
      with step_trace.step(number):
        with step_trace.phase('input wait'):
          pass
        state = step(state)
      if trace.is_last(number):
        ends.append(number)
        trace.end(state=state)
  return ends


def _events(workdir):
  """What Perfetto is given."""
  (path,) = (workdir / 'profile').rglob('perfetto_trace.json.gz')
  with gzip.open(path) as file:
    return json.load(file)['traceEvents']


def _steps(events):
  return [
    int(event['args']['step_num'])
    for event in events
    if event.get('name') == step_trace.STEP
  ]


def test_both_files_have_the_steps_after_warm_up(tmp_path, caplog):
  first = step_trace.WARM_UP_STEPS + 2
  with caplog.at_level('INFO'):
    ends = _run(tmp_path, num_steps=first + 5)
  assert ends == [first + 2]
  events = _events(tmp_path)
  assert _steps(events) == [first, first + 1, first + 2]
  names = [event.get('name') for event in events]
  assert names.count('input wait') == 3
  assert str(tmp_path / 'profile') in caplog.text
  assert 'xprof --logdir' in caplog.text
  assert 'ui.perfetto.dev' in caplog.text
  # What XProf and TensorBoard read: the place of the file matters to them.
  (path,) = (tmp_path / 'profile').glob('plugins/profile/*/*.xplane.pb')
  planes = jax.profiler.ProfileData.from_file(str(path)).planes
  named = {
    e.name for plane in planes for line in plane.lines for e in line.events
  }
  assert {step_trace.STEP, 'input wait'} <= named


def test_a_compilation_begins_the_warm_up_anew(tmp_path):
  later = step_trace.WARM_UP_STEPS
  assert _run(tmp_path, num_steps=40, new_steps=(1, later)) == [2 * later + 3]


def test_the_first_step_and_how_many_can_be_chosen(tmp_path):
  assert _run(tmp_path, num_steps=9, first_step=2) == [4]
  assert _steps(_events(tmp_path)) == [2, 3, 4]


def test_there_is_one_trace_in_a_workdir(tmp_path, caplog):
  assert _run(tmp_path, num_steps=5, first_step=2)
  with caplog.at_level('INFO'):
    assert _run(tmp_path, num_steps=5, first_step=3) == []
  assert 'Remove it to have one' in caplog.text
  assert _steps(_events(tmp_path)) == [2, 3, 4]


def test_what_a_killed_run_has_left_is_no_trace(tmp_path):
  (tmp_path / 'profile.tmp').mkdir()
  (tmp_path / 'profile.tmp' / 'half').write_text('')
  assert _run(tmp_path, num_steps=5, first_step=2) == [4]
  assert [path.name for path in tmp_path.iterdir()] == ['profile']
  assert not list(tmp_path.rglob('half'))


def test_a_trace_ends_with_the_training(tmp_path):
  assert _run(tmp_path, num_steps=3, first_step=2) == []
  assert _steps(_events(tmp_path)) == [2, 3]


def test_a_training_that_ends_too_soon_says_so(tmp_path, caplog):
  assert _run(tmp_path, num_steps=3) == []
  assert 'before there was a step to trace' in caplog.text
  assert not list(tmp_path.iterdir())


def test_without_being_asked_for_nothing_is_written_or_said(tmp_path, caplog):
  with caplog.at_level('INFO', logger='absl'):
    assert _run(tmp_path, num_steps=20, is_wanted=False) == []
  assert not list(tmp_path.iterdir())
  assert 'profile' not in caplog.text


def test_a_trace_that_cannot_be_written_ends_no_training(tmp_path, caplog):
  (tmp_path / 'file').write_text('')
  assert _run(tmp_path / 'file', num_steps=20) == []
  assert 'no trace is written to' in caplog.text


@pytest.mark.slow
def test_a_training_leaves_a_trace_of_its_phases_once(demo_dataset, tmp_path):
  options = {
    'num_devices': 1,
    'profile': True,
    'profile_first_step': 4,
    'profile_steps': 3,
    'objective__instance_recognition_steps': 4,
    'eval_every_steps': 6,
    'checkpoint_every_steps': 6,
  }
  config = tiny_run.config(demo_dataset, num_steps=8, **options)
  train.train_and_evaluate(config, tmp_path)
  events = _events(tmp_path)
  assert _steps(events) == [4, 5, 6]
  names = {event.get('name') for event in events}
  assert {
    'input wait',
    'batch to device',
    'k-means',
    'step',
    'wait for step before',
    'figures',
    'evaluation',
    'save',
  } <= names
  # Further on, from the checkpoint of step 8: no other trace.
  config = tiny_run.config(demo_dataset, num_steps=14, **options)
  train.train_and_evaluate(config, tmp_path)
  assert _events(tmp_path) == events
  assert max(line['step'] for line in metrics_file.read(tmp_path)) == 14
