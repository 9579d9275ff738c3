"""Opens tar archives of anybody; what they unpack to is bounded on the way.

tarfile keeps the long names and the extended headers of members in memory,
whatever size they claim, and passes over members by unpacking them.
"""

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import tarfile

# Bytes of a member that are asked for at once; of headers and long names, too.
MAX_READ = 2**20
_OPENERS = (
  (b'\x1f\x8b', gzip.open),
  (b'BZh', bz2.open),
  (b'\xfd7zXZ\x00', lzma.open),
)


@contextlib.contextmanager
def open_tar(path, *, max_bytes):
  """Opens a tar archive, compressed by gzip, bzip2, xz or not at all.

  Args:
    path: of the archive.
    max_bytes: it may unpack to.

  Yields:
    tarfile.TarFile.

  Raises:
    tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError: then, and
      while it is read: if it is none, damaged, or unpacks to more.
  """
  with contextlib.ExitStack() as stack:
    # A pipe would be waited for.
    if not stat.S_ISREG(os.stat(path).st_mode):
      raise tarfile.ReadError('it is no regular file')
    file = stack.enter_context(open(path, 'rb'))
    start = file.read(6)
    file.seek(0)
    for magic, opener in _OPENERS:
      if start.startswith(magic):
        file = stack.enter_context(opener(file))
    yield stack.enter_context(
      tarfile.open(fileobj=_Bounded(file, max_bytes), mode='r:')
    )


class _Bounded:
  """A file to read, up to some byte, and only a little at once."""

  def __init__(self, file, max_bytes):
    self._file = file
    self._max_bytes = max_bytes

  def tell(self):
    return self._file.tell()

  def seek(self, offset, whence=os.SEEK_SET):
    if whence == os.SEEK_SET and offset > self._max_bytes:
      self._refuse()
    return self._file.seek(offset, whence)

  def read(self, size=-1):
    if not 0 <= size <= MAX_READ:
      raise tarfile.ReadError(f'a header or a name in it claims {size} bytes')
    content = self._file.read(size)
    if self._file.tell() > self._max_bytes:
      self._refuse()
    return content

  def _refuse(self):
    raise tarfile.ReadError(f'it unpacks to more than {self._max_bytes} bytes')
