"""Compares main.py with its parts: input alone and step alone.

  python benchmarks/whole_program.py \\
      > benchmarks/results/whole_program-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds, and a
ratio the median of the rounds' ratios. The data set is made here, by the
renderer of the demo, or is one that is there (`--data`). For each config:

  main.py          a training in a process of its own, as a user starts it: clips
                   per second by its own `metrics.jsonl`, over `--steps` steps
                   after as many that do not count. Evaluations, k-means and
                   saves lie outside of these steps.
  input alone      the same batches, taken and dropped
  step alone       the step of Local Aggregation on a batch that is on the device
  slower part      the smaller of the two, which main.py cannot beat
  parts in turn    1 / (1 / input + 1 / step): what is left if the parts use the
                   same cores up, as on a CPU that is its own device

All take turns, round by round. Then, each from a training of its own:

  trace            shares of the time of a few steps, by config.profile: of the
                   device, and of the loop's thread by phases
  evaluation       seconds of one in training, and by its clips per second what
                   share of a training evaluations take, at the interval and the
                   number of videos of the config's defaults, for Kinetics: a
                   formula of measured parts, not a measurement
  start            seconds from the launch to the end of the first step, with an
                   empty and with a full folder of compiled programs

The linear evaluation is a mode of its own, and takes no time of a training.
The default configs are for a small machine. On a GPU:

  python benchmarks/whole_program.py --configs configs/vie_slowfast.py \\
      --dtype bfloat16 --steps 200 --data DATASET
"""

import contextlib
import pathlib
import statistics
import sys
import tempfile
import time

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, program_runs, result_lines, script, turns

from inputs import prepared_data

_CONFIGS = ('configs/demo.py:single', 'configs/demo.py:slowfast')
_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'tensorflow', 'tensorflow-cpu')
_MAIN, _INPUT, _STEP = 'main.py', 'input alone', 'step alone'
# Of Kinetics-400, as the paper has it.
_KINETICS_VAL = 19_653
_TRACED_STEPS = 10


def prepare_main(case):
  """Trainings of main.py, one each time."""
  overrides = case['overrides'] | {
    'num_steps': 2 * case['steps'],
    'log_every_steps': case['steps'],
  }

  def run():
    from vie_jax.telemetry import metrics_file

    with tempfile.TemporaryDirectory() as workdir:
      program_runs.run(
        program_runs.command(case['config'], overrides, workdir),
        program_runs.environment(case['cache']),
      )
      lines = list(metrics_file.read(workdir))
    last = overrides['num_steps']
    speed = program_runs.steps_per_second(lines, last)
    return {
      'clips per second': speed * case['batch_size'],
      'evaluation s': program_runs.evaluation_seconds(lines, last),
    }

  return run, {}


def prepare_input(case):
  """The batches of the same training, and nothing done with them."""
  from vie_jax import experiment

  config = program_runs.config_of(case['config'], case['overrides'])
  stack = contextlib.ExitStack()
  parts = stack.enter_context(experiment.open_experiment(config))
  with experiment.train_batches(parts, start_step=0, seed=0) as batches:
    batch = next(batches)

  def run():
    with experiment.train_batches(parts, start_step=0, seed=0) as batches:
      # Those that are made ahead of time are there at once.
      for _ in range(case['steps']):
        next(batches)
      start = time.perf_counter()
      for _ in range(case['steps']):
        next(batches)
      seconds = time.perf_counter() - start
    return case['steps'] * case['batch_size'] / seconds

  # Collected, it would close the data set.
  run.stack = stack
  return run, {
    'batch bytes': sum(array.nbytes for array in batch.values()),
    'evaluation clips': parts.config.clip.num_eval_clips
    * parts.val.num_instances,
  }


def prepare_step(case):
  """The step of the same training, again and again on one batch."""
  import jax

  from vie_jax import blueprint, experiment, sharding, train_step

  config = program_runs.config_of(case['config'], case['overrides'])
  with experiment.open_experiment(config) as parts:
    with experiment.train_batches(parts, start_step=0, seed=0) as batches:
      batch = sharding.global_batch(next(batches), parts.mesh)
    rule, _ = blueprint.build_optimizer(config)
    initialize = experiment.state_initializer(parts, rule)
    step = train_step.compile_steps(
      experiment.state_shapes(initialize, parts.mesh),
      model=parts.model,
      optimizer=rule,
      augment=parts.augment,
      method=blueprint.method_of(config, parts.train.num_instances),
      mesh=parts.mesh,
    )['local_aggregation']
    holder = [initialize(jax.random.key(0))]

  def take_steps():
    for _ in range(case['steps']):
      holder[0], _ = step(holder[0], batch)
    jax.block_until_ready(holder[0])

  def run():
    take_steps()
    start = time.perf_counter()
    take_steps()
    return case['steps'] * case['batch_size'] / (time.perf_counter() - start)

  return run, {'platform': jax.default_backend()}


def main():
  """Runs all comparisons and prints them."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--configs',
    nargs='+',
    type=argument_types.config_file,
    default=_CONFIGS,
    help='as for main.py',
  )
  argument_types.add_rounds(parser, 5)
  parser.add_argument(
    '--steps', type=argument_types.count, default=60, help='timed in a round'
  )
  parser.add_argument(
    '--data',
    type=argument_types.folder,
    help='folder of a data set to take instead of the rendered videos',
  )
  parser.add_argument(
    '--videos', type=argument_types.count, default=512, help='rendered'
  )
  parser.add_argument(
    '--batch-size', type=argument_types.count, help="else the config's"
  )
  parser.add_argument(
    '--dtype', choices=('float32', 'bfloat16'), help="else the config's"
  )
  parser.add_argument(
    '--parts',
    nargs='+',
    choices=('speed', 'trace', 'start'),
    default=('speed', 'trace', 'start'),
    help='to do; speed has the evaluation, too',
  )
  options = parser.parse_args()
  report = result_lines.Report(
    'whole_program', rounds=options.rounds, packages=_PACKAGES
  )
  with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    if options.data is None:
      prepared_data.prepare(
        'demo', scratch / 'data', num_videos=options.videos, val_percent=25
      )
    for name in options.configs:
      case = _case(name, scratch, options)
      for part in options.parts:
        _PARTS[part](case, options.rounds, report)
  report.finish()


def _case(name, scratch, options):
  overrides = {
    'dataset.dir': options.data or str(scratch / 'data'),
    'memory_bank.init': 'uniform',
    'objective.instance_recognition_steps': 0,
    'local_aggregation.recluster_every_steps': program_runs.NEVER,
    'eval_every_steps': program_runs.NEVER,
    'checkpoint_every_steps': program_runs.NEVER,
  }
  if options.batch_size:
    overrides['batch_size'] = options.batch_size
  if options.dtype:
    overrides['model.dtype'] = options.dtype
  config = program_runs.config_of(name, overrides)
  clip = f'{config.clip.num_frames} x {config.crop.size} px'
  return {
    'title': f'{name}, {config.batch_size} clips of {clip}',
    'config': name,
    'overrides': overrides,
    'batch_size': config.batch_size,
    'steps': options.steps,
    'cache': str(scratch / 'cache'),
  }


def _compare_speed(case, rounds, report):
  found = turns.take_turns(
    {
      _MAIN: (prepare_main, {'case': case}),
      _INPUT: (prepare_input, {'case': case}),
      _STEP: (prepare_step, {'case': case}),
    },
    rounds=rounds,
    # The step of main.py and the one alone are one program.
    environment={'JAX_COMPILATION_CACHE_DIR': case['cache']},
  )
  main_speed = [result['clips per second'] for result in found[_MAIN].results]
  parts = [found[name].results for name in (_INPUT, _STEP)]
  slower = [min(both) for both in zip(*parts, strict=True)]
  in_turn = [
    1 / sum(1 / speed for speed in both) for both in zip(*parts, strict=True)
  ]
  metric = 'clips per second'
  report.add(
    *(case['title'], _MAIN, metric, statistics.median(main_speed)),
    ratio=result_lines.ratio(main_speed, slower),
    ratio_to='slower part',
  )
  names = (_INPUT, _STEP, 'slower part')
  for name, speeds in zip(names, (*parts, slower), strict=True):
    report.add(case['title'], name, metric, statistics.median(speeds))
  if found[_STEP].facts['platform'] == 'cpu':
    report.add(
      case['title'], 'parts in turn', metric, statistics.median(in_turn)
    )
    report.add(
      *(case['title'], _MAIN, 'times parts in turn'),
      result_lines.ratio(main_speed, in_turn),
    )
  facts = found[_INPUT].facts
  report.add(
    case['title'],
    _MAIN,
    'MB to the device in a step',
    facts['batch bytes'] / 1e6,
  )
  evaluations = [result['evaluation s'] for result in found[_MAIN].results]
  _report_evaluation(
    case,
    report,
    seconds=statistics.median(evaluations),
    num_clips=facts['evaluation clips'],
    step_seconds=case['batch_size'] / statistics.median(main_speed),
  )


def _report_evaluation(case, report, *, seconds, num_clips, step_seconds):
  title = f'{case["title"]}, evaluation'
  speed = num_clips / seconds
  here = f'{num_clips:,} clips here'
  report.add(title, here, 'seconds', seconds)
  report.add(title, here, 'clips per second', speed)
  defaults = program_runs.config_of('configs/default.py')
  every = defaults.eval_every_steps
  for count in sorted(
    {min(defaults.eval_videos, _KINETICS_VAL), _KINETICS_VAL}
  ):
    clips = count * defaults.clip.num_eval_clips
    share = program_runs.share_of_evaluations(
      clips=clips,
      clips_per_second=speed,
      steps=every,
      step_seconds=step_seconds,
    )
    report.add(
      title,
      f'{clips:,} clips every {every:,} steps, computed',
      '% of the training',
      100 * share,
    )


def _take_trace(case, unused_rounds, report):
  # Imports JAX, which must not compute here before others have.
  from measuring import trace_shares

  overrides = case['overrides'] | {
    'num_steps': case['steps'] + _TRACED_STEPS,
    'profile': True,
    'profile_first_step': case['steps'],
    'profile_steps': _TRACED_STEPS,
  }
  with tempfile.TemporaryDirectory() as workdir:
    program_runs.run(
      program_runs.command(case['config'], overrides, workdir),
      program_runs.environment(case['cache']),
    )
    shares = trace_shares.read(pathlib.Path(workdir) / 'profile')
  for name, share in shares.items():
    report.add(f'{case["title"]}, trace', _MAIN, f'{name}, %', 100 * share)


def _time_start(case, rounds, report):
  overrides = case['overrides'] | {
    'num_steps': 1,
    'log_every_steps': 1,
    # The objective that a training begins with.
    'objective.instance_recognition_steps': 1,
  }
  found, imports = {'empty cache': [], 'full cache': []}, []
  for _ in range(rounds):
    with tempfile.TemporaryDirectory() as folder:
      folder = pathlib.Path(folder)
      for number, of_cache in enumerate(found.values()):
        said = program_runs.run(
          program_runs.command(
            case['config'], overrides, folder / f'run{number}'
          ),
          program_runs.environment(folder / 'cache'),
        )
        of_cache.append(program_runs.phases(said))
    imports.append(program_runs.import_seconds())
  title = f'{case["title"]}, start'
  report.add(title, 'imports alone', 'imports, s', statistics.median(imports))
  base = found['empty cache']
  for name, rounds_ in found.items():
    for phase in rounds_[0]:
      seconds = [phases[phase] for phases in rounds_]
      ratio = None
      if rounds_ is not base:
        ratio = result_lines.ratio(seconds, [phases[phase] for phases in base])
      report.add(
        title,
        name,
        f'{phase}, s',
        statistics.median(seconds),
        ratio=ratio,
        ratio_to='empty cache',
      )


_PARTS = {
  'speed': _compare_speed,
  'trace': _take_trace,
  'start': _time_start,
}


if __name__ == '__main__':
  script.run(main)
