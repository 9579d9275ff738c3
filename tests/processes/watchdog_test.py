import io
import logging as python_logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from absl import logging

from vie_jax.processes import watchdog

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


class Left(list):
  """Exit codes that a watchdog would have ended the process with."""

  def __init__(self):
    self._is_there = threading.Event()

  def __call__(self, code):
    self.append(code)
    self._is_there.set()

  def wait(self):
    assert self._is_there.wait(30)


def wait_for_ever_in_the_loader(ends):
  ends.wait()


def test_it_ends_a_process_that_hangs_and_says_where(tmp_path, capfd, caplog):
  left, ends, log = Left(), threading.Event(), tmp_path / 'train.log'
  loader = threading.Thread(target=wait_for_ever_in_the_loader, args=(ends,))
  loader.start()
  started = time.monotonic()
  with watchdog.Watchdog(0.5, leave=left) as dog:
    watchdog.also_write_to(log)
    dog.expect('the batch of step 7')
    left.wait()
  assert time.monotonic() - started >= 0.5
  ends.set()
  loader.join()
  assert left == [75]
  assert 'Nothing was heard of the batch of step 7' in caplog.text
  for text in (capfd.readouterr().err, log.read_text()):
    assert 'wait_for_ever_in_the_loader' in text
    assert 'most recent call first' in text


# Says that it is watched, and ends when it is told to.
WATCHED = """
from vie_jax.processes import watchdog
with watchdog.Watchdog(5) as dog:
  dog.expect('a line')
  print('ready', flush=True)
  input()
"""


def test_time_in_which_the_process_is_suspended_does_not_count():
  process = subprocess.Popen(
    [sys.executable, '-c', WATCHED],
    env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(signal.SIGSTOP)
  time.sleep(7)
  process.send_signal(signal.SIGCONT)
  time.sleep(1)
  _, errors = process.communicate('\n', timeout=60)
  assert (process.returncode, errors) == (0, '')


def test_it_ends_a_process_whose_log_hangs(capfd, monkeypatch):
  """As where the file system of the workdir is what is gone."""
  monkeypatch.setattr(watchdog, '_TELL_SECONDS', 0.5)
  left, handler = Left(), python_logging.StreamHandler(io.StringIO())
  logger = logging.get_absl_logger()
  logger.addHandler(handler)
  started, threads = time.monotonic(), set(threading.enumerate())
  handler.acquire()  # as the thread that hangs in a write has it
  try:
    with watchdog.Watchdog(0.1, leave=left) as dog:
      dog.expect('the batch of step 7')
      left.wait()
    took = time.monotonic() - started
    error = capfd.readouterr().err
  finally:
    handler.release()
    logger.removeHandler(handler)
    # What hung goes on now, and must not write into the next test's output.
    for thread in set(threading.enumerate()) - threads:
      thread.join(10)
  assert left == [75]
  assert took < 5
  assert 'Nothing was heard of the batch of step 7' in error
  assert 'test_it_ends_a_process_whose_log_hangs' in error


@pytest.mark.parametrize('beats', ['expect', 'beat', 'module', 'expectation'])
def test_it_is_quiet_while_work_goes_on(beats):
  left = Left()
  with watchdog.Watchdog(1.0, leave=left) as dog:
    for number in range(15):
      time.sleep(0.1)
      if beats == 'expect':
        dog.expect(f'step {number}')
      elif beats == 'beat':
        dog.beat()
      elif beats == 'expectation':
        watchdog.expect(f'step {number}')
      else:
        watchdog.beat()
  assert left == []


def test_what_is_slow_has_more_time():
  left = Left()
  with watchdog.Watchdog(0.2, 60, leave=left) as dog:
    dog.expect('the first step', is_slow=True)
    time.sleep(0.6)
    assert left == []
    dog.expect('a step')
    left.wait()
  assert left == [75]


def test_what_is_expected_from_afar_is_named(caplog):
  left = Left()
  with watchdog.Watchdog(0.2, 60, leave=left):
    watchdog.expect('batch 3 that fills the bank')
    left.wait()
  assert 'Nothing was heard of batch 3 that fills the bank' in caplog.text
  watchdog.expect('nothing, as nobody watches')


@pytest.mark.parametrize('seconds', [0, -1])
def test_without_seconds_nothing_is_watched(seconds):
  before = threading.active_count()
  with watchdog.Watchdog(seconds, leave=Left()) as dog:
    dog.expect('nothing')
    assert threading.active_count() == before


def test_who_waits_for_others_is_not_watched():
  left = Left()
  with watchdog.Watchdog(0.2, leave=left) as dog:
    dog.expect('step 7')
    with watchdog.resting():
      time.sleep(0.7)
    assert left == []
    left.wait()
  assert left == [75]
  with watchdog.resting():
    pass  # Nobody watches.
