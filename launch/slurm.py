"""Training on a Slurm cluster: writes a batch script and submits it.

  python launch/slurm.py --name=vie --nodes=2 --gpus-per-node=8 \\
      --time=24:00:00 -- \\
      --config=configs/vie_slowfast.py --workdir=/shared/vie \\
      --config.dataset.dir=/shared/kinetics400

srun starts one task per node, or one per GPU. Before the time is up Slurm sends
SIGTERM, main.py saves and exits with 75, and the script puts the job back into
the queue. docs/launch/slurm.md has the rest.
"""

import argparse
import pathlib
import re
import sys
from collections.abc import Sequence

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from job import command_runner, rendering, training_command
from job.repository import REPOSITORY

from vie_jax import option_parser
from vie_jax.processes import exit_codes
from vie_jax.standard_output import say

# What tasks have to end once the first has: a save, and what is lost is found.
WAIT_SECONDS = 180
_NAME = r'[A-Za-z0-9][A-Za-z0-9_.-]{0,62}'
# Of partitions, and of features of nodes: `man sbatch`, --constraint.
_NAMES = r'[\w.-]+(,[\w.-]+)*'
_FEATURES = r'[\w.&|,()*\[\]:-]{1,1000}'
# Variables of templates/slurm.sh.jinja, and those that bash lets nobody set.
_TAKEN = re.compile(
  r'restarts|max_restarts|ended_by_slurm|code|SLURM_(RESTART_COUNT|JOB_ID'
  r'|JOB_NODELIST)|BASH(OPTS|_VERSINFO)|SHELLOPTS|E?UID|PPID'
)
_TIME = re.compile(r'(?:(\d+)-)?(\d{1,2}):(\d{2}):(\d{2})', re.ASCII)


def seconds_of(time: str) -> int:
  """Seconds of a Slurm time, [DAYS-]HOURS:MINUTES:SECONDS.

  Raises:
    argparse.ArgumentTypeError: if it is none.
  """
  found = _TIME.fullmatch(time)
  if not found:
    raise argparse.ArgumentTypeError(
      f'{time!r} is no time; write HOURS:MINUTES:SECONDS or DAYS-HOURS:...'
    )
  days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
  return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _variable(text: str) -> str:
  name = training_command.matching(
    r'[A-Za-z_][A-Za-z0-9_]*=[^\n]*', 'a variable, NAME=VALUE'
  )(text).partition('=')[0]
  if _TAKEN.fullmatch(name):
    raise argparse.ArgumentTypeError(
      f'{name} is a variable of the script or of bash; name another one'
    )
  return text


def _job_of(said: str) -> str:
  """The number of a job; wrappers of sbatch say more, on lines of their own.

  Raises:
    training_command.LaunchError: if there is none.
  """
  found = re.search(r'^(\d+)(;\S*)?$', said, re.ASCII | re.MULTILINE)
  if not found:
    raise training_command.LaunchError(
      f'sbatch has taken the job and says no number, but {said!r}. To see it: '
      'squeue --me'
    )
  return found[1]


def _time(text: str) -> str:
  seconds_of(text)
  return text


def directives(options: argparse.Namespace) -> list[str]:
  """The options of sbatch, as they stand in the script."""
  tasks = options.gpus_per_node if options.task_per_gpu else 1
  lines = {
    'job-name': options.name,
    'nodes': options.nodes,
    'ntasks-per-node': tasks,
    'gpus-per-node': options.gpus_per_node or None,
    'cpus-per-task': options.cpus_per_task,
    'mem': options.memory,
    'time': options.time,
    'partition': options.partition,
    'account': options.account,
    'qos': options.qos,
    'constraint': options.constraint,
    # To the tasks, not to the shell: main.py saves.
    'signal': f'TERM@{options.signal_seconds}',
    'requeue': '',
    # A restart goes on in the same file.
    'open-mode': 'append',
    'output': f'{options.logs}/{options.name}-%j.log',
  }
  return [
    f'--{name}={_quoted(value)}' if value != '' else f'--{name}'
    for name, value in lines.items()
    if value is not None
  ]


def _quoted(value: object) -> str:
  """A value as sbatch reads it in a script: quotes, and no variables."""
  text = str(value)
  return f'"{text}"' if re.search(r'[&|,()*\[\]]', text) else text


def script(
  options: argparse.Namespace, training: training_command.Training
) -> str:
  """The batch script."""
  return rendering.render(
    'slurm.sh.jinja',
    directives=directives(options),
    repository=str(REPOSITORY),
    max_restarts=options.max_restarts,
    modules=options.module,
    variables=[variable.partition('=')[::2] for variable in options.env],
    wait_seconds=WAIT_SECONDS,
    srun_options=srun_options(options),
    words=[options.python, *training.words],
    give_up=exit_codes.REFUSED,
    interrupted=exit_codes.INTERRUPTED,
  )


def srun_options(options: argparse.Namespace) -> list[str]:
  """What the tasks are started with beside the directives."""
  found = []
  if options.cpus_per_task:
    # From Slurm 22.05 on srun does not take it over from sbatch.
    found.append(f'--cpus-per-task={options.cpus_per_task}')
  if options.task_per_gpu:
    # Every task of a node sees all its GPUs; JAX takes the one of its number.
    found.append('--gpu-bind=none')
  return found


def _check(options):
  """Refuses options that do not fit together."""
  if options.task_per_gpu and not options.gpus_per_node:
    raise training_command.LaunchError(
      '--task-per-gpu needs --gpus-per-node, which says how many tasks.'
    )
  if seconds_of(options.time) <= options.signal_seconds:
    raise training_command.LaunchError(
      f'--time={options.time} leaves nothing to train before the signal, '
      f'{options.signal_seconds} s before its end.'
    )
  for name in ('logs', 'python'):
    value = getattr(options, name)
    # In the name of a log Slurm reads %, \ and quotes in its own way.
    if not value.startswith('/') or re.search(r'[\s%\\"\']', value):
      raise training_command.LaunchError(
        f'--{name}={value} must begin with "/" and have no spaces, quotes, % or '
        '\\: it is of other machines.'
      )


def _parser() -> option_parser.OptionParser:
  parser = option_parser.OptionParser(
    usage='%(prog)s [options] -- ARGUMENTS OF main.py',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add, number = parser.add_argument, training_command.number
  name = training_command.matching(
    _NAME, 'a name of at most 63 letters, digits, _ . -'
  )
  add('--name', type=name, default='vie', help='of the job (vie)')
  add('--nodes', type=number(1, 4096), default=1, help='how many (1)')
  add('--gpus-per-node', type=number(1, 64), metavar='N', help='(none)')
  add(
    '--task-per-gpu',
    action='store_true',
    help='one process for each GPU, not for each node',
  )
  add('--cpus-per-task', type=number(1), metavar='N')
  add(
    '--memory',
    type=training_command.matching(r'[0-9]+[KMGT]?', 'an amount such as 120G'),
    help='of a node, such as 120G',
  )
  add('--time', type=_time, required=True, help='limit, such as 24:00:00')
  for option in ('account', 'qos'):
    add(f'--{option}', type=name, help='as sbatch has it')
  names = training_command.matching(
    _NAMES, 'a name, or several with "," between'
  )
  add('--partition', type=names, help='one or several, as sbatch has it')
  features = training_command.matching(
    _FEATURES, 'a name of a feature, or several with & | , ( ) [ ] or *'
  )
  add('--constraint', type=features, help="such as 'a100&nvlink'")
  add(
    '--signal-seconds',
    type=number(30, 3600),
    default=180,
    metavar='N',
    help='before the end, to save in (180)',
  )
  add(
    '--max-restarts',
    type=number(0, 100000),
    default=100,
    metavar='N',
    help='before it gives up (100)',
  )
  add(
    '--module',
    action='append',
    default=[],
    type=training_command.matching(r'[\w./+-]+', 'a module'),
    help='to load first; may be given several times',
  )
  add(
    '--env',
    action='append',
    default=[],
    metavar='NAME=VALUE',
    type=_variable,
    help='variable of the tasks; may be given several times',
  )
  add(
    '--python',
    default=str(REPOSITORY / '.venv' / 'bin' / 'python'),
    help="the environment's python on the nodes (.venv's, of make setup)",
  )
  add(
    '--logs',
    default=str(REPOSITORY / 'slurm'),
    help='folder of logs and of the script (slurm, in the repository)',
  )
  add('--dry-run', action='store_true', help='print the script, submit nothing')
  return parser


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  own, rest = training_command.split(
    sys.argv[1:] if arguments is None else arguments
  )
  try:
    training_command.refuse_secrets(own)
    options = _parser().parse_args(own)
    _check(options)
    training = training_command.check(rest, is_remote=True)
    tasks = options.gpus_per_node if options.task_per_gpu else 1
    training_command.check_processes(training, options.nodes * tasks)
    # Without --gpus-per-node only the cluster knows what a node has.
    devices = options.gpus_per_node and options.nodes * options.gpus_per_node
    training_command.check_devices(training, devices, options.nodes * tasks)
    runner = command_runner.Commands(is_dry_run=options.dry_run)
    path = pathlib.Path(options.logs, f'{options.name}.sh')
    runner.write(path, script(options, training))
    said = runner.run('sbatch', '--parsable', str(path))
    if options.dry_run:
      return exit_codes.DONE
    job = _job_of(said)
  except training_command.LaunchError as error:
    command_runner.complain(error)
    return error.exit_code
  say(f'Job {job}. What it says: {options.logs}/{options.name}-{job}.log')
  say(f'To end it: scancel {job}')
  return exit_codes.DONE


if __name__ == '__main__':
  sys.exit(main())
