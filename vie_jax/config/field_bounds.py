"""What each field of a config may be, whatever the others are."""

import math
from collections.abc import Iterator
from typing import Any

import ml_collections

from vie_jax.models import network_names
from vie_jax.planning import accelerators

_AT_LEAST_ONE = (
  'model.width',
  'model.fast_width',
  'model.alpha',
  'model.embedding_size',
  'clip.num_frames',
  'clip.frame_step',
  'clip.num_eval_clips',
  'crop.size',
  'instance_recognition.num_noise',
  'local_aggregation.num_neighbors',
  'local_aggregation.num_clusters',
  'local_aggregation.min_videos_per_cluster',
  'local_aggregation.num_clusterings',
  'local_aggregation.kmeans_iterations',
  'objective.product_bytes',
  'batch_size',
  'num_steps',
  'log_every_steps',
  'eval_every_steps',
  'checkpoint_every_steps',
  'keep_checkpoints',
  'profile_steps',
  'knn.num_neighbors',
  'knn.batch_size',
  'embed.batch_size',
  'retrieve.num_queries',
  'retrieve.num_neighbors',
  *(
    f'{group}.{name}'
    for group in ('linear_eval', 'finetune', 'supervised')
    for name in (
      'batch_size',
      'eval_batch_size',
      'num_steps',
      'eval_every_steps',
      'checkpoint_every_steps',
    )
  ),
  'linear_eval.static_num_steps',
  'finetune.num_eval_clips',
  'finetune.patience',
  'supervised.num_eval_clips',
  'supervised.patience',
  'plan.devices',
  'plan.storage_bandwidth',
  'plan.frames_per_video',
  'plan.bytes_per_frame',
)
_NOT_NEGATIVE = (
  'seed',
  'num_devices',
  'objective.instance_recognition_steps',
  'keep_checkpoint_every_steps',
  'profile_first_step',
  'eval_videos',
  'local_aggregation.recluster_every_steps',
  'local_aggregation.kmeans_warm_iterations',
  'optimizer.learning_rate',
  'optimizer.weight_decay',
  'optimizer.warmup_steps',
  'dataset.bin_frames',
  'input.num_threads',
  'plan.videos',
  'plan.batch_size',
  'plan.host_ms_per_frame',
  'plan.cores_per_host',
  'input.prefetch_batches',
  'linear_eval.learning_rate',
  'linear_eval.weight_decay',
  'finetune.learning_rate',
  'finetune.weight_decay',
  'finetune.scratch_learning_rate',
  'finetune.scratch_weight_decay',
  'finetune.num_drops',
  'fault.max_skipped_in_a_row',
  'fault.max_skipped_steps',
  'fault.watchdog_seconds',
  'fault.watchdog_slow_seconds',
  'supervised.learning_rate',
  'supervised.weight_decay',
  'supervised.num_drops',
)
# Steps, and what is counted, are int32.
_MOST = 2**31 - 1
# Other bounds: far above what any run has had, and below what ends in overflow.
_AT_MOST = {
  # JAX keeps 32 bits of it, and its neighbour fills memory banks.
  'seed': 2**32 - 2,
  'objective.product_bytes': 2**63 - 1,
  'model.width': 4096,
  'model.fast_width': 4096,
  'model.alpha': 4096,
  'model.embedding_size': 2**16,
  'clip.num_frames': 10_000,
  'clip.frame_step': 10_000,
  'crop.size': 2**14,
  'crop.short_side_min': 2**14,
  'crop.short_side_max': 2**14,
  'crop.eval_short_side': 2**14,
  'instance_recognition.num_noise': 2**24,
  'local_aggregation.num_clusterings': 1000,
  'input.num_threads': 4096,
  'plan.host_ms_per_frame': 1e6,
  'input.prefetch_batches': 4096,
  **dict.fromkeys(
    (
      'clip.num_eval_clips',
      'finetune.num_eval_clips',
      'supervised.num_eval_clips',
    ),
    10_000,
  ),
  **dict.fromkeys(
    (
      'batch_size',
      'knn.batch_size',
      'embed.batch_size',
      *(
        f'{group}.{name}'
        for group in ('linear_eval', 'finetune', 'supervised')
        for name in ('batch_size', 'eval_batch_size')
      ),
    ),
    2**20,
  ),
}
_SHARES = (
  'augmentation.flip_probability',
  'augmentation.grey_probability',
  'augmentation.brightness',
  'augmentation.contrast',
  'augmentation.saturation',
  'linear_eval.static_grey_probability',
  'input.max_bad_share',
)
_CHOICES = {
  'model.name': network_names.NAMES,
  'model.dtype': ('float32', 'bfloat16'),
  'clip.sampler': (
    'single',
    'slow',
    'slow_looped',
    'slowfast',
    '3dresnet',
    'trn',
  ),
  'crop.method': ('short_side', 'multiscale'),
  'crop.multiscale_eval': ('largest_square', 'short_side'),
  'memory_bank.init': ('uniform', 'embeddings', 'init_from'),
  'input.decode_in': ('auto', 'threads', 'processes'),
  'instance_recognition.loss': ('nce', 'softmax'),
  'optimizer.name': ('sgd', 'adam'),
  'optimizer.schedule': ('drops', 'cosine'),
  'knn.reference': ('bank', 'clips'),
  'fault.on_nonfinite': ('stop', 'skip'),
  'on_failed_save': ('retry', 'stop'),
  **dict.fromkeys(
    ('embed.layer', 'export.layer'), ('embedding', *network_names.LAYERS)
  ),
  'plan.accelerator': tuple(accelerators.ACCELERATORS),
  **{
    f'{group}.{name}': choices
    for group in ('finetune', 'supervised')
    for name, choices in {
      'augmentation': ('color_noise', 'multiscale'),
      'schedule': ('plateau', 'drops'),
      'eval_clips': ('spread', 'consecutive'),
    }.items()
  },
}
_MOMENTA = (
  'memory_bank.momentum',
  'model.batch_norm_decay',
  'optimizer.momentum',
  'linear_eval.momentum',
  'finetune.momentum',
  'supervised.momentum',
)
_STEPS = (
  'optimizer.drop_steps',
  'linear_eval.drop_steps',
  'linear_eval.static_drop_steps',
  'finetune.drop_steps',
  'supervised.drop_steps',
)
_LISTS = {
  'linear_eval.layers': network_names.LAYERS,
  'linear_eval.averaged_layers': network_names.LAYERS,
  'embed.splits': ('train', 'val'),
  'fault.signals': (
    'SIGHUP',
    'SIGINT',
    'SIGTERM',
    'SIGUSR1',
    'SIGUSR2',
    'SIGXCPU',
  ),
}
_EFFICIENCIES = (
  'plan.efficiency',
  'plan.bank_efficiency',
  'plan.bandwidth_efficiency',
)


def value_of(config: ml_collections.ConfigDict, field: str) -> Any:
  """The value of a field by its dotted name."""
  for name in field.split('.'):
    config = config[name]
  return config


def problems(config: ml_collections.ConfigDict) -> Iterator[str]:
  """One sentence for each field that is out of its bounds."""
  for field in _AT_LEAST_ONE:
    if not 1 <= value_of(config, field) < math.inf:
      yield (
        f'{field} is {value_of(config, field)}; it must be finite and at least 1'
      )
  for field in _NOT_NEGATIVE:
    if not 0 <= value_of(config, field) < math.inf:
      yield (
        f'{field} is {value_of(config, field)}; it must be finite and not '
        'negative'
      )
  for field in {**dict.fromkeys((*_AT_LEAST_ONE, *_NOT_NEGATIVE)), **_AT_MOST}:
    value, most = value_of(config, field), _AT_MOST.get(field, _MOST)
    if (isinstance(value, int) or field in _AT_MOST) and value > most:
      yield f'{field} is {value}; it must be at most {most}'
  for field in _SHARES:
    if not 0 <= value_of(config, field) <= 1:
      yield f'{field} is {value_of(config, field)}; it must lie in [0, 1]'
  for field, choices in _CHOICES.items():
    if value_of(config, field) not in choices:
      known = ', '.join(choices)
      yield f'{field} is {value_of(config, field)!r}; it must be one of {known}'
  for field, choices in _LISTS.items():
    value = value_of(config, field)
    if not set(value) <= set(choices):
      known = ', '.join(choices)
      yield f'{field} is {value}; each must be one of {known}{_as_several(field, value)}'
  for field in _STEPS:
    if not all(_is_step(step) for step in value_of(config, field)):
      yield (
        f'{field} is {value_of(config, field)}; each must be a whole number of '
        f'steps, not negative and less than {_MOST}'
      )
  for field in _MOMENTA:
    if not 0 <= value_of(config, field) < 1:
      yield f'{field} is {value_of(config, field)}; it must lie in [0, 1)'
  for field in _EFFICIENCIES:
    value = value_of(config, field)
    if not is_share(value) or value < 0.001:
      yield f'{field} is {value}; it must lie in [0.001, 1]'


def is_share(value: Any) -> bool:
  """Whether it is a number in (0, 1]."""
  return isinstance(value, int | float) and 0 < value <= 1


def _as_several(field, value):
  """How a list is written, if one word of it looks like several."""
  words = [word.strip() for text in value for word in text.split(',')]
  if len(words) == len(value):
    return ''
  return f'; several are written --config.{field}="{tuple(words)}"'


def _is_step(value):
  # The rate drops at the step behind it, which is one, too.
  return isinstance(value, int) and 0 <= value < _MOST
