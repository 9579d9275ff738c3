"""How much arithmetic a network does."""

import math
from collections.abc import Callable

import jax

from vie_jax.machine import platform_choice


def count(function: Callable, *arguments) -> int:
  """Counts the operations of convolutions and matrix products.

  A multiplication and an addition are two operations; what falls on padding
  is counted, everything element by element is not. Where devices have ways of
  their own, that of a CPU counts, which is the one that the paper describes.

  Args:
    function: of arrays, traceable by JAX; it is not run.
    *arguments: arrays, or their shapes.

  Returns:
    Floating-point operations of one call.
  """
  with platform_choice.only('cpu'):
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> int:
  total = 0
  for equation in jaxpr.eqns:
    total += _multiply_adds(equation) * 2
    for inner in jax.tree.leaves(
      equation.params, is_leaf=lambda value: hasattr(value, 'eqns')
    ):
      if hasattr(inner, 'eqns'):
        total += _count(inner)
  return total


def _multiply_adds(equation) -> int:
  if equation.primitive.name not in ('conv_general_dilated', 'dot_general'):
    return 0
  left, right = (variable.aval.shape for variable in equation.invars)
  output = math.prod(equation.outvars[0].aval.shape)
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    return output * math.prod(left[axis] for axis in contracted)
  out_axis = equation.params['dimension_numbers'].rhs_spec[0]
  return output * math.prod(right) // right[out_axis]
