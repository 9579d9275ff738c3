"""Cuts from a JPEG file a smaller one that holds an area of its pixels.

What takes the time in decoding are the bits of the file, each of which needs
those before it. With restart markers that ends at each of them: what lies
between two, an interval, can be decoded alone. So of a frame that was stored
with markers only the intervals that the area meets are decoded, as the JPEG
file that they make under the same tables: the same pixels in less than half of
the time. `data/media/video_frames.py` stores frames so.

Source: the format is that of ITU-T T.81, sections B.1, B.2 and F.1.
"""

import dataclasses

import numpy as np

_BASELINE = 0xC0
_RESTART_INTERVAL = 0xDD
_START_OF_SCAN = 0xDA
# The markers between intervals count from 0 to 7, over and over.
_FIRST_RESTART = 0xD0
_RESTART_CODES = bytes(range(_FIRST_RESTART, _FIRST_RESTART + 8))
_RESTARTS = [bytes([0xFF, code]) for code in _RESTART_CODES]
_END_OF_IMAGE = b'\xff\xd9'


class CutError(ValueError):
  """The markers of a file are not those that its header announces."""


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where what is in a file with restart markers, by its header.

  Attributes:
    header: bytes, all that is before the first interval.
    size_at: where in the header height and width are.
    interval_width: of the pixels of an interval.
    interval_height: likewise.
    num_rows: rows of intervals.
    num_columns: intervals in a row.
  """

  header: bytes
  size_at: int
  interval_width: int
  interval_height: int
  num_rows: int
  num_columns: int


def read_layout(jpeg):
  """Reads the header of a file.

  Args:
    jpeg: bytes of a JPEG file.

  Returns:
    Layout, or None where the file cannot be cut: it has no restart markers,
    intervals that go on in the next row, several scans, other than three components,
    or no header that can be read.
  """
  interval, frame_at, place = 0, None, 2
  while place + 4 <= len(jpeg) and jpeg[place] == 0xFF:
    marker = jpeg[place + 1]
    if marker == _BASELINE:
      frame_at = place + 5
    elif marker == _RESTART_INTERVAL:
      interval = int.from_bytes(jpeg[place + 4 : place + 6], 'big')
    place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], 'big')
    if marker == _START_OF_SCAN:
      break
  else:
    return None
  if frame_at is None or not interval or place > len(jpeg):
    return None
  return _layout(jpeg[:place], frame_at, interval)


def _layout(header, frame_at, interval):
  height, width = (
    int.from_bytes(header[at : at + 2], 'big')
    for at in (frame_at, frame_at + 2)
  )
  # Three components, each with a number, its sampling and its table.
  sampling = header[frame_at + 6 : frame_at + 15 : 3]
  if header[frame_at + 4] != 3 or 0 in (height, width, *sampling):
    return None
  unit_width = 8 * max(each >> 4 for each in sampling)
  unit_height = 8 * max(each & 15 for each in sampling)
  units = -(-width // max(unit_width, 1))
  if units % interval or not unit_height:
    return None
  return Layout(
    header=header,
    size_at=frame_at,
    interval_width=unit_width * interval,
    interval_height=unit_height,
    num_rows=-(-height // unit_height),
    num_columns=units // interval,
  )


class Cut:
  """Which intervals of files of one layout hold an area.

  Attributes:
    layout: Layout.
    top: first row of pixels of what is cut.
    left: first column, likewise.
    height: of what is cut, in pixels.
    width: likewise.
  """

  def __init__(self, layout, *, height, width, area):
    """Chooses the intervals.

    Args:
      layout: Layout.
      height: of the whole picture, in pixels.
      width: likewise.
      area: (rows, columns), slices of its pixels.
    """
    self.layout = layout
    rows, self.top, self.height = _intervals(
      area[0], layout.interval_height, height
    )
    columns, self.left, self.width = _intervals(
      area[1], layout.interval_width, width
    )
    self._taken = [
      row * layout.num_columns + column for row in rows for column in columns
    ]
    size = self.height.to_bytes(2, 'big') + self.width.to_bytes(2, 'big')
    at = layout.size_at
    header = layout.header[:at] + size + layout.header[at + 4 :]
    # What stands before, between and behind the intervals of the cut file.
    num_markers = len(self._taken) - 1
    between = (_RESTARTS * (num_markers // 8 + 1))[:num_markers]
    self._around = [header, *between, _END_OF_IMAGE]
    num_markers = layout.num_rows * layout.num_columns - 1
    self._codes = (_RESTART_CODES * (num_markers // 8 + 1))[:num_markers]

  def apply(self, jpeg):
    """Cuts a file whose header is that of the layout.

    Args:
      jpeg: bytes.

    Returns:
      bytes, a JPEG file.

    Raises:
      CutError: if its markers are not in order: it is damaged.
    """
    markers = self._markers(jpeg)
    starts = [len(self.layout.header), *(at + 2 for at in markers)]
    ends = [*markers, len(jpeg) - len(_END_OF_IMAGE)]
    parts = [b''] * (2 * len(self._taken) + 1)
    parts[::2] = self._around
    parts[1::2] = [jpeg[starts[n] : ends[n]] for n in self._taken]
    return b''.join(parts)

  def _markers(self, jpeg):
    """Where the restart markers are: a list of int."""
    start = len(self.layout.header)
    if not jpeg.endswith(_END_OF_IMAGE):
      raise CutError('the JPEG is not complete')
    data = np.frombuffer(jpeg, np.uint8)
    markers = start + np.flatnonzero(data[start:-2] == 0xFF)
    codes = data[markers + 1]
    is_restart = codes & 0xF8 == _FIRST_RESTART
    if codes[is_restart].tobytes() != self._codes:
      raise CutError('restart markers of the JPEG are missing or damaged')
    return markers[is_restart].tolist()


def _intervals(pixels, interval, side):
  """Gives (range of intervals, first pixel, how many pixels they hold)."""
  # Colour is stored at half the resolution; at the border of what is decoded
  # it lacks a neighbour to interpolate with.
  first = max(pixels.start - 1, 0) // interval
  end = -(-min(pixels.stop + 1, side) // interval)
  start = first * interval
  return range(first, end), start, min(end * interval, side) - start
