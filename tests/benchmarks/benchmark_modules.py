"""Imports scripts of benchmarks/, which is no package."""

import importlib
import pathlib

FOLDER = pathlib.Path(__file__).parents[2] / 'benchmarks'


def load(monkeypatch, *names):
  """Modules of benchmarks/, which then find one another."""
  monkeypatch.syspath_prepend(str(FOLDER))
  return [importlib.import_module(name) for name in names]
