"""Video and image files with seven kinds of damage, for tests."""

import fractions

import numpy as np
import sample_videos

NUM_FRAMES = 30


def _flip_bits(content, rng):
  for place in rng.integers(len(content), size=rng.choice([1, 8])):
    content[place] ^= 1 << int(rng.integers(8))


def _overwrite_bytes(content, rng):
  for place in rng.integers(len(content), size=rng.choice([10, 100])):
    content[place] = int(rng.integers(256))


def _zero_a_block(content, rng):
  start, end = _range(content, rng)
  content[start:end] = bytes(end - start)


def _cut_off(content, rng):
  del content[int(rng.integers(len(content))) :]


def _take_out(content, rng):
  start, end = _range(content, rng)
  del content[start:end]


def _repeat(content, rng):
  start, end = _range(content, rng)
  content[start:start] = content[start:end]


def _damage_the_header(content, rng):
  for place in rng.integers(min(len(content), 600), size=4):
    content[place] = int(rng.integers(256))


KINDS = (
  _flip_bits,
  _overwrite_bytes,
  _zero_a_block,
  _cut_off,
  _take_out,
  _repeat,
  _damage_the_header,
)


def damaged(content, number, *, seed):
  """Damages the bytes of a file, kind after kind.

  Args:
    content: bytes.
    number: int; gives the kind, and with the seed the place.
    seed: int.

  Returns:
    bytes.
  """
  changed = bytearray(content)
  KINDS[number % len(KINDS)](changed, np.random.default_rng([seed, number]))
  return bytes(changed)


def write_sound_videos(folder):
  """Writes videos of `NUM_FRAMES` pictures in several containers.

  Returns:
    list of paths.
  """
  rng = np.random.default_rng(0)
  frames = sample_videos.moving(NUM_FRAMES)
  # Some noise, so that pictures and not headers are most of a file.
  noise = rng.integers(0, 40, frames.shape, dtype=np.uint8)
  frames = np.clip(frames.astype(int) + noise, 0, 255).astype(np.uint8)
  times = np.cumsum(rng.integers(20, 90, NUM_FRAMES)).tolist()
  for name, options in {
    'plain.mp4': {},
    'faststart.mp4': {'container_options': {'movflags': 'faststart'}},
    'even.mkv': {},
    'uneven.mkv': {'times': times, 'time_base': fractions.Fraction(1, 1000)},
    'a.avi': {'codec': 'mpeg4'},
    'a.webm': {'codec': 'libvpx'},
    'a.ts': {'codec': 'mpeg2video'},
    'a.mov': {'codec': 'mjpeg', 'pix_fmt': 'yuvj420p'},
    'a.gif': {'codec': 'gif', 'pix_fmt': 'rgb8'},
    'a.ivf': {'codec': 'libvpx'},
    'a.nut': {'codec': 'mpeg4'},
    'a.ogv': {'codec': 'libvpx'},
    'a.y4m': {'codec': 'wrapped_avframe'},
  }.items():
    # Else Matroska files get random identifiers.
    container_options = {'fflags': 'bitexact'}
    container_options |= options.pop('container_options', {})
    sample_videos.write(
      folder / name, frames, container_options=container_options, **options
    )
  return sorted(folder.iterdir())


def _range(content, rng):
  start = int(rng.integers(len(content)))
  return start, start + int(rng.choice([40, 400, 4096]))
