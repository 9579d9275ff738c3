"""What a config describes without its data: network, mesh, update rule, numbers."""

import math
import operator

import jax
import ml_collections
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import optimizer, sharding, train_step
from vie_jax.config import config_check, modes
from vie_jax.models import networks
from vie_jax.objective import memory_bank
from vie_jax.wording import chosen, counted


def build_model(config: ml_collections.ConfigDict) -> nn.Module:
  """Builds the network that `config.model` describes."""
  model = config.model
  return networks.build(
    model.name,
    embedding_size=model.embedding_size,
    width=model.width,
    fast_width=model.fast_width,
    alpha=model.alpha,
    batch_norm_decay=model.batch_norm_decay,
    dtype=model.dtype,
  )


def build_optimizer(config: ml_collections.ConfigDict):
  """The update rule of the config, and its learning rate by step."""
  settings = config.optimizer
  rate = optimizer.schedule(
    settings.schedule,
    learning_rate=settings.learning_rate,
    num_steps=config.num_steps,
    drop_steps=settings.drop_steps,
    warmup_steps=settings.warmup_steps,
  )
  rule = optimizer.build(
    settings.name,
    rate,
    momentum=settings.momentum,
    weight_decay=settings.weight_decay,
  )
  return rule, rate


def clip_shape(
  config: ml_collections.ConfigDict,
) -> tuple[int, int, int, int]:
  """The clips that the network is made for: (T, H, W, 3)."""
  return (config.clip.num_frames, config.crop.size, config.crop.size, 3)


def make_mesh(config: ml_collections.ConfigDict, mode: str) -> Mesh:
  """The mesh of all devices in use.

  Args:
    config: `num_devices` says how many.
    mode: of `modes.MODES`: its batches must split evenly over them, and so must
      its rows, see `memory_bank.num_rows`.

  Raises:
    config_check.ConfigError: if one does not, or there are too few devices.
  """
  visible = jax.device_count()
  if config.num_devices > visible:
    raise config_check.ConfigError(
      f'config.num_devices is {config.num_devices}, but {visible} are '
      'visible; 0 takes all of them.'
    )
  if jax.process_count() > 1 and config.num_devices not in (0, visible):
    raise config_check.ConfigError(
      f'config.num_devices is {config.num_devices}, and the '
      f'{jax.process_count()} processes of this run have {visible}: several '
      'processes use all that they have; 0 takes them.'
    )
  mesh = sharding.make_mesh(config.num_devices)
  # First: no batch size helps against it.
  if modes.MODES[mode].has_rows:
    _check_rows(config, mode, mesh)
  for field in modes.MODES[mode].batches:
    size = operator.attrgetter(field)(config)
    if size % mesh.size:
      raise config_check.ConfigError(
        f'config.{field} is {size}, which does not split evenly over '
        f'{mesh.size} devices; make it a multiple of {mesh.size}, or '
        f'{_other_devices(config, mode, mesh)}.'
      )
  return mesh


def _check_rows(config, mode, mesh):
  """Refuses a number of devices that rows do not split over."""
  most = memory_bank.ROW_MULTIPLE
  if most % mesh.size == 0:
    return
  raise config_check.ConfigError(
    f'{mesh.size} devices are in use, and rows of memory banks and readouts '
    f'split evenly over 1, 2, 4 ... {most} of them only; '
    f'{_other_devices(config, mode, mesh)}.'
  )


def _other_devices(config, mode, mesh):
  """What to do for as many devices as batches, and rows if any, split over."""
  if jax.process_count() > 1:
    return 'start another number of processes'
  kind = modes.MODES[mode]
  sizes = [operator.attrgetter(field)(config) for field in kind.batches]
  common = math.gcd(*sizes, memory_bank.ROW_MULTIPLE if kind.has_rows else 0)
  fitting = [n for n in range(1, mesh.size) if common % n == 0]
  return f'set config.num_devices={fitting[-1]}'


def method_of(
  config: ml_collections.ConfigDict, num_videos: int
) -> train_step.Method:
  """The numbers of the method, fitted to the size of the data set.

  Args:
    config: of the run.
    num_videos: N. Background neighbours are at most N; clusters are fewer
      where `min_videos_per_cluster` asks for it. Both are logged.
  """
  settings = config.local_aggregation
  num_neighbors = min(settings.num_neighbors, num_videos)
  most_clusters = max(1, num_videos // settings.min_videos_per_cluster)
  num_clusters = min(settings.num_clusters, most_clusters)
  nouns = 'training video', 'training videos'
  if config.dataset.bin_frames:
    nouns = 'part of a training video', 'parts of training videos'
  for name, wanted, got in (
    ('num_neighbors', settings.num_neighbors, num_neighbors),
    ('num_clusters', settings.num_clusters, num_clusters),
  ):
    if got < wanted:
      logging.info(
        'local_aggregation.%s is %d instead of %d: there %s only %s.',
        name,
        got,
        wanted,
        chosen(num_videos, 'is', 'are'),
        counted(num_videos, *nouns),
      )
  has_local_aggregation = (
    config.objective.instance_recognition_steps < config.num_steps
  )
  if num_clusters == 1 and num_videos > 1 and has_local_aggregation:
    logging.warning(
      'Local Aggregation has one cluster of all %s: its loss is '
      'about 0, and it learns nothing. Lower '
      'config.local_aggregation.min_videos_per_cluster, which is %d, or train '
      'by instance recognition alone, with more '
      'config.objective.instance_recognition_steps.',
      counted(num_videos, *nouns),
      settings.min_videos_per_cluster,
    )
  noise = config.instance_recognition
  if noise.loss == 'nce' and noise.num_noise > num_videos:
    logging.warning(
      'instance_recognition.num_noise is %d, with only %s: NCE tends to '
      'diverge then. The loss softmax is exact; see configs/demo.py.',
      noise.num_noise,
      counted(num_videos, *nouns),
    )
  return train_step.Method(
    num_videos=num_videos,
    temperature=config.objective.temperature,
    bank_momentum=config.memory_bank.momentum,
    instance_loss=config.instance_recognition.loss,
    num_noise=config.instance_recognition.num_noise,
    num_neighbors=num_neighbors,
    num_clusters=num_clusters,
    kmeans_iterations=settings.kmeans_iterations,
    kmeans_warm_iterations=settings.kmeans_warm_iterations,
    product_bytes=config.objective.product_bytes,
  )
