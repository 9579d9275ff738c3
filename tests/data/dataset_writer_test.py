import itertools

import pytest
from dataset import dataset_writer


@pytest.mark.parametrize(
  'sizes, limit, expected',
  [
    ([], 10, []),
    ([3], 10, [(0, 1)]),
    ([4, 4, 4, 4], 10, [(0, 2), (2, 4)]),
    ([5, 5, 1], 10, [(0, 2), (2, 3)]),
    ([50, 1, 1], 10, [(0, 1), (1, 3)]),
    ([1, 50, 1], 10, [(0, 1), (1, 2), (2, 3)]),
  ],
)
def test_shards_hold_whole_videos_up_to_their_size(sizes, limit, expected):
  assert dataset_writer.shard_plan(sizes, shard_bytes=limit) == expected


def test_there_are_never_too_many_shards():
  bounds = dataset_writer.shard_plan([7] * 100_000, shard_bytes=10)
  assert len(bounds) <= dataset_writer.MAX_SHARDS + 1
  assert bounds[0][0] == 0
  assert bounds[-1][1] == 100_000
  for (_, end), (start, _) in itertools.pairwise(bounds):
    assert end == start
