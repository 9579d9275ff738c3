"""What stands where in the batches: a pure function of (seed, position).

The position of a clip or an image counts from the start of a training:
step * batch size + row of the global batch. Nothing here is remembered, so that
a run resumes at any step at once, and one host or several see the same batch.
"""

import numpy as np
import tensorflow as tf

# Training has no end of its own; steps * batch size must fit into int64.
_LAST_STEP = 2**40


def training_steps(*, start_step, seed):
  """Gives the steps of a training from a step on.

  Args:
    start_step: the first.
    seed: int, of the training.

  Returns:
    range.

  Raises:
    ValueError: if one of them is out of range.
  """
  if not 0 <= start_step < _LAST_STEP:
    raise ValueError(f'start_step must be at least 0, got {start_step}.')
  if seed < 0:
    raise ValueError(f'seed must be at least 0, got {seed}.')
  return range(start_step, _LAST_STEP)


def host_rows(batch_size, host_index, host_count):
  """Gives the rows of each global batch that are this host's.

  Args:
    batch_size: B, rows of a global batch.
    host_index: in [0, host_count).
    host_count: number of hosts, a divisor of batch_size.

  Returns:
    range within [0, B).

  Raises:
    ValueError: if the numbers do not fit together.
  """
  if batch_size < 1 or batch_size % host_count:
    raise ValueError(
      f'a batch of {batch_size} clips cannot be shared equally by '
      f'{host_count} hosts.'
    )
  if not 0 <= host_index < host_count:
    raise ValueError(f'host {host_index} is not one of {host_count} hosts.')
  share = batch_size // host_count
  return range(host_index * share, (host_index + 1) * share)


def visited(position, count, *, batch_size, seed):
  """Says which of `count` instances a training visits at a position.

  An epoch has count // batch_size batches and visits no instance twice. Each
  epoch has an order of its own; the last count % batch_size instances of that
  order wait for a later epoch.

  Args:
    position: int64 scalar tensor, or [n]: several of one batch.
    count: instances in all, at least batch_size.
    batch_size: rows of a global batch.
    seed: int >= 0, of the training.

  Returns:
    int64 tensor of that shape, in [0, count).
  """
  epoch_size = count // batch_size * batch_size
  # An epoch ends with a batch.
  epoch = tf.reshape(position, [-1])[0] // epoch_size
  return _shuffled(position % epoch_size, count, seed=tf.stack([seed, epoch]))


def same_row(position, count, *, batch_size, seed):
  """Gives what may stand at a position in place of what stands there.

  It stands in the same row of the other batches of the epoch, or in none: of
  what the epoch leaves over, each is for one row. So no other row of any batch
  is given the same.

  Args:
    position: int.
    count: as in `visited`.
    batch_size: as in `visited`.
    seed: as in `visited`.

  Returns:
    (positions, instances): int64 [n] both, of the next batch first, and after
    the last of the epoch of the first; at last, at the position itself, what is
    left over for its row, if anything is.
  """
  epoch_size = count // batch_size * batch_size
  epoch, at = divmod(position, epoch_size)
  places = np.arange(at + batch_size, at + epoch_size, batch_size) % epoch_size
  positions = epoch * epoch_size + places
  row = at % batch_size
  if epoch_size + row < count:
    places = np.append(places, epoch_size + row)
    positions = np.append(positions, position)
  if not places.size:  # of which the op makes none
    return positions, places
  order = tf.constant([seed, epoch], tf.int64)
  return positions, _shuffled(places, count, seed=order).numpy()


def seed_at(position, *, seed):
  """Gives a seed for everything random at a position.

  Args:
    position: int64 scalar tensor.
    seed: int >= 0, of the training.

  Returns:
    int64 [2].
  """
  return tf.random.fold_in(tf.constant([seed, 0], tf.int64), position)


def _shuffled(index, count, *, seed):
  """The index-th number of a random order of range(count), in no memory.

  Args:
    index: int64 scalar tensor or [n], in [0, count).
    count: int >= 1.
    seed: int64 [2]; each seed has an order of its own.

  Returns:
    int64 tensor of the shape of index.
  """
  # The op uses few bits of each word of its key, 8 for a count up to 2**16:
  # given (seed, epoch) itself it would repeat every 256th epoch. Hence three
  # words with all bits mixed; hence not index_shuffle, which takes two.
  key = tf.random.stateless_uniform(
    (3,), seed=seed, minval=None, maxval=None, dtype=tf.int32
  )
  return tf.raw_ops.RandomIndexShuffle(
    index=index, seed=key, max_index=tf.constant(count - 1, tf.int64), rounds=8
  )
