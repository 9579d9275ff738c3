"""Clips as a network sees them: what a config makes of a prepared data set.

Everything comes from vie_jax itself: the config is read as main.py reads it,
the clips are those of its input pipeline, cropped and coloured by its own
code. Only the normalisation is undone, to have pictures again.
"""

import dataclasses
import itertools
import os

# Nothing is trained here: the accelerator stays free for who does.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# TensorFlow only decodes pictures here, and need not talk about it.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import jax
import numpy as np
from absl import flags
from errors import InputError
from ml_collections import config_flags

from vie_jax import device_augment, experiment
from vie_jax.config import config_check
from vie_jax.input_pipeline import instances
from vie_jax.program import command_line


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """What a network sees of a video at a time.

  Attributes:
    frames: uint8 [T, S, S, 3], RGB.
    frame_numbers: int32 [T], of the stored video.
    num_bad: how many of these frames are damaged; the nearest sound ones
      stand for them.
  """

  frames: np.ndarray
  frame_numbers: np.ndarray
  num_bad: int


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
  """A video with clips of it.

  Attributes:
    split: 'train' or 'val'.
    video: row in the table of the split.
    train: the clip of a training batch; None for a validation video.
    evaluation: all its evaluation clips, in order.
  """

  split: str
  video: int
  train: Clip | None
  evaluation: list


def read_config(name, arguments):
  """Reads a config as main.py does.

  Args:
    name: a file of configs/, perhaps with ':' and a variant behind it.
    arguments: list of str, `--config.FIELD=VALUE`.

  Returns:
    ConfigDict.

  Raises:
    InputError: if there is no such file, variant or field, or a value
      that cannot work.
  """
  file = name.partition(':')[0]
  if not os.path.isfile(file):
    meant = command_line.near_config(file)
    hint = f' (did you mean {meant}?)' if meant else ''
    raise InputError(f'there is no config {file}{hint}')
  command = ['show', f'--config={name}', *arguments]
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    'config', flag_values=values, sys_argv=command
  )
  try:
    values(command)
  except Exception as error:
    # A config file is a program, and may fail in any way.
    raise InputError(command_line.reason_of(error)) from error
  config = values['config'].value
  try:
    config_check.check(config)
  except config_check.ConfigError as error:
    raise InputError(str(error)) from error
  return config


def sample(config, *, seed, num_clips, progress):
  """Makes clips of both splits.

  The training clips are the first of a training with this seed: the same
  videos, frames and crops. Mirroring and colours are drawn as there, with
  draws of their own. The validation videos are evenly spread over the table.

  Args:
    config: of which network; its dataset.dir has a training video.
    seed: int >= 0.
    num_clips: of training, and videos of validation, as far as there are so
      many.
    progress: called with 1 after each training clip, and each video whose
      evaluation clips are made.

  Returns:
    list of Sample, training first.

  Raises:
    DatasetError: if no frame of a video can be decoded.
    ValueError: if the config does not fit the data set.
  """
  # One device, whatever the training has, and one clip at a time.
  config.num_devices = 1
  # Damage is shown, however much there is.
  config.input.max_bad_share = 1.0
  # Any mode without a training batch, which a small data set may not fill.
  with experiment.open_experiment(config, 'knn_eval') as parts:
    parts = dataclasses.replace(
      parts, batch_size=1, eval_batch_size=config.clip.num_eval_clips
    )
    training = _training_clips(parts, seed, num_clips, progress)
    val = np.linspace(
      0,
      parts.val.num_instances - 1,
      min(num_clips, parts.val.num_instances),
      dtype=np.int32,
    )
    return [
      *_with_evaluation(parts, parts.train, *training, progress),
      *_with_evaluation(parts, parts.val, val, [None] * len(val), progress),
    ]


def _training_clips(parts, seed, num_clips, progress):
  """Gives videos, int32 [C], and Clips, of the first clips of a training."""
  count = min(num_clips, parts.train.num_instances)
  key = jax.random.key(seed)
  augment = jax.jit(parts.augment)
  rows, clips = [], []
  # Batches of another size visit the same instances in the same order.
  with experiment.train_batches(parts, start_step=0, seed=seed) as batches:
    for step, batch in enumerate(itertools.islice(batches, count)):
      shown = augment(
        jax.random.fold_in(key, step), batch['window'], batch['crop']
      )
      rows.append(batch['instance_index'][0])
      clips += _clips(shown, batch)
      progress(1)
  return parts.train.video[rows], clips


def _with_evaluation(parts, source, videos, training, progress):
  """Puts the evaluation clips of some videos beside their training clips."""
  if not len(videos):
    return []
  chosen = instances.Instances(
    source.store, videos, None, None, source.fingerprint
  )
  center = jax.jit(parts.center)
  samples = []
  # A batch is a video: its size is the number of clips of one.
  with experiment.eval_batches(parts, chosen, leaves_out=False) as batches:
    for video, clip, batch in zip(videos, training, batches, strict=True):
      shown = center(batch['window'], batch['crop'])
      clips = _clips(shown, batch)
      samples.append(Sample(source.store.split, int(video), clip, clips))
      progress(1)
  return samples


def _clips(shown, batch):
  """Makes Clips of normalised pictures [B, T, S, S, 3]."""
  mean = 255 * np.asarray(device_augment.PIXEL_MEAN, np.float32)
  std = 255 * np.asarray(device_augment.PIXEL_STD, np.float32)
  frames = np.asarray(shown, np.float32) * std + mean
  frames = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
  return [
    Clip(*clip)
    for clip in zip(
      frames, batch['frame_numbers'], batch['bad_frames'].tolist(), strict=True
    )
  ]
