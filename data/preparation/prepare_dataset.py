"""Turns the videos of a source into a prepared data set.

The way of a preparation: lock the output, see whether the data set is there
already, decode what is not yet decoded, decide the content, write it.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import sys

from dataset.dataset_layout import SPLITS
from dataset.dataset_writer import (
  SHARD_BYTES,
  ShardTask,
  make_shard_of_task,
  plan_shards,
  unstaged_rows,
  write_dataset,
)
from dataset.folder_lock import locked
from dataset.manifest import FRAMES
from dataset.remote import RemoteFolder, is_remote
from dataset.remote_target import RemoteTarget, default_staging
from dataset.staging import (
  OutputError,
  Staging,
  output_errors,
  read_json,
  write_json,
)
from errors import InputError
from media.video_frames import FRAMES_VERSION, FrameOptions
from progress import progress_bar
from sources.labels_and_splits import check_class_names
from sources.source import Source
from untrusted import text
from wording import counted

from preparation.bad_share import BadShare
from preparation.dataset_plan import is_plan, make_plan
from preparation.earlier_dataset import read_earlier
from preparation.prepare_video import Task, is_current, prepare_video
from preparation.resume import (
  changed_paths,
  check_same_dataset,
  check_same_inputs,
  digest_or_empty,
  is_complete,
  open_staging,
  times_digest,
)
from preparation.worker_pool import Failure, WorkerPool

_PACKAGES = ('array_record', 'av', 'numpy', 'pillow', 'pyarrow')

# To start processes takes longer than to write so much.
LEAST_BYTES_TO_SHARE = 2**28
# In plan.json: of which sizes and times of files it is.
_TIMES = 'times_sha256'
_SHARD_TIMEOUT_SECONDS = 86_400


@dataclasses.dataclass(frozen=True)
class Settings:
  """Where and how to prepare.

  Attributes:
    out: path of the output directory, or a URL.
    staging: path of the folder in which a data set for a URL is made; None
      for that of `default_staging`. Not used for a directory.
    num_processes: worker processes.
    timeout_seconds: after which a video is given up.
    max_stall_seconds: likewise, without a new picture of it.
    max_memory_mib: that a worker process may take for a video.
    max_bad_percent: share of videos that cannot be used past which the run
      stops, once as many as `bad_share.FIRST_LOOK` were tried.
    restart: whether to throw away what is in `out`.
    reuse: path of an earlier data set; frames of the same files are copied
      from there. None for none.
    shard_bytes: size at which a new shard is begun.
    frames: FrameOptions.
  """

  out: str
  staging: str | None = None
  num_processes: int = 1
  timeout_seconds: int = 600
  max_stall_seconds: int = 30
  max_memory_mib: int = 2048
  max_bad_percent: int = 50
  restart: bool = False
  reuse: str | None = None
  shard_bytes: int = SHARD_BYTES
  frames: FrameOptions = dataclasses.field(default_factory=FrameOptions)


@dataclasses.dataclass(frozen=True)
class _Inputs:
  """What a preparation works with.

  Attributes:
    source: Source.
    earlier: dict from id to EarlierVideo, of the data set to reuse.
    cluster: as for `prepare_dataset`.
  """

  source: Source
  earlier: dict
  cluster: object


def prepare_dataset(source, settings, *, cluster=None):
  """Prepares a data set, or goes on where a killed run stopped.

  Args:
    source: Source.
    settings: Settings.
    cluster: does the work elsewhere: `pool(settings)` returns what is used
      like a WorkerPool of `prepare_video`, and `write_shards(out, shards)`
      does `write_shard` of each. None for processes of this machine.

  Returns:
    (manifest, is_new): the content of dataset.json, and False where the data
    set was already complete.

  Raises:
    InputError: if the input or the state of `out` does not allow it.
    OutputError: if the output cannot be written.
  """
  check_class_names(source.labels)
  if is_remote(settings.out):
    return _prepare_remote(source, settings, cluster)
  out = pathlib.Path(settings.out)
  if os.path.realpath(out) == source.folder:
    raise InputError('--out must be another directory than that of the videos')
  if os.fsencode(out) != str(out).encode(errors='replace'):
    raise InputError(
      f'--out {settings.out}: {text.LOCALE_REMEDY}'
      if text.is_utf8(settings.out)
      else f'--out must be UTF-8, unlike {settings.out}'
    )
  setup = _setup(source, settings)
  _make_folder(out)
  with locked(out):
    if not settings.restart and is_complete(out, source, setup):
      Staging(out).remove()
      return read_json(out / 'dataset.json'), False
    # Before anything is thrown away.
    earlier = _earlier(settings)
    staging = open_staging(out, source, setup, restart=settings.restart)
    _prepare(_Inputs(source, earlier, cluster), settings, staging, None)
  return read_json(out / 'dataset.json'), True


def _make_folder(folder):
  if folder.is_symlink() and not folder.exists():
    raise InputError(
      f'{folder} is a link to {os.readlink(folder)}, which is not there; make '
      'that folder, or mount its disk'
    )
  with output_errors(folder):
    folder.mkdir(parents=True, exist_ok=True)


def _prepare_remote(source, settings, cluster):
  """Prepares a data set here, and delivers it file by file."""
  if cluster is not None:
    raise InputError(
      f'--out is {settings.out}; workers need a folder that all of them see'
    )
  if any(part.startswith('memory:') for part in settings.out.split('::')):
    raise InputError(
      f'--out is {settings.out}, which is memory of this command and gone with '
      'it; name a folder or a store'
    )
  place = RemoteFolder(settings.out)
  out = pathlib.Path(settings.staging or default_staging(settings.out))
  if os.path.realpath(out) == source.folder:
    raise InputError('--staging must be another directory than the videos')
  setup = _setup(source, settings)
  _make_folder(out)
  with locked(out):
    target = RemoteTarget(place, out)
    target.check_folder()
    is_new = settings.restart or 'dataset.json' not in place.sizes()
    if is_new:
      earlier = _earlier(settings)
      print(f'Staging in {out}.', file=sys.stderr)
      staging = open_staging(out, source, setup, restart=settings.restart)
      target.begin(restart=settings.restart)
      local = dataclasses.replace(settings, out=str(out))
      _prepare(_Inputs(source, earlier, None), local, staging, target)
    manifest = place.read_json('dataset.json')
    if not is_new:
      finished_ns = place.modified_ns('dataset.json')
      check_same_dataset(place, manifest, finished_ns, source, setup)
    target.clean_up()
  return manifest, is_new


def _prepare(inputs, settings, staging, target):
  """Goes on from what is staged, to the end."""
  cluster = inputs.cluster
  plan = _complete_plan(inputs, settings, staging)
  if cluster:
    shards = plan_shards(plan, shard_bytes=settings.shard_bytes)
    cluster.write_shards(settings.out, shards)
  total = sum(
    row['num_frames'] for split in SPLITS for row in plan['rows'][split]
  )
  share = functools.partial(_in_advance, settings)
  check = functools.partial(_check_unchanged, inputs.source, staging, plan)
  check()
  with progress_bar('writing', 'frame', total) as bar:
    write_dataset(
      settings.out,
      plan,
      shard_bytes=settings.shard_bytes,
      progress=bar.update,
      target=target,
      check=check,
      in_advance=share if cluster is None and target is None else iter,
    )


def _complete_plan(inputs, settings, staging):
  """Returns the plan, when all frames are staged that are still needed."""
  source = inputs.source
  plan = read_json(_plan_path(staging))
  if is_plan(plan):
    check_same_inputs(settings.out, plan['inputs'], source)
  if not is_plan(plan) or plan.get(_TIMES) != times_digest(source.videos):
    plan = _make_plan(inputs, settings, staging)
  rows = unstaged_rows(settings.out, plan, shard_bytes=settings.shard_bytes)
  if not rows:
    return plan
  for row in rows:
    staging.forget(row)
  print(
    f'Note: the frames of {counted(len(rows), "video")} in '
    f'{staging.directory} are damaged or gone; decoding again.',
    file=sys.stderr,
  )
  return _make_plan(inputs, settings, staging)


def _make_plan(inputs, settings, staging):
  """Decodes what is not staged, and notes what the data set is to be."""
  source, cluster = inputs.source, inputs.cluster
  pool = cluster.pool(settings) if cluster else worker_pool(settings)
  records = _decode_all(inputs, settings, staging, pool)
  plan = make_plan(source, setup=staging.setup(), records=records)
  plan[_TIMES] = times_digest(source.videos)
  write_json(_plan_path(staging), plan, aside=staging.directory, indent=None)
  return plan


def _plan_path(staging):
  return staging.directory / 'plan.json'


def _check_unchanged(source, staging, plan):
  """Stops before a data set is of files that have become others meanwhile."""
  rows = [row for split in SPLITS for row in plan['rows'][split]]
  changed = changed_paths(source, rows)
  if changed:
    _plan_path(staging).unlink(missing_ok=True)
    raise InputError(
      f'{counted(len(changed), "video")} changed during this run, the first is '
      f'{changed[0]!r}; run the same command again: it prepares them as they '
      'are then'
    )


def _in_advance(settings, shards):
  """Yields shards as worker processes have made them, in any order.

  One that a process could not make is yielded, too: what is wrong shows when
  this process tries.
  """
  num_processes = min(settings.num_processes, len(shards))
  num_bytes = sum(row['num_bytes'] for shard in shards for row in shard.rows)
  if num_processes < 2 or num_bytes < LEAST_BYTES_TO_SHARE:
    yield from shards
    return
  pool = WorkerPool(
    make_shard_of_task,
    num_processes=num_processes,
    timeout_seconds=_SHARD_TIMEOUT_SECONDS,
    max_stall_seconds=_SHARD_TIMEOUT_SECONDS,
    max_memory_bytes=settings.max_memory_mib * 2**20,
  )
  tasks = [ShardTask(os.path.abspath(settings.out), shard) for shard in shards]
  with pool:
    for task, outcome in pool.run(tasks):
      if isinstance(outcome, str):
        raise OutputError(outcome)
      yield task.shard


def _setup(source, settings):
  """What a run must have in common with the one that it goes on with."""
  return {
    'name': source.name,
    'options': dataclasses.asdict(settings.frames) | source.options,
    'created_with': _versions(),
  }


def _versions():
  packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
  return packages | {FRAMES: FRAMES_VERSION}


def worker_pool(settings):
  """Returns the WorkerPool that decodes videos on this machine."""
  return WorkerPool(
    prepare_video,
    num_processes=settings.num_processes,
    timeout_seconds=settings.timeout_seconds,
    max_stall_seconds=settings.max_stall_seconds,
    max_memory_bytes=settings.max_memory_mib * 2**20,
  )


def _earlier(settings):
  """Looks up the data set to reuse: dict from id to EarlierVideo."""
  if settings.reuse is None:
    return {}
  return read_earlier(
    settings.reuse, settings.out, settings.frames, _versions()
  )


def _decode_all(inputs, settings, staging, pool):
  """Decodes what is not yet in the staging directory.

  Returns:
    dict from path to record, one for each video of the two splits.
  """
  source = inputs.source
  records, tasks = {}, []
  for video in source.videos:
    record = staging.record(video.id)
    if is_current(record, video):
      records[video.path] = record
    else:
      tasks.append(_task(video, inputs, settings))
  # By a digest of the path: those that are tried first speak for all.
  tasks.sort(key=lambda task: task.video.id)
  bad_share = BadShare(
    records,
    limit_percent=settings.max_bad_percent,
    report=staging.directory / 'skipped.json',
  )
  bad_share.check()
  bar = progress_bar('decoding', 'video', len(source.videos), len(records))
  with contextlib.ExitStack() as at_the_end:
    # Last of all, so that no process is writing any more.
    at_the_end.callback(staging.remove_leftovers)
    at_the_end.enter_context(pool)
    at_the_end.enter_context(bar)
    for task, outcome in _outcomes(pool, tasks):
      if isinstance(outcome, str):
        raise OutputError(outcome)
      if isinstance(outcome, Failure):
        digest = digest_or_empty(source.folder, task.video)
        outcome = {'source_sha256': digest, 'reason': outcome.reason}
      records[task.video.path] = outcome
      bar.update()
      bad_share.add(outcome)
      bad_share.check()
  if settings.reuse is not None:
    _print_copied(records, settings.reuse)
  return records


def _task(video, inputs, settings):
  return Task(
    folder=inputs.source.folder,
    video=video,
    out=os.path.abspath(settings.out),
    options=settings.frames,
    earlier=inputs.earlier.get(video.id),
  )


def _outcomes(pool, tasks):
  """Yields (task, outcome); no video is lost to an earlier data set."""
  again = []
  for task, outcome in pool.run(tasks):
    if task.earlier and isinstance(outcome, Failure):
      again.append(dataclasses.replace(task, earlier=None))
    else:
      yield task, outcome
  if again:
    yield from pool.run(again)


def _print_copied(records, directory):
  """Says how many frames are from an earlier data set, and which could not be."""
  real = os.path.realpath(directory)
  copied = [r for r in records.values() if r.get('copied_from') == real]
  print(
    f'The frames of {len(copied)} of {counted(len(records), "video")} are '
    f'from {directory}.',
    file=sys.stderr,
  )
  damaged = {
    path: record['not_copied']['reason']
    for path, record in sorted(records.items())
    if record.get('not_copied', {}).get('from') == real
  }
  if damaged:
    first, reason = next(iter(damaged.items()))
    print(
      f'Note: those of {counted(len(damaged), "video")} there could not be used, '
      f'and were decoded again; the first is {first!r}: {reason}.',
      file=sys.stderr,
    )
