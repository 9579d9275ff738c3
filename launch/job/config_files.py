"""Config files of `configs/`, as `--config` names them."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import ml_collections

from job import repository  # noqa: F401


def read(name: str) -> ml_collections.ConfigDict:
  """The config of a file, such as 'configs/vie_single.py:ir'.

  Raises:
    ValueError: if a variant is named of a file that has none.
  """
  file, _, variant = name.partition(':')
  module = importlib.import_module(file.removesuffix('.py').replace('/', '.'))
  if variant and not inspect.signature(module.get_config).parameters:
    raise ValueError(f'{file} has no variants; leave ":{variant}" out.')
  return module.get_config(*([variant] if variant else []))


def flat(tree: Mapping, prefix: str = '') -> dict[str, Any]:
  """The values of nested groups of fields, by their dotted names."""
  values = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      values |= flat(value, f'{prefix}{name}.')
    else:
      values[f'{prefix}{name}'] = value
  return values
