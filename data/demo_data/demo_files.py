"""The demo data set as video files, and folders that hold rendered files."""

import functools
import itertools
import json
import os
import pathlib

from demo_data import demo_videos
from demo_data.render_processes import in_order


def _file_name(index):
  return f'video_{index:04d}.mp4'


def _write_video_file(index, directory, seed, look):
  """Renders and encodes one video; the file appears when it is complete."""
  # PyAV is needed for files only: arrays are rendered without it.
  import av

  frames, _, _ = demo_videos.render(index, seed=seed, look=look)
  path = directory / _file_name(index)
  unfinished = path.with_name(f'.{path.name}.unfinished')
  with av.open(str(unfinished), 'w', format='mp4') as container:
    stream = container.add_stream('libx264', rate=demo_videos.FRAMES_PER_SECOND)
    stream.width, stream.height, stream.pix_fmt = (
      demo_videos.WIDTH,
      demo_videos.HEIGHT,
      'yuv420p',
    )
    # With x264's mbtree, equal frames of this size were seen to give different
    # bytes from one call to the next; one thread is plenty for it.
    stream.options = {
      'crf': '20',
      'preset': 'veryfast',
      'threads': '1',
      'x264-params': 'mbtree=0',
    }
    for image in frames:
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  os.replace(unfinished, path)


def _write_text(path, text):
  unfinished = path.with_name(f'.{path.name}.unfinished')
  unfinished.write_text(text)
  os.replace(unfinished, path)


def claim(directory, mark, wanted):
  """Makes a folder for a rendered data set and marks it, or finds it marked so.

  Args:
    directory: pathlib.Path, of the folder.
    mark: name of the file that tells what is in it.
    wanted: dict, what is to be in it, beside the version of the pictures.

  Raises:
    ValueError: if the folder holds anything else.
  """
  directory.mkdir(parents=True, exist_ok=True)
  wanted = {'version': demo_videos.VERSION, **wanted}
  path = directory / mark
  found = json.loads(path.read_text()) if path.exists() else None
  if found == wanted:
    return
  if found is not None:
    raise ValueError(
      f'{directory} holds the demo files of {found}, asked for are {wanted}. '
      'Remove the folder or name another one.'
    )
  if any(not path.name.endswith('.unfinished') for path in directory.iterdir()):
    raise ValueError(
      f'{directory} has files in it that were not rendered here. '
      'Name a new or an empty folder.'
    )
  _write_text(path, json.dumps(wanted))


def write_video_files(
  directory,
  *,
  seed,
  num_videos=1000,
  look='day',
  num_processes=1,
  on_video=None,
):
  """Writes the data set as H.264 files of 25 frames per second.

  The files have neutral names (video_0000.mp4); labels.csv, written last,
  has a row for each: path, appearance, motion. Stopped and called again, it
  goes on with the videos that are missing.

  Args:
    directory: folder to write to; created if it is missing.
    seed: number of the data set, 0 or more.
    num_videos: how many videos.
    look: one of demo_videos.LOOKS.
    num_processes: processes that render; no influence on the files.
    on_video: called without arguments after each finished video.

  Returns:
    pathlib.Path of labels.csv.

  Raises:
    ValueError: if the folder holds anything but these videos.
  """
  directory = pathlib.Path(directory)
  wanted = {'seed': seed, 'num_videos': num_videos}
  if look != 'day':
    wanted['look'] = look
  claim(directory, '.demo_videos.json', wanted)
  is_there = [(directory / _file_name(i)).exists() for i in range(num_videos)]
  missing = [index for index in range(num_videos) if not is_there[index]]
  write = functools.partial(
    _write_video_file, directory=directory, seed=seed, look=look
  )
  finished = itertools.repeat(None, num_videos - len(missing))
  for _ in itertools.chain(finished, in_order(write, missing, num_processes)):
    if on_video is not None:
      on_video()
  rows = ['path,appearance,motion']
  for index in range(num_videos):
    appearance, motion = demo_videos.labels(index, seed)
    rows.append(
      f'{_file_name(index)},{demo_videos.APPEARANCES[appearance]},{demo_videos.MOTIONS[motion]}'
    )
  _write_text(directory / 'labels.csv', '\n'.join([*rows, '']))
  return directory / 'labels.csv'
