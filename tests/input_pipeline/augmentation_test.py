"""The geometry of clips."""

import json
import pathlib
import types

import numpy as np
import pytest

from vie_jax.input_pipeline import augmentation

OFFICIAL = json.loads(
  (pathlib.Path(__file__).parents[1] / 'oracle/augmentation.json').read_text()
)


def train_boxes(height, width, seeds, size, short_side_min, short_side_max):
  return augmentation.train_box(
    np.full(len(seeds), height),
    np.full(len(seeds), width),
    size=size,
    short_side_min=short_side_min,
    short_side_max=short_side_max,
    seed=np.array(seeds, np.int64),
  )


def resized_and_offset(height, width, size, box):
  resized = np.array([height, width]) * size / box[2:]
  return resized, box[:2] * size / box[2:]


@pytest.mark.parametrize(
  'key, size', [('random_resize_256_320', 224), ('random_resize_128_160', 112)]
)
def test_frames_are_resized_to_the_official_sides(key, size):
  for case in OFFICIAL[key]['examples']:
    width, height = case['input_width_height']
    short_side = case['target_short_side']
    (box,) = train_boxes(height, width, [[1, 2]], size, short_side, short_side)
    resized, _ = resized_and_offset(height, width, size, box)
    expected = case['output_width_height'][::-1]
    np.testing.assert_allclose(resized, expected, rtol=1e-12)


def test_eval_crop_is_the_official_one():
  for case in OFFICIAL['center_crop']:
    width, height = case['input_width_height']
    size = case['crop']
    # A frame that already has its short side keeps its pixels.
    (box,) = augmentation.eval_box(
      np.array([height]),
      np.array([width]),
      size=size,
      short_side=min(width, height),
    )
    expected = [case['top'], case['left'], size, size]
    np.testing.assert_allclose(box, expected, rtol=1e-12)


def test_train_crops_are_uniform_over_sizes_and_places():
  height, width, size = 30, 41, 20
  seeds = np.stack([np.arange(1600), np.ones(1600, int)], axis=1)
  boxes = train_boxes(height, width, seeds, size, 22, 25)
  resized, offset = (
    np.round(value).astype(int)
    for value in (
      np.array([height, width]) * size / boxes[:, 2:],
      boxes[:, :2] * size / boxes[:, 2:],
    )
  )
  short_sides, counts = np.unique(resized[:, 0], return_counts=True)
  assert short_sides.tolist() == [22, 23, 24, 25]
  assert counts.min() > 330
  for short_side in short_sides:
    rows = resized[:, 0] == short_side
    long_side = width * short_side // height
    for axis, last in enumerate([short_side - size, long_side - size]):
      places, counts = np.unique(offset[rows, axis], return_counts=True)
      assert places.tolist() == list(range(last + 1))
      assert counts.min() > 0.4 * counts.mean()


POSITIONS = {
  'c': augmentation.CENTER,
  'tl': augmentation.TOP_LEFT,
  'tr': augmentation.TOP_RIGHT,
  'bl': augmentation.BOTTOM_LEFT,
  'br': augmentation.BOTTOM_RIGHT,
}
SCALES = (1.0, 0.84089641525, 0.7071067811803005, 0.5946035574934808, 0.5)


def corners(box):
  """Left, top, right, bottom, as Pillow has them, of a box."""
  top, left, height, width = np.asarray(box)
  return [left, top, left + width, top + height]


def restated_corner_crop(height, width, scale, position):
  """Left, top, right, bottom by integer arithmetic alone."""
  side = int(min(height, width) * scale)
  if position == 'c':
    half, middle = side // 2, (width // 2, height // 2)
    low = [place - half for place in middle]
    return [*low, *(place + half for place in middle)]
  left = width - side if 'r' in position else 0
  top = height - side if 'b' in position else 0
  return [left, top, left + side, top + side]


def corner_box(height, width, scale, position):
  (box,) = augmentation.corner_box(
    np.array([height]),
    np.array([width]),
    scale=np.array([scale]),
    position=np.array([position]),
  )
  return box


def test_multiscale_crops_are_the_official_boxes():
  official = OFFICIAL['corner_crop']
  width, height = official['input_width_height']
  assert sorted({case['scale'] for case in official['boxes']}) == sorted(SCALES)
  for case in official['boxes']:
    box = corner_box(height, width, case['scale'], POSITIONS[case['position']])
    assert box.dtype == np.float64
    assert corners(box) == case['left_top_right_bottom']
  (box,) = augmentation.multiscale_eval_box(
    np.array([height]), np.array([width])
  )
  assert corners(box) == OFFICIAL['corner_crop_validation']['box']


@pytest.mark.parametrize(
  'method, multiscale_eval, expected',
  [
    ('short_side', 'largest_square', 'short_side'),
    ('multiscale', 'largest_square', 'multiscale'),
    ('multiscale', 'short_side', 'short_side'),
  ],
)
def test_evaluation_may_crop_in_another_way(method, multiscale_eval, expected):
  crop = types.SimpleNamespace(method=method, multiscale_eval=multiscale_eval)
  assert augmentation.eval_method(crop) == expected


def test_multiscale_crops_of_any_frame_follow_the_rule():
  rng = np.random.default_rng(0)
  for height, width in rng.integers(2, 700, (60, 2)).tolist():
    scale = SCALES[rng.integers(5)]
    for name, position in POSITIONS.items():
      box = corner_box(height, width, scale, position)
      expected = restated_corner_crop(height, width, scale, name)
      if min(height, width) > 3:
        assert corners(box) == expected


@pytest.mark.parametrize('root', range(5))
def test_rounding_of_the_scales_moves_no_side(root):
  # The official numbers are not quite the fourth roots of powers of a half.
  exact, official = 2 ** (-root / 4), SCALES[root]
  assert exact == pytest.approx(official, abs=1e-10)
  sides = np.arange(1, 8192)
  np.testing.assert_array_equal(
    np.trunc(sides * exact), np.trunc(sides * official)
  )


@pytest.mark.parametrize('sides', [(1, 1), (1, 7), (2, 2), (3, 2)])
def test_multiscale_crops_of_tiny_frames_have_a_pixel(sides):
  for scale in SCALES:
    for position in POSITIONS.values():
      box = corner_box(*sides, scale, position)
      assert np.all(box[2:] >= 1)
      assert np.all(box[:2] >= 0)
      assert np.all(box[:2] + box[2:] <= sides)


def test_multiscale_crops_are_uniform_over_scales_and_places():
  height, width = 96, 128

  boxes = augmentation.multiscale_train_box(
    np.full(4000, height),
    np.full(4000, width),
    scales=SCALES,
    seed=np.stack([np.arange(4000), np.ones(4000, int)], axis=1),
  )
  drawn, counts = np.unique(boxes, axis=0, return_counts=True)
  # Five scales at five places; the largest square meets top and bottom.
  expected = {}
  for scale in SCALES:
    for name in POSITIONS:
      left, top, right, bottom = restated_corner_crop(
        height, width, scale, name
      )
      box = (top, left, bottom - top, right - left)
      expected[box] = expected.get(box, 0) + 4000 / 25
  assert {tuple(box) for box in drawn} == set(expected)
  for box, count in zip(drawn, counts, strict=True):
    assert abs(count - expected[tuple(box)]) < 5 * expected[tuple(box)] ** 0.5


def test_multiscale_windows_are_as_large_as_the_largest_crop():
  for scales, window in [((1.0, 0.5), 320), ((0.5, 0.3), 160), ((0.001,), 1)]:
    assert window == augmentation.multiscale_window_size(
      scales=scales, max_short_side=320
    )
  for scales in ((), (0.0, 0.5), (1.5,)):
    with pytest.raises(ValueError, match=r'scales, shares .* in \(0, 1\]'):
      augmentation.multiscale_window_size(scales=scales, max_short_side=320)


def test_ways_to_crop_are_known_by_name():
  assert not augmentation.crops_before_resize('short_side')
  assert augmentation.crops_before_resize('multiscale')
  with pytest.raises(ValueError, match="crop method 'none': choose one of"):
    augmentation.crops_before_resize('none')


@pytest.mark.parametrize('size, short_side', [(28, 32), (28, 28), (20, 50)])
def test_window_size_is_enough_and_not_too_much(size, short_side):
  max_short_side = 60
  window = augmentation.window_size(
    size=size,
    short_side=short_side,
    max_short_side=max_short_side,
    max_long_side=1000,
  )
  needed = 0
  for height in range(short_side // 2, max_short_side + 1):
    for width in range(height, 2 * height, 3):
      for side, resized in [
        (height, short_side),
        (width, width * short_side // height),
      ]:
        scale = side / resized
        support = max(scale, 1.0)
        middle = (np.arange(size) + 0.5) * scale
        for offset in np.linspace(10, 11, 7):
          first = np.floor(offset + middle[0] - support + 0.5)
          last = np.ceil(offset + middle[-1] + support - 0.5)
          needed = max(needed, int(last - first))
  assert needed <= window <= needed + 1


def test_window_is_never_larger_than_the_largest_frame():
  window = augmentation.window_size(
    size=32, short_side=32, max_short_side=60, max_long_side=60
  )
  assert window == 60


def test_crops_larger_than_the_frame_are_refused():
  with pytest.raises(ValueError, match=r'224 pixels does not fit .* 128'):
    augmentation.window_size(
      size=224, short_side=128, max_short_side=320, max_long_side=400
    )
  with pytest.raises(ValueError, match=r'224 pixels .* between 320 and 256'):
    train_boxes(320, 400, [[0, 0]], 224, 320, 256)
  with pytest.raises(ValueError, match=r'112 pixels does not fit .* of 100'):
    augmentation.eval_box(
      np.array([9]), np.array([9]), size=112, short_side=100
    )
