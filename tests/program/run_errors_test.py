"""What is said of an error to whoever started a run."""

import errno

import pytest

from vie_jax import checkpoint, finite
from vie_jax.config import config_check
from vie_jax.input_pipeline import dataset_folder
from vie_jax.models import official_checkpoint
from vie_jax.processes import exit_codes, preemption
from vie_jax.program import run_errors


@pytest.mark.parametrize(
  'error, code',
  [
    (OSError(errno.ENOSPC, 'No space left on device'), exit_codes.RETRY),
    (OSError(errno.EDQUOT, 'Disk quota exceeded'), exit_codes.RETRY),
    (OSError(errno.EIO, 'Input/output error'), exit_codes.RETRY),
    (OSError(errno.EROFS, 'Read-only file system'), exit_codes.RETRY),
    (OSError(errno.ESTALE, 'Stale file handle'), exit_codes.RETRY),
    (OSError(errno.ENOTCONN, 'Not connected'), exit_codes.RETRY),
    (OSError(errno.EHOSTUNREACH, 'No route to host'), exit_codes.RETRY),
    (OSError(errno.ESHUTDOWN, 'Endpoint shut down'), exit_codes.RETRY),
    (TimeoutError(errno.ETIMEDOUT, 'Timed out'), exit_codes.RETRY),
    (FileNotFoundError(errno.ENOENT, 'No such file'), exit_codes.REFUSED),
    (PermissionError(errno.EACCES, 'Denied'), exit_codes.REFUSED),
    (OSError(errno.EMFILE, 'Too many'), exit_codes.REFUSED),
    (OSError(errno.ENFILE, 'Too many'), exit_codes.RETRY),
    (BrokenPipeError(errno.EPIPE, 'Broken pipe'), exit_codes.REFUSED),
    (dataset_folder.UnreachableError('s3://b/train'), exit_codes.RETRY),
    (
      dataset_folder.UnreadableError('a record', 'Check it.'),
      exit_codes.REFUSED,
    ),
    (dataset_folder.DatasetError('There is none.'), exit_codes.REFUSED),
    (config_check.ConfigError('config.seed'), exit_codes.REFUSED),
    (finite.DivergedError('step 3'), exit_codes.REFUSED),
  ],
  ids=str,
)
def test_only_what_may_pass_by_itself_is_tried_again(error, code, caplog):
  assert run_errors.code_of(error) == code
  with pytest.raises(SystemExit) as end:
    run_errors.leave(error, '/the/workdir')
  assert end.value.code == code
  assert [*caplog.messages] == [run_errors.message_of(error, '/the/workdir')]


@pytest.mark.parametrize(
  'error, code, words',
  [
    (checkpoint.SaveFailedError('Step 3 is not saved.'), 75, 'not saved.'),
    (preemption.Stopped('Step 3 is saved.'), 75, 'The same command goes on'),
  ],
)
def test_what_stops_a_run_early_says_so(error, code, words, caplog):
  with pytest.raises(SystemExit) as end:
    run_errors.leave(error, '/the/workdir')
  assert end.value.code == code
  assert words in caplog.text


def test_a_mistake_of_the_code_is_left_to_python(caplog):
  run_errors.leave(ZeroDivisionError('division by zero'), '/the/workdir')
  assert not caplog.messages


@pytest.mark.parametrize(
  'error, begin, remedy',
  [
    (
      OSError(errno.ENOSPC, 'No space left on device'),
      'No room to write to /the/workdir: No space left on device.',
      'Make room',
    ),
    (
      OSError(errno.EDQUOT, 'Disk quota exceeded', '/a/file'),
      'No room to write to /a/file: Disk quota exceeded.',
      'Make room',
    ),
    (
      OSError(errno.EROFS, 'Read-only file system', '/a/file'),
      '/a/file cannot be written to any more: Read-only file system.',
      'repaired and mounted again',
    ),
    (
      PermissionError(errno.EACCES, 'Permission denied', '/a/file'),
      '/a/file cannot be used: Permission denied.',
      'access',
    ),
    (
      IsADirectoryError(errno.EISDIR, 'Is a directory', '/a/metrics.jsonl'),
      '/a/metrics.jsonl cannot be used: Is a directory.',
      'move the folder away',
    ),
    (
      OSError(errno.EMFILE, 'Too many open files', '/a/file'),
      '/a/file cannot be used: Too many open files.',
      'ulimit -n',
    ),
    (
      OSError(errno.EFBIG, 'File too large'),
      '/the/workdir cannot be used: File too large.',
      'ulimit -f',
    ),
  ],
)
def test_what_the_system_refuses_is_named_with_what_to_do(error, begin, remedy):
  message = run_errors.message_of(error, '/the/workdir')
  assert message.startswith(begin)
  assert remedy in message


def test_only_a_list_has_more_than_one_line():
  lines = 'one\n  two'
  error = config_check.ConfigError(lines)
  assert run_errors.message_of(error, '/the/workdir') == 'one two'
  error = official_checkpoint.OfficialCheckpointError(lines)
  assert run_errors.message_of(error, '/the/workdir') == 'one\ntwo'
