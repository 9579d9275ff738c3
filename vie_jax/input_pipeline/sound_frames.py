"""Reads the frames of a clip, and sound ones in place of damaged ones.

A frame is damaged if its record cannot be read, or if the window that the clip
needs cannot be decoded from it, or is of another size than the table of videos
says. In its place stands the nearest frame of the same video that is not, the
earlier one of two. So what a clip shows depends on the data set and the clip
only: not on threads or hosts, and not on what was read before. What becomes of
a clip whose video has no sound frame is the business of `clip_batches`.
"""

import numpy as np

from vie_jax.input_pipeline import dataset_folder, frame_window

# Videos without a sound frame that are remembered; others are searched anew.
_MAX_LOST = 10_000


class SoundFrames:
  """The frames of a store, without the damaged ones.

  Args:
    store: FrameStore.
    bad_frames: BadFrames, where damaged videos are named.
    **window_options: of frame_window.FrameWindow: what a clip needs.

  Attributes:
    store: likewise.
    window_options: dict of them.
  """

  def __init__(self, store, bad_frames, **window_options):
    self.store = store
    self.window_options = window_options
    self._bad_frames = bad_frames

  def read(self, video, frame_numbers, box, pixels):
    """Reads and decodes a clip; may be called from several threads.

    Args:
      video: int, row of the store.
      frame_numbers: int32 [T].
      box: float64 [4], of the crop.
      pixels: uint8 [T, W, W, 3], RGB, to write to.

    Returns:
      (crop, num_bad, lost): float32 [4], offset y, x, height, width of the box
      in window pixels; int, how many frames stand for others; and a sentence
      that says so if no frame of the video is sound, and nothing was decoded,
      else ''.

    Raises:
      DatasetError: if the store is closed, or cannot be reached.
    """
    window, left = decode_clip(
      self.store, video, frame_numbers, box, pixels, **self.window_options
    )
    video = int(video)
    if len(left) == len(frame_numbers):
      lost = self.store.lost.get(video)
      if lost:
        return window.crop, 0, lost
    else:
      # What could not be read for a while can be again.
      self.store.lost.pop(video, None)
    search, num_bad = _Search(self.store, video, window.check), 0
    for row in left:
      number = int(frame_numbers[row])
      found = search.nearest(number)
      if found is None:
        return window.crop, 0, self._lost(video, search, number)
      window.decode(search.frame(found), pixels[row])
      if found != number:
        num_bad += 1
        self._name(video, number, found, search.reason(number))
    return window.crop, num_bad, ''

  def name_lost(self, video, sentence, outcome):
    """Logs once that a video has no sound frame.

    Args:
      video: int, row of the store.
      sentence: from `read`.
      outcome: a sentence, what becomes of its clips.
    """
    self._bad_frames.name(
      ('lost', self.store.split, self.store.paths[video]),
      f'{sentence} {outcome}',
    )

  def _lost(self, video, search, number):
    sentence = search.lost(number)
    # Of another part of its frames a clip may find a sound one.
    if search.is_wholly_lost and len(self.store.lost) < _MAX_LOST:
      self.store.lost[video] = sentence
    return sentence

  def _name(self, video, number, found, reason):
    store = self.store
    self._bad_frames.name(
      (store.split, store.paths[video]),
      f'Frame {number} of video {store.paths[video]!r} (split {store.split!r} '
      f'of {store.directory}) is damaged: {reason}. Frame {found} is shown '
      'instead; further damage of this video is counted, not named.',
    )


def decode_clip(
  records, video, frame_numbers, box, pixels, places=None, **window_options
):
  """Reads and decodes the frames of a clip that are not damaged.

  Args:
    records: FrameRecords.
    video: int, row of them.
    frame_numbers: int32 [T].
    box: float64 [4], of the crop.
    pixels: uint8 [T, W, W, 3], RGB, to write to.
    places: of FrameRecords.each_frame.
    **window_options: of frame_window.FrameWindow.

  Returns:
    (window, left): the FrameWindow, and the rows of `pixels` whose frames
    are damaged.

  Raises:
    DatasetError: if the data set is closed, or cannot be reached.
  """
  window = frame_window.FrameWindow(
    box,
    height=records.height[video],
    width=records.width[video],
    **window_options,
  )
  left = []
  frames = records.each_frame(video, frame_numbers, places)
  for row, jpeg in enumerate(frames):
    try:
      if jpeg is None:
        left.append(row)
      else:
        window.decode(jpeg, pixels[row])
    except frame_window.JpegError:
      left.append(row)
  return window, left


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
  pixels = np.empty((store.height[video], store.width[video], 3), np.uint8)
  search = _Search(
    store, video, lambda jpeg: frame_window.decode_frame(jpeg, pixels)
  )
  found = search.nearest(frame_number)
  if found is None:
    raise lost_error(store, search.lost(frame_number))
  return search.frame(found)


class _Search:
  """Looks for sound frames of one video, that `decode` takes.

  Attributes:
    is_wholly_lost: where `nearest` finds none, whether that is so whatever part
      of the frames is looked at.
  """

  def __init__(self, store, video, decode):
    self._store = store
    self._video = video
    self._decode = decode
    self._tried = {}  # number -> (JPEG file or None, reason)
    self.is_wholly_lost = True

  def nearest(self, number):
    """The sound frame next to a number, which may be itself; None if none is."""
    num_frames = int(self._store.num_frames[self._video])
    for distance in range(num_frames):
      for candidate in dict.fromkeys((number - distance, number + distance)):
        if 0 <= candidate < num_frames and self.frame(candidate) is not None:
          return candidate
    return None

  def lost(self, number):
    """Says that no frame is sound, and what is wrong with one: a sentence."""
    store = self._store
    return (
      f'Video {store.paths[self._video]!r} (split {store.split!r} of '
      f'{store.directory}) has no frame that can be read and decoded: '
      f'{self.reason(number)}.'
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
    except dataset_folder.UnreadableError as error:
      return None, error.reason
    except frame_window.JpegError as error:
      if isinstance(error, frame_window.PartError):
        self.is_wholly_lost = False
      return None, str(error)
    return jpeg, ''


def lost_error(store, sentence, reason='No other video can stand for it.'):
  """The DatasetError for a video without a sound frame.

  Args:
    store: FrameStore.
    sentence: that says so.
    reason: a sentence, why that cannot be done without.
  """
  return dataset_folder.DatasetError(f'{sentence} {reason} {remedy(store)}')


def remedy(store):
  """What to do about a damaged data set: a sentence."""
  return (
    f'Run "python data/prepare.py check {store.directory} --full" to find all '
    'damage, and prepare the data set again with --restart.'
  )
