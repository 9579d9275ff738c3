"""What stands where: several positions at once, and one by one."""

import numpy as np
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
  options = {'batch_size': 2}
  found = [*batch_order.same_row(10 + 5, 11, **options)]
  assert found == [17, 19, 11, 13]
  assert [*batch_order.same_row(8 + 1, 11, batch_size=4)] == [13]
  assert [*batch_order.same_row(33, 11, batch_size=11)] == []
  for epoch in (0, 1, 2**33):
    for row in range(2):
      others = [
        *batch_order.same_row(epoch * 10 + 4 + row, 11, **options),
        epoch * 10 + 4 + row,
      ]
      assert sorted(others) == [epoch * 10 + 2 * b + row for b in range(5)]
