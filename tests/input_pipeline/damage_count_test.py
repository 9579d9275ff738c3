"""Which rows of which batches count as damaged."""

import numpy as np
import pytest

from vie_jax.input_pipeline import bad_frames, damage_count, dataset_folder

OPTIONS = {
  'num_rows': 6,
  'name_of': 'abcdef'.__getitem__,
  'location': 'a folder',
  'remedy': 'Mend it.',
}


def batch_of(instance_index, bad_frames, is_valid=()):
  return {
    'instance_index': np.array(instance_index, np.int32),
    'clip_index': np.zeros(len(instance_index), np.int32),
    'bad_frames': np.array(bad_frames, np.int32),
    'is_valid': np.array(is_valid, bool),
  }


def test_a_training_counts_frames_of_all_batches():
  counted = damage_count.TrainingCount(
    bad_frames.BadFrames(max_share=0.4), num_frames=4, **OPTIONS
  )
  counted.count(batch_of([2, 0, 1], [1, 0, 2]))
  counted.count(batch_of([2, 3, 4], [3, 0, 0]))
  assert (counted.damage.num_frames, counted.damage.num_bad) == (24, 6)
  with pytest.raises(dataset_folder.DatasetError) as caught:
    counted.count(batch_of([5, 1, 0], [4, 4, 4]))
  assert "'c' of a folder (4)" in str(caught.value)
  assert str(caught.value).endswith('Mend it.')


def test_what_another_one_stands_for_is_named():
  counted = damage_count.TrainingCount(
    bad_frames.BadFrames(max_share=0.3), num_frames=4, **OPTIONS
  )
  batch = batch_of([2, 0, 1], [4, 0, 4])
  batch['asked_index'] = np.array([3, 0, 4], np.int32)
  with pytest.raises(dataset_folder.DatasetError) as caught:
    counted.count(batch)
  assert "'d' of a folder (4), 'e' of a folder (4)" in str(caught.value)


@pytest.mark.parametrize(
  'leaves_out, clips, num_frames',
  [(False, {'0/0': 1}, 2), (True, {'0/0': 1, '2/0': 1}, 3)],
)
def test_what_is_left_out_counts_and_copies_do_not(
  leaves_out, clips, num_frames
):
  counted = damage_count.EvaluationCount(
    bad_frames.BadFrames(max_share=1),
    split='val',
    leaves_out=leaves_out,
    num_frames=1,
    **OPTIONS,
  )
  # Row 2 is damaged and not valid, row 3 the copy of a sound one.
  counted.count(
    batch_of([0, 1, 2, 1], [1, 0, 1, 0], [True, True, False, False])
  )
  assert counted.damage.left_out == ({'val': {2}} if leaves_out else {})
  assert counted.damage.num_frames == num_frames
  assert counted.damage.clips['val'] == clips


def test_an_evaluation_that_goes_on_is_judged_with_what_was_before():
  """As if it had not been interrupted, and without what it makes again."""
  damage = bad_frames.BadFrames(max_share=0.5)
  damage.clips['val'] = {'0/0': 4, '1/0': 4, '1/1': 1, '2/0': 3, '10/0': 4}
  counted = damage_count.EvaluationCount(
    damage, split='val', num_frames=4, leaves_out=True, **OPTIONS
  )
  counted.go_on_from((2, 0), 4)
  # 9 of 16 frames, then 9 of 20, 13 of 24: 6 clips are an evaluation.
  counted.count(batch_of([2], [0], [True]))
  with pytest.raises(dataset_folder.DatasetError, match='13 of 24 frames'):
    counted.count(batch_of([3], [4], [False]))


def test_what_an_evaluation_before_left_out_does_not_count():
  damage = bad_frames.BadFrames(max_share=1)
  for lost in (2, 4):
    counted = damage_count.EvaluationCount(
      damage, split='val', leaves_out=True, num_frames=1, **OPTIONS
    )
    counted.count(batch_of([lost], [1], [False]))
    assert damage.left_out == {'val': {lost}}
