import contextlib
import random
import socket

import pytest
import sample_videos
from media import guarded_container, open_video, video_errors
from media.video_frames import FrameOptions, write_frames

_MAX_PIXELS = 2**20


@pytest.fixture(scope='module')
def good_files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('good')
  frames = sample_videos.moving(30)
  sample_videos.write(folder / 'plain.mp4', frames)
  sample_videos.write(
    folder / 'faststart.mp4',
    frames,
    container_options={'movflags': 'faststart'},
  )
  sample_videos.write(folder / 'a.mkv', frames)
  sample_videos.write(folder / 'a.avi', frames, codec='mpeg4')
  sample_videos.write(folder / 'a.webm', frames, codec='libvpx')
  return folder


def _count(path, max_pixels=_MAX_PIXELS):
  with open_video.open_video(path, max_pixels=max_pixels) as video:
    return sum(1 for _ in video.frames())


def _reason(path, **options):
  with pytest.raises(video_errors.VideoError) as caught:
    _count(path, **options)
  assert str(path) in str(caught.value)
  assert '\n' not in caught.value.reason
  return caught.value.reason


def test_all_frames_are_decoded(good_files):
  for path in sorted(good_files.iterdir()):
    assert _count(path) == 30, path.name


@pytest.mark.parametrize(
  ('suffix', 'codec', 'others'),
  [
    ('.mov', 'libx264', '.qt .mj2 .3gpp .3gp2'),
    ('.ts', 'libx264', '.m2t .tp .trp'),
    ('.mpg', 'mpeg2video', '.m2p .vro'),
    ('.m1v', 'mpeg1video', '.m1v .mpv'),
    ('.h264', 'libx264', '.264 .avc'),
    ('.hevc', 'libx265', '.265 .h265'),
    ('.mkv', 'libx264', '.mk3d'),
    ('.ogv', 'libvpx', '.ogm'),
  ],
)
def test_rare_suffixes_of_usual_formats_are_read(
  tmp_path, suffix, codec, others
):
  path = tmp_path / f'x{suffix}'
  sample_videos.write(path, sample_videos.moving(30), codec=codec)
  for other in others.split():
    assert other in guarded_container.VIDEO_SUFFIXES
    path = path.rename(tmp_path / f'x{other}')
    assert _count(path) == 30, other


@pytest.mark.parametrize(
  'content',
  [b'\0' * 2**20, b'just some text\n', bytes(range(256)) * 40],
  ids=['zeros', 'text', 'bytes'],
)
def test_a_file_that_is_no_video_is_refused(tmp_path, content):
  path = tmp_path / 'x.mp4'
  path.write_bytes(content)
  assert _reason(path) == 'no video, damaged, or cut off in its header'


@pytest.mark.parametrize('name', ['x.mp4', 'x.mkv', 'x.avi', 'x.mjpeg'])
def test_an_empty_file_is_called_empty(tmp_path, name):
  (tmp_path / name).touch()
  assert _reason(tmp_path / name) == 'the file is empty'


@pytest.mark.parametrize(
  ('name', 'num_bytes', 'words'),
  [
    ('plain.mp4', -400, 'ends early: 400 bytes of its last box are missing'),
    ('plain.mp4', 1000, 'the file ends early: '),
    ('faststart.mp4', 60, 'the file ends early: '),
    ('faststart.mp4', 400, 'the file ends early: '),
    ('a.mkv', 100, 'the file ends early, or cannot be read'),
    ('a.webm', 100, 'the file ends early, or cannot be read'),
    ('a.avi', 100, 'no video, damaged, or cut off in its header'),
  ],
)
def test_a_file_that_is_cut_off_before_its_pictures_is_called_so(
  good_files, tmp_path, name, num_bytes, words
):
  cut = tmp_path / name
  cut.write_bytes((good_files / name).read_bytes()[:num_bytes])
  assert words in _reason(cut)


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
  assert 'No such file' in _reason(tmp_path / 'missing.mp4')
  (tmp_path / 'folder.mp4').mkdir()
  assert 'directory' in _reason(tmp_path / 'folder.mp4')


def test_a_file_with_sound_alone_is_refused(tmp_path):
  sample_videos.write_sound(tmp_path / 'x.mp4')
  assert _reason(tmp_path / 'x.mp4') == 'no video stream'


def test_playlists_are_refused_even_with_a_video_suffix(good_files, tmp_path):
  (tmp_path / 'other.mp4').write_bytes((good_files / 'plain.mp4').read_bytes())
  playlists = {
    'concat': "ffconcat version 1.0\nfile 'other.mp4'\n",
    'hls': '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\nother.mp4\n'
    '#EXT-X-ENDLIST\n',
    'sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\n'
    't=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
  }
  for name, text in playlists.items():
    for suffix in ('mp4', 'mjpeg'):
      path = tmp_path / f'{name}.{suffix}'
      path.write_text(text)
      assert _reason(path), path.name


def test_a_name_is_never_a_url(good_files):
  with socket.socket() as server:
    server.bind(('127.0.0.1', 0))
    server.listen()
    server.settimeout(0.2)
    address = f'127.0.0.1:{server.getsockname()[1]}'
    plain = good_files / 'plain.mp4'
    for name in (
      f'http://{address}/x.mp4',
      f'tcp://{address}',
      f'concat:{plain}|{plain}',
      f'subfile,,start,0,end,0,,:{plain}',
      f'async:{plain}',
    ):
      assert 'No such file' in _reason(name)
    with pytest.raises(TimeoutError):
      server.accept()


def test_pictures_above_max_pixels_are_refused_at_opening(tmp_path):
  frames = sample_videos.moving(2, height=512, width=512)
  sample_videos.write(
    tmp_path / 'large.mov', frames, codec='png', pix_fmt='rgb24'
  )
  assert _count(tmp_path / 'large.mov') == 2
  assert _reason(tmp_path / 'large.mov', max_pixels=512 * 512 - 1)


@pytest.mark.parametrize(
  ('name', 'codec'),
  [
    ('a.mp4', 'libx264'),
    ('a.h264', 'libx264'),
    ('a.mkv', 'libx265'),
    ('a.webm', 'libvpx'),
    ('b.webm', 'libvpx-vp9'),
    ('a.mpg', 'mpeg2video'),
    ('a.avi', 'mjpeg'),
  ],
)
def test_pictures_above_max_pixels_name_their_limit(tmp_path, name, codec):
  frames = sample_videos.moving(3, height=128, width=256)
  pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
  sample_videos.write(tmp_path / name, frames, codec=codec, pix_fmt=pix_fmt)
  assert _count(tmp_path / name, max_pixels=256 * 128)
  reason = _reason(tmp_path / name, max_pixels=128 * 128)
  assert 'above 16384 pixels (--max-pixels)' in reason


def test_a_stream_that_grows_above_max_pixels_is_cut_there(tmp_path):
  small, large = tmp_path / 'a.h264', tmp_path / 'b.h264'
  sample_videos.write(small, sample_videos.moving(5))
  sample_videos.write(large, sample_videos.moving(5, 512, 512))
  both = tmp_path / 'both.h264'
  both.write_bytes(small.read_bytes() + large.read_bytes())
  assert _count(both) == 10
  assert 0 < _count(both, max_pixels=512 * 512 - 1) <= 5


def test_a_cut_file_gives_fewer_frames_or_an_error(good_files, tmp_path):
  for path in sorted(good_files.iterdir()):
    content = path.read_bytes()
    for share in (0.02, 0.5, 0.9):
      cut = tmp_path / path.name
      cut.write_bytes(content[: int(len(content) * share)])
      # Anything but VideoError would end the test.
      with contextlib.suppress(video_errors.VideoError):
        assert 0 < _count(cut) <= 30


def test_damaged_files_end_as_video_error_or_frames(good_files, tmp_path):
  rng = random.Random(0)
  options = FrameOptions(max_seconds=20, max_pixels=_MAX_PIXELS)
  outcomes = {'error': 0, 'frames': 0}
  for path in sorted(good_files.iterdir()):
    content = path.read_bytes()
    for _ in range(40):
      damaged = bytearray(content)
      for _ in range(rng.choice([1, 10, 100])):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
      file = tmp_path / path.name
      file.write_bytes(damaged)
      frames = []
      try:
        write_frames(file, options, frames.append)
        assert frames
        outcomes['frames'] += 1
      except video_errors.VideoError:
        outcomes['error'] += 1
  assert min(outcomes.values()) > 0


@pytest.mark.parametrize(
  'name',
  [
    'with space.mp4',
    '-leading.mp4',
    'a:b.mp4',
    'percent %03d.mp4',
    'line\nbreak.mp4',
    '"quotes\' <b>.mp4',
    'Umläute 日本語.mp4',
    'back\\slash;$(id).mp4',
  ],
)
def test_unusual_names_are_opened(good_files, tmp_path, name):
  path = tmp_path / name
  path.write_bytes((good_files / 'plain.mp4').read_bytes())
  assert _count(path) == 30


@pytest.mark.parametrize('num_pictures', [5, 25, 40])
@pytest.mark.parametrize(
  ('suffix', 'codec'), [('ts', 'libx264'), ('mpg', 'mpeg2video')]
)
def test_all_parts_of_a_spliced_stream_follow_one_another(
  tmp_path, suffix, codec, num_pictures
):
  part, whole = tmp_path / f'part.{suffix}', tmp_path / f'whole.{suffix}'
  sample_videos.write(part, sample_videos.moving(num_pictures), codec=codec)
  whole.write_bytes(part.read_bytes() * 3)
  with open_video.open_video(whole, max_pixels=_MAX_PIXELS) as video:
    times = [float(frame.time * 25) for frame in video.frames()]
  assert times == pytest.approx(range(3 * num_pictures))
