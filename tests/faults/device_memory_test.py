"""A device has too little memory for a program: one line, no second try."""

import jax
import jax.numpy as jnp
import pytest

from vie_jax.machine import device_memory
from vie_jax.processes import exit_codes
from vie_jax.program import run_errors


@pytest.fixture(scope='module')
def error():
  """What XLA raises for an array of 4 TB."""
  with pytest.raises(jax.errors.JaxRuntimeError) as caught:
    jax.block_until_ready(jax.jit(lambda: jnp.zeros(10**12))())
  return caught.value


def test_what_no_device_can_hold_ends_a_run_in_one_line(error, caplog):
  with pytest.raises(SystemExit) as end:
    run_errors.leave(error, '/the/workdir')
  assert end.value.code == exit_codes.REFUSED
  (message,) = caplog.messages
  assert message.startswith('A device has too little memory: Out of memory')
  assert 'Smaller batches need less (config.batch_size' in message
  assert '\n' not in message


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
    (
      'RESOURCE_EXHAUSTED: Error loading program: Attempting to reserve 12.34G '
      'at the bottom of memory. That was not possible.',
      'memory: Attempting to reserve 12.34G at the bottom of memory. That',
    ),
    (
      'RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to '
      'allocate 15.65G. That was not possible.',
      'memory: Attempting to allocate 15.65G. That was not possible. Smaller',
    ),
    (
      'RESOURCE_EXHAUSTED: Failed to allocate request for 2.00GiB on device '
      'ordinal 0',
      'memory: Failed to allocate request for 2.00GiB on device ordinal 0.',
    ),
    (
      'INTERNAL: failed to create a stream: CUDA_ERROR_OUT_OF_MEMORY: out of '
      'memory',
      'memory: OUT_OF_MEMORY: out of memory. Smaller',
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
