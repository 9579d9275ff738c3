"""Decodes videos and writes shards with Apache Beam.

Only names travel through Beam. Frames and records are staged in the output
directory, as in a preparation on one machine, and the process that starts
the pipelines makes the plan from the records.
"""

import json
import os
import pathlib

import apache_beam as beam
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from dataset.dataset_writer import Shard, write_shard
from dataset.staging import OutputError, Staging, read_json, write_json
from progress import write_line

from preparation.prepare_dataset import worker_pool
from preparation.prepare_video import is_current
from preparation.worker_pool import Failure

_NAMESPACE = 'vie_jax'


class BeamCluster:
  """What `prepare_dataset` takes to do its work with Beam."""

  def __init__(self, pipeline_arguments):
    """Keeps the options.

    Args:
      pipeline_arguments: list of str, any options of Beam and its runner.
    """
    self._arguments = pipeline_arguments

  def pool(self, settings):
    """Returns what is used like a WorkerPool of `prepare_video`."""
    return _BeamPool(self._arguments, settings)

  def write_shards(self, out, shards):
    """Writes each shard on one worker.

    Args:
      out: path of the output directory.
      shards: list of Shard.

    Raises:
      OutputError: if the pipeline fails.
    """
    out = os.path.abspath(out)
    path = pathlib.Path(Staging(out).directory, 'shards.json')
    rows = {shard.name: shard.rows for shard in shards}
    write_json(path, rows, aside=path.parent)
    _run(self._arguments, list(rows), beam.ParDo(_WriteShard(out)))


class _BeamPool:
  """Decodes videos in one pipeline; a context manager."""

  def __init__(self, arguments, settings):
    self._arguments = arguments
    self._settings = settings

  def __enter__(self):
    return self

  def __exit__(self, *unused_exception):
    pass

  def run(self, tasks):
    """Yields (task, record or Failure), when all are done."""
    for task in tasks:
      _failure_path(task).unlink(missing_ok=True)
    if tasks:
      _run(self._arguments, tasks, beam.ParDo(_Decode(self._settings)))
    for task in tasks:
      record = Staging(task.out).record(task.video.id)
      failure = read_json(_failure_path(task))
      if failure is not None:
        yield task, Failure(failure['reason'])
      elif is_current(record, task.video):
        yield task, record
      else:
        raise OutputError(
          f'{task.video.path!r}: a worker left nothing in {task.out}; all '
          'workers must see it under this path'
        )


class _Decode(beam.DoFn):
  """Prepares a video in a process that may be killed.

  A video that is staged already is only counted: a bundle may be retried.
  """

  def __init__(self, settings):
    self._settings = settings

  def setup(self):
    self._pool = worker_pool(self._settings)

  def teardown(self):
    self._pool.__exit__()

  def process(self, task):
    outcome = Staging(task.out).record(task.video.id)
    if not is_current(outcome, task.video):
      ((_, outcome),) = self._pool.run([task])
    if isinstance(outcome, str):
      raise OutputError(outcome)
    if isinstance(outcome, Failure):
      path = _failure_path(task)
      write_json(path, {'reason': outcome.reason}, aside=path.parent)
    elif 'row' in outcome:
      _count('videos_decoded', 1)
      _count('frames', outcome['row']['num_frames'])
      _count('bytes', outcome['row']['num_bytes'])
      return
    _count('videos_skipped', 1)


class _WriteShard(beam.DoFn):
  """Writes the shard of a name."""

  def __init__(self, out):
    self._out = out

  def process(self, name):
    path = Staging(self._out).directory / 'shards.json'
    rows = json.loads(path.read_text('utf-8'))[name]
    entry = write_shard(self._out, Shard(name, rows))
    _count('shards', 1)
    _count('shard_bytes', entry['bytes'])


def _run(arguments, elements, work):
  """Runs a pipeline to its end and prints its counters."""
  pipeline = beam.Pipeline(options=PipelineOptions(arguments))
  listed = pipeline | 'List' >> beam.Create(elements)
  _ = listed | 'Spread' >> beam.Reshuffle() | 'Work' >> work
  # Beam's runners raise what they like, also what a worker raised.
  try:
    result = pipeline.run()
    state = result.wait_until_finish()
  except Exception as error:
    raise OutputError(f'the pipeline failed: {error}') from error
  if state != 'DONE':
    raise OutputError(f'the pipeline ended in the state {state}')
  found = result.metrics().query(MetricsFilter().with_namespace(_NAMESPACE))
  for counter in found['counters']:
    write_line(f'{counter.key.metric.name}: {counter.result}')


def _failure_path(task):
  return Staging(task.out).directory / f'{task.video.id}.failure.json'


def _count(name, number):
  Metrics.counter(_NAMESPACE, name).inc(number)
