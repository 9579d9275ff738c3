"""Published peak figures of accelerators, for estimates before a purchase."""

import dataclasses

_TERA, _GIGA = 1e12, 1e9


@dataclasses.dataclass(frozen=True)
class Accelerator:
  """One device, as JAX counts them: a GPU, or a TPU chip.

  Attributes:
    platform: 'gpu' or 'tpu', as JAX names them; 'cpu' in a benchmark.
    bfloat16_flops: peak operations a second of dense matrix products.
    float32_flops: those of float32 arguments at JAX's default precision, which
      is TF32 on GPUs that have it and one bfloat16 pass on TPUs.
    exact_flops: those at `Precision.HIGHEST`, which the objective uses: true
      float32 on GPUs, six bfloat16 passes on TPUs. K-means has a quicker form on
      some GPUs, which is not reckoned with.
    memory_bytes: of device memory.
    memory_bandwidth: bytes a second.
    link_bandwidth: bytes a second that a device sends to its neighbours.
    network_bandwidth: bytes a second that it sends beyond its host, where that
      is slower; else the same.
    devices_per_host: in the largest machine that is used alone.
    devices_per_host_of_many: in each machine, where several are used.
    usable_memory: share of the memory that JAX takes, unless it is told
      otherwise: of a GPU three quarters, by XLA_PYTHON_CLIENT_MEM_FRACTION.
    source: of the figures.
  """

  platform: str
  bfloat16_flops: float
  float32_flops: float
  exact_flops: float
  memory_bytes: float
  memory_bandwidth: float
  link_bandwidth: float
  network_bandwidth: float
  devices_per_host: int
  devices_per_host_of_many: int
  usable_memory: float
  source: str

  def hosts(self, num_devices: int) -> int:
    """How many machines have so many devices."""
    if num_devices <= self.devices_per_host:
      return 1
    return -(-num_devices // self.devices_per_host_of_many)


def _gpu(bfloat16, tf32, float32, memory, bandwidth, nvlink, network, source):
  """A GPU with `nvlink` gigabytes a second, both directions together."""
  return Accelerator(
    platform='gpu',
    bfloat16_flops=bfloat16 * _TERA,
    float32_flops=tf32 * _TERA,
    exact_flops=float32 * _TERA,
    memory_bytes=memory * _GIGA,
    memory_bandwidth=bandwidth * _GIGA,
    link_bandwidth=nvlink / 2 * _GIGA,
    network_bandwidth=network * _GIGA,
    devices_per_host=8,
    devices_per_host_of_many=8,
    usable_memory=0.75,
    source=source,
  )


def _tpu(bfloat16, memory, bandwidth, links, per_host, source):
  """A TPU chip whose links have `links` gigabytes a second, both directions.

  A slice of one machine has up to `per_host` chips; machines of larger ones have
  four, as `launch/tpu/tpu_slices.py` has it, which a test compares.
  """
  return Accelerator(
    platform='tpu',
    bfloat16_flops=bfloat16 * _TERA,
    float32_flops=bfloat16 * _TERA,
    exact_flops=bfloat16 / 6 * _TERA,
    memory_bytes=memory,
    memory_bandwidth=bandwidth * _GIGA,
    link_bandwidth=links / 2 * _GIGA,
    network_bandwidth=links / 2 * _GIGA,
    devices_per_host=per_host,
    # Also of those whose single machines may have eight chips.
    devices_per_host_of_many=4,
    usable_memory=1.0,
    source=source,
  )


_DATA_SHEET = 'NVIDIA data sheet, SXM, without sparsity; network: '
_TPU_PAGE = 'docs.cloud.google.com/tpu/docs/'
ACCELERATORS = {
  'v100': _gpu(
    # Its tensor cores multiply float16 only.
    15.7,
    15.7,
    15.7,
    32,
    900,
    300,
    12.5,
    _DATA_SHEET + '100 Gbit/s a GPU',
  ),
  'a100': _gpu(
    312, 156, 19.5, 80, 2039, 600, 25, _DATA_SHEET + '200 Gbit/s a GPU'
  ),
  'h100': _gpu(
    989, 494, 67, 80, 3350, 900, 50, _DATA_SHEET + '400 Gbit/s a GPU'
  ),
  'h200': _gpu(
    989, 494, 67, 141, 4800, 900, 50, _DATA_SHEET + '400 Gbit/s a GPU'
  ),
  'tpu_v4': _tpu(
    275, 32 * 2**30, 1200, 600, 4, _TPU_PAGE + 'v4; links: arXiv:2304.01433'
  ),
  'tpu_v5e': _tpu(197, 16e9, 819, 400, 8, _TPU_PAGE + 'v5e'),
  'tpu_v5p': _tpu(459, 95e9, 2765, 1200, 4, _TPU_PAGE + 'v5p'),
  'tpu_v6e': _tpu(918, 32e9, 1638, 800, 8, _TPU_PAGE + 'v6e'),
}
