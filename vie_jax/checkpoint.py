"""Saving and restoring a run, so that nothing damaged is ever restored.

A checkpoint has three items: `model` (parameters and batch statistics),
`memory_bank` (with the age and the clusters of its rows) and `training` (the
rest of the `TrainState`), and a record (JSON: config, fingerprint of the data
set and so on). Evaluations read only what they need. A converted checkpoint has
`model` only; the training of a classifier has items of its own.

orbax writes the arrays. Which steps there are, whether they are whole, and
which are removed is decided here: see `saved_steps` and docs/checkpoints.md.
"""

import errno
import os
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
from absl import logging

from vie_jax.files import disk
from vie_jax.processes import agreement
from vie_jax.saved_steps import commit_record, step_reader
from vie_jax.saved_steps.step_folders import StepFolders
from vie_jax.saved_steps.step_saver import SaveFailedError, StepSaver, kept

FORMAT_VERSION = commit_record.FORMAT_VERSION
ITEMS = {
  'model': ('params', 'batch_stats'),
  'memory_bank': ('bank', 'bank_step', 'cluster_labels'),
  'training': ('step', 'key', 'opt_state'),
}
T = TypeVar('T')


class CheckpointError(ValueError):
  """A checkpoint is missing, damaged, or of another run."""


class DamagedError(CheckpointError):
  """One step is not as it was saved.

  Args:
    folder: of the step.
    reason: naming the file or the array.
    is_unread: whether it may be whole, see `commit_record.UnreadError`.
  """

  def __init__(
    self, folder: pathlib.Path, reason: str, *, is_unread: bool = False
  ):
    super().__init__(
      f'The checkpoint {folder} cannot be restored: {reason}. If it is '
      'damaged, move it away.'
    )
    self.reason = reason
    self.is_unread = is_unread


class Checkpoints:
  """The checkpoints of one workdir, newest last. A context manager.

  At its end it waits for what is being saved.

  Args:
    workdir: its folder `checkpoints` holds one folder per saved step.
    keep: how many to keep, the oldest go first; None keeps all.
    keep_every_steps: steps that are multiples of it stay, too; 0 for none.
    on_failed_save: 'retry' goes on after a save that failed, until the next;
      'stop' raises SaveFailedError as soon as it is known.
    read_only: leaves the folder as it is: creates, moves and removes nothing.
      A folder that a training is writing to can be read.
    items: name -> fields of the state that are saved together; those of a
      `TrainState`, unless it is another kind of state.

  Raises:
    CheckpointError: if it is to be written to and cannot be.
    SaveFailedError: likewise, for want of room or of a file system that
      answers.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    keep: int | None = None,
    keep_every_steps: int = 0,
    on_failed_save: str = 'retry',
    read_only: bool = False,
    items: Mapping[str, Sequence[str]] = ITEMS,
  ):
    self._items = items
    self._keep = {'newest': keep, 'every_steps': keep_every_steps}
    self._on_failed_save = on_failed_save
    self._directory = _directory_of(workdir)
    self._folders = StepFolders(self._directory)
    self._reader = step_reader.StepReader(self._folders)
    self._failure: str | None = None
    self._saver = None
    if not read_only:
      self._prepare()
      self._saver = StepSaver(
        self._folders, [*items], keep=keep, keep_every_steps=keep_every_steps
      )
    self._list()

  def __enter__(self):
    return self

  def __exit__(self, kind, *unused_exception):
    if self._saver is None:
      return
    try:
      # After an error all processes may not come by here.
      if kind is None:
        self.wait()
    finally:
      self._saver.close()

  @property
  def directory(self) -> pathlib.Path:
    """The folder that they are in."""
    return self._directory

  @property
  def latest_step(self) -> int | None:
    """The newest step that is saved and not known to be damaged, or None."""
    return self._steps[-1] if self._steps else None

  def save(self, state: Any, record: dict) -> None:
    """Saves in the background; the state may be donated right afterwards.

    All processes call this. A step counts from when all of it is on the disk;
    `poll` and `wait` take note of it.

    Args:
      state: a `TrainState`, or what else has the fields of the items and a
        step, under which it is saved.
      record: JSON-compatible facts: see `check_record`.

    Raises:
      CheckpointError: if the step, or a later one, is saved already, or if
        this is `read_only`.
      SaveFailedError: as `poll`, about the save before.
    """
    items = {name: self._item(name, state) for name in self._items}
    self._save(int(state.step), items, record)

  def save_converted(self, variables: dict, record: dict) -> None:
    """Saves weights that no training here has made, as step 0.

    Args:
      variables: `params` and `batch_stats`.
      record: JSON-compatible facts: `config`, `converted_from` and
        `official_step`.

    Raises:
      CheckpointError: if there is a checkpoint already, or if this is
        `read_only`.
    """
    self._save(0, {'model': variables}, record)

  def _save(self, step: int, items: dict, record: dict) -> None:
    if self._saver is None:
      raise CheckpointError(
        f'{self._directory} was opened read_only, so that step {step} was not '
        'saved.'
      )
    self._take_note(waits=True)
    if self._steps and step <= self._steps[-1]:
      raise CheckpointError(
        f'{self._directory} holds step {self._steps[-1]}, so that step '
        f'{step} was not saved; does another run use this workdir?'
      )
    self._saver.start(step, items, record)

  def give_up(self, step: int, reason: str) -> None:
    """Counts a step as one that could not be saved, without a try.

    All processes call this.

    Args:
      step: that was to be saved.
      reason: without a full stop.

    Raises:
      SaveFailedError: as `poll`.
    """
    self._take_note(waits=True)
    self._fail(step, reason)

  def poll(self) -> None:
    """Takes note of a save that has ended; a training calls it now and then.

    Raises:
      SaveFailedError: if it failed, unless `on_failed_save` is 'retry', which
        leaves it at a line in the log.
    """
    self._take_note(waits=False)

  def settle(self) -> None:
    """Waits for the end of a save that is going on, as `save` does.

    Raises:
      SaveFailedError: as `poll`.
    """
    self._take_note(waits=True)

  def wait(self) -> None:
    """Returns when all that was saved is on the disk.

    Raises:
      SaveFailedError: if the last save failed, whatever `on_failed_save` is.
    """
    self._take_note(waits=True, is_last=True)
    if self._failure:
      raise SaveFailedError(self._failure)

  def end(self) -> None:
    """Returns when nothing is being saved any more, even if that fails.

    For a training that ends for another reason: what has become of the last
    save is left at a line in the log, unless there is one already.
    """
    known = self._failure
    try:
      self._take_note(waits=True, is_last=True)
    except SaveFailedError as error:
      logging.error('%s', error)
      return
    if self._failure and self._failure is not known:
      logging.error('%s', self._failure)

  def _take_note(self, *, waits: bool, is_last: bool = False) -> None:
    if self._saver is None:
      return
    outcome = self._saver.outcome(waits=waits)
    if outcome is None:
      return
    step, reason = outcome
    if reason is None:
      self._failure = None
      self._steps = kept([*self._steps, step], **self._keep)
      return
    self._fail(step, reason, is_last=is_last)

  def _fail(self, step: int, reason: str, *, is_last: bool = False) -> None:
    before = (
      'there is no other'
      if not self._steps
      else (f'that of step {self._steps[-1]} is kept')
    )
    self._failure = (
      f'The checkpoint {self._folders.of(step)} could not be saved: {reason}; '
      f'{before}.'
    )
    if self._on_failed_save == 'stop':
      raise SaveFailedError(
        f'{self._failure} Make room, or mend what the reason says, and run the '
        'same command again.'
      )
    # What `wait` raises is logged by whoever ends the run.
    if not is_last:
      logging.error('%s The next one is tried as usual.', self._failure)

  def record(self, step: int) -> dict:
    """What the run said of itself when it saved a step.

    Raises:
      CheckpointError: if there is no such step, or if it is of another format
        version.
      DamagedError: if it is not as it was saved.
    """
    return self._commit_record(step).record

  def restore(self, step: int, shapes: Any) -> Any:
    """Restores a state and compares it with the digests it was saved with.

    Args:
      step: one that was saved.
      shapes: ShapeDtypeStructs with shardings, which need not be those that
        the state was saved with.

    Raises:
      CheckpointError: if the state has other arrays than are saved, naming
        them, before any is read.
      DamagedError: naming the file or the array that is not as it was saved.
    """
    wanted = {name: self._item(name, shapes) for name in self._items}
    fields = {}
    for item in self._restore(step, wanted).values():
      fields |= item
    return shapes.replace(**fields)

  def saved_shapes(self, step: int, item: str) -> dict[str, Any]:
    """The arrays of an item whose fields are nested dicts.

    Args:
      step: one that was saved.
      item: a key of `ITEMS`.

    Returns:
      A nested dict of ShapeDtypeStructs without shardings.

    Raises:
      As `record`.
    """
    tree: dict[str, Any] = {}
    for name, leaf in self._commit_record(step).items.get(item, {}).items():
      *parents, last = name.split('/')
      node = tree
      for parent in parents:
        node = node.setdefault(parent, {})
      node[last] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return tree

  def restore_as_saved(
    self, step: int, item: str, placements: dict[str, jax.sharding.Sharding]
  ) -> dict[str, Any]:
    """Restores one item, in the shapes that it was saved with.

    Whoever does not trust the checkpoint looks at `saved_shapes` first.

    Args:
      step: one that was saved.
      item: of the step.
      placements: for each field of the item, that of its arrays.

    Returns:
      The fields of the item.

    Raises:
      CheckpointError: if a field has no placement, naming it.
      DamagedError: as `restore`.
    """
    if missing := {*self.saved_shapes(step, item)} - {*placements}:
      raise CheckpointError(
        f'{self._folders.of(step)} cannot be restored: there is no placement '
        f'of {", ".join(sorted(missing))}, which {item} has.'
      )
    shapes = self._read(
      step, lambda: self._reader.shapes(step, item, placements)
    )
    return self._restore(step, {item: shapes})[item]

  def read_newest(self, read: Callable[[int], T]) -> T | None:
    """Reads the newest step that is whole, and says which are not.

    Steps that are damaged and newer than it are moved aside, unless this is
    `read_only`: a training goes on from there and saves them again. Before
    that, those that gave EIO are tried once more, as the file system answers.

    Args:
      read: given a step, reads of it what is needed with `record`, `restore`
        and `restore_as_saved`, and lets DamagedError pass.

    Returns:
      What it returned, or None if there is no step.

    Raises:
      CheckpointError: if there are steps and all are damaged, which are then
        left as they are; and whatever else `read` raises.
      OSError: likewise, if some of them gave EIO and may be whole.
    """
    damaged: dict[int, str] = {}
    unread: set[int] = set()
    has_tried_again = False
    while self._steps:
      step = self._steps[-1]
      try:
        found = read(step)
      except DamagedError as error:
        if self._has_vanished(step):
          self._list(without=damaged)
          continue
        damaged[step] = error.reason
        unread |= {step} if error.is_unread else set()
        self._steps = self._steps[:-1]
        continue
      if unread and not has_tried_again:
        # The state found makes room for the one that may be.
        found, has_tried_again = None, True
        damaged = {n: why for n, why in damaged.items() if n not in unread}
        self._steps = sorted({*self._steps, *unread})
        continue
      self._leave_behind(damaged, step)
      return found
    self._refuse_all(damaged, is_unread=bool(unread))
    return None

  def read_step(self, step: int, read: Callable[[int], T]) -> T:
    """Reads one step, and no other in its place.

    If it gives EIO it is tried once more, as in `read_newest`.

    Args:
      step: one that was saved.
      read: as for `read_newest`.

    Returns:
      What it returned.

    Raises:
      DamagedError: if the step is damaged.
      OSError: if it gave EIO, and may be whole; and whatever else `read` raises.
    """
    for _ in range(2):
      try:
        return read(step)
      except DamagedError as error:
        if not error.is_unread:
          raise
        reason = error.reason
    reason = f'{os.strerror(errno.EIO)}, {reason}'
    raise OSError(errno.EIO, reason, str(self._folders.of(step)))

  def _refuse_all(self, damaged: dict[int, str], *, is_unread: bool) -> None:
    """Raises if there are steps, none of which can be restored."""
    listing = '; '.join(f'{step}: {why}' for step, why in damaged.items())
    if is_unread:
      reason = f'{os.strerror(errno.EIO)}, no checkpoint can be read: {listing}'
      raise OSError(errno.EIO, reason, str(self._directory))
    if damaged:
      raise CheckpointError(
        f'No checkpoint in {self._directory} can be restored: {listing}. They '
        'are left as they are; move them away to start anew.'
      )
    if self._set_aside:
      raise CheckpointError(
        f'{self._directory} holds no checkpoint but damaged ones: '
        f'{", ".join(self._set_aside)}. Move them away to start anew.'
      )

  def _leave_behind(self, damaged: dict[int, str], good: int) -> None:
    for step, reason in damaged.items():
      kept_as = ''
      if self._saver is not None and agreement.is_first():
        kept_as = f' It is kept as {self._folders.move_aside(step).name}.'
      logging.warning(
        'The checkpoint %s is damaged: %s. Going on from step %d instead.%s',
        self._folders.of(step),
        reason,
        good,
        kept_as,
      )

  def _has_vanished(self, step: int) -> bool:
    """Whether a training has removed what was just being read."""
    is_gone = self._saver is None and not self._folders.of(step).exists()
    return agreement.anywhere(is_gone)

  def _prepare(self) -> None:
    """Makes the folder, finds out whether it takes files, and tidies up."""
    reason, may_pass = '', False
    if agreement.is_first():
      try:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._try_to_write()
      except OSError as error:
        reason = error.strerror or str(error)
        may_pass = disk.is_no_room(error) or error.errno in disk.AWAY
      else:
        self._folders.remove_unfinished()
    reason, may_pass = agreement.by_first('writes', lambda: [reason, may_pass])
    if may_pass:
      raise SaveFailedError(
        f'{self._directory} cannot be written to: {reason}. Make room, or wait '
        'for its file system, and run the same command again.'
      )
    if reason:
      raise CheckpointError(
        f'{self._directory} cannot be written to: {reason}. Use another '
        '--workdir, or make room there.'
      )

  def _try_to_write(self) -> None:
    probe = self._directory / f'.{uuid.uuid4().hex}'
    try:
      probe.write_bytes(b'.')
      disk.sync(probe)
    finally:
      probe.unlink(missing_ok=True)

  def _list(self, without: Sequence[int] = ()) -> None:
    """Finds the steps; all processes take what the first one sees."""

    def look():
      for name in self._folders.foreign():
        logging.warning(
          '%s is no checkpoint; it is left alone.', self._directory / name
        )
      return self._folders.steps(), self._folders.set_aside()

    steps, self._set_aside = agreement.by_first('steps', look)
    self._steps = [step for step in steps if step not in without]

  def _read(self, step: int, read: Callable[[], T]) -> T:
    """Reads of a step, with errors that name its folder and the remedy."""
    folder = self._folders.of(step)
    try:
      return read()
    except commit_record.DamagedError as error:
      # A step that was there may have been removed meanwhile.
      if step not in self._steps and not folder.exists():
        raise CheckpointError(self._no_such(step)) from None
      is_unread = isinstance(error, commit_record.UnreadError)
      raise DamagedError(folder, str(error), is_unread=is_unread) from None
    except commit_record.VersionError as error:
      raise CheckpointError(
        f'{folder} has format version {error}; this code reads version '
        f'{FORMAT_VERSION}. Use a new --workdir, or the release of vie_jax '
        'that saved it.'
      ) from None
    except step_reader.OtherArraysError as error:
      raise CheckpointError(
        f'{folder} is of another network, optimizer or data set: {error}. Use '
        'its config, or a new --workdir.'
      ) from None

  def _no_such(self, step: int) -> str:
    there_are = ', '.join(map(str, self._steps))
    others = f'but {there_are}' if there_are else 'nor any other'
    return f'{self._directory} holds no step {step}, {others}.'

  def _commit_record(self, step: int) -> commit_record.CommitRecord:
    return self._read(step, lambda: self._reader.record(step))

  def _restore(self, step: int, wanted: Mapping[str, Any]) -> dict[str, Any]:
    return self._read(step, lambda: self._reader.restore(step, wanted))

  def _item(self, name: str, state: Any) -> dict:
    return {field: getattr(state, field) for field in self._items[name]}


def has_any(workdir: str | pathlib.Path) -> bool:
  """Whether a workdir has steps, damaged ones included; reads none of them.

  Args:
    workdir: whose folder `checkpoints` need not exist.
  """
  folders = StepFolders(_directory_of(workdir))
  return bool(folders.steps() or folders.set_aside())


def _directory_of(workdir):
  return pathlib.Path(workdir).absolute() / 'checkpoints'
