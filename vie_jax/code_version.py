"""Which version of the code this is."""

import hashlib
import importlib.metadata
import pathlib
import platform
import shutil
import subprocess

from vie_jax import __version__

_PACKAGE = pathlib.Path(__file__).resolve().parent


def versions() -> dict[str, str]:
  """Package -> version, of this code and of what its results depend on."""
  packages = {
    name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')
  }
  return {
    'vie_jax': __version__,
    **packages,
    'python': platform.python_version(),
  }


def line() -> str:
  """The versions, with the commit, in a line."""
  named = [f'{name} {version}' for name, version in versions().items()]
  return ', '.join([*named, f'commit {commit() or "unknown"}'])


def digest() -> str | None:
  """The content of this package's modules, as they lie on the disk, in hex.

  Returns:
    None if they do not lie there as source, as those of an archive.
  """
  total, has_any = hashlib.sha256(), False
  for path in sorted(_PACKAGE.rglob('*.py')):
    name = path.relative_to(_PACKAGE)
    # Editors leave hidden files and copies, and take them away again.
    if not all(part.isidentifier() for part in name.with_suffix('').parts):
      continue
    try:
      content = path.read_bytes().replace(b'\r\n', b'\n')
    except OSError:
      continue
    total.update(f'{name.as_posix()} {len(content)}\n'.encode())
    total.update(content)
    has_any = True
  return total.hexdigest() if has_any else None


def commit() -> str | None:
  """The commit of this code with '-dirty' if it was changed.

  Returns:
    None if it is in no repository of its own, as when it is installed.
  """
  if not shutil.which('git'):
    return None
  # An environment may lie in the repository of another project.
  if _git('rev-parse', '--show-toplevel') != str(_PACKAGE.parent):
    return None
  return _git('describe', '--always', '--dirty', '--exclude=*') or None


def _git(*words):
  done = subprocess.run(
    ['git', *words], cwd=_PACKAGE, capture_output=True, text=True, check=False
  )
  return done.stdout.strip()
