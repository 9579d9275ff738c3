"""Files that may be sound though they cannot be read: what is said of them.

Which errors tell nothing of a file is known to the package,
vie_jax/input_pipeline/unanswered: the one beside this folder, whichever is
installed.
"""

import pathlib
import sys

from errors import InputError

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from vie_jax.input_pipeline import unanswered


def message(error):
  """Says of an error of the system which file it keeps from being used, and why.

  Args:
    error: OSError that nobody has expected.

  Returns:
    str, one line without a full stop; None of an error that may tell of a file
    that is damaged, or of a mistake of the code.
  """
  reason = unanswered.reason(error)
  if reason is None:
    return None
  place = 'What is needed' if error.filename is None else error.filename
  return f'{place} cannot be used: {_with_remedy(reason)}'


def check(place, error):
  """Tells a file that is damaged from one that may be sound.

  Args:
    place: of the file, for the user.
    error: of reading it.

  Raises:
    InputError: if nothing is known of the file.
  """
  _check(place, unanswered.reason(error))


def check_record(place, error, path):
  """As `check`, of an error of reading a shard by `array_record`.

  Args:
    place: likewise.
    error: likewise.
    path: of the shard here.
  """
  _check(place, unanswered.reason_of_record(error, path))


def check_empty(place, reader, path):
  """As `check`, of a shard that seems to hold no records.

  Args:
    place: likewise.
    reader: of `array_record`.
    path: of the shard here.
  """
  _check(place, unanswered.reason_of_empty(reader, path))


def _check(place, reason):
  if reason:
    raise InputError(f'{place} cannot be read: {_with_remedy(reason)}')


def _with_remedy(reason):
  # vie_jax/embeddings/own_files.py looks for this end of an error.
  remedy = reason.remedy or 'Run the same command again when it can be read.'
  return f'{reason.words}; {remedy[0].lower()}{remedy[1:].rstrip(".")}'
