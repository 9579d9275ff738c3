"""Compares k-means over the memory bank with faiss and PyTorch, side by side.

  python benchmarks/kmeans.py > benchmarks/results/kmeans-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds, and a
ratio the median of the rounds' ratios.

The same number of Lloyd iterations on the same vectors, and then the nearest
centroid of each, its label, as the official code asks for it. vie_jax:
`kmeans.fit` as a run calls it. faiss, if it is installed: Kmeans as the official
code calls it, without subsampling; it draws its first centroids itself.
PyTorch: peers/torch_kmeans.py, from the first centroids of vie_jax. The
objective is the sum of squared distances to the final centroids, over that of
faiss (without it, of PyTorch), computed in the same way for all of them.

Warm start: the vectors have moved since they were last clustered, and are
clustered again: from new rows with 20 iterations, and from the means of the
last clusters with a few.
"""

import argparse
import functools
import importlib.util
import os
import pathlib
import sys

import argument_types
import numpy as np
import result_lines
import script
import turns

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

_PACKAGES = ('jax', 'jaxlib', 'numpy', 'torch', 'faiss-cpu')
_COLD_ITERATIONS = 20
# Objectives from different first centroids; the worst is wrong, not unlucky.
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
  bank, found = padded(x), []

  def run():
    result = jax.block_until_ready(fit(bank, key=key, **last))
    if not found:
      found.append(_objective(x, np.asarray(result.centroids)))
    return found[0]

  return run, {}


def prepare_faiss(sizes, iterations):
  """Kmeans of faiss-cpu."""
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
    fit.train(x)
    fit.index.search(x, 1)
    if not found:
      found.append(_objective(x, fit.centroids))
    return found[0]

  return run, {}


def prepare_torch(sizes, iterations):
  """Lloyd's iterations in PyTorch."""
  from peers import torch_kmeans

  x = points(**sizes)
  rng = np.random.default_rng(1)
  first = x[rng.choice(len(x), sizes['num_clusters'], replace=False)]
  fit, found = torch_kmeans.prepare(x, first, iterations), []

  def run():
    centroids, _ = fit()
    if not found:
      found.append(_objective(x, centroids))
    return found[0]

  return run, {}


def main():
  """Runs both comparisons and prints them."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--videos', type=argument_types.count, default=239_888)
  parser.add_argument('--clusters', type=argument_types.count, default=8000)
  parser.add_argument('--dim', type=argument_types.count, default=128)
  parser.add_argument('--iterations', type=argument_types.count, default=2)
  parser.add_argument(
    '--warm-iterations', type=argument_types.count, nargs='+', default=[3, 5]
  )
  parser.add_argument(
    '--warm-divisor',
    type=argument_types.count,
    default=8,
    help='of videos and clusters, where a warm start is compared',
  )
  parser.add_argument('--rounds', type=argument_types.count, default=5)
  options = parser.parse_args()
  script.require('torch')
  report = result_lines.Report(
    'kmeans', rounds=options.rounds, packages=_PACKAGES
  )
  sizes = {
    'num_videos': options.videos,
    'num_clusters': options.clusters,
    'dim': options.dim,
  }
  settings = {'sizes': sizes, 'iterations': options.iterations}
  variants = {
    'vie_jax': (prepare_ours, settings),
    'PyTorch': (prepare_torch, settings),
  }
  peer = 'PyTorch'
  if importlib.util.find_spec('faiss'):
    peer = 'faiss'
    variants[peer] = prepare_faiss, settings
  _compare(
    f'{options.iterations} iterations, {_describe(sizes)}',
    variants,
    peer,
    report,
  )
  small = sizes | {
    name: sizes[name] // options.warm_divisor
    for name in ('num_videos', 'num_clusters')
  }
  cold = {'sizes': small, 'iterations': _COLD_ITERATIONS, 'is_warm': False}
  variants = {f'cold, {_COLD_ITERATIONS} iterations': (prepare_ours, cold)}
  for iterations in options.warm_iterations:
    warm = cold | {'iterations': iterations, 'is_warm': True}
    variants[f'warm, {iterations} iterations'] = prepare_ours, warm
  _compare(
    f'clustering again, {_describe(small)}',
    variants,
    next(iter(variants)),
    report,
  )
  report.finish()


def _describe(sizes):
  videos, clusters, dim = sizes.values()
  return f'N = {videos:,}, C = {clusters:,}, D = {dim}'


def _compare(case, variants, peer, report):
  found = turns.take_turns(variants, rounds=report.rounds)
  objective = {name: variant.results[0] for name, variant in found.items()}
  for name, value in objective.items():
    if value > (1 + _MOST_DIFFERENT) * objective[peer]:
      sys.exit(f'Error: {case}: objective of {name} {value}, {objective}.')
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
