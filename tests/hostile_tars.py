"""Tar archives whose headers take memory, not their members."""

import gzip
import tarfile

KINDS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
NUM_ZEROS = 256 * 10**6


def write_large_header(path, kind):
  """A .tar.gz of 1 MB with a header, or a name, of 256 MB."""
  info = tarfile.TarInfo('header')
  info.type = kind
  info.size = NUM_ZEROS
  with gzip.open(path, 'wb', compresslevel=1) as file:
    file.write(info.tobuf(tarfile.GNU_FORMAT))
    zeros = bytes(10**6)
    for _ in range(NUM_ZEROS // len(zeros)):
      file.write(zeros)


def write_large_member(path):
  """A .tar.gz with a member of 256 MB that is passed over."""
  write_large_header(path, tarfile.REGTYPE)
