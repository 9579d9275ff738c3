"""Official weights as a checkpoint of a workdir: `--mode=convert`."""

import contextlib
import json
import pathlib

import jax
import ml_collections
import numpy as np
from absl import logging

from vie_jax import blueprint, checkpoint, weights
from vie_jax.config import config_check
from vie_jax.files import disk, workdir_lock
from vie_jax.models import official_checkpoint
from vie_jax.processes import agreement
from vie_jax.wording import counted

MEMORY_FILE = 'official_memory.npz'


def convert(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Writes a checkpoint that every mode takes for the workdir's own.

  Training starts from it, with a memory bank of its own: the official bank's
  rows stand for videos that no prepared data set has in that order. What the
  official checkpoint remembers of them is written to `official_memory.npz`:
  `bank`, and `labels` and `cluster_labels` if there are any.

  Args:
    config: `init_from` is 'official:PATH'.
    workdir: must not have checkpoints yet.

  Raises:
    config_check.ConfigError: if `init_from` is something else.
    checkpoint.CheckpointError: if the workdir has checkpoints.
    official_checkpoint.OfficialCheckpointError: if the official one cannot be
      read, or is of another network.
  """
  config_check.check(config)
  if not config.init_from.startswith(weights.OFFICIAL_PREFIX):
    raise config_check.ConfigError(
      f'config.init_from is {config.init_from!r}; --mode=convert needs '
      'official:PATH.'
    )
  folder = pathlib.Path(workdir)
  model = blueprint.build_model(config)
  found, memory = weights.load_official(
    config,
    model,
    clip_shape=blueprint.clip_shape(config),
    mesh=blueprint.make_mesh(config, 'convert'),
  )
  with contextlib.ExitStack() as stack:
    stack.enter_context(workdir_lock.hold(folder))
    agreement.share_folder(folder)
    checkpoints = stack.enter_context(checkpoint.Checkpoints(folder))
    if checkpoints.latest_step is not None:
      raise checkpoint.CheckpointError(
        f'{folder} has a checkpoint of step {checkpoints.latest_step} already. '
        'Convert into a new --workdir.'
      )
    # The checkpoint comes last: a conversion that was cut short is done again.
    if memory and jax.process_index() == 0:
      _write_memory(folder / MEMORY_FILE, memory)
    checkpoints.save_converted(
      found.variables,
      {
        'config': json.loads(config.to_json_best_effort()),
        'converted_from': config.init_from,
        'official_step': found.step,
      },
    )
  logging.info(
    'Written: %s, of official step %d.', folder / 'checkpoints', found.step
  )


def _write_memory(path: pathlib.Path, memory: official_checkpoint.Memory):
  arrays = {
    name: array for name, array in vars(memory).items() if array is not None
  }
  with disk.replacing(path) as fresh, fresh.open('wb') as file:
    np.savez(file, **arrays)
  logging.info('Written: %s, %s.', path, counted(len(memory.bank), 'row'))
