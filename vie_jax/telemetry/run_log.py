"""The plain log of a run, on the terminal and in its workdir."""

import collections
import contextlib
import copy
import logging as python_logging
import os
import pathlib
import sys
import traceback

from absl import logging

from vie_jax.files import patient_file
from vie_jax.processes import watchdog
from vie_jax.untrusted import text

FILE_NAME = 'train.log'
# That wait for room in memory.
_MOST_BYTES = 2**20
_MOST_EARLIER = 1000
_IS_LONG = 'is_long'
_IS_LISTING = 'is_listing'
_NOISY = (
  f'{os.sep}orbax{os.sep}',
  f'{os.sep}etils{os.sep}',
  f'{os.sep}jax{os.sep}_src{os.sep}distributed',
  'xla_bridge',
)


def _is_ours(record: python_logging.LogRecord) -> bool:
  """Whether a line is worth reading: libraries speak only when it matters.

  What orbax logs as an error it raises, too, and `step_saver` says it in a
  line; so it does what asyncio says of the other arrays of that save.
  """
  if record.name == 'asyncio' and record.exc_info:
    frames = traceback.extract_tb(record.exc_info[2])
    if any(_NOISY[0] in frame.filename for frame in frames):
      return False
  is_noise = any(part in record.pathname for part in _NOISY)
  is_said = _NOISY[0] in record.pathname
  return not is_noise or (
    record.levelno >= python_logging.ERROR and not is_said
  )


def _is_for_terminal(record: python_logging.LogRecord) -> bool:
  return _is_ours(record) and not getattr(record, _IS_LONG, False)


def _say_unraisable(unraisable) -> None:
  """Python's own, but for what writes of a save that failed come too late."""
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)


def _is_listing(record: python_logging.LogRecord) -> bool:
  """Whether the wording of a message has several lines."""
  return getattr(record, _IS_LISTING, '\n' in str(record.msg))


class _Formatter(python_logging.Formatter):
  """Time and message, in words that a reader of the log knows.

  Names of files are in it, which may hold anything. So a message has the lines
  that its wording has, and no line but its first begins with a time.
  """

  def format(self, record):
    line = super().format(record)
    is_listing = _is_listing(record) or record.exc_info
    lines = line.split('\n') if is_listing else [line]
    return '\n  '.join(map(text.printable, lines))


class _FileHandler(python_logging.Handler):
  """Appends to a file; lines wait in memory while its disk is full."""

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self._path = path
    self._file = patient_file.PatientFile(path, most_bytes=_MOST_BYTES)
    self._has_told = False

  def emit(self, record):
    try:
      self._file.write(self.format(record) + '\n')
    except OSError as error:
      if not self._has_told:
        self._has_told = True
        print(f'{self._path} misses lines: {error.strerror}', file=sys.stderr)
    except Exception:  # as all handlers: a log ends nothing
      self.handleError(record)

  def flush(self):
    with contextlib.suppress(OSError, ValueError):
      self._file.flush()

  def close(self):
    with contextlib.suppress(OSError):
      self._file.close()
    super().close()


class _Earlier(python_logging.Handler):
  """Keeps the lines of a run that has no file yet, as they are said."""

  def __init__(self):
    super().__init__()
    self.addFilter(_is_for_terminal)
    self._records = collections.deque(maxlen=_MOST_EARLIER)

  def emit(self, record):
    try:
      said = copy.copy(record)
      setattr(said, _IS_LISTING, _is_listing(record))
      said.msg, said.args = record.getMessage(), None
      self._records.append(said)
    except Exception:  # as all handlers: a log ends nothing
      self.handleError(record)

  def pass_on(self, handler: python_logging.Handler) -> None:
    """Has another handler take them, once."""
    while self._records:
      handler.handle(self._records.popleft())


def _formatter(mark=''):
  return _Formatter(f'%(asctime)s {mark}%(message)s', '%Y-%m-%d %H:%M:%S')


def file_name(process: int = 0) -> str:
  """Name of a process's log: `train.log`, `train-process-1.log` and so on.

  Each has its own, since not every file system lets several append to one.
  """
  stem, suffix = os.path.splitext(FILE_NAME)
  return f'{stem}-process-{process}{suffix}' if process else FILE_NAME


def path(workdir: str | os.PathLike, process: int = 0) -> pathlib.Path:
  """Of a process's log."""
  return pathlib.Path(workdir) / file_name(process)


def to_terminal(mark: str = '') -> None:
  """Sends log lines to standard error, and keeps them for the first file.

  Args:
    mark: in front of each message: which of several processes says it.
  """
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(_formatter(mark))
  if _is_for_terminal not in handler.filters:
    handler.addFilter(_is_for_terminal)
    logging.get_absl_logger().addHandler(_Earlier())
  sys.unraisablehook = _say_unraisable


def to_file_alone(message: str) -> None:
  """Logs what is too long for a terminal, where there is a file, see `to_file`.

  Args:
    message: of any number of lines.
  """
  logging.get_absl_logger().info(message, extra={_IS_LONG: True})


def to_file(workdir: str | os.PathLike, process: int = 0) -> None:
  """Appends log lines to a file in a workdir, too, see `file_name`.

  The first file gets what was said before it, too.

  While the disk is full, lines are kept in memory, up to a bound. From here on
  to this one only: a process that runs one training after the other writes
  each to its own file. The stacks of a run that hangs go there, too.

  Args:
    workdir: receives the file.
    process: number of this process in its run.
  """
  logger = logging.get_absl_logger()
  handler = _FileHandler(path(workdir, process))
  handler.setFormatter(_formatter())
  handler.addFilter(_is_ours)
  for old in list(logger.handlers):
    if isinstance(old, _Earlier):
      old.pass_on(handler)
    if isinstance(old, _Earlier | _FileHandler):
      logger.removeHandler(old)
      old.close()
  logger.addHandler(handler)
  watchdog.also_write_to(path(workdir, process))
