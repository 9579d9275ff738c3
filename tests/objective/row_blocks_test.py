import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vie_jax.objective import row_blocks


@pytest.mark.parametrize('most_rows', [1, 100, 128, 1000, 1024, 5000])
@pytest.mark.parametrize('num_rows', [1, 127, 128, 2000, 2048, 4999])
def test_blocks_are_few_equal_and_of_whole_groups(num_rows, most_rows):
  block = row_blocks.rows_of_block(num_rows, most_rows)
  assert 1 <= block <= min(num_rows, most_rows)
  if num_rows <= most_rows:
    assert block == num_rows
    return
  if most_rows >= row_blocks.MULTIPLE:
    assert block % row_blocks.MULTIPLE == 0
  # As few as the largest block of whole groups would need.
  largest = max(most_rows // 128 * 128, min(most_rows, 127))
  assert -(-num_rows // block) == -(-num_rows // largest)


@pytest.mark.parametrize(
  ('num_rows', 'most_rows'), [(2000, 1000), (2048, 700), (300, 7), (500, 500)]
)
def test_every_row_counts_once(num_rows, most_rows):
  seen_blocks = []

  def step(counts, row, is_new):
    seen_blocks.append(row.shape[0])
    return counts.at[row].add(is_new.astype(jnp.int32))

  counts = jax.jit(
    lambda: row_blocks.fold(
      step,
      jnp.zeros((num_rows,), jnp.int32),
      num_rows=num_rows,
      block_rows=most_rows,
    )
  )()
  np.testing.assert_array_equal(counts, 1)
  block = row_blocks.rows_of_block(num_rows, most_rows)
  assert set(seen_blocks) == {block}
