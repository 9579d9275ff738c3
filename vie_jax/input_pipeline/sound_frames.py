"""Reads the frames of a clip, and sound ones in place of damaged ones.

A frame is damaged if its record cannot be read, or if the window that the clip
needs cannot be decoded from it, or is of another size than the table of videos
says. In its place stands the nearest frame of the same video that is not, the
earlier one of two. So what a clip shows depends on the data set and the clip
only: not on threads or hosts, and not on what was read before.

Frames are decoded in the graph, and only there as long as they are sound. What
cannot be decoded ends the graph; then the video is noted as suspect, and from
there on its frames are tried here first. That decides by which way a clip is
made, never what it shows.
"""

import re
import threading

import numpy as np
import tensorflow as tf

from vie_jax.input_pipeline import augmentation, frame_store

# With more suspects than these each video is one: beginning anew for each of
# them would take longer than to decode all frames twice.
_MAX_SUSPECTS = 16


class SoundFrames:
  """The frames of a store, without the damaged ones.

  Args:
    store: FrameStore.
    bad_frames: BadFrames, where damaged videos are named.
    **window_options: of augmentation.decode_window: what a clip needs.
  """

  def __init__(self, store, bad_frames, **window_options):
    self._store = store
    self._bad_frames = bad_frames
    self._window_options = window_options
    self._suspects = set()
    self._lock = threading.Lock()

  def read(self, video, frame_numbers, box):
    """Reads the frames of a clip; may be called from several threads.

    Args:
      video: int, row of the store.
      frame_numbers: int32 [T].
      box: float64 [4], of the crop.

    Returns:
      (frames, num_bad): object [T], JPEG files, and int32, how many of them
      stand for others.

    Raises:
      DatasetError: if no frame of the video is sound, or the store is closed.
    """
    if not self._is_suspect(video):
      try:
        frames = self._store.read_frames(video, frame_numbers)
        return np.array(frames, dtype=object), np.int32(0)
      except frame_store.UnreadableError:
        pass  # one of them
    video = int(video)
    height, width = _shape(self._store, video)

    def decode(jpeg):
      augmentation.decode_window(
        tf.constant([jpeg]),
        tf.constant(box),
        height=height,
        width=width,
        **self._window_options,
      )

    search = _Search(self._store, video, decode)
    frames, num_bad = [], 0
    for number in frame_numbers.tolist():
      found = search.nearest(number)
      frames.append(search.frame(found))
      if found != number:
        num_bad += 1
        self._name(video, number, found, search.reason(number))
    return np.array(frames, dtype=object), np.int32(num_bad)

  def find_damage(self, video, frame_numbers, box):
    """Looks for what has ended the graph, and notes it.

    Args:
      video: int, row of the store.
      frame_numbers: int32 [T].
      box: float64 [4], of the crop.

    Returns:
      bool, whether something was found that was not known.

    Raises:
      DatasetError: as `read`.
    """
    frames, _ = self.read(video, frame_numbers, box)
    if self._is_suspect(video):
      return False
    try:
      for jpeg in frames:
        # All of it: more than the clip needs, so that nothing escapes.
        _decode_whole(jpeg, *_shape(self._store, video))
    except tf.errors.OpError:
      with self._lock:
        self._suspects.add(int(video))
      return True
    return False

  def _is_suspect(self, video):
    suspects = self._suspects
    return len(suspects) > _MAX_SUSPECTS or int(video) in suspects

  def _name(self, video, number, found, reason):
    store = self._store
    self._bad_frames.name(
      (store.split, store.paths[video]),
      f'Frame {number} of video {store.paths[video]!r} (split {store.split!r} '
      f'of {store.directory}) is damaged: {reason}. Frame {found} is shown '
      'instead; further damage of this video is counted, not named.',
    )


def read_whole(store, video, frame_number):
  """Reads a frame to look at, or the nearest one that can be decoded.

  Args:
    store: FrameStore.
    video: int, row of the store.
    frame_number: int, in [0, num_frames of the video).

  Returns:
    bytes, a JPEG file.

  Raises:
    DatasetError: if no frame of the video is sound.
  """
  shape = _shape(store, video)
  search = _Search(store, video, lambda jpeg: _decode_whole(jpeg, *shape))
  return search.frame(search.nearest(frame_number))


class _Search:
  """Looks for sound frames of one video, that `decode` takes."""

  def __init__(self, store, video, decode):
    self._store = store
    self._video = video
    self._decode = decode
    self._tried = {}  # number -> (JPEG file or None, reason)

  def nearest(self, number):
    """The sound frame next to a number, which may be itself."""
    num_frames = int(self._store.num_frames[self._video])
    for distance in range(num_frames):
      for candidate in dict.fromkeys((number - distance, number + distance)):
        if 0 <= candidate < num_frames and self.frame(candidate) is not None:
          return candidate
    raise frame_store.DatasetError(
      f'Video {self._store.paths[self._video]!r} (split '
      f'{self._store.split!r} of {self._store.directory}) has no frame that '
      f'can be read and decoded: {self.reason(number)}. No other video can '
      f'stand for it. {remedy(self._store)}'
    )

  def frame(self, number):
    """The JPEG file of a frame, or None if it is damaged."""
    if number not in self._tried:
      self._tried[number] = self._try(number)
    return self._tried[number][0]

  def reason(self, number):
    """What is wrong with a frame that was tried."""
    return self._tried[number][1]

  def _try(self, number):
    try:
      (jpeg,) = self._store.read_frames(self._video, [number])
      self._decode(jpeg)
    except frame_store.UnreadableError as error:
      return None, error.reason
    except tf.errors.OpError as error:
      return None, reason_of(error)
    return jpeg, ''


def remedy(store):
  """What to do about a damaged data set: a sentence."""
  return (
    f'Run "python data/prepare.py check {store.directory} --full" to find all '
    'damage, and prepare the data set again with --restart.'
  )


def reason_of(error):
  """What TensorFlow says is wrong, without its own names: no full stop."""
  line = error.message.strip().split('\n')[0]
  line = re.sub(r'\{\{.*?\}\} *| *\[Op:.*', '', line)
  return line.rstrip('. ')


def _shape(store, video):
  """Height and width as the graph has them."""
  return tf.constant(store.height[video]), tf.constant(store.width[video])


def _decode_whole(jpeg, height, width):
  """Decodes all of a frame; raises tf.errors.OpError if that fails."""
  tf.debugging.assert_equal(
    tf.io.extract_jpeg_shape(jpeg)[:2],
    tf.stack([height, width]),
    'The JPEG has another size than the table of videos says.',
  )
  tf.io.decode_jpeg(jpeg, channels=3, dct_method='INTEGER_ACCURATE')
