"""Which config fields decide a result, and in which of them two runs differ."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import ml_collections
from job import config_files

from vie_jax.config import config_roles

_NO_MATTER = (config_roles.Role.PLACE, config_roles.Role.COURSE)


def differing(
  config: ml_collections.ConfigDict, found: Any, mode: str
) -> list[str]:
  """Config fields by which a result of `found` is not one of `config`.

  Fields that do not change what comes out are passed over, such as the number
  of devices; so are those of modes other than `mode`. One that `found` lacks,
  as it is of a version before it, counts as its default. Which data sets these
  are is not looked at: data_sets.py does.
  """
  if not isinstance(found, Mapping) or not _is_config(found):
    return ['config']
  expected, actual = (
    _deciding(_defaults() | config_files.flat(fields), mode)
    for fields in (json.loads(config.to_json_best_effort()), found)
  )
  return sorted(
    name
    for name in expected.keys() | actual.keys()
    if expected.get(name) != actual.get(name)
  )


def _is_config(found):
  """Whether it has what a config of every version has."""
  return {'model.name', 'batch_size', 'clip.num_frames'} <= config_files.flat(
    found
  ).keys()


@functools.cache
def _defaults() -> dict[str, Any]:
  config = config_files.read('configs/default.py')
  return config_files.flat(json.loads(config.to_json_best_effort()))


def _deciding(fields: dict[str, Any], mode: str) -> dict[str, Any]:
  """The fields that the result of a mode depends on."""
  groups = {'linear_eval', 'finetune', 'supervised', 'retrieve', 'embed', 'knn'}
  others = tuple(f'{group}.' for group in groups - {mode})
  choice = fields.get(f'{mode}.augmentation')
  fields = config_roles.crop_in_effect(fields, choice, 'crop.')
  return {
    name: value
    for name, value in fields.items()
    if config_roles.role_of(name) not in _NO_MATTER
    and not name.startswith(others)
    # A supervised training says itself that it starts from random weights.
    and (mode, name) != ('supervised', 'init_from')
  }
