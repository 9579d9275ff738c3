"""Which crops of frames a training or an evaluation takes, by `config.crop`.

The host decodes one window of W x W pixels that holds the crop, which is a box in
it; the device resizes the box.
"""

from vie_jax.input_pipeline import augmentation


def train_crop(crop, store):
  """Gives W and how training boxes are drawn.

  Args:
    crop: as in `pipeline.train_batches`.
    store: that the frames are in.

  Returns:
    (W, draw_box). Of integer [n] heights and widths of stored frames, in pixels,
    and int64 [n, 2] seeds, `draw_box` makes float64 [n, 4] boxes: offset y, x,
    height and width in pixels of those frames.

  Raises:
    ValueError: if a number does not fit the others or the data set.
  """
  if augmentation.crops_before_resize(crop.method):
    scales = tuple(crop.multiscale_scales)
    window = augmentation.multiscale_window_size(
      scales=scales, max_short_side=store.max_short_side
    )

    def draw_box(height, width, seed):
      return augmentation.multiscale_train_box(
        height, width, scales=scales, seed=seed
      )

    return window, draw_box

  def draw_box(height, width, seed):
    return augmentation.train_box(
      height,
      width,
      size=crop.size,
      short_side_min=crop.short_side_min,
      short_side_max=crop.short_side_max,
      seed=seed,
    )

  return _window_size(crop, crop.short_side_min, store), draw_box


def eval_crop(crop, store):
  """Gives W and where boxes of evaluations are, as `train_crop` without a seed."""
  if augmentation.crops_before_resize(augmentation.eval_method(crop)):
    window = augmentation.multiscale_window_size(
      scales=(1.0,), max_short_side=store.max_short_side
    )
    return window, augmentation.multiscale_eval_box

  def place_box(height, width):
    return augmentation.eval_box(
      height, width, size=crop.size, short_side=crop.eval_short_side
    )

  return _window_size(crop, crop.eval_short_side, store), place_box


def _window_size(crop, short_side, store):
  return augmentation.window_size(
    size=crop.size,
    short_side=short_side,
    max_short_side=store.max_short_side,
    max_long_side=store.max_long_side,
  )
