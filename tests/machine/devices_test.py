"""A JAX_PLATFORMS that this machine does not have, in a process of its own."""

import os
import re
import subprocess
import sys

import jax
import pytest
import tiny_run

from vie_jax.machine import devices


@pytest.mark.parametrize('platforms', ['cuda', 'nonsense'])
def test_devices_that_are_not_there_are_named_in_one_line(tmp_path, platforms):
  done = subprocess.run(
    [
      *(sys.executable, 'main.py', '--config=configs/vie_single.py'),
      *('--mode=describe', f'--workdir={tmp_path}'),
    ],
    cwd=tiny_run.REPOSITORY,
    env=dict(os.environ, JAX_PLATFORMS=platforms),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert 'Traceback' not in done.stderr
  said = f'JAX_PLATFORMS is {platforms!r}, and JAX finds no such device here'
  assert said in done.stderr.splitlines()[-1]


def test_devices_that_are_there_are_taken():
  jax.config.update('jax_platforms', 'cpu')
  devices.check_are_there()


@pytest.mark.parametrize(
  'words',
  [
    'The TPU is already in use by process with pid 7.',
    "Unable to initialize backend 'cuda': CUDA_ERROR_DEVICE_UNAVAILABLE",
    "Unable to initialize backend 'tpu': UNAVAILABLE: failed to connect",
  ],
)
def test_a_device_that_does_not_answer_may_do_so_again(monkeypatch, words):
  def taken():
    raise RuntimeError(words)

  jax.config.update('jax_platforms', 'cpu')
  monkeypatch.setattr(jax, 'devices', taken)
  with pytest.raises(RuntimeError, match=re.escape(words)):
    devices.check_are_there()
