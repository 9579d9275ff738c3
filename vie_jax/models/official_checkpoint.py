"""Variables of the official TensorFlow checkpoints, and ours.

The networks are the same, so that each official variable is one of ours; what
differs is where it is found. TensorFlow numbers the layers of a scope by kind,
in order of creation: `resnet_model/conv3d`, `resnet_model/conv3d_1` ... Here
the layers have names that say what they are.

  official                                   here
  .../conv3d_k/kernel                        kernel: same axes
  .../conv2d_k/kernel [H, W, in, out]        kernel [1, H, W, in, out]
  .../batch_normalization_k/gamma, beta      params: scale, bias
  ... moving_mean, moving_variance           batch_stats: mean, var
  .../dense/kernel, bias                     projection: kernel, bias
  instance/memory_bank, all_labels,          `Memory`
    cluster_labels

Files with these variables are read by `official_files`.

Source: variable names of graphs built with the official code; those of
combined checkpoints after its `misc/combine_ckpts.py`.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vie_jax.models import resnet

COLLECTIONS = ('params', 'batch_stats')
BATCH_NORM_LEAVES = {
  'gamma': ('params', 'scale'),
  'beta': ('params', 'bias'),
  'moving_mean': ('batch_stats', 'mean'),
  'moving_variance': ('batch_stats', 'var'),
}
LABELS = 'instance/all_labels'
BANK = 'instance/memory_bank'
CLUSTER_LABELS = 'instance/cluster_labels'
STEP = 'global_step'


class OfficialCheckpointError(ValueError):
  """An official checkpoint cannot be read, or is not of this network."""


class Variable(NamedTuple):
  """A variable of an official network, and where it is in ours.

  Attributes:
    name: official, such as 'resnet_model/conv3d_1/kernel'.
    collection: 'params' or 'batch_stats'.
    path: keys to the leaf within the collection.
    lacks_time: whether it is a kernel [H, W, in, out] there, and
      [1, H, W, in, out] here.
  """

  name: str
  collection: str
  path: tuple[str, ...]
  lacks_time: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
  """What an official training remembers of its videos.

  Attributes:
    bank: float32 [N, D], the memory bank.
    labels: int64 [N], class of each video visited, 0 before; or None.
    cluster_labels: int64 [R, N], clusters of the bank rows, one row per
      clustering; None in trainings with IR.
  """

  bank: np.ndarray
  labels: np.ndarray | None = None
  cluster_labels: np.ndarray | None = None


def _layers(scope, kind):
  """Names of the layers of a kind in a scope, as TensorFlow numbers them."""
  yield f'{scope}/{kind}'
  for number in itertools.count(1):
    yield f'{scope}/{kind}_{number}'


def _resnet(scope, conv, backbone, laterals=None):
  """Variables of a ResNet-18, in order of creation.

  Args:
    scope: the official one.
    conv: 'conv2d' or 'conv3d'.
    backbone: path of the ResNet.
    laterals: path that holds SlowFast's lateral kernels, which are numbered
      among the slow pathway's; None if there are none.
  """
  convs = _layers(scope, conv)
  norms = _layers(scope, 'batch_normalization')

  def kernel(*path):
    name = f'{next(convs)}/kernel'
    return Variable(name, 'params', (*path, 'kernel'), conv == 'conv2d')

  def norm(*path):
    layer = next(norms)
    for official, (collection, leaf) in BATCH_NORM_LEAVES.items():
      yield Variable(f'{layer}/{official}', collection, (*path, leaf))

  yield kernel(*backbone, 'stem', 'conv')
  if laterals is not None:
    yield kernel(*laterals, 'lateral_stem')
  for stage in range(resnet.NUM_STAGES):
    for number in range(resnet.BLOCKS_PER_STAGE):
      block = (*backbone, f'stages_{stage}', f'block{number + 1}')
      yield from norm(*block, 'norm1')
      if number == 0:
        yield kernel(*block, 'projection')
      yield kernel(*block, 'conv1')
      yield from norm(*block, 'norm2')
      yield kernel(*block, 'conv2')
    if laterals is not None:
      yield kernel(*laterals, f'lateral_stage{stage + 1}')
  yield from norm(*backbone, 'final_norm')


def _dense(scope, root):
  for leaf in ('kernel', 'bias'):
    yield Variable(
      f'{scope}/dense/{leaf}', 'params', (*root, 'projection', leaf)
    )


def _one_resnet(scope, conv, root=()):
  yield from _resnet(scope, conv, (*root, 'backbone'))
  yield from _dense(scope, root)


def _slowfast(root=()):
  backbone = (*root, 'backbone')
  yield from _resnet('resnet_model_fast', 'conv3d', (*backbone, 'fast'))
  yield from _resnet(
    'resnet_model_slow', 'conv3d', (*backbone, 'slow'), laterals=backbone
  )
  yield from _dense('resnet_model_slow', root)


_SINGLE = tuple(_one_resnet('resnet_model', 'conv2d'))
_SLOW = tuple(_one_resnet('resnet_model', 'conv3d'))
_SINGLE_STREAM = tuple(_one_resnet('resnet_model', 'conv2d', ('single',)))
_VARIABLES = {
  'vie_single': _SINGLE,
  'vie_3dresnet': _SLOW,
  'vie_trn': _SINGLE,
  'vie_slow': _SLOW,
  'vie_slowfast': tuple(_slowfast()),
  'vie_twostream_s': (
    *_SINGLE_STREAM,
    *_one_resnet('resnet_model_slow', 'conv3d', ('motion',)),
  ),
  'vie_twostream_sf': (*_SINGLE_STREAM, *_slowfast(('motion',))),
}


def variables_of(model_name: str) -> tuple[Variable, ...]:
  """Lists the variables of a network in the official order of creation.

  Args:
    model_name: as in the config. For two-stream networks these are the
      variables of a combined checkpoint, where VIE-Slow, too, has the scope
      `resnet_model_slow`.

  Raises:
    OfficialCheckpointError: naming the known networks.
  """
  if model_name not in _VARIABLES:
    raise OfficialCheckpointError(
      f'No official variables are known for the network {model_name!r}, only '
      f'for {", ".join(_VARIABLES)}.'
    )
  return _VARIABLES[model_name]


def is_bookkeeping(name):
  """Whether a variable is the optimiser's, or describes other variables."""
  return (
    name.endswith('/Momentum')
    or '__tfutils_opt__' in name
    or name.startswith(('_CHECKPOINTABLE_OBJECT_GRAPH', 'save_counter/'))
  )


def _is_ignored(name):
  """Whether a variable is needed for no embedding and no memory."""
  return (
    name == STEP
    or name.startswith('instance/transfer_dense')
    or is_bookkeeping(name)
  )


def _leaves(tree, model_name):
  """Variable -> leaf of a Flax tree, which must have just these leaves."""
  flat = {
    (collection, *path): leaf
    for collection in COLLECTIONS
    for path, leaf in traverse_util.flatten_dict(
      tree.get(collection, {})
    ).items()
  }
  wanted = {(v.collection, *v.path): v for v in variables_of(model_name)}
  different = sorted('/'.join(path) for path in flat.keys() ^ wanted.keys())
  if different:
    raise OfficialCheckpointError(
      f'The Flax tree is not that of {model_name}: it lacks, or has too many: '
      f'{", ".join(different)}.'
    )
  return {variable: flat[path] for path, variable in wanted.items()}


def _resembled(given):
  """The network whose variables are among these arrays, or None.

  Where two networks have the same names, shapes that do not depend on the
  width tell them apart.
  """
  fits = [
    name
    for name, listing in _VARIABLES.items()
    if all(variable.name in given for variable in listing)
  ]
  best = max(fits, key=lambda name: len(_VARIABLES[name]), default=None)
  if best == 'vie_single':
    features = given['resnet_model/batch_normalization_16/gamma'].shape[:1]
    is_mean = given['resnet_model/dense/kernel'].shape[:1] == features
    return 'vie_single' if is_mean else 'vie_trn'
  if best == 'vie_3dresnet':
    is_flat = given['resnet_model/conv3d/kernel'].shape[:1] == (1,)
    return 'vie_slow' if is_flat else 'vie_3dresnet'
  return best


def _memory_shapes(given, embedding_size):
  """Name -> the shape of each array of the memory; letters are any size."""
  bank = given.get(BANK)
  rows = bank.shape[0] if bank is not None and bank.ndim == 2 else 'N'
  return {
    BANK: (rows, embedding_size),
    LABELS: (rows,),
    CLUSTER_LABELS: ('R', rows),
  }


def _has_shape(array, shape):
  return array.ndim == len(shape) and all(
    size == wanted or isinstance(wanted, str)
    for size, wanted in zip(array.shape, shape, strict=True)
  )


def _text(shape):
  return f'[{", ".join(map(str, shape))}]'


def _problems(given, expected, memory):
  """What is wrong with arrays by name: kind of problem -> list of names.

  Args:
    given: name -> array.
    expected: name -> shape of the network's variables.
    memory: name -> shape of the memory's arrays, if there are any.
  """
  missing = [name for name in expected if name not in given]
  if BANK not in given and any(name in given for name in memory):
    missing.append(BANK)
  known = {**expected, **memory}
  unknown = [name for name in given if name not in known]
  misshapen, not_finite, negative = [], [], []
  for name, shape in known.items():
    array = given.get(name)
    if array is None:
      continue
    kind = jnp.integer if name in (LABELS, CLUSTER_LABELS) else jnp.floating
    if not _has_shape(array, shape):
      misshapen.append(f'{name} is {_text(array.shape)}, not {_text(shape)}')
    elif not jnp.issubdtype(array.dtype, kind):
      misshapen.append(f'{name} is {array.dtype}, not {kind.__name__}')
    elif not np.isfinite(array).all():
      not_finite.append(name)
    elif name.endswith('moving_variance') and (array < 0).any():
      negative.append(name)
  return {
    'missing': missing,
    'unknown': unknown,
    'misshapen': misshapen,
    'not finite': not_finite,
    'negative': negative,
  }


def _listing(problems, model_name, given):
  """The message about arrays that are not a network's."""
  lines = [f'These are not the official variables of {model_name}.']
  for kind, entries in problems.items():
    if entries:
      lines.append(f'{len(entries)} {kind}: {"; ".join(entries)}.')
  resembled = _resembled(given)
  if resembled not in (None, model_name):
    lines.append(f'They look like those of {resembled}: use its config.')
  elif resembled and not problems['missing'] and problems['misshapen']:
    lines.append('If the network is narrower or wider, set config.model.width.')
  return '\n'.join(lines)


def step_of(arrays: Mapping[str, Any]) -> int:
  """Training steps behind a checkpoint: its `global_step`, or 0 without one.

  Args:
    arrays: official name, with or without ':0', -> array.

  Raises:
    OfficialCheckpointError: if it is not one whole number.
  """
  for name in (STEP, f'{STEP}:0'):
    if name in arrays:
      step = np.asarray(arrays[name])
      if step.size != 1 or not np.issubdtype(step.dtype, np.integer):
        raise OfficialCheckpointError(
          f'{name} is {step.dtype} {_text(step.shape)}, not one whole number.'
        )
      return int(step.item())
  return 0


def to_flax(
  arrays: Mapping[str, Any], model_name: str, shapes: Mapping[str, Any]
) -> tuple[dict[str, Any], Memory | None]:
  """Turns official variables into ours.

  Args:
    arrays: official name, with or without ':0', -> array, as
      `official_files.read` gives.
    model_name: the network, as in the config.
    shapes: its variables, {'params': ..., 'batch_stats': ...}, of anything
      with a shape: what `jax.eval_shape` of its `init` gives.

  Returns:
    (variables, memory): float32 arrays in a tree like `shapes`, which may
    share their memory with those given; the bank and labels, or None if there
    is nothing of `instance/`. Not used are `global_step`, the optimiser's
    slots and heads of transfer, `instance/transfer_dense...`.

  Raises:
    OfficialCheckpointError: listing by name all arrays that are missing,
      unknown, misshapen, not finite or, of variances, negative, and saying
      which network they look like.
  """
  leaves = _leaves(shapes, model_name)
  given, twice = {}, []
  for name, array in arrays.items():
    short = name.removesuffix(':0')
    if short in given:
      twice.append(short)
    elif not _is_ignored(short):
      given[short] = np.asarray(array)

  expected = {
    variable.name: tuple(leaf.shape[1:] if variable.lacks_time else leaf.shape)
    for variable, leaf in leaves.items()
  }
  biases = [expected[name] for name in expected if name.endswith('/dense/bias')]
  problems = _problems(given, expected, _memory_shapes(given, *biases[0]))
  if twice or any(problems.values()):
    problems['given twice'] = twice
    raise OfficialCheckpointError(_listing(problems, model_name, given))

  flat = {}
  for variable in leaves:
    array = np.asarray(given[variable.name], np.float32)
    path = (variable.collection, *variable.path)
    flat[path] = array[None] if variable.lacks_time else array
  tree = traverse_util.unflatten_dict(flat)
  if BANK not in given:
    return tree, None
  bank = np.asarray(given[BANK], np.float32)
  labels, cluster_labels = (
    np.asarray(given[name], np.int64) if name in given else None
    for name in (LABELS, CLUSTER_LABELS)
  )
  return tree, Memory(bank, labels, cluster_labels)


def to_official(
  variables: Mapping[str, Any], model_name: str, memory: Memory | None = None
) -> dict[str, np.ndarray]:
  """Turns our variables into official ones: the inverse of `to_flax`.

  Args:
    variables: {'params': ..., 'batch_stats': ...} of the network.
    model_name: the network, as in the config.
    memory: what goes under `instance/`; None leaves it out.

  Returns:
    Official name -> float32 array, int64 for labels, in the official order of
    creation: memory, then network.

  Raises:
    OfficialCheckpointError: naming the leaves that the network should not
      have, or lacks.
  """
  arrays = {}
  if memory is not None:
    parts = {
      LABELS: (memory.labels, np.int64),
      BANK: (memory.bank, np.float32),
      CLUSTER_LABELS: (memory.cluster_labels, np.int64),
    }
    for name, (part, dtype) in parts.items():
      if part is not None:
        arrays[name] = np.asarray(part, dtype)
  for variable, leaf in _leaves(variables, model_name).items():
    array = np.asarray(leaf, np.float32)
    arrays[variable.name] = array.squeeze(0) if variable.lacks_time else array
  return arrays
