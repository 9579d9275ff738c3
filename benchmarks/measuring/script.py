"""What the commands of benchmarks/ start with, and how they end.

Once this is imported, `vie_jax`, `configs` and what is in data/ are those beside
that folder, whichever are installed. And Ctrl-C ends a command at once, with one
line, while it imports the rest, which takes seconds.
"""

import argparse
import importlib.util
import os
import pathlib
import signal
import sys
import threading

_INTERRUPTED, _SAID = 130, 'Interrupted.\n'


def _end_at_once(unused_number, unused_frame):
  """Of what imports do, nothing has to be ended.

  They may drop a KeyboardInterrupt, or make an error of another kind of it.
  """
  os.write(2, _SAID.encode())
  os._exit(_INTERRUPTED)


# Ignored, as in the background of a shell, it stays so.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
  signal.signal(signal.SIGINT, _end_at_once)

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = map(str, (REPOSITORY, REPOSITORY / 'data'))

import interrupts  # noqa: E402

from vie_jax import option_parser  # noqa: E402

held_back = interrupts.held_back


def parser(head):
  """A parser of options, whose help is the head of the command, as written."""
  return option_parser.OptionParser(
    description=head, formatter_class=argparse.RawDescriptionHelpFormatter
  )


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
  if signal.getsignal(signal.SIGINT) is _end_at_once:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  sys.unraisablehook = _again_where_dropped
  try:
    main()
  except KeyboardInterrupt:
    sys.stderr.write(_SAID)
    sys.exit(_INTERRUPTED)


def _again_where_dropped(unraisable):
  """Has a Ctrl-C that nobody was told of come again, a moment later.

  Python drops what is raised in a callback of its garbage collector; JAX has
  one, and tracing a program collects a lot of garbage.
  """
  if isinstance(unraisable.exc_value, KeyboardInterrupt):
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
  else:
    sys.__unraisablehook__(unraisable)
