"""The benchmarks' arguments, for argparse: their types, and what many have."""

import argparse
import contextlib
import math
import pathlib
import tempfile

from measuring import program_runs


def add_rounds(parser, default):
  """Adds --rounds."""
  parser.add_argument(
    '--rounds',
    type=count,
    default=default,
    help='how often each is measured, in turn (default: %(default)s)',
  )


def count(text):
  """A whole number of at least 1."""
  # Few digits: Python refuses thousands of them in words of its own.
  if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number above 0')
  return int(text)


def positive(text):
  """A finite number above 0."""
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 < value < math.inf:
    raise argparse.ArgumentTypeError(f'{text!r} is no number above 0')
  return value


def folder(text):
  """Path of a folder that is there."""
  if not pathlib.Path(text).is_dir():
    raise argparse.ArgumentTypeError(f'there is no folder {text}')
  return text


def new_file(text):
  """Path of a file that is written at the end, in a folder that is there."""
  path = pathlib.Path(text)
  if path.is_dir():
    raise argparse.ArgumentTypeError(f'{text} is a folder')
  folder(path.parent)
  was_there = path.exists()
  with _writes(text):
    open(path, 'ab').close()
  if not was_there:
    path.unlink()
  return text


def new_folder(text):
  """Path of a folder that can be written to; it is made if it is not there."""
  with _writes(text):
    pathlib.Path(text).mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=text).close()
  return text


@contextlib.contextmanager
def _writes(text):
  """Has argparse tell of a path that cannot be written."""
  try:
    yield
  except OSError as error:
    raise argparse.ArgumentTypeError(
      f'cannot write {text}: {error.strerror}'
    ) from None


def config(text):
  """Name of a config, such as vie_single or configs/demo.py:single."""
  try:
    program_runs.config_of(text)
  except (ImportError, TypeError, ValueError) as error:
    raise argparse.ArgumentTypeError(
      f'{text!r} is no config: {error}'
    ) from None
  return text


def config_file(text):
  """Likewise, as main.py has it: configs/NAME.py, and maybe a variant."""
  if not text.startswith('configs/'):
    raise argparse.ArgumentTypeError(f'{text!r} is no file of configs/')
  return config(text)
