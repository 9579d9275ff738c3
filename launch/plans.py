"""What has to be run for each cell of the paper's tables, and in which order.

A `Step` is one command: of data/prepare.py, a training, or an evaluation. A
`Plan` has the steps for every cell that it can fill: 'paper' with the official
settings on the paper's data sets, 'demo' with small ones on rendered data.
"""

import dataclasses
import functools
import importlib
import inspect
import json
import pathlib
import types
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from repository import REPOSITORY

from vie_jax.config import config_check, config_roles
from vie_jax.evaluation import paper_roles, paper_tables
from vie_jax.evaluation.paper_roles import Role
from vie_jax.evaluation.paper_tables import Wanted

_NO_MATTER = (config_roles.Role.PLACE, config_roles.Role.COURSE)


@dataclasses.dataclass(frozen=True)
class Data:
  """A data set that takes the place of one of the paper's.

  Attributes:
    path: a prepared data set, an image folder, or 'tfds:NAME'.
    name: as it stands in results.
    column: label column; '' for the only one.
    train: videos or images to train on; 0 if that is not known beforehand.
    val: to test on.
    prepared_by: arguments of data/prepare.py that make it; () if the user
      brings it.
  """

  path: str
  name: str
  column: str = ''
  train: int = 0
  val: int = 0
  prepared_by: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
  """One command.

  Attributes:
    name: unique in the plan.
    needs: names of steps that come before it.
    mode: of main.py; 'data' for data/prepare.py.
    workdir: of main.py; of 'data', what is made.
    config_file: such as 'configs/vie_single.py:ir'; '' for 'data'.
    fields: config field -> value, on top of the file.
    arguments: of data/prepare.py.
  """

  name: str
  needs: tuple[str, ...]
  mode: str
  workdir: str
  config_file: str = ''
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  arguments: tuple[str, ...] = ()

  @property
  def command(self) -> tuple[str, ...]:
    """What comes behind `python`, from the repository's root."""
    if self.mode == 'data':
      return ('data/prepare.py', *self.arguments)
    mode = () if self.mode == 'train' else (f'--mode={self.mode}',)
    return (
      'main.py',
      f'--config={self.config_file}',
      f'--workdir={self.workdir}',
      *mode,
      *(f'--config.{name}={value}' for name, value in self.fields.items()),
    )

  @property
  def folder(self) -> pathlib.Path:
    """Where its result.json, or the checkpoints of a training, go."""
    if self.mode in ('data', 'train'):
      return pathlib.Path(self.workdir)
    return pathlib.Path(self.workdir, self.mode, self.fields['result_name'])

  def config(self) -> ml_collections.ConfigDict:
    """What main.py makes of config file and fields.

    Raises:
      ValueError: naming a field that does not exist, or a wrong value.
    """
    file, _, variant = self.config_file.partition(':')
    module = _config_module(file)
    if variant and not inspect.signature(module.get_config).parameters:
      raise ValueError(f'{file} has no variants; leave ":{variant}" out.')
    config = module.get_config(*([variant] if variant else []))
    for field, value in self.fields.items():
      try:
        config.update_from_flattened_dict({field: value})
      except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
          f'--config.{field}={value} does not fit {self.config_file}: '
          f'{" ".join(str(error).split())[:200]}'
        ) from error
    return config


@dataclasses.dataclass(frozen=True)
class Plan:
  """Steps for the cells of the tables.

  Attributes:
    name: 'paper' or 'demo'.
    out: folder of everything.
    data: role -> data set; roles that are missing have no cells in it.
    steps: by name, each after those that it needs.
    step_of: cell name -> name of the step that fills it.
    bins: frames of a bin, by row of table 3.
  """

  name: str
  out: str
  data: Mapping[str, Data]
  steps: Mapping[str, Step]
  step_of: Mapping[str, str]
  bins: Mapping[str, int]

  def roles(self) -> dict[str, Role]:
    """What stands for the paper's data sets, for the report."""
    return {
      role: dataclasses.replace(
        role_of(data.path), dataset=data.name, column=data.column
      )
      for role, data in self.data.items()
    }

  def needed(self, cells: Iterable[str]) -> list[Step]:
    """The steps for some cells, in the order in which to run them."""
    wanted: set[str] = set()
    queue = [self.step_of[cell] for cell in cells]
    while queue:
      name = queue.pop()
      if name not in wanted:
        wanted.add(name)
        queue += self.steps[name].needs
    return [step for name, step in self.steps.items() if name in wanted]


def _config_module(file: str) -> types.ModuleType:
  return importlib.import_module(file.removesuffix('.py').replace('/', '.'))


def differing_fields(
  config: ml_collections.ConfigDict, found: Any, mode: str
) -> list[str]:
  """Config fields by which a result of `found` is not one of `config`.

  Fields that do not change what comes out are passed over, such as the number
  of devices; so are those of modes other than `mode`. One that `found` lacks,
  as it is of a version before it, counts as its default. Which data sets these
  are is not looked at: data_sets.py does.
  """
  if not isinstance(found, Mapping) or not _is_config(found):
    return ['config']
  expected, actual = (
    _deciding(_defaults() | _flat(fields), mode)
    for fields in (json.loads(config.to_json_best_effort()), found)
  )
  return sorted(
    name
    for name in expected.keys() | actual.keys()
    if expected.get(name) != actual.get(name)
  )


def _is_config(found):
  """Whether it has what a config of every version has."""
  return {'model.name', 'batch_size', 'clip.num_frames'} <= _flat(found).keys()


@functools.cache
def _defaults() -> dict[str, Any]:
  config = _config_module('configs/default.py').get_config()
  return _flat(json.loads(config.to_json_best_effort()))


def _deciding(fields: dict[str, Any], mode: str) -> dict[str, Any]:
  """The fields that the result of a mode depends on."""
  groups = {'linear_eval', 'finetune', 'supervised', 'retrieve', 'embed', 'knn'}
  others = tuple(f'{group}.' for group in groups - {mode})
  choice = fields.get(f'{mode}.augmentation')
  fields = config_check.crop_in_effect(fields, choice, 'crop.')
  return {
    name: value
    for name, value in fields.items()
    if config_roles.role_of(name) not in _NO_MATTER
    and not name.startswith(others)
    # A supervised training says itself that it starts from random weights.
    and (mode, name) != ('supervised', 'init_from')
  }


def _flat(tree: Mapping, prefix: str = '') -> dict[str, Any]:
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f'{prefix}{name}.')
    else:
      flat[f'{prefix}{name}'] = value
  return flat


class _Builder:
  """Collects the steps of a plan while cells ask for them.

  Args:
    out: folder of everything.
    data: role -> data set.
    settings: of the plan.
    extra: fields that every command of main.py is given.
  """

  def __init__(self, out, data, settings, extra):
    self.steps: dict[str, Step] = {}
    self._out = out
    self._data = data
    self._settings = settings
    self._extra = extra

  def evaluation(self, wanted: Wanted) -> str:
    """Adds the step that fills cells of one evaluation; gives its name."""
    if wanted.mode == 'supervised':
      return self._supervised(wanted.network)
    network, fields, needs = self._weights(wanted)
    workdir = self._workdir(wanted)
    result = '_'.join(filter(None, (wanted.role, wanted.augmentation)))
    fields = {'dataset.dir': self._data['kinetics'].path, **fields}
    if wanted.role != 'kinetics':
      fields[f'{wanted.mode}.dataset'] = self._data[wanted.role].path
    fields |= {
      'result_name': result,
      **self._settings.evaluation_fields(wanted),
      **self._columns(wanted),
    }
    name = f'{workdir}/{wanted.mode}/{result}'
    return self._add(
      name,
      wanted.mode,
      workdir,
      network,
      fields,
      (*needs, self._prepare(wanted.role)),
    )

  def _columns(self, wanted):
    """Readouts may be of all columns; a network is trained on one."""
    column = self._data[wanted.role].column
    if wanted.mode == 'linear_eval' or not column:
      return {}
    return {'dataset.label_columns': (column,)}

  def _workdir(self, wanted: Wanted) -> str:
    """A folder for each kind of weights that an evaluation starts from."""
    short = wanted.network.removeprefix('vie_')
    if wanted.training == paper_tables.RANDOM:
      return 'random' if wanted.mode == 'linear_eval' else f'scratch_{short}'
    if wanted.training == paper_tables.SUPERVISED:
      return f'supervised_{short}'
    if wanted.samplers != paper_tables.SAMPLERS[wanted.network]:
      return f'input_single_{wanted.samplers[0]}'
    if wanted.training == paper_tables.INSTANCE_RECOGNITION:
      return f'{wanted.network}_ir'
    return _pretrained(wanted.network, wanted.share, wanted.bins)

  def _weights(self, wanted: Wanted):
    """(config file, fields, steps) of the network that is evaluated."""
    files, network = self._settings.files, wanted.network
    if wanted.training == paper_tables.RANDOM:
      return files[network], {'init_from': 'random'}, ()
    if wanted.training == paper_tables.SUPERVISED:
      step = self._supervised(network)
      return files[network], {'init_from': self._path(step)}, (step,)
    if wanted.training == paper_tables.SIDE_BY_SIDE:
      other = 'slow' if network.endswith('_s') else 'slowfast'
      steps = tuple(self._pretrain(f'vie_{n}') for n in ('single', other))
      streams = ','.join(map(self._path, steps))
      return files[network], {'model.streams': streams}, steps
    if wanted.samplers != paper_tables.SAMPLERS[network]:
      step = self._pretrain(network)
      file = files[f'input_single_{wanted.samplers[0]}']
      return file, {'init_from': self._path(step)}, (step,)
    if wanted.training == paper_tables.INSTANCE_RECOGNITION:
      name = f'{network}_ir'
    else:
      name = _pretrained(network, wanted.share, wanted.bins)
    return files[name], {}, (self._pretrain(name),)

  def _pretrain(self, name: str) -> str:
    """Adds a pretraining, with the one that it goes on from."""
    fields, needs = {'dataset.dir': self._data['kinetics'].path}, ()
    start = self._settings.starts_from.get(name)
    if start:
      needs = (self._pretrain(start),)
      fields['init_from'] = self._path(start)
    return self._add(
      name,
      'train',
      name,
      self._settings.files[name],
      fields,
      (*needs, self._prepare('kinetics')),
    )

  def _supervised(self, network: str) -> str:
    workdir = f'supervised_{network.removeprefix("vie_")}'
    kinetics = self._data['kinetics']
    fields = {'dataset.dir': kinetics.path, 'result_name': 'kinetics'}
    if kinetics.column:
      fields['dataset.label_columns'] = (kinetics.column,)
    return self._add(
      f'{workdir}/supervised/kinetics',
      'supervised',
      workdir,
      self._settings.files[network],
      fields,
      (self._prepare('kinetics'),),
    )

  def _prepare(self, role: str) -> str:
    """Adds the preparation of a data set; '' if the user brings it."""
    data = self._data[role]
    if not data.prepared_by:
      return ''
    name = f'data/{data.name}'
    arguments = (*data.prepared_by, f'--out={data.path}')
    self.steps.setdefault(
      name, Step(name, (), 'data', data.path, arguments=arguments)
    )
    return name

  def _path(self, name: str) -> str:
    return f'{self._out}/{name}'

  def _add(self, name, mode, workdir, config_file, fields, needs) -> str:
    self.steps.setdefault(
      name,
      Step(
        name,
        tuple(filter(None, needs)),
        mode,
        self._path(workdir),
        config_file,
        {**fields, **self._extra},
      ),
    )
    return name


def _pretrained(network: str, share: float, bins: str) -> str:
  """Name of a pretraining."""
  if bins:
    return f'{network}_{bins}'
  return network if share == 1 else f'{network}_{100 * share:.0f}'


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
    name = _pretrained(wanted.network, wanted.share, wanted.bins)
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


def _build(name, out, data, settings, bins, extra) -> Plan:
  builder = _Builder(out, data, settings, extra)
  step_of = {
    cell.name: builder.evaluation(paper_tables.evaluation_of(cell))
    for cell in paper_tables.CELLS.values()
    if cell.wanted.role in data
  }
  return Plan(name, out, data, builder.steps, step_of, bins)


PAPER_PATHS = {
  'kinetics': 'data/prepared/kinetics400',
  'imagenet': 'tfds:imagenet2012',
  'ucf101': 'data/prepared/ucf101',
  'hmdb51': 'data/prepared/hmdb51',
}


def paper(
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
      `PAPER_PATHS`.
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
    role: Data(path, _name_of(path), labels.get(role, ''), *sizes[role])
    for role, path in {**PAPER_PATHS, **paths}.items()
  }
  settings = _PaperSettings()
  return _build('paper', out, data, settings, paper_roles.BINS, extra)


def _name_of(path: str) -> str:
  """What results call a data set."""
  if path.startswith('tfds:'):
    name, _, _ = path.removeprefix('tfds:').partition(':')
    return f'tfds-{name.replace("/", "-")}'
  return str(_manifest(path).get('name') or pathlib.Path(path).name)


def role_of(path: str) -> Role:
  """A data set as it is now, of which no more than dataset.json is read."""
  fingerprint = str(_manifest(path).get('fingerprint') or '')
  return Role(_name_of(path), fingerprint=fingerprint, path=path)


def _manifest(path: str) -> Mapping[str, Any]:
  """What a prepared data set says of itself; {} where there is none."""
  try:
    manifest = json.loads((REPOSITORY / path / 'dataset.json').read_text())
  except (OSError, ValueError):
    return {}
  return manifest if isinstance(manifest, Mapping) else {}


def demo(
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
    role: Data(path, _name_of(path), labels.get(role, ''))
    for role, path in paths.items()
  }
  bins = {'2bin': 24, '5bin': 10}
  return _build('demo', out, rendered | given, _DemoSettings(), bins, extra)
