"""The machinery of tf.data behind the pipeline: threads, prefetch, closing.

What a clip is, is the pipeline's business; here clips are made in parallel, in
the order of their positions, and put together to batches, or whole batches are
made one after the other.
"""

import contextlib
import functools
import os
import pathlib
import weakref

import tensorflow as tf

# Microseconds of processor time in each so many (control groups, version 2).
_CPU_LIMIT = pathlib.Path('/sys/fs/cgroup/cpu.max')


class _Batches:
  """An iterator over batches that can be closed.

  A TensorFlow iterator that calls Python must be gone before the interpreter
  ends, or the process hangs or aborts. So it has one owner, which drops it
  when closed, when collected, and at the latest before the interpreter ends.

  The arguments are those of `open_batches`.
  """

  def __init__(
    self,
    clips,
    *,
    steps,
    batch_size,
    rows,
    make_batch,
    num_batches_at_once,
    num_threads,
    num_prefetched,
  ):
    self._clips = clips
    self._steps = steps
    self._num_rows = len(rows)
    self._make_batch = make_batch
    # No methods: what TensorFlow holds must not hold this object.
    self._positions = functools.partial(_positions, batch_size, rows)
    self._whole_batch = functools.partial(
      _whole_batch, batch_size, rows, make_batch
    )
    self._num_batches_at_once = num_batches_at_once
    self._num_threads = num_threads
    self._num_prefetched = num_prefetched
    self._owned = {}
    self._start()
    self.close = weakref.finalize(self, self._owned.clear)

  def __iter__(self):
    return self

  def __next__(self):
    if not self._owned:
      raise RuntimeError(
        'These batches are closed: take them inside the with-statement.'
      )
    batch = self._next()
    self._steps = self._steps[1:]
    self._clips.count(batch)
    return batch

  def _next(self):
    """The next batch, without what cannot be decoded."""
    while True:
      try:
        return next(self._owned['iterator'])
      except tf.errors.OpError:
        # TensorFlow does not say which file it stumbled over, and has lost
        # the rest of the batch.
        positions = self._positions(tf.constant(self._steps.start, tf.int64))
        found = [self._clips.find_damage(position) for position in positions]
        if not any(found):
          raise
        self._start()
      except BaseException as error:
        # TensorFlow's frames keep the iterator for as long as the error lives.
        raise error.with_traceback(None) from None

  def _start(self):
    """Begins to make the batches of the steps that are left."""
    self._owned.clear()
    batches = tf.data.Dataset.range(self._steps.start, self._steps.stop)
    if self._make_batch is not None:
      batches = batches.map(
        self._whole_batch,
        num_parallel_calls=self._num_batches_at_once,
      )
    else:
      batches = batches.flat_map(self._positions)
      batches = batches.map(
        tf.autograph.experimental.do_not_convert(self._clips.make),
        num_parallel_calls=self._num_threads,
        deterministic=True,
      )
      batches = batches.batch(self._num_rows, drop_remainder=True)
    if self._num_prefetched:
      batches = batches.prefetch(self._num_prefetched)
    batches = batches.with_options(_options(self._num_threads))
    self._owned['iterator'] = batches.as_numpy_iterator()


@contextlib.contextmanager
def open_batches(
  clips,
  *,
  steps,
  batch_size,
  rows,
  make_batch=None,
  num_batches_at_once=None,
  num_threads=None,
  num_prefetched=2,
):
  """Gives an iterator over the batches of a range of steps.

  To be used in a with-statement, at the end of which reading stops.

  Args:
    clips: has make(position) -> dict of tensors, the clip at a global position
      (step * batch_size + row); find_damage(position) -> bool, whether it has
      found, and noted, why that clip could not be made, so that it can be now;
      and count(batch), which is given each batch that is taken.
    steps: range of steps, one batch each.
    batch_size: B, clips in a global batch.
    rows: range within [0, B), this host's rows of each batch.
    make_batch: makes a batch at once, of the int64 tensor [len(rows)] of its
      positions, in place of clips.make; None if each clip is made alone.
    num_batches_at_once: that make_batch makes; None for one after the other.
    num_threads: for reading and decoding; None for one per core.
    num_prefetched: batches made ahead of time; 0 makes each when it is asked
      for.

  Yields:
    An iterator over dicts of NumPy arrays [len(rows), ...].
  """
  batches = _Batches(
    clips,
    steps=steps,
    batch_size=batch_size,
    rows=rows,
    make_batch=make_batch,
    num_batches_at_once=num_batches_at_once,
    num_threads=num_threads or num_cores(),
    num_prefetched=num_prefetched,
  )
  try:
    yield batches
  finally:
    batches.close()


def hide_accelerators():
  """Keeps TensorFlow off the devices that JAX computes on."""
  for kind in ('GPU', 'TPU'):
    # Too late once TensorFlow has started; then it can only be left alone.
    with contextlib.suppress(RuntimeError):
      tf.config.set_visible_devices([], kind)


def _positions(batch_size, rows, step):
  """This host's positions of a step: a tf.data.Dataset."""
  first = step * batch_size
  return tf.data.Dataset.range(first + rows.start, first + rows.stop)


@tf.autograph.experimental.do_not_convert
def _whole_batch(batch_size, rows, make_batch, step):
  first = step * batch_size
  return make_batch(tf.range(first + rows.start, first + rows.stop))


def _options(num_threads):
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  options.threading.private_threadpool_size = num_threads
  options.threading.max_intra_op_parallelism = 1
  return options


def num_cores():
  """Cores that this process may use, as a container's share of time allows."""
  if hasattr(os, 'sched_getaffinity'):
    count = len(os.sched_getaffinity(0))
  else:
    count = os.cpu_count() or 1
  try:
    quota, period = map(int, _CPU_LIMIT.read_text().split())
  # No container, or 'max': none has a limit.
  except (OSError, ValueError):
    return count
  return min(count, -(-quota // period))
