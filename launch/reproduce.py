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
import datetime
import difflib
import pathlib
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from job import training_command
from job.repository import REPOSITORY
from reproduction import (
  costs,
  demo_plan,
  expected_times,
  finished_steps,
  paper_plan,
  step_runner,
)
from reproduction.plan import Plan, Step

from vie_jax import option_parser
from vie_jax.config import config_check
from vie_jax.evaluation import (
  filled_tables,
  found_results,
  paper_roles,
  paper_tables,
  report,
)
from vie_jax.standard_output import say
from vie_jax.wording import counted


class PlanError(ValueError):
  """What was asked for cannot be run; one line for the user."""


def chosen_cells(
  plan: Plan, names: Sequence[str], tables: Sequence[str], *, all_: bool
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


def check_data(plan: Plan, steps: Sequence[Step]) -> None:
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
  for role, path in paper_plan.PATHS.items():
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


def make_plan(options: argparse.Namespace, extra: Mapping) -> Plan:
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
  module = demo_plan if options.plan == 'demo' else paper_plan
  return module.make(
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
  plan: Plan, command: str, roles: Mapping[str, paper_roles.Role]
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


def _dry_run(steps: Sequence[Step]) -> None:
  for step in steps:
    say(f'python {shlex.join(step.command)}')


def _cost(plan: Plan, steps: Sequence[Step], machine: str) -> int:
  if plan.name != 'paper':
    raise PlanError('--cost is of the plan "paper" only.')
  rows = costs.table(plan, steps, costs.parse_machine(machine))
  say(costs.markdown(rows))
  return 0


def _summary(plan, cells, failed, started) -> None:
  """Says what failed, by step and by cell."""
  missing = [cell for cell in cells if plan.step_of[cell] in failed]
  seconds = step_runner.in_words(time.monotonic() - started)
  say(
    f'\n{len(cells) - len(missing)} of {counted(len(cells), "cell")}; {seconds}.'
  )
  for name, reason in failed.items():
    say(f'failed: {name}: {reason}')
  if missing:
    say(f'without a result: {", ".join(missing)}')


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
        say(f'{name:50}  {command} {name}')
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
  except OSError as error:
    name = f'{error.filename}: ' if error.filename else ''
    print(f'Error: {name}{error.strerror or error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('\nStopped. The same command goes on from here.', file=sys.stderr)
    return 130


def _run(plan, cells, steps, options, command) -> int:
  """Runs what is not finished, and writes the report."""
  started = time.monotonic()
  roles = finished_steps.check_results(plan, steps)
  todo = finished_steps.unfinished(steps)
  check_data(plan, todo)
  now = datetime.datetime.now().isoformat(' ', 'seconds')
  say(
    f'{now}: {counted(len(cells), "cell")}, {counted(len(steps), "step")}, '
    f'{len(steps) - len(todo)} of them finished already.'
  )
  runner = step_runner.Runner(
    todo,
    {step.name: expected_times.of_step(plan, step) for step in todo},
    logs=REPOSITORY / plan.out / 'logs',
    jobs=options.jobs,
    is_verbose=options.verbose,
    say=say,
  )
  failed = runner.run()
  _summary(plan, cells, failed, started)
  page, plain = write_report(plan, command, roles)
  say(f'Written: {page} and {plain}')
  return 1 if failed else 0


def _stop(unused_signal, unused_frame):
  raise KeyboardInterrupt


if __name__ == '__main__':
  signal.signal(signal.SIGTERM, _stop)
  sys.exit(main())
