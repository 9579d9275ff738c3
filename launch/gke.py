"""Training on Google Kubernetes Engine, on a TPU slice or on nodes with GPUs.

  python launch/gke.py run --name=vie --image=IMAGE --tpu=v5litepod \\
      --topology=4x4 --bucket=BUCKET -- \\
      --config=configs/vie_slowfast.py --workdir=/mnt/bucket/vie \\
      --config.dataset.dir=gs://BUCKET/kinetics400
  python launch/gke.py run --name=vie --image=IMAGE --gpu=nvidia-h100-80gb \\
      --gpus-per-node=8 --nodes=2 --claim=CLAIM -- ...
  python launch/gke.py logs --name=vie
  python launch/gke.py delete --name=vie

`run` writes a JobSet and applies it: one pod per machine, the same command in
each, all made again when one of them stops early. The cluster needs the JobSet
controller. docs/launch/gke.md has the rest.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from job import command_runner, rendering, training_command
from job.repository import REPOSITORY
from tpu import tpu_slices

from vie_jax import option_parser
from vie_jax.processes import exit_codes

# Of the images in launch/docker/.
FOLDER, USER = '/app', 1000
COMMAND = ('python', 'main.py')
# Where pod 0 listens; JAX's own choice on TPUs.
PORT = 8476
# Where `run` leaves what it applies.
MANIFESTS = REPOSITORY / '.launch'
_SELECTOR = 'jobset.sigs.k8s.io/jobset-name'
_INDEX = 'batch.kubernetes.io/job-completion-index'
# Names of pods have at most 63 letters: NAME-worker-0-1234-abcde.
_NAME = r'[a-z]([a-z0-9-]{0,38}[a-z0-9])?'
_LABEL = r'[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?'
# Of namespaces, in which "." is not allowed.
_PART = r'[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?'
_AMOUNT = r'(?![0.]*[a-zA-Z])[0-9]+(\.[0-9]+)?([kMGT]|[KMGT]i)'
_VERBS = {
  'run': 'write the JobSet and apply it',
  'status': 'show it and its pods',
  'logs': 'show what a pod says, as it comes',
  'delete': 'end it: SIGTERM, and time for a save',
}


def _machines(options) -> dict:
  """Processes, their devices and the labels of nodes that have them."""
  if bool(options.tpu) == bool(options.gpu):
    raise training_command.LaunchError('Name either --tpu or --gpu.')
  if options.tpu:
    if not options.topology or options.gpus_per_node or options.nodes:
      raise training_command.LaunchError(
        '--tpu needs --topology, such as 4x4, which says how many nodes; '
        '--nodes and --gpus-per-node go with --gpu.'
      )
    size = tpu_slices.of_topology(options.tpu, options.topology)
    return {
      'is_tpu': True,
      'processes': size.hosts,
      'accelerator': 'google.com/tpu',
      'devices': size.chips_per_host,
      'node_labels': {
        'cloud.google.com/gke-tpu-accelerator': (
          tpu_slices.VERSIONS[size.version].gke_name
        ),
        'cloud.google.com/gke-tpu-topology': options.topology,
      },
    }
  if options.topology or not options.gpus_per_node:
    raise training_command.LaunchError(
      '--gpu needs --gpus-per-node; --topology goes with --tpu.'
    )
  return {
    'is_tpu': False,
    'processes': options.nodes or 1,
    'accelerator': 'nvidia.com/gpu',
    'devices': options.gpus_per_node,
    'node_labels': {'cloud.google.com/gke-accelerator': options.gpu},
  }


def manifest(
  options: argparse.Namespace, training: training_command.Training
) -> str:
  """The JobSet, as YAML.

  Raises:
    training_command.LaunchError: if options do not fit together.
  """
  machines = _machines(options)
  training_command.check_processes(training, machines['processes'])
  training_command.check_devices(
    training,
    machines['processes'] * machines['devices'],
    machines['processes'],
  )
  if bool(options.bucket) == bool(options.claim):
    raise training_command.LaunchError('Name either --bucket or --claim.')
  if options.spot:
    machines['node_labels']['cloud.google.com/gke-spot'] = 'true'
  requests = {'cpu': options.cpu, 'memory': options.memory}
  return rendering.render(
    'jobset.yaml.jinja',
    name=options.name,
    namespace=options.namespace,
    image=options.image,
    folder=FOLDER,
    user=USER,
    command=COMMAND,
    # Kubernetes takes $(NAME) for one of its variables, and $$ for $.
    arguments=[word.replace('$', '$$') for word in training.arguments],
    # The name that Kubernetes gives the first pod of the job `worker`.
    coordinator=f'{options.name}-worker-0-0.{options.name}:{PORT}',
    port=PORT,
    is_spot=options.spot,
    bucket=options.bucket,
    claim=options.claim,
    mount=options.mount,
    service_account=options.service_account,
    shared_memory=options.shared_memory,
    grace_seconds=options.grace_seconds,
    max_restarts=options.max_restarts,
    requests={name: value for name, value in requests.items() if value},
    give_up=exit_codes.REFUSED,
    run_again=exit_codes.RETRY,
    **machines,
  )


def _run(options, rest, runner, place) -> None:
  training = training_command.check(rest, is_remote=True)
  training_command.check_mount(options.mount, FOLDER)
  training_command.check_below(training, options.mount)
  path = MANIFESTS / f'{options.name}.yaml'
  runner.write(path, manifest(options, training))
  runner.follow('kubectl', 'apply', f'--filename={path}', *place)


def _other(options, runner, place) -> None:
  selector = f'{_SELECTOR}={options.name}'
  if options.verb == 'status':
    runner.follow('kubectl', 'get', 'jobset', options.name, *place)
    runner.follow(
      'kubectl',
      'get',
      'pods',
      f'--selector={selector}',
      '--output=wide',
      *place,
    )
  elif options.verb == 'logs':
    runner.follow(
      *('kubectl', 'logs', '--follow', '--container=train'),
      f'--selector={selector},{_INDEX}={options.worker}',
      f'--tail={options.lines}',
      *place,
    )
  else:
    runner.follow('kubectl', 'delete', 'jobset', options.name, *place)


def _parser() -> option_parser.OptionParser:
  parser = option_parser.OptionParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  verbs = parser.add_subparsers(dest='verb', required=True)
  number, matching = training_command.number, training_command.matching
  label = matching(_LABEL, 'a name of small letters, digits, "-" and "."')
  part = matching(_PART, 'a name of at most 63 small letters, digits and "-"')
  for verb, meaning in _VERBS.items():
    rest = ' --image=IMAGE ... -- ARGUMENTS OF main.py' if verb == 'run' else ''
    usage = f'%(prog)s --name=NAME{rest}'
    one = verbs.add_parser(verb, help=meaning, usage=usage)
    add = one.add_argument
    name = matching(_NAME, 'a name of at most 40 small letters, digits and "-"')
    add('--name', type=name, required=True, help='of the JobSet')
    add('--namespace', type=part, help="(that of kubectl's context)")
    context = matching(r'[\w.:/@-]+', 'a context of kubectl')
    add('--context', type=context, help="(kubectl's)")
    add('--dry-run', action='store_true', help='print it all, apply nothing')
    if verb == 'logs':
      add('--worker', type=number(0), default=0, help='pod, from 0 (0)')
      add('--lines', type=number(0), default=100, help='to begin with (100)')
    if verb == 'run':
      _add_run_options(one, label)
  return parser


def _add_run_options(parser, label):
  number, matching = training_command.number, training_command.matching
  add = parser.add_argument
  image = matching(r'[a-z0-9][\w.:/@-]+', 'the name of an image')
  amount = matching(_AMOUNT, 'an amount of memory such as 16Gi')
  add('--image', type=image, required=True, help='of launch/docker/')
  add('--tpu', metavar='VERSION', help='v4, v5litepod, v5p or v6e')
  add('--topology', help='of the slice, such as 4x4')
  add('--gpu', type=label, metavar='KIND', help='such as nvidia-h100-80gb')
  add('--gpus-per-node', type=number(1, 16), metavar='N')
  add('--nodes', type=number(1, 1024), metavar='N', help='with GPUs (1)')
  add('--spot', action='store_true', help='nodes that may be taken away')
  cpu = matching(r'[1-9][0-9]*m?', 'a number of CPUs')
  add('--cpu', type=cpu, help='CPUs that each pod asks for')
  add('--memory', type=amount, help='that each pod asks for, such as 100Gi')
  bucket = matching(training_command.BUCKET, 'a bucket, without gs://')
  add('--bucket', type=bucket, help='for the workdir, by Cloud Storage FUSE')
  add('--claim', type=label, help='for the workdir: a PersistentVolumeClaim')
  add(
    '--mount',
    type=matching(training_command.FOLDER, 'a path'),
    default='/mnt/bucket',
    help='where either is mounted (/mnt/bucket)',
  )
  add('--service-account', type=label, help='of Kubernetes, for the bucket')
  add(
    '--shared-memory',
    type=amount,
    default='8Gi',
    help='size of /dev/shm, part of the memory (8Gi)',
  )
  for option, bounds, default, meaning in (
    ('grace-seconds', (30, 86_400), 180, 'for a save, after SIGTERM (180)'),
    (
      'max-restarts',
      (0, 2**31 - 1),
      100,
      'of all pods, before it gives up (100)',
    ),
  ):
    add(
      f'--{option}',
      type=number(*bounds),
      default=default,
      metavar='N',
      help=meaning,
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
    places = {'namespace': options.namespace, 'context': options.context}
    place = [f'--{name}={value}' for name, value in places.items() if value]
    if options.verb == 'run':
      _run(options, rest, runner, place)
    else:
      _other(options, runner, place)
  except training_command.LaunchError as error:
    command_runner.complain(error)
    return error.exit_code
  except KeyboardInterrupt:
    return exit_codes.INTERRUPTED
  return exit_codes.DONE


if __name__ == '__main__':
  sys.exit(main())
