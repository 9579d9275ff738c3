"""Which steps of a plan have been run, and what came out of them."""

import json
from collections.abc import Sequence

from job.repository import REPOSITORY

from reproduction import data_sets, deciding_fields
from reproduction.plan import Plan, Step
from vie_jax.evaluation import found_results, paper_roles
from vie_jax.results import result_file


def is_complete(step: Step) -> bool:
  """Whether a step has been run to its end with these settings.

  Preparing data is left to data/prepare.py, which knows by itself.
  """
  if step.mode == 'data':
    return False
  if step.mode == 'train':
    return _is_trained(step)
  facts, _ = found_results.read_result(
    REPOSITORY / step.folder / result_file.NAME
  )
  if facts is None:
    return False
  found = facts.get('config')
  return not deciding_fields.differing(step.config(), found, step.mode)


def of_other_settings(step: Step) -> str:
  """Why a step that has been run is none of the plan; '' if it is.

  A training that was at its end stays as it was, whatever is asked for.
  """
  if step.mode != 'train' or _is_trained(step):
    return ''
  return (
    f'{step.folder} holds a training that ended with other settings; move it '
    'away, or give an --out of its own'
  )


def _is_trained(step: Step) -> bool:
  folder, config = REPOSITORY / step.folder, step.config()
  try:
    found = json.loads((folder / 'config.json').read_text('utf-8'))
  except (OSError, ValueError):
    return False
  last = folder / 'checkpoints' / str(config.num_steps)
  return last.is_dir() and not deciding_fields.differing(config, found, 'train')


def check_results(
  plan: Plan, steps: Sequence[Step]
) -> dict[str, paper_roles.Role]:
  """Refuses to take for finished, or to go on with, what is of other data.

  Returns:
    The roles of the plan, with the fingerprints of what was looked at.

  Raises:
    data_sets.OtherDataError: naming both data sets, and the remedy.
  """
  known = data_sets.DataSets(plan)
  for step in steps:
    if step.mode != 'data':
      known.check(step, REPOSITORY / step.folder)
  return known.roles(plan)


def unfinished(steps: Sequence[Step]) -> list[Step]:
  """The steps that are to be run, in order.

  Data is prepared only for steps that are not finished themselves.
  """
  open_steps = [s for s in steps if s.mode != 'data' and not is_complete(s)]
  wanted = {name for step in open_steps for name in step.needs}
  names = {step.name for step in open_steps}
  return [
    step
    for step in steps
    if step.name in names or (step.mode == 'data' and step.name in wanted)
  ]


def outcome_of(step: Step) -> str:
  """What came out of a step, in a few words."""
  if step.mode in ('data', 'train'):
    return 'done'
  facts, reason = found_results.read_result(
    REPOSITORY / step.folder / result_file.NAME
  )
  if facts is None:
    return f'{step.folder}/result.json {reason}'
  return '; '.join(
    f'{column} '
    + ', '.join(
      f'{name} {100 * figures["top1"]:.1f} %'
      for name, figures in by_name.items()
    )
    for column, by_name in facts['accuracy'].items()
  )
