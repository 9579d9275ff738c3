"""Makes batches of clips: what is chosen is read, decoded and put together.

Several threads or processes share a batch. Which clips there are, and which
frames and crops make them, is the business of `pipeline`. A clip whose video
has no sound frame is replaced by one of another video, as whose it counts, or
left out: here, so that all of them do it in the same way.
"""

import contextlib
import dataclasses
import functools
import pathlib
import resource
import types

import numpy as np
import tensorflow as tf

from vie_jax.input_pipeline import (
  batch_iterator,
  decode_processes,
  decode_threads,
  shared_arrays,
  sound_frames,
)

# Fewer threads get along with each other, and processes take memory, and time
# to start. Of more cores than the second number, whoever has the memory says so.
_MIN_PROCESSES, _MAX_PROCESSES = 4, 64
# Threads of such a process, most of them of array_record's, and how many
# openings of batches there are at a time: a training, and its evaluation.
_THREADS_OF_PROCESS, _OPENINGS = 68, 2
# How many threads a container may have (control groups, version 2).
_TASK_LIMIT = pathlib.Path('/sys/fs/cgroup/pids.max')
# How many clips are looked at for one that can stand for another.
_MAX_STAND_INS = 100


def copied(error: Exception) -> Exception:
  """The same error without its traceback, of whatever arguments its class is."""
  # As it would be pickled: of an OSError, the file is none of `args`.
  _, arguments, *_ = error.__reduce__()
  copy = type(error).__new__(type(error), *arguments)
  vars(copy).update(vars(error))
  return copy


@dataclasses.dataclass(frozen=True)
class _Workers:
  """How many there are where nobody says it, and what they are given.

  Attributes:
    processes_per_core: int.
    min_threads: int.
    busy_with: batches whose shares all processes work on, a share each.
  """

  processes_per_core: int
  min_threads: int
  busy_with: int


_LOCAL = _Workers(processes_per_core=1, min_threads=1, busy_with=1)
# Behind a URL: most of them wait, so that many clips have to be on their way.
_REMOTE = _Workers(processes_per_core=2, min_threads=32, busy_with=3)


class Clips:
  """Makes the clips of a batch: choose, then read and decode.

  Args:
    store: FrameStore.
    table: has video(instance_index) and label(instance_index), int32 [n] both.
    visit: function from positions, an int64 tensor [n], to what stands there.
    choose: function of both, as arrays, to the instances, their frame numbers,
      their boxes, and a dict of what else the batch has, of each a number.
    num_frames: T.
    size: side of the square that the network sees, in pixels.
    window: W, in pixels.
    counted: of damage_count: its BadFrames, and its count, are those of the
      clips.
    crops_before_resize: see augmentation.
    extra: dict of the names of what else the batch has to their types.
    stand_ins: function from a position to what may stand for a clip of a video
      without a sound frame: int64 [n], positions, and what stands there, see
      batch_order.same_row; None if no clip may.
    leaves_out: whether such a clip is left out, and not valid; if neither, it
      is an error.

  Attributes:
    frames: SoundFrames, which reads and decodes them.
    num_frames: likewise.
    count: takes note of the damage of a batch, see damage_count.
  """

  def __init__(
    self,
    store,
    table,
    visit,
    choose,
    num_frames,
    size,
    window,
    counted,
    *,
    crops_before_resize,
    extra=types.MappingProxyType({}),
    stand_ins=None,
    leaves_out=False,
  ):
    self._table = table
    self._visit = visit
    self._choose = choose
    self._stand_ins = stand_ins
    self._leaves_out = leaves_out
    self._ended_by = None
    self._shape = num_frames, window, window, 3
    self._types = {
      'instance_index': (tf.int32, ()),
      'frame_numbers': (tf.int32, (num_frames,)),
      'label': (tf.int32, ()),
      'window': (tf.uint8, self._shape),
      'crop': (tf.float32, (4,)),
      'bad_frames': (tf.int32, ()),
      **{name: (dtype, ()) for name, dtype in extra.items()},
    }
    self.num_frames = num_frames
    self.frames = sound_frames.SoundFrames(
      store,
      counted.damage,
      size=size,
      window=window,
      crops_before_resize=crops_before_resize,
    )
    self.count = counted.count

  def make_batch(self, decoder, positions):
    """Gives a batch, in a graph.

    Args:
      decoder: DecodeThreads or DecodeProcesses.
      positions: int64 tensor [n].

    Returns:
      dict of tensors.
    """

    def make(positions, visited):
      try:
        rows = self._make_rows(decoder.read, positions, visited)
      except Exception as error:
        self._ended_by = error
        raise
      return [rows[name] for name in self._types]

    dtypes, shapes = zip(*self._types.values(), strict=True)
    made = tf.numpy_function(make, [positions, self._visit(positions)], dtypes)
    return {
      name: tf.ensure_shape(column, (*positions.shape, *shape))
      for name, column, shape in zip(self._types, made, shapes, strict=True)
    }

  def find_damage(self, unused_position):
    """Raises what ended the graph as what it is; see open_batches.

    Args:
      unused_position: int64 scalar tensor. What ends a batch may end those
        before it, too: of other processes, that are not tried any more.

    Returns:
      False: what can be replaced has been.

    Raises:
      Exception: whatever making a clip has raised, such as a DatasetError.
    """
    if self._ended_by is not None:
      # A copy. By its traceback, what is raised holds the batches; were it kept
      # here, one of their own threads could drop it, and wait for itself.
      raise copied(self._ended_by)
    return False

  def _make_rows(self, read, positions, visited):
    """Gives the columns of a batch.

    Args:
      read: as that of DecodeThreads.
      positions: int64 [n].
      visited: what stands there.

    Returns:
      dict of arrays [n, ...].
    """
    rows, *choice = self._rows(positions, visited)
    # Copies that fill the last batch have no damage of their own.
    is_counted = np.copy(rows.get('is_valid', True))
    rows['window'], rows['crop'], rows['bad_frames'], lost = read(*choice)
    if any(lost):
      self._do_without(read, rows, positions, choice[0], lost)
    rows['bad_frames'] *= is_counted
    return rows

  def _do_without(self, read, rows, positions, video, sentences):
    """Replaces clips of videos without a sound frame, or leaves them out.

    Args:
      read: as that of DecodeThreads.
      rows: of a batch, to be changed.
      positions: int64 [n].
      video: int [n], what stands there.
      sentences: n strings, of `read`: '' where a video is not lost.
    """
    lost = [row for row, sentence in enumerate(sentences) if sentence]
    rows['bad_frames'][lost] = self.num_frames
    if self._stand_ins is not None:
      outcomes = self._replace(read, rows, positions, sentences, lost)
    elif self._leaves_out:
      rows['window'][lost] = 0
      rows['is_valid'][lost] = False
      outcomes = dict.fromkeys(lost, 'It is left out.')
    else:
      raise sound_frames.lost_error(self.frames.store, sentences[lost[0]])
    for row in lost:
      self.frames.name_lost(video[row], sentences[row], outcomes[row])

  def _replace(self, read, rows, positions, sentences, lost):
    """Puts clips that have sound frames in the place of those of lost videos.

    Returns:
      dict: row -> a sentence that says so.
    """
    others = {row: self._others(positions[row]) for row in lost}
    outcomes, num_tried = {}, 0
    while others:
      tried = {row: next(choices, None) for row, choices in others.items()}
      for row, other in tried.items():
        if other is None:
          raise self._without_others(sentences[row], num_tried)
      found, video, *choice = self._rows(*np.transpose([*tried.values()]))
      found['window'], found['crop'], _, is_lost = read(video, *choice)
      num_tried += 1
      for number, row in enumerate(tried):
        if is_lost[number]:
          continue
        for name in found.keys() - {'asked_index'}:
          rows[name][row] = found[name][number]
        del others[row]
        outcomes[row] = (
          f'A clip of {self.frames.store.paths[video[number]]!r} is shown '
          'instead, as one of that video; later visits are counted, not named.'
        )
    return outcomes

  def _others(self, position):
    """Yields what may stand for a clip: its position, and what stands there."""
    positions, visited = self._stand_ins(int(position))
    yield from zip(
      positions[:_MAX_STAND_INS], visited[:_MAX_STAND_INS], strict=True
    )

  def _without_others(self, sentence, num_tried):
    """The DatasetError for a video that no other one can stand for."""
    return sound_frames.lost_error(
      self.frames.store,
      sentence,
      f'Of the {num_tried} clips that may stand for it, those at its place of '
      'the other batches of an epoch, none has a sound frame: a lower '
      'batch_size gives more of them.',
    )

  def _rows(self, positions, visited):
    """Chooses: columns of the batch, videos, frame numbers and boxes."""
    instance_index, frame_numbers, box, extra = self._choose(positions, visited)
    rows = {
      'instance_index': instance_index.astype(np.int32),
      'frame_numbers': frame_numbers,
      'label': self._table.label(instance_index),
      **extra,
    }
    return rows, self._table.video(instance_index), frame_numbers, box


@contextlib.contextmanager
def open_batches(
  clips, *, rows, num_threads, num_prefetched, decode_in, **options
):
  """Gives the iterator over batches of clips; see batch_iterator.

  Args:
    clips: Clips.
    rows: see batch_iterator.open_batches.
    num_threads: that read and decode; None for one per core, and for 64
      processes at most. From URLs it is more, as most of them wait.
    num_prefetched: see batch_iterator.open_batches.
    decode_in: 'threads' of this process, as many 'processes' beside it, or
      'auto': processes where four or more of them have a core each, or half of
      one if they wait for a URL, and the system allows their threads.
    **options: of batch_iterator.open_batches.

  Yields:
    The iterator.
  """
  num_cores = batch_iterator.num_cores()
  workers = _REMOTE if clips.frames.store.is_remote else _LOCAL
  num_processes = num_threads or min(
    workers.processes_per_core * num_cores, _MAX_PROCESSES
  )
  num_threads = num_threads or max(workers.min_threads, num_cores)
  if decode_in == 'auto':
    num_processes = min(num_processes, _room_for_processes())
    num_busy = min(num_processes, workers.processes_per_core * num_cores)
    decode_in = _best_place(num_busy)
  num_batches_at_once = None
  if decode_in == 'processes':
    busy_with = workers.busy_with if num_prefetched else 1
    if num_prefetched:
      # While the last clips of a batch are made, the next one is begun.
      num_batches_at_once = busy_with + 1
    decoder = decode_processes.DecodeProcesses(
      clips.frames,
      clips.num_frames,
      num_processes=min(num_processes, busy_with * len(rows)),
      num_rows=len(rows),
      num_shares=-(-num_processes // busy_with),
    )
  else:
    decoder = decode_threads.DecodeThreads(
      clips.frames, clips.num_frames, num_threads
    )
  with (
    decoder,
    batch_iterator.open_batches(
      clips,
      rows=rows,
      make_batch=functools.partial(clips.make_batch, decoder),
      num_batches_at_once=num_batches_at_once,
      num_threads=num_threads,
      num_prefetched=num_prefetched,
      **options,
    ) as batches,
  ):
    yield batches


def _best_place(num_busy):
  if num_busy < _MIN_PROCESSES or not shared_arrays.is_supported():
    return 'threads'
  return 'processes'


def _room_for_processes():
  """How many processes the limits on threads leave room for."""
  limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
  if limit == resource.RLIM_INFINITY:
    limit = 2**31
  # No container, or 'max': none has a limit.
  with contextlib.suppress(OSError, ValueError):
    limit = min(limit, int(_TASK_LIMIT.read_text()))
  return limit // (_OPENINGS * _THREADS_OF_PROCESS)
