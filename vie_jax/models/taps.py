"""Shifted copies of an array: what a kernel's taps see along one axis."""

import jax
import jax.numpy as jnp

Size = tuple[int, int, int]
"""Of a kernel, a window or strides: time, height, width."""


def taps_along(
  x: jax.Array,
  axis: int,
  kernel: int,
  stride: int,
  padding: tuple[int, int],
  fill: float,
) -> list[jax.Array]:
  """Shifted copies of an array, one per tap of a kernel along an axis.

  Args:
    x: any shape.
    axis: of time, height or width.
    kernel: taps.
    stride: distance between outputs.
    padding: how much is added before the first and after the last.
    fill: value of what is added.

  Returns:
    A list of `kernel` arrays, along the axis of length
    (length + padding - kernel) // stride + 1.
  """
  widths = [(0, 0)] * x.ndim
  widths[axis] = padding
  x = jnp.pad(x, widths, constant_values=fill)
  num_outputs = (x.shape[axis] - kernel) // stride + 1
  last = (num_outputs - 1) * stride + 1
  return [
    jax.lax.slice_in_dim(x, tap, tap + last, stride, axis)
    for tap in range(kernel)
  ]
