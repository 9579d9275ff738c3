"""Parts of JPEG files against the same pixels of the whole."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vie_jax.input_pipeline import frame_window, jpeg_cut


def picture(height, width, seed=0):
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  waves = [np.sin(a * y + b * x) for a, b in rng.uniform(-0.5, 0.5, (3, 2))]
  pixels = 128 + 80 * np.stack(waves, 2) + rng.normal(0, 20, (height, width, 3))
  return np.clip(pixels, 0, 255).astype(np.uint8)


def encoded(pixels, **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG', quality=90, **options)
  return file.getvalue()


def cut_for(jpeg, height, width, area):
  layout = jpeg_cut.read_layout(jpeg)
  return jpeg_cut.Cut(layout, height=height, width=width, area=area)


@pytest.mark.parametrize(
  'height, width, interval, subsampling',
  [
    (96, 192, 4, '4:2:0'),
    (75, 185, 3, '4:2:0'),  # odd sides
    (61, 337, 2, '4:2:0'),
    (40, 97, 1, '4:2:0'),  # a prime number of blocks
    (50, 120, 15, '4:4:4'),
    (50, 120, 4, '4:2:2'),
    (33, 500, 32, '4:2:0'),  # whole rows
    (320, 569, 4, '4:2:0'),
  ],
)
def test_what_is_cut_has_the_pixels_of_the_whole(
  height, width, interval, subsampling
):
  rng = np.random.default_rng(height)
  jpeg = encoded(
    picture(height, width),
    restart_marker_blocks=interval,
    subsampling=subsampling,
  )
  whole = np.asarray(Image.open(io.BytesIO(jpeg)))
  smallest = len(jpeg)
  for _ in range(40):
    top, bottom = np.sort(rng.choice(height + 1, 2, replace=False)).tolist()
    left, right = np.sort(rng.choice(width + 1, 2, replace=False)).tolist()
    area = slice(top, bottom), slice(left, right)
    cut = cut_for(jpeg, height, width, area)
    part = cut.apply(jpeg)
    smallest = min(smallest, len(part))
    pixels = simplejpeg.decode_jpeg(part)
    assert pixels.shape == (cut.height, cut.width, 3)
    rows, columns = (
      slice(side.start - first, side.stop - first)
      for side, first in zip(area, (cut.top, cut.left), strict=True)
    )
    np.testing.assert_array_equal(pixels[rows, columns], whole[area])
  assert smallest < 0.8 * len(jpeg)


def test_the_whole_area_is_the_file_itself():
  jpeg = encoded(picture(70, 160), restart_marker_blocks=5)
  cut = cut_for(jpeg, 70, 160, (slice(0, 70), slice(0, 160)))
  assert cut.apply(jpeg) == jpeg


@pytest.mark.parametrize(
  'jpeg',
  [
    encoded(picture(64, 96)),
    encoded(picture(64, 96), restart_marker_blocks=4),  # rows of 6 blocks
    encoded(picture(64, 96), restart_marker_blocks=2, progressive=True),
    encoded(picture(64, 96)[:, :, 0], restart_marker_blocks=2),
    encoded(picture(64, 96), restart_marker_blocks=2)[:300],
    b'',
    b'no picture',
  ],
)
def test_other_files_are_left_whole(jpeg):
  assert jpeg_cut.read_layout(jpeg) is None


@pytest.mark.parametrize(
  'damage, reason',
  [
    (lambda jpeg: jpeg[:-300], 'the JPEG is not complete'),
    (lambda jpeg: jpeg[:-3000] + jpeg[-2:], 'restart markers .* are missing'),
    (lambda jpeg: jpeg.replace(b'\xff\xd3', b'\xff\xd4', 1), 'damaged'),
    (lambda jpeg: jpeg.replace(b'\xff\xd3', b'\x00\x00', 1), 'missing'),
  ],
)
def test_markers_out_of_order_are_errors(damage, reason):
  jpeg = encoded(picture(64, 96), restart_marker_blocks=2)
  cut = cut_for(jpeg, 64, 96, (slice(0, 20), slice(0, 20)))
  with pytest.raises(jpeg_cut.CutError, match=reason):
    cut.apply(damage(jpeg))


def test_windows_of_files_with_and_without_markers_are_the_same():
  pixels = picture(120, 213)
  box = np.array([13.0, 40.0, 64.0, 64.0])
  windows = []
  for options in ({}, {'restart_marker_blocks': 2}, {'optimize': True}):
    each = frame_window.FrameWindow(
      box, height=120, width=213, size=56, window=70
    )
    window = np.zeros((70, 70, 3), np.uint8)
    for seed in range(2):
      # Of the same header, and of another one.
      each.decode(encoded(picture(120, 213, seed), **options), window)
    each.decode(encoded(pixels, restart_marker_blocks=7), window)
    each.decode(encoded(pixels, **options), window)
    windows.append(window)
  assert windows[0].std() > 20
  np.testing.assert_array_equal(windows[0], windows[1])
  np.testing.assert_array_equal(windows[0], windows[2])


def test_any_damage_is_an_error_or_pixels():
  rng = np.random.default_rng(0)
  jpeg = encoded(picture(120, 208), restart_marker_blocks=1)
  box = np.array([13.0, 40.0, 64.0, 64.0])
  window = np.zeros((70, 70, 3), np.uint8)
  reasons = []
  for number in range(600):
    each = frame_window.FrameWindow(
      box, height=120, width=208, size=56, window=70
    )
    if number % 2:
      each.decode(jpeg, window)
    data = bytearray(jpeg)
    # Half of the time in the header.
    end = 700 if number % 4 < 2 else len(data)
    for place in rng.integers(0, end, rng.integers(1, 4)):
      data[place] = rng.integers(0, 256)
    try:
      each.decode(bytes(data), window)
    except frame_window.JpegError as error:
      reasons.append(str(error))
  assert 100 < len(reasons) < 600
  assert not any('\n' in reason for reason in reasons)
