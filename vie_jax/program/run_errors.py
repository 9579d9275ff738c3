"""What an error means to whoever started a run: a message and an exit code."""

import errno

from absl import logging

from vie_jax import checkpoint, finite
from vie_jax.config import config_check
from vie_jax.embeddings import clip_files, foreign_embeddings
from vie_jax.files import disk, workdir_lock
from vie_jax.input_pipeline import dataset_folder, remote_errors
from vie_jax.machine import device_memory, devices
from vie_jax.models import official_checkpoint
from vie_jax.processes import (
  ending,
  exit_codes,
  peers,
  preemption,
  process_environment,
)
from vie_jax.results import result
from vie_jax.untrusted import urls

EXPECTED = (
  checkpoint.CheckpointError,
  config_check.ConfigError,
  process_environment.DistributedError,
  clip_files.ClipsError,
  foreign_embeddings.EmbeddingsError,
  dataset_folder.DatasetError,
  devices.NoDevicesError,
  finite.DivergedError,
  official_checkpoint.OfficialCheckpointError,
  result.ResultError,
  workdir_lock.WorkdirLockedError,
  OSError,
)
"""Not mistakes of the code: a line, and no traceback."""

# A file system that is away for a while, a disk whose file system went read-only
# in the middle of a run, or a machine out of memory.
_PASSING = disk.AWAY | {errno.EIO, errno.ENFILE, errno.ENOMEM, errno.EROFS}
# What the system does not let this process do -> what helps.
_REFUSED = disk.REMEDIES | {
  errno.EISDIR: 'A file is to be there: move the folder away, and run again.',
  errno.EFBIG: (
    'Raise the limit on the size of files (ulimit -f) or the quota, and run '
    'again.'
  ),
  errno.ENAMETOOLONG: 'Use a shorter name, and run again.',
  errno.ENFILE: 'The whole machine has too many open files; run again.',
}


def leave(error: BaseException, workdir: str) -> None:
  """Says what an error means, and ends the process, if it is no mistake.

  The other processes of the run end, too. Returns only after a mistake of the
  code in a run of one process, which Python says more about.

  Args:
    error: being handled.
    workdir: of the run.
  """
  if isinstance(error, EXPECTED):
    message = urls.redacted(message_of(error, workdir))
    # Not through '%s', whose newlines the log escapes.
    logging.error(message)
    ending.leave(code_of(error), message)
  elif isinstance(error, checkpoint.SaveFailedError):
    logging.error('%s', error)
    ending.leave(exit_codes.RETRY, str(error))
  elif isinstance(error, preemption.Stopped):
    message = f'{error} The same command goes on from there.'
    logging.warning('%s', message)
    ending.leave(preemption.SIGNALS.exit_code, message)
  elif device_memory.is_exhausted(error):
    message = device_memory.message(error)
    logging.error('%s', message)
    ending.leave(exit_codes.REFUSED, message)
  elif isinstance(error, Exception) and peers.is_shared():
    _leave_shared(error)


def _leave_shared(error):
  """Ends one of several processes after an error that nobody expected."""
  ending.leave_if_another_has()
  if ending.tells_of_loss(error):
    message = (
      'Another process of the run is gone. Run the same command again on '
      'all machines: it goes on from the last save.'
    )
    logging.error('%s', message)
    ending.leave(exit_codes.RETRY, message, is_loss=True)
  logging.exception('This process has met a mistake in the code.')
  ending.leave(1, f'{type(error).__name__}: {error}')


def code_of(error: BaseException) -> int:
  """The exit code of an expected error: whether the same command may go on."""
  # A full disk may have room again, whatever was being written.
  if disk.is_no_room(error) or isinstance(
    error, dataset_folder.UnreachableError
  ):
    return exit_codes.RETRY
  if getattr(error, 'errno', None) in _PASSING:
    return exit_codes.RETRY
  # But whoever reads what is printed does not come back.
  if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
    return exit_codes.REFUSED
  if remote_errors.may_pass(error):
    return exit_codes.RETRY
  return exit_codes.REFUSED


def message_of(error: BaseException, workdir: str) -> str:
  """What an expected error says to the user, and what to do about it.

  One line, or a list of them where an official checkpoint does not fit.
  """
  message = str(error)
  number = getattr(error, 'errno', None)
  # The system itself often does not say which file it was.
  if disk.is_no_room(error):
    message = (
      f'No room to write to {error.filename or workdir}: {error.strerror}. Make '
      'room, and run the same command again: it goes on from what is saved.'
    )
  elif number == errno.EROFS:
    message = (
      f'{error.filename or workdir} cannot be written to any more: '
      f'{error.strerror}. Have its file system repaired and mounted again, and '
      'run the same command again: it goes on from what is saved.'
    )
  elif number in _REFUSED and (error.filename or number == errno.EFBIG):
    place, remedy = error.filename or workdir, _REFUSED[number]
    message = f'{place} cannot be used: {error.strerror}. {remedy}'
  is_list = isinstance(error, official_checkpoint.OfficialCheckpointError)
  lines = [' '.join(line.split()) for line in message.splitlines()]
  return ('\n' if is_list else ' ').join(lines)
