"""Renders the embedded demo data set: what moves and how it moves.

Every video shows one texture (the appearance) that moves in one way (the
motion). The two labels are independent, and all pairs are equally frequent.
No single frame tells the motion: at a frame picked at random, position,
orientation and size of the texture have the same distribution whatever the
motion. The motion alone does not tell the texture.

Colours, background, light, speed, size and phase differ from video to video,
and the camera is noisy. They stay weaker cues than the two factors on purpose:
telling videos apart by them alone would teach an embedding nothing else.
"""

import colorsys
import dataclasses
import functools

import numpy as np

from demo_data.render_processes import in_order

NUM_FRAMES = 48
HEIGHT = 64
WIDTH = 80
FRAMES_PER_SECOND = 25

MOTIONS = (
  'right',
  'left',
  'up',
  'down',
  'clockwise',
  'counterclockwise',
  'zoom_in',
  'zoom_out',
  'swing',
)


@dataclasses.dataclass(frozen=True)
class Look:
  """What all videos of a data set have in common, whatever their labels.

  Attributes:
    element_pixels: of a texture element, at a zoom of one.
    light: luminance of the light part, in [0, 1]: from, to.
    dark: the same of the dark part.
    saturation: of both: from, to.
    noise: of the camera, as a share of white: from, to.
  """

  element_pixels: float
  light: tuple[float, float]
  dark: tuple[float, float]
  saturation: tuple[float, float]
  noise: tuple[float, float]


LOOKS = {
  'day': Look(14, (0.7, 0.82), (0.18, 0.3), (0.2, 0.4), (0.01, 0.03)),
  # A second data set, to transfer to: the same labels in other pictures.
  'night': Look(18, (0.45, 0.57), (0.06, 0.14), (0.5, 0.8), (0.03, 0.05)),
}

# Written into the folder of rendered files, so that files of another seed or
# of another version of this renderer are never taken for finished ones.
VERSION = 1
_LUMINANCE = np.array([0.299, 0.587, 0.114])
# The pixels' distance from the middle of the image, and the time from 0 to 1.
_X = np.arange(WIDTH, dtype=np.float32)[None, None, :] - WIDTH / 2
_Y = np.arange(HEIGHT, dtype=np.float32)[None, :, None] - HEIGHT / 2
_PROGRESS = np.linspace(0, 1, NUM_FRAMES)


# Textures. Each takes float32 [L, H, W] coordinates, in units of about one
# texture element, and returns the signed distance to the nearest outline in
# the same units: negative inside the light part. The distance makes the
# outlines smooth at every size.


def _to_line(x):
  """Distance to the nearest integer."""
  return np.abs(x - np.rint(x))


def _checker(u, v, rng):
  del rng
  inside = (np.floor(u) + np.floor(v)) % 2 * 2 - 1
  return inside * np.minimum(_to_line(u), _to_line(v))


def _dots(u, v, rng):
  radius = rng.uniform(0.27, 0.33)
  u = u + 0.5 * (np.rint(v) % 2)
  return np.hypot(u - np.rint(u), v - np.rint(v)) - radius


def _rings(u, v, rng):
  u, v = u / 2, v / 2
  radius = 2 * np.hypot(u - np.rint(u), v - np.rint(v))
  return _to_line(2 * radius + rng.uniform(-0.1, 0.1)) / 2 - 0.12


def _bricks(u, v, rng):
  mortar = rng.uniform(0.07, 0.1)
  u, v = u / 1.8, v / 0.8
  u = u + 0.5 * (np.floor(v) % 2)
  return mortar - np.minimum(1.8 * _to_line(u), 0.8 * _to_line(v))


def _zigzag(u, v, rng):
  height = rng.uniform(0.9, 1.1)
  return _to_line(v + height * _to_line(u)) / 1.4 - 0.18


def _blobs(u, v, rng):
  height = 0.0
  num_waves = 7
  for wave in range(num_waves):
    direction = np.pi * (wave + rng.uniform()) / num_waves
    frequency = np.float32(rng.uniform(4.5, 6))
    phase = np.float32(rng.uniform(0, 2 * np.pi))
    along = (
      np.float32(np.cos(direction)) * u + np.float32(np.sin(direction)) * v
    )
    height = height + np.cos(frequency * along + phase)
  # In standard deviations of the height; about two thirds are light.
  height = height / np.float32(np.sqrt(num_waves / 2))
  return -(height + np.float32(0.35)) / np.float32(5.2)


def _stars(u, v, rng):
  size = rng.uniform(0.42, 0.5)
  u, v = u / 1.3, v / 1.3
  u = u + 0.5 * (np.rint(v) % 2)
  u, v = 1.3 * (u - np.rint(u)), 1.3 * (v - np.rint(v))
  # Folded to the tenth of a star between a tip (angle 0) and a notch.
  angle = np.abs((np.arctan2(v, u) / (2 * np.pi / 5) + 0.5) % 1 - 0.5)
  angle = angle * np.float32(2 * np.pi / 5)
  radius = np.hypot(u, v)
  x, y = radius * np.cos(angle), radius * np.sin(angle)
  notch = 0.4 * size
  edge = np.array([notch * np.cos(np.pi / 5) - size, notch * np.sin(np.pi / 5)])
  normal = np.float32(np.array([edge[1], -edge[0]]) / np.hypot(*edge))
  return (x - np.float32(size)) * normal[0] + y * normal[1]


def _plaid(u, v, rng):
  width = rng.uniform(0.12, 0.15)
  # Two half-transparent stripes: the crossings are lightest.
  return _to_line(u) - width, _to_line(v) - width


_TEXTURES = {
  'checker': _checker,
  'dots': _dots,
  'rings': _rings,
  'bricks': _bricks,
  'zigzag': _zigzag,
  'blobs': _blobs,
  'stars': _stars,
  'plaid': _plaid,
}
APPEARANCES = tuple(_TEXTURES)


def labels(index, seed):
  """Labels of a video: a fresh shuffle of all pairs for each round.

  Args:
    index: number of the video, 0 or more.
    seed: number of the data set, 0 or more.

  Returns:
    (appearance, motion): int, positions in APPEARANCES and MOTIONS.
  """
  num_pairs = len(APPEARANCES) * len(MOTIONS)
  round_number, position = divmod(index, num_pairs)
  # The third number keeps this generator apart from those of the videos.
  shuffle = np.random.default_rng([seed, round_number, 1])
  pair = int(shuffle.permutation(num_pairs)[position])
  return divmod(pair, len(MOTIONS))


def _trajectory(motion, rng):
  """float64 [L] each: shift x and y (pixels), angle (radians), log size."""
  time = np.arange(NUM_FRAMES)
  speed = rng.uniform(0.8, 1.4)
  turn = np.deg2rad(rng.uniform(2.5, 4.0))
  growing = rng.uniform(0.017, 0.022) * (time - (NUM_FRAMES - 1) / 2)
  shift_x, shift_y = np.zeros((2, NUM_FRAMES))
  angle = np.full(NUM_FRAMES, rng.uniform(0, 2 * np.pi))
  middle = rng.uniform(-0.15, 0.15)
  # What does not zoom has the size that a zoom has at some random time, so
  # that the size of the texture in one frame says nothing about the motion.
  log_size = np.full(NUM_FRAMES, middle + rng.choice(growing))
  name = MOTIONS[motion]
  if name in ('right', 'left'):
    shift_x = speed * time * (1 if name == 'right' else -1)
  elif name in ('down', 'up'):
    shift_y = speed * time * (1 if name == 'down' else -1)
  elif name in ('clockwise', 'counterclockwise'):
    # Image rows run downwards: a growing angle turns clockwise.
    angle = angle + turn * time * (1 if name == 'clockwise' else -1)
  elif name in ('zoom_in', 'zoom_out'):
    log_size = middle + growing * (1 if name == 'zoom_in' else -1)
  else:
    frequency = 2 * np.pi / rng.uniform(14, 22)
    phase = rng.uniform(0, 2 * np.pi)
    shift_x = 1.4 * speed / frequency * np.sin(frequency * time + phase)
  return shift_x, shift_y, angle, log_size


def _by_frame(values):
  """float32 [L, 1, 1], to go with pixels."""
  return np.float32(values)[:, None, None]


def _light_part(appearance, motion, size, rng):
  """float32 [L, H, W, 1] in [0, 1]: how much of a pixel is the light part."""
  shift_x, shift_y, angle, log_size = _trajectory(motion, rng)
  # The camera is not quite still.
  shake_x, shake_y = 0.4 * np.sin(
    np.arange(NUM_FRAMES) * rng.uniform(0.2, 0.6, (2, 1))
    + rng.uniform(0, 2 * np.pi, (2, 1))
  )
  centre_x, centre_y = rng.uniform(-6, 6, 2)
  x = _X - _by_frame(centre_x + shift_x + shake_x)
  y = _Y - _by_frame(centre_y + shift_y + shake_y)
  element_pixels = size * np.exp(log_size)
  cos = _by_frame(np.cos(angle) / element_pixels)
  sin = _by_frame(np.sin(angle) / element_pixels)
  # Any part of the texture may be in view at any time.
  start_u, start_v = np.float32(rng.uniform(0, 60, 2))
  u, v = cos * x + sin * y + start_u, cos * y - sin * x + start_v
  distance = _TEXTURES[APPEARANCES[appearance]](u, v, rng)
  pixels = np.array(distance) * _by_frame(element_pixels)
  light = np.clip(np.float32(0.5) - pixels, 0, 1)
  return (light.mean(0) if light.ndim == 4 else light)[..., None]


def _colour(hue, luminance, saturation):
  """float32 [L, 1, 1, 3]: a colour of the given luminance for each hue."""
  pure = np.array([colorsys.hsv_to_rgb(h % 1, 1, 1) for h in hue])
  tint = saturation * (pure - (pure @ _LUMINANCE)[:, None])
  return np.float32(np.clip(luminance + tint, 0, 1))[:, None, None, :]


def _background(hue, rng):
  """float32 [L, H, W, 3]: faint waves that drift slowly."""
  wave_x, wave_y = np.float32(rng.uniform(-0.12, 0.12, 2))
  phase = rng.uniform(0, 2 * np.pi) + rng.uniform(-3, 3) * _PROGRESS
  waves = np.sin(wave_x * _X + wave_y * _Y + _by_frame(phase))[..., None]
  colour = _colour(hue + rng.uniform(), rng.uniform(0.4, 0.55), 0.15)
  return colour + np.float32(0.1) * waves


def _window(rng):
  """float32 [1, H, W, 1]: 1 where the texture shows, soft at its edge."""
  centre_x, centre_y = np.float32(rng.uniform(-3, 3, 2))
  half_x, half_y = np.float32(rng.uniform(0.45, 0.5, 2) * (WIDTH, HEIGHT))
  radius = ((_X - centre_x) / half_x) ** 4 + ((_Y - centre_y) / half_y) ** 4
  return np.clip((1.1 - radius) / 0.4, 0, 1)[..., None]


def render(index, *, seed, look='day'):
  """Renders one video, a pure function of its number and the seed.

  Args:
    index: number of the video, 0 or more. len(APPEARANCES) * len(MOTIONS)
      videos in a row, from a multiple of that, hold every pair of labels once.
    seed: number of the data set, 0 or more.
    look: one of LOOKS. The same number and seed have the same labels and move
      alike in every look.

  Returns:
    (frames, appearance, motion): uint8 [L, H, W, 3] RGB and the two labels,
    positions in APPEARANCES and MOTIONS.
  """
  appearance, motion = labels(index, seed)
  look = LOOKS[look]
  rng = np.random.default_rng([seed, index, 0])
  # Colours wander through the video, so that they do not identify it.
  wander = rng.choice([-1, 1]) * rng.uniform(0.2, 0.5)
  hue = rng.uniform() + wander * _PROGRESS
  light = _colour(hue, rng.uniform(*look.light), rng.uniform(*look.saturation))
  other_hue = hue + rng.uniform(0.2, 0.8)
  dark = _colour(
    other_hue, rng.uniform(*look.dark), rng.uniform(*look.saturation)
  )
  part = _light_part(appearance, motion, look.element_pixels, rng)
  texture = dark + part * (light - dark)
  background = _background(hue, rng)
  frames = background + _window(rng) * (texture - background)
  # Light from one side, and the noise of the camera.
  slope_x, slope_y = np.float32(rng.uniform(-0.0025, 0.0025, 2))
  frames *= (1 + slope_x * _X + slope_y * _Y)[..., None]
  noise = rng.standard_normal(frames.shape, dtype=np.float32)
  frames += np.float32(rng.uniform(*look.noise)) * noise
  return np.uint8(np.clip(frames * 255 + 0.5, 0, 255)), appearance, motion


def render_arrays(num_videos, *, seed, num_processes=1):
  """Renders videos 0 to num_videos - 1 into memory, without video files.

  Args:
    num_videos: how many; 1,000 of them take about 0.7 GB.
    seed: number of the data set, 0 or more.
    num_processes: processes that render; no influence on the result.

  Returns:
    dict of frames uint8 [N, L, H, W, 3] RGB, appearance int32 [N] and motion
    int32 [N], positions in APPEARANCES and MOTIONS.
  """
  frames = np.empty((num_videos, NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
  appearance, motion = np.empty((2, num_videos), np.int32)
  one = functools.partial(render, seed=seed)
  for index, video in enumerate(
    in_order(one, range(num_videos), num_processes)
  ):
    frames[index], appearance[index], motion[index] = video
  return {'frames': frames, 'appearance': appearance, 'motion': motion}
