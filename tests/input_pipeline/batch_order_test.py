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
