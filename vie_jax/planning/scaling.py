"""What a run takes, as formulas: memory, communication and time of a device.

Arithmetic only. docs/scaling.md derives each formula; tests hold memory and
communication to compiled programs. Times are rooflines: what published peaks
allow, times stated efficiencies. They are for comparing and for refusing what
cannot work, not for promises.
"""

import bisect
import dataclasses
import math

from vie_jax.objective import kmeans, memory_bank, nearest_neighbors, row_blocks
from vie_jax.planning.accelerators import Accelerator

WORD = 4
"""Bytes of a float32 or an int32."""


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What the objective's cost depends on.

  Attributes:
    num_videos: N.
    num_devices: d.
    batch_size: B, over all devices.
    embedding_size: D.
    instance_loss: 'nce' or 'softmax'.
    num_noise: m, noise videos of 'nce'.
    num_neighbors: K.
    num_clusters: C.
    num_clusterings: R.
    kmeans_iterations: I, of all clusterings but the first.
    product_bytes: the largest matrix of products on a device.
    kmeans_chunk: rows that k-means compares with the centroids at a time.
  """

  num_videos: int
  num_devices: int
  batch_size: int
  embedding_size: int
  instance_loss: str
  num_noise: int
  num_neighbors: int
  num_clusters: int
  num_clusterings: int
  kmeans_iterations: int
  product_bytes: int = row_blocks.PRODUCT_BYTES
  kmeans_chunk: int = kmeans.CHUNK

  @property
  def local_rows(self) -> int:
    """L: rows of the bank on a device, padding included."""
    rows = memory_bank.num_rows(self.num_videos, self.num_devices)
    return rows // self.num_devices

  @property
  def block_rows(self) -> int:
    """Rows whose products with the batch exist at a time."""
    most = row_blocks.rows_of_products(self.batch_size, self.product_bytes)
    return row_blocks.rows_of_block(self.local_rows, most)

  @property
  def is_grouped(self) -> bool:
    """Whether the search forms maxima of groups of rows first."""
    k = min(self.num_neighbors, self.block_rows)
    return nearest_neighbors.is_grouped(self.block_rows, k)


@dataclasses.dataclass(frozen=True)
class Network:
  """What the network's cost depends on.

  Attributes:
    num_parameters: P.
    num_statistics: numbers of batch norm's running statistics.
    optimizer_slots: numbers that the optimiser keeps per parameter.
    flops_per_clip: operations of a forward pass.
    activation_bytes_per_clip: kept for the backward pass.
    input_bytes_per_clip: of a clip's window, crop and index on the device.
    is_bfloat16: whether convolutions are.
  """

  num_parameters: int
  num_statistics: int
  optimizer_slots: int
  flops_per_clip: float
  activation_bytes_per_clip: float
  input_bytes_per_clip: float
  is_bfloat16: bool


def state_bytes(sizes: Sizes, network: Network) -> dict[str, int]:
  """Bytes of the train state on each device, by item."""
  rows = sizes.local_rows
  return {
    'bank': WORD * rows * sizes.embedding_size,
    'bank_step': WORD * rows,
    'cluster_labels': WORD * rows * sizes.num_clusterings,
    'parameters': WORD * network.num_parameters,
    'batch_statistics': WORD * network.num_statistics,
    'optimizer': WORD * network.optimizer_slots * network.num_parameters,
  }


def checkpoint_bytes(sizes: Sizes, network: Network) -> int:
  """Bytes of one checkpoint: what is split adds up, the rest counts once."""
  split = ('bank', 'bank_step', 'cluster_labels')
  return sum(
    size * (sizes.num_devices if name in split else 1)
    for name, size in state_bytes(sizes, network).items()
  )


def _gathered(sizes, count):
  """Bytes of the rows that embeddings are compared with, at a time."""
  of_one = WORD * count * sizes.embedding_size
  at_a_time = max(1, memory_bank.GATHERED_BYTES // of_one)
  return of_one * min(sizes.batch_size, at_a_time)


def _searched(sizes):
  """Bytes of the products and of what the search makes of them."""
  batch, rows = sizes.batch_size, sizes.block_rows
  products = WORD * batch * rows
  if not sizes.is_grouped:
    return products + _read(sizes)
  maxima = products // nearest_neighbors.GROUP
  # The rows of the best groups; the maxima are not needed any more then.
  best = WORD * batch * nearest_neighbors.GROUP * (sizes.num_neighbors + 2)
  return products + max(maxima, best) + _read(sizes)


def _read(sizes):
  """Bytes of a block of the bank and its row numbers, where there is a loop."""
  if sizes.block_rows == sizes.local_rows:
    return 0
  return WORD * sizes.block_rows * (sizes.embedding_size + 2)


def temporary_bytes(sizes: Sizes) -> dict[str, int]:
  """Bytes that each part of the objective needs for a while on each device.

  Those that grow with N or are large anyway; what a CPU's program keeps was
  measured, see docs/scaling.md.
  """
  rows, dim = sizes.local_rows, sizes.embedding_size
  batch, clusters = sizes.batch_size, sizes.num_clusters
  products = WORD * batch * sizes.block_rows
  candidates = 2 * WORD * batch * min(sizes.num_neighbors, rows)
  chunk = row_blocks.rows_of_block(rows, sizes.kmeans_chunk)
  clustering = (
    2 * WORD * chunk * clusters
    + 3 * WORD * clusters * (dim + 2)
    # Draws for the first centroids, and labels.
    + (29 if sizes.num_clusterings > 1 else 16) * rows
  )
  if sizes.instance_loss == 'softmax':
    # In blocks, the gradient forms a block and its exponentials again.
    instance = products * (1 if sizes.block_rows == rows else 2) + _read(sizes)
  else:
    # Random bits, indices, similarities and their gradient.
    instance = (
      _gathered(sizes, sizes.num_noise) + 4 * WORD * batch * sizes.num_noise
    )
  return {
    'initial_bank': 3 * WORD * rows * dim,
    'instance_recognition': instance,
    # Candidates are values and indices: found, as they travel, and merged. The
    # gradient gathers rows when the products are gone.
    'local_aggregation': 3 * candidates
    + max(_searched(sizes), _gathered(sizes, sizes.num_neighbors)),
    'kmeans': clustering,
  }


@dataclasses.dataclass(frozen=True)
class Transfer:
  """A collective operation.

  Attributes:
    kind: 'all-reduce', 'all-gather' or 'all-to-all'.
    what: it carries.
    bytes: of the array that a device has in the end.
  """

  kind: str
  what: str
  bytes: int

  def sent(self, num_devices: int) -> float:
    """Bytes that each of so many devices sends, in a ring."""
    share = (num_devices - 1) / num_devices
    return self.bytes * share * (2 if self.kind == 'all-reduce' else 1)


def _of_every_step(sizes, network):
  batch, dim = sizes.batch_size, sizes.embedding_size
  return [
    Transfer('all-gather', 'embeddings', WORD * batch * dim),
    Transfer('all-gather', 'indices of the videos', WORD * batch),
    Transfer('all-reduce', 'gradient', WORD * network.num_parameters),
    Transfer('all-reduce', 'own similarities', WORD * batch),
    Transfer('all-reduce', 'old bank rows', WORD * batch * dim),
    Transfer('all-reduce', 'ages', WORD * batch),
    Transfer('all-reduce', 'gradient of embeddings', WORD * batch * dim),
  ]


def transfers(sizes: Sizes, network: Network) -> dict[str, list[Transfer]]:
  """What travels between the devices, without batch norm's and scalars.

  Returns:
    'instance_recognition', 'local_aggregation': of a step;
    'kmeans_iteration': of each of R (I + 1) assignments;
    'kmeans_start': once per clustering.
  """
  batch, dim, k = sizes.batch_size, sizes.embedding_size, sizes.num_neighbors
  rows, clusters = sizes.local_rows, sizes.num_clusters
  every_step = _of_every_step(sizes, network)
  if sizes.instance_loss == 'softmax':
    instance = [
      Transfer('all-reduce', 'normalisers', WORD * batch),
      Transfer('all-reduce', 'gradient of embeddings', WORD * batch * dim),
    ]
  else:
    noise = WORD * batch * sizes.num_noise
    instance = [
      Transfer('all-reduce', 'noise similarities', noise),
      Transfer('all-reduce', 'gradient of embeddings', WORD * batch * dim),
    ]
  found = WORD * batch * min(k, rows)
  meeting = [
    Transfer('all-to-all', 'similarities of candidates', found),
    Transfer('all-to-all', 'indices of candidates', found),
    Transfer('all-gather', 'similarities of neighbours', WORD * batch * k),
    Transfer('all-gather', 'indices of neighbours', WORD * batch * k),
  ]
  if batch % sizes.num_devices:
    both = found * sizes.num_devices
    meeting = [
      Transfer('all-gather', 'similarities of candidates', both),
      Transfer('all-gather', 'indices of candidates', both),
    ]
  labels = WORD * sizes.num_clusterings * batch
  chosen = WORD * min(clusters, rows) * sizes.num_devices
  return {
    'instance_recognition': every_step + instance,
    'local_aggregation': [
      *every_step,
      *meeting,
      Transfer('all-reduce', 'own clusters', labels),
      Transfer('all-reduce', 'clusters of neighbours', labels * k),
    ],
    'kmeans_iteration': [
      Transfer('all-reduce', 'sums', WORD * clusters * dim),
      Transfer('all-reduce', 'sizes', WORD * clusters),
    ],
    'kmeans_start': [
      Transfer('all-gather', 'draws of candidates', chosen),
      Transfer('all-gather', 'indices of candidates', chosen),
      Transfer('all-reduce', 'first centroids', WORD * clusters * dim),
    ],
  }


@dataclasses.dataclass(frozen=True)
class Machine:
  """A device and how much of its peaks is reached.

  Attributes:
    accelerator: the device.
    efficiency: share of the peak of matrix products that a network reaches,
      in [0.001, 1].
    bank_efficiency: likewise, that products with the memory bank reach.
    bandwidth_efficiency: share of the peaks of memory and links, likewise.
  """

  accelerator: Accelerator
  efficiency: float
  bank_efficiency: float
  bandwidth_efficiency: float

  def compute(self, flops: float, peak: float) -> float:
    """Seconds of a network's operations."""
    return flops / (peak * self.efficiency)

  def multiply(self, flops: float) -> float:
    """Seconds of exact products with rows of the memory bank."""
    return flops / (self.accelerator.exact_flops * self.bank_efficiency)

  def move(self, num_bytes: float) -> float:
    """Seconds of reading or writing the device's memory."""
    bandwidth = self.accelerator.memory_bandwidth * self.bandwidth_efficiency
    return num_bytes / bandwidth

  def send(self, moved: list[Transfer], num_devices: int) -> float:
    """Seconds of communication, without latency."""
    device = self.accelerator
    is_one_host = num_devices <= device.devices_per_host
    link = device.link_bandwidth if is_one_host else device.network_bandwidth
    sent = sum(transfer.sent(num_devices) for transfer in moved)
    return sent / (link * self.bandwidth_efficiency)


def _network_seconds(sizes, network, machine):
  """Forward and backward of a device's share of the batch."""
  clips = sizes.batch_size / sizes.num_devices
  device = machine.accelerator
  peak = device.bfloat16_flops if network.is_bfloat16 else device.float32_flops
  # The backward pass has two products for each one of the forward pass; each
  # number kept is written and read, and its gradient is, too.
  return max(
    machine.compute(3 * network.flops_per_clip * clips, peak),
    machine.move(4 * network.activation_bytes_per_clip * clips),
  )


def _pass_over_bank(sizes, machine, batch_size):
  """Products of a batch with all local rows, written to memory."""
  rows, dim = sizes.local_rows, sizes.embedding_size
  return max(
    machine.multiply(2.0 * batch_size * rows * dim),
    machine.move(WORD * rows * (dim + batch_size)),
  )


def search_seconds(sizes: Sizes, machine: Machine, batch_size: int) -> float:
  """Exact neighbours of a batch: products, mask, selection."""
  # Maxima of groups are formed in one reading of the products, written and
  # read. Otherwise a mask reads and writes them, and the selection reads them.
  passes = 1.0 + 2.0 / nearest_neighbors.GROUP if sizes.is_grouped else 3.0
  more = passes * WORD * batch_size * sizes.local_rows
  return _pass_over_bank(sizes, machine, batch_size) + machine.move(more)


def _gather_seconds(sizes, machine, count, times):
  """Dot products with `count` rows for each embedding, or their gradient.

  Each device gathers as many rows as there are, its own or not: this does not
  shrink with their number.
  """
  gathered = WORD * sizes.batch_size * count * sizes.embedding_size
  # Read where they are, written, and read again.
  return machine.move(3.0 * times * gathered)


def step_seconds(
  sizes: Sizes, network: Network, machine: Machine
) -> dict[str, dict[str, float]]:
  """Seconds of a step of each objective, by part; nothing overlaps.

  Returns:
    'instance_recognition' and 'local_aggregation' -> part -> seconds.
  """
  moved = transfers(sizes, network)
  parameters = WORD * network.num_parameters * (4 + 2 * network.optimizer_slots)
  shared = {
    'network': _network_seconds(sizes, network, machine),
    'optimizer': machine.move(parameters),
  }
  if sizes.instance_loss == 'softmax':
    # Forward, gradient, and the products again where they come in blocks.
    passes = 2 if sizes.block_rows == sizes.local_rows else 3
    bank = passes * _pass_over_bank(sizes, machine, sizes.batch_size)
    instance = {'whole_bank': bank}
  else:
    # Forward and again backward.
    instance = {'noise': _gather_seconds(sizes, machine, sizes.num_noise, 2)}
  aggregation = {
    'search': search_seconds(sizes, machine, sizes.batch_size),
    # The search has formed the similarities; only the gradient gathers.
    'neighbors': _gather_seconds(sizes, machine, sizes.num_neighbors, 1),
  }
  return {
    name: {
      **shared,
      **parts,
      'communication': machine.send(moved[name], sizes.num_devices),
    }
    for name, parts in (
      ('instance_recognition', instance),
      ('local_aggregation', aggregation),
    )
  }


def kmeans_seconds(sizes: Sizes, network: Network, machine: Machine) -> float:
  """Seconds of all clusterings, once an epoch unless configured otherwise."""
  assignment = _pass_over_bank(sizes, machine, sizes.num_clusters)
  # Maximum and its place: two more passes over the scores.
  scores = 2.0 * WORD * sizes.local_rows * sizes.num_clusters
  assignment += machine.move(scores)
  moved = transfers(sizes, network)
  assignment += machine.send(moved['kmeans_iteration'], sizes.num_devices)
  start = machine.send(moved['kmeans_start'], sizes.num_devices)
  each = (sizes.kmeans_iterations + 1) * assignment + start
  return sizes.num_clusterings * each


def equal_cost_videos(sizes: Sizes, network: Network, machine: Machine) -> int:
  """The largest N whose exact search takes no longer than the network.

  Both shrink alike with devices and grow alike with the batch, so that N
  hardly depends on them: what reading the bank takes, the padding of its rows
  and whether these make groups do.
  """
  seconds = _network_seconds(sizes, network, machine)

  def is_longer(number):
    there = dataclasses.replace(sizes, num_videos=number)
    return search_seconds(there, machine, sizes.batch_size) > seconds

  above = 1
  while not is_longer(above):
    above *= 2
  return bisect.bisect_left(range(1, above), True, key=is_longer)


def peak_bytes(sizes: Sizes, network: Network) -> dict[str, int]:
  """Bytes on each device while each program of a run is at work."""
  state = sum(state_bytes(sizes, network).values())
  temporary = temporary_bytes(sizes)
  clips = sizes.batch_size / sizes.num_devices
  step = (
    state
    + WORD * network.num_parameters  # gradient
    + math.ceil(clips * network.activation_bytes_per_clip)
    # The next batch arrives while this one is used.
    + math.ceil(2 * clips * network.input_bytes_per_clip)
  )
  return {
    'initialize': state + temporary['initial_bank'],
    'instance_recognition': step + temporary['instance_recognition'],
    'local_aggregation': step + temporary['local_aggregation'],
    'kmeans': state + temporary['kmeans'],
  }
