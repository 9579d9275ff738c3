"""Reading a step: its record, its files and its arrays, each of them checked.

All processes read, and go on only if all of them can.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from vie_jax.processes import agreement
from vie_jax.saved_steps import array_files, commit_record, step_folders
from vie_jax.saved_steps.commit_record import (
  DamagedError,
  UnreadError,
  VersionError,
)
from vie_jax.saved_steps.leaf_digest import Digests
from vie_jax.saved_steps.step_folders import StepFolders

# Arrays that an error names at most.
_MOST_NAMED = 5
T = TypeVar('T')


class OtherArraysError(ValueError):
  """A step holds other arrays than are asked for; the message names them."""


class StepReader:
  """Reads steps of one workdir.

  Args:
    folders: of the workdir.
  """

  def __init__(self, folders: StepFolders):
    self._folders = folders

  def record(self, step: int) -> commit_record.CommitRecord:
    """Reads the commit record of a step.

    Raises:
      VersionError: naming the format version of the step.
      DamagedError: naming what is wrong with it.
    """
    folder = self._folders.of(step)

    def read():
      if not (folder / commit_record.FILE).exists():
        version = step_folders.old_version(folder)
        if version is not None:
          raise VersionError(f'{version!r}')
      found = commit_record.read(folder)
      if found.step != step:
        raise DamagedError(f'{commit_record.FILE} is of step {found.step}')
      return found

    return _together(read)

  def shapes(
    self, step: int, item: str, placements: Mapping[str, Any]
  ) -> dict[str, Any]:
    """The trees of an item as they were saved, for `restore`.

    Args:
      step: that was saved.
      item: of the step.
      placements: field -> sharding of its arrays.

    Returns:
      field -> tree of ShapeDtypeStructs with shardings.

    Raises:
      DamagedError: naming the file that is not as it was saved.
    """
    folder, record = self._folders.of(step), self.record(step)
    leaves = record.items.get(item, {})
    _together(lambda: commit_record.check_files(folder, record, [item]))
    tree = _together(lambda: array_files.structure(folder / item))

    def shape_of(path, _):
      name = array_files.name_of(path)
      if name not in leaves:
        raise OtherArraysError(f'in {item}, it has no {name}')
      return jax.ShapeDtypeStruct(
        leaves[name].shape,
        leaves[name].dtype,
        sharding=placements[path[0].key],
      )

    return jax.tree.map_with_path(shape_of, tree)

  def restore(self, step: int, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Reads items of a step.

    Args:
      step: that was saved.
      wanted: item -> tree of ShapeDtypeStructs with shardings.

    Returns:
      item -> tree of arrays.

    Raises:
      OtherArraysError: if the items have other arrays, before any is read.
      DamagedError: naming the file or the array that is not as it was saved.
    """
    folder, record = self._folders.of(step), self.record(step)
    for item, shapes in wanted.items():
      _check_shapes(item, record.items.get(item, {}), shapes)
    _together(lambda: commit_record.check_files(folder, record, wanted))
    found = _together(
      lambda: {
        item: array_files.read(folder / item, shapes)
        for item, shapes in wanted.items()
      }
    )
    for item, tree in found.items():
      _check_digests(item, record.items[item], tree)
    return found


def _together(work: Callable[[], T]) -> T:
  """Does what reads files; raises in all processes if it does in one."""
  result, error = None, None
  try:
    result = work()
  except (DamagedError, VersionError) as raised:
    error = raised
  if agreement.anywhere(error is not None):
    error = error or DamagedError('another process cannot read its part')
    # What is done next depends on it, and has to be the same in all.
    if agreement.anywhere(isinstance(error, UnreadError)):
      error = UnreadError(str(error))
    raise error
  return result


def _check_shapes(item, saved, shapes):
  """Compares arrays as they are wanted with those that were saved."""
  saved = {name: (leaf.shape, leaf.dtype) for name, leaf in saved.items()}
  expected = array_files.describe(shapes)
  problems = []
  for name in sorted({*saved, *expected}):
    if name not in saved:
      problems.append(f'it has no {name}')
    elif name not in expected:
      problems.append(f'it has {name}, which this run has not')
    elif saved[name] != expected[name]:
      problems.append(
        f'{name} was {_in_words(*saved[name])}, is {_in_words(*expected[name])}'
      )
  if problems:
    more = len(problems) - _MOST_NAMED
    rest = f'; and {more} more' if more > 0 else ''
    raise OtherArraysError(
      f'in {item}, ' + '; '.join(problems[:_MOST_NAMED]) + rest
    )


def _in_words(shape, dtype):
  return f'{dtype} {shape}'


def _check_digests(item, saved, tree):
  """Compares arrays as they lie on the devices with what was saved."""
  digests = Digests(jax.tree.leaves(tree)).values()
  for name, digest in zip(array_files.describe(tree), digests, strict=True):
    if digest != saved[name].digest:
      raise DamagedError(
        f'{item}: the array {name} has the digest {digest} instead of '
        f'{saved[name].digest}'
      )
