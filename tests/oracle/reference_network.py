"""The paper's networks in eager TensorFlow, numbered as the official ones.

A second, independent form of the five networks: plain `tf.nn` operations on
a mapping from official variable names to arrays. The networks ask for their
variables one by one and count the layers themselves, so a run that uses up a
mapping proves its names, their order and their shapes. The official fixtures
hold this form to account (reference_network_test); it then does the same for
the networks that have no fixture.

Source: Zhuang et al. 2020, arXiv:1905.11954, as its authors' TensorFlow code
has it. The code computes in channels-first order; here channels come last,
and only the readouts are put back into the official order.
"""

import collections
import dataclasses
import typing
import zlib

import numpy as np
import tensorflow as tf

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
BATCH_NORM_DECAY = 0.997
BATCH_NORM_EPSILON = 1e-5
LARGEST_READOUT = 200_000
READOUT_POINTS = {
  'conv1': 1,
  'conv2': 3,
  'conv3': 5,
  'conv4': 7,
  'conv5': 9,
}
MODEL_TYPES = ('single', 'trn', 'slow', '3dresnet', 'slowfast')


@dataclasses.dataclass(frozen=True)
class _Time:
  """What a pathway does with the time axis: kernel sizes and strides."""

  stem: int
  conv1: tuple[int, ...]
  conv2: tuple[int, ...]
  pool: int = 1
  stride: int = 1  # of the pool and of stages 2 to 4


# The 2D networks have no time axis: their frames are examples of their own.
FRAME_TIME = None
SLOW_TIME = _Time(stem=1, conv1=(1, 1, 3, 3), conv2=(1, 1, 1, 1))
FAST_TIME = _Time(stem=5, conv1=(3, 3, 3, 3), conv2=(1, 1, 1, 1))
RESNET3D_TIME = _Time(
  stem=7, conv1=(3, 3, 3, 3), conv2=(3, 3, 3, 3), pool=3, stride=2
)


class Output(typing.NamedTuple):
  """What a network gives for B clips; all tensors are of the run's dtype.

  Attributes:
    before_norm: [B, D], the embedding before its L2 norm.
    embedding: [B, D], unit rows.
    points: the ten ending points, 0 to 9, each [B, T, H, W, C] with T, H and
      W as they are there. Point 0 is the raw max pool, 1 to 8 the active
      input of a block, 9 the active output of the last. SlowFast: the slow
      pathway's, lateral channels last. 2D networks: T single frames.
    readouts: {'conv1': [B, width], ...}, flattened in the official order.
    pooled: [B, F], the finetuning feature: the last point's mean over T, H
      and W. SlowFast: the fast pathway's 64 channels, then the slow 640.
    moving: {official name: [C]}, the moving statistics after one update.
      Empty in eval mode.
  """

  before_norm: tf.Tensor
  embedding: tf.Tensor
  points: list
  readouts: dict
  pooled: tf.Tensor
  moving: dict


class _Scope:
  """A variable scope: layers over `find`, numbered as they are created.

  Attributes:
    moving: {official name: tensor}, statistics after an update, if in train
      mode.
  """

  def __init__(self, name, find, *, train):
    self._name = name
    self._find = find
    self._train = train
    self._created = collections.Counter()
    self.moving = {}

  def _new_layer(self, kind):
    number = self._created[kind]
    self._created[kind] += 1
    suffix = f'_{number}' if number else ''
    return f'{self._name}/{kind}{suffix}'

  def conv(self, x, channels, kernel, strides):
    """A convolution without bias; sizes are per axis between B and C."""
    operation = {2: tf.nn.conv2d, 3: tf.nn.conv3d}[len(kernel)]
    layer = self._new_layer(f'conv{len(kernel)}d')
    shape = (*kernel, x.shape[-1], channels)
    weight = self._find(f'{layer}/kernel', shape)
    padding = 'SAME'
    if max(strides) > 1:
      around = [((size - 1) // 2,) * 2 for size in kernel]
      x = tf.pad(x, [(0, 0), *around, (0, 0)])
      padding = 'VALID'
    return operation(x, weight, strides=(1, *strides, 1), padding=padding)

  def norm_relu(self, x):
    """ReLU of the batch norm over all axes but the last.

    The moving variance takes up the unbiased variance of the batch, in 2D
    and 3D, as in the fixtures.
    """
    layer = self._new_layer('batch_normalization')
    channels = x.shape[-1]
    gamma, beta, mean, variance = (
      self._find(f'{layer}/{leaf}', (channels,))
      for leaf in ('gamma', 'beta', 'moving_mean', 'moving_variance')
    )
    if self._train:
      moving = {'moving_mean': mean, 'moving_variance': variance}
      mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
      count = x.shape.num_elements() // channels
      batch = {
        'moving_mean': mean,
        'moving_variance': variance * (count / (count - 1)),
      }
      for leaf, old in moving.items():
        self.moving[f'{layer}/{leaf}'] = (
          BATCH_NORM_DECAY * old + (1 - BATCH_NORM_DECAY) * batch[leaf]
        )
    return tf.nn.relu(
      tf.nn.batch_normalization(
        x, mean, variance, beta, gamma, BATCH_NORM_EPSILON
      )
    )

  def dense(self, x, size):
    layer = self._new_layer('dense')
    kernel = self._find(f'{layer}/kernel', (x.shape[-1], size))
    return x @ kernel + self._find(f'{layer}/bias', (size,))


def _with_time(time, size):
  """Adds the time axis' size to a size in H and W, if there is one."""
  return (size, size) if time is None else (time, size, size)


def _max_pool(x, time):
  """Max pool of 3 by 3 pixels, then over time, each padded 'SAME'.

  One after the other is exactly the 3D pool, which TensorFlow has not got
  for float64.
  """
  if time is None:
    return tf.nn.max_pool2d(x, 3, 2, 'SAME')
  batch, frames, height, width, channels = x.shape
  x = tf.reshape(x, (batch * frames, height, width, channels))
  x = tf.nn.max_pool2d(x, 3, 2, 'SAME')
  _, height, width, _ = x.shape
  x = tf.reshape(x, (batch, frames, height * width, channels))
  x = tf.nn.max_pool2d(x, (time.pool, 1), (time.stride, 1), 'SAME')
  return tf.reshape(x, (batch, x.shape[1], height, width, channels))


def _block(scope, x, channels, *, conv1, conv2, strides, project):
  """A pre-activation block: (its active input, its output)."""
  active = scope.norm_relu(x)
  shortcut = x
  if project:
    shortcut = scope.conv(active, channels, (1,) * len(conv1), strides)
  y = scope.conv(active, channels, conv1, strides)
  y = scope.conv(scope.norm_relu(y), channels, conv2, (1,) * len(conv2))
  return active, y + shortcut


def _pathway(scope, x, *, width, time, join):
  """One ResNet-18 up to its last ReLU.

  Args:
    scope: where its variables are.
    x: [B, T, H, W, 3] or, without a time axis, [B, H, W, 3].
    width: channels of the stem and of stage 1.
    time: a _Time, or None for a 2D network.
    join: called with (0, max pool), then (stage, its output) for stages 1
      to 4; gives what the pathway goes on with.

  Returns:
    (points 0 to 9, the five raw outputs that `join` was called with).
  """
  stem = time and time.stem
  x = scope.conv(x, width, _with_time(stem, 7), _with_time(time and 1, 2))
  x = _max_pool(x, time)
  raw = [x]
  x = join(0, x)
  points = [x]
  for stage in range(4):
    for block in range(2):
      first = block == 0
      stride = 2 if first and stage > 0 else 1
      time_stride = time and (time.stride if stride == 2 else 1)
      active, x = _block(
        scope,
        x,
        width * 2**stage,
        conv1=_with_time(time and time.conv1[stage], 3),
        conv2=_with_time(time and time.conv2[stage], 3),
        strides=_with_time(time_stride, stride),
        project=first,
      )
      points.append(active)
    raw.append(x)
    x = join(stage + 1, x)
  points.append(scope.norm_relu(x))
  return points, raw


def _alone(_, x):
  return x


def _spatial_mean(point):
  return tf.reduce_mean(point, (2, 3))


def _global_mean(point):
  return tf.reduce_mean(point, (1, 2, 3))


def _frames(scope, x, width):
  """The points [B, T, H, W, C] of a 2D network on each of T frames."""
  batch, time = x.shape[:2]
  points, _ = _pathway(
    scope,
    tf.reshape(x, (batch * time, *x.shape[2:])),
    width=width,
    time=FRAME_TIME,
    join=_alone,
  )
  return [
    tf.reshape(point, (batch, time, *point.shape[1:])) for point in points
  ]


def _slowfast(fast_scope, slow_scope, x, *, width, fast_width, alpha):
  """(points of the slow pathway, last point of the fast pathway)."""
  fast_points, fast_raw = _pathway(
    fast_scope, x, width=fast_width, time=FAST_TIME, join=_alone
  )

  def join(number, slow):
    fast = fast_raw[number]
    lateral = slow_scope.conv(
      fast, 2 * fast.shape[-1], (5, 1, 1), (alpha, 1, 1)
    )
    return tf.concat([slow, lateral], -1)

  points, _ = _pathway(
    slow_scope, x[:, ::alpha], width=width, time=SLOW_TIME, join=join
  )
  return points, fast_points[9]


def readout(point, *, pool=True):
  """Flattens an ending point in the official order.

  Args:
    point: [B, T, H, W, C].
    pool: whether a map of more than 200,000 values is average-pooled, 2x2,
      or 4x4 if a quarter of it is still more.

  Returns:
    [B, width] of the mean over T: a pooled map in H, W, C order, another
    one in C, H, W order.
  """
  batch = point.shape[0]
  mean = tf.reduce_mean(point, 1)
  values = mean.shape[1:].num_elements()
  if pool and values > LARGEST_READOUT:
    size = 4 if values / 4 > LARGEST_READOUT else 2
    pooled = tf.nn.avg_pool2d(mean, size, size, 'SAME')
    return tf.reshape(pooled, (batch, -1))
  return tf.reshape(tf.transpose(mean, (0, 3, 1, 2)), (batch, -1))


def _run(find, model_type, clip, *, train, embedding_size, sizes):
  """Builds a network over `find` (name, shape -> tensor) and applies it."""
  width, fast_width, alpha = sizes
  name = 'resnet_model_slow' if model_type == 'slowfast' else 'resnet_model'
  scope = _Scope(name, find, train=train)
  moving = {}
  if model_type == 'slowfast':
    fast_scope = _Scope('resnet_model_fast', find, train=train)
    points, fast = _slowfast(
      fast_scope,
      scope,
      clip,
      width=width,
      fast_width=fast_width,
      alpha=alpha,
    )
    slow_mean, fast_mean = _global_mean(points[9]), _global_mean(fast)
    features = tf.concat([slow_mean, fast_mean], -1)
    pooled = tf.concat([fast_mean, slow_mean], -1)
    moving |= fast_scope.moving
  else:
    if model_type in ('single', 'trn'):
      points = _frames(scope, clip, width)
    else:
      time = {'slow': SLOW_TIME, '3dresnet': RESNET3D_TIME}[model_type]
      points, _ = _pathway(scope, clip, width=width, time=time, join=_alone)
    features = pooled = _global_mean(points[9])
  if model_type == 'trn':
    frame_features = _spatial_mean(points[9])
    features = tf.reshape(frame_features, (clip.shape[0], -1))
  before_norm = scope.dense(features, embedding_size)
  square = tf.reduce_sum(before_norm**2, -1, keepdims=True)
  readouts = {
    name: readout(points[number], pool=model_type != 'trn')
    for name, number in READOUT_POINTS.items()
  }
  return Output(
    before_norm=before_norm,
    embedding=before_norm * tf.math.rsqrt(tf.maximum(square, 1e-12)),
    points=points,
    readouts=readouts,
    pooled=pooled,
    moving=moving | scope.moving,
  )


def _check_model_type(model_type):
  if model_type not in MODEL_TYPES:
    raise ValueError(f'model_type is {model_type!r}, not one of {MODEL_TYPES}.')


def forward(
  variables,
  model_type,
  clip,
  *,
  train=False,
  embedding_size=128,
  width=64,
  fast_width=8,
  alpha=4,
  dtype='float32',
):
  """Applies a network to clips, the variables being taken by official name.

  Args:
    variables: {official name: array or tensor}, exactly the names of
      `variable_shapes`, in any order. 2D kernels have rank 4.
    model_type: one of MODEL_TYPES; 'trn' is the paper's VIE-TRN (`tsrn`).
    clip: uint8 [B, T, H, W, 3]. Single has T = 1 in the official code; with
      more frames its features are the mean over them.
    train: whether the batch norms use (and `moving` takes up) the batch's
      statistics.
    embedding_size: D.
    width: channels of the stem, SlowFast: of the slow pathway.
    fast_width: channels of the fast pathway's stem.
    alpha: frames of the fast pathway per frame of the slow one.
    dtype: 'float32', or 'float64' for a run without rounding to speak of.

  Returns:
    An Output.

  Raises:
    ValueError: if the model type is unknown, the clip is not uint8 of rank
      5, a variable is missing or has another shape, or one is left over.
  """
  _check_model_type(model_type)
  clip = tf.convert_to_tensor(clip)
  if clip.dtype != tf.uint8 or clip.shape.rank != 5:
    raise ValueError(
      f'clip must be uint8 [B, T, H, W, 3], got {clip.dtype.name} {clip.shape}.'
    )
  used = set()

  def find(name, shape):
    if name not in variables:
      raise ValueError(f'{model_type} needs the variable {name} {shape}.')
    value = variables[name]
    if tuple(value.shape) != shape:
      raise ValueError(
        f'{name} has shape {tuple(value.shape)}, {model_type} needs {shape}.'
      )
    used.add(name)
    return tf.cast(value, dtype)

  pixels = tf.cast(clip, dtype) / 255
  normalised = (pixels - tf.constant(MEAN, dtype)) / tf.constant(
    DEVIATION, dtype
  )
  output = _run(
    find,
    model_type,
    normalised,
    train=train,
    embedding_size=embedding_size,
    sizes=(width, fast_width, alpha),
  )
  if left_over := set(variables) - used:
    raise ValueError(f'{model_type} has no variables {sorted(left_over)}.')
  return output


def is_trainable(name):
  """Whether the official optimiser changes the variable of this name."""
  return not name.rsplit('/', 1)[-1].startswith('moving_')


def gradients(
  variables, model_type, clip, loss, *, train=True, dtype='float32', **options
):
  """Differentiates a loss with respect to every trainable variable.

  Args:
    variables: as for `forward`.
    model_type: as for `forward`.
    clip: as for `forward`.
    loss: from an Output to a scalar tensor.
    train: as for `forward`.
    dtype: as for `forward`.
    **options: the sizes that `forward` takes.

  Returns:
    (Output, {official name: gradient}), the gradient as the variable.
  """
  tensors = {name: tf.cast(value, dtype) for name, value in variables.items()}
  watched = {name: x for name, x in tensors.items() if is_trainable(name)}
  with tf.GradientTape() as tape:
    tape.watch(watched)
    output = forward(
      tensors, model_type, clip, train=train, dtype=dtype, **options
    )
    value = loss(output)
  return output, tape.gradient(value, watched)


def variable_shapes(
  model_type, *, frames=4, embedding_size=128, width=64, fast_width=8, alpha=4
):
  """Lists a network's variables as it creates them.

  Args:
    model_type: one of MODEL_TYPES.
    frames: frames of a clip, which 'trn' has a share of its dense layer for;
      the others have the same variables for any number.
    embedding_size: as for `forward`.
    width: as for `forward`.
    fast_width: as for `forward`.
    alpha: as for `forward`.

  Returns:
    [(official name, shape)], in order of creation.

  Raises:
    ValueError: if the model type is unknown.
  """
  _check_model_type(model_type)
  listing = []

  def create(name, shape):
    listing.append((name, shape))
    return tf.zeros(shape)

  with tf.Graph().as_default():  # shapes only: nothing is computed
    time = frames if model_type == 'trn' else alpha
    _run(
      create,
      model_type,
      tf.zeros((1, time, 32, 32, 3)),
      train=False,
      embedding_size=embedding_size,
      sizes=(width, fast_width, alpha),
    )
  return listing


def _triangle(values):
  values = values % 510
  return np.where(values <= 255, values, 510 - values)


def more_clip(shape, *, phase=0):
  """The smooth, moving picture of the fixtures *_more.json, by rule.

  Args:
    shape: (B, T, H, W, 3), or (B, H, W, 3), which is T = 1 without its axis.
    phase: `input_phase` of the case.

  Returns:
    uint8 of that shape.
  """
  batch, time, height, width, colours = (
    shape if len(shape) == 5 else (shape[0], 1, *shape[1:])
  )
  b, t, y, x, c = np.ogrid[:batch, :time, :height, :width, :colours]
  rising = (3 + c) * x + (2 + b) * y + 9 * t + 40 * c + 97 * b + phase
  falling = (
    (5 - 2 * c) * y
    + (300 - (4 - b) * x)
    + (5 * t * (c + 1) + 31 * b + 2 * phase)
  )
  value = (_triangle(rising) + _triangle(falling)) // 2
  return value.astype(np.uint8).reshape(shape)


def more_gradient_vector(size=128):
  """float32 [size]: loss of *_more.json = sum of before_norm . vector."""
  seed = zlib.crc32(b'gradient_vector')
  generator = np.random.Generator(np.random.PCG64(seed))
  return generator.standard_normal(size).astype(np.float32)
