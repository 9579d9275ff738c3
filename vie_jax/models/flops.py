"""How much arithmetic a network does."""

import math
from collections.abc import Callable

import jax


def count(function: Callable, *arguments) -> int:
  """Counts the operations of convolutions and matrix products.

  A multiplication and an addition are two operations; what falls on padding
  is counted, everything element by element is not. Of branches, such as the
  ways of different devices, the one with the fewest counts.

  Args:
    function: of arrays, traceable by JAX; it is not run.
    *arguments: arrays, or their shapes.

  Returns:
    Floating-point operations of one call.
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> int:
  total = 0
  for equation in jaxpr.eqns:
    total += _multiply_adds(equation) * 2
    if 'branches' in equation.params:
      branches = equation.params['branches']
      total += min(_count(branch.jaxpr) for branch in branches)
      continue
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
