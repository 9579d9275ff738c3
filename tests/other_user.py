"""Root reads everything: what becomes of whoever may not."""

import contextlib
import os

_NOBODY = 65_534


def let_in(folder):
  """Lets others enter a folder: pathlib.Path."""
  for parent in (folder, *folder.parents):
    with contextlib.suppress(PermissionError):
      parent.chmod(parent.stat().st_mode | 0o055)


@contextlib.contextmanager
def running(folder):
  """Has this process be nobody, if it is root, who may reach a folder.

  Args:
    folder: pathlib.Path, which others may enter from now on.
  """
  let_in(folder)
  is_root = os.geteuid() == 0
  if is_root:
    os.seteuid(_NOBODY)
  try:
    yield
  finally:
    if is_root:
      os.seteuid(0)
