"""A device has too little memory for a run: one line, and no second try."""

import jax
import processes
import pytest
import tiny_run

from vie_jax import device_memory

REFUSED = 2
# A bank of 36 videos, and 400 GB for each thousand of its rows.
TOO_MUCH = {'model__embedding_size': 100_000_000, 'num_devices': 0}


@pytest.mark.parametrize('num_processes', [1, 2])
def test_what_no_device_can_hold_is_refused_in_one_line(
  demo_dataset, tmp_path, num_processes
):
  command = tiny_run.command(tmp_path / 'run', demo_dataset, **TOO_MUCH)
  run = processes.Processes(
    [command] * num_processes, tmp_path / 'said', num_devices=1
  )
  ended = run.wait()
  assert [process.code for process in ended] == [REFUSED] * num_processes
  logs = '\n'.join(process.log for process in ended)
  assert 'A device has too little memory: Out of memory' in logs
  assert 'Smaller batches need less (config.batch_size' in logs
  assert 'Traceback' not in logs
  assert 'mistake in the code' not in logs


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    (
      'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.',
      'memory: Out of memory while trying to allocate 8 bytes. Smaller',
    ),
    (
      'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory '
      'in memory space hbm. Used 20.5G of 15.75G hbm.\n\nLargest: ...',
      'memory: Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm'
      '. Smaller',
    ),
  ],
)
def test_what_the_compilers_say_is_said_again(text, said):
  error = jax.errors.JaxRuntimeError(text)
  assert device_memory.is_exhausted(error)
  assert said in device_memory.message(error)
  assert '\n' not in device_memory.message(error)


@pytest.mark.parametrize(
  'error',
  [
    jax.errors.JaxRuntimeError('INTERNAL: Failed to launch a kernel'),
    ValueError('RESOURCE_EXHAUSTED: Out of memory'),
  ],
  ids=str,
)
def test_other_errors_are_not_of_memory(error):
  assert not device_memory.is_exhausted(error)
