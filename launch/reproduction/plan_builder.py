"""The steps that the cells of the tables ask for."""

from collections.abc import Mapping
from typing import Any, Protocol

from reproduction.plan import Data, Plan, Step
from vie_jax.evaluation import paper_tables
from vie_jax.evaluation.paper_tables import Wanted


class Settings(Protocol):
  """What a plan runs with.

  Attributes:
    files: name of a training, or of its input, -> config file.
    starts_from: name of a training -> that of the one whose weights it takes.
  """

  files: Mapping[str, str]
  starts_from: Mapping[str, str]

  def evaluation_fields(self, wanted: Wanted) -> dict[str, Any]:
    """Fields of an evaluation that differ from the config file."""


def build(
  name: str,
  out: str,
  data: Mapping[str, Data],
  settings: Settings,
  bins: Mapping[str, int],
  extra: Mapping[str, Any],
) -> Plan:
  """The plan of all cells whose data there is.

  Args:
    name: of the plan.
    out: folder of everything.
    data: role -> data set.
    settings: of the plan.
    bins: frames of a bin, by row of table 3.
    extra: fields that every command of main.py is given.
  """
  builder = _Builder(out, data, settings, extra)
  step_of = {
    cell.name: builder.evaluation(paper_tables.evaluation_of(cell))
    for cell in paper_tables.CELLS.values()
    if cell.wanted.role in data
  }
  return Plan(name, out, data, builder.steps, step_of, bins)


def pretrained_name(network: str, share: float, bins: str) -> str:
  """What a pretraining of all videos, of a share, or of bins is called."""
  if bins:
    return f'{network}_{bins}'
  return network if share == 1 else f'{network}_{100 * share:.0f}'


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
    return pretrained_name(wanted.network, wanted.share, wanted.bins)

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
      name = pretrained_name(network, wanted.share, wanted.bins)
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
