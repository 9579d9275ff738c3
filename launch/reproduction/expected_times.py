"""How long the steps of a plan take, compared with each other."""

from reproduction import costs
from reproduction.plan import Plan, Step

# Seconds of a step of the demo on two cores, roughly; only serves to tell the
# time that is left.
_DEMO_SECONDS = {
  # Mostly finished before, which would spoil the estimate.
  'data': 0,
  'train': 50,
  'supervised': 35,
  'linear_eval': 22,
  'finetune': 24,
}
# Networks that take longer than the others, and how many times as long.
_DEMO_SLOW = {
  'trn': 2,
  'slow': 3,
  '3dresnet': 5,
  'slowfast': 6,
  'twostream_s': 2,
  'twostream_sf': 6,
}


def of_step(plan: Plan, step: Step) -> float:
  """How long a step takes compared with the others of the plan."""
  if plan.name == 'paper':
    return costs.work(step, plan.data).operations
  variant = step.config_file.partition(':')[2]
  return _DEMO_SECONDS[step.mode] * _DEMO_SLOW.get(variant, 1)
