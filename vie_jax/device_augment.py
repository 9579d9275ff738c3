"""From uint8 windows to network input, on the device.

The host decodes a window of each frame around the crop and sends it as uint8.
Here it is cropped and resized, flipped, given colour noise and normalised.
All frames of a clip share the clip's random draws.

Every picture operation gives whole grey levels, 0 to 255, as the 8-bit images
of the official pipeline do (torchvision on PIL images).

Source: pt_loader/transforms.py of the official code (neuroailab/VIE). Order
there: resize and crop or crop and resize, colour noise, flip; the flip is done
with the resize here, which gives the same pixels. Rounding rules as observed
in Pillow 13.
"""

import jax
import jax.numpy as jnp

from vie_jax.pixels import antialiased_resize, color_noise

# Per colour channel, of pixels in [0, 1]; the ImageNet statistics that the
# official networks normalise with.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def augment(
  key,
  window,
  crop,
  *,
  size,
  flip_probability,
  brightness,
  contrast,
  saturation,
  hue,
  grey_probability,
  grey_first=False,
  crops_before_resize=False,
  dtype=jnp.float32,
):
  """Crops, flips, recolours and normalises training clips.

  All frames of a clip share its parameters, see draw_parameters.

  Args:
    key: one JAX key for the global batch.
    window: uint8 [B, T, W, W, 3], RGB.
    crop: float32 [B, 4], offset y, x, height, width in window pixels.
    size: side of the result, in pixels.
    flip_probability: of mirroring a clip left to right, in [0, 1].
    brightness: strength b; the factor is uniform in [1 - b, 1 + b].
    contrast: strength, likewise.
    saturation: strength, likewise.
    hue: largest shift, as a share of the colour circle, in [0, 0.5]; the
      shift is uniform in [-hue, hue]. 0 leaves the hue alone.
    grey_probability: of turning a clip grey, in [0, 1].
    grey_first: as in color_noise.apply.
    crops_before_resize: as in antialiased_resize.resize.
    dtype: of the result.

  Returns:
    dtype [B, T, size, size, 3], normalised.

  Sharding: row-wise over the batch. The keys are split before they are
  shared out, so the result does not depend on the number of devices.

  Raises:
    ValueError: if the shapes do not fit together.
  """
  _check(window, crop)
  drawn = draw_parameters(
    key,
    window.shape[0],
    flip_probability=flip_probability,
    brightness=brightness,
    contrast=contrast,
    saturation=saturation,
    hue=hue,
    grey_probability=grey_probability,
  )
  frames = antialiased_resize.resize(
    window,
    crop,
    size=size,
    is_flipped=drawn.pop('is_flipped'),
    crops_before_resize=crops_before_resize,
  )
  if not hue:
    drawn['hue'] = None
  if brightness or contrast or saturation or hue or grey_probability:
    frames = color_noise.apply(frames, **drawn, grey_first=grey_first)
  return _keep_faults(normalize(frames, dtype), crop, window.shape[2])


def draw_parameters(
  key,
  num_clips,
  *,
  flip_probability,
  brightness,
  contrast,
  saturation,
  hue,
  grey_probability,
):
  """Draws what happens to each clip.

  Clip i uses the i-th of B keys split from `key`.

  Args:
    key: one JAX key for the global batch.
    num_clips: B.
    flip_probability: as in augment, like the strengths that follow.
    brightness: strength.
    contrast: strength.
    saturation: strength.
    hue: largest shift.
    grey_probability: in [0, 1].

  Returns:
    dict of is_flipped bool [B] and the arguments of color_noise.apply:
    brightness, contrast, saturation and hue float32 [B], order int32 [B, 4],
    each of the 24 equally likely, is_grey bool [B].

  Source: as the module; ranges and probabilities as there: torchvision's
    ColorJitter, then grey with a probability, then the flip.
  """

  def draw(clip_key):
    keys = jax.random.split(clip_key, 7)

    def factor(factor_key, strength):
      return jax.random.uniform(
        factor_key, minval=1.0 - strength, maxval=1.0 + strength
      )

    return {
      'is_flipped': jax.random.bernoulli(keys[0], flip_probability),
      'brightness': factor(keys[1], brightness),
      'contrast': factor(keys[2], contrast),
      'saturation': factor(keys[3], saturation),
      'hue': jax.random.uniform(keys[4], minval=-hue, maxval=hue),
      'order': jax.random.permutation(keys[5], 4),
      'is_grey': jax.random.bernoulli(keys[6], grey_probability),
    }

  return jax.vmap(draw)(jax.random.split(key, num_clips))


def center(window, crop, *, size, crops_before_resize=False, dtype=jnp.float32):
  """Crops and normalises evaluation clips; nothing is random.

  Args:
    window: uint8 [B, T, W, W, 3], RGB.
    crop: float32 [B, 4], offset y, x, height, width in window pixels.
    size: side of the result, in pixels.
    crops_before_resize: as in antialiased_resize.resize.
    dtype: of the result.

  Returns:
    dtype [B, T, size, size, 3], normalised.

  Sharding: row-wise over the batch.

  Raises:
    ValueError: if the shapes do not fit together.

  Source: as the module. Deviation: with multiscale crops the official code
    flips half of the evaluation clips, too; here none is flipped.
  """
  _check(window, crop)
  frames = antialiased_resize.resize(
    window, crop, size=size, crops_before_resize=crops_before_resize
  )
  return _keep_faults(normalize(frames, dtype), crop, window.shape[2])


def _check(window, crop):
  if window.dtype != jnp.uint8 or window.ndim != 5 or window.shape[4] != 3:
    raise ValueError(
      'window must be uint8 [B, T, W, W, 3], got '
      f'{window.dtype} {window.shape}.'
    )
  if crop.shape != (window.shape[0], 4):
    raise ValueError(
      f'crop {crop.shape} does not match {window.shape[0]} windows: it must '
      f'be [{window.shape[0]}, 4].'
    )


def _keep_faults(clips, crop, side):
  """Clips of NaN where a crop is none; as bytes they would just be black.

  Args:
    clips: float [B, T, H, W, C].
    crop: float32 [B, 4], as in augment.
    side: of the windows, in pixels.
  """
  offset, length = crop[:, :2], crop[:, 2:]
  # To half a pixel, which rounding does not reach. NaN compares as false.
  is_inside = (offset > -0.5) & (offset + length < side + 0.5)
  is_crop = jnp.all(is_inside & (length > 0), axis=1)
  return jnp.where(jnp.expand_dims(is_crop, (1, 2, 3, 4)), clips, jnp.nan)


def normalize(frames, dtype=jnp.float32):
  """Subtracts the channels' mean and divides by their deviation.

  Args:
    frames: [B, T, H, W, 3], grey levels from 0 to 255.
    dtype: of the result.

  Returns:
    dtype [B, T, H, W, 3].

  Source: the ImageNet statistics, as in the official networks.
  """
  mean = 255.0 * jnp.asarray(PIXEL_MEAN, jnp.float32)
  std = 255.0 * jnp.asarray(PIXEL_STD, jnp.float32)
  mean, std = (jnp.reshape(each, (1, 1, 1, 1, 3)) for each in (mean, std))
  return ((frames - mean) / std).astype(dtype)
