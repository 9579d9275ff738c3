"""Batches that are waited for, in a thread of its own."""

import itertools
import threading

import pytest

from vie_jax import input_wait


def never():
  return False


def test_batches_come_in_order_and_only_those_that_are_asked_for():
  batches = itertools.count()
  with input_wait.InputWait(batches) as waiting:
    assert [waiting.next(never) for _ in range(5)] == [0, 1, 2, 3, 4]
  assert next(batches) == 5


def test_whoever_waits_may_stop(monkeypatch):
  monkeypatch.setattr(input_wait, '_LOOK_EVERY_SECONDS', 0.01)
  hangs = threading.Event()

  def give():
    yield 'first'
    hangs.wait()

  looks = itertools.count()
  try:
    with input_wait.InputWait(give()) as waiting:
      assert waiting.next(never) == 'first'
      assert waiting.next(lambda: next(looks) == 3) is None
  finally:
    hangs.set()
  assert next(looks) == 4


def test_an_error_is_raised_by_whoever_waits():
  def give():
    yield 1
    raise KeyError('lost')

  with input_wait.InputWait(give()) as waiting:
    assert waiting.next(never) == 1
    with pytest.raises(KeyError, match='lost'):
      waiting.next(never)


def test_its_thread_ends_with_it():
  before = set(threading.enumerate())
  with input_wait.InputWait(itertools.count()) as waiting:
    waiting.next(never)
    (thread,) = set(threading.enumerate()) - before
  thread.join(10)
  assert not thread.is_alive()
