"""Saving a step in the background: arrays, then the record, then its name."""

import concurrent.futures
import errno
import importlib.metadata
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging

from vie_jax.processes import agreement
from vie_jax.saved_steps import array_files, commit_record
from vie_jax.saved_steps.commit_record import Leaf
from vie_jax.saved_steps.leaf_digest import Digests
from vie_jax.saved_steps.step_folders import StepFolders


class SaveFailedError(RuntimeError):
  """A step could not be saved; the steps before are as they were."""


def kept(
  steps: Sequence[int], *, newest: int | None, every_steps: int
) -> list[int]:
  """Which steps stay.

  Args:
    steps: in rising order.
    newest: how many of the newest stay; None keeps all.
    every_steps: multiples of it stay, too; 0 for none.
  """
  if newest is None:
    return list(steps)
  recent = set(steps[-newest:])
  return [
    step
    for step in steps
    if step in recent or (every_steps and step % every_steps == 0)
  ]


class StepSaver:
  """Saves steps, one at a time, and removes old ones.

  All processes make one and call the same methods in the same order.

  Args:
    folders: where to.
    items: names of what a step is made of.
    keep: see `kept`.
    keep_every_steps: likewise.
  """

  def __init__(
    self,
    folders: StepFolders,
    items: Sequence[str],
    *,
    keep: int | None,
    keep_every_steps: int,
  ):
    self._folders = folders
    self._keep = {'newest': keep, 'every_steps': keep_every_steps}
    self._writer = array_files.Writer(items)
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'commit')
    self._step: int | None = None
    self._needed = 0
    self._future: concurrent.futures.Future | None = None

  def start(self, step: int, items: Mapping[str, Any], record: dict) -> None:
    """Starts to save; `outcome` of the step before must have been taken."""
    self._step = step
    leaves = {item: jax.tree.leaves(tree) for item, tree in items.items()}
    self._needed = sum(leaf.nbytes for item in leaves.values() for leaf in item)
    if agreement.is_first():
      self._folders.remove_unfinished()
    try:
      if not self._folders.directory.is_dir():
        raise FileNotFoundError(2, 'The folder is gone')
      self._writer.start(self._folders.while_saving(step), items)
      digests = {item: Digests(given) for item, given in leaves.items()}
    except Exception as error:  # orbax raises whatever its parts raise
      self._future = self._thread.submit(self._give_up, step, error)
      return
    shapes = {item: array_files.describe(tree) for item, tree in items.items()}
    self._future = self._thread.submit(
      self._commit, step, shapes, digests, record
    )

  def outcome(self, *, waits: bool) -> tuple[int, str | None] | None:
    """What became of the step that is being saved.

    Args:
      waits: until it is known.

    Returns:
      None if it is not known yet, or nothing is being saved. Otherwise, once,
      the step, and what went wrong or None.
    """
    if self._future is None:
      return None
    if waits:
      concurrent.futures.wait([self._future])
    is_done = self._future.done()
    has_failed = is_done and self._future.exception() is not None
    if agreement.anywhere(has_failed):
      concurrent.futures.wait([self._future])
      reason = self._clean_up(self._future.exception())
    elif agreement.everywhere(is_done):
      reason = None
    else:
      return None
    self._future = None
    return self._step, reason

  def close(self) -> None:
    """Waits for what is going on, whatever becomes of it."""
    self._thread.shutdown(wait=True)
    self._writer.close()

  def _commit(self, step, shapes, digests, record):
    """Runs in a thread of its own, in every process."""
    try:
      self._writer.wait()
      if agreement.is_first():
        self._write_record(step, shapes, digests, record)
    except Exception as error:  # orbax raises whatever its parts raise
      self._give_up(step, error)

  def _give_up(self, step, error):
    """Removes what a failed save has left, and raises what went wrong."""
    self._writer.tell_others()
    if agreement.is_first():
      # Parts of orbax that did not fail go on writing for a moment, and make
      # folders anew that were removed.
      self._folders.wait_until_quiet(step)
      self._folders.remove_unfinished(step)
    self._writer.renew()
    raise error

  def _write_record(self, step, shapes, digests, record):
    commit_record.write(
      self._folders.while_saving(step),
      step=step,
      record=record,
      items={
        item: {
          name: Leaf(*described, digest)
          for (name, described), digest in zip(
            shapes[item].items(), digests[item].values(), strict=True
          )
        }
        for item in shapes
      },
      saved_by=_facts(),
    )
    self._folders.take_name(step)
    self._remove_old()

  def _remove_old(self):
    steps = self._folders.steps()
    for step in sorted({*steps} - {*kept(steps, **self._keep)}):
      try:
        self._folders.delete(step)
      except OSError as error:
        logging.warning(
          'The old checkpoint %s cannot be removed: %s.',
          self._folders.of(step),
          error.strerror,
        )

  def _clean_up(self, error: BaseException | None) -> str:
    """Removes what a failed save has left; says what went wrong."""
    if error is None:
      reason = 'another process could not write its part'
    else:
      reason = array_files.short_reason(error)
    if agreement.is_first():
      self._folders.remove_unfinished(self._step)
    if reason == os.strerror(errno.EFBIG):
      return f'{reason} for the limit of files (ulimit -f) or a quota'
    free = _free_bytes(self._folders.directory)
    needed = f'{self._needed / 1e6:,.1f} MB'
    return f'{reason} ({free} free, about {needed} needed)'


def _free_bytes(directory: pathlib.Path) -> str:
  try:
    return f'{shutil.disk_usage(directory).free / 1e6:,.1f} MB'
  except OSError:
    return 'unknown bytes'


def _facts() -> dict:
  """What a step was saved by, for people to read."""
  return {
    'jax': jax.__version__,
    'orbax-checkpoint': importlib.metadata.version('orbax-checkpoint'),
    'devices': jax.device_count(),
    'processes': jax.process_count(),
    'platform': jax.default_backend(),
  }
