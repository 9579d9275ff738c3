import signal
import subprocess
import sys

import pytest
import tiny_run

CHILD = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *unused: sys.exit(75))
print('waits', flush=True)
signal.pause()
"""
DEMO = f"""
import sys
sys.path.insert(0, 'launch')
import demo
demo.run('-c', {CHILD!r})
"""


@pytest.mark.slow
def test_sigterm_reaches_the_training_and_its_exit_code_comes_back():
  process = subprocess.Popen(
    [sys.executable, '-c', DEMO],
    cwd=tiny_run.REPOSITORY,
    env=tiny_run.environment(),
    stdout=subprocess.PIPE,
    text=True,
  )
  while process.stdout.readline().strip() != 'waits':
    assert process.poll() is None
  process.send_signal(signal.SIGTERM)
  assert process.wait(60) == 75
