"""Small video files for tests, made with PyAV."""

import fractions

import av
import numpy as np

# Weights of red and blue in luma, and the matrix number in ITU-T H.273.
MATRICES = {
  'bt601': (0.299, 0.114, 6),
  'bt709': (0.2126, 0.0722, 1),
  'bt2020': (0.2627, 0.0593, 9),
}

PATCHES = np.array(
  [
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]],
    [[0, 0, 0], [128, 128, 128], [255, 255, 0], [0, 255, 255]],
    [[255, 0, 255], [64, 32, 200], [200, 100, 50], [30, 180, 90]],
    [[16, 16, 16], [235, 235, 235], [240, 200, 180], [90, 60, 40]],
  ],
  np.uint8,
)


def patches(height, width):
  """A picture of 4 by 4 patches of colour, uint8 [H, W, 3]."""
  rows = np.arange(height) * 4 // height
  columns = np.arange(width) * 4 // width
  return PATCHES[rows][:, columns]


def patch_centres(image):
  """The colours in the middle of the patches, int [4, 4, 3]."""
  height, width = image.shape[:2]
  rows = ((np.arange(4) + 0.5) * height / 4).astype(int)
  columns = ((np.arange(4) + 0.5) * width / 4).astype(int)
  return image[rows][:, columns].astype(int)


def moving(num_frames, height=64, width=96, seed=0):
  """A bright square over a quiet background, uint8 [L, H, W, 3]."""
  rng = np.random.default_rng(seed)
  frames = np.empty((num_frames, height, width, 3), np.uint8)
  frames[:] = rng.integers(30, 120, 3)
  side = max(min(height, width) // 4, 1)
  for number in range(num_frames):
    x = (number * 3) % max(width - side, 1)
    frames[number, :side, x : x + side] = (250, 240, 20)
  return frames


def ycbcr_420(image, matrix, *, full_range):
  """Converts RGB to planar 4:2:0 by the definition, for `from_ndarray`."""
  red, blue, _ = MATRICES[matrix]
  rgb = image.astype(float) / 255
  y = rgb @ [red, 1 - red - blue, blue]
  cb = (rgb[..., 2] - y) / (2 * (1 - blue))
  cr = (rgb[..., 0] - y) / (2 * (1 - red))
  if full_range:
    planes = y * 255, cb * 255 + 128, cr * 255 + 128
  else:
    planes = y * 219 + 16, cb * 224 + 128, cr * 224 + 128
  y, cb, cr = (np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in planes)
  flat = [y.ravel(), cb[::2, ::2].ravel(), cr[::2, ::2].ravel()]
  return np.concatenate(flat).reshape(-1, image.shape[1])


def write(
  path,
  frames,
  *,
  codec='libx264',
  pix_fmt='yuv420p',
  frame_format='rgb24',
  size=None,
  rate=25,
  times=None,
  time_base=None,
  options=None,
  container_options=None,
  rotation=None,
  pixel_aspect=None,
  matrix=None,
  full_range=False,
  interlaced=False,
):
  """Writes a video file.

  Args:
    path: of the file; the suffix picks the container.
    frames: arrays in `frame_format`.
    codec: encoder.
    pix_fmt: of the encoded pictures.
    frame_format: of the arrays.
    size: (height, width) where the arrays do not tell.
    rate: frames in a second.
    times: list of int, timestamps in `time_base`; None for even ones.
    time_base: Fraction; None for 1 / rate.
    options: of the encoder.
    container_options: of the muxer.
    rotation: (degrees counterclockwise, hflip, vflip), or None.
    pixel_aspect: Fraction, or None.
    matrix: name in MATRICES that the stream is tagged with, or None.
    full_range: whether the stream is tagged so, with a matrix.
    interlaced: whether frames are marked as interlaced.
  """
  height, width = size or frames[0].shape[:2]
  with av.open(str(path), 'w', container_options=container_options) as out:
    stream = out.add_stream(codec, rate=rate, options=options or {})
    stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
    context = stream.codec_context
    if time_base:
      context.time_base = time_base
    if rotation is not None:
      stream.set_display_rotation(rotation[0], rotation[1], rotation[2])
    if pixel_aspect is not None:
      context.sample_aspect_ratio = pixel_aspect
    if matrix is not None:
      context.colorspace = MATRICES[matrix][2]
      context.color_range = 2 if full_range else 1
    for number, array in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(array, frame_format)
      if matrix is not None:
        frame.colorspace = context.colorspace
        frame.color_range = context.color_range
      frame.pts = number if times is None else times[number]
      frame.time_base = time_base or fractions.Fraction(1, rate)
      out.mux(stream.encode(frame))
    out.mux(stream.encode())


def write_sound(path):
  """Writes a file with a sound track and no pictures."""
  with av.open(str(path), 'w') as out:
    stream = out.add_stream('aac', rate=8000)
    silence = np.zeros((1, 1024), np.float32)
    for number in range(8):
      frame = av.AudioFrame.from_ndarray(silence, 'fltp', 'mono')
      frame.sample_rate = 8000
      frame.pts = number * 1024
      out.mux(stream.encode(frame))
    out.mux(stream.encode())
