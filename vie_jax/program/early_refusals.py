"""What is refused before the slow imports: what a look at some files tells.

Each mode looks again, and more closely, when it comes to it.
"""

import pathlib
import shlex

import jax
import ml_collections

from vie_jax import checkpoint, weights
from vie_jax.config import config_check, modes
from vie_jax.files import config_origin, workdir_lock
from vie_jax.input_pipeline import dataset_folder
from vie_jax.machine import devices
from vie_jax.processes import agreement


def check(mode: str, config: ml_collections.ConfigDict, workdir: str) -> None:
  """Refuses a run that cannot start.

  For a run of one process: several agree on what is there.

  Args:
    mode: of `modes.MODES`.
    config: checked.
    workdir: of the run.

  Raises:
    dataset_folder.DatasetError: if the data set is not there.
    config_check.ConfigError: if the training batches are too large for it.
    workdir_lock.WorkdirLockedError: if another process of this machine trains
      in the workdir.
    checkpoint.CheckpointError: if there are no weights to evaluate, or to begin
      with.
  """
  if modes.MODES[mode].reads_dataset:
    dataset_folder.check_is_there(config.dataset.dir)
  if mode == 'train':
    _check_batch(config)
    workdir_lock.check_is_free(pathlib.Path(workdir))
    # A run that goes on needs those of no other any more.
    if weights.is_run(config.init_from) and not checkpoint.has_any(workdir):
      weights.check_are_there(config, workdir)
  if modes.MODES[mode].reads_weights:
    weights.check_are_there(config, workdir)


def check_settings() -> None:
  """Refuses settings of JAX that this code, or this machine, is not made for.

  Raises:
    config_check.ConfigError, devices.NoDevicesError: with the remedy.
  """
  devices.check_are_there()
  if jax.config.jax_enable_x64:
    raise config_check.ConfigError(
      'JAX_ENABLE_X64 is set, and networks, memory bank and checkpoints are '
      'float32 or bfloat16; unset it.'
    )


def check_origin(workdir: str, origin: str) -> None:
  """Refuses a default workdir that holds a training by another config file.

  Of several processes, which all call this, the first one looks.

  Args:
    workdir: with the name of a config file, which several files may have.
    origin: of this one, see `config_origin`.

  Raises:
    config_check.ConfigError: with the remedy.
  """
  other = agreement.by_first(
    'config file', lambda: config_origin.other_than(origin, workdir)
  )
  if other is not None:
    raise config_check.ConfigError(
      f'{workdir} holds a training by another config file, {other}, and this one '
      f'is {origin}. Name a folder of its own with --workdir, or, to go on there '
      f'with this one, --workdir={shlex.quote(workdir)}.'
    )


def _check_batch(config):
  """Refuses batches larger than the data set, if that lies here."""
  num_videos = dataset_folder.num_videos_of(config.dataset.dir, 'train')
  # Of bins there may be any number, of shares of the videos only fewer.
  if num_videos is not None and not config.dataset.bin_frames:
    config_check.check_batch(config, 'batch_size', num_videos)
