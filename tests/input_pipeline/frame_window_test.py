"""Windows of frames, against whole frames resized by Pillow."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vie_jax.input_pipeline import augmentation, frame_window
from vie_jax.pixels import antialiased_resize


def textured_jpeg(rng, height, width):
  y, x = np.mgrid[:height, :width]
  slope = rng.uniform(-0.3, 0.3, (3, 2))
  waves = [np.sin(a * y + b * x) for a, b in slope]
  picture = 128 + 50 * np.stack([w + np.sign(w) for w in waves], axis=2)
  picture += rng.normal(0, 8, picture.shape)
  picture = np.clip(picture, 0, 255).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(picture).save(file, 'JPEG', quality=90)
  return file.getvalue()


def pillow_crop(jpeg, box, size):
  """The crop as the official pipeline makes it, from the whole frame."""
  image = Image.open(io.BytesIO(jpeg))
  # The box gives the resized frame and the offset in it back.
  resized = np.round(np.array(image.size)[::-1] * size / box[2:]).astype(int)
  y, x = np.round(box[:2] * size / box[2:]).astype(int)
  image = image.resize((resized[1], resized[0]), Image.BILINEAR)
  return np.asarray(image.crop((x, y, x + size, y + size)))


def decode(jpegs, box, *, height, width, size, window, **options):
  """The windows of all frames, uint8 [T, W, W, 3], and the crop in them."""
  each = frame_window.FrameWindow(
    box, height=height, width=width, size=size, window=window, **options
  )
  pixels = np.empty((len(jpegs), window, window, 3), np.uint8)
  for jpeg, row in zip(jpegs, pixels, strict=True):
    each.decode(jpeg, row)
  return pixels, each.crop


def device_crop(pixels, crop, size, **options):
  frames = antialiased_resize.resize(
    np.asarray(pixels)[np.newaxis],
    jnp.asarray(crop)[np.newaxis],
    size=size,
    **options,
  )
  return np.asarray(frames[0])


@pytest.mark.parametrize(
  'height, width, size, short_side_min, short_side_max, max_sides',
  [
    (60, 83, 28, 32, 40, (60, 83)),  # smaller, cut on all sides
    (83, 60, 28, 28, 30, (60, 83)),  # upright; the crop meets both borders
    (60, 60, 12, 12, 14, (60, 90)),  # much smaller
    (24, 37, 28, 30, 44, (60, 90)),  # larger, frame smaller than window
    (40, 57, 28, 28, 29, (60, 90)),  # smaller, frame smaller than window
    (33, 33, 33, 33, 33, (33, 33)),  # nothing changes
  ],
)
def test_window_gives_what_resizing_the_whole_frame_gives(
  height, width, size, short_side_min, short_side_max, max_sides
):
  rng = np.random.default_rng(height + width)
  jpegs = [textured_jpeg(rng, height, width) for _ in range(2)]
  window = augmentation.window_size(
    size=size,
    short_side=short_side_min,
    max_short_side=max_sides[0],
    max_long_side=max_sides[1],
  )

  for seed in range(8):
    (box,) = augmentation.train_box(
      np.array([height]),
      np.array([width]),
      size=size,
      short_side_min=short_side_min,
      short_side_max=short_side_max,
      seed=np.array([[seed, 3]]),
    )
    pixels, crop = decode(
      jpegs, box, height=height, width=width, size=size, window=window
    )
    assert crop.dtype == np.float32
    expected = np.stack([pillow_crop(j, box, size) for j in jpegs])
    difference = np.abs(device_crop(pixels, crop, size) - expected)
    assert difference.mean() < 0.1
    assert difference.max() <= 1


SCALES = (1.0, 0.84089641525, 0.7071067811803005, 0.5946035574934808, 0.5)
POSITIONS = (
  augmentation.CENTER,
  augmentation.TOP_LEFT,
  augmentation.TOP_RIGHT,
  augmentation.BOTTOM_LEFT,
  augmentation.BOTTOM_RIGHT,
)


@pytest.mark.parametrize(
  'height, width, size, max_short_side',
  [
    (60, 83, 28, 60),  # smaller
    (83, 60, 41, 60),  # upright; some smaller, some larger
    (33, 40, 28, 60),  # frame smaller than the window
    (61, 61, 90, 61),  # larger, odd sides
  ],
)
def test_multiscale_windows_give_what_cropping_in_pillow_gives(
  height, width, size, max_short_side
):
  rng = np.random.default_rng(height + width)
  jpegs = [textured_jpeg(rng, height, width) for _ in range(2)]
  images = [Image.open(io.BytesIO(jpeg)) for jpeg in jpegs]

  def check(box, window):
    pixels, crop = decode(
      jpegs,
      box,
      height=height,
      width=width,
      size=size,
      window=window,
      crops_before_resize=True,
    )
    result = device_crop(pixels, crop, size, crops_before_resize=True)
    top, left, rows, columns = box
    area = left, top, left + columns, top + rows
    expected = np.stack(
      [
        image.crop(area).resize((size, size), Image.BILINEAR)
        for image in images
      ]
    )
    difference = np.abs(result - expected)
    # Enlarging 2:3 meets many halves, which fixed-point weights round at will.
    assert difference.mean() < 0.15
    assert difference.max() <= 2

  sides = np.array([height]), np.array([width])
  window = augmentation.multiscale_window_size(
    scales=SCALES, max_short_side=max_short_side
  )
  assert window == max_short_side
  for scale in SCALES:
    for position in POSITIONS:
      (box,) = augmentation.corner_box(*sides, scale=scale, position=position)
      check(box, window)
  (box,) = augmentation.multiscale_eval_box(*sides)
  check(box, window)


def test_window_is_a_part_of_the_frame_as_pillow_decodes_it():
  jpeg = textured_jpeg(np.random.default_rng(3), 75, 98)
  whole = np.asarray(Image.open(io.BytesIO(jpeg)))
  for y, x in [(0, 0), (7.3, 12.6), (31, 50), (43, 66)]:
    pixels, crop = decode(
      [jpeg],
      np.array([y, x, 32.0, 32.0]),
      height=75,
      width=98,
      size=32,
      window=33,
    )
    top, left = np.round(np.array([y, x]) - crop[:2]).astype(int)
    expected = np.zeros((33, 33, 3), np.uint8)
    # All pixels that the crop meets, and no others.
    rows = slice(int(y), int(np.ceil(y)) + 32)
    columns = slice(int(x), int(np.ceil(x)) + 32)
    expected[
      rows.start - top : rows.stop - top,
      columns.start - left : columns.stop - left,
    ] = whole[rows, columns]
    np.testing.assert_array_equal(pixels[0], expected)


def damaged_late(jpeg):
  """A frame whose last lines are missing: no window needs them."""
  return jpeg[: int(0.9 * len(jpeg))]


@pytest.mark.parametrize(
  'damage, reason',
  [
    (damaged_late, 'Premature end of JPEG file'),
    (lambda jpeg: jpeg[:100], 'Could not determine'),
    (lambda jpeg: b'no picture', 'Could not determine'),
    (lambda jpeg: b'', 'Could not determine'),
    (
      lambda jpeg: textured_jpeg(np.random.default_rng(0), 300, 200),
      'the JPEG has 200x300 pixels, and the table of videos says 50x40',
    ),
  ],
)
def test_damaged_frames_are_errors(damage, reason):
  jpeg = textured_jpeg(np.random.default_rng(1), 40, 50)
  options = {'height': 40, 'width': 50, 'size': 16, 'window': 17}
  box = np.array([0.0, 0.0, 16.0, 16.0])
  decode([jpeg], box, **options)
  with pytest.raises(frame_window.JpegError, match=reason) as raised:
    decode([damage(jpeg)], box, **options)
  assert '\n' not in str(raised.value)
  assert not str(raised.value).endswith('.')


def test_grey_frames_are_frames():
  picture = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
  file = io.BytesIO()
  Image.fromarray(picture).save(file, 'JPEG')
  pixels = np.empty((40, 50, 3), np.uint8)
  frame_window.decode_frame(file.getvalue(), pixels)
  whole = np.asarray(Image.open(file).convert('RGB'))
  np.testing.assert_array_equal(pixels, whole)
