"""Checks a config before anything is built, field by field."""

import math
import re

import ml_collections

from vie_jax.models import network_names
from vie_jax.planning import accelerators
from vie_jax.untrusted import urls


class ConfigError(ValueError):
  """A config field has a value that cannot work."""


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
# Of the NCE loss.
_LOWEST_TEMPERATURE = 0.02
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
  'embed.layer': ('embedding', *network_names.LAYERS),
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


def _value(config, field):
  for name in field.split('.'):
    config = config[name]
  return config


def _problems(config):
  """Yields one sentence for each thing that is wrong."""
  for field in _AT_LEAST_ONE:
    if not 1 <= _value(config, field) < math.inf:
      yield (
        f'{field} is {_value(config, field)}; it must be finite and at least 1'
      )
  for field in _NOT_NEGATIVE:
    if not 0 <= _value(config, field) < math.inf:
      yield (
        f'{field} is {_value(config, field)}; it must be finite and not '
        'negative'
      )
  for field in {**dict.fromkeys((*_AT_LEAST_ONE, *_NOT_NEGATIVE)), **_AT_MOST}:
    value, most = _value(config, field), _AT_MOST.get(field, _MOST)
    if (isinstance(value, int) or field in _AT_MOST) and value > most:
      yield f'{field} is {value}; it must be at most {most}'
  for field in _SHARES:
    if not 0 <= _value(config, field) <= 1:
      yield f'{field} is {_value(config, field)}; it must lie in [0, 1]'
  for field, choices in _CHOICES.items():
    if _value(config, field) not in choices:
      known = ', '.join(choices)
      yield f'{field} is {_value(config, field)!r}; it must be one of {known}'
  for field, choices in _LISTS.items():
    value = _value(config, field)
    if not set(value) <= set(choices):
      known = ', '.join(choices)
      yield f'{field} is {value}; each must be one of {known}{_as_several(field, value)}'
  for field in _STEPS:
    if not all(_is_step(step) for step in _value(config, field)):
      yield (
        f'{field} is {_value(config, field)}; each must be a whole number of '
        f'steps, not negative and less than {_MOST}'
      )
  for group in ('finetune', 'supervised'):
    if config[group].drop_steps and config[group].schedule == 'plateau':
      yield (
        f'{group}.drop_steps is {config[group].drop_steps}, which only '
        f'{group}.schedule=\'drops\' reads; --config.{group}.drop_steps="()" '
        'takes them out'
      )
  if config.result_name and not re.fullmatch(r'\w[\w.-]*', config.result_name):
    yield (
      f'result_name is {config.result_name!r}; it must be one name, of '
      'letters, digits, and . _ - behind the first'
    )
  if not config.linear_eval.layers:
    yield "linear_eval.layers is (); ('conv5',) names one layer"
  yield from _secrets(config)
  yield from _relations(config)
  yield from _sources(config)
  yield from _selection(config)


def _as_several(field, value):
  """How a list is written, if one word of it looks like several."""
  words = [word.strip() for text in value for word in text.split(',')]
  if len(words) == len(value):
    return ''
  return f'; several are written --config.{field}="{tuple(words)}"'


def _secrets(config):
  """Fields that would bring a password into every log and record."""
  for field, value in _flat(config.to_dict()):
    problem = urls.problem(value) if isinstance(value, str) else None
    if problem:
      yield f'{field}: {problem}'


def _flat(values, prefix=''):
  for name, value in values.items():
    if isinstance(value, dict):
      yield from _flat(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def crop_in_effect(crop: dict, choice: str | None, prefix: str = '') -> dict:
  """Fields of `config.crop`, without `multiscale_eval` where it changes nothing.

  Args:
    crop: the fields; others may be among them. None of `multiscale_eval` stands
      for 'largest_square'.
    choice: of the mode's own `augmentation`, which may be 'multiscale', too.
    prefix: of the names of the fields.
  """
  is_multiscale = 'multiscale' in (choice, crop.get(f'{prefix}method'))
  name = f'{prefix}multiscale_eval'
  if is_multiscale and crop.get(name) == 'short_side':
    return crop
  return {field: crop[field] for field in crop if field != name}


def _short_sides(crop):
  if not crop.size <= crop.short_side_min <= crop.short_side_max:
    yield (
      f'crop.size is {crop.size}, config.crop.short_side_min '
      f'{crop.short_side_min} and config.crop.short_side_max '
      f'{crop.short_side_max}; they must be in rising order'
    )


def _eval_short_side(crop):
  if crop.eval_short_side < crop.size:
    yield (
      f'crop.eval_short_side is {crop.eval_short_side}; it must be at least '
      f'crop.size, {crop.size}'
    )


def _sources(config):
  streams = [source.strip() for source in config.model.streams.split(',')]
  for source in (config.init_from, *streams):
    if source == 'official:':
      yield 'init_from or model.streams has official: without a path behind it'
  if not config.init_from:
    yield "init_from is empty; 'workdir' takes the run's own checkpoint"
  if not config.model.streams:
    return
  if config.init_from != 'workdir':
    yield (
      f'init_from is {config.init_from!r} and model.streams is '
      f'{config.model.streams!r}; only one of them can give the weights'
    )
  if config.model.name not in network_names.STREAMS:
    yield (
      f'model.streams is {config.model.streams!r}; only two-stream networks '
      f'have streams, and model.name is {config.model.name}'
    )
  elif len(streams) != 2 or not all(streams):
    names = ' and '.join(network_names.STREAMS[config.model.name].values())
    yield (
      f'model.streams is {config.model.streams!r}; it must name two sources, '
      f'of {names}, with a comma between'
    )


def _is_step(value):
  # The rate drops at the step behind it, which is one, too.
  return isinstance(value, int) and 0 <= value < _MOST


def _is_share(value):
  return isinstance(value, int | float) and 0 < value <= 1


def _selection(config):
  dataset, scales = config.dataset, config.crop.multiscale_scales
  if not 0 < dataset.share <= 1:
    yield f'dataset.share is {dataset.share}; it must lie in (0, 1]'
  if dataset.bin_frames and config.clip.sampler == 'trn':
    yield (
      f'dataset.bin_frames is {dataset.bin_frames}; the sampler trn has bins '
      'of its own, so that it must be 0'
    )
  if not scales:
    yield 'crop.multiscale_scales is (); (1.0, 0.875) names two scales'
  elif not all(_is_share(scale) for scale in scales):
    yield f'crop.multiscale_scales is {scales}; each must lie in (0, 1]'


def _relations(config):
  crop, clip, model = config.crop, config.clip, config.model
  if not 0 <= config.augmentation.hue <= 0.5:
    yield (
      f'augmentation.hue is {config.augmentation.hue}; it must lie in '
      '[0, 0.5], half the hue circle'
    )
  if crop.method == 'short_side':
    yield from _short_sides(crop)
  if 'short_side' in (crop.method, crop.multiscale_eval):
    yield from _eval_short_side(crop)
  if network_names.has_slowfast(model.name) and clip.num_frames % model.alpha:
    yield (
      f'clip.num_frames is {clip.num_frames}; SlowFast needs a multiple of '
      f'model.alpha, {model.alpha}. The configs that begin with its name have '
      'its clips'
    )
  if clip.sampler == 'single' and clip.num_frames != 1:
    yield (
      f'clip.num_frames is {clip.num_frames}; the sampler single takes '
      'clips of 1 frame'
    )
  temperature = config.objective.temperature
  if not 0 < temperature < math.inf:
    yield (
      f'objective.temperature is {temperature}; it must be positive and finite'
    )
  elif (
    temperature < _LOWEST_TEMPERATURE
    and config.instance_recognition.loss == 'nce'
  ):
    yield (
      f'objective.temperature is {temperature}; it must be at least '
      f'{_LOWEST_TEMPERATURE} with instance_recognition.loss=nce, whose '
      'probabilities float32 cannot hold below it'
    )
  for field in (
    'plan.efficiency',
    'plan.bank_efficiency',
    'plan.bandwidth_efficiency',
  ):
    if not _is_share(_value(config, field)) or _value(config, field) < 0.001:
      yield f'{field} is {_value(config, field)}; it must lie in [0.001, 1]'
  for field in _MOMENTA:
    if not 0 <= _value(config, field) < 1:
      yield f'{field} is {_value(config, field)}; it must lie in [0, 1)'


def check(config: ml_collections.ConfigDict) -> None:
  """Refuses a config that cannot work.

  Raises:
    ConfigError: listing every field that is wrong, its value and the remedy.
  """
  problems = [f'config.{problem}' for problem in _problems(config)]
  if problems:
    raise ConfigError('; '.join(problems) + '.')


def check_batch(
  config: ml_collections.ConfigDict, field: str, num_videos: int
) -> None:
  """Refuses training batches that are larger than the data set.

  Args:
    config: with `dataset.dir`.
    field: that says how large a batch is, such as 'batch_size'.
    num_videos: N, for training.

  Raises:
    ConfigError: naming field and data set, or saying that there is no video.
  """
  size = _value(config, field)
  if not num_videos:
    raise ConfigError(
      f'{config.dataset.dir} has no training videos: its train split is empty; '
      'prepare the videos to another --out, with a smaller --val-percent, or '
      'with lists or folders that name videos for train.'
    )
  if num_videos < size:
    share = config.dataset.share
    of = f' with config.dataset.share={share}' if share < 1 else ''
    raise ConfigError(
      f'config.{field} is {size}, but {config.dataset.dir} has only '
      f'{num_videos} for training{of}, and a batch holds no video twice; lower '
      f'it, or {"take a larger share" if of else "add videos"}.'
    )
