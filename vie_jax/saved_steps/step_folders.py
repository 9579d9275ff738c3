"""The folder `checkpoints` of a workdir: one folder per saved step.

  40           a saved step; it has a `commit.json`, see `commit_record`
  50.saving    a step that is being saved, or was when the process ended;
               orbax adds a suffix of its own while it writes
  30.deleting  a step that is being removed, or was when the process ended
  20.damaged   a step that could not be restored, moved aside

A step takes its name last, when everything in it is on the disk, and loses it
first. So a folder that is named like a step and is not whole was damaged: no
end of a process, however sudden, leaves one behind.
"""

import json
import os
import pathlib
import re
import shutil
import time

from absl import logging

from vie_jax.files import disk
from vie_jax.saved_steps import commit_record

_STEP = re.compile(r'0|[1-9][0-9]{0,18}')
_LEFTOVER = re.compile(r'[0-9]+\.(saving|deleting)(\.orbax-checkpoint-tmp.*)?')
_ASIDE = re.compile(r'[0-9]+\.damaged(-[0-9]+)?')
# Seconds without a change, after which nothing more is expected; and at most.
_QUIET, _LONGEST_NOISE = 1.0, 60.0
# Files that orbax writes into the folder of a step.
_OF_ORBAX = ('_CHECKPOINT_METADATA', '_METADATA', 'manifest.ocdbt')


class StepFolders:
  """The folders of one workdir's steps.

  Args:
    directory: the folder `checkpoints`.
  """

  def __init__(self, directory: pathlib.Path):
    self.directory = directory

  def of(self, step: int) -> pathlib.Path:
    """The folder of a step."""
    return self.directory / str(step)

  def while_saving(self, step: int) -> pathlib.Path:
    """The folder that a step is written to."""
    return self.directory / f'{step}.saving'

  def steps(self) -> list[int]:
    """The steps that are there, whole or damaged, in rising order."""
    return sorted(
      int(path.name) for path in self._named_as_steps() if is_step(path)
    )

  def foreign(self) -> list[str]:
    """Names of what is named like a step and was not saved as one."""
    return [path.name for path in self._named_as_steps() if not is_step(path)]

  def set_aside(self) -> list[str]:
    """Names of the damaged steps that were moved aside."""
    return sorted(
      path.name for path in self._all() if _ASIDE.fullmatch(path.name)
    )

  def take_name(self, step: int) -> None:
    """Makes what was written a step; it is on the disk when this returns.

    Raises:
      OSError: if the disk does not take it.
    """
    # A dangling link is in the way, too.
    if os.path.lexists(self.of(step)):
      self.move_aside(step)
    os.rename(self.while_saving(step), self.of(step))
    disk.sync(self.directory)

  def delete(self, step: int) -> None:
    """Removes a step."""
    leaving = self.directory / f'{step}.deleting'
    shutil.rmtree(leaving, ignore_errors=True)
    os.rename(self.of(step), leaving)
    disk.sync(self.directory)
    shutil.rmtree(leaving)

  def move_aside(self, step: int) -> pathlib.Path:
    """Renames what stands where a step is to be, and keeps it."""
    number, target = 1, self.directory / f'{step}.damaged'
    while os.path.lexists(target):
      number += 1
      target = self.directory / f'{step}.damaged-{number}'
    os.rename(self.of(step), target)
    disk.sync(self.directory)
    return target

  def remove_unfinished(self, step: int | None = None) -> None:
    """Removes what ended saves and deletions left behind.

    Args:
      step: only of this step; None for all.
    """
    for path in self._all():
      name = path.name
      is_meant = step is None or name.startswith(f'{step}.saving')
      if is_meant and _LEFTOVER.fullmatch(name):
        logging.info('Removing %s, which was not finished.', path)
        shutil.rmtree(path, ignore_errors=True)

  def wait_until_quiet(self, step: int) -> None:
    """Returns when nothing more is written to a step, or after a minute."""
    deadline = time.monotonic() + _LONGEST_NOISE
    seen, since = None, time.monotonic()
    while time.monotonic() < min(deadline, since + _QUIET):
      found = sorted(
        (str(path), path.lstat().st_size)
        for path in self.directory.glob(f'{step}.saving*/**/*')
        if path.exists()
      )
      if found != seen:
        seen, since = found, time.monotonic()
      time.sleep(_QUIET / 10)

  def _all(self):
    try:
      return [path for path in self.directory.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
      return []

  def _named_as_steps(self):
    return [path for path in self._all() if _STEP.fullmatch(path.name)]


def is_step(folder: pathlib.Path) -> bool:
  """Whether a folder was saved as a step, by this or another program."""
  if (folder / commit_record.FILE).exists():
    return True
  return any(
    (place / name).exists()
    for place in (folder, *_folders_in(folder))
    for name in _OF_ORBAX
  )


def old_version(folder: pathlib.Path) -> int | None:
  """The format version of a step from before there were commit records."""
  path = folder / 'record' / 'metadata'
  try:
    # A pipe would be waited for.
    record = json.loads(path.read_text('utf-8')) if path.is_file() else None
    return int(record['format_version'])
  except (OSError, ValueError, TypeError, KeyError, RecursionError):
    return None


def _folders_in(folder):
  try:
    return [path for path in folder.iterdir() if path.is_dir()]
  except OSError:
    return []
