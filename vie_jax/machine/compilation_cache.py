"""Where compiled programs are kept: a folder that nobody else may write to.

JAX runs what it finds there as it is. Small programs are kept, too: a start has
dozens of them.
"""

import os
import pathlib

import jax
from absl import logging

FOLDER = os.path.join('~', '.cache', 'vie_jax', 'xla')
LEAST_SECONDS = 0.1
"""JAX's own is a second."""
_LEAST_SECONDS_VARIABLE = 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'


def use(folder: str = FOLDER) -> None:
  """Keeps compiled programs in a folder, unless JAX was given another.

  It is made with the permissions 0700. One that belongs to somebody else, or
  that others may write to, is not used, and the log says so.

  Those that take `LEAST_SECONDS` to compile are kept, unless
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS says otherwise.

  Args:
    folder: `~` is the home folder.
  """
  if _LEAST_SECONDS_VARIABLE not in os.environ:
    jax.config.update(
      'jax_persistent_cache_min_compile_time_secs', LEAST_SECONDS
    )
  if jax.config.jax_compilation_cache_dir is not None:
    return
  path = pathlib.Path(os.path.expanduser(folder))
  problem = _problem(path)
  if problem:
    logging.warning(
      'Compiled programs are not kept: %s %s. JAX_COMPILATION_CACHE_DIR names '
      'another folder.',
      path,
      problem,
    )
    return
  jax.config.update('jax_compilation_cache_dir', str(path))


def _problem(path):
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.stat()
  except OSError as error:
    return f'cannot be made ({error.strerror})'
  if status.st_uid != os.getuid():
    return 'belongs to somebody else'
  return 'may be written to by others' if status.st_mode & 0o022 else None
