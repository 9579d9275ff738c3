"""Processes find, agree with and end one another: real ones do so here."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import processes
import pytest
import tiny_run

# A program that is begun and ended as main.py does it.
PROGRAM = """
import faulthandler, os, pathlib, sys, time
import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from vie_jax.telemetry import run_log
from vie_jax.processes import agreement, distributed, ending, peers
run_log.to_terminal()
faulthandler.enable()  # as absl's app.run does
try:
  distributed.initialize(
    'auto', distributed.Timeouts(connect=60, heartbeat=10, shutdown=10)
  )
  index, folder = peers.index(), pathlib.Path(sys.argv[1])
  {body}
except Exception as error:
  ending.leave_if_another_has()
  if ending.tells_of_loss(error):
    logging.error('Another is gone.')
    ending.leave(75, 'Another is gone.', is_loss=True)
  logging.error('%s', error)
  ending.leave(2, str(error))
distributed.finish()
"""


def commands(body, folder, count=2):
  program = PROGRAM.format(body=body.strip().replace('\n', '\n  '))
  return [[sys.executable, '-c', program, str(folder)]] * count


def ended(body, folder, **options):
  return processes.Processes(
    commands(body, folder), folder / 'logs', **options
  ).wait()


def lonely(folder, index, port):
  """Process `index` of two, which ends where the other one does not come."""
  program = [
    part.replace('connect=60', 'connect=3')
    for part in commands('', folder, count=1)[0]
  ]
  return processes.Processes(
    [program], folder, environs=[processes.variables(index, 2, port)]
  ).wait()[0]


def last_line(process):
  return process.log.strip().splitlines()[-1]


def test_processes_agree_and_end_together(tmp_path):
  body = """
assert peers.is_shared() and peers.count() == 2
assert index == jax.process_index()
agreement.check_same({'a': {'b': [1, 2]}, 'c': None})
assert agreement.gather('x', {'of': index}) == [{'of': 0}, {'of': 1}]
assert agreement.gather('x', index) == [0, 1]  # the name is free again
assert agreement.by_first('y', lambda: index + 7) == 7
agreement.share_folder(folder / 'made' / 'here')
total = multihost_utils.process_allgather(np.ones(3))
assert total.shape == (2, 3)
os.write(1, b'a native library speaks\\n')
print(peers.describe())
"""
  both = processes.run(commands(body, tmp_path), tmp_path / 'logs')
  for index, process in enumerate(both):
    # Standard output is the program's alone.
    assert process.output == f'process {index} of 2, 2 of 4 devices\n'
    assert 'a native library speaks' in process.log
  assert os.listdir(tmp_path / 'made' / 'here') == []


@pytest.mark.parametrize(
  'body, message',
  [
    (
      "agreement.check_same({'config': {'seed': index, 'same': 1}})",
      'The processes of a run must be alike. config.seed is 0 in process 0 '
      'and 1 in process 1.',
    ),
    pytest.param(
      # Two folders of one name, as on two hosts.
      'agreement._SEEN_SECONDS = 0.1\n'
      'agreement.share_folder(folder / str(index))',
      'is not on a file system that all processes share: process 1 on '
      f'{socket.gethostname()} does not see',
      marks=pytest.mark.slow,
    ),
  ],
  ids=['different', 'not_shared'],
)
def test_processes_that_do_not_fit_together_are_refused(
  tmp_path, body, message
):
  first, second = ended(body, tmp_path)
  assert (first.code, second.code) == (2, 2)
  assert message in last_line(second)
  # The other says who it was and why.
  host = socket.gethostname()
  assert f'Process 1 of 2 on {host} has ended, and so' in last_line(first)
  assert message in last_line(first)


@pytest.mark.slow
def test_different_numbers_of_devices_are_refused(tmp_path):
  flags = '--xla_force_host_platform_device_count='
  environs = [{'XLA_FLAGS': f'{flags}{number}'} for number in (2, 3)]
  both = ended('', tmp_path, environs=environs)
  for process in both:
    assert process.code == 2
    assert (
      'number of devices is 2 in process 0 and 3 in process 1.'
    ) in last_line(process)


@pytest.mark.parametrize(
  'failing', [0, pytest.param(1, marks=pytest.mark.slow)]
)
def test_an_error_of_one_process_ends_all(tmp_path, failing):
  body = f"""
if index == {failing}:
  raise ValueError('the disk is on fire')
multihost_utils.process_allgather(np.ones(3))  # waits for the other
"""
  both = ended(body, tmp_path)
  assert [process.code for process in both] == [2, 2]
  for process in both:
    assert last_line(process).endswith('the disk is on fire')
  # Soon, and not when JAX notices that a process is gone.
  assert abs(both[0].seconds - both[1].seconds) < 10


@pytest.mark.slow
def test_a_process_may_come_late_to_the_first_computation(tmp_path):
  body = """
from vie_jax import sharding
mesh = sharding.make_mesh()
if index == 1:
  time.sleep(40)  # as when it compiles
ones = sharding.place(np.ones(8), sharding.rows(mesh))
add = jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(mesh))
assert float(add(ones)) == 8
"""
  processes.run(commands(body, tmp_path), tmp_path / 'logs')


@pytest.mark.parametrize('killed', [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_ends_the_others(tmp_path, killed):
  body = f"""
for number in range(1000):
  if number == 20 and index == {killed}:
    os.kill(os.getpid(), 9)
  multihost_utils.process_allgather(np.ones(3))
"""
  both = ended(body, tmp_path)
  assert both[killed].code == -9
  other = both[1 - killed]
  assert other.code == 75, other.log
  assert other.seconds - both[killed].seconds < 10
  if killed == 0:
    assert 'Process 0 of 2, at localhost:' in last_line(other)
    assert 'Run the same command again' in last_line(other)
  else:
    assert last_line(other).endswith('Another is gone.')


def test_without_its_coordinator_a_process_that_computes_nothing_ends(tmp_path):
  body = """
if index == 0:
  time.sleep(1)
  os.kill(os.getpid(), 9)
time.sleep(60)
"""
  first, other = ended(body, tmp_path)
  assert (first.code, other.code) == (-9, 75), other.log
  assert other.seconds - first.seconds < 10
  assert 'Process 0 of 2, at localhost:' in last_line(other)


@pytest.mark.slow
def test_an_abort_of_another_kind_is_as_it_was(tmp_path):
  body = """
if index == 1:
  os.abort()
time.sleep(60)
"""
  first, other = ended(body, tmp_path)
  assert other.code == -6
  assert 'is gone, and with it' not in other.log
  # The stacks, which what handled it before prints.
  assert 'Current thread' in other.log
  assert first.code not in (0, 2)


def test_a_coordinator_that_is_not_there_is_named(tmp_path):
  port = processes.free_port()
  ended = lonely(tmp_path, 1, port)
  assert ended.code == 75
  assert (
    f'Process 1 waited 3 s for the coordinator at localhost:{port}'
  ) in last_line(ended)


def test_processes_that_do_not_come_are_missed(tmp_path):
  port = processes.free_port()
  ended = lonely(tmp_path, 0, port)
  assert ended.code == 75
  assert f'Process 0 waited 3 s at localhost:{port} for all 2' in ended.log


@pytest.mark.parametrize('index', [0, 1])
def test_a_signal_ends_a_process_that_waits_for_the_others(tmp_path, index):
  """Which waits outside of Python."""
  with socket.socket() as coordinator:
    coordinator.bind(('localhost', 0))
    port = coordinator.getsockname()[1]
    if index:
      coordinator.listen()
    else:
      coordinator.close()
    with subprocess.Popen(
      [
        *(sys.executable, 'main.py', '--config=configs/vie_single.py'),
        *('--mode=describe', f'--workdir={tmp_path}'),
      ],
      cwd=tiny_run.REPOSITORY,
      env=os.environ | processes.variables(index, 2, port),
      stderr=subprocess.PIPE,
      text=True,
    ) as waiting:
      if index:
        coordinator.settimeout(tiny_run.PATIENCE_SECONDS)
        coordinator.accept()[0].close()
      else:
        _connect(port)
      waiting.send_signal(signal.SIGTERM)
      try:
        _, said = waiting.communicate(timeout=tiny_run.PATIENCE_SECONDS / 3)
      finally:
        waiting.kill()
  assert waiting.returncode == 75
  assert 'SIGTERM: leaving at once' in said


def _connect(port):
  """Waits until somebody listens."""
  until = time.monotonic() + tiny_run.PATIENCE_SECONDS
  while time.monotonic() < until:
    with contextlib.suppress(ConnectionRefusedError):
      return socket.create_connection(('localhost', port)).close()
    time.sleep(0.1)
  raise TimeoutError(port)


def test_a_port_that_is_taken_is_named(tmp_path):
  with socket.socket(socket.AF_INET6) as taken:
    taken.bind(('::', 0))
    taken.listen()
    port = taken.getsockname()[1]
    ended = lonely(tmp_path, 0, port)
  assert ended.code == 2
  assert f'Process 0 cannot start at localhost:{port}' in last_line(ended)
