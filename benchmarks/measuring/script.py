"""What the commands of benchmarks/ start with, and how they end.

Once this is imported, `vie_jax`, `configs` and what is in data/ are those beside
that folder, whichever are installed.
"""

import importlib.util
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = map(str, (REPOSITORY, REPOSITORY / 'data'))

import interrupts  # noqa: E402

held_back = interrupts.held_back
_INTERRUPTED = 130


def require(package, remedy="pip install -e '.[benchmark]'"):
  """Ends the script with one line if a package is missing.

  Args:
    package: as it is imported.
    remedy: what to do.
  """
  if importlib.util.find_spec(package) is None:
    sys.exit(f'Error: {package} is not installed: {remedy}')


def run(main):
  """Runs a script; Ctrl-C ends it with one line, and not with a traceback.

  Args:
    main: function of nothing; what it has started ends when it does.
  """
  try:
    main()
  except KeyboardInterrupt:
    print('Interrupted.', file=sys.stderr)
    sys.exit(_INTERRUPTED)
