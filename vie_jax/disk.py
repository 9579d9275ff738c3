"""What a disk says, and how something is sure to be on it."""

import errno
import os


def is_no_room(error: BaseException) -> bool:
  """Whether an error says that a disk, or a quota, is full."""
  return getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT)


def sync(path: str | os.PathLike) -> None:
  """Brings a file, or the list of names in a folder, to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
