"""What a config describes, built: data, mesh, network.

Training and every evaluation start here, so that both see the same thing.
"""

import contextlib
import dataclasses
import functools
import json
import operator
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
import optax
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import blueprint, device_augment, train_state
from vie_jax.config import config_check, modes
from vie_jax.input_pipeline import (
  augmentation,
  bad_frames,
  dataset_folder,
  frame_store,
  instances,
  pipeline,
)
from vie_jax.processes import agreement, preemption, watchdog
from vie_jax.telemetry import damage_counts, input_wait
from vie_jax.wording import counted


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The collaborators of a run.

  Attributes:
    config: checked.
    mesh: of all devices in use.
    train: what is trained on, the rows of the memory bank.
    val: the validation videos, perhaps none.
    model: from clips to embeddings.
    clip_shape: (T, H, W, 3) that the model sees.
    augment: (key, window, crop) -> normalised training clips.
    center: (window, crop) -> normalised evaluation clips.
    batch_size: of training, over all devices; 0 where nothing is trained.
    eval_batch_size: of evaluation, over all devices.
    train_damage: damaged frames of the training batches.
    eval_damage: damaged frames of the evaluation clips.
  """

  config: ml_collections.ConfigDict
  mesh: Mesh
  train: instances.Instances
  val: instances.Instances
  model: nn.Module
  clip_shape: tuple[int, int, int, int]
  augment: Callable[..., jax.Array]
  center: Callable[..., jax.Array]
  batch_size: int
  eval_batch_size: int
  train_damage: bad_frames.BadFrames
  eval_damage: bad_frames.BadFrames

  @property
  def label_columns(self) -> list[str]:
    """The label columns that evaluations look at."""
    wanted = list(self.config.dataset.label_columns)
    return wanted or self.train.label_columns

  @property
  def chosen_columns(self) -> list[str]:
    """Label columns that were asked for, where the data set has more.

    They name the folder of a result, see `result.folder`; empty for all columns.
    """
    has_others = set(self.label_columns) < set(self.train.label_columns)
    return self.label_columns if has_others else []


@contextlib.contextmanager
def open_experiment(
  config: ml_collections.ConfigDict, mode: str = 'train'
) -> Iterator[Experiment]:
  """Builds what the config describes; closes the data set at the end.

  Args:
    config: see configs/default.py.
    mode: of `modes.MODES`, whose batches will be asked for.

  Raises:
    config_check.ConfigError: if a field cannot work.
    dataset_folder.DatasetError: if there is no such prepared data set, or no
      validation video where the mode is to learn labels.
  """
  config_check.check(config)
  fields = modes.MODES[mode]
  batch_size, eval_batch_size = (
    operator.attrgetter(name)(config) if name else 0
    for name in (fields.train_batch, fields.eval_batch)
  )
  mesh = blueprint.make_mesh(config, mode)
  with contextlib.ExitStack() as stack:
    stores = {
      split: stack.enter_context(
        frame_store.FrameStore.open(config.dataset.dir, split)
      )
      for split in ('train', 'val')
    }
    agreement.check_same(
      {
        f'fingerprint of {config.dataset.dir}, {split},': store.fingerprint
        for split, store in stores.items()
      }
    )
    train_damage, eval_damage = (
      stack.enter_context(damage_counts.counting(config)) for _ in range(2)
    )
    parts = Experiment(
      config=config,
      mesh=mesh,
      train=instances.select(
        stores['train'],
        clip=config.clip,
        share=config.dataset.share,
        with_replacement=config.dataset.with_replacement,
        bin_frames=config.dataset.bin_frames,
      ),
      val=instances.all_videos(stores['val']),
      model=blueprint.build_model(config),
      clip_shape=blueprint.clip_shape(config),
      augment=_on_device(
        device_augment.augment,
        config,
        config.crop.method,
        **config.augmentation,
      ),
      center=_on_device(
        device_augment.center, config, augmentation.eval_method(config.crop)
      ),
      batch_size=batch_size,
      eval_batch_size=eval_batch_size,
      train_damage=train_damage,
      eval_damage=eval_damage,
    )
    _check_labels(parts)
    # First: a smaller batch does not help against it.
    if fields.trains_on_labels and not parts.val.num_instances:
      raise dataset_folder.DatasetError(
        f'{config.dataset.dir} has no validation videos to test on: '
        f'{dataset_folder.REMEDY_OF_EMPTY_VAL}.'
      )
    if batch_size:
      config_check.check_batch(
        config, fields.train_batch, parts.train.num_instances
      )
    _log_dataset(parts, stores)
    yield parts


def _on_device(function, config, method, **more):
  """Binds `device_augment.augment` or `center` to the sizes of a config."""
  return functools.partial(
    function,
    size=config.crop.size,
    crops_before_resize=augmentation.crops_before_resize(method),
    dtype=config.model.dtype,
    **more,
  )


def _log_dataset(parts, stores):
  """Says how many videos there are, and how many of them are trained on."""
  logging.info(
    'Data set %s: %s, %s, labels %s.',
    parts.config.dataset.dir,
    counted(stores['train'].num_videos, 'training video'),
    counted(stores['val'].num_videos, 'validation video'),
    ', '.join(parts.label_columns) or 'none',
  )
  if parts.train.fingerprint != stores['train'].fingerprint:
    logging.info(
      'Trained on: %s of %d of the training videos.',
      counted(parts.train.num_instances, 'instance'),
      parts.train.distinct_videos().num_instances,
    )


def record(parts: Experiment) -> dict:
  """What a checkpoint says of its run: `config`, `fingerprint`, `dataset`."""
  store = parts.train.store
  return {
    'config': json.loads(parts.config.to_json_best_effort()),
    'fingerprint': parts.train.fingerprint,
    'dataset': {'name': store.name, 'fingerprint': store.fingerprint},
  }


def video_path(parts: Experiment, row: int) -> str:
  """The training video that a row of the memory bank stands for."""
  return parts.train.store.paths[parts.train.video[row]]


def dataset_facts(parts: Experiment) -> dict:
  """The data set, as `result.json` has it; training videos count once."""
  store = parts.train.store
  return {
    'name': store.name,
    'path': str(store.directory),
    'kind': 'video',
    'fingerprint': store.fingerprint,
    'train': parts.train.distinct_videos().num_instances,
    'val': parts.val.num_instances,
    'split': 'val',
  }


def chance(
  parts: Experiment,
  train: instances.Instances | None = None,
  val: instances.Instances | None = None,
) -> dict[str, float]:
  """Accuracy without looking, see `chance_of_labels`, on validation videos.

  Args:
    parts: of the run.
    train: the training videos, if they are not all of its own.
    val: likewise.

  Returns:
    label column -> accuracy; a column that validation has no labels of is left
    out.
  """
  found, train = {}, (train or parts.train).distinct_videos()
  for column in parts.label_columns:
    known, truth = (
      videos.label(column)[0] for videos in (train, val or parts.val)
    )
    if (truth >= 0).any():
      found[column] = chance_of_labels(known, truth)
  return found


def num_classes(parts: Experiment) -> dict[str, int]:
  """Label column -> how many classes it has."""
  return {
    column: len(parts.train.label(column)[1]) for column in parts.label_columns
  }


def chance_of_labels(known: np.ndarray, truth: np.ndarray) -> float:
  """Accuracy without looking: of always naming one class, or of guessing.

  Args:
    known: int [N], labels of training, -1 where unknown.
    truth: int [V], of validation, likewise.

  Returns:
    The share of the labels of validation that are the most frequent class of
    training; or, if that is more, the share that are of a class of training,
    over the number of those classes. 0 where training has no labels.
  """
  counts = np.bincount(known[known >= 0], minlength=1)
  if not counts.any():
    return 0.0
  truth = truth[truth >= 0]
  named = float((truth == counts.argmax()).mean())
  is_known = np.isin(truth, np.flatnonzero(counts))
  return max(named, float(is_known.mean()) / np.count_nonzero(counts))


def _check_labels(parts: Experiment) -> None:
  """Refuses label columns that the data set does not have."""
  for column in parts.label_columns:
    parts.train.label(column)


def state_initializer(
  parts: Experiment, rule: optax.GradientTransformation
) -> train_state.Initializer:
  """Makes the function from a random key to a run's first state."""
  return train_state.initializer(
    parts.model,
    rule,
    clip_shape=parts.clip_shape,
    num_videos=parts.train.num_instances,
    embedding_size=parts.config.model.embedding_size,
    num_clusterings=parts.config.local_aggregation.num_clusterings,
    mesh=parts.mesh,
  )


def state_shapes(
  initialize: train_state.Initializer, mesh: Mesh
) -> train_state.TrainState:
  """Shapes, types and shardings of a run's state.

  Args:
    initialize: makes the first one, see `state_initializer`.
    mesh: the mesh of the run.
  """
  shapes = initialize.shapes
  layout = train_state.layout(shapes, mesh)
  return jax.tree.map(
    lambda shape, sharding: jax.ShapeDtypeStruct(
      shape.shape, shape.dtype, sharding=sharding
    ),
    shapes,
    layout,
  )


def input_options(config: ml_collections.ConfigDict) -> dict:
  """What all batches of clips need to know of the config and the host."""
  return {
    'clip': config.clip,
    'crop': config.crop,
    'decode_in': config.input.decode_in,
    **image_input_options(config),
  }


def image_input_options(config: ml_collections.ConfigDict) -> dict:
  """What batches of images need to know of the config and the host."""
  return {
    'num_threads': config.input.num_threads or None,
    'num_prefetched': config.input.prefetch_batches,
    'host_index': jax.process_index(),
    'host_count': jax.process_count(),
  }


def train_batches(experiment: Experiment, *, start_step: int, seed: int):
  """Opens the training batches from a step on: a context manager."""
  return pipeline.train_batches(
    experiment.train,
    batch_size=experiment.batch_size,
    seed=seed,
    start_step=start_step,
    damage=experiment.train_damage,
    **input_options(experiment.config),
  )


@contextlib.contextmanager
def watched(opened) -> Iterator[Iterator[dict]]:
  """Batches of an evaluation, between which it may be stopped.

  Args:
    opened: context manager over batches, equally many in all processes.

  Raises:
    preemption.Stopped: if a signal asks for it; of several processes, between
      two batches.
  """
  with input_wait.InputWait(opened) as waiting:

    def checked():
      with contextlib.suppress(StopIteration):
        while True:
          batch = waiting.next()
          watchdog.beat()
          # Raises if there is no batch, too.
          preemption.SIGNALS.check()
          yield batch

    yield checked()


def eval_batches(
  experiment: Experiment,
  videos: instances.Instances,
  *,
  start_step: int = 0,
  is_consecutive: bool = False,
  leaves_out: bool = True,
):
  """Opens the evaluation clips of some videos: a context manager.

  Args:
    experiment: of the run.
    videos: which.
    start_step: as in `pipeline.eval_batches`, like the others.
    is_consecutive: likewise.
    leaves_out: likewise.
  """
  return watched(
    pipeline.eval_batches(
      videos,
      batch_size=experiment.eval_batch_size,
      start_step=start_step,
      is_consecutive=is_consecutive,
      leaves_out=leaves_out,
      damage=experiment.eval_damage,
      **input_options(experiment.config),
    )
  )
