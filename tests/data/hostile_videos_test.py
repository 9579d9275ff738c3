"""Files that attack whoever opens them: bombs, names, texts, pipes."""

import contextlib
import fractions
import os
import socket
import tempfile

import file_watch
import media_bombs
import memory_use
import pytest
import sample_videos
import worker_functions
from media import open_video, video_errors
from media.video_frames import FrameOptions, write_frames
from preparation import worker_pool

_MIB = 2**20
_MAX_PIXELS = FrameOptions.max_pixels


# Bombs.


def _decode(*paths, **options):
  with worker_pool.WorkerPool(
    worker_functions.decode,
    num_processes=1,
    timeout_seconds=20,
    max_stall_seconds=20,
    max_memory_bytes=2**31,
  ) as pool:
    tasks = [(str(path), FrameOptions(**options)) for path in paths]
    return [outcome for _, outcome in pool.run(tasks)]


def test_bombs_are_refused_before_they_take_memory_or_time(tmp_path):
  paths = [
    tmp_path / name
    for name in ('png.mov', 'liar.mov', 'raw.y4m', 'x.gif', 'x.avi', 'x.mkv')
  ]
  media_bombs.mov_of_png(paths[0], claimed_side=media_bombs.SIDE)
  media_bombs.mov_of_png(paths[1], claimed_side=64)
  media_bombs.raw_video(paths[2])
  media_bombs.gif(paths[3])
  media_bombs.endless_avi(paths[4])
  media_bombs.ten_hours(paths[5])
  sample_videos.write(tmp_path / 'good.mp4', sample_videos.moving(3))
  # The first one pays for what is set up once.
  _, *outcomes = _decode(tmp_path / 'good.mp4', *paths)
  for path, outcome in zip(paths, outcomes, strict=True):
    assert outcome.reason, path.name
    assert outcome.num_pictures == 0, path.name
    assert outcome.risen_bytes <= 100 * _MIB, path.name
    assert outcome.processor_seconds <= 0.5, path.name
    print(
      f'{path.name}: {path.stat().st_size} bytes; {outcome.reason}; '
      f'{outcome.processor_seconds:.2f} s, {outcome.risen_bytes / _MIB:.0f} MiB more'
    )
  assert '--max-pixels' in outcomes[0].reason
  assert '2147483647' not in outcomes[4].reason
  for outcome in outcomes[4:]:
    assert '--max-seconds' in outcome.reason


def test_the_number_of_pictures_is_bounded(tmp_path):
  path = tmp_path / 'x.ts'
  sample_videos.write(
    path,
    sample_videos.moving(1200, 16, 16),
    times=[30 * number for number in range(1200)],
    time_base=fractions.Fraction(1, 90_000),
    options={'preset': 'ultrafast'},
  )
  frames = []
  assert write_frames(path, FrameOptions(), frames.append).num_frames == 11
  with pytest.raises(video_errors.VideoError, match='more than 1000 pictures'):
    write_frames(path, FrameOptions(max_seconds=1), frames.append)


def test_a_count_of_pictures_in_the_header_is_not_believed(tmp_path):
  path = tmp_path / 'x.avi'
  media_bombs.endless_avi(path)
  frames = []
  facts = write_frames(path, FrameOptions(max_seconds=2**31), frames.append)
  assert len(frames) == facts.num_frames == 30
  assert any('30 of 2147483647' in text for text in facts.warnings)


# Names and texts that lead elsewhere.


@pytest.fixture
def listener():
  with socket.socket() as server:
    server.bind(('127.0.0.1', 0))
    server.listen()
    server.settimeout(0.2)
    yield server


def _is_called(server):
  try:
    server.accept()
  except TimeoutError:
    return False
  return True


def _names(address, decoy):
  return [
    f'http://{address}/x.mp4',
    f'https://{address}/x.mp4',
    f'ftp://{address}/x.mp4',
    f'rtmp://{address}/x/y',
    f'tcp://{address}',
    f'udp://{address}',
    f'cache:http://{address}/x.mp4',
    f'concat:{decoy}|{decoy}',
    f'subfile,,start,0,end,0,,:{decoy}',
    f'async:{decoy}',
    f'crypto:{decoy}',
    f'file:{decoy}',
    'data:video/mp4;base64,AAAA',
    'pipe:0',
    'fd:0',
  ]


def _texts(address, decoy):
  return {
    'concat': f"ffconcat version 1.0\nfile 'decoys/{decoy.name}'\n",
    'concat-path': f"ffconcat version 1.0\nfile '{decoy}'\n",
    'hls': '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n'
    f'{decoy}\n#EXT-X-ENDLIST\n',
    'hls-net': '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n'
    f'http://{address}/x.ts\n#EXT-X-ENDLIST\n',
    'sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\n'
    't=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
    'dash': '<?xml version="1.0"?><MPD '
    'xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="0">'
    f'<BaseURL>http://{address}/x.mp4</BaseURL></Representation>'
    '</AdaptationSet></Period></MPD>',
    'asx': f'[Reference]\nRef1=http://{address}/x.asf\n',
    'rtsp': f'RTSPtextRTSP://{address}/x',
  }


def test_no_name_and_no_text_opens_another_file_or_a_connection(
  tmp_path, listener
):
  (tmp_path / 'decoys').mkdir()
  decoy = tmp_path / 'decoys' / 'decoy.mp4'
  sample_videos.write(decoy, sample_videos.moving(3))
  address = f'127.0.0.1:{listener.getsockname()[1]}'
  watch = file_watch.Watch(tmp_path / 'decoys')
  with open_video.open_video(decoy, max_pixels=_MAX_PIXELS):
    assert watch.opened(), 'a watch that sees nothing proves nothing'
  watch.opened()
  cases = _names(address, decoy)
  for name, text in _texts(address, decoy).items():
    cases.append(str(tmp_path / f'{name}.mp4'))
    (tmp_path / f'{name}.mp4').write_text(text)
  for case in cases:
    with (
      pytest.raises(video_errors.VideoError) as caught,
      open_video.open_video(case, max_pixels=_MAX_PIXELS),
    ):
      pass
    assert case in str(caught.value)
  assert watch.opened() == 0
  assert not _is_called(listener)
  print(f'{len(cases)} cases: 0 other files opened, 0 connections')


# What is no file.


@pytest.mark.parametrize('kind', ['pipe', 'device', 'socket', 'folder'])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, kind):
  path = tmp_path / 'x.mp4'
  with contextlib.ExitStack() as stack:
    if kind == 'pipe':
      os.mkfifo(path)
    elif kind == 'device':
      path.symlink_to('/dev/zero')
    elif kind == 'folder':
      path.mkdir()
    else:
      server = stack.enter_context(socket.socket(socket.AF_UNIX))
      server.bind(os.path.relpath(path))
    words = 'a directory' if kind == 'folder' else 'not a regular file'
    with pytest.raises(video_errors.VideoError, match=words):
      write_frames(path, FrameOptions(), lambda frame: None)


@contextlib.contextmanager
def _as_nobody():
  """Lets root, who may read everything, be somebody else for a while."""
  if os.geteuid():
    yield
    return
  os.seteuid(65_534)
  try:
    yield
  finally:
    os.seteuid(0)


def test_a_file_that_may_not_be_read_is_named():
  # Not tmp_path, which nobody else may enter.
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    path = os.path.join(folder, 'x.mp4')
    sample_videos.write(path, sample_videos.moving(3))
    os.chmod(path, 0)
    with (
      _as_nobody(),
      pytest.raises(
        video_errors.VideoError, match='Permission denied'
      ) as caught,
    ):
      write_frames(path, FrameOptions(), lambda frame: None)
  assert path in str(caught.value)


# Parts of a video.


@pytest.mark.parametrize('name', ['x.mkv', 'x.webm', 'x.avi', 'fast.mp4'])
def test_a_cut_file_is_refused_or_reported(tmp_path, name):
  path = tmp_path / name
  codec = {'.webm': 'libvpx', '.avi': 'mpeg4'}.get(path.suffix, 'libx264')
  options = {'movflags': 'faststart'} if path.suffix == '.mp4' else {}
  sample_videos.write(
    path,
    sample_videos.moving(60),
    codec=codec,
    container_options=options,
  )
  frames = []
  assert write_frames(path, FrameOptions(), frames.append).warnings == []
  content = path.read_bytes()
  for percent in range(5, 100, 5):
    path.write_bytes(content[: len(content) * percent // 100])
    kept, warnings = [], []
    with contextlib.suppress(video_errors.VideoError):
      warnings = write_frames(path, FrameOptions(), kept.append).warnings
      # The index of an AVI is at its end, and not needed.
      assert warnings or len(kept) == len(frames), percent


def test_a_transport_stream_cut_within_a_packet_is_reported(tmp_path):
  path = tmp_path / 'x.ts'
  sample_videos.write(path, sample_videos.moving(60), codec='mpeg2video')
  frames = []
  assert write_frames(path, FrameOptions(), frames.append).warnings == []
  content = path.read_bytes()
  for percent in range(30, 100, 10):
    place = len(content) * percent // 100 // 188 * 188 + percent
    path.write_bytes(content[:place])
    kept = []
    warnings = write_frames(path, FrameOptions(), kept.append).warnings
    assert len(kept) < len(frames)
    assert any('ends within a packet' in text for text in warnings), percent


@pytest.mark.parametrize(
  'name, codec, pix_fmt, height, width',
  [
    ('x.gif', 'gif', 'rgb8', 32, 48),
    ('x.ivf', 'libvpx', 'yuv420p', 32, 48),
    # From here on FFmpeg takes it for a picture.
    ('x.mjpeg', 'mjpeg', 'yuvj420p', 120, 160),
    ('x.nut', 'mpeg4', 'yuv420p', 32, 48),
    ('x.ogv', 'libvpx', 'yuv420p', 32, 48),
    ('x.y4m', 'wrapped_avframe', 'yuv420p', 32, 48),
  ],
)
def test_a_cut_file_without_a_length_is_reported(
  tmp_path, name, codec, pix_fmt, height, width
):
  path = tmp_path / name
  sample_videos.write(
    path, sample_videos.moving(9, height, width), codec=codec, pix_fmt=pix_fmt
  )
  frames = []
  assert write_frames(path, FrameOptions(), frames.append).warnings == []
  assert len(frames) == 9
  content = path.read_bytes()
  for percent in (55, 85, 97):
    path.write_bytes(content[: len(content) * percent // 100])
    kept = []
    warnings = write_frames(path, FrameOptions(), kept.append).warnings
    assert 0 < len(kept) <= len(frames)
    assert any(text.startswith('incomplete: the ') for text in warnings), (
      percent,
      warnings,
    )


# A long time.


@pytest.mark.slow
def test_thousands_of_videos_leave_no_memory_and_no_file_behind(tmp_path):
  paths = [tmp_path / f'x.{suffix}' for suffix in ('mp4', 'mkv', 'avi', 'bad')]
  for path in paths[:3]:
    sample_videos.write(
      path,
      sample_videos.moving(5, 32, 32),
      codec='mpeg4' if path.suffix == '.avi' else 'libx264',
    )
  paths[3].write_bytes(paths[0].read_bytes()[:1000])
  options = FrameOptions()

  def decode(times):
    for number in range(times):
      with contextlib.suppress(video_errors.VideoError):
        write_frames(paths[number % 4], options, lambda frame: None)

  decode(1000)
  memory_use.forget_most_bytes()
  before = memory_use.most_bytes()
  num_files = len(os.listdir('/proc/self/fd'))
  decode(20_000)
  rise = memory_use.most_bytes() - before
  print(f'20,000 decodes: {rise / _MIB:.1f} MiB more memory')
  assert rise <= 50 * _MIB
  assert len(os.listdir('/proc/self/fd')) == num_files
