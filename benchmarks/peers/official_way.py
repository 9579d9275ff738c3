"""A clip as the official loader makes it: one JPEG file for each frame.

Pillow decodes, resizes and crops each frame whole, then come the colour noise
of torchvision (also by Pillow) and mirroring, all on the host. Source: the
transforms of neuroailab/VIE as docs/method.md describes them; written anew.
"""

import os
import random

import numpy as np
from PIL import Image, ImageEnhance


def write_frames(store, folder):
  """Writes the frames of a store as files, the same bytes.

  Args:
    store: FrameStore.
    folder: pathlib.Path, is made.
  """
  for video in range(store.num_videos):
    directory = folder / str(video)
    directory.mkdir(parents=True)
    numbers = range(store.num_frames[video])
    for number, jpeg in zip(
      numbers, store.read_frames(video, numbers), strict=True
    ):
      (directory / f'{number + 1:06d}.jpg').write_bytes(jpeg)


def resized_crops(folder, clip, *, height, width, size):
  """Reads, resizes and crops.

  Args:
    folder: as write_frames.
    clip: sample_clips.Clip.
    height: of the stored frames, in pixels.
    width: likewise.
    size: side of the crop, in pixels.

  Returns:
    list of T images.
  """
  resized, (x, y) = clip.resized(height, width, size)
  frames = []
  for number in clip.frame_numbers:
    path = os.path.join(folder, str(clip.video), f'{number + 1:06d}.jpg')
    with Image.open(path) as file:
      frame = file.convert('RGB').resize(resized, Image.BILINEAR)
    frames.append(frame.crop((x, y, x + size, y + size)))
  return frames


def make_clip(folder, clip, **sizes):
  """Makes a whole training clip; arguments as resized_crops.

  Returns:
    uint8 [T, size, size, 3], RGB.
  """
  frames = resized_crops(folder, clip, **sizes)
  rng = random.Random(clip.position)
  operations = [
    _enhance(ImageEnhance.Brightness, rng.uniform(0.6, 1.4)),
    _enhance(ImageEnhance.Contrast, rng.uniform(0.6, 1.4)),
    _enhance(ImageEnhance.Color, rng.uniform(0.6, 1.4)),
    _shift_hue(rng.uniform(-0.4, 0.4)),
  ]
  rng.shuffle(operations)
  if rng.random() < 0.3:
    operations.append(lambda frame: frame.convert('L').convert('RGB'))
  if rng.random() < 0.5:
    operations.append(lambda frame: frame.transpose(Image.FLIP_LEFT_RIGHT))
  for operation in operations:
    frames = [operation(frame) for frame in frames]
  return np.stack([np.asarray(frame) for frame in frames])


def _enhance(kind, factor):
  return lambda frame: kind(frame).enhance(factor)


def _shift_hue(share):
  shift = np.uint8(int(share * 255) % 256)

  def shifted(frame):
    hue, saturation, value = frame.convert('HSV').split()
    hue = Image.fromarray(np.asarray(hue) + shift)
    return Image.merge('HSV', (hue, saturation, value)).convert('RGB')

  return shifted
