"""The linters of the test extra: programs beside this Python, or on PATH."""

import os
import shutil
import subprocess
import sys


def _program(name):
  beside = os.path.dirname(sys.executable)
  found = shutil.which(name, path=f'{beside}{os.pathsep}{os.environ["PATH"]}')
  assert found, f'{name} is missing: pip install -c constraints.txt -e .[test]'
  return found


def shellcheck(text):
  """What ShellCheck has against a shell script; '' if nothing."""
  done = subprocess.run(
    [_program('shellcheck'), '--shell=bash', '--severity=style', '-'],
    input=text,
    capture_output=True,
    text=True,
    check=False,
  )
  return done.stdout + done.stderr


def hadolint(path):
  """What Hadolint has against a Dockerfile; '' if nothing."""
  done = subprocess.run(
    [_program('hadolint'), '--no-color', str(path)],
    capture_output=True,
    text=True,
    check=False,
  )
  return done.stdout + done.stderr
