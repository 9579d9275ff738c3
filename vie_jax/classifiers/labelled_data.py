"""Labelled videos, or images as static video, to train classifiers on."""

import collections
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import blueprint, device_augment, experiment, sharding
from vie_jax.config import config_check
from vie_jax.evaluation import clip_scores, row_progress
from vie_jax.experiment import Experiment
from vie_jax.input_pipeline import (
  augmentation,
  bad_frames,
  dataset_folder,
  image_pipeline,
  labelled_images,
)
from vie_jax.models import network_names
from vie_jax.processes import agreement
from vie_jax.telemetry import damage_counts
from vie_jax.wording import chosen, counted


@dataclasses.dataclass(frozen=True)
class LabelledData:
  """What a classifier is trained and tested on, and the network for it.

  Attributes:
    facts: of the data set, for `result.json`.
    classes: label column -> names of its classes.
    chance: label column -> accuracy without looking, see
      `experiment.chance_of_labels`, on all of validation, damaged or not; of
      TFDS, whose labels are not known before they are read, that of guessing.
    num_clips: G, evaluation clips of each video; 0 where it differs.
    crop: what a test sees of each frame, for `result.json`.
    has_other_columns: whether the data set has label columns besides these.
    model: built from the config.
    clip_shape: (T, H, W, 3) that it sees.
    mesh: of all devices in use.
    augment: (key, window, crop) -> normalised training clips.
    center: (window, crop) -> normalised evaluation clips.
    open_train: first step -> context manager over training batches. They have
      `window`, `crop` and `labels` int32 [b, columns], -1 where unknown.
    open_val: () -> likewise over validation clips, which also have
      `instance_index` and `is_valid`.
    train_damage: damaged frames of the training batches.
    eval_damage: damaged frames of the validation clips.
    name_of: `instance_index` of a training clip -> the file that it is of.
  """

  facts: dict
  classes: dict[str, list[str]]
  chance: dict[str, float]
  num_clips: int
  crop: str
  has_other_columns: bool
  model: nn.Module
  clip_shape: tuple[int, int, int, int]
  mesh: Mesh
  augment: Callable[..., jax.Array]
  center: Callable[..., jax.Array]
  open_train: Callable[[int], contextlib.AbstractContextManager]
  open_val: Callable[[], contextlib.AbstractContextManager]
  train_damage: bad_frames.BadFrames
  eval_damage: bad_frames.BadFrames
  name_of: Callable[[int], str]


@contextlib.contextmanager
def open_videos(
  config: ml_collections.ConfigDict,
  dataset_dir: str,
  mode: str,
  *,
  is_consecutive: bool = False,
) -> Iterator[LabelledData]:
  """Opens a prepared data set; all of its videos, also where training has not.

  Args:
    config: of the network, with the clips and crops that are wanted here.
    dataset_dir: of the data set; '' for `config.dataset.dir`.
    mode: of main.py, whose batches will be asked for.
    is_consecutive: whether all clips of a validation video are taken, one
      after the other, instead of `config.clip.num_eval_clips`.

  Raises:
    config_check.ConfigError, dataset_folder.DatasetError: with the remedy.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.dataset.dir = os.path.expanduser(dataset_dir or config.dataset.dir)
    config.dataset.share = 1.0
    config.dataset.with_replacement = False
    config.dataset.bin_frames = 0
  with experiment.open_experiment(config, mode) as parts:
    yield _of_videos(parts, is_consecutive)


def _of_videos(parts: Experiment, is_consecutive: bool) -> LabelledData:
  config = parts.config
  if not parts.label_columns:
    raise dataset_folder.DatasetError(
      f'{config.dataset.dir} has no labels to train a classifier on; prepare '
      'it again with --labels, or with a subfolder for each class.'
    )
  classes = {name: parts.train.label(name)[1] for name in parts.label_columns}
  train, val = (
    np.stack([videos.label(column)[0] for column in classes], axis=1)
    for videos in (parts.train, parts.val)
  )
  for number, column in enumerate(classes):
    for split, labels in (('train', train), ('val', val)):
      if not (labels[:, number] >= 0).any():
        raise dataset_folder.DatasetError(
          f'The {split} videos of {config.dataset.dir} have no labels of column '
          f'{column!r}; name others with config.dataset.label_columns.'
        )
  _warn_of_untrained(config.dataset.dir, classes, train, val)
  return LabelledData(
    facts=experiment.dataset_facts(parts),
    classes=classes,
    chance=experiment.chance(parts),
    num_clips=0 if is_consecutive else config.clip.num_eval_clips,
    crop='center'
    if augmentation.eval_method(config.crop) == 'short_side'
    else 'center, whole short side',
    has_other_columns=len(parts.train.label_columns) > len(classes),
    model=parts.model,
    clip_shape=parts.clip_shape,
    mesh=parts.mesh,
    augment=parts.augment,
    center=parts.center,
    open_train=lambda start_step: _labelled(
      experiment.train_batches(parts, start_step=start_step, seed=config.seed),
      lambda batch: train[batch['instance_index']],
    ),
    open_val=lambda: _labelled(
      experiment.eval_batches(parts, parts.val, is_consecutive=is_consecutive),
      lambda batch: val[batch['instance_index']],
    ),
    train_damage=parts.train_damage,
    eval_damage=parts.eval_damage,
    name_of=functools.partial(experiment.video_path, parts),
  )


def _warn_of_untrained(location, classes, train, val):
  """Names classes that only validation videos have.

  Args:
    location: of the data set.
    classes: label column -> names of its classes.
    train: int [N, columns], labels, -1 where unknown.
    val: int [V, columns], likewise.
  """
  for number, (column, names) in enumerate(classes.items()):
    tested = val[:, number]
    absent = np.setdiff1d(tested[tested >= 0], train[:, number])
    if absent.size:
      num_of_them = np.isin(tested, absent).sum()
      logging.warning(
        '%s: classes of %r without a training video: %d of %d, such as %r. '
        'They cannot be learnt, and %d of %s %s of them.',
        location,
        column,
        absent.size,
        len(names),
        names[absent[0]],
        num_of_them,
        counted(len(tested), 'validation video'),
        chosen(num_of_them, 'is', 'are'),
      )


@contextlib.contextmanager
def _labelled(opened, labels_of):
  """Puts the labels of all columns into each batch."""
  with opened as batches:

    def labelled():
      for batch in batches:
        labels = labels_of(batch)
        del batch['label']
        yield {**batch, 'labels': labels}

    yield labelled()


@contextlib.contextmanager
def open_images(
  config: ml_collections.ConfigDict, name: str, mode: str
) -> Iterator[LabelledData]:
  """Opens images, each of them shown as static video.

  The network sees an image T times, T as it is trained for: the image is
  augmented once, and tiled over time on the device. A network that looks at
  each frame for itself sees it once, which gives the same.

  Args:
    config: of the network.
    name: see `labelled_images.open_images`.
    mode: of main.py, with fields `tfds_data_dir` and `static_grey_probability`.

  Raises:
    config_check.ConfigError, dataset_folder.DatasetError: with the remedy.

  Source: the paper's static-image transfer; crops and noise are those of the
    official ImageNet pipeline.
  """
  config_check.check(config)
  mesh = blueprint.make_mesh(config, mode)
  settings = config[mode]
  name = os.path.expanduser(name)
  with contextlib.ExitStack() as stack:
    train, val = (
      stack.enter_context(
        labelled_images.open_images(
          name, split, data_dir=settings.tfds_data_dir or None
        )
      )
      for split in ('train', 'val')
    )
    if train.num_images < settings.batch_size:
      raise config_check.ConfigError(
        f'config.{mode}.batch_size is {settings.batch_size}, but {name} has '
        f'only {counted(train.num_images, "image")} to train on; lower it.'
      )
    if val.read(0)[1] < 0:
      raise dataset_folder.DatasetError(
        f'{val.location} has no labels to test on; name a data set that has.'
      )
    agreement.check_same(
      {
        f'fingerprint of {images.location}': images.fingerprint
        for images in (train, val)
      }
    )
    damage = [
      stack.enter_context(damage_counts.counting(config)) for _ in range(2)
    ]
    yield _of_images(config, settings, train, val, mesh, *damage)


def _chance_of_images(train, val):
  if train.labels is None or val.labels is None:
    return 1 / len(train.class_names)
  return experiment.chance_of_labels(train.labels, val.labels)


def _of_images(config, settings, train, val, mesh, train_damage, eval_damage):
  shape = blueprint.clip_shape(config)
  repeats = 1 if config.model.name in network_names.FRAME_WISE else shape[0]
  size = config.crop.size
  options = {'size': size, **experiment.image_input_options(config)}
  noise = {
    **config.augmentation,
    'grey_probability': settings.static_grey_probability,
  }
  picture = {'size': size, 'dtype': config.model.dtype}
  augment = functools.partial(
    device_augment.augment, grey_first=True, **picture, **noise
  )
  center = functools.partial(device_augment.center, **picture)

  def labels_of(batch):
    return batch['label'][:, None]

  return LabelledData(
    facts={
      'name': train.name,
      'path': settings.dataset,
      'kind': 'image',
      'fingerprint': train.fingerprint + val.fingerprint,
      'train': train.num_images,
      'val': val.num_images,
      'split': 'val',
    },
    classes={train.label_column: train.class_names},
    chance={train.label_column: _chance_of_images(train, val)},
    num_clips=1,
    crop='center',
    has_other_columns=False,
    model=blueprint.build_model(config),
    clip_shape=shape,
    mesh=mesh,
    augment=lambda *clip: _tile(augment(*clip), repeats),
    center=lambda *clip: _tile(center(*clip), repeats),
    open_train=lambda start_step: _labelled(
      image_pipeline.train_batches(
        train,
        batch_size=settings.batch_size,
        seed=config.seed,
        start_step=start_step,
        damage=train_damage,
        **options,
      ),
      labels_of,
    ),
    open_val=lambda: _labelled(
      experiment.watched(
        image_pipeline.eval_batches(
          val,
          short_side=max(config.crop.eval_short_side, size),
          batch_size=settings.eval_batch_size,
          leaves_out=True,
          damage=eval_damage,
          **options,
        )
      ),
      labels_of,
    ),
    train_damage=train_damage,
    eval_damage=eval_damage,
    name_of=train.names,
  )


def test(
  data: LabelledData, predict: Callable[[dict], dict]
) -> dict[str, dict[str, dict[str, float]]]:
  """Tests classifiers on all validation clips.

  Args:
    data: has the clips.
    predict: batch on the mesh -> classifier's name -> label column -> class
      probabilities, float32 [B, C]; jitted, its results whole on each device.

  Returns:
    label column -> classifier's name -> accuracies, see
    `clip_scores.ClipScores.accuracy`. The softmax of a video's clips is
    averaged (official): of those that are valid, where a store had lost some
    for a while.

  Raises:
    dataset_folder.DatasetError: if no clip with a label is sound.
  """
  found = {
    column: collections.defaultdict(clip_scores.ClipScores)
    for column in data.classes
  }
  whole = jax.jit(
    lambda *arrays: arrays, out_shardings=sharding.replicated(data.mesh)
  )
  progress = row_progress.RowProgress(
    'Tested', data.facts['val'], f'{data.facts["kind"]}s'
  )
  with data.open_val() as batches:
    for batch in batches:
      batch = sharding.global_batch(batch, data.mesh)
      scores = predict({name: batch[name] for name in ('window', 'crop')})
      facts = whole(
        *(batch[n] for n in ('instance_index', 'labels', 'is_valid'))
      )
      video, labels, valid = map(np.asarray, facts)
      for name, by_column in scores.items():
        for number, column in enumerate(data.classes):
          clips = np.asarray(by_column[column])[valid]
          found[column][name].add(video[valid], clips, labels[valid, number])
      progress.report(int(video.max()) + 1)
  accuracy = {
    column: {name: scores.accuracy() for name, scores in by_name.items()}
    for column, by_name in found.items()
  }
  for column, by_name in accuracy.items():
    if not all(by_name.values()):
      raise dataset_folder.DatasetError(
        f'{data.facts["path"]} has no validation video or image of column '
        f'{column!r} that can be read and decoded: mend the data set, or leave '
        'the column out.'
      )
  return accuracy


def _tile(clips: jax.Array, num_frames: int) -> jax.Array:
  """Shows images [B, 1, H, W, 3] for T frames: [B, T, H, W, 3]."""
  return jax.numpy.repeat(clips, num_frames, axis=1)
