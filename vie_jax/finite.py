"""Keeps numbers that are not finite out of what a run remembers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vie_jax import sharding
from vie_jax.machine import platform_choice

FLAG = 'is_skipped'
"""Name of the metric, a bool scalar, by which a step says that it changed
nothing. Never written: `skipped_steps` counts it."""


class DivergedError(RuntimeError):
  """The loss, a parameter or the memory bank is no longer finite."""


def all_finite(*trees: Any) -> jax.Array:
  """Whether every number of some trees is finite: bool scalar.

  Sharding: of arrays that are split, one all-reduce of a bool.
  """
  leaves = [
    leaf
    for leaf in jax.tree.leaves(trees)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  ]
  flags = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])
  # Of jnp.all XLA makes a chain, and on a CPU has each of the hundreds of
  # operations that read the flag form it again; a sort it does not.
  return platform_choice.by_platform(
    flags, cpu=lambda flags: jnp.sort(flags)[0], others=jnp.all
  )


def kept_unless(is_sound: jax.Array, old: Any, new: Any) -> Any:
  """The new tree, or the old one where `is_sound`, a bool scalar, is false."""
  return jax.tree.map(lambda o, n: jnp.where(is_sound, n, o), old, new)


def bad_rows(
  bank: jax.Array, *, num_videos: int, mesh: Mesh, most: int = 5
) -> list[int]:
  """Finds rows of a memory bank that are not finite.

  The neighbour search takes NaN for the largest of numbers: one such row would
  be the nearest neighbour of every video.

  Args:
    bank: float32 [rows, D], rows split over `data`.
    num_videos: N; later rows are padding.
    mesh: that the bank lies on.
    most: how many to name.

  Returns:
    The first of them, in order. To be called by all processes.
  """

  def find(bank):
    is_bad = ~jnp.all(jnp.isfinite(bank), axis=1)
    is_bad &= jnp.arange(bank.shape[0]) < num_videos
    return jnp.nonzero(is_bad, size=most, fill_value=-1)[0]

  index = jax.jit(find, out_shardings=sharding.replicated(mesh))(bank)
  return [int(row) for row in np.asarray(index) if row >= 0]
