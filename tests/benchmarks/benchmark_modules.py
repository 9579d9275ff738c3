"""Imports scripts of benchmarks/, which is no package."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parents[2] / 'benchmarks'


def load(monkeypatch, *names):
  """Modules of benchmarks/, which then find one another."""
  monkeypatch.syspath_prepend(str(FOLDER))
  # A command has Ctrl-C end it at once while it imports.
  before = signal.getsignal(signal.SIGINT)
  try:
    return [importlib.import_module(name) for name in names]
  finally:
    signal.signal(signal.SIGINT, before)


def run(script, *options):
  """Runs one that must succeed, on one device; returns its figures.

  What it runs is compiled quickly, and not to be quick.
  """
  done = subprocess.run(
    [sys.executable, FOLDER / script, *options],
    capture_output=True,
    text=True,
    check=False,
    timeout=1800,
    env=os.environ | {'XLA_FLAGS': '--xla_backend_optimization_level=0'},
  )
  assert done.returncode == 0, done.stderr
  return figures(done.stdout)


def figures(printed):
  """Parses what a benchmark has printed, which must be complete."""
  *lines, last = map(json.loads, printed.splitlines())
  assert last == {
    'benchmark': lines[0]['benchmark'],
    'figures': len(lines),
    'is_complete': True,
  }
  return lines
