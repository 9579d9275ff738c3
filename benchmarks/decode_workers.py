"""Compares threads and processes that decode the clips of a training.

  python benchmarks/decode_workers.py \\
      > benchmarks/results/decode_workers-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds. For each
network and each number of workers: how many clips a second the input pipeline
makes with as many threads of the training's process, and with as many processes
beside it. A ratio is that of processes to threads, above 1 says that processes
make more. And for both, how long the training's own process computes for each
batch, in which Python runs on one core at a time: no step can be shorter.

With --milliseconds=30 the data set lies in an object store on this machine that
answers each request after so long, and whose process takes of the same cores.

The video is rendered, of 340 x 256 pixels, as those of Kinetics often are.
"""

import contextlib
import dataclasses
import os
import pathlib
import statistics
import sys
import tempfile
import time

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, program_runs, result_lines, script, turns

from inputs import benchmark_videos, object_store, prepared_data

_NETWORKS = ('vie_single', 'vie_slowfast', 'vie_3dresnet')
_PLACES = ('threads', 'processes')
# The video is so many instances: a batch holds none twice.
_REPEATS = 512
_VIDEO = 340, 256, 30
_PREFETCHED = 2
# Made ahead of time, and so not timed: prefetched, and on their way.
_NOT_TIMED = _PREFETCHED + 3
_PACKAGES = ('array_record', 'numpy', 'simplejpeg', 'tensorflow-cpu')


def prepare_batches(network, data, place, num_workers, num_batches):
  """Batches of a network's training, taken and dropped."""
  import numpy as np

  from vie_jax.input_pipeline import frame_store, instances, pipeline

  config = program_runs.config_of(network)
  stack = contextlib.ExitStack()
  videos = instances.all_videos(
    stack.enter_context(frame_store.FrameStore.open(data, 'train'))
  )
  batches = stack.enter_context(
    pipeline.train_batches(
      dataclasses.replace(videos, video=np.tile(videos.video, _REPEATS)),
      clip=config.clip,
      crop=config.crop,
      batch_size=config.batch_size,
      seed=0,
      num_threads=num_workers,
      decode_in=place,
      num_prefetched=_PREFETCHED,
    )
  )

  def run():
    for _ in range(_NOT_TIMED):
      next(batches)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(num_batches):
      next(batches)
    seconds = time.perf_counter() - start
    return {
      'clips per second': num_batches * config.batch_size / seconds,
      # Of this process, without those that it has started.
      'CPU ms of the training for a batch': 1e3
      * (time.process_time() - cpu)
      / num_batches,
    }

  # Collected, it would close the data set.
  run.stack = stack
  return run, {'batch_size': config.batch_size}


def main():
  """Runs all comparisons and prints them."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--networks',
    nargs='+',
    type=argument_types.config,
    default=_NETWORKS,
    help=f'configs whose clips are made (default: {" ".join(_NETWORKS)})',
  )
  parser.add_argument(
    '--workers',
    nargs='+',
    type=argument_types.count,
    default=(1, 2, 4, 16),
    help='threads, and processes (default: 1 2 4 16)',
  )
  argument_types.add_rounds(parser, 5)
  parser.add_argument(
    '--milliseconds',
    type=argument_types.positive,
    help='that an object store which has the data takes (default: no store)',
  )
  parser.add_argument(
    '--batches',
    type=argument_types.count,
    default=8,
    help='timed in a round (default: %(default)s)',
  )
  options = parser.parse_args()
  report = result_lines.Report(
    'decode_workers', rounds=options.rounds, packages=_PACKAGES
  )
  with (
    tempfile.TemporaryDirectory() as scratch,
    _place(_prepare(pathlib.Path(scratch)), options.milliseconds) as data,
  ):
    for network in options.networks:
      for num_workers in options.workers:
        _compare(network, data, num_workers, options, report)
  report.finish()


def _prepare(scratch):
  videos, data = scratch / 'videos', scratch / 'data'
  benchmark_videos.write_videos(videos, sizes=[_VIDEO])
  prepared_data.prepare('folder', data, videos=videos, val_percent=0)
  return str(data)


@contextlib.contextmanager
def _place(folder, milliseconds):
  """Where the data set is read: its folder, or its URL."""
  if milliseconds is None:
    yield folder
    return
  with object_store.running(folder, milliseconds) as environment:
    os.environ.update(environment)
    yield f's3://{object_store.BUCKET}'


def _compare(network, data, num_workers, options, report):
  found = turns.take_turns(
    {
      place: (
        prepare_batches,
        {
          'network': network,
          'data': data,
          'place': place,
          'num_workers': num_workers,
          'num_batches': options.batches,
        },
      )
      for place in _PLACES
    },
    rounds=options.rounds,
  )
  size = found['threads'].facts['batch_size']
  case = f'{network}, batches of {size}'
  if options.milliseconds is not None:
    case += f', object store that takes {options.milliseconds:g} ms'
  of_threads = found['threads'].results
  for place in _PLACES:
    results = found[place].results
    for metric in results[0]:
      values = [result[metric] for result in results]
      ratio = None
      if place != 'threads' and metric == 'clips per second':
        ratio = result_lines.ratio(
          values, [other[metric] for other in of_threads]
        )
      report.add(
        case,
        f'{num_workers} {place}'
        if num_workers > 1
        else '1 ' + {'threads': 'thread', 'processes': 'process'}[place],
        metric,
        statistics.median(values),
        ratio=ratio,
        ratio_to='threads',
      )


if __name__ == '__main__':
  script.run(main)
