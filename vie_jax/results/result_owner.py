"""Whose result a folder has, before another one is written there."""

import json
import os
import pathlib

import ml_collections
from absl import logging

from vie_jax import run_record, weights
from vie_jax.config import config_roles
from vie_jax.results import result
from vie_jax.untrusted import json_text

# Groups of the config that a result may differ in, which is said.
_SETTINGS = ('clip', 'crop', 'knn', 'retrieve')


def check_source(
  folder: pathlib.Path, config: ml_collections.ConfigDict, dataset: dict
) -> None:
  """Refuses to write into a folder that has results of another source.

  Results of the same source are replaced: it may have been trained on, or the
  data set prepared again. Where settings are others, that is said.

  Args:
    folder: of results.
    config: of this evaluation.
    dataset: `path` and `fingerprint` of what is evaluated on.

  Raises:
    result.ResultError: with the remedy.
  """
  path = folder / result.FILE
  try:
    old = json_text.read(path)
    differing = _differing_source(old['config'], config)
    differing = differing or _differing_data(old['dataset'], dataset)
  except (OSError, ValueError, LookupError, TypeError, AttributeError):
    return
  if differing:
    raise result.ResultError(
      f'{path} is of {differing[0]}, and would be replaced by that of '
      f'{differing[1]}; name another folder with --config.result_name=NAME, or '
      'remove this one.'
    )
  settings = _differing_settings(old['config'], config)
  # The answer to a query has a folder of its own.
  if settings and not config.retrieve.query:
    logging.info(
      'Replacing a result of other settings, %s: %s.', path, settings
    )


def _differing_settings(old, new):
  """The fields of an evaluation that have other values now, in words.

  Nothing is said of groups that the result does not have.
  """
  now = json.loads(new.to_json_best_effort())
  groups = [name for name in _SETTINGS if isinstance(old.get(name), dict)]
  fields = run_record.differing_fields(
    {name: old[name] for name in groups}, {name: now[name] for name in groups}
  )
  return '; '.join(
    f'{name} was {before!r}, is {after!r}'
    for name, (before, after) in fields.items()
    if config_roles.role_of(name) is config_roles.Role.RESULT
  )


def _differing_source(old, new):
  """(old, new) source of the embeddings, or None if it is the same."""
  before = _source(old['init_from'], old['model']['streams'], old['embeddings'])
  now = _source(new.init_from, new.model.streams, new.embeddings)
  return (before, now) if before != now else None


def _differing_data(old, new):
  """(old, new) place of the data, or None if it is the same or was moved."""
  if old['fingerprint'] == new['fingerprint']:
    return None
  before, now = (os.path.abspath(facts['path']) for facts in (old, new))
  return (before, now) if before != now else None


def _source(init_from: str, streams: str, embeddings: str) -> str:
  """Where embeddings come from, with paths in one spelling."""
  if embeddings:
    return _absolute(embeddings)
  return ','.join(map(_absolute, (streams or init_from).split(',')))


def _absolute(source: str) -> str:
  source = source.strip()
  if source in ('workdir', 'random'):
    return source
  prefix = weights.OFFICIAL_PREFIX if not weights.is_run(source) else ''
  path = os.path.expanduser(source.removeprefix(prefix))
  return prefix + os.path.abspath(path)
