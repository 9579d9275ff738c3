"""What a config describes, as one line of JSON: `--mode=describe`."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging

from vie_jax import blueprint
from vie_jax.config import config_check
from vie_jax.models import flops
from vie_jax.planning import plan


def description(config: ml_collections.ConfigDict) -> dict:
  """Describes the network of a config; nothing is computed.

  Args:
    config: see configs/default.py.

  Returns:
    JSON-compatible facts:
      model: its name.
      parameters: number of trainable ones.
      forward_flops_per_clip: two per multiply-add of the convolutions and
        the projection.
      clip: [T, H, W].
      embedding_size: D.
      readouts: layer -> number of features, see `models.readout`.
      dtype: of the convolutions.
      plan: if `config.plan.videos` asks for one, see `plan.plan`.

  Raises:
    config_check.ConfigError: if a field cannot work.
  """
  config_check.check(config)
  model = blueprint.build_model(config)
  shape = blueprint.clip_shape(config)
  clip = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  variables = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), clip
  )
  embed = functools.partial(model.apply, train=False)
  readouts = jax.eval_shape(
    functools.partial(model.apply, method='readouts'), variables, clip
  )
  facts = {
    'model': config.model.name,
    'parameters': sum(
      math.prod(leaf.shape) for leaf in jax.tree.leaves(variables['params'])
    ),
    'forward_flops_per_clip': flops.count(embed, variables, clip),
    'clip': list(shape[:3]),
    'embedding_size': config.model.embedding_size,
    'readouts': {layer: found.shape[1] for layer, found in readouts.items()},
    'dtype': config.model.dtype,
  }
  if config.plan.videos:
    facts['plan'] = plan.plan(config, facts)
  return facts


def describe(config: ml_collections.ConfigDict, unused_workdir: str) -> dict:
  """Prints `description` as one line on standard output, and returns it.

  A plan goes to the log as well, as a table; so does that there is none.
  """
  facts = description(config)
  if jax.process_index() == 0:
    if 'plan' in facts:
      # Not through '%s', whose newlines the log escapes.
      logging.info(f'Plan: {plan.table(facts["plan"])}')
    else:
      logging.info('config.plan.videos is 0: nothing is planned.')
    _print(json.dumps(facts))
  return facts


def _print(line):
  """At once, while there is somebody to tell of a pipe or disk that fails."""
  try:
    print(line, flush=True)
  except OSError as error:
    raise OSError(error.errno, error.strerror, 'standard output') from error
