"""Batches that are waited for, in a thread of its own."""

import contextlib
import itertools
import threading

import pytest

from vie_jax.processes import ending, preemption
from vie_jax.telemetry import input_wait


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  for name in ('_LOOK_EVERY_SECONDS', '_CLOSING_SECONDS'):
    monkeypatch.setattr(input_wait, name, 0.01)


def wait_for(batches):
  return input_wait.InputWait(contextlib.nullcontext(batches))


def test_batches_come_in_order_and_only_those_that_are_asked_for():
  batches = itertools.count()
  with wait_for(batches) as waiting:
    assert [waiting.next() for _ in range(5)] == [0, 1, 2, 3, 4]
  assert next(batches) == 5


def test_whoever_waits_may_stop(monkeypatch):
  left_open = []
  monkeypatch.setattr(ending, 'leave_open', lambda: left_open.append(True))
  hangs = threading.Event()

  def give():
    yield 'first'
    hangs.wait()

  looks = itertools.count()
  try:
    with wait_for(give()) as waiting:
      assert waiting.next() == 'first'
      monkeypatch.setattr(preemption.SIGNALS, 'poll', lambda: next(looks) >= 3)
      assert waiting.next() is None
      assert next(looks) == 4
      assert not left_open
  finally:
    hangs.set()
  assert left_open


def test_an_error_is_raised_by_whoever_waits():
  def give():
    yield 1
    raise KeyError('lost')

  with wait_for(give()) as waiting:
    assert waiting.next() == 1
    with pytest.raises(KeyError, match='lost'):
      waiting.next()


def test_its_thread_ends_with_it_and_closes_the_batches():
  before, closed = set(threading.enumerate()), []

  @contextlib.contextmanager
  def opened():
    yield itertools.count()
    closed.append(threading.current_thread())

  with input_wait.InputWait(opened()) as waiting:
    waiting.next()
    (thread,) = set(threading.enumerate()) - before
  assert not thread.is_alive()
  assert closed == [thread]
