"""The weights that a training begins with: drawn, or those of another run."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import checkpoint, lineage, run_weights, weights

# What of VIE-TRN depends on the number of frames: [T * C, D].
_TRN_KERNEL = 'params/projection/kernel'
_GOES_ON = ', and this training goes on with it as it is.'
# Of another run's clips: more would be read into memory for nothing.
_MOST_TRN_FRAMES = 256


@dataclasses.dataclass(frozen=True)
class FirstWeights:
  """What a training begins with.

  Attributes:
    variables: `params` and `batch_stats`.
    started_from: the trainings that made them, see `lineage`; none if they were
      drawn.
    source_step: of the checkpoint that they are of, if it is another run's.
  """

  variables: weights.Variables
  started_from: Sequence[Mapping[str, Any]] = ()
  source_step: int | None = None


def first_weights(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  model: nn.Module,
  variables: weights.Variables,
  *,
  clip_shape: tuple[int, int, int, int],
  mesh: Mesh,
) -> FirstWeights:
  """Gives a training that begins the weights that the config asks for.

  The network must be the same, but for one case: VIE-TRN can start from
  VIE-Single, or from a VIE-TRN of another number of frames. The kernel of its
  projection, which has another shape, then starts anew (official).

  Args:
    config: checked.
    workdir: of this run.
    model: built from the config.
    variables: the weights as they were drawn.
    clip_shape: (T, H, W, 3).
    mesh: the mesh of the run.

  Returns:
    Those given, where nothing else is asked for. The memory bank of another
    run's checkpoint is not damaged either if `memory_bank.init` asks for it.

  Raises:
    As `weights.load`.
  """
  source = config.init_from
  if weights.stream_sources(config) or source.startswith(
    weights.OFFICIAL_PREFIX
  ):
    found = weights.load(
      config, workdir, model, clip_shape=clip_shape, mesh=mesh
    )
    place = config.model.streams or source
    logging.info('Starting from the weights of %s.', place)
    weights.warn_of_projection(found, _GOES_ON)
    return FirstWeights(found.variables, lineage.behind(found.facts(place)))
  if not weights.is_run(source):
    return FirstWeights(variables)
  folder, step = run_weights.place_of(source)
  is_trn = config.model.name == 'vie_trn'
  anew = frozenset({_TRN_KERNEL} if is_trn else {})

  def check(record, shapes):
    fields = run_weights.network_fields(config, config.model.name)
    if is_trn and record['config']['model'].get('name') == 'vie_single':
      fields['name'] = 'vie_single'
    run_weights.check_network(record, folder, fields)
    place = f'Step {record["step"]} of {folder}'
    differing = run_weights.differing_arrays(shapes, variables)
    if anew & differing.keys():
      _check_trn_kernel(shapes, variables, config.clip.num_frames, place)
    run_weights.refuse(
      {name: differing[name] for name in sorted(differing.keys() - anew)},
      place,
    )

  found, record = run_weights.load_network(
    folder,
    mesh,
    check,
    step=step,
    with_bank=config.memory_bank.init == 'init_from',
  )
  saved = weights.of_checkpoint(found, record, folder)
  fresh = run_weights.differing_arrays(found, variables).keys() & anew
  logging.info(
    'Starting from the weights of %s, step %d%s.',
    folder,
    record['step'],
    f'; anew: {", ".join(sorted(fresh))}' if fresh else '',
  )
  if not fresh:
    weights.warn_of_projection(saved, _GOES_ON)
  return FirstWeights(
    _merge(variables, found, fresh),
    lineage.behind(saved.facts(str(folder))),
    record['step'],
  )


def _check_trn_kernel(found, expected, num_frames, place) -> None:
  """Refuses a projection that no number of frames explains.

  Args:
    found: arrays of the checkpoint, as it claims.
    expected: those of the network.
    num_frames: that the network sees.
    place: the checkpoint, for the message.
  """
  kernel = run_weights.by_name(found).get(_TRN_KERNEL)
  rows, size = run_weights.by_name(expected)[_TRN_KERNEL].shape
  features = rows // num_frames
  allowed = [(features * n, size) for n in range(1, _MOST_TRN_FRAMES + 1)]
  shape = None if kernel is None else kernel.shape
  if shape not in allowed:
    raise checkpoint.CheckpointError(
      f'{place} holds another network: '
      f'{_TRN_KERNEL} is {shape}, not ({features} * number of frames, {size}), '
      f'of at most {_MOST_TRN_FRAMES} frames. Use other weights '
      '(config.init_from).'
    )


def _merge(variables, found, fresh):
  """Takes what was found, but for the names of what starts anew."""
  by_name = run_weights.by_name(found)

  def pick(path, leaf):
    name = run_weights.name_of(path)
    return leaf if name in fresh else by_name[name]

  return jax.tree.map_with_path(pick, variables)
