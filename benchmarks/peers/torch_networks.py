"""The seven networks in PyTorch, from the same tables of layers.

Modules and parameters have the names that they have in vie_jax, so that the
weights of one are the weights of the other. Convolutions are PyTorch's own
rank-3 ones; a network without kernels in time runs on frames, with rank-2 ones.
"""

import torch
from torch import nn
from torch.nn import functional

NUM_STAGES = 4
FLAT = ((1, 1),) * NUM_STAGES
SLOW = ((1, 1), (1, 1), (3, 1), (3, 1))
FAST = ((3, 1),) * NUM_STAGES
CUBIC = ((3, 3),) * NUM_STAGES
DECAY = 0.997
EPSILON = 1e-5
WIDTH, FAST_WIDTH, ALPHA = 64, 8, 4
EMBEDDING_SIZE = 128


class Conv(nn.Module):
  """Convolution without bias of [B, C, T, H, W], or of frames [B, C, H, W]."""

  def __init__(self, inputs, outputs, kernel, strides=(1, 1, 1)):
    super().__init__()
    self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel))
    self.strides = strides
    self.padding = tuple((size - 1) // 2 for size in kernel)

  def forward(self, x):
    """Maps clips, or frames."""
    if x.ndim == 5:
      return functional.conv3d(
        x, self.weight, stride=self.strides, padding=self.padding
      )
    return functional.conv2d(
      x, self.weight[:, :, 0], stride=self.strides[1:], padding=self.padding[1:]
    )


class Norm(nn.Module):
  """Batch norm by the statistics of the batch, and ReLU."""

  def __init__(self, features):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(features))
    self.bias = nn.Parameter(torch.zeros(features))
    self.register_buffer('mean', torch.zeros(features))
    self.register_buffer('var', torch.ones(features))

  def forward(self, x):
    """Normalises by the batch, and rectifies."""
    x = functional.batch_norm(
      x,
      self.mean,
      self.var,
      self.weight,
      self.bias,
      training=True,
      momentum=1 - DECAY,
      eps=EPSILON,
    )
    return functional.relu(x)


def max_pool(x, pools_time):
  """Windows of 3, strides of 2, padded at the end as TensorFlow does."""
  padding, window, strides = (), (), ()
  for axis in range(x.ndim - 1, 1, -1):  # the last axis comes first
    is_pooled = axis > 2 or x.ndim == 4 or pools_time
    size, window_size, stride = (
      x.shape[axis],
      *((3, 2) if is_pooled else (1, 1)),
    )
    total = max((-(-size // stride) - 1) * stride + window_size - size, 0)
    padding += (total // 2, total - total // 2)
    window, strides = (window_size, *window), (stride, *strides)
  x = functional.pad(x, padding, value=float('-inf'))
  pool = functional.max_pool3d if x.ndim == 5 else functional.max_pool2d
  return pool(x, window, strides)


class Stem(nn.Module):
  """First convolution and max-pool."""

  def __init__(self, features, time, pools_time):
    super().__init__()
    self.conv = Conv(3, features, (time, 7, 7), (1, 2, 2))
    self.pools_time = pools_time

  def forward(self, x):
    """A quarter of the resolution."""
    return max_pool(self.conv(x), self.pools_time)


class Block(nn.Module):
  """Pre-activation block of two convolutions."""

  def __init__(self, inputs, features, times, strides, projects):
    super().__init__()
    self.norm1, self.norm2 = Norm(inputs), Norm(features)
    self.conv1 = Conv(inputs, features, (times[0], 3, 3), strides)
    self.conv2 = Conv(features, features, (times[1], 3, 3))
    if projects:
      self.projection = Conv(inputs, features, (1, 1, 1), strides)
    self.projects = projects

  def forward(self, x):
    """Two convolutions beside a shortcut."""
    active = self.norm1(x)
    shortcut = self.projection(active) if self.projects else x
    return self.conv2(self.norm2(self.conv1(active))) + shortcut


class Stage(nn.Module):
  """Two blocks."""

  def __init__(self, inputs, features, times, strides):
    super().__init__()
    self.block1 = Block(inputs, features, times, strides, True)
    self.block2 = Block(features, features, times, (1, 1, 1), False)

  def forward(self, x):
    """One block after the other."""
    return self.block2(self.block1(x))


class ResNet(nn.Module):
  """ResNet-18; `extra` channels join the input of each stage and the end."""

  def __init__(
    self, width, times, *, stem_time=1, halves_time=False, extra=(0,) * 5
  ):
    super().__init__()
    self.is_flat = times == FLAT and stem_time == 1
    self.stem = Stem(width, stem_time, halves_time)
    self.outputs = 8 * width + extra[4]
    inputs = width
    for number in range(NUM_STAGES):
      strides = (1, 1, 1) if number == 0 else (1 + halves_time, 2, 2)
      features = width * 2**number
      stage = Stage(inputs + extra[number], features, times[number], strides)
      self.add_module(f'stages_{number}', stage)
      inputs = features
    self.final_norm = Norm(self.outputs)

  def stage(self, number, x):
    """Runs stage `number`, from 0."""
    return getattr(self, f'stages_{number}')(x)

  def forward(self, clip):
    """[B, C, T, H, W] -> [B, C, T', H', W']."""
    batch, time = clip.shape[0], clip.shape[2]
    x = clip.transpose(1, 2).flatten(0, 1) if self.is_flat else clip
    x = self.stem(x)
    for number in range(NUM_STAGES):
      x = self.stage(number, x)
    x = self.final_norm(x)
    return x.unflatten(0, (batch, time)).transpose(1, 2) if self.is_flat else x


class SlowFast(nn.Module):
  """Two pathways and their lateral connections."""

  def __init__(self):
    super().__init__()
    fast = [FAST_WIDTH * size for size in (1, 1, 2, 4, 8)]
    self.slow = ResNet(WIDTH, SLOW, extra=[2 * size for size in fast])
    self.fast = ResNet(FAST_WIDTH, FAST, stem_time=5)
    for number, size in enumerate(fast):
      name = f'lateral_stage{number}' if number else 'lateral_stem'
      self.add_module(name, Conv(size, 2 * size, (5, 1, 1), (ALPHA, 1, 1)))
    self.outputs = self.slow.outputs + self.fast.outputs

  def forward(self, clip):
    """Returns pooled features [B, F]."""
    slow = self.slow.stem(clip[:, :, ::ALPHA])
    fast = self.fast.stem(clip)
    slow = torch.cat([slow, self.lateral_stem(fast)], dim=1)
    for number in range(NUM_STAGES):
      slow = self.slow.stage(number, slow)
      fast = self.fast.stage(number, fast)
      lateral = getattr(self, f'lateral_stage{number + 1}')(fast)
      slow = torch.cat([slow, lateral], dim=1)
    pathways = self.slow.final_norm(slow), self.fast.final_norm(fast)
    return torch.cat([x.float().mean(dim=(2, 3, 4)) for x in pathways], dim=1)


class Embedding(nn.Module):
  """A backbone, a dense layer, and the projection onto the sphere."""

  def __init__(self, backbone, frames_apart=1):
    super().__init__()
    self.backbone = backbone
    self.projection = nn.Linear(backbone.outputs * frames_apart, EMBEDDING_SIZE)
    self.is_apart = frames_apart > 1

  def forward(self, clip):
    """[B, C, T, H, W] -> [B, D]."""
    x = self.backbone(clip)
    if x.ndim == 5:
      x = x.float()
      x = (
        x.mean(dim=(3, 4)).transpose(1, 2).flatten(1)
        if self.is_apart
        else (x.mean(dim=(2, 3, 4)))
      )
    return functional.normalize(self.projection(x), dim=1)


class TwoStream(nn.Module):
  """Two networks that see the same clips."""

  def __init__(self, motion):
    super().__init__()
    self.single, self.motion = build('vie_single', 1), build(motion, 1)

  def forward(self, clip):
    """[B, C, T, H, W] -> [B, D]."""
    return functional.normalize(self.single(clip) + self.motion(clip), dim=1)


def build(name, num_frames):
  """Builds a network by its name in the config of vie_jax."""
  return {
    'vie_single': lambda: Embedding(ResNet(WIDTH, FLAT)),
    'vie_3dresnet': lambda: Embedding(
      ResNet(WIDTH, CUBIC, stem_time=7, halves_time=True)
    ),
    'vie_trn': lambda: Embedding(ResNet(WIDTH, FLAT), num_frames),
    'vie_slow': lambda: Embedding(ResNet(WIDTH, SLOW)),
    'vie_slowfast': lambda: Embedding(SlowFast()),
    'vie_twostream_s': lambda: TwoStream('vie_slow'),
    'vie_twostream_sf': lambda: TwoStream('vie_slowfast'),
  }[name]()


def prepare(make, case, rule, dtype, compiles):
  """A training step, for `turns.take_turns`.

  Args:
    make: (case, names and shapes) -> (clip [B, T, H, W, 3], target [B, D],
      weights by the names and in the shapes that vie_jax has).
    case: dict: `name`, `num_frames`, and what else `make` reads.
    rule: dict: `learning_rate`, `momentum`, `weight_decay`.
    dtype: of the convolutions, 'float32' or 'bfloat16'.
    compiles: whether torch.compile compiles the network.
  """
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.backends.cudnn.benchmark = True
  network = build(case['name'], case['num_frames'])
  clip, target, weights = make(case, _shapes(network))
  with torch.no_grad():
    for name, parameter in network.named_parameters():
      parameter.copy_(_to_torch(weights[_their_name(name)]))
  # The layout that its convolutions are fastest in; weights of rank 5.
  layout = torch.channels_last_3d
  network = network.to(device)
  for parameter in network.parameters():
    if parameter.ndim == 5:
      parameter.data = parameter.data.contiguous(memory_format=layout)
  clip = torch.from_numpy(clip).permute(0, 4, 1, 2, 3).to(device)
  clip = clip.contiguous(memory_format=layout)
  target = torch.from_numpy(target).to(device)
  decayed, others = [], []
  for name, parameter in network.named_parameters():
    (others if 'norm' in name else decayed).append(parameter)
  optimizer = torch.optim.SGD(
    [
      {'params': decayed, 'weight_decay': rule['weight_decay']},
      {'params': others, 'weight_decay': 0.0},
    ],
    lr=rule['learning_rate'],
    momentum=rule['momentum'],
  )
  embed = torch.compile(network) if compiles else network

  def run():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(
      device, dtype=torch.bfloat16, enabled=dtype == 'bfloat16'
    ):
      embedding = embed(clip)
    loss = -(embedding.float() * target).sum(dim=1).mean()
    loss.backward()
    optimizer.step()
    if device == 'cuda':
      torch.cuda.synchronize()
    return embedding.detach().float().cpu().numpy()

  return run, {}


def _their_name(name):
  """backbone.stem.conv.weight -> backbone/stem/conv/kernel."""
  *path, kind = name.split('.')
  if kind == 'weight':
    kind = 'scale' if 'norm' in path[-1] else 'kernel'
  return '/'.join([*path, kind])


def _shapes(network):
  """name -> shape, both as vie_jax has them."""
  return {
    _their_name(name): tuple(
      x.shape if x.ndim == 1 else (*x.shape[2:], *x.shape[1::-1])
    )
    for name, x in network.named_parameters()
  }


def _to_torch(weight):
  """[T, H, W, in, out] -> [out, in, T, H, W]; [in, out] -> [out, in]."""
  weight = torch.from_numpy(weight)
  if weight.ndim == 1:
    return weight
  return weight.permute(-1, -2, *range(weight.ndim - 2))
