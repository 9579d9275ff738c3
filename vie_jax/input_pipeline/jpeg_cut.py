"""Cuts from a JPEG file a smaller one that holds an area of its pixels.

What takes the time in decoding are the bits of the file, each of which needs
those before it. With restart markers that ends at each of them: what lies
between two, an interval, can be decoded alone. So of a frame that was stored
with markers only the intervals that the area meets are decoded, as the JPEG
file that they make under the same tables: the same pixels in less than half of
the time. `data/video_frames.py` stores frames so.

Source: the format is that of ITU-T T.81, sections B.1, B.2 and F.1.
"""

import dataclasses

import numpy as np

_BASELINE = 0xC0
_RESTART_INTERVAL = 0xDD
_START_OF_SCAN = 0xDA
_FIRST_RESTART = 0xD0
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
    per_row = layout.num_columns
    self._first = np.arange(rows.start, rows.stop) * per_row + columns.start
    self._end = self._first + len(columns)
    self._taken = self._first[:, None] + np.arange(len(columns))
    numbers = np.arange(self._taken.size - 1, dtype=np.uint8)
    self._markers = _FIRST_RESTART + numbers % 8
    size = self.height.to_bytes(2, 'big') + self.width.to_bytes(2, 'big')
    at = layout.size_at
    self._header = layout.header[:at] + size + layout.header[at + 4 :]
    num_intervals = layout.num_rows * per_row
    self._expected = _FIRST_RESTART + np.arange(num_intervals - 1) % 8

  def apply(self, jpeg):
    """Cuts a file whose header is that of the layout.

    Args:
      jpeg: bytes.

    Returns:
      bytearray, a JPEG file.

    Raises:
      CutError: if its markers are not in order: it is damaged.
    """
    starts = self._interval_starts(jpeg)
    first, end = starts[self._first], starts[self._end]
    pieces = map(slice, first.tolist(), end.tolist())
    # Each interval has its marker before it; the very first, what ends the
    # header.
    parts = [self._header[:-2], *(jpeg[piece] for piece in pieces)]
    cut = bytearray().join([*parts, _END_OF_IMAGE])
    sizes = end - first
    moved = len(self._header) - 2 + np.cumsum(sizes) - sizes - first
    markers = (starts[self._taken] + moved[:, None]).ravel()
    pixels = np.frombuffer(cut, np.uint8)
    pixels[markers[1:]] = 0xFF
    pixels[markers[1:] + 1] = self._markers
    cut[len(self._header) - 2 : len(self._header)] = self._header[-2:]
    return cut

  def _interval_starts(self, jpeg):
    """Where the marker before each interval is, and the end of the last."""
    start = len(self._header)
    if not jpeg.endswith(_END_OF_IMAGE):
      raise CutError('the JPEG is not complete')
    data = np.frombuffer(jpeg, np.uint8)
    markers = start + np.flatnonzero(data[start:-2] == 0xFF)
    codes = data[markers + 1]
    is_restart = codes & 0xF8 == _FIRST_RESTART
    if not np.array_equal(codes[is_restart], self._expected):
      raise CutError('restart markers of the JPEG are missing or damaged')
    return np.concatenate([[start - 2], markers[is_restart], [len(jpeg) - 2]])


def _intervals(pixels, interval, side):
  """Gives (range of intervals, first pixel, how many pixels they hold)."""
  # Colour is stored at half the resolution; at the border of what is decoded
  # it lacks a neighbour to interpolate with.
  first = max(pixels.start - 1, 0) // interval
  end = -(-min(pixels.stop + 1, side) // interval)
  start = first * interval
  return range(first, end), start, min(end * interval, side) - start
