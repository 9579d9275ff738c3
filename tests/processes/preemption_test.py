"""Signals, in processes of their own that do nothing else."""

import os
import signal
import subprocess
import sys
import time

import processes
import pytest
import tiny_run

# Says where it is on standard output; its last line is what became of it.
PROGRAM = """
import hashlib, sys, time
from vie_jax.processes import preemption
signals = preemption.SIGNALS
signals.listen()
signals.listen(('SIGUSR1',))
def say(text):
  print(text, flush=True)
def work():
  say('ready')
  until = time.monotonic() + 60
  while time.monotonic() < until:
    time.sleep(0.01)
    if signals.poll():
      return say('polled')
def stir():
  hashlib.pbkdf2_hmac('sha256', b'password', b'salt', 2**31 - 1)
try:
  {body}
except preemption.Stopped as stopped:
  say('stopped')
  time.sleep(0.5)
  sys.exit(signals.exit_code)
"""
BODIES = {
  'starting': 'work()',
  'raising': 'with signals.raising(): say("ready"); time.sleep(60)',
  'deferring': 'with signals.raising(), signals.deferring(): work()',
  'checking': 'with signals.deferring(): work(); signals.check()',
  # Never comes back to Python, as a long compilation.
  'busy': 'with signals.deferring(): say("ready"); stir()',
  'leaving': 'with signals.deferring(), signals.leaving(): say("ready"); stir()',
  # Heard before, and not to be waited for.
  'late': 'with signals.deferring():\n    work()\n    with signals.leaving(): '
  'say("too late")',
}


def start(body):
  return subprocess.Popen(
    [sys.executable, '-c', PROGRAM.format(body=body)],
    cwd=tiny_run.REPOSITORY,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def outcome(mode, *numbers):
  """(exit code, lines behind 'ready', what was logged)."""
  process = start(BODIES[mode])
  assert process.stdout.readline() == 'ready\n'
  for number in numbers:
    os.kill(process.pid, number)
    time.sleep(0.3)
  try:
    said, log = process.communicate(timeout=100)
  finally:
    process.kill()
  return process.returncode, said.split(), log


@pytest.mark.parametrize(
  'mode, numbers, code, said',
  [
    ('starting', [signal.SIGTERM], 75, []),
    ('starting', [signal.SIGINT], 130, []),
    ('raising', [signal.SIGTERM], 75, ['stopped']),
    ('raising', [signal.SIGUSR1], 75, ['stopped']),
    ('raising', [signal.SIGHUP], 75, ['stopped']),
    ('raising', [signal.SIGINT], 130, ['stopped']),
    # What is cleaned up comes to its end.
    ('raising', [signal.SIGTERM, signal.SIGTERM], 75, ['stopped']),
    ('deferring', [signal.SIGTERM], 0, ['polled']),
    ('checking', [signal.SIGTERM], 75, ['polled', 'stopped']),
    ('checking', [signal.SIGINT], 130, ['polled', 'stopped']),
    ('checking', [signal.SIGHUP], 75, ['polled', 'stopped']),
    ('busy', [signal.SIGINT, signal.SIGINT], 130, []),
    ('leaving', [signal.SIGTERM], 75, []),
    ('leaving', [signal.SIGINT], 130, []),
    ('late', [signal.SIGTERM], 75, ['polled']),
    ('busy', [signal.SIGTERM, signal.SIGINT, signal.SIGINT], 130, []),
  ],
)
def test_what_becomes_of_a_signal(mode, numbers, code, said):
  found, lines, log = outcome(mode, *numbers)
  assert (found, lines) == (code, said), log
  words = {'starting': '', 'leaving': 'leaving at once'}.get(mode, 'stopping')
  assert not words or f'{numbers[0].name}: {words}' in log
  assert ('leaving at once' in log) == (mode in ('leaving', 'late'))


# As in the background of a shell, and below nohup.
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_so(number):
  process = subprocess.Popen(
    [sys.executable, '-c', PROGRAM.format(body=BODIES['checking'])],
    cwd=tiny_run.REPOSITORY,
    stdout=subprocess.PIPE,
    preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
  )
  assert process.stdout.readline() == b'ready\n'
  os.kill(process.pid, number)
  time.sleep(0.3)
  assert process.poll() is None
  os.kill(process.pid, signal.SIGTERM)
  process.communicate(timeout=100)
  assert process.returncode == 75


# As main.py does it.
SHARED = """
import os, pathlib, sys, time
import jax
from jax.experimental import multihost_utils
from vie_jax.telemetry import run_log
from vie_jax.processes import (
  agreement, distributed, ending, peers, preemption
)
signals = preemption.SIGNALS
signals.listen()
signals.listen(('SIGUSR1',))
run_log.to_terminal()
try:
  with signals.raising():
    distributed.initialize(
      'auto', distributed.Timeouts(connect=60, heartbeat=20, shutdown=20)
    )
    signals.agree_by(multihost_utils.reached_preemption_sync_point)
    index = peers.index()
    with signals.deferring():
      for step in range(1, 10**6):
        time.sleep(0.01 * (1 + index))
        if step == 20:
          pathlib.Path(sys.argv[1], f'pid-{index}').write_text(str(os.getpid()))
        if signals.poll():
          print(f'leaving after step {step}', flush=True)
          break
        # A step is one computation of all.
        agreement.wait_for_all('step')
      signals.check()
except preemption.Stopped as stopped:
  ending.leave(signals.exit_code, str(stopped))
"""


@pytest.mark.parametrize(
  'index, number, code',
  [
    pytest.param(0, signal.SIGTERM, 75, marks=pytest.mark.slow),
    (1, signal.SIGTERM, 75),
    pytest.param(1, signal.SIGUSR1, 75, marks=pytest.mark.slow),
  ],
)
def test_processes_agree_on_the_step_to_leave_after(
  tmp_path, index, number, code
):
  command = [sys.executable, '-c', SHARED, str(tmp_path)]
  run = processes.Processes([command] * 2, tmp_path / 'logs')
  paths = [tmp_path / f'pid-{number}' for number in range(2)]
  deadline = time.monotonic() + tiny_run.PATIENCE_SECONDS
  while not all(path.exists() and path.read_text() for path in paths):
    assert time.monotonic() < deadline, run.said(0) + run.said(1)
    assert all(process.poll() is None for process in run.processes), run.said(0)
    time.sleep(0.02)
  since = time.monotonic()
  os.kill(int(paths[index].read_text()), number)
  ended = run.wait()
  print(f'all out {time.monotonic() - since:.1f} s after {number.name}')
  assert [process.code for process in ended] == [code, code], ended[0].log
  one, other = (process.output.strip() for process in ended)
  assert one == other
  assert one.startswith('leaving after step ')
