"""What stands where: several positions at once, and one by one."""

import numpy as np
import pytest
import tensorflow as tf

from vie_jax.input_pipeline import batch_order


def test_the_rows_of_a_batch_are_those_of_their_positions():
  for count, batch_size in ((11, 4), (12, 12), (70_000, 64)):
    for step in (0, 1, 7, 2**33):
      positions = step * batch_size + np.arange(batch_size)
      options = {'batch_size': batch_size, 'seed': 3}
      together = batch_order.visited(
        tf.constant(positions, tf.int64), count, **options
      )
      alone = [
        batch_order.visited(tf.constant(position, tf.int64), count, **options)
        for position in positions
      ]
      np.testing.assert_array_equal(together, np.stack(alone))
      assert len(set(together.numpy().tolist())) == batch_size


def test_the_same_row_of_the_other_batches_of_an_epoch():
  # 11 instances: an epoch of 2 batches of 4, and of 5 of 2.
  def positions(position, batch_size):
    found, _ = batch_order.same_row(position, 11, batch_size=batch_size, seed=3)
    return found.tolist()

  assert positions(10 + 5, 2) == [17, 19, 11, 13]
  assert positions(8 + 1, 4) == [13, 9]  # and one that is left over
  assert positions(8 + 3, 4) == [15]
  assert positions(33, 11) == []
  for epoch in (0, 1, 2**33):
    others = positions(epoch * 10 + 5, 2)
    assert sorted([*others, epoch * 10 + 5]) == [
      epoch * 10 + 2 * b + 1 for b in range(5)
    ]


@pytest.mark.parametrize('count, batch_size', [(11, 4), (11, 2), (40, 16)])
def test_each_instance_of_an_epoch_may_stand_in_one_row(count, batch_size):
  options = {'batch_size': batch_size, 'seed': 3}
  epoch_size = count // batch_size * batch_size
  order = batch_order.visited(
    tf.range(epoch_size, 2 * epoch_size, dtype=tf.int64), count, **options
  ).numpy()
  found = []
  for row in range(batch_size):
    positions, instances = batch_order.same_row(
      epoch_size + row, count, **options
    )
    for position, instance in zip(positions, instances, strict=True):
      if position != epoch_size + row:
        assert order[position - epoch_size] == instance
    found += [order[row], *instances]
  assert sorted(found) == list(range(count))
