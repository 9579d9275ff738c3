"""The update that trains a classifier: SGD with momentum and an L2 penalty."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from vie_jax import finite


def rule(
  *, momentum: float, weight_decay: float, mask: Callable | None = None
) -> optax.GradientTransformation:
  """SGD but for its rate.

  Args:
    momentum: of the gradient, the penalty's part included.
    weight_decay: of the penalty.
    mask: parameters -> tree of bools, which it applies to; None for all.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=mask), optax.trace(momentum)
  )


def updated(
  optimizer: optax.GradientTransformation,
  params: Any,
  gradient: Any,
  opt_state: optax.OptState,
  rate: jax.Array,
) -> tuple[Any, optax.OptState]:
  """Takes a step of some rate.

  Args:
    optimizer: see `rule`.
    params: float32 arrays.
    gradient: of the same structure.
    opt_state: of the optimizer.
    rate: float32 scalar, the learning rate.

  Returns:
    (params, opt_state) after it.
  """
  update, opt_state = optimizer.update(gradient, opt_state, params)
  return jax.tree.map(lambda p, u: p - rate * u, params, update), opt_state


def after_step(
  state: Any, loss: jax.Array, **fields
) -> tuple[Any, dict[str, jax.Array]]:
  """The state after a step, which keeps nothing that is not finite.

  Args:
    state: before it.
    loss: of its batch.
    **fields: of the state, with their values after it.

  Returns:
    (state, metrics): if the loss or a value is not finite, only `state.step`
    differs; `loss` and `finite.FLAG`, which says so.
  """
  before = state.replace(step=state.step + 1)
  after = before.replace(**fields)
  is_sound = finite.all_finite(loss, after)
  metrics = {'loss': loss, finite.FLAG: ~is_sound}
  return finite.kept_unless(is_sound, before, after), metrics
