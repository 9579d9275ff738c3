"""What a folder holds, to be compared."""

import hashlib
import pathlib


def digests(directory):
  """Relative path and digest of every file below a directory."""
  return {
    str(path.relative_to(directory)): hashlib.sha256(
      path.read_bytes()
    ).hexdigest()
    for path in sorted(pathlib.Path(directory).rglob('*'))
    if path.is_file()
  }
