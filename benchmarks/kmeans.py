"""Compares k-means over the memory bank with faiss and PyTorch, side by side.

  python benchmarks/kmeans.py > benchmarks/results/kmeans-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds, and a
ratio the median of the rounds' ratios.

The same number of Lloyd iterations on the same vectors, and then the nearest
centroid of each, its label, as the official code asks for it. vie_jax:
`kmeans.fit` as a run calls it, which draws its first centroids. faiss, if it is
installed: Kmeans as the official code calls it, without subsampling. PyTorch:
peers/torch_kmeans.py. The last two are given the first centroids of vie_jax; in
the committed runs, which are older, each drew its own. The objective is the sum
of squared distances to the final centroids, over that of faiss (without it, of
PyTorch), computed in the same way for all of them.

Warm start: the vectors have moved since they were last clustered, and are
clustered again: from new rows with 20 iterations, and from the means of the
last clusters with a few.

Before figures are printed, no objective may be more than 1 % above that of its
peer from the same first centroids: of a warm start, that of PyTorch.
"""

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
_COLD_ITERATIONS = 20
# Of objectives from the same first centroids: rounding moves rows between
# clusters, and empty clusters are dealt with in different ways.
_MOST_DIFFERENT = 0.01
# Length of the step that a unit vector makes between two clusterings, as of
# embeddings late in training: their cosine with the row before is 0.9.
_DRIFT = 0.48


def points(num_videos, num_clusters, dim, *, has_moved=False):
  """Unit vectors float32 [N, D] around half as many centres as clusters."""
  rng = np.random.default_rng(0)
  draw = functools.partial(rng.standard_normal, dtype=np.float32)
  centres = _unit(draw((max(1, num_clusters // 2), dim)))
  share = rng.gamma(1.0, size=len(centres))
  center = rng.choice(len(centres), num_videos, p=share / share.sum())
  found = _unit(centres[center] + 0.06 * draw((num_videos, dim)))
  if has_moved:
    step = _unit(
      draw((num_videos, dim)) + 4.0 * draw((len(centres), dim))[center]
    )
    found = _unit(found + _DRIFT * step)
  return found


def _unit(vectors):
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _objective(x, centroids):
  """Sum of squared distances to the nearest centroid, of unit vectors."""
  total = 0.0
  half = 0.5 * np.square(centroids).sum(axis=1)
  for chunk in np.array_split(x, max(1, len(x) // 2048)):
    best = (chunk @ centroids.T - half).max(axis=1)
    total += float(np.sum(1.0 - 2.0 * best.astype(np.float64)))
  return total


def _ours(num_videos, num_clusters, iterations):
  """(mesh, rows, a jitted fit) of this project."""
  import jax

  from vie_jax import sharding
  from vie_jax.objective import kmeans, memory_bank

  mesh = sharding.make_mesh(1)
  fit = jax.jit(
    functools.partial(
      kmeans.fit,
      num_videos=num_videos,
      num_clusters=num_clusters,
      num_iterations=iterations,
      mesh=mesh,
    )
  )
  return memory_bank.num_rows(num_videos, 1), fit


def prepare_ours(sizes, iterations, is_warm=None):
  """`kmeans.fit`; is_warm: of vectors that moved, from the last clusters."""
  import jax

  x, fit = _fit(sizes, iterations, is_warm)
  found = []

  def run():
    result = jax.block_until_ready(fit())
    if not found:
      found.append(_objective(x, np.asarray(result.centroids)))
    return found[0]

  return run, {}


def _fit(sizes, iterations, is_warm):
  """(vectors float32 [N, D], a function without arguments that clusters them)."""
  import jax

  def padded(x):
    return jax.device_put(np.pad(x, ((0, rows - len(x)), (0, 0))))

  num_videos, num_clusters = sizes['num_videos'], sizes['num_clusters']
  rows, fit = _ours(num_videos, num_clusters, iterations)
  key, last = jax.random.key(0), {}
  if is_warm:
    _, fit_before = _ours(num_videos, num_clusters, _COLD_ITERATIONS)
    before = fit_before(padded(points(**sizes)), key=key)
    last = {'last_labels': before.labels}
  x = points(**sizes, has_moved=is_warm is not None)
  return x, functools.partial(fit, padded(x), key=key, **last)


def prepare_first(sizes, is_warm=None):
  """The centroids float32 [C, D] from which `prepare_ours` sets out."""
  _, fit = _fit(sizes, 0, is_warm)
  return lambda: np.asarray(fit().centroids), {}


def prepare_faiss(sizes, iterations, first):
  """Kmeans of faiss-cpu from given centroids."""
  import faiss

  x = points(**sizes)
  faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
  found = []

  def run():
    fit = faiss.Kmeans(
      x.shape[1],
      sizes['num_clusters'],
      niter=iterations,
      seed=1234,
      max_points_per_centroid=10**9,
      min_points_per_centroid=1,
    )
    fit.train(x, init_centroids=first)
    fit.index.search(x, 1)
    if not found:
      found.append(_objective(x, fit.centroids))
    return found[0]

  return run, {}


def prepare_torch(sizes, iterations, first, is_warm=None):
  """Lloyd's iterations in PyTorch from given centroids; is_warm: as above."""
  from peers import torch_kmeans

  x = points(**sizes, has_moved=is_warm is not None)
  fit, found = torch_kmeans.prepare(x, first, iterations), []

  def run():
    centroids, _ = fit()
    if not found:
      found.append(_objective(x, centroids))
    return found[0]

  return run, {}


def main():
  """Runs both comparisons and prints them."""
  options = _options()
  script.require('torch')
  report = result_lines.Report(
    'kmeans', rounds=options.rounds, packages=_PACKAGES
  )
  sizes = {
    'num_videos': options.videos,
    'num_clusters': options.clusters,
    'dim': options.dim,
  }
  _compare_peers(sizes, options.iterations, report)
  small = sizes | {
    name: sizes[name] // options.warm_divisor
    for name in ('num_videos', 'num_clusters')
  }
  _compare_starts(small, options.warm_iterations, report)
  report.finish()


def _options():
  """Those of the command line, which go together."""
  parser = script.parser(__doc__)
  for name, default, what in (
    ('--videos', 239_888, 'N, vectors to cluster'),
    ('--clusters', 8000, 'C'),
    ('--dim', 128, 'D, of a vector'),
    ('--iterations', 2, 'of Lloyd, beside faiss and PyTorch'),
    ('--warm-divisor', 8, 'of videos and clusters, for the warm start'),
  ):
    parser.add_argument(
      name,
      type=argument_types.count,
      default=default,
      help=f'{what} (default: %(default)s)',
    )
  parser.add_argument(
    '--warm-iterations',
    type=argument_types.count,
    nargs='+',
    default=[3, 5],
    help='of Lloyd from the last clusters, each a variant (default: 3 5)',
  )
  argument_types.add_rounds(parser, 5)
  options = parser.parse_args()
  # Fewer, and each video is a cluster, in the smaller comparison at least.
  least = options.clusters + options.warm_divisor
  if options.videos < least:
    parser.error(
      f'--videos: {options.videos} is less than {least}, --clusters and '
      '--warm-divisor together'
    )
  if options.clusters < options.warm_divisor:
    parser.error(
      f'--clusters: {options.clusters} is less than --warm-divisor, '
      f'{options.warm_divisor}'
    )
  return options


def _compare_peers(sizes, iterations, report):
  """Times vie_jax, PyTorch and faiss from the same first centroids."""
  case = f'{iterations} iterations, {_describe(sizes)}'
  ours = {'sizes': sizes, 'iterations': iterations}
  theirs = ours | {'first': _alone(prepare_first, {'sizes': sizes})}
  variants = {
    'vie_jax': (prepare_ours, ours),
    'PyTorch': (prepare_torch, theirs),
  }
  peer = 'PyTorch'
  if importlib.util.find_spec('faiss'):
    peer = 'faiss'
    variants[peer] = prepare_faiss, theirs
  found = turns.take_turns(variants, rounds=report.rounds)
  for name, variant in found.items():
    check(f'{case}, {name}', variant.first, found[peer].first)
  _add(report, case, found, peer)


def _compare_starts(sizes, warm_iterations, report):
  """Times cold and warm starts."""
  case = f'clustering again, {_describe(sizes)}'
  starts = {f'cold, {_COLD_ITERATIONS} iterations': (_COLD_ITERATIONS, False)}
  for iterations in warm_iterations:
    starts[f'warm, {iterations} iterations'] = iterations, True
  settings = {
    name: {'sizes': sizes, 'iterations': iterations, 'is_warm': is_warm}
    for name, (iterations, is_warm) in starts.items()
  }
  found = turns.take_turns(
    {name: (prepare_ours, each) for name, each in settings.items()},
    rounds=report.rounds,
  )
  first = {
    is_warm: _alone(prepare_first, {'sizes': sizes, 'is_warm': is_warm})
    for is_warm in (False, True)
  }
  for name, each in settings.items():
    its = _alone(prepare_torch, each | {'first': first[each['is_warm']]})
    check(f'{case}, {name}', found[name].first, its)
  _add(report, case, found, next(iter(found)))


def _alone(prepare, arguments):
  """What a function that is prepared in a process of its own returns."""
  variants = {prepare.__name__: (prepare, arguments)}
  return turns.take_turns(variants, rounds=0)[prepare.__name__].first


def check(case, objective, its):
  """Ends the run if an objective is larger than that of its peer, or none."""
  if not objective <= (1 + _MOST_DIFFERENT) * its:
    sys.exit(f'Error: {case}: the objective is {objective}, and not {its}.')


def _describe(sizes):
  videos, clusters, dim = sizes.values()
  return f'N = {videos:,}, C = {clusters:,}, D = {dim}'


def _add(report, case, found, peer):
  objective = {name: variant.first for name, variant in found.items()}
  for name, variant in found.items():
    say = functools.partial(report.add, case, name)
    wall, cpu, ratio = ({} for _ in range(3))
    if name != peer:
      wall, cpu, ratio = (
        {'ratio': value, 'ratio_to': peer}
        for value in (
          variant.ratio(found[peer]),
          variant.cpu_ratio(found[peer]),
          objective[name] / objective[peer],
        )
      )
    say('wall s', variant.milliseconds / 1000, **wall)
    say('CPU s', variant.cpu_milliseconds / 1000, **cpu)
    say('objective', objective[name], **ratio)


if __name__ == '__main__':
  script.run(main)
