"""Hashes of pictures: what changes them, and what does not."""

import io

import numpy as np
import pytest
import sample_pictures
from pages import video_hashes
from PIL import Image


def differing(one, other):
  return (one ^ other).bit_count()


def test_a_copy_of_another_size_and_quality_has_nearly_the_same_hash():
  original = sample_pictures.smooth(0)
  data = io.BytesIO()
  original.resize((60, 40)).save(data, 'JPEG', quality=40)
  hashes = [
    video_hashes.picture_hash(p)[0]
    for p in (original, sample_pictures.smooth(1))
  ]
  copy, waves, is_flat = video_hashes.picture_hash(Image.open(data))
  assert not is_flat
  _, others, _ = video_hashes.picture_hash(original)
  assert np.abs(waves.astype(int) - others).max() <= 10
  assert differing(copy, hashes[0]) <= 4
  assert differing(copy, hashes[1]) > 16


@pytest.mark.parametrize('noise', [0, 2])
def test_black_and_nearly_even_pictures_are_flat(noise):
  grey = np.random.default_rng(0).integers(0, noise + 1, (64, 96), np.uint8)
  bits, waves, is_flat = video_hashes.picture_hash(Image.fromarray(grey))
  assert (bits, waves.any(), is_flat) == (0, False, True)


@pytest.mark.parametrize('num_frames', [1, 2, 3, 250])
def test_three_frames_spread_over_the_video_stand_for_it(num_frames):
  numbers = video_hashes.frame_numbers(num_frames)
  assert len(numbers) == video_hashes.NUM_PLACES
  assert sorted(numbers) == numbers
  assert numbers[0] >= 0
  assert numbers[-1] < num_frames
  if num_frames == 250:
    assert numbers == [41, 125, 208]
