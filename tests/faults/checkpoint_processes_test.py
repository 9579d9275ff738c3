"""Checkpoints of two real processes, and of two read by one."""

import os
import socket
import subprocess
import sys

import jax
import pytest
import tiny_run
from faults import checkpoint_program

from vie_jax import checkpoint, sharding
from vie_jax.files import workdir_lock
from vie_jax.saved_steps import leaf_digest


def free_port():
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def run_two(what, workdir):
  """Runs two processes; returns what each of them said."""
  port = str(free_port())
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  processes = [
    subprocess.Popen(
      [
        *(sys.executable, '-m', 'tests.faults.checkpoint_processes_program'),
        *(port, '2', str(number), what, str(workdir)),
      ],
      cwd=tiny_run.REPOSITORY,
      env=environment | {'JAX_PLATFORMS': 'cpu'},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for number in range(2)
  ]
  outputs = [tiny_run.output_of(process) for process in processes]
  for process in processes:
    assert process.returncode == 0, '\n'.join(outputs)
  said = [
    [line[2:] for line in output.split('\n') if line.startswith('> ')]
    for output in outputs
  ]
  return said, outputs


def digests_of(state):
  return leaf_digest.Digests(jax.tree.leaves(state)).values()


def flip_bit(folder):
  """Changes a value in the bank."""
  files = (folder / 'memory_bank').rglob('d/*')
  path = max(files, key=lambda path: path.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


@pytest.mark.slow
def test_two_processes_save_and_one_or_two_restore(tmp_path):
  said, _ = run_two('save', tmp_path)
  assert said == [['saved 3'], ['saved 3']]
  folder = tmp_path / 'checkpoints'
  assert sorted(path.name for path in folder.iterdir()) == ['2', '3']
  assert not (tmp_path / '.lock').exists()

  shapes = checkpoint_program.shapes(sharding.make_mesh(1))
  with checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints:
    expected = {
      step: digests_of(checkpoints.restore(step, shapes)) for step in (2, 3)
    }
  # What one process damages, two find, and agree on the step before.
  flip_bit(folder / '3')
  said, outputs = run_two('restore', tmp_path)
  assert said[0] == said[1] == [' '.join(['restored', '2', *expected[2]])]
  assert 'checkpoints/3 is damaged: ' in outputs[0]
  assert (folder / '3.damaged').is_dir()


@pytest.mark.slow
def test_if_one_of_two_cannot_save_both_know(tmp_path):
  said, _ = run_two('fail', tmp_path)
  assert said == [['failed None', 'saved 1']] * 2


@pytest.mark.slow
def test_two_processes_are_refused_together(tmp_path):
  with workdir_lock.hold(tmp_path):
    said, _ = run_two('lock', tmp_path)
  assert said[0] == said[1]
  assert f'process {os.getpid()} on ' in said[0][0]
