"""Renders the embedded image data set: single frames of videos never shown.

An image is one frame of a video of `demo_videos`, and its class is the
texture, the appearance. With another seed than that of the videos that a
network was trained on, no picture comes from one of them. The folder is what
image data sets look like everywhere: train/CLASS/ and val/CLASS/.
"""

import functools
import io
import itertools
import os
import pathlib

import numpy as np

from demo_data import demo_files, demo_videos
from demo_data.render_processes import in_order

MARK = '.demo_images.json'
_JPEG_QUALITY = 92


def render(index, *, seed):
  """Renders one image, a pure function of its number and the seed.

  Args:
    index: number of the image, 0 or more.
    seed: number of the data set, 0 or more.

  Returns:
    (image, appearance): uint8 [H, W, 3] RGB and its class, a position in
    demo_videos.APPEARANCES.
  """
  frames, appearance, _ = demo_videos.render(index, seed=seed)
  # The third number keeps this generator apart from those of the video.
  rng = np.random.default_rng([seed, index, 2])
  return frames[rng.integers(len(frames))], appearance


def _file_name(index, num_train, seed):
  """The image's path in the folder: split, class, number."""
  appearance, _ = demo_videos.labels(index, seed)
  split = 'train' if index < num_train else 'val'
  name = demo_videos.APPEARANCES[appearance]
  return pathlib.Path(split, name, f'image_{index:04d}.jpg')


def _write_image(index, directory, num_train, seed):
  """Renders and encodes one image; the file appears when it is complete."""
  # Pillow is needed for files only, as PyAV is for videos.
  from PIL import Image

  image, _ = render(index, seed=seed)
  data = io.BytesIO()
  Image.fromarray(image).save(data, 'JPEG', quality=_JPEG_QUALITY)
  path = directory / _file_name(index, num_train, seed)
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_name(f'.{path.name}.unfinished')
  unfinished.write_bytes(data.getvalue())
  os.replace(unfinished, path)


def write_image_folder(
  directory,
  *,
  seed,
  num_train=800,
  num_val=400,
  num_processes=1,
  on_image=None,
):
  """Writes the data set as JPEG files in train/CLASS/ and val/CLASS/.

  Stopped and called again, it goes on with the images that are missing.

  Args:
    directory: folder to write to; created if it is missing.
    seed: number of the data set, 0 or more.
    num_train: images to train on.
    num_val: images to test on.
    num_processes: processes that render; no influence on the files.
    on_image: called without arguments after each finished image.

  Raises:
    ValueError: if the folder holds anything but these images.
  """
  directory = pathlib.Path(directory)
  wanted = {'seed': seed, 'num_train': num_train, 'num_val': num_val}
  demo_files.claim(directory, MARK, wanted)
  total = num_train + num_val
  missing = [
    index
    for index in range(total)
    if not (directory / _file_name(index, num_train, seed)).exists()
  ]
  write = functools.partial(
    _write_image, directory=directory, num_train=num_train, seed=seed
  )
  finished = itertools.repeat(None, total - len(missing))
  rendered = in_order(write, missing, num_processes)
  for _ in itertools.chain(finished, rendered):
    if on_image is not None:
      on_image()
