"""Where a network's weights come from: `config.init_from`.

  workdir         the newest checkpoint of the run's own workdir
  random          a network that was never trained
  official:PATH   a checkpoint of the official code
  PATH            the newest checkpoint of another run's workdir

A two-stream network may take each stream from a source of its own,
`config.model.streams`.
"""

import dataclasses
import hashlib
import os
import pathlib

import jax
import ml_collections
import numpy as np
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import (
  checkpoint,
  lineage,
  run_weights,
  sharding,
  train_state,
  training_data,
)
from vie_jax.models import network_names, official_checkpoint, official_files

OFFICIAL_PREFIX = 'official:'
_REMEDY_OF_STREAM = (
  'All streams have the same config.model: train one of them again, or name '
  'other runs in config.model.streams.'
)
Variables = dict


@dataclasses.dataclass(frozen=True)
class Weights:
  """The variables of a network.

  Attributes:
    variables: `params` and `batch_stats`, float32, whole on each device.
    step: training steps behind them; 0 if they were never trained.
    workdir: of the run that saved them along with its memory bank; None if
      they are official, untrained, supervised, or of two runs.
    training: how they came to be: 'random', 'instance_recognition',
      'local_aggregation', 'supervised', 'finetuned', 'official' or
      'side_by_side'.
    trained_on: facts of the videos they were trained on, as far as known; of
      two runs, those of the stream 'single'.
    streams: stream -> its `training`, `step`, `trained_on` and `started_from`,
      where each is from a source of its own.
    started_from: the trainings that theirs goes on from, see `lineage`.
  """

  variables: Variables
  step: int
  workdir: pathlib.Path | None = None
  training: str = 'random'
  trained_on: dict | None = None
  streams: dict[str, dict] | None = None
  started_from: list[dict] = dataclasses.field(default_factory=list)

  def facts(self, source: str) -> dict:
    """How they came to be, for records and results.

    Args:
      source: where they are from.
    """
    streams = {'streams': self.streams} if self.streams else {}
    return {
      'training': self.training,
      'step': self.step,
      'source': source,
      'trained_on': self.trained_on,
      'started_from': self.started_from,
      **streams,
    }

  def digest(self) -> str:
    """Hex digest of all variables, by their names."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(self.variables):
      leaf = np.ascontiguousarray(leaf)
      digest.update(f'{jax.tree_util.keystr(path)} {leaf.dtype}'.encode())
      digest.update(f'{leaf.shape}'.encode() + leaf.tobytes())
    return digest.hexdigest()


def stream_sources(config: ml_collections.ConfigDict) -> list[str]:
  """The entries of `config.model.streams`, a list with commas between."""
  return [name.strip() for name in config.model.streams.split(',') if name]


def load_official(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  *,
  clip_shape: tuple[int, int, int, int],
  mesh: Mesh,
) -> tuple[Weights, official_checkpoint.Memory | None]:
  """Loads an official checkpoint with what it remembers of its videos.

  Args:
    config: checked; `init_from` is 'official:PATH'.
    model: built from the config.
    clip_shape: (T, H, W, 3).
    mesh: the mesh of the run.

  Returns:
    Weights, and the memory, or None if the checkpoint has none.

  Raises:
    official_checkpoint.OfficialCheckpointError: as `official_files.read` and
      `official_checkpoint.to_flax`.
  """
  loader = _Loader(config, pathlib.Path(), clip_shape, mesh)
  return loader.load_official(config.init_from, config.model.name, model)


def is_run(source: str) -> bool:
  """Whether a source is the workdir of another run."""
  is_own = source in ('workdir', 'random')
  return not is_own and not source.startswith(OFFICIAL_PREFIX)


def name_of(source: str, *, is_short: bool = False) -> str:
  """A source without its place: that of a workdir, and of a step of it.

  Args:
    source: as `config.init_from` has it.
    is_short: whether a training on labels, which is called after its data set,
      goes without its mode and the workdir that it is in.
  """
  if not is_run(source):
    return pathlib.Path(source).name
  folder, step = run_weights.place_of(source)
  folder = pathlib.Path(os.path.abspath(folder))
  name = folder.name
  if folder.parent.name in run_weights.ON_LABELS and not is_short:
    name = '_'.join(folder.parts[-3:])
  return name if step is None else f'{name}_step{step}'


def are_untrained(config: ml_collections.ConfigDict) -> bool:
  """Whether a config asks for weights of which none were ever trained."""
  sources = stream_sources(config) or [config.init_from]
  return all(source == 'random' for source in sources)


def check_are_there(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> None:
  """Refuses a workdir without checkpoints, where weights are to be from one.

  Opens nothing. Streams, and embeddings that need no weights, are left to
  whoever reads them.

  Args:
    config: checked.
    workdir: of this run.

  Raises:
    checkpoint.CheckpointError: with the remedy.
  """
  source = config.init_from
  if config.embeddings or stream_sources(config):
    return
  if source == 'workdir':
    try:
      run_weights.check_are_there(pathlib.Path(workdir))
    except checkpoint.CheckpointError as error:
      if config.model.name not in network_names.STREAMS:
        raise
      raise checkpoint.CheckpointError(
        f'{error} Two trained networks side by side are named by '
        '--config.model.streams=W_SINGLE,W_OTHER.'
      ) from error
  elif is_run(source):
    run_weights.check_are_there(run_weights.place_of(source)[0])


def load(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  model: nn.Module,
  *,
  clip_shape: tuple[int, int, int, int],
  mesh: Mesh,
  with_bank: bool = False,
) -> Weights:
  """Loads all weights of the network that the config describes.

  Args:
    config: checked.
    workdir: of this run.
    model: built from the config.
    clip_shape: (T, H, W, 3).
    mesh: the mesh of the run.
    with_bank: takes a step whose memory bank, if it has one, is not damaged
      either: for those who load that next.

  Returns:
    Weights.

  Raises:
    checkpoint.CheckpointError: if there is no such checkpoint, or it is
      damaged, or of another network.
    official_checkpoint.OfficialCheckpointError: likewise.
  """
  loader = _Loader(
    config, pathlib.Path(workdir), clip_shape, mesh, with_bank=with_bank
  )
  sources = stream_sources(config)
  _warn_of_own(config, pathlib.Path(workdir))
  if not sources:
    found = loader.load(config.init_from, config.model.name, model)
    _log_source(found, config.init_from)
    _warn_of_other_clips(config, config.model.name, found)
    return found
  streams = network_names.STREAMS[config.model.name]
  found = {}
  for (stream, name), source in zip(streams.items(), sources, strict=True):
    try:
      found[stream] = loader.load(source, name, getattr(model, stream))
    except ValueError as error:
      raise checkpoint.CheckpointError(
        f'The stream {stream!r} of config.model.streams, {source}, does not '
        f'give a {name}: {error}'
      ) from error
    _log_source(found[stream], source, f' of the stream {stream!r}')
    _warn_of_other_clips(config, name, found[stream])
  variables = {
    collection: {
      stream: weights.variables[collection] for stream, weights in found.items()
    }
    for collection in ('params', 'batch_stats')
  }
  return Weights(
    variables,
    max(weights.step for weights in found.values()),
    training='side_by_side',
    trained_on=found['single'].trained_on,
    streams={
      stream: {
        'training': weights.training,
        'step': weights.step,
        'trained_on': weights.trained_on,
        'started_from': weights.started_from,
      }
      for stream, weights in found.items()
    },
  )


def of_checkpoint(
  variables: Variables, record: dict, folder: pathlib.Path
) -> Weights:
  """Weights that were read, with how their record says they came to be.

  Args:
    variables: `params` and `batch_stats`.
    record: of the checkpoint, with its `step`.
    folder: the workdir.
  """
  if 'converted_from' in record:
    logging.info(
      'The weights of %s are converted from %s.',
      folder,
      record['converted_from'],
    )
    return Weights(variables, record['official_step'], training='official')
  training = lineage.training_of(record)
  return Weights(
    variables,
    record['step'],
    folder if training in lineage.OBJECTIVES else None,
    training,
    training_data.of_record(record),
    started_from=lineage.started_from(record),
  )


def warn_of_projection(found: Weights, consequence: str) -> None:
  """Says so where the embedding is used, and no training of these made it.

  Args:
    found: the weights.
    consequence: what comes of it, behind 'was not trained with them'.
  """
  trainings = [found.training]
  trainings += [stream['training'] for stream in (found.streams or {}).values()]
  on_labels = [name for name in trainings if name in lineage.LABELLED]
  if on_labels:
    logging.warning(
      'These weights are %s: the projection to the embedding was not trained '
      'with them%s',
      ' and '.join(dict.fromkeys(on_labels)),
      consequence,
    )


def draw(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  *,
  clip_shape: tuple[int, int, int, int],
  mesh: Mesh,
) -> Weights:
  """Draws the first weights of a network, those of `init_from=random`."""
  return _Loader(config, pathlib.Path(), clip_shape, mesh).draw(model)


def _log_source(found: Weights, source: str, whose: str = '') -> None:
  """Says where weights are from."""
  source = found.workdir or source
  if source == 'random':
    logging.info('Weights%s: untrained.', whose)
  else:
    logging.info('Weights%s: step %d of %s.', whose, found.step, source)


def _warn_of_own(config, workdir):
  """Says so if a workdir's own checkpoints are not what is loaded."""
  source = run_weights.place_of(config.init_from)[0]
  is_own = (
    config.init_from == 'workdir' or source.resolve() == workdir.resolve()
  )
  if is_own and not config.model.streams:
    return
  if any((workdir / 'checkpoints').glob('[0-9]*')):
    logging.warning(
      '%s has checkpoints of its own, which are not used: the weights are '
      'those of %s. Leave out config.init_from and config.model.streams to use '
      'them.',
      workdir,
      config.model.streams or config.init_from,
    )


def _warn_of_other_clips(config, name, found):
  """Says so if the network `name` sees other clips than it was trained on."""
  now = {'crop.size': ('size', config.crop.size)}
  # VIE-Single sees each frame for itself, in clips of any kind.
  if name != 'vie_single':
    for field in ('sampler', 'num_frames', 'frame_step'):
      now[f'clip.{field}'] = (field, config.clip[field])
  trained_on = found.trained_on or {}
  differing = [
    f'config.{field} was {trained_on[fact]!r}, is {value!r}'
    for field, (fact, value) in now.items()
    if trained_on.get(fact) not in (None, value)
  ]
  if differing:
    logging.warning(
      '%s was trained on other clips than it sees now: %s. Give every mode '
      'the same --config.* as the training, unless that is meant.',
      name,
      '; '.join(differing),
    )


class _Loader:
  """Loads networks from sources, by the rules of one config."""

  def __init__(self, config, workdir, clip_shape, mesh, *, with_bank=False):
    self._config = config
    self._workdir = workdir
    self._clip_shape = clip_shape
    self._mesh = mesh
    self._with_bank = with_bank

  def load(self, source: str, name: str, model: nn.Module) -> Weights:
    """Loads the network `name`, built as `model`, from one source."""
    if source.startswith(OFFICIAL_PREFIX):
      return self.load_official(source, name, model)[0]
    if source == 'random':
      return self.draw(model)
    shapes = train_state.network_shapes(model, self._clip_shape)
    folder, step = self._workdir, None
    if source != 'workdir':
      folder, step = run_weights.place_of(source)

    def check(record, saved):
      is_stream = name != self._config.model.name
      run_weights.check_network(
        record,
        folder,
        run_weights.network_fields(self._config, name),
        remedy=_REMEDY_OF_STREAM if is_stream else run_weights.REMEDY,
      )
      run_weights.refuse(
        run_weights.differing_arrays(saved, shapes),
        f'Step {record["step"]} of {folder}',
      )

    variables, record = run_weights.load_network(
      folder, self._mesh, check, step=step, with_bank=self._with_bank
    )
    return of_checkpoint(variables, record, folder)

  def load_official(
    self, source: str, name: str, model: nn.Module
  ) -> tuple[Weights, official_checkpoint.Memory | None]:
    """Loads the network `name` from 'official:PATH', with its memory."""
    shapes = train_state.network_shapes(model, self._clip_shape)
    arrays = official_files.read(source.removeprefix(OFFICIAL_PREFIX))
    variables, memory = official_checkpoint.to_flax(arrays, name, shapes)
    whole = sharding.replicated(self._mesh)
    placed = jax.tree.map(lambda leaf: sharding.place(leaf, whole), variables)
    step = official_checkpoint.step_of(arrays)
    return Weights(placed, step, training='official'), memory

  def draw(self, model: nn.Module) -> Weights:
    """Draws weights that were never trained."""
    initialize = self._initializer(model)
    return Weights(initialize(jax.random.key(self._config.seed)), 0)

  def _initializer(self, model):
    return train_state.network_initializer(
      model, clip_shape=self._clip_shape, mesh=self._mesh
    )
