"""The plan at a size for two cores, on rendered data."""

from collections.abc import Mapping
from typing import Any

from reproduction import plan_builder
from reproduction.plan import Data, Plan, name_of
from vie_jax.evaluation import paper_tables
from vie_jax.evaluation.paper_tables import Wanted


def make(
  *,
  out: str,
  paths: Mapping[str, str],
  labels: Mapping[str, str],
  extra: Mapping[str, Any],
) -> Plan:
  """The plan on rendered data: no HMDB51, everything else of the paper.

  Args:
    out: folder of everything.
    paths: role -> data set in place of the rendered one.
    labels: role -> label column of such a data set, if it has several.
    extra: fields that every command of main.py is given.
  """
  rendered = {
    'kinetics': Data(
      f'{out}/data/videos',
      'demo',
      'motion',
      prepared_by=('demo', '--num-videos=1200', '--val-percent=35'),
    ),
    'imagenet': Data(
      f'{out}/data/stills', 'stills', prepared_by=('demo-images', '--seed=1')
    ),
    'ucf101': Data(
      f'{out}/data/second',
      'second',
      'motion',
      prepared_by=(
        'demo',
        '--name=second',
        '--look=night',
        '--seed=2',
        '--num-videos=400',
        '--val-percent=40',
      ),
    ),
  }
  given = {
    role: Data(path, name_of(path), labels.get(role, ''))
    for role, path in paths.items()
  }
  bins = {'2bin': 24, '5bin': 10}
  return plan_builder.build(
    'demo', out, rendered | given, _DemoSettings(), bins, extra
  )


class _DemoSettings:
  """`configs/reproduce.py`, which has everything in it."""

  files: Mapping[str, str] = {
    **{
      network: f'configs/reproduce.py:{network.removeprefix("vie_")}'
      for network in paper_tables.NETWORKS
    },
    'vie_single_ir': 'configs/reproduce.py:single_ir',
    **{
      f'vie_single_{amount}': f'configs/reproduce.py:{amount}'
      for amount in ('30', '70', '2bin', '5bin')
    },
    **{
      f'input_single_{clips}': f'configs/reproduce.py:input_{clips}'
      for clips in ('trn', 'slow', 'slowfast')
    },
  }
  starts_from: Mapping[str, str] = {}

  def evaluation_fields(self, wanted: Wanted) -> dict[str, Any]:
    """Fields of an evaluation that differ from the config file."""
    if wanted.mode == 'finetune':
      return {'finetune.augmentation': wanted.augmentation}
    return {}
