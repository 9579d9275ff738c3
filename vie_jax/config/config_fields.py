"""Checks that a config has all fields, of the types that they have."""

from typing import Any

import ml_collections

from vie_jax.config import config_check


def check(config: Any, default: ml_collections.ConfigDict) -> None:
  """Refuses what a config file gives if it lacks fields, or types are wrong.

  Args:
    config: what its get_config returned.
    default: all fields, with values of the types that they have.

  Raises:
    config_check.ConfigError: naming each field that is missing or of another type.
  """
  if not isinstance(config, ml_collections.ConfigDict):
    raise config_check.ConfigError(
      f'get_config() returns {type(config).__name__}, which is no ConfigDict: '
      'begin with that of configs/default.py, as the other files do.'
    )
  problems = list(_differences(config, default))
  if problems:
    raise config_check.ConfigError('; '.join(problems) + '.')


def _differences(config, default, prefix=''):
  for name, wanted in default.items():
    field = f'{prefix}{name}'
    if name not in config:
      yield f'config.{field} is missing: begin with configs/default.py'
      continue
    value = config[name]
    if isinstance(wanted, ml_collections.ConfigDict):
      if isinstance(value, ml_collections.ConfigDict):
        yield from _differences(value, wanted, f'{field}.')
      else:
        yield f'config.{field} is {value!r}; it must be a group of fields'
    elif not _is_like(value, wanted):
      kind = type(wanted).__name__
      yield f'config.{field} is {value!r}; it must be of type {kind}'


def _is_like(value, wanted):
  """Whether a value may stand for another: 1 for 1.0, a list for a tuple."""
  if isinstance(value, bool) or isinstance(wanted, bool):
    return type(value) is type(wanted)
  also = {float: int, tuple: list}.get(type(wanted), type(wanted))
  return isinstance(value, type(wanted) | also)
