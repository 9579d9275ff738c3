"""Compares a step of Local Aggregation without a network, side by side.

  python benchmarks/local_aggregation.py > \\
      benchmarks/results/local_aggregation-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds, and a
ratio the median of the rounds' ratios.

A step: similarities of a batch to all N rows of the memory bank, its k nearest
rows, which of them share a cluster, the loss, its gradient by the embeddings,
and the update of the bank. vie_jax: the step that `train_step.compile_steps`
compiles, its network replaced by the normalisation of given vectors; it also
computes what a run logs. PyTorch: `peers/torch_local_aggregation.py`, the
official steps, one call after the other. Before anything is printed, loss and
length of the gradient must agree.

A search: similarities and k nearest rows alone. faiss: IndexFlatIP, if it is
installed. The other variants are ways to do it that were tried.

On Linux, pages of memory can be 2 MiB instead of 4 KiB, which
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 asks for; `huge pages` are variants in
such processes. On a GPU, where they change nothing: --no-huge-pages.
"""

import argparse
import functools
import importlib.util
import os
import pathlib
import sys

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, result_lines, script, turns

import numpy as np

_PACKAGES = ('jax', 'jaxlib', 'numpy', 'torch', 'faiss-cpu')
_TEMPERATURE = 0.07
_MOMENTUM = 0.5
_MOST_DIFFERENT = 1e-3
# What rounding leaves of a loss or a gradient of 0: an error of 1e-7 in cosines,
# over the temperature, and some reserve.
_ROUNDING = 1e-5


def problem(num_videos, batch_size, num_neighbors, num_clusters, dim):
  """The arrays that every variant starts from.

  Returns:
    dict: `bank` float32 [N, D], `labels` int32 [N], `embedding` float32 [B, D],
    all unit, and `index` int32 [B]; and k. Videos lie around the centre of
    their cluster, and embeddings near their row of the bank.
  """
  rng = np.random.default_rng(0)
  draw = functools.partial(rng.standard_normal, dtype=np.float32)
  labels = rng.integers(0, num_clusters, num_videos).astype(np.int32)
  bank = _unit(
    _unit(draw((num_clusters, dim)))[labels] + 0.1 * draw((num_videos, dim))
  )
  index = rng.choice(num_videos, batch_size, replace=False).astype(np.int32)
  return {
    'bank': bank,
    'labels': labels,
    'embedding': _unit(bank[index] + 0.05 * draw((batch_size, dim))),
    'index': index,
    'k': num_neighbors,
  }


def _unit(vectors):
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def prepare_ours(sizes):
  """The step that a run has, around a network that only normalises."""
  import jax
  import jax.numpy as jnp
  import optax
  from flax import linen as nn

  from vie_jax import sharding, train_step
  from vie_jax.objective import memory_bank

  class Given(nn.Module):
    """Normalises what it is given; the gradient of `shift` is the sum."""

    @nn.compact
    def __call__(self, x, *, train):
      self.variable('batch_stats', 'none', jnp.zeros, ())
      shift = self.param('shift', nn.initializers.zeros, x.shape)
      return memory_bank.normalize(x + shift)

  given = problem(**sizes)
  mesh, rule = sharding.make_mesh(1), optax.set_to_zero()
  state = _first_state(given, rule, mesh)
  steps = train_step.compile_steps(
    state,
    model=Given(),
    optimizer=rule,
    augment=lambda key, window, crop: window,
    method=train_step.Method(
      num_videos=sizes['num_videos'],
      temperature=_TEMPERATURE,
      bank_momentum=_MOMENTUM,
      instance_loss='nce',
      num_noise=1,
      num_neighbors=given['k'],
      num_clusters=1,
      kmeans_iterations=1,
    ),
    mesh=mesh,
  )
  batch = sharding.global_batch(
    {
      'window': given['embedding'],
      'crop': np.zeros((len(given['index']), 4), np.float32),
      'instance_index': given['index'],
    },
    mesh,
  )
  step = steps['local_aggregation'].lower(state, batch).compile()
  holder = [state]

  def run():
    holder[0], metrics = step(holder[0], batch)
    jax.block_until_ready(holder[0])
    return float(metrics['train/loss']), float(metrics['train/gradient_norm'])

  temporary = step.memory_analysis().temp_size_in_bytes / 2**20
  return run, {'temporary': temporary}


def _first_state(given, rule, mesh):
  """That of `prepare_ours`, on the mesh."""
  import jax
  import jax.numpy as jnp

  from vie_jax import train_state
  from vie_jax.objective import memory_bank

  rows = memory_bank.num_rows(len(given['bank']), 1)
  padding = rows - len(given['bank'])
  params = {'shift': jnp.zeros_like(given['embedding'])}
  state = train_state.TrainState(
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(0),
    params=params,
    batch_stats={'none': jnp.zeros(())},
    opt_state=rule.init(params),
    bank=jnp.pad(given['bank'], ((0, padding), (0, 0))),
    bank_step=jnp.zeros((rows,), jnp.int32),
    cluster_labels=jnp.pad(
      given['labels'][None], ((0, 0), (0, padding)), constant_values=-1
    ),
  )
  return jax.device_put(state, train_state.layout(state, mesh))


def prepare_search(sizes, way):
  """A search on its own, jitted, by one of `SEARCHES`."""
  import jax

  given = problem(**sizes)
  search = jax.jit(functools.partial(SEARCHES[way], k=given['k']))
  bank, query = jax.device_put((given['bank'], given['embedding']))

  def run():
    value, _ = jax.block_until_ready(search(bank, query))
    return _digest(value)

  return run, {}


def prepare_faiss(sizes):
  """IndexFlatIP of faiss, with as many threads as there are cores."""
  import faiss

  given = problem(**sizes)
  faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
  index = faiss.IndexFlatIP(given['bank'].shape[1])
  index.add(given['bank'])

  def run():
    return _digest(index.search(given['embedding'], given['k'])[0])

  return run, {}


def _digest(values):
  """What must agree of a search: means of the first and of the last value."""
  values = np.asarray(values, np.float32)
  return float(values[:, 0].mean()), float(values[:, -1].mean())


def _ours_search(bank, query, *, k):
  from vie_jax import sharding
  from vie_jax.objective import nearest_neighbors

  mesh = sharding.make_mesh(1)
  return nearest_neighbors.top_k(
    bank, query, k=k, num_videos=bank.shape[0], mesh=mesh
  )


def _products(bank, query, dtype=None):
  import jax
  import jax.numpy as jnp

  if dtype is None:
    return jnp.einsum('bd,nd->bn', query, bank, precision='highest')
  return jax.lax.dot_general(
    query.astype(dtype),
    bank.astype(dtype),
    (((1,), (1,)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _full(bank, query, *, k):
  import jax

  return jax.lax.top_k(_products(bank, query), k)


def _approximate(bank, query, *, k):
  import jax

  return jax.lax.approx_max_k(_products(bank, query), k, recall_target=0.95)


def _bfloat16(bank, query, *, k):
  import jax

  return jax.lax.top_k(_products(bank, query, 'bfloat16'), k)


def _blocks(bank, query, *, k, num_blocks=16):
  import jax
  import jax.numpy as jnp

  products = _products(bank, query)
  num_blocks = min(num_blocks, products.shape[1])
  width = products.shape[1] // num_blocks * num_blocks
  blocks = products[:, :width].reshape(len(query), num_blocks, -1)
  best = jax.lax.top_k(blocks, min(k, blocks.shape[2]))[0]
  best = best.reshape(len(query), -1)
  best = jnp.concatenate([best, products[:, width:]], axis=1)
  return jax.lax.top_k(best, k)


def _threshold(bank, query, *, k):
  """The k-th value by bisection: no index, what a masked sum needs."""
  import jax
  import jax.numpy as jnp

  products = _products(bank, query)

  def halve(_, bounds):
    low, high = bounds
    middle = 0.5 * (low + high)
    is_low = jnp.sum(products >= middle[:, None], axis=1) >= k
    return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

  bounds = products.min(axis=1), products.max(axis=1)
  low, _ = jax.lax.fori_loop(0, 26, halve, bounds)
  return jnp.stack([products.max(axis=1), low], axis=1), low


SEARCHES = {
  'vie_jax': _ours_search,
  'top_k of all': _full,
  'top_k of 16 blocks, merged': _blocks,
  'threshold by bisection': _threshold,
  'bfloat16 products': _bfloat16,
  'approx_max_k': _approximate,
}


def main():
  """Runs all comparisons and prints them."""
  options = _options()
  if 'step' in options.parts:
    script.require('torch')
  report = result_lines.Report(
    'local_aggregation', rounds=options.rounds, packages=_PACKAGES
  )
  for batch_size in options.batch_sizes:
    sizes = {
      'num_videos': options.videos,
      'batch_size': batch_size,
      'num_neighbors': options.neighbors,
      'num_clusters': max(1, options.videos // 30),
      'dim': options.dim,
    }
    size = f'N = {options.videos:,}, B = {batch_size}, k = {options.neighbors}'
    for part in options.parts:
      _PARTS[part](f'{part}, {size}', sizes, report, options.huge_pages)
  report.finish()


def _options():
  """Those of the command line, which go together."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--videos',
    type=argument_types.count,
    default=239_888,
    help='N, rows of the bank (default: %(default)s)',
  )
  parser.add_argument(
    '--batch-sizes',
    type=argument_types.count,
    nargs='+',
    default=[64, 128],
    help='B, each a case (default: 64 128)',
  )
  parser.add_argument(
    '--neighbors',
    type=argument_types.count,
    default=512,
    help='k (default: %(default)s)',
  )
  parser.add_argument(
    '--dim',
    type=argument_types.count,
    default=128,
    help='of an embedding (default: %(default)s)',
  )
  argument_types.add_rounds(parser, 7)
  parser.add_argument(
    '--parts',
    nargs='+',
    choices=list(_PARTS),
    default=list(_PARTS),
    help='what is compared (default: both)',
  )
  parser.add_argument(
    '--huge-pages',
    action=argparse.BooleanOptionalAction,
    default=True,
    help='also compare steps in processes that have them (default: yes)',
  )
  options = parser.parse_args()
  for name, number in (
    ('--neighbors', options.neighbors),
    ('--batch-sizes', max(options.batch_sizes)),
  ):
    if number > options.videos:
      parser.error(f'{name}: {number} is more than --videos, {options.videos}')
  return options


def _compare_steps(case, sizes, report, has_huge_pages):
  from peers import torch_local_aggregation

  torch_step = (
    torch_local_aggregation.prepare,
    {
      'make': problem,
      'sizes': sizes,
      'temperature': _TEMPERATURE,
      'momentum': _MOMENTUM,
    },
  )
  variants = {
    'vie_jax': (prepare_ours, {'sizes': sizes}),
    'PyTorch': torch_step,
  }
  environments = {'': {}}
  if has_huge_pages:
    environments[', huge pages'] = turns.HUGE_PAGES
  for pages, environment in environments.items():
    found = turns.take_turns(
      variants, rounds=report.rounds, environment=environment
    )
    check(case, {name: variant.results for name, variant in found.items()})
    _add(report, case, found, 'PyTorch', pages)


def _compare_searches(case, sizes, report, has_huge_pages):
  del has_huge_pages  # for steps alone
  variants = {
    way: (prepare_search, {'sizes': sizes, 'way': way}) for way in SEARCHES
  }
  peer = 'top_k of all'
  if importlib.util.find_spec('faiss'):
    peer = 'faiss'
    variants[peer] = prepare_faiss, {'sizes': sizes}
  found = turns.take_turns(variants, rounds=report.rounds)
  exact = {
    name: variant.results
    for name, variant in found.items()
    if name not in ('bfloat16 products', 'approx_max_k')
  }
  check(case, exact)
  _add(report, case, found, peer)


_PARTS = {'step': _compare_steps, 'search': _compare_searches}


def _add(report, case, found, peer, pages=''):
  for name, variant in found.items():
    say = functools.partial(report.add, case, name + pages)
    wall, cpu = {}, {}
    if name != peer:
      wall, cpu = (
        {'ratio': ratio, 'ratio_to': peer + pages}
        for ratio in (
          variant.ratio(found[peer]),
          variant.cpu_ratio(found[peer]),
        )
      )
    say('wall ms', variant.milliseconds, **wall)
    say('CPU ms', variant.cpu_milliseconds, **cpu)
    if 'temporary' in variant.facts:
      say('temporary MiB', variant.facts['temporary'])


def check(case, results):
  """Ends the run unless all variants find the same in the first round."""
  first = {name: np.array(found[0]) for name, found in results.items()}
  expected = first['vie_jax']
  for name, values in first.items():
    bound = _MOST_DIFFERENT * np.abs(expected) + _ROUNDING
    if not np.all(np.abs(values - expected) <= bound):
      sys.exit(f'Error: {case}: {name} has {values}, vie_jax {expected}.')


if __name__ == '__main__':
  script.run(main)
