"""Saving and restoring a run with orbax.

A checkpoint has four items: `model` (parameters and batch statistics),
`memory_bank` (with the age and the clusters of its rows), `training` (the rest
of the `TrainState`) and `record` (JSON: format version, config, fingerprint of
the data set). Evaluations read only what they need. A converted checkpoint has
`model` and `record` only; the training of a classifier has items of its own.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

FORMAT_VERSION = 2
ITEMS = {
  'model': ('params', 'batch_stats'),
  'memory_bank': ('bank', 'bank_step', 'cluster_labels'),
  'training': ('step', 'key', 'opt_state'),
}


class CheckpointError(ValueError):
  """A checkpoint is missing, damaged, or of another run."""


class Checkpoints:
  """The checkpoints of one workdir, newest last. A context manager.

  Args:
    workdir: its folder `checkpoints` holds one folder per saved step.
    keep: how many to keep, the oldest go first; None keeps all.
    read_only: leaves the folder as it is: creates nothing, and does not take
      what a running training is just saving for the remains of a kill.
    items: name -> fields of the state that are saved together; those of a
      `TrainState`, unless it is another kind of state.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    keep: int | None = None,
    read_only: bool = False,
    items: Mapping[str, Sequence[str]] = ITEMS,
  ):
    self._items = items
    self._directory = pathlib.Path(workdir).absolute() / 'checkpoints'
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=not read_only,
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
        save_interval_steps=0 if read_only else 1,
      ),
      item_handlers={
        **{name: ocp.StandardCheckpointHandler() for name in items},
        'record': ocp.JsonCheckpointHandler(),
      },
    )

  def __enter__(self):
    return self

  def __exit__(self, *unused_exception):
    self._manager.close()

  @property
  def directory(self) -> pathlib.Path:
    """The folder that they are in."""
    return self._directory

  @property
  def latest_step(self) -> int | None:
    """The newest saved step, or None."""
    return self._manager.latest_step()

  def save(self, state: Any, record: dict) -> None:
    """Saves in the background; the state may be donated right afterwards.

    Args:
      state: a `TrainState`, or what else has the fields of the items and a
        step, under which it is saved.
      record: JSON-compatible facts: see `check_record`.

    Raises:
      CheckpointError: if the step, or a later one, is saved already.
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
      CheckpointError: if there is a checkpoint already.
    """
    self._save(0, {'model': variables}, record)

  def _save(self, step: int, items: dict, record: dict) -> None:
    arguments = {
      name: ocp.args.StandardSave(item) for name, item in items.items()
    }
    arguments['record'] = ocp.args.JsonSave(
      {'format_version': FORMAT_VERSION, **record}
    )
    is_saved = self._manager.save(step, args=ocp.args.Composite(**arguments))
    if not is_saved:
      raise CheckpointError(
        f'{self._directory} holds step {self.latest_step}, so that step '
        f'{step} was not saved; does another run use this workdir?'
      )

  def wait(self) -> None:
    """Returns when all saves are on the disk."""
    self._manager.wait_until_finished()

  def record(self, step: int) -> dict:
    """Reads the JSON record of a step.

    Raises:
      CheckpointError: if it cannot be read, or is of another format.
    """
    record = self._restore(step, record=ocp.args.JsonRestore())['record']
    version = record.get('format_version')
    if version != FORMAT_VERSION:
      raise CheckpointError(
        f'{self._directory / str(step)} has format version {version!r}; this '
        f'code reads version {FORMAT_VERSION}.'
      )
    return record

  def restore(self, step: int, shapes: Any) -> Any:
    """Restores a state.

    Args:
      step: one that was saved.
      shapes: ShapeDtypeStructs with shardings, which need not be those that
        the state was saved with.

    Raises:
      CheckpointError: naming the folder and the remedy.
    """
    wanted = {
      name: ocp.args.StandardRestore(self._item(name, shapes))
      for name in self._items
    }
    restored = self._restore(step, **wanted)
    fields = {}
    for name in self._items:
      fields |= restored[name]
    return shapes.replace(**fields)

  def restore_as_saved(
    self, step: int, item: str, placements: dict[str, jax.sharding.Sharding]
  ) -> dict[str, Any]:
    """Restores one item, without knowing its shapes.

    Args:
      step: one that was saved.
      item: a key of `ITEMS`.
      placements: for each field of the item, that of its arrays.

    Returns:
      The fields of the item, in the shapes that they were saved with.

    Raises:
      CheckpointError: naming the folder and the remedy.
    """

    def shapes_of(field):
      return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=placements[field]
        ),
        saved[field],
      )

    try:
      saved = self._manager.item_metadata(step)[item].tree
      shapes = {field: shapes_of(field) for field in self._items[item]}
    except Exception as error:  # orbax raises whatever its parts raise
      raise self._unreadable(step, ' '.join(str(error).split())[:300]) from None
    return self._restore(step, **{item: ocp.args.StandardRestore(shapes)})[item]

  def _item(self, name: str, state: Any) -> dict:
    return {field: getattr(state, field) for field in self._items[name]}

  def _restore(self, step, **args):
    folder = self._directory / str(step)
    missing = [item for item in args if not (folder / item).is_dir()]
    try:
      if not missing:
        return self._manager.restore(step, args=ocp.args.Composite(**args))
      reason = f'it has no {" and no ".join(missing)}'
    except Exception as error:  # orbax raises whatever its parts raise
      reason = ' '.join(str(error).split())[:300]
    raise self._unreadable(step, reason)

  def _unreadable(self, step: int, reason: str) -> CheckpointError:
    others = [s for s in self._manager.all_steps() if s != step]
    remedy = (
      f'If it is damaged, move it away to go on from step {max(others)}.'
      if others
      else 'It is the only one: if it is damaged, move it away to start anew.'
    )
    return CheckpointError(
      f'The checkpoint {self._directory / str(step)} cannot be restored: '
      f'{reason}. {remedy}'
    )


def differing_fields(old: dict, new: dict, prefix: str = '') -> dict:
  """Compares two configs given as nested dicts.

  Returns:
    dotted field name -> (old value, new value), None where absent.
  """
  differing = {}
  for name in sorted({*old, *new}):
    before, after = old.get(name), new.get(name)
    if isinstance(before, dict) and isinstance(after, dict):
      differing |= differing_fields(before, after, f'{prefix}{name}.')
    elif before != after:
      differing[prefix + name] = (before, after)
  return differing


def check_dataset(record: dict, fingerprint: str) -> None:
  """Refuses a memory bank whose rows stand for other videos.

  Raises:
    CheckpointError: with both fingerprints and the remedy.
  """
  if 'converted_from' in record:
    raise CheckpointError(
      f'The checkpoint was converted from {record["converted_from"]} and has no '
      'memory bank of these videos.'
    )
  if record['fingerprint'] != fingerprint:
    raise CheckpointError(
      'The checkpoint was trained on another data set: its fingerprint is '
      f'{record["fingerprint"][:16]}, that of config.dataset is '
      f'{fingerprint[:16]}. Use a new --workdir, or the data set of old.'
    )


def differing_model(record: dict, model: dict) -> dict:
  """Compares fields of `config.model` with those of a checkpoint.

  Args:
    record: of the checkpoint.
    model: the fields that matter, as they are expected.

  Returns:
    field -> (its value there, the value expected), of those that differ.
  """
  saved = record['config']['model']
  return differing_fields({name: saved.get(name) for name in model}, model)


def check_record(record: dict, *, config: dict, fingerprint: str) -> dict:
  """Checks that a run may go on from a checkpoint.

  Args:
    record: of the checkpoint, with `config` and `fingerprint`.
    config: of this run, JSON-compatible.
    fingerprint: of this run's training videos.

  Returns:
    What has changed in the config and does no harm: field -> (old, new).

  Raises:
    CheckpointError: if the videos are others, so that bank rows would belong
      to the wrong ones, or a field that shapes the state has changed.
  """
  check_dataset(record, fingerprint)
  changed = differing_fields(record['config'], config)
  fixed = {
    name: values
    for name, values in changed.items()
    if (name.startswith('model.') and name != 'model.streams')
    or name in ('seed', 'optimizer.name', 'local_aggregation.num_clusterings')
    or (name == 'clip.num_frames' and config['model']['name'] == 'vie_trn')
  }
  if fixed:
    listing = '; '.join(
      f'{name} was {old!r}, is {new!r}' for name, (old, new) in fixed.items()
    )
    raise CheckpointError(
      f'The checkpoint was trained with another config: {listing}. Use a '
      'new --workdir, or the values of old.'
    )
  return changed
