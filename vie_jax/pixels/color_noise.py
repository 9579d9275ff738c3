"""Brightness, contrast, saturation and hue of clips, changed as Pillow does.

Every operation gives whole grey levels, 0 to 255, as the 8-bit images of the
official pipeline do (torchvision on PIL images).

Every clip has its own order of the four operations. Instead of branching per
clip, all go through three blends, the hue, three blends; a clip's unused blends
have factor 1, which is exact.

Source: torchvision's ColorJitter and Grayscale on PIL images, as the official
code (neuroailab/VIE, pt_loader/transforms.py) calls them; Pillow truncates when
it blends. Rounding rules as observed in Pillow 13.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vie_jax.machine import platform_choice

# Values of `order` in apply.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class _Noise(NamedTuple):
  """What happens to each clip: as in apply, the factors [B, 3] in one.

  `is_grey` is None if no clip turns grey at the end.
  """

  factors: jax.Array
  hue: jax.Array | None
  order: jax.Array
  is_grey: jax.Array | None

  def position(self, operation):
    """int32 [B], where an operation comes in a clip's order."""
    return jnp.argmax(self.order == operation, axis=1)


def apply(
  frames,
  *,
  brightness,
  contrast,
  saturation,
  hue,
  order,
  is_grey,
  grey_first=False,
):
  """Changes brightness, contrast, saturation and hue in a given order.

  Args:
    frames: float32 [B, T, H, W, 3], whole grey levels.
    brightness: float32 [B], factors >= 0; 1 changes nothing.
    contrast: float32 [B], likewise, around each frame's mean brightness.
    saturation: float32 [B], likewise.
    hue: float32 [B], shift in [-0.5, 0.5] of the colour circle, or None to
      leave the hue alone.
    order: int32 [B, 4], a permutation of BRIGHTNESS, CONTRAST, SATURATION,
      HUE: the operations from first to last.
    is_grey: bool [B], turn the clip grey.
    grey_first: whether it turns grey before all else (official, for still
      images), or at the end (official, for videos).

  Returns:
    float32 [B, T, H, W, 3], whole grey levels.

  Sharding: row-wise over the batch.

  Source: as the module. Deviation: for still images,
  resnet_th_preprocessing.py there, the official hue is shifted in floating
  point and its grey levels and mean are truncated, not rounded.
  """
  # As planes, a pixel's brightness is computed once and not for each channel.
  planes = tuple(frames[..., channel] for channel in range(3))
  if grey_first:
    planes, is_grey = _turn_grey(planes, is_grey), None
  factors = jnp.stack([brightness, contrast, saturation], axis=1)
  noise = _Noise(factors, hue, order, is_grey)
  planes = platform_choice.by_platform(
    planes, noise, gpu=_in_two_passes, others=_in_steps
  )
  return jnp.stack(planes, axis=4)


def _in_steps(planes, noise):
  """Reads and writes all pixels for each operation.

  Written as loops the blends compile, and on a CPU run, twice as fast as six in
  a row; what goes from one to the next is bytes, as the time is that of reading
  and writing them.

  Args:
    planes: float32 [B, T, H, W] for each of three channels.
    noise: a _Noise.

  Returns:
    Three of the same.
  """
  hue_position = noise.position(HUE)

  def blend(position, planes, is_active):
    planes = _as_type(planes, jnp.float32)
    mean = _mean(planes)
    return _as_bytes(_blend(planes, noise, position, is_active, mean))

  planes = jax.lax.fori_loop(
    0,
    3,
    lambda i, planes: blend(i, planes, i < hue_position),
    _as_bytes(planes),
  )
  if noise.hue is not None:
    planes = _as_bytes(_shift_hue(_as_type(planes, jnp.float32), noise.hue))
  planes = jax.lax.fori_loop(
    1, 4, lambda i, planes: blend(i, planes, i > hue_position), planes
  )
  return _turn_grey(_as_type(planes, jnp.float32), noise.is_grey)


def _in_two_passes(planes, noise):
  """The same to the bit: once over all pixels for the mean, then once more.

  The contrast needs the mean brightness of a frame after the operations before
  it, and no other operation needs more than one pixel. So those are done twice,
  and nothing is written in between (docs/performance.md). On CPUs XLA does not
  keep what several operations read, and takes a hundred times as long.

  Args:
    planes: as in _in_steps.
    noise: likewise.

  Returns:
    As there.
  """
  contrast_position = noise.position(CONTRAST)
  # On either side of the hue there are at most two without the contrast.
  before = _operate(planes, noise, 2, contrast_position, mean=0.0)
  planes = _operate(planes, noise, 3, None, _mean(before))
  planes = _as_bytes(_turn_grey(planes, noise.is_grey))
  # Else XLA computes all of this anew for each channel of a pixel.
  return _as_type(jax.lax.optimization_barrier(planes), jnp.float32)


def _operate(planes, noise, most, end, mean):
  """Does the operations before `end`, int32 [B], or all if that is None.

  There are at most `most` blends before the hue, and as many after it.
  """
  hue_position = noise.position(HUE)

  def blend(planes, position, is_active):
    if end is not None:
      is_active &= position < end
    return _blend(planes, noise, position, is_active, mean)

  for position in range(most):
    planes = blend(planes, position, position < hue_position)
  if noise.hue is not None:
    shifted = _shift_hue(planes, noise.hue)
    if end is not None:
      is_active = _per_clip(hue_position < end)
      shifted = (
        jnp.where(is_active, *pair)
        for pair in zip(shifted, planes, strict=True)
      )
    planes = tuple(shifted)
  for position in range(1, 1 + most):
    planes = blend(planes, position, position > hue_position)
  return planes


def _per_clip(values):
  """[B] -> [B, 1, 1, 1], for planes [B, T, H, W]."""
  return jnp.expand_dims(values, (1, 2, 3))


def _as_type(planes, dtype):
  return tuple(plane.astype(dtype) for plane in planes)


def _as_bytes(planes):
  return _as_type(planes, jnp.uint8)


def _turn_grey(planes, is_grey):
  if is_grey is None:
    return planes
  luma = _luma(planes)
  return tuple(jnp.where(_per_clip(is_grey), luma, plane) for plane in planes)


def _luma(planes):
  """float32 [B, T, H, W], whole grey levels; exact in float32."""
  red, green, blue = planes
  scaled = 19595.0 * red + 38470.0 * green + 7471.0 * blue
  return jnp.floor((scaled + 32768.0) / 65536.0)


def _mean(planes):
  """float32 [B, T, 1, 1], the whole grey level that each frame is on average."""
  luma = _luma(planes)
  return jnp.floor(jnp.mean(luma, axis=(2, 3), keepdims=True) + 0.5)


def _blend(planes, noise, position, is_active, mean):
  """Moves planes from the anchor picture of an operation by its factor.

  Args:
    planes: as in _in_steps.
    noise: likewise.
    position: of the operation, in each clip's order.
    is_active: bool [B], whether it is done.
    mean: of each frame, for the contrast.
  """
  operation = jnp.minimum(noise.order[:, position], SATURATION)
  factor = jnp.take_along_axis(noise.factors, operation[:, jnp.newaxis], axis=1)
  factor = _per_clip(jnp.where(is_active, factor[:, 0], 1.0))
  operation = _per_clip(operation)
  anchor = jnp.where(operation == CONTRAST, mean, _luma(planes))
  anchor = jnp.where(operation == BRIGHTNESS, 0.0, anchor)
  blended = (anchor + factor * (plane - anchor) for plane in planes)
  return tuple(jnp.floor(jnp.clip(plane, 0.0, 255.0)) for plane in blended)


def _shift_hue(planes, shift):
  """Turns the colour circle of 8-bit HSV pictures and comes back to RGB."""
  red, green, blue = planes
  value = jnp.maximum(jnp.maximum(red, green), blue)
  chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
  is_red, is_green = red == value, green == value
  more = jnp.where(is_red, blue, jnp.where(is_green, red, green))
  less = jnp.where(is_red, green, jnp.where(is_green, blue, red))
  whole = jnp.where(is_red, 0.0, jnp.where(is_green, 2.0, 4.0))
  # Divided one by one and the whole number added last, as this rounds
  # most like Pillow.
  safe = jnp.maximum(chroma, 1.0)
  sixth = whole + ((value - more) / safe - (value - less) / safe)
  hue = sixth / 6.0
  hue = jnp.floor(255.0 * jnp.where(hue < 0.0, hue + 1.0, hue))
  saturation = jnp.floor(255.0 * (chroma / jnp.maximum(value, 1.0)))

  hue += _per_clip(jnp.trunc(255.0 * shift))
  hue = jnp.where(hue < 0.0, hue + 256.0, hue)
  hue = jnp.where(hue < 256.0, hue, hue - 256.0)
  sixth = hue * 6.0 / 255.0
  sector = jnp.floor(sixth)
  share = sixth - sector
  saturation = saturation / 255.0
  low = jnp.floor(value * (1.0 - saturation) + 0.5)
  falling = jnp.floor(value * (1.0 - saturation * share) + 0.5)
  rising = jnp.floor(value * (1.0 - saturation * (1.0 - share)) + 0.5)

  def by_sector(first, *others):
    # Sector 6, hue 255, is sector 0 again.
    for number, other in enumerate(others, start=1):
      first = jnp.where(sector == number, other, first)
    return first

  return (
    by_sector(value, falling, low, low, rising, value),
    by_sector(rising, value, value, falling, low, low),
    by_sector(low, low, rising, value, value, falling),
  )
