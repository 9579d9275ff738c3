"""Weights and memory banks that the checkpoints of another run hold.

They are anybody's: shapes are compared before any array is read.
"""

import os
import pathlib
import shlex
from collections.abc import Callable
from typing import TypeVar

import jax
import ml_collections
from jax.sharding import Mesh

from vie_jax import checkpoint, run_record, sharding
from vie_jax.models import network_names

# Rows that a memory bank may have besides those of its videos.
_MOST_PADDING = 2**20
REMEDY = 'Use its config, or other weights (config.init_from).'
# Modes whose folders, WORKDIR/MODE/NAME, are workdirs of their own.
ON_LABELS = ('supervised', 'finetune')
T = TypeVar('T')


def place_of(source: str | pathlib.Path) -> tuple[pathlib.Path, int | None]:
  """The workdir that a source names, and the step, if it names one.

  Args:
    source: WORKDIR, for its newest step, or WORKDIR/checkpoints/STEP.
  """
  folder = pathlib.Path(os.path.expanduser(source))
  is_step = folder.parent.name == 'checkpoints' and folder.name.isdecimal()
  # A workdir may be called so, too.
  if is_step and not (folder / 'checkpoints').is_dir():
    return folder.parent.parent, int(folder.name)
  return folder, None


def check_are_there(folder: pathlib.Path) -> None:
  """Refuses a workdir without checkpoints; opens none, and asks no device.

  Args:
    folder: the workdir.

  Raises:
    checkpoint.CheckpointError: with the remedy.
  """
  if not folder.is_dir():
    raise _no_workdir(folder)
  if not checkpoint.has_any(folder):
    raise _no_checkpoint(folder)


def load_network(
  folder: pathlib.Path,
  mesh: Mesh,
  check: Callable[[dict, dict], None],
  *,
  step: int | None = None,
  with_bank: bool = False,
) -> tuple[dict, dict]:
  """Loads the network of a workdir's checkpoint.

  Args:
    folder: the workdir.
    mesh: that the variables are laid out on.
    check: given the record, with its `step`, and the shapes of the variables,
      refuses those of another network before any array is read.
    step: of the checkpoint; None for the newest that is not damaged.
    with_bank: the memory bank must be sound, too, if there is one.

  Returns:
    `params` and `batch_stats`, float32, whole on each device; and the record,
    with its `step`.

  Raises:
    checkpoint.CheckpointError: if there is no checkpoint, or all are damaged;
      and whatever `check` raises.
  """
  whole = sharding.replicated(mesh)

  def read(checkpoints, step):
    record = {**checkpoints.record(step), 'step': step}
    shapes = checkpoints.saved_shapes(step, 'model')
    if not shapes:
      raise checkpoint.CheckpointError(
        f'The checkpoints of {folder} hold readouts and no network, as those of '
        '--mode=linear_eval do; name the workdir of the network.'
      )
    check(record, shapes)
    if with_bank and checkpoints.saved_shapes(step, 'memory_bank'):
      _read_bank(checkpoints, step, mesh)
    variables = checkpoints.restore_as_saved(
      step, 'model', {'params': whole, 'batch_stats': whole}
    )
    return variables, record

  return _read(folder, read, step)


def load_bank(
  workdir: str | pathlib.Path,
  *,
  fingerprint: str,
  num_videos: int,
  embedding_size: int,
  mesh: Mesh,
  step: int | None = None,
) -> dict[str, jax.Array]:
  """Loads the memory bank of a run's checkpoint.

  Args:
    workdir: of the run.
    fingerprint: of the videos that its rows must stand for.
    num_videos: N, of these videos.
    embedding_size: D that it must have.
    mesh: the mesh of the run.
    step: of the checkpoint; None for the newest that is not damaged.

  Returns:
    `bank` float32 [rows, D] and `bank_step` int32 [rows], when each row was
    last updated; rows split over `data`.

  Raises:
    checkpoint.CheckpointError: if there is no checkpoint, it is damaged, or
      of other videos or another D.
  """

  def read(checkpoints, step):
    saved = checkpoints.saved_shapes(step, 'memory_bank')
    if not saved:
      raise checkpoint.CheckpointError(
        f'{workdir} has no memory bank, as none that was converted, or trained '
        'on labels. Leave out config.memory_bank.init=init_from, or name another '
        'run.'
      )
    trained_on = checkpoints.record(step)['fingerprint']
    if trained_on != fingerprint:
      raise checkpoint.CheckpointError(
        f'The memory bank of {workdir} is of other videos: their fingerprint is '
        f'{trained_on[:16]}, that of config.dataset is '
        f'{fingerprint[:16]}. With config.memory_bank.init=embeddings or uniform '
        'the run has a bank of its own.'
      )
    found = saved['bank'].shape
    if found[1:] != (embedding_size,):
      raise checkpoint.CheckpointError(
        f'The memory bank of {workdir} has {found[-1]} dimensions, and '
        f'config.model.embedding_size is {embedding_size}.'
      )
    if not num_videos <= found[0] <= _MOST_PADDING + 2 * num_videos:
      raise checkpoint.CheckpointError(
        f'The memory bank of {workdir} has {found[0]} rows for {num_videos} '
        'videos.'
      )
    return _read_bank(checkpoints, step, mesh)

  return _read(pathlib.Path(os.path.expanduser(workdir)), read, step)


def network_fields(config: ml_collections.ConfigDict, name: str) -> dict:
  """The fields of `config.model` that make the network `name` what it is."""
  fields = ['width', 'embedding_size']
  if network_names.has_slowfast(name):
    fields += ['fast_width', 'alpha']
  return {'name': name, **{field: config.model[field] for field in fields}}


def check_network(
  record: dict,
  folder: pathlib.Path,
  fields: dict,
  *,
  remedy: str = REMEDY,
) -> None:
  """Refuses a checkpoint of another network than these fields describe.

  Args:
    record: of the checkpoint.
    folder: its workdir.
    fields: of `config.model`, see `network_fields`.
    remedy: a sentence.
  """
  differing = run_record.differing_model(record, fields)
  if differing:
    listing = '; '.join(
      f'config.model.{name} was {old!r}, is {new!r}'
      for name, (old, new) in differing.items()
    )
    raise checkpoint.CheckpointError(
      f'{folder} holds the weights of another network: {listing}. {remedy}'
    )


def name_of(path: tuple) -> str:
  """The path of a leaf in words, such as 'params/projection/kernel'."""
  return '/'.join(str(key.key) for key in path)


def by_name(tree: dict) -> dict[str, jax.Array]:
  """Leaves by their names, see `name_of`."""
  return {name_of(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def differing_arrays(found: dict, expected: dict) -> dict[str, str]:
  """Name -> what is wrong, of arrays that are missing, extra or misshapen."""
  found, expected = by_name(found), by_name(expected)
  differing = {}
  for name in sorted({*found, *expected}):
    if name not in found:
      differing[name] = f'it lacks {name}'
    elif name not in expected:
      differing[name] = f'{name} is not part of the network'
    elif found[name].shape != expected[name].shape:
      differing[name] = (
        f'{name} is {found[name].shape}, not {expected[name].shape}'
      )
  return differing


def refuse(differing: dict[str, str], place: str) -> None:
  """Refuses the weights of `place` if any differ, naming the first five."""
  if differing:
    more = ' and so on' if len(differing) > 5 else ''
    raise checkpoint.CheckpointError(
      f'{place} holds another network: '
      f'{"; ".join([*differing.values()][:5])}{more}. Use the config that it was '
      'trained with.'
    )


def _read(
  folder: pathlib.Path,
  read: Callable[[checkpoint.Checkpoints, int], T],
  step: int | None = None,
) -> T:
  """Reads of a workdir's checkpoints.

  Args:
    folder: the workdir.
    read: given the checkpoints and a step, reads what is needed.
    step: which; None for the newest that is not damaged.
  """
  if not folder.is_dir():
    raise _no_workdir(folder)
  with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
    if step is not None:
      return checkpoints.read_step(step, lambda step: read(checkpoints, step))
    found = checkpoints.read_newest(lambda newest: read(checkpoints, newest))
  if found is None:
    raise _no_checkpoint(folder)
  return found


def _no_workdir(folder):
  return checkpoint.CheckpointError(
    f'There is no workdir {folder} to take weights from. Train there first; '
    'a checkpoint of the official code is named official:PATH.'
  )


def _no_checkpoint(folder):
  # Of a classifier, the network below it, too.
  below = [
    place
    for mode in ON_LABELS
    for place in sorted((folder / mode).glob('*'))
    if checkpoint.has_any(place)
  ]
  if below:
    places = ' or '.join(
      f'--config.init_from={shlex.quote(str(place))}' for place in below
    )
    return checkpoint.CheckpointError(
      f'{folder} has no checkpoint of its own to take weights from. Those of '
      f'its trainings on labels are taken with {places}.'
    )
  return checkpoint.CheckpointError(
    f'{folder} has no checkpoint to take weights from. Train there first, '
    'or take an untrained network with --config.init_from=random.'
  )


def _read_bank(checkpoints, step, mesh):
  split = sharding.rows(mesh)
  return checkpoints.restore_as_saved(
    step,
    'memory_bank',
    {
      'bank': split,
      'bank_step': split,
      'cluster_labels': sharding.columns(mesh),
    },
  )
