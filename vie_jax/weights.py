"""Where a network's weights come from: `config.init_from`.

  workdir         the newest checkpoint of the run's own workdir
  random          a network that was never trained
  official:PATH   a checkpoint of the official code
  PATH            the newest checkpoint of another run's workdir

A two-stream network may take each stream from a source of its own,
`config.model.streams`.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

import jax
import ml_collections
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import checkpoint, sharding, train_state
from vie_jax.models import networks, official_checkpoint

OFFICIAL_PREFIX = 'official:'
Variables = dict


@dataclasses.dataclass(frozen=True)
class Weights:
  """The variables of a network.

  Attributes:
    variables: `params` and `batch_stats`, float32, whole on each device.
    step: training steps behind them; 0 if they were never trained.
    workdir: of the run that saved them; None if they are not a run's own.
  """

  variables: Variables
  step: int
  workdir: pathlib.Path | None = None


def stream_sources(config: ml_collections.ConfigDict) -> list[str]:
  """The entries of `config.model.streams`, a list with commas between."""
  return [name.strip() for name in config.model.streams.split(',') if name]


def is_run(source: str) -> bool:
  """Whether a source is the workdir of another run."""
  is_own = source in ('workdir', 'random')
  return not is_own and not source.startswith(OFFICIAL_PREFIX)


def load(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  model: nn.Module,
  *,
  clip_shape: tuple[int, int, int, int],
  mesh: Mesh,
) -> Weights:
  """Loads all weights of the network that the config describes.

  Args:
    config: checked.
    workdir: of this run.
    model: built from the config.
    clip_shape: (T, H, W, 3).
    mesh: the mesh of the run.

  Returns:
    Weights.

  Raises:
    checkpoint.CheckpointError: if there is no such checkpoint, or it is
      damaged, or of another network.
    official_checkpoint.OfficialCheckpointError: likewise.
  """
  loader = _Loader(config, pathlib.Path(workdir), clip_shape, mesh)
  sources = stream_sources(config)
  if not sources:
    return loader.load(config.init_from, config.model.name, model)
  streams = networks.STREAMS[config.model.name]
  found = {}
  for (stream, name), source in zip(streams.items(), sources, strict=True):
    try:
      found[stream] = loader.load(source, name, getattr(model, stream))
    except ValueError as error:
      raise checkpoint.CheckpointError(
        f'The stream {stream!r} of config.model.streams, {source}, does not '
        f'give a {name}: {error}'
      ) from error
  variables = {
    collection: {
      stream: weights.variables[collection] for stream, weights in found.items()
    }
    for collection in ('params', 'batch_stats')
  }
  return Weights(variables, max(weights.step for weights in found.values()))


def warm_start(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  variables: Variables,
  *,
  clip_shape: tuple[int, int, int, int],
  mesh: Mesh,
) -> Variables:
  """Gives a training that begins the weights that the config asks for.

  From another run it takes what fits by name and shape: VIE-TRN can start
  from VIE-Single; the kernel of its projection, which has another shape, starts
  anew (official).

  Args:
    config: checked.
    model: built from the config.
    variables: the weights as they were drawn.
    clip_shape: (T, H, W, 3).
    mesh: the mesh of the run.

  Returns:
    `params` and `batch_stats`; those given, where nothing else is asked for.

  Raises:
    As `load`; of another run only if nothing fits.
  """
  source = config.init_from
  if stream_sources(config) or source.startswith(OFFICIAL_PREFIX):
    found = load(config, '', model, clip_shape=clip_shape, mesh=mesh)
    logging.info(
      'Starting from the weights of %s.', config.model.streams or source
    )
    return found.variables
  if not is_run(source):
    return variables
  found, _ = _read_checkpoint(pathlib.Path(source), mesh)
  return _merge(variables, found, source)


def load_bank(
  workdir: str | pathlib.Path, *, fingerprint: str, mesh: Mesh
) -> jax.Array:
  """Loads the memory bank of a run's newest checkpoint.

  Args:
    workdir: of the run.
    fingerprint: of the videos that its rows must stand for.
    mesh: the mesh of the run.

  Returns:
    float32 [rows, D], rows split over `data`.

  Raises:
    checkpoint.CheckpointError: if there is no checkpoint, it is damaged, or
      of other videos.
  """
  with _open(pathlib.Path(workdir)) as (checkpoints, step):
    checkpoint.check_dataset(checkpoints.record(step), fingerprint)
    split = sharding.rows(mesh)
    restored = checkpoints.restore_as_saved(
      step,
      'memory_bank',
      {
        'bank': split,
        'bank_step': split,
        'cluster_labels': sharding.columns(mesh),
      },
    )
  return restored['bank']


class _Loader:
  """Loads networks from sources, by the rules of one config."""

  def __init__(self, config, workdir, clip_shape, mesh):
    self._config = config
    self._workdir = workdir
    self._clip_shape = clip_shape
    self._mesh = mesh

  def load(self, source: str, name: str, model: nn.Module) -> Weights:
    """Loads the network `name`, built as `model`, from one source."""
    initialize = train_state.network_initializer(
      model, clip_shape=self._clip_shape, mesh=self._mesh
    )
    if source == 'random':
      return Weights(initialize(jax.random.key(self._config.seed)), 0)
    shapes = jax.eval_shape(initialize, jax.random.key(0))
    if source.startswith(OFFICIAL_PREFIX):
      return self._official(source, name, shapes)
    folder = self._workdir if source == 'workdir' else pathlib.Path(source)
    variables, record = _read_checkpoint(folder, self._mesh)
    checkpoint.check_network(record, self._fields(name))
    differing = _differing(variables, shapes)
    if differing:
      raise checkpoint.CheckpointError(
        f'The newest checkpoint of {folder} holds another network: '
        f'{"; ".join(differing[:5])}'
        f'{" and so on" if len(differing) > 5 else ""}. Use the config that it '
        'was trained with.'
      )
    return Weights(variables, record['step'], folder)

  def _fields(self, name):
    """The fields of `config.model` that make the network `name` what it is."""
    fields = ['width', 'embedding_size']
    if 'vie_slowfast' in (name, *networks.STREAMS.get(name, {}).values()):
      fields += ['fast_width', 'alpha']
    model = self._config.model
    return {'name': name, **{field: model[field] for field in fields}}

  def _official(self, source, name, shapes):
    arrays = official_checkpoint.read(source.removeprefix(OFFICIAL_PREFIX))
    variables, _ = official_checkpoint.to_flax(arrays, name, shapes)
    step = int(arrays.get('global_step', 0))
    return Weights(_place(variables, self._mesh), step)


def _place(variables, mesh):
  return jax.device_put(variables, sharding.replicated(mesh))


@contextlib.contextmanager
def _open(
  folder: pathlib.Path,
) -> Iterator[tuple[checkpoint.Checkpoints, int]]:
  """Opens a workdir's checkpoints to read, and finds the newest."""
  if not folder.is_dir():
    raise checkpoint.CheckpointError(
      f'There is no workdir {folder} to take weights from.'
    )
  with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
    if checkpoints.latest_step is None:
      raise checkpoint.CheckpointError(
        f'{folder} has no checkpoint to take weights from. Train there first, '
        'or take an untrained network with --config.init_from=random.'
      )
    yield checkpoints, checkpoints.latest_step


def _read_checkpoint(folder, mesh):
  """The variables of a workdir's newest checkpoint, and its record."""
  whole = sharding.replicated(mesh)
  with _open(folder) as (checkpoints, step):
    record = checkpoints.record(step)
    variables = checkpoints.restore_as_saved(
      step, 'model', {'params': whole, 'batch_stats': whole}
    )
  return variables, {**record, 'step': step}


def _paths(tree) -> dict[str, jax.Array]:
  """Leaves by their path, such as 'params/projection/kernel'."""
  leaves = jax.tree.leaves_with_path(tree)
  return {'/'.join(str(key.key) for key in path): leaf for path, leaf in leaves}


def _differing(found, expected) -> list[str]:
  """One phrase for each array that is missing, extra or misshapen."""
  found, expected = _paths(found), _paths(expected)
  differing = []
  for name in sorted({*found, *expected}):
    if name not in found:
      differing.append(f'it lacks {name}')
    elif name not in expected:
      differing.append(f'{name} is not part of the network')
    elif found[name].shape != expected[name].shape:
      differing.append(
        f'{name} is {found[name].shape}, not {expected[name].shape}'
      )
  return differing


def _merge(variables, found, source):
  """Takes from `found` what has the name and shape of a variable."""
  by_path = _paths(found)
  fresh = []

  def pick(path, leaf):
    name = '/'.join(str(key.key) for key in path)
    if name in by_path and by_path[name].shape == leaf.shape:
      return by_path[name]
    fresh.append(name)
    return leaf

  merged = jax.tree.map_with_path(pick, variables)
  total = len(jax.tree.leaves(variables))
  if len(fresh) == total:
    raise checkpoint.CheckpointError(
      f'No weight of {source} (config.init_from) fits this network.'
    )
  logging.info(
    'Starting from %d of %d weights of %s%s.',
    total - len(fresh),
    total,
    source,
    f'; anew: {", ".join(fresh)}' if fresh else '',
  )
  return merged
