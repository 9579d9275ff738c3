import subprocess
import sys

import fault_runs
import pytest
import tiny_run

from vie_jax.processes import exit_codes


def test_codes_that_end_all_tries_are_told_from_the_one_that_does_not():
  assert exit_codes.RETRY not in exit_codes.FINAL
  assert {*exit_codes.FINAL} == {0, 2, 130}


STRAY_THREAD = """
import threading
threading.Thread(target=threading.Event().wait).start()
"""
BUG = """
from vie_jax import describe
def unexpected(*args, **options):
  raise KeyError('a bug')
describe.describe = unexpected
"""


@pytest.mark.parametrize(
  ('patch', 'code', 'said'),
  [
    pytest.param('', 0, 'conv5', marks=pytest.mark.slow),
    (BUG, 1, "KeyError: 'a bug'"),
  ],
)
def test_an_end_does_not_wait_for_a_thread_of_a_library(patch, code, said):
  config = tiny_run.REPOSITORY / 'configs' / 'vie_single.py'
  command = [
    sys.executable,
    str(tiny_run.REPOSITORY / 'main.py'),
    f'--config={config}',
    '--mode=describe',
  ]
  ended = subprocess.run(
    fault_runs.patched(command, STRAY_THREAD + patch),
    capture_output=True,
    env=tiny_run.environment(),
    text=True,
    timeout=120,
  )
  assert ended.returncode == code, ended.stderr
  assert said in ended.stdout + ended.stderr
