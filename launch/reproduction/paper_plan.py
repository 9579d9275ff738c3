"""The plan with the official settings, on the paper's data sets."""

from collections.abc import Mapping
from typing import Any

from reproduction import plan_builder
from reproduction.plan import Data, Plan, name_of
from vie_jax.evaluation import paper_roles, paper_tables
from vie_jax.evaluation.paper_tables import Wanted

PATHS = {
  'kinetics': 'data/prepared/kinetics400',
  'imagenet': 'tfds:imagenet2012',
  'ucf101': 'data/prepared/ucf101',
  'hmdb51': 'data/prepared/hmdb51',
}


def make(
  *,
  out: str,
  paths: Mapping[str, str],
  labels: Mapping[str, str],
  extra: Mapping[str, Any],
) -> Plan:
  """The plan with the official settings.

  Args:
    out: folder of everything.
    paths: role -> prepared data set, image folder or 'tfds:NAME', in place of
      `PATHS`.
    labels: role -> label column, where a data set has several.
    extra: fields that every command of main.py is given.
  """
  # Videos and images of the paper's data sets, of their first splits.
  sizes = {
    'kinetics': (239_888, 19_653),
    'imagenet': (1_281_167, 50_000),
    'ucf101': (9537, 3783),
    'hmdb51': (3570, 1530),
  }
  data = {
    role: Data(path, name_of(path), labels.get(role, ''), *sizes[role])
    for role, path in {**PATHS, **paths}.items()
  }
  settings = _PaperSettings()
  return plan_builder.build(
    'paper', out, data, settings, paper_roles.BINS, extra
  )


class _PaperSettings:
  """The official settings, and what we chose where they leave it open.

  Source: the authors' settings files, as docs/reproduce.md lists them.
  """

  files: Mapping[str, str] = {
    **{network: f'configs/{network}.py' for network in paper_tables.NETWORKS},
    'vie_single_ir': 'configs/vie_single.py:ir',
    # The one of the paper's transfer results.
    'vie_trn': 'configs/vie_trn.py:from_single',
    **{
      f'vie_single_{amount}': f'configs/vie_single_data.py:{amount}'
      for amount in ('30', '70', '2bin', '5bin')
    },
    **{
      f'input_single_{clips}': f'configs/input_single.py:{clips}'
      for clips in ('trn', 'slow', 'slowfast')
    },
  }
  starts_from: Mapping[str, str] = {'vie_trn': 'vie_single'}

  def evaluation_fields(self, wanted: Wanted) -> dict[str, Any]:
    """Fields of an evaluation that differ from the defaults."""
    if wanted.mode == 'linear_eval':
      return _paper_readout(wanted)
    fields: dict[str, Any] = {'finetune.augmentation': wanted.augmentation}
    if wanted.role == 'hmdb51' and wanted.network in HMDB51_CLIPS:
      fields['finetune.num_eval_clips'] = HMDB51_CLIPS[wanted.network]
    return fields


# Clips of a test video in finetuning on HMDB51, where the official number is
# not the one for UCF101, which the configs have.
HMDB51_CLIPS = {'vie_3dresnet': 4, 'vie_slowfast': 2}
# Readouts of VIE-Single under settings of their own: the last steps before the
# rate drops, on Kinetics and on ImageNet, counted from the readouts' first
# step. Officially they are counted from the pretraining's, whose end is not
# known for all but 'random'; it is taken to be the end of our config.
READOUT_DROPS = {
  'random': ((409_998, 664_998), (370_011, 524_998)),
  'vie_single_ir': ((365_011, 745_011), (465_011, 817_191)),
  'vie_single_30': ((229_998, 864_998), (115_011, 515_011)),
  'vie_single_70': ((194_998, 589_998), (155_011, 385_011)),
  'vie_single_2bin': ((145_011, 345_011), (145_011, 545_011)),
  'vie_single_5bin': ((151_011, 390_011), (151_011, 440_011)),
}
# Official runs were ended by hand; these go on for so many steps after the last
# drop, up to a whole thousand.
READOUT_STEPS_AFTER = 100_000


def _paper_readout(wanted: Wanted) -> dict[str, Any]:
  """Drops, end and pooling of linear readouts, where the configs differ."""
  is_static = wanted.role == 'imagenet'
  fields: dict[str, Any] = {}
  if wanted.training == paper_tables.RANDOM:
    name = 'random'
  elif wanted.training == paper_tables.INSTANCE_RECOGNITION:
    name = f'{wanted.network}_ir'
  else:
    name = plan_builder.pretrained_name(
      wanted.network, wanted.share, wanted.bins
    )
  if name in READOUT_DROPS:
    drops = READOUT_DROPS[name][is_static]
    prefix = 'linear_eval.static_' if is_static else 'linear_eval.'
    fields[f'{prefix}drop_steps'] = drops
    fields[f'{prefix}num_steps'] = (
      -(-(drops[-1] + READOUT_STEPS_AFTER) // 1000) * 1000
    )
  if wanted.averaged_layers:
    fields['linear_eval.averaged_layers'] = wanted.averaged_layers
  return fields
