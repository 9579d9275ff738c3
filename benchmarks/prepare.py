"""Compares the preparation of videos with plain ffmpeg, side by side.

  python benchmarks/prepare.py > benchmarks/results/prepare-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds.

One video: what one process makes of it in a second of CPU time, and what
`ffmpeg` makes of the same file. vie_jax: a worker process that has started;
digest of the file, decoding, scaling, JPEG, digest of the frames, and a file in
the staging directory with its fsync. ffmpeg: a process that starts each time;
one thread each for decoder, filters and encoder; the same rate (fps=25) and
size (bicubic), and one JPEG file per frame. It keeps the colour matrix of the
video, where vie_jax converts it to that of JPEG files. Its -qscale:v 2 gives
files about as large as quality 90 does. Before anything is timed, both must
give the same number of frames, and nearly the same luma where ffmpeg converts
the matrix, too.

Many videos: whole preparations of copies of the smallest video, with one worker
process and with one for each core. Start-up is what a data set of one
video for each process takes, from the call to the finished data set; it is
taken away before videos in a second are counted. Shards are small, so that
every process has some to write, as in a data set of many gigabytes.

ffmpeg is the one on PATH, else that of the package imageio-ffmpeg (extra
`benchmark`).
"""

import functools
import hashlib
import io
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, result_lines, script

import numpy as np
from dataset.staging import Staging, read_frames_file
from inputs import benchmark_videos
from media.video_frames import FrameOptions
from PIL import Image
from preparation.prepare_dataset import Settings, prepare_dataset
from preparation.prepare_video import Task, prepare_video
from sources.folder_source import read_folder

_OPTIONS = FrameOptions()
_PACKAGES = ('array_record', 'av', 'numpy', 'pillow')
_FFMPEG_QUALITY = '2'
_SHARD_BYTES = 2**25
# Mean difference of luma in grey levels: two JPEG encoders, two versions of
# swscale. A frame too early or too late differs by more.
_MOST_DIFFERENT = 3.0


def main():
  """Runs all comparisons and prints them."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--videos',
    type=argument_types.folder,
    help='a folder of videos (makes its own)',
  )
  argument_types.add_rounds(parser, 5)
  parser.add_argument(
    '--copies',
    type=argument_types.count,
    default=64,
    help='of a video, to see how it scales',
  )
  options = parser.parse_args()
  ffmpeg = _ffmpeg()
  with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    folder = pathlib.Path(options.videos or scratch / 'videos')
    if not options.videos:
      benchmark_videos.write_videos(folder)
    report = result_lines.Report(
      'prepare',
      rounds=options.rounds,
      packages=_PACKAGES,
      versions={'ffmpeg': _version(ffmpeg)},
    )
    source = read_folder(str(folder))
    for video in source.videos:
      _compare(source.folder, video, ffmpeg, scratch, report)
    smallest = min(source.videos, key=lambda video: video.size)
    path = pathlib.Path(source.folder, smallest.file)
    _scaling(path, options.copies, scratch, report)
  report.finish()


def _compare(folder, video, ffmpeg, scratch, report):
  """Times one video by each way, in turn, round by round."""
  staging = Staging(scratch / 'out')
  staging.directory.mkdir(parents=True, exist_ok=True)
  task = Task(folder, video, os.fspath(scratch / 'out'), _OPTIONS)
  path = os.path.join(folder, video.file)
  row = _row(prepare_video(task))
  jpegs = scratch / 'jpegs'
  jpegs.mkdir()

  def extract(*, scale=''):
    _extract(ffmpeg, path, f'{row["width"]}:{row["height"]}{scale}', jpegs)

  extract(scale=':out_color_matrix=bt601')
  check_agreement(staging.frames_path(video.id), video.path, jpegs)
  ways = {'vie_jax': lambda: prepare_video(task), 'ffmpeg': extract}
  cpu, wall = ({way: [] for way in ways} for _ in range(2))
  for _ in range(report.rounds):
    for way, run in ways.items():
      seconds = _timed(run)
      cpu[way].append(seconds[0])
      wall[way].append(seconds[1])
  num_bytes = {
    'vie_jax': row['num_bytes'],
    'ffmpeg': sum(file.stat().st_size for file in jpegs.iterdir()),
  }
  shutil.rmtree(jpegs)
  rate = {way: 1 / statistics.median(cpu[way]) for way in ways}
  for way in ways:
    say = functools.partial(report.add, f'one video, {_describe(row)}', way)
    against = {}
    if way == 'vie_jax':
      ratio = rate[way] / rate['ffmpeg']
      against = {'ratio': ratio, 'ratio_to': 'ffmpeg'}
    say('videos per CPU second', rate[way], **against)
    say('wall seconds per video', statistics.median(wall[way]))
    say('kilobytes per frame', num_bytes[way] / row['num_frames'] / 1000)


def _describe(row):
  size = f'{row["source_width"]} x {row["source_height"]}'
  rate, seconds = row['source_fps'], row['duration_seconds']
  return f'{size}, {rate:g} Hz, {seconds:g} s'


def _scaling(path, copies, scratch, report):
  """Times whole preparations with one process and with one for each core."""
  num_cores = len(os.sched_getaffinity(0))
  counts = sorted({1, num_cores})
  seconds = {count: [] for count in counts}
  for _ in range(report.rounds):
    for count in counts:
      start = _prepare_copies(path, count, count, scratch)
      whole = _prepare_copies(path, count + copies, count, scratch)
      further = [b - a for a, b in zip(start, whole, strict=True)]
      seconds[count].append((*further, start[1]))
  cpu, wall, start_up = (
    {count: statistics.median(column) for count, column in columns}
    for columns in zip(
      *(
        [(count, column) for column in zip(*rounds, strict=True)]
        for count, rounds in seconds.items()
      ),
      strict=True,
    )
  )
  for count in counts:
    case = f'many videos: {copies} copies of {path.name}'
    variant = '1 process' if count == 1 else f'{count} processes'
    say = functools.partial(report.add, case, variant)
    linear = {}
    if count > 1:
      ratio = wall[1] / wall[count] / count
      linear = {'ratio': ratio, 'ratio_to': f'{count} times 1 process'}
    say('videos per second', copies / wall[count], **linear)
    say('videos per CPU second', copies / cpu[count])
    say('start-up seconds', start_up[count])


def _prepare_copies(path, number, num_processes, scratch):
  """Prepares copies of a video; returns (CPU seconds, wall seconds)."""
  folder = scratch / f'copies-{number}'
  if not folder.exists():
    folder.mkdir()
    for copy in range(number):
      shutil.copy(path, folder / f'{copy:04d}{path.suffix}')
  source = read_folder(str(folder))
  settings = Settings(
    out=str(scratch / 'set'),
    num_processes=num_processes,
    restart=True,
    shard_bytes=_SHARD_BYTES,
  )
  return _timed(lambda: prepare_dataset(source, settings))


def _extract(ffmpeg, path, scale, jpegs):
  """Extracts JPEG files."""
  command = [
    *(ffmpeg, '-nostdin', '-v', 'error', '-y', '-threads', '1'),
    *('-filter_threads', '1', '-i', path, '-an', '-vf'),
    f'fps={_OPTIONS.fps},scale={scale}:flags=bicubic',
    *('-threads', '1', '-qscale:v', _FFMPEG_QUALITY, str(jpegs / '%06d.jpg')),
  ]
  code = subprocess.run(command, check=False).returncode
  if code:
    sys.exit(f'Error: {command} ended with {code}.')


def _timed(run):
  """Returns (CPU seconds, wall seconds), with those of ended children."""
  cpu, start = _cpu_seconds(), time.perf_counter()
  run()
  return _cpu_seconds() - cpu, time.perf_counter() - start


def _cpu_seconds():
  usages = [
    resource.getrusage(who)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  ]
  return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def check_agreement(frames_path, name, jpegs):
  """Ends the run unless both ways give the same frames."""
  files = sorted(jpegs.iterdir())
  frames = list(read_frames_file(frames_path, hashlib.sha256()))
  if len(files) != len(frames):
    sys.exit(f'Error: {name}: {len(frames)} frames, ffmpeg {len(files)}.')
  difference = max(
    np.abs(_luma(file) - _luma(io.BytesIO(frame))).mean()
    for file, frame in list(zip(files, frames, strict=True))[::25]
  )
  if not difference <= _MOST_DIFFERENT:
    sys.exit(
      f'Error: {name}: pictures differ from those of ffmpeg by '
      f'{difference:.1f} grey levels in the mean.'
    )


def _luma(file):
  return np.asarray(Image.open(file).convert('L')).astype(np.float32)


def _row(record):
  if 'row' not in record:
    sys.exit(f'Error: {record["path"]}: {record["reason"]}.')
  return record['row']


def _ffmpeg():
  found = shutil.which('ffmpeg')
  if found is None:
    # Only where the system has none.
    script.require(
      'imageio_ffmpeg', 'put ffmpeg on PATH, or pip install imageio-ffmpeg'
    )
    import imageio_ffmpeg

    found = imageio_ffmpeg.get_ffmpeg_exe()
  return found


def _version(ffmpeg):
  return subprocess.run(
    [ffmpeg, '-version'], capture_output=True, text=True, check=True
  ).stdout.split()[2]


if __name__ == '__main__':
  script.run(main)
