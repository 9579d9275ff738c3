"""Runs on a data set in an object store: real commands, a real S3 server."""

import os
import subprocess
import time

import fault_runs
import fsspec
import numpy as np
import pytest
import s3_server
import tiny_run


def _run(workdir, dataset, environment, mode):
  subprocess.run(
    tiny_run.command(
      workdir, dataset, mode=mode, num_steps=4, eval_every_steps=4
    ),
    env=tiny_run.environment() | environment,
    check=True,
    timeout=tiny_run.PATIENCE_SECONDS,
  )


@pytest.mark.slow
def test_a_run_on_a_url_has_the_bits_of_one_on_the_folder(
  demo_dataset, s3, tmp_path
):
  s3.files.put(f'{demo_dataset}{os.sep}', f'{s3.url}/demo/', recursive=True)
  places = {'here': demo_dataset, 'there': f'{s3.url}/demo'}
  for mode in ('describe', 'train', 'knn_eval', 'embed'):
    for name, dataset in places.items():
      _run(tmp_path / name, dataset, s3.server.environment, mode)
  for file in ('embed/demo/embeddings', 'knn_eval/demo/embeddings_val'):
    here, there = (np.load(tmp_path / name / f'{file}.npy') for name in places)
    np.testing.assert_array_equal(here, there)


@pytest.mark.slow
def test_a_run_whose_store_is_away_at_the_start_asks_to_be_run_again(
  tmp_path, monkeypatch
):
  with s3_server.running(tmp_path) as server:
    for name, value in server.environment.items():
      monkeypatch.setenv(name, value)
  ended = fault_runs.finish(
    tiny_run.command(tmp_path / 'run', 's3://bucket/demo')
  )
  assert ended.code == fault_runs.RETRY, ended.output
  last = ended.output.splitlines()[-1]
  assert 's3://bucket/demo/dataset.json cannot be read' in last
  assert 'the same command goes on' in last
  assert 'Traceback' not in ended.output


@pytest.fixture
def own_store(demo_dataset, tmp_path, monkeypatch):
  """A store to be spoilt, with the data set at s3://bucket/demo."""
  with s3_server.running(tmp_path) as server:
    for name, value in server.environment.items():
      monkeypatch.setenv(name, value)
    files = fsspec.filesystem('s3', skip_instance_cache=True)
    files.mkdir('bucket')
    files.put(f'{demo_dataset}{os.sep}', 's3://bucket/demo/', recursive=True)
    yield server


# Mode -> the folder of its steps in the workdir.
FOLDERS = {
  'train': '',
  'finetune': 'finetune/demo_motion_random',
  'linear_eval': 'linear_eval/demo_random',
}


def command(workdir, dataset, mode, *, eval_every_steps=1000, **changes):
  """A run of 1000 steps that saves nothing by itself."""
  own = {
    'batch_size': 8,
    'eval_batch_size': 1,
    'num_steps': 1000,
    'eval_every_steps': eval_every_steps,
    'checkpoint_every_steps': 1000,
  }
  changes['knn__batch_size'] = changes['embed__batch_size'] = 1
  if mode == 'train':
    del own['eval_batch_size']
    changes |= own
  else:
    changes['init_from'] = 'random'
    changes['dataset__label_columns'] = "('motion',)"
  if mode in ('finetune', 'linear_eval'):
    changes |= {f'{mode}__{name}': value for name, value in own.items()}
  if mode == 'linear_eval':
    changes['linear_eval__drop_steps'] = '(200,)'
  return tiny_run.command(workdir, dataset, mode=mode, **changes)


@pytest.mark.slow
@pytest.mark.parametrize('step, eval_every_steps', [(5, 1000), (6, 6)])
@pytest.mark.parametrize('mode', FOLDERS)
def test_a_run_whose_store_goes_away_asks_to_be_run_again(
  own_store, tmp_path, monkeypatch, mode, step, eval_every_steps
):
  no_tries = '{"config_kwargs": {"retries": {"max_attempts": 0}}}'
  monkeypatch.setenv('FSSPEC_S3', no_tries)
  process = tiny_run.start(
    command(
      tmp_path, 's3://bucket/demo', mode, eval_every_steps=eval_every_steps
    )
  )
  folder = tmp_path / FOLDERS[mode]
  fault_runs.wait_until(fault_runs.has_step(folder, step), process)
  own_store.stop()
  output = tiny_run.output_of(process)
  assert process.returncode == fault_runs.RETRY, output
  assert 'cannot be reached' in output.splitlines()[-1]
  assert 'Traceback' not in output
  # What was done is what was saved.
  assert fault_runs.steps_of(folder) == [last_step(folder)]


def last_step(workdir):
  return max(step for step, _ in fault_runs.figures(workdir))


def ended_by(process, number):
  """What a process says that a signal ends."""
  process.send_signal(number)
  output = tiny_run.output_of(process, patience_seconds=60)
  code = (
    fault_runs.INTERRUPTED if number == fault_runs.INT else fault_runs.RETRY
  )
  assert process.returncode == code, output
  assert 'The same command goes on' in output
  assert 'Traceback' not in output
  return output


@pytest.mark.parametrize(
  'mode, number, decode_in',
  [
    ('train', fault_runs.TERM, 'threads'),
    ('train', fault_runs.INT, 'processes'),
    pytest.param(
      'finetune', fault_runs.TERM, 'threads', marks=pytest.mark.slow
    ),
    pytest.param(
      'linear_eval', fault_runs.INT, 'processes', marks=pytest.mark.slow
    ),
  ],
)
def test_a_signal_has_the_steps_saved_while_the_store_hangs(
  own_store, tmp_path, mode, number, decode_in
):
  process = tiny_run.start(
    command(tmp_path, 's3://bucket/demo', mode, input__decode_in=decode_in)
  )
  folder = tmp_path / FOLDERS[mode]
  fault_runs.wait_until(fault_runs.has_step(folder, 5), process)
  own_store.hang()
  before = -1
  # Until the batches that were made ahead are used up.
  while before != (before := last_step(folder)):
    time.sleep(2)
  assert f'step {before} is saved' in ended_by(process, number)
  assert fault_runs.steps_of(folder) == [before]


@pytest.mark.slow
@pytest.mark.parametrize('mode', FOLDERS)
def test_a_signal_has_the_steps_saved_while_an_evaluation_hangs(
  own_store, tmp_path, mode
):
  process = tiny_run.start(
    command(tmp_path, 's3://bucket/demo', mode, eval_every_steps=6)
  )
  folder = tmp_path / FOLDERS[mode]
  fault_runs.wait_until(fault_runs.has_step(folder, 6), process)
  own_store.hang()
  time.sleep(2)
  assert 'step 6 is saved' in ended_by(process, fault_runs.TERM)
  assert fault_runs.steps_of(folder) == [6]


@pytest.mark.slow
@pytest.mark.parametrize('decode_in', ['threads', 'processes'])
@pytest.mark.parametrize('mode', ['embed', 'knn_eval', 'retrieve'])
def test_a_signal_ends_what_embeds_while_the_store_hangs(
  own_store, tmp_path, mode, decode_in
):
  process = tiny_run.start(
    command(tmp_path, 's3://bucket/demo', mode, input__decode_in=decode_in)
  )
  fault_runs.wait_until(lambda: [*tmp_path.rglob('*.npy.part')], process)
  own_store.hang()
  time.sleep(10)
  ended_by(process, fault_runs.TERM)


@pytest.mark.slow
def test_a_signal_ends_the_first_filling_of_the_bank_while_the_store_hangs(
  own_store, tmp_path
):
  process = tiny_run.start(
    command(
      tmp_path, 's3://bucket/demo', 'train', memory_bank__init='embeddings'
    )
  )
  fault_runs.wait_until(
    fault_runs.has_logged(tmp_path, 'Filling the memory bank'), process
  )
  own_store.hang()
  time.sleep(10)
  ended_by(process, fault_runs.TERM)
