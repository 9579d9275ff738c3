"""The order of pictures whose timestamps are those of another order.

A codec may store pictures in another order than that in which they are shown.
AVI keeps no times of pictures, and ASF and Matroska may keep those at which
they are decoded: the decoder gives the pictures in the order of presentation,
each with the time of its place in the file, such as 1, 4, 3, 5, 2. In order of
size these are the right times.
"""

import collections
import heapq

# H.264 and HEVC keep up to 16 pictures back, as do encoders of MPEG-4.
MOST_HELD = 17
_MOST_HELD_BYTES = 2**28
# Packets that give no picture, such as damaged ones, are waited for no longer.
_MOST_PENDING = 2 * MOST_HELD


class PictureOrder:
  """Puts the timestamps of a stream's pictures in order.

  A picture is held back only while an earlier one by its timestamp is in the
  decoder. So nothing is held, and no timestamp changes, where they are in order.
  """

  def __init__(self, longest_wait):
    """Makes it for a stream.

    Args:
      longest_wait: ticks; a timestamp that lies further back is no matter of
        order.
    """
    self._longest_wait = longest_wait
    self._pending = collections.deque(maxlen=_MOST_PENDING)
    self._held = collections.deque()
    self._times = []  # A heap: the timestamps of those held.

  def expect(self, pts):
    """Notes the timestamp of a packet that goes to the decoder, or None."""
    if pts is not None:
      self._pending.append(pts)

  def push(self, picture):
    """Takes a picture of the decoder; yields those whose times are known.

    Args:
      picture: av.VideoFrame, in the order of presentation.

    Yields:
      av.VideoFrame, in the same order; `pts` may be another.
    """
    self._held.append(picture)
    if picture.pts is not None:
      heapq.heappush(self._times, picture.pts)
      if picture.pts in self._pending:
        self._pending.remove(picture.pts)
    while self._held and (self._is_known() or self._is_full()):
      yield self._next()

  def flush(self):
    """Yields the pictures that are still held."""
    while self._held:
      yield self._next()

  def _is_known(self):
    """Tells whether the time of the next picture is known."""
    if self._held[0].pts is None:
      return True
    first = self._times[0]
    return not any(
      first - self._longest_wait < pts < first for pts in self._pending
    )

  def _is_full(self):
    picture = self._held[0]
    num_bytes = sum(plane.buffer_size for plane in picture.planes)
    num_held = len(self._held)
    return num_held > MOST_HELD or num_held * num_bytes > _MOST_HELD_BYTES

  def _next(self):
    picture = self._held.popleft()
    if picture.pts is not None:
      picture.pts = heapq.heappop(self._times)
    return picture
