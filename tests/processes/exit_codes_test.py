"""What main.py says of an error to whatever started it."""

import errno

import pytest

import main
from vie_jax import config_check, metric_log
from vie_jax.input_pipeline import frame_store
from vie_jax.processes import exit_codes


@pytest.mark.parametrize(
  'error, code',
  [
    (OSError(errno.ENOSPC, 'No space left on device'), exit_codes.RETRY),
    (OSError(errno.EDQUOT, 'Disk quota exceeded'), exit_codes.RETRY),
    (OSError(errno.EROFS, 'Read-only file system'), exit_codes.REFUSED),
    (frame_store.UnreachableError('s3://b/train'), exit_codes.RETRY),
    (frame_store.UnreadableError('a record', 'Check it.'), exit_codes.REFUSED),
    (frame_store.DatasetError('There is none.'), exit_codes.REFUSED),
    (config_check.ConfigError('config.seed'), exit_codes.REFUSED),
    (metric_log.DivergedError('step 3'), exit_codes.REFUSED),
  ],
  ids=str,
)
def test_only_what_may_pass_by_itself_is_tried_again(error, code):
  assert isinstance(error, (*main.EXPECTED_ERRORS, OSError))
  assert main.code_of(error) == code


@pytest.mark.parametrize(
  'error, place',
  [
    (OSError(errno.ENOSPC, 'No space left on device'), '/the/workdir'),
    (OSError(errno.EDQUOT, 'Disk quota exceeded', '/a/file'), '/a/file'),
  ],
)
def test_a_full_disk_is_named_with_what_to_do(error, place):
  message = main.message_of(error, '/the/workdir')
  assert f'No room to write to {place}: {error.strerror}.' in message
  assert 'Make room' in message


def test_codes_that_end_all_tries_are_told_from_the_one_that_does_not():
  assert exit_codes.RETRY not in exit_codes.FINAL
  assert {*exit_codes.FINAL} == {0, 2, 130}
