"""Makes videos as long and as large as those of data sets of actions."""

import fractions
import pathlib

import av
import numpy as np

# Width, height, frames in a second. From 720 lines on, the colour matrix is
# BT.709, else BT.601: as cameras and video sites have it.
SIZES = ((340, 256, 30), (640, 360, 25), (1280, 720, 30))
_HD_HEIGHT = 720


def write_videos(folder, *, sizes=SIZES, seconds=10):
  """Writes one H.264 video of each size, with moving textures.

  Args:
    folder: path of a directory that is made.
    sizes: iterable of (width, height, frames in a second).
    seconds: int, length of each.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True)
  for number, (width, height, rate) in enumerate(sizes):
    path = folder / f'{width}x{height}.mp4'
    _write_video(path, width, height, rate, seconds * rate, number)


def _write_video(path, width, height, rate, num_pictures, seed):
  rng = np.random.default_rng(seed)
  scene = _texture(rng, height + 128, width + 512)
  object_ = _texture(rng, height // 2, width // 3)
  with av.open(str(path), 'w') as out:
    stream = out.add_stream('libx264', rate=rate, options={'crf': '23'})
    stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
    matrix = 'ITU709' if height >= _HD_HEIGHT else 'ITU601'
    context = stream.codec_context
    # AVColorSpace: BT.709, or SMPTE 170M, which is BT.601.
    context.colorspace = 1 if matrix == 'ITU709' else 6
    context.color_range = 1
    for number in range(num_pictures):
      picture = _picture(scene, object_, width, height, number)
      frame = av.VideoFrame.from_ndarray(picture, 'rgb24').reformat(
        format='yuv420p', dst_colorspace=matrix, dst_color_range='MPEG'
      )
      frame.pts, frame.time_base = number, fractions.Fraction(1, rate)
      out.mux(stream.encode(frame))
    out.mux(stream.encode())


def _picture(scene, object_, width, height, number):
  """A scene that pans, and an object that crosses it."""
  x, y = number * 3 // 2, int(64 + 60 * np.sin(number / 20))
  picture = scene[y : y + height, x : x + width].copy()
  left = (number * 5) % (width - object_.shape[1])
  top = height // 4
  picture[top : top + object_.shape[0], left : left + object_.shape[1]] = (
    object_
  )
  return picture


def _texture(rng, height, width):
  """Noise at several scales, as natural pictures have it, uint8 [H, W, 3].

  Fine detail is grey, as in natural pictures: chroma is stored at half size.
  """
  total = np.zeros((height, width, 3), np.float32)
  for scale, channels in ((4, 1), (8, 1), (16, 3), (32, 3), (64, 3)):
    coarse = rng.normal(
      size=(height // scale + 2, width // scale + 2, channels)
    )
    fine = np.kron(coarse, np.ones((scale, scale, 1)))
    total += scale**0.5 * fine[:height, :width]
  total += rng.normal(size=(height, width, 1))
  return np.clip(128 + 5 * total, 0, 255).astype(np.uint8)
