"""The plain log of a run, on the terminal and in its workdir."""

import logging as python_logging
import os
import pathlib

from absl import logging

FILE_NAME = 'train.log'
_NOISY = (f'{os.sep}orbax{os.sep}', f'{os.sep}etils{os.sep}', 'xla_bridge')


def _is_ours(record: python_logging.LogRecord) -> bool:
  """Whether a line is worth reading: libraries speak only when it matters.

  What orbax logs as an error it raises, too, and `step_saver` says it in a
  line.
  """
  is_noise = any(part in record.pathname for part in _NOISY)
  is_said = _NOISY[0] in record.pathname
  return not is_noise or (
    record.levelno >= python_logging.ERROR and not is_said
  )


class _Formatter(python_logging.Formatter):
  """Time and message, in words that a reader of the log knows."""

  def format(self, record):
    line = super().format(record)
    # What clu says when it reports progress.
    return line.replace('Setting work unit notes: ', 'Progress: ')


_FORMATTER = _Formatter('%(asctime)s %(message)s', '%Y-%m-%d %H:%M:%S')


def to_terminal() -> None:
  """Sends log lines to standard error."""
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(_FORMATTER)
  handler.addFilter(_is_ours)


def to_file(workdir: str | os.PathLike) -> None:
  """Appends log lines to `train.log` in a workdir, too.

  From here on to this one only: a process that runs one training after the
  other writes each to its own file.
  """
  logger = logging.get_absl_logger()
  for old in list(logger.handlers):
    if isinstance(old, python_logging.FileHandler):
      logger.removeHandler(old)
      old.close()
  handler = python_logging.FileHandler(pathlib.Path(workdir) / FILE_NAME)
  handler.setFormatter(_FORMATTER)
  handler.addFilter(_is_ours)
  logger.addHandler(handler)
