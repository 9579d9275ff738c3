"""What the benchmarks of docs/scaling.md have in common: a network of one matrix,
and the peaks of this machine."""

import statistics
import time

import jax
import jax.numpy as jnp
from flax import linen as nn

from vie_jax.objective import memory_bank
from vie_jax.planning import accelerators, scaling

DIM = 128
CLIP = (1, 8, 8, 3)
NETWORK = scaling.Network(
  num_parameters=4 * DIM,
  num_statistics=1,
  optimizer_slots=1,
  flops_per_clip=0.0,
  activation_bytes_per_clip=0.0,
  input_bytes_per_clip=8 * 8 * 3 + 20,
  is_bfloat16=False,
)


class Projection(nn.Module):
  """The smallest network: colours of the clip times a matrix."""

  @nn.compact
  def __call__(self, clips, train=False):
    """Embeds clips [B, T, H, W, 3]: float32 [B, D]."""
    self.variable('batch_stats', 'none', jnp.zeros, ())
    return memory_bank.normalize(nn.Dense(DIM)(clips.mean(axis=(1, 2, 3))))


def clock():
  """Seconds: of the processor where it is the device, or else by the clock.

  Other programs disturb the former less.
  """
  is_cpu = jax.default_backend() == 'cpu'
  return time.process_time() if is_cpu else time.perf_counter()


def unit():
  """What milliseconds of `clock` are called."""
  return 'CPU ms' if jax.default_backend() == 'cpu' else 'ms'


def measured_machine(rounds):
  """This machine: the speed of a product with a bank, and of a copy.

  Args:
    rounds: how often both are run; their medians count.

  Returns:
    scaling.Machine whose peaks are what was measured, all of it reached, in
    seconds of `clock`.
  """
  rows = 2**17
  query, bank = jnp.ones((64, DIM)), jnp.ones((rows, DIM))
  products = jnp.ones((64, rows))
  multiply = jax.jit(
    lambda q, b: jnp.einsum(
      'bd,nd->bn', q, b, precision=jax.lax.Precision.HIGHEST
    )
  )
  copy = jax.jit(lambda x: x + 1.0)
  seconds = {'multiply': [], 'copy': []}
  for _ in range(rounds + 1):
    for name, run in (
      ('multiply', lambda: multiply(query, bank)),
      ('copy', lambda: copy(products)),
    ):
      started = clock()
      jax.block_until_ready(run())
      seconds[name].append(clock() - started)
  medians = {
    name: statistics.median(values[1:]) for name, values in seconds.items()
  }
  flops = 2.0 * 64 * rows * DIM / medians['multiply']
  bandwidth = 2.0 * 4 * 64 * rows / medians['copy']
  device = accelerators.Accelerator(
    platform='cpu',
    bfloat16_flops=flops,
    float32_flops=flops,
    exact_flops=flops,
    memory_bytes=0.0,
    memory_bandwidth=bandwidth,
    # Devices share one memory: what they send each other is copied there.
    link_bandwidth=bandwidth,
    network_bandwidth=bandwidth,
    devices_per_host=8,
    devices_per_host_of_many=8,
    usable_memory=1.0,
    source='measured',
  )
  return scaling.Machine(device, 1.0, 1.0, 1.0)
