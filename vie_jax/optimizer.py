"""The optimiser: learning rate, momentum, weight decay."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import optax

DROP_FACTOR = 0.1


def schedule(
  kind: str,
  *,
  learning_rate: float,
  num_steps: int,
  drop_steps: Sequence[int] = (),
  warmup_steps: int = 0,
) -> optax.Schedule:
  """Learning rate as a function of the step.

  Args:
    kind: 'drops' or 'cosine'.
    learning_rate: the rate after the warm-up.
    num_steps: where 'cosine' reaches zero.
    drop_steps: 'drops' divides by ten after each of these steps; the step
      itself still has the earlier rate (official).
    warmup_steps: length of a linear rise from zero.

  Returns:
    A function of the step, counted from 0.

  Raises:
    ValueError: naming the known kinds.
  """
  if kind == 'drops':
    # optax drops at the boundary itself, the official code after it.
    drops = {
      int(step) + 1: DROP_FACTOR ** list(drop_steps).count(step)
      for step in drop_steps
    }
    after = optax.piecewise_constant_schedule(learning_rate, drops)
  elif kind == 'cosine':
    after = optax.cosine_decay_schedule(learning_rate, max(num_steps, 1))
  else:
    raise ValueError(
      f"config.optimizer.schedule is {kind!r}; known are 'drops', 'cosine'."
    )
  if not warmup_steps:
    return after

  def with_warmup(step):
    rise = jnp.minimum(jnp.asarray(step, jnp.float32) / warmup_steps, 1.0)
    return rise * after(step)

  return with_warmup


def decayed(params: Mapping) -> dict:
  """Which parameters weight decay applies to.

  Args:
    params: nested by module; the modules with a `scale` are batch norms.

  Returns:
    A tree like params of bools: all but batch norm's scale and bias; the
    projection's bias is included (official).
  """
  return {
    name: decayed(value)
    if isinstance(value, Mapping)
    else 'scale' not in params
    for name, value in params.items()
  }


def build(
  name: str,
  learning_rate: optax.Schedule,
  *,
  momentum: float,
  weight_decay: float,
) -> optax.GradientTransformation:
  """Builds the update rule.

  Args:
    name: 'sgd' (a <- momentum a + g; w <- w - rate a, with the decay's
      weight_decay * w part of g, as in the official code) or 'adam', with
      decoupled decay.
    learning_rate: a schedule.
    momentum: of 'sgd'.
    weight_decay: see `decayed` for what it applies to.

  Raises:
    ValueError: naming the known rules.
  """
  decay = optax.add_decayed_weights(weight_decay, mask=decayed)
  rate = optax.scale_by_learning_rate(learning_rate)
  if name == 'sgd':
    return optax.chain(decay, optax.trace(momentum), rate)
  if name == 'adam':
    return optax.chain(optax.scale_by_adam(), decay, rate)
  raise ValueError(
    f"config.optimizer.name is {name!r}; known are 'sgd', 'adam'."
  )
