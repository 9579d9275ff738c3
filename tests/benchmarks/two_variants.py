"""Variants for `turns_test.py`, which their processes can import."""

import os
import time


def prepare(seconds):
  runs = []

  def run():
    time.sleep(seconds)
    runs.append(os.getpid())
    return len(runs), os.environ.get('TURNS_TEST')

  return run, {'seconds': seconds}


def fail():
  raise ValueError('out of luck')
