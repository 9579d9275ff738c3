"""Runs any figure of the paper's tables, with all that it needs before it.

  python launch/reproduce.py --plan=demo --all
  python launch/reproduce.py --plan=paper --kinetics=DIR table1.vie_slow
  python launch/reproduce.py --list
  python launch/reproduce.py --plan=paper --table=table3 --dry-run

A CELL is a name of `--list`, or its beginning: `table1.vie_slow` is the whole
row. The same command again goes on where it stopped: what is finished, with the
same settings, is not run again. At the end OUT/report.html has all tables.
Arguments such as --config.seed=1 go to every command of main.py; give such runs
an --out of their own.
"""

import argparse
import concurrent.futures
import dataclasses
import datetime
import difflib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import costs
import data_sets
import plans
import training_command

from vie_jax import option_parser
from vie_jax.config import config_check
from vie_jax.evaluation import (
  filled_tables,
  found_results,
  paper_roles,
  paper_tables,
  report,
)
from vie_jax.results import result_file

REPOSITORY = plans.REPOSITORY
_LAST_LINES = 5


class PlanError(ValueError):
  """What was asked for cannot be run; one line for the user."""


# Which steps are finished.


def is_complete(step: plans.Step) -> bool:
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
  return not plans.differing_fields(step.config(), found, step.mode)


def _of_other_settings(step: plans.Step) -> str:
  """Why a step that has been run is none of the plan; '' if it is.

  A training that was at its end stays as it was, whatever is asked for.
  """
  if step.mode != 'train' or _is_trained(step):
    return ''
  return (
    f'{step.folder} holds a training that ended with other settings; move it '
    'away, or give an --out of its own'
  )


def _is_trained(step: plans.Step) -> bool:
  folder, config = REPOSITORY / step.folder, step.config()
  try:
    found = json.loads((folder / 'config.json').read_text('utf-8'))
  except (OSError, ValueError):
    return False
  last = folder / 'checkpoints' / str(config.num_steps)
  return last.is_dir() and not plans.differing_fields(config, found, 'train')


def check_results(
  plan: plans.Plan, steps: Sequence[plans.Step]
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


def unfinished(steps: Sequence[plans.Step]) -> list[plans.Step]:
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


# Running them.


@dataclasses.dataclass
class Progress:
  """How far a plan is, and how long it will take.

  Attributes:
    times: name of a step -> how long it takes compared with the others.
    started: of the first step, by the monotonic clock.
    done: names of the steps that have ended.
  """

  times: Mapping[str, float]
  started: float = dataclasses.field(default_factory=time.monotonic)
  done: set[str] = dataclasses.field(default_factory=set)

  def left(self, now: float) -> float | None:
    """Seconds until the end; None before anything is finished."""
    finished = sum(self.times[name] for name in self.done)
    if not finished:
      return None
    rest = sum(self.times.values()) - finished
    return (now - self.started) / finished * rest


def in_words(seconds: float) -> str:
  """A time as a person says it."""
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 90 * 60:
    return f'{seconds / 60:.0f} minutes'
  if seconds < 48 * 3600:
    return f'{seconds / 3600:.1f} hours'
  return f'{seconds / 86400:.1f} days'


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


def expected_time(plan: plans.Plan, step: plans.Step) -> float:
  """How long a step takes compared with the others of the plan."""
  if plan.name == 'paper':
    return costs.work(step, plan.data).operations
  variant = step.config_file.partition(':')[2]
  return _DEMO_SECONDS[step.mode] * _DEMO_SLOW.get(variant, 1)


class Runner:
  """Runs steps, each after those that it needs, and says how it goes.

  Args:
    steps: in order; what they need and is not among them is finished.
    times: name of a step -> how long it takes compared with the others.
    logs: folder for what the commands print.
    jobs: commands at a time.
    is_verbose: whether to show what the commands print, too.
    say: takes a line for the terminal.
  """

  def __init__(
    self,
    steps: Sequence[plans.Step],
    times: Mapping[str, float],
    *,
    logs: pathlib.Path,
    jobs: int,
    is_verbose: bool,
    say: Callable[[str], None],
  ):
    self._steps = steps
    self._logs = logs
    self._jobs = jobs
    self._is_verbose = is_verbose
    self._say = say
    self._progress = Progress(times)
    self._processes: set[subprocess.Popen] = set()
    self._is_stopped = False
    self._lock = threading.Lock()

  def run(self) -> dict[str, str]:
    """Runs all steps.

    Returns:
      name of a step -> why it has no result, for those that have none.

    Raises:
      KeyboardInterrupt: when the user stops it; commands are stopped first.
    """
    self._logs.mkdir(parents=True, exist_ok=True)
    waiting = {step.name: step for step in self._steps}
    running: dict[concurrent.futures.Future, plans.Step] = {}
    failed: dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(self._jobs) as pool:
      try:
        while waiting or running:
          for name, step in list(waiting.items()):
            broken = [need for need in step.needs if need in failed]
            if broken:
              failed[name] = f'{broken[0]} failed'
              del waiting[name]
              self._end(name, f'not run: {failed[name]}')
            elif len(running) < self._jobs and self._is_ready(
              step, waiting, running
            ):
              del waiting[name]
              self._say(f'      {name} ...')
              running[pool.submit(self._command, step)] = step
          ended, _ = concurrent.futures.wait(
            running, return_when=concurrent.futures.FIRST_COMPLETED
          )
          for future in ended:
            step = running.pop(future)
            reason, seconds = future.result()
            if reason:
              failed[step.name] = reason
            outcome = f'FAILED: {reason}' if reason else outcome_of(step)
            self._end(step.name, f'{in_words(seconds)}; {outcome}')
      except KeyboardInterrupt:
        self._stop()
        raise
    return failed

  def _is_ready(self, step, waiting, running):
    busy = {other.name for other in running.values()} | waiting.keys()
    return not busy & set(step.needs)

  def _end(self, name, words):
    self._progress.done.add(name)
    left = self._progress.left(time.monotonic())
    count = f'{len(self._progress.done)} of {len(self._steps)}'
    rest = ''
    if left is not None and len(self._progress.done) < len(self._steps):
      rest = f' (about {in_words(left)} left)'
    self._say(f'[{count}] {name}: {words}{rest}')

  def _command(self, step) -> tuple[str, float]:
    """Runs one command: (why it failed or '', seconds)."""
    started = time.monotonic()
    path = self._logs / f'{step.name.replace("/", "-")}.log'
    environment = os.environ | {
      # Small programs compile in under a second, and there are many of them.
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': os.environ.get(
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2'
      )
    }
    with path.open('w', encoding='utf-8', errors='replace') as log:
      log.write(f'$ python {shlex.join(step.command)}\n')
      log.flush()
      with self._lock:
        if self._is_stopped:
          return 'stopped', 0.0
        process = subprocess.Popen(
          [sys.executable, *step.command],
          cwd=REPOSITORY,
          env=environment,
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          text=True,
          errors='replace',
        )
        self._processes.add(process)
      last = []
      for line in process.stdout:
        log.write(line)
        log.flush()
        last = [*last, line.strip()][-_LAST_LINES:]
        if self._is_verbose:
          self._say(line.rstrip())
      code = process.wait()
      with self._lock:
        self._processes.discard(process)
    seconds = time.monotonic() - started
    if not code:
      return _of_other_settings(step), seconds
    words = next((line for line in reversed(last) if line), 'no output')
    return f'exit code {code}, {words} (all of it: {path})', seconds

  def _stop(self):
    with self._lock:
      self._is_stopped = True
      for process in self._processes:
        process.terminate()


def outcome_of(step: plans.Step) -> str:
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


# What was asked for.


def chosen_cells(
  plan: plans.Plan, names: Sequence[str], tables: Sequence[str], *, all_: bool
) -> list[str]:
  """The cells that the command line names, in the order of the tables.

  Raises:
    PlanError: naming a cell or table that there is not.
  """
  chosen = set(plan.step_of) if all_ else set()
  for name in [*names, *tables]:
    fitting = [
      cell
      for cell in paper_tables.CELLS
      if cell == name or cell.startswith(f'{name}.')
    ]
    if not fitting:
      close = difflib.get_close_matches(name, paper_tables.CELLS, 1, 0.5)
      hint = f' Did you mean {close[0]}?' if close else ''
      raise PlanError(f'There is no cell {name}.{hint} --list names them all.')
    inside = [cell for cell in fitting if cell in plan.step_of]
    if not inside:
      raise PlanError(f'{name} is not in the plan {plan.name!r}.')
    chosen.update(inside)
  if not chosen:
    raise PlanError('Name cells, or --table=table1, or --all; --list has them.')
  return [cell for cell in paper_tables.CELLS if cell in chosen]


def check_data(plan: plans.Plan, steps: Sequence[plans.Step]) -> None:
  """Refuses to begin what will end for want of data.

  Raises:
    PlanError: naming the data set and the option.
  """
  commands = ' '.join(word for step in steps for word in step.command)
  for role, data in plan.data.items():
    if data.prepared_by or data.path.startswith('tfds:'):
      continue
    is_there = (REPOSITORY / data.path).is_dir()
    if data.path in commands and not is_there:
      raise PlanError(
        f'There is no data set {data.path}; prepare it, or name another with '
        f'--{role}. docs/reproduce.md says how.'
      )


def shown(path: pathlib.Path) -> str:
  """A path as the commands have it: short where it is in the repository."""
  full = path.absolute()
  if full.is_relative_to(REPOSITORY):
    return str(full.relative_to(REPOSITORY))
  return str(full)


def _parser() -> option_parser.OptionParser:
  parser = option_parser.OptionParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('cells', nargs='*', metavar='CELL', help='names, or beginnings of them')
  add('--plan', choices=('paper', 'demo'), default='paper')
  add('--table', action='append', default=[], metavar='table3')
  add('--all', action='store_true', help='all cells of the plan')
  add('--list', action='store_true', help='print all cells with their commands')
  add(
    '--dry-run', action='store_true', help='print what would be run, in order'
  )
  add(
    '--cost',
    metavar='MACHINE',
    help='print what the plan "paper" would cost on NAME:TFLOPS:UTILISATION:'
    'DOLLARS_PER_HOUR:CORES:FRAMES_PER_CORE',
  )
  add('--out', metavar='DIR', help='folder of everything (reproduce-PLAN)')
  for role, path in plans.PAPER_PATHS.items():
    add(
      f'--{role}',
      metavar='tfds:NAME|DIR' if role == 'imagenet' else 'DIR',
      help=f'data set in the role of {paper_roles.ROLE_TITLES[role]} ({path}; '
      'rendered in the plan demo)',
    )
  add(
    '--label',
    action='append',
    default=[],
    metavar='ROLE=COLUMN',
    help='label column of such a data set, if it has several',
  )
  add('--jobs', type=int, default=1, help='commands at a time (1)')
  add('--verbose', action='store_true', help='show what the commands print')
  return parser


def make_plan(options: argparse.Namespace, extra: Mapping) -> plans.Plan:
  """The plan that the command line asks for.

  Raises:
    PlanError: naming a label or data set that cannot be.
  """
  labels = {}
  for text in options.label:
    role, _, column = text.partition('=')
    if role not in paper_roles.ROLES or not column:
      raise PlanError(f'--label={text} does not say ROLE=COLUMN.')
    labels[role] = column
  paths = {
    role: path if path.startswith('tfds:') else shown(pathlib.Path(path))
    for role in paper_roles.ROLES
    if (path := getattr(options, role))
  }
  make = plans.demo if options.plan == 'demo' else plans.paper
  return make(
    out=shown(pathlib.Path(options.out or f'reproduce-{options.plan}')),
    paths=paths,
    labels=labels,
    extra=extra,
  )


def own_command(options: argparse.Namespace, extra: Sequence[str]) -> str:
  """This command line without its cells: what a cell is put behind."""
  words = ['python', 'launch/reproduce.py', f'--plan={options.plan}']
  for name in ('out', *paper_roles.ROLES):
    if getattr(options, name):
      words.append(f'--{name}={getattr(options, name)}')
  words += [f'--label={label}' for label in options.label]
  return shlex.join([*words, *extra])


def write_report(
  plan: plans.Plan, command: str, roles: Mapping[str, paper_roles.Role]
) -> tuple[pathlib.Path, ...]:
  """Writes OUT/report.html and OUT/report.md of all that is there."""
  found = found_results.collect([REPOSITORY / plan.out])
  nobody = {role: paper_roles.Role('') for role in paper_roles.ROLES}
  title = filled_tables.TITLE
  notes = []
  if plan.name == 'demo':
    title = 'The paper’s plan on rendered videos'
    notes = [
      'Small networks, a few hundred steps each, on videos of textures that '
      'move: the paper’s whole plan at a size for two cores.'
    ]
  filled = filled_tables.fill(
    found,
    filled_tables.Options(
      roles=nobody | roles,
      bins=plan.bins,
      command=command,
      title=title,
      notes=notes,
    ),
  )
  return report.write(filled, REPOSITORY / plan.out / 'report.html')


def _say(line: str) -> None:
  print(line, flush=True)


def _dry_run(steps: Sequence[plans.Step]) -> None:
  for step in steps:
    _say(f'python {shlex.join(step.command)}')


def _cost(plan: plans.Plan, steps: Sequence[plans.Step], machine: str) -> int:
  if plan.name != 'paper':
    raise PlanError('--cost is of the plan "paper" only.')
  rows = costs.table(plan, steps, costs.parse_machine(machine))
  _say(costs.markdown(rows))
  return 0


def _summary(plan, cells, failed, started) -> None:
  """Says what failed, by step and by cell."""
  missing = [cell for cell in cells if plan.step_of[cell] in failed]
  seconds = in_words(time.monotonic() - started)
  _say(f'\n{len(cells) - len(missing)} of {len(cells)} cells; {seconds}.')
  for name, reason in failed.items():
    _say(f'failed: {name}: {reason}')
  if missing:
    _say(f'without a result: {", ".join(missing)}')


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = _parser()
  options, rest = parser.parse_known_args(arguments)
  if options.jobs < 1:
    parser.error('--jobs must be at least 1')
  try:
    training_command.refuse_secrets(
      sys.argv[1:] if arguments is None else arguments
    )
    plan = make_plan(options, training_command.parse_fields(rest, parser))
    command = own_command(options, rest)
    if options.list:
      for name in plan.step_of:
        _say(f'{name:50}  {command} {name}')
      return 0
    cells = chosen_cells(plan, options.cells, options.table, all_=options.all)
    steps = plan.needed(cells)
    for step in steps:
      if step.mode != 'data':
        config_check.check(step.config())
    if options.dry_run:
      _dry_run(steps)
      return 0
    if options.cost:
      return _cost(plan, steps, options.cost)
    return _run(plan, cells, steps, options, command)
  except ValueError as error:
    print(f'Error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('\nStopped. The same command goes on from here.', file=sys.stderr)
    return 130


def _run(plan, cells, steps, options, command) -> int:
  """Runs what is not finished, and writes the report."""
  started = time.monotonic()
  roles = check_results(plan, steps)
  todo = unfinished(steps)
  check_data(plan, todo)
  now = datetime.datetime.now().isoformat(' ', 'seconds')
  _say(
    f'{now}: {len(cells)} cells, {len(steps)} steps, '
    f'{len(steps) - len(todo)} of them finished already.'
  )
  runner = Runner(
    todo,
    {step.name: expected_time(plan, step) for step in todo},
    logs=REPOSITORY / plan.out / 'logs',
    jobs=options.jobs,
    is_verbose=options.verbose,
    say=_say,
  )
  failed = runner.run()
  _summary(plan, cells, failed, started)
  page, plain = write_report(plan, command, roles)
  _say(f'Written: {page} and {plain}')
  return 1 if failed else 0


def _stop(unused_signal, unused_frame):
  raise KeyboardInterrupt


if __name__ == '__main__':
  signal.signal(signal.SIGTERM, _stop)
  sys.exit(main())
