"""Training on a Cloud TPU, a machine or a slice of several, on demand or spot.

  python launch/cloud_tpu.py run --name=vie --zone=ZONE \\
      --accelerator-type=v5litepod-16 --spot --bucket=BUCKET -- \\
      --config=configs/vie_slowfast.py --workdir=/mnt/bucket/vie \\
      --config.dataset.dir=gs://BUCKET/kinetics400
  python launch/cloud_tpu.py logs --name=vie --zone=ZONE
  python launch/cloud_tpu.py delete --name=vie --zone=ZONE

`run` asks for a queued resource, sets up every worker, starts the same command
on each and watches. If the TPU is preempted, it asks for another one and goes
on. The same command again goes on watching. docs/launch/cloud_tpu.md has the
rest.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from job import command_runner, training_command
from tpu import queued_resource, tpu_launch

from vie_jax import option_parser
from vie_jax.processes import exit_codes
from vie_jax.standard_output import say

_NAME = r'[a-z]([a-z0-9-]{0,48}[a-z0-9])?'
_ZONE = r'[a-z]+-[a-z]+\d+-[a-z]'
_PROJECT = r'([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]'
_VERBS = {
  'run': 'train, to the end',
  'status': 'say how it is',
  'logs': 'show what a worker says, as it comes',
  'stop': 'save and stop; the TPU stays',
  'delete': 'give the TPU back, whatever it does',
}


def _run(options, rest, runner) -> int:
  training = training_command.check(rest, is_remote=True)
  training_command.check_mount(options.mount)
  training_command.check_below(training, options.mount)
  launch = tpu_launch.Launch(options, training, runner)
  if options.dry_run:
    launch.dry_run()
    return exit_codes.DONE
  try:
    code = launch.run()
    launch.finish(code)
  except KeyboardInterrupt:
    say(
      '\nNot watched any more. What runs on the TPU goes on, and costs.\n'
      'To watch again: the same command.\n'
      f'To save and stop: {tpu_launch.command("stop", options)}\n'
      f'To end it all: {tpu_launch.command("delete", options)}'
    )
    return exit_codes.INTERRUPTED
  return code


def _other(options, runner) -> int:
  request = queued_resource.Request(options.name, options.zone, options.project)
  resource = queued_resource.QueuedResource(request, runner)
  if options.verb == 'status':
    state = resource.state()
    if not options.dry_run:
      say(f'{options.name}: {state}')
    if state == queued_resource.ACTIVE or options.dry_run:
      say(resource.on_workers('state', options.name))
  elif options.verb == 'logs':
    resource.follow_log(options.name, options.worker, lines=options.lines)
  elif options.verb == 'stop':
    resource.on_workers('stop', options.name)
  else:
    resource.delete()
  return exit_codes.DONE


def _parser() -> option_parser.OptionParser:
  parser = option_parser.OptionParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  verbs = parser.add_subparsers(dest='verb', required=True)
  number, matching = training_command.number, training_command.matching
  for verb, meaning in _VERBS.items():
    rest = ' [options] -- ARGUMENTS OF main.py' if verb == 'run' else ''
    usage = f'%(prog)s --name=NAME --zone=ZONE{rest}'
    one = verbs.add_parser(verb, help=meaning, usage=usage)
    add = one.add_argument
    name = matching(_NAME, 'a name of at most 50 small letters, digits and "-"')
    add('--name', type=name, required=True, help='of the TPU and the training')
    zone = matching(_ZONE, 'a zone such as us-central2-b')
    add('--zone', type=zone, required=True, help='such as us-central2-b')
    project = matching(_PROJECT, 'the id of a project')
    add('--project', type=project, help="(that of gcloud's settings)")
    add('--dry-run', action='store_true', help='print the commands, run none')
    if verb == 'logs':
      add('--worker', type=number(0), default=0, help='number, from 0 (0)')
      add('--lines', type=number(0), default=100, help='to begin with (100)')
    if verb == 'run':
      _add_run_options(one)
  return parser


def _add_run_options(parser):
  number, matching = training_command.number, training_command.matching
  add = parser.add_argument
  add('--accelerator-type', required=True, help='such as v5litepod-16')
  add(
    '--runtime',
    type=matching(r'[a-z0-9][a-z0-9.-]+', 'a version of the software'),
    help='software of the machines (that for JAX, by the type)',
  )
  tier = parser.add_mutually_exclusive_group()
  for name, meaning in (
    ('spot', 'cheaper, and may be taken away at any time'),
    ('reserved', 'from a reservation'),
  ):
    tier.add_argument(
      f'--{name}', dest='tier', action='store_const', const=name, help=meaning
    )
  for option in ('network', 'subnetwork', 'service-account'):
    add(
      f'--{option}',
      type=matching(r'[\w.@/-]+', 'a name'),
      help='as gcloud has it',
    )
  add(
    '--bucket',
    type=matching(training_command.BUCKET, 'a bucket, without gs://'),
    required=True,
    help='that holds the workdir',
  )
  add(
    '--mount',
    type=matching(training_command.FOLDER, 'a path'),
    default='/mnt/bucket',
    help='where it is mounted on the workers (/mnt/bucket)',
  )
  add('--commit', default='HEAD', help='what is run, of this repository (HEAD)')
  add('--keep', action='store_true', help='do not give the TPU back at the end')
  for option, default, meaning in (
    ('max-preemptions', 20, 'before it gives up (20)'),
    ('max-restarts', 20, 'of main.py, on the same TPU (20)'),
    ('poll-seconds', 60, 'between looks at it (60)'),
  ):
    add(
      f'--{option}', type=number(0), default=default, metavar='N', help=meaning
    )


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  own, rest = training_command.split(
    sys.argv[1:] if arguments is None else arguments
  )
  try:
    training_command.refuse_secrets(own)
    options = _parser().parse_args(own)
    runner = command_runner.Commands(is_dry_run=options.dry_run)
    if options.verb == 'run':
      return _run(options, rest, runner)
    return _other(options, runner)
  except training_command.LaunchError as error:
    command_runner.complain(error)
    return error.exit_code
  except KeyboardInterrupt:
    return exit_codes.INTERRUPTED


if __name__ == '__main__':
  sys.exit(main())
