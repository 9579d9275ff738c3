"""The file of an evaluation, `result.json`: its name, its format, its reader."""

import pathlib

from vie_jax.untrusted import json_text

NAME = 'result.json'
FORMAT_VERSION = 1


def read(path: str | pathlib.Path) -> dict:
  """Reads a result.

  Args:
    path: of the file.

  Raises:
    ValueError: why it is none, in words that follow the name of the file.
  """
  again = 'run the evaluation again to write it anew'
  try:
    facts = json_text.read(path)
  except OSError as error:
    raise ValueError(f'cannot be read: {error.strerror}') from None
  except ValueError:
    raise ValueError(f'is not JSON; {again}') from None
  if not isinstance(facts, dict):
    raise ValueError('is no result: it holds no JSON object')
  version = facts.get('format_version')
  if version != FORMAT_VERSION:
    raise ValueError(
      f'has format version {version!r}, and this code reads {FORMAT_VERSION}; '
      f'{again}'
    )
  return facts
