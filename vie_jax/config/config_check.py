"""Checks a config before anything is built, field by field."""

import math
import re

import ml_collections

from vie_jax.config import field_bounds
from vie_jax.models import network_names
from vie_jax.untrusted import urls


class ConfigError(ValueError):
  """A config field has a value that cannot work."""


# What exp(similarity / t) is held in: float32 for the sums of Instance
# Recognition over the bank, float64 for the votes of neighbours.
_LOWEST_TEMPERATURES = {'nce': 0.02, 'softmax': 0.01}
_LOWEST_TEMPERATURE_OF_VOTES = 0.002


def _problems(config):
  """Yields one sentence for each thing that is wrong."""
  yield from field_bounds.problems(config)
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
  elif not all(field_bounds.is_share(scale) for scale in scales):
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
  yield from _temperature(config)


def _temperature(config):
  """Numbers of too low temperatures cannot be held."""
  temperature, loss = (
    config.objective.temperature,
    config.instance_recognition.loss,
  )
  lowest = _LOWEST_TEMPERATURES.get(loss, 0.0)
  if not 0 < temperature < math.inf:
    yield (
      f'objective.temperature is {temperature}; it must be positive and finite'
    )
  elif temperature < _LOWEST_TEMPERATURE_OF_VOTES:
    yield (
      f'objective.temperature is {temperature}; it must be at least '
      f'{_LOWEST_TEMPERATURE_OF_VOTES}, for the votes of nearest neighbours'
    )
  elif temperature < lowest and config.objective.instance_recognition_steps:
    yield (
      f'objective.temperature is {temperature}; it must be at least {lowest} '
      f'with instance_recognition.loss={loss}, whose sums float32 cannot hold '
      'below it'
    )


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
  size = field_bounds.value_of(config, field)
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
