"""Weights and inputs of the official implementation's fixtures, by rule.

The fixtures hold numbers that the official TensorFlow code gave for these
weights and inputs; nothing large is stored.
"""

import json
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent
KERNELS_PER_STAGE = 5
SCALE = {'gamma': 1.0, 'beta': 0.0, 'bias': 0.0, 'moving_mean': 0.0}
BATCH_NORM_LEAVES = {
  'gamma': ('params', 'scale'),
  'beta': ('params', 'bias'),
  'moving_mean': ('batch_stats', 'mean'),
  'moving_variance': ('batch_stats', 'var'),
}


def load(name):
  return json.loads((FOLDER / name).read_text())


def weights(name, shape):
  """The array that stands for a stored TF1 variable."""
  seed = zlib.crc32(name.encode())
  z = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
  leaf = name.rsplit('/', 1)[-1]
  if leaf == 'kernel':
    value = z * np.sqrt(2.0 / np.prod(shape[:-1]))
  elif leaf == 'moving_variance':
    value = np.exp(0.1 * z)
  else:
    value = SCALE[leaf] + 0.1 * z
  return value.astype(np.float32)


def clip(batch, frames, size, seed):
  """uint8 [batch, frames, size, size, 3]: blocks moving right."""
  rng = np.random.Generator(np.random.PCG64(seed))
  shape = (batch, size // 8, size // 8, 3)
  blocks = rng.integers(0, 256, shape, dtype=np.uint8)
  picture = np.kron(blocks, np.ones((1, 8, 8, 1), np.uint8))
  rolled = [np.roll(picture, 3 * t, axis=2) for t in range(frames)]
  return np.stack(rolled, 1)


def _block_kernels():
  """Paths of a stage's five convolutions, in the official order."""
  yield 'block1', 'projection'
  for block in ('block1', 'block2'):
    for conv in ('conv1', 'conv2'):
      yield block, conv


def _kernel_paths(laterals):
  """Paths below a pathway of its kernels, in the official order."""
  yield ('stem', 'conv')
  if laterals:
    yield 'lateral_stem'
  for stage in range(4):
    for block, conv in _block_kernels():
      yield (f'stages_{stage}', block, conv)
    if laterals:
      yield f'lateral_stage{stage + 1}'


def _norm_paths():
  for stage in range(4):
    for block in ('block1', 'block2'):
      for norm in ('norm1', 'norm2'):
        yield (f'stages_{stage}', block, norm, 'batch_norm')
  yield ('final_norm', 'batch_norm')


def _number(layer, prefix):
  return int(layer.removeprefix(prefix).lstrip('_') or 0)


def flax_path(name, pathway, laterals):
  """Where an official variable lives: (collection, path of its leaf)."""
  layer, leaf = name.split('/')[-2:]
  root = ('backbone', pathway)
  if layer == 'dense':
    return 'params', ('projection', leaf)
  if layer.startswith('batch_normalization'):
    number = _number(layer, 'batch_normalization')
    collection, leaf = BATCH_NORM_LEAVES[leaf]
    return collection, (*root, *list(_norm_paths())[number], leaf)
  prefix = 'conv2d' if layer.startswith('conv2d') else 'conv3d'
  path = list(_kernel_paths(laterals))[_number(layer, prefix)]
  if isinstance(path, str):  # a lateral belongs to no pathway here
    return 'params', ('backbone', path, 'kernel')
  return 'params', (*root, *path, 'kernel')


def pathway_of(name):
  """(our pathway's name, whether laterals are numbered among its kernels)."""
  scope = name.split('/')[0]
  return {
    'resnet_model': ('pathway', False),
    'resnet_model_slow': ('slow', True),
    'resnet_model_fast': ('fast', False),
  }[scope]


def variables(listing):
  """Flax variables holding the rule's weights for (name, shape) pairs."""
  tree = {'params': {}, 'batch_stats': {}}
  for name, shape in listing:
    collection, path = flax_path(name, *pathway_of(name))
    value = weights(name, shape)
    if value.ndim == 4:  # 2D kernels have no time axis there
      value = value[None]
    node = tree[collection]
    for key in path[:-1]:
      node = node.setdefault(key, {})
    node[path[-1]] = value
  return tree


def leaf(tree, path):
  for key in path:
    tree = tree[key]
  return np.asarray(tree)
