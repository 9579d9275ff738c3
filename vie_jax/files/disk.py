"""What a disk says, and how something is sure to be on it."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

AWAY = frozenset(
  {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.EREMOTEIO,
    errno.ESHUTDOWN,
    errno.ESTALE,
    errno.ETIMEDOUT,
  }
)
"""A network file system or an object store that does not answer, but may later:
the server, the network or the process of FUSE is gone. s3fs has EBUSY for "slow
down" and EREMOTEIO for errors within the server."""

REMEDIES = {
  errno.EACCES: 'Give the user of the run access to it, and run again.',
  errno.EPERM: 'Give the user of the run access to it, and run again.',
  errno.EMFILE: 'Raise the limit on open files (ulimit -n), and run again.',
}
"""What the system does not let this process do, and what helps: else the same is
refused again."""

NO_DAMAGE = AWAY | {*REMEDIES, errno.ENFILE, errno.ENOMEM}
"""Why a file that may be whole cannot be read: its file system is away or lets
nobody in, or a process may open no more files, or has no memory or thread."""


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


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Has errors of writing name a file, where the system does not."""
  try:
    yield
  except OSError as error:
    is_of_writing = is_no_room(error) or error.errno == errno.EFBIG
    if is_of_writing and error.filename is None:
      error.filename = str(path)
    raise


@contextlib.contextmanager
def replacing(
  path: str | os.PathLike, *, aside: pathlib.Path | None = None
) -> Iterator[pathlib.Path]:
  """Gives a name to write a file by that becomes `path` when it is whole.

  What is there by that name stays until then, and for good if that fails.

  Args:
    path: of the file.
    aside: that name, in the same folder; None has it end with `.tmp`.

  Raises:
    OSError: naming `path`, whichever of the two could not be written.
  """
  path = pathlib.Path(path)
  fresh = aside or path.with_name(f'{path.name}.tmp')
  try:
    yield fresh
    sync(fresh)
    fresh.replace(path)
    sync(path.parent)
  except BaseException as error:
    with contextlib.suppress(OSError):
      fresh.unlink()
    if isinstance(error, OSError) and error.filename in (None, str(fresh)):
      error.filename = str(path)
    raise
