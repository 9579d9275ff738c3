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


@pytest.mark.slow
def test_a_run_whose_store_goes_away_asks_to_be_run_again(
  demo_dataset, s3, tmp_path, monkeypatch
):
  s3.files.put(f'{demo_dataset}{os.sep}', f'{s3.url}/demo/', recursive=True)
  for name, value in s3.server.environment.items():
    monkeypatch.setenv(name, value)
  no_tries = '{"config_kwargs": {"retries": {"max_attempts": 0}}}'
  monkeypatch.setenv('FSSPEC_S3', no_tries)
  command = tiny_run.command(
    tmp_path, f'{s3.url}/demo', num_steps=1000, eval_every_steps=1000
  )
  process = tiny_run.start(command)
  fault_runs.wait_until(fault_runs.has_step(tmp_path, 5), process)
  s3.server.stop()
  output = tiny_run.output_of(process)
  assert process.returncode == fault_runs.RETRY, output
  assert 'cannot be reached' in output.splitlines()[-1]
  assert 'Traceback' not in output
  # What was done is what was saved.
  assert fault_runs.steps_of(tmp_path)[-1] == last_step(tmp_path)


def last_step(workdir):
  return max(step for step, _ in fault_runs.figures(workdir))


@pytest.mark.parametrize(
  'number, decode_in',
  [(fault_runs.TERM, 'threads'), (fault_runs.INT, 'processes')],
)
def test_a_signal_has_the_steps_saved_while_the_store_hangs(
  demo_dataset, tmp_path, monkeypatch, number, decode_in
):
  with s3_server.running(tmp_path) as server:
    for name, value in server.environment.items():
      monkeypatch.setenv(name, value)
    files = fsspec.filesystem('s3', skip_instance_cache=True)
    files.mkdir('bucket')
    files.put(f'{demo_dataset}{os.sep}', 's3://bucket/demo/', recursive=True)
    workdir = tmp_path / 'run'
    command = tiny_run.command(
      workdir,
      's3://bucket/demo',
      num_steps=1000,
      eval_every_steps=1000,
      checkpoint_every_steps=1000,
    )
    process = tiny_run.start(
      [*command, f'--config.input.decode_in={decode_in}']
    )
    fault_runs.wait_until(fault_runs.has_step(workdir, 5), process)
    server.hang()
    before = -1
    # Until the batches that were made ahead are used up.
    while before != (before := last_step(workdir)):
      time.sleep(2)
    process.send_signal(number)
    output = tiny_run.output_of(process, patience_seconds=60)
  code = (
    fault_runs.INTERRUPTED if number == fault_runs.INT else fault_runs.RETRY
  )
  assert process.returncode == code, output
  assert f'step {before} is saved. The same command goes on' in output
  assert 'Traceback' not in output
  assert fault_runs.steps_of(workdir) == [before]
