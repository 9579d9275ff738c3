"""Frames of data sets made by other code are not mixed with those of now."""

import hashlib
import pathlib

import prepare
from media import video_frames

MEDIA = pathlib.Path(prepare.__file__).parent / 'media'
# Modules that frames come out of.
MODULES = (
  'deinterlacing',
  'guarded_container',
  'open_video',
  'picture_colors',
  'picture_order',
  'segments',
  'stream_clock',
  'video_frames',
)
KNOWN = {
  '3': '6878f9c2f9984cc1f5c408f4620f6a43fe0c9bcfe1c399a387aa8f2a4b2d178a'
}


def test_other_code_has_been_looked_at():
  """Fails after any change of the modules, to ask what it does to frames.

  Where frames of some video come out otherwise, even by a bit, raise
  FRAMES_VERSION. In any case put the new digest here.
  """
  digest = hashlib.sha256()
  for name in MODULES:
    digest.update((MEDIA / f'{name}.py').read_bytes())
  assert {video_frames.FRAMES_VERSION: digest.hexdigest()} == KNOWN
