"""What the paper's plan costs: operations, hours and money, by arithmetic.

Nothing here is measured on the machine that is asked about. A machine is a
peak, a share of it that is reached, a price and a number of cores, all given
by the user; docs/reproduce.md has the formulas in words.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import ml_collections

from reproduction.plan import Data, Plan, Step

# Operations of one forward pass of a clip, of the networks as in configs/: what
# main.py --mode=describe prints. A test holds them.
FORWARD = {
  'vie_single': 3_652_943_872,
  'vie_3dresnet': 16_667_115_520,
  'vie_trn': 14_611_775_488,
  'vie_slow': 20_160_446_464,
  'vie_slowfast': 25_311_363_072,
  'vie_twostream_s': 34_771_828_736,
  'vie_twostream_sf': 83_756_498_944,
}
# Features of conv3, conv4 and conv5 together.
READOUTS = {
  'vie_single': 175_616,
  'vie_3dresnet': 45_824,
  'vie_trn': 175_616,
  'vie_slow': 175_616,
  'vie_slowfast': 219_520,
  'vie_twostream_s': 351_232,
  'vie_twostream_sf': 395_136,
}
CLASSES = {'kinetics': 400, 'imagenet': 1000, 'ucf101': 101, 'hmdb51': 51}
# A training step is a forward pass and two backward ones.
TRAINING_PASSES = 3
# A readout is applied, and has the gradient of its kernel, at two operations
# per multiply-add each.
READOUT_OPERATIONS = 4


class MachineError(ValueError):
  """A machine is not described as it should be; one line for the user."""


@dataclasses.dataclass(frozen=True)
class Machine:
  """What a step is to run on.

  Attributes:
    name: of the machine.
    peak: operations per second of all its accelerators, from their data sheet.
    utilisation: share of the peak that is reached, in (0, 1]; an assumption.
    price: of an hour, in dollars.
    cores: that decode pictures.
    frames_per_core: pictures that a core decodes per second.
  """

  name: str
  peak: float
  utilisation: float
  price: float
  cores: int
  frames_per_core: float


@dataclasses.dataclass(frozen=True)
class Work:
  """What a step has to do.

  Attributes:
    operations: of the accelerator.
    frames: pictures to decode.
    is_most: whether it is an upper bound: where validation saturates earlier,
      the training ends earlier.
  """

  operations: float
  frames: float
  is_most: bool = False

  def hours(self, machine: Machine) -> tuple[float, float]:
    """Hours of the accelerator and of the cores, which work side by side."""
    computing = self.operations / (machine.peak * machine.utilisation)
    decoding = self.frames / (machine.cores * machine.frames_per_core)
    return computing / 3600, decoding / 3600


def parse_machine(text: str) -> Machine:
  """Reads NAME:TFLOPS:UTILISATION:DOLLARS_PER_HOUR:CORES:FRAMES_PER_CORE.

  Raises:
    MachineError: naming what is wrong.
  """
  name, *numbers = text.split(':')
  try:
    tera, utilisation, price, cores, frames = map(float, numbers)
  except ValueError:
    raise MachineError(
      f'{text!r} is no machine; write NAME:TFLOPS:UTILISATION:'
      'DOLLARS_PER_HOUR:CORES:FRAMES_PER_CORE, such as H100:989:0.2:3.00:16:1900'
    ) from None
  if not (tera > 0 and 0 < utilisation <= 1 and price >= 0):
    raise MachineError(
      f'{text!r}: the peak must be above 0, utilisation in (0, 1], the price '
      'not negative'
    )
  if cores < 1 or frames <= 0:
    raise MachineError(f'{text!r}: cores and frames per core must be above 0')
  return Machine(name, tera * 1e12, utilisation, price, int(cores), frames)


def _forward(config: ml_collections.ConfigDict, *, is_static: bool) -> float:
  """Operations of a clip, or of an image that a clip is made of."""
  name, frames = config.model.name, config.clip.num_frames
  if name == 'vie_single':
    # An image is seen once, and so is a frame of Input-Single's clips.
    return FORWARD[name] * (1 if is_static else frames)
  if name == 'vie_trn' and is_static:
    return FORWARD['vie_single']
  return FORWARD[name]


def work(step: Step, data: Mapping[str, Data]) -> Work:
  """What a step of the paper's plan has to do.

  Args:
    step: a training or an evaluation; preparing data counts as nothing.
    data: role -> data set, with its sizes.
  """
  if step.mode == 'data':
    return Work(0, 0)
  config = step.config()
  role = _role(step)
  is_static = role == 'imagenet'
  forward = _forward(config, is_static=is_static)
  settings = config if step.mode == 'train' else config[step.mode]
  if is_static:
    num_steps, num_clips, frames_per_clip = settings.static_num_steps, 1, 1
  else:
    num_steps, frames_per_clip = settings.num_steps, config.clip.num_frames
    num_clips = settings.get('num_eval_clips', config.clip.num_eval_clips)
  per_clip = TRAINING_PASSES * forward
  if step.mode == 'linear_eval':
    features = READOUTS[config.model.name]
    per_clip = forward + READOUT_OPERATIONS * features * CLASSES[role]
  trained = settings.batch_size * num_steps
  num_evaluations = max(1, num_steps // settings.eval_every_steps)
  tested = num_evaluations * num_clips * _num_tested(step, data[role].val)
  return Work(
    operations=trained * per_clip + tested * forward,
    frames=(trained + tested) * frames_per_clip,
    is_most=settings.get('schedule') == 'plateau',
  )


def _num_tested(step: Step, val: int) -> int:
  """Videos or images that an evaluation looks at: in pretraining, a part."""
  wanted = step.config().eval_videos if step.mode == 'train' else 0
  return min(wanted, val) if wanted else val


def _role(step: Step) -> str:
  if step.mode in ('train', 'supervised'):
    return 'kinetics'
  return step.fields['result_name'].split('_')[0]


def table(
  plan: Plan, steps: Sequence[Step], machine: Machine
) -> list[list[str]]:
  """Rows of a table: what each step costs, each kind of step, and all of them.

  Columns: see `HEAD`.
  """
  kinds: dict[str, list[list[float]]] = {}
  rows, everything = [], []
  for step in steps:
    if step.mode == 'data':
      continue
    found = work(step, plan.data)
    figures = _figures(found, machine)
    most = 'at most ' if found.is_most else ''
    rows.append([step.name, *_written(figures, most)])
    kinds.setdefault(_kind(step), []).append(figures)
    everything.append(figures)
  for kind, members in kinds.items():
    if len(members) > 1:
      name = f'all {len(members)}: {kind}'
      rows.append([name, *_written(_sum(members), '')])
  return [*rows, ['all', *_written(_sum(everything), '')]]


def _figures(found: Work, machine: Machine) -> list[float]:
  computing, decoding = found.hours(machine)
  hours = max(computing, decoding)
  return [
    found.operations / 1e18,
    found.frames / 1e6,
    computing,
    decoding,
    hours,
    hours * machine.price,
  ]


def _sum(members: Sequence[Sequence[float]]) -> list[float]:
  return [sum(column) for column in zip(*members, strict=True)]


def _kind(step: Step) -> str:
  if step.mode == 'train':
    return 'pretraining'
  return f'{step.mode} on {_role(step)}'


HEAD = (
  'step',
  'EFLOP',
  'million frames',
  'hours to compute',
  'hours to decode',
  'hours',
  'dollars',
)


def _written(figures: Sequence[float], most: str) -> list[str]:
  first, *others = (
    f'{value:,.0f}' if value >= 100 else f'{value:,.1f}' for value in figures
  )
  return [f'{most}{first}', *others]


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """A table as Markdown."""
  lines = [HEAD, ['---', *['---:'] * (len(HEAD) - 1)], *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
