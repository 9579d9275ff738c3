"""Perceptual hashes of the videos of a data set.

The pictures at three places in a video become 64 bits each, the signs of their
lowest frequencies, so that a video is 192 bits.
"""

import concurrent.futures
import dataclasses
import io

import numpy as np
from PIL import Image, ImageOps

# Places in a video whose pictures are hashed.
NUM_PLACES = 3
NUM_BITS = 64 * NUM_PLACES
# Below this standard deviation, in grey levels, a picture shows nothing that a
# hash could tell it by.
_FLAT_BELOW = 4.0
# Places with a picture that is not flat, without which a video is not compared.
_MIN_PLACES = 2
_SIDE = 32
_READ_AT_ONCE = 256


@dataclasses.dataclass
class Hashes:
  """What is known of each video from a few of its frames.

  Attributes:
    bits: uint64 [N, NUM_PLACES], 0 for a flat picture.
    waves: int8 [N, NUM_PLACES, 64], the lowest frequencies; likewise.
    mirrored_bits: uint64 [N, NUM_PLACES], of the pictures mirrored left to
      right.
    mirrored_waves: int8 [N, NUM_PLACES, 64], likewise.
    is_flat: bool [N, NUM_PLACES].
    frame_bytes: float64 [N], mean size of the stored frames that were read;
      NaN where none could be read.
    problems: {row: reason}, of videos that could not be read.
  """

  bits: np.ndarray
  waves: np.ndarray
  mirrored_bits: np.ndarray
  mirrored_waves: np.ndarray
  is_flat: np.ndarray
  frame_bytes: np.ndarray
  problems: dict

  @property
  def is_compared(self):
    """bool [N], whether there is enough to see in a video."""
    places = NUM_PLACES - self.is_flat.sum(axis=1)
    return (places >= _MIN_PLACES) & ~np.isnan(self.frame_bytes)

  @property
  def is_featureless(self):
    """bool [N], whether it could be read and there is not enough to see."""
    return ~self.is_compared & ~np.isnan(self.frame_bytes)


def picture_hash(picture):
  """Hashes a picture by the signs of its lowest frequencies.

  Args:
    picture: PIL image, of any size and mode.

  Returns:
    (bits, waves, is_flat): int of 64 bits, int8 [64] and bool. The waves are
    the lowest frequencies in a unit of their own, without the mean brightness.
    Flat pictures get 0.

  Source: the well-known perceptual hash of a discrete cosine transform, 8 x 8
  coefficients against their median. Deviation: flat pictures are told apart.
  """
  grey = picture.convert('L').resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
  grey = np.asarray(grey, np.float64)
  if grey.std() < _FLAT_BELOW:
    return 0, np.zeros(64, np.int8), True
  number = np.arange(_SIDE)
  cosines = np.cos(np.pi / _SIDE * np.outer(number[:8], number + 0.5))
  coefficients = cosines @ grey @ cosines.T
  is_high = coefficients > np.median(coefficients)
  coefficients[0, 0] = 0.0
  waves = np.rint(127 * coefficients.ravel() / np.linalg.norm(coefficients))
  bits = int.from_bytes(np.packbits(is_high).tobytes(), 'big')
  return bits, waves.astype(np.int8), False


def frame_numbers(num_frames):
  """Returns the frames that stand for a video: list of NUM_PLACES int."""
  return [
    (2 * place + 1) * num_frames // (2 * NUM_PLACES)
    for place in range(NUM_PLACES)
  ]


def open_frame(jpeg, side):
  """Decodes a frame, no larger than needed for a short side of `side`.

  Args:
    jpeg: bytes.
    side: pixels.

  Returns:
    PIL image, loaded.

  Raises:
    OSError, ValueError, SyntaxError: if it is damaged.
  """
  with Image.open(io.BytesIO(jpeg), formats=['JPEG']) as image:
    # Lets the decoder leave out detail that would be thrown away.
    image.draft('RGB', (side, side))
    image.load()
    return image


def hash_videos(store, *, num_threads, progress):
  """Reads and hashes three frames of each video.

  Args:
    store: FrameStore.
    num_threads: that read and decode.
    progress: called with a number of videos after so many.

  Returns:
    Hashes.
  """
  count = store.num_videos
  found = Hashes(
    np.zeros((count, NUM_PLACES), np.uint64),
    np.zeros((count, NUM_PLACES, 64), np.int8),
    np.zeros((count, NUM_PLACES), np.uint64),
    np.zeros((count, NUM_PLACES, 64), np.int8),
    np.zeros((count, NUM_PLACES), bool),
    np.full(count, np.nan),
    {},
  )

  def look_at(row):
    numbers = frame_numbers(int(store.num_frames[row]))
    try:
      frames = store.read_frames(row, numbers)
      pictures = [open_frame(jpeg, 2 * _SIDE) for jpeg in frames]
      hashes = [picture_hash(picture) for picture in pictures]
      mirrored = [picture_hash(ImageOps.mirror(each)) for each in pictures]
    except (OSError, ValueError, SyntaxError) as error:
      found.problems[row] = ' '.join(str(error).split())
      return
    found.bits[row], found.waves[row], found.is_flat[row] = zip(
      *hashes, strict=True
    )
    found.mirrored_bits[row], found.mirrored_waves[row], _ = zip(
      *mirrored, strict=True
    )
    found.frame_bytes[row] = np.mean([len(jpeg) for jpeg in frames])

  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    # In portions, so that Ctrl-C does not wait for all of them.
    for start in range(0, count, _READ_AT_ONCE):
      rows = range(start, min(start + _READ_AT_ONCE, count))
      for _ in pool.map(look_at, rows):
        progress(1)
  return found
