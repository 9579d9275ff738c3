"""A process that writes to a workdir, as a run does."""

import pathlib
import subprocess
import sys

_REPOSITORY = pathlib.Path(__file__).parents[1]
_HOLDER = """
import sys, time
from vie_jax.files import workdir_lock
with workdir_lock.hold(sys.argv[1]):
  print('held', flush=True)
  time.sleep(600)
"""


def start(folder):
  """Another process that holds the lock, and holds it."""
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLDER, str(folder)],
    cwd=_REPOSITORY,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'held\n'
  return process
