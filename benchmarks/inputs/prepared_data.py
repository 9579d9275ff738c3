"""Data sets, made as a user makes them."""

import subprocess
import sys

from measuring import script


def prepare(command, out, **options):
  """Runs data/prepare.py; ends the script where it fails, which has said why.

  Args:
    command: of it, such as 'folder'.
    out: path of the data set.
    options: of the command: `val_percent=25` is --val-percent=25.
  """
  words = [f'--{name.replace("_", "-")}={options[name]}' for name in options]
  program = str(script.REPOSITORY / 'data' / 'prepare.py')
  code = subprocess.run(
    [sys.executable, program, command, f'--out={out}', *words],
    check=False,
    # Figures alone are printed there.
    stdout=subprocess.DEVNULL,
  ).returncode
  if code:
    sys.exit(f'Error: data/prepare.py {command} ended with {code}.')
