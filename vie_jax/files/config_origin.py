"""Which config file a run is of: two of the same name have one default workdir.

It stands beside `config.json`, in a file of its own: config.json has the values.
"""

import os
import pathlib

from vie_jax.files import disk

FILE = 'config_file.txt'
_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# More than any path has; the file may be anybody's.
_MOST_BYTES = 2**14


def of(config_file: str | os.PathLike) -> str:
  """What a config file is known by.

  Args:
    config_file: path, without a variant.

  Returns:
    Its path in the repository, which may be moved, or another's copy; the
    absolute path of a file that lies elsewhere.
  """
  path = pathlib.Path(config_file).resolve()
  if path.is_relative_to(_REPOSITORY):
    path = path.relative_to(_REPOSITORY)
  return str(path)


def write(folder: pathlib.Path, origin: str) -> None:
  """Notes whose run a folder holds.

  Args:
    folder: of the run.
    origin: from `of`.
  """
  with disk.replacing(folder / FILE) as fresh:
    fresh.write_bytes(os.fsencode(origin) + b'\n')


def other_than(origin: str, folder: str | os.PathLike) -> str | None:
  """The config file whose run a folder holds, if it is another one.

  One that is not there any more was moved, most likely, and is no other.

  Args:
    origin: from `of`.
    folder: that need not exist. Of runs of versions before nothing is known.
  """
  note = pathlib.Path(folder) / FILE
  # A pipe would be waited for.
  if not os.path.isfile(note):
    return None
  try:
    with note.open('rb') as file:
      found = os.fsdecode(file.read(_MOST_BYTES)).removesuffix('\n')
  except OSError:
    return None
  is_other = found != origin and os.path.isfile(_REPOSITORY / found)
  return found if is_other else None
