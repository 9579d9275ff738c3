import dataclasses
import fractions
import io
import itertools

import av
import numpy as np
import pytest
import sample_videos
from media import picture_colors, video_frames
from media.segments import parse_segment
from media.video_errors import VideoError
from PIL import Image

from vie_jax.input_pipeline import jpeg_cut

Fraction = fractions.Fraction


@dataclasses.dataclass(frozen=True)
class _Shown:
  number: int
  time: Fraction
  duration: Fraction


def _frames(path, *, segment=None, on_picture=lambda: None, **options):
  """Prepares a file; returns the facts and the decoded JPEG frames."""
  jpegs = []
  options = video_frames.FrameOptions(**options)
  facts = video_frames.write_frames(
    path, options, jpegs.append, segment=segment, on_picture=on_picture
  )
  assert facts.num_frames == len(jpegs)
  images = [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs]
  for image in images:
    assert image.shape == (facts.height, facts.width, 3)
  return facts, images


def _patch_error(image, expected=sample_videos.PATCHES):
  difference = sample_videos.patch_centres(image) - expected.astype(int)
  return np.abs(difference).max()


# Rate.


def _fps_filter(shown, time_base, fps):
  """Numbers of the pictures that FFmpeg's fps filter puts out."""
  graph = av.filter.Graph()
  source = graph.add_buffer(
    width=16, height=16, format=av.VideoFormat('gray'), time_base=time_base
  )
  graph.link_nodes(
    source, graph.add('fps', f'{fps}'), graph.add('buffersink')
  ).configure()
  numbers = []

  def pull():
    while True:
      try:
        numbers.append(int(graph.vpull().to_ndarray()[0, 0]))
      except (av.error.BlockingIOError, av.error.EOFError):
        return

  for picture in shown:
    array = np.full((16, 16), picture.number, np.uint8)
    frame = av.VideoFrame.from_ndarray(array, 'gray')
    frame.time_base = time_base
    frame.pts = round(picture.time / time_base)
    frame.duration = round(picture.duration / time_base)
    graph.vpush(frame)
    pull()
  graph.vpush(None)
  pull()
  return numbers


@pytest.mark.parametrize('seed', range(20))
def test_frames_are_repeated_and_dropped_as_the_fps_filter_does(seed):
  rng = np.random.default_rng(seed)
  time_base = Fraction(1, int(rng.choice([25, 30, 60, 1000, 90000])))
  longest = int(max(0.2 / time_base, 2))
  steps = rng.integers(1, longest, 40)
  start = int(rng.integers(0, longest))
  times = start + np.concatenate([[0], np.cumsum(steps)[:-1]])
  shown = [
    _Shown(number, int(time) * time_base, int(step) * time_base)
    for number, (time, step) in enumerate(zip(times, steps, strict=True))
  ]
  ours = [
    frame.number
    for frame, count in video_frames.at_fixed_rate(shown, fps=25)
    for _ in range(count)
  ]
  assert ours == _fps_filter(shown, time_base, 25)


@pytest.mark.parametrize(
  'name, codec, rate',
  [
    ('x.h264', 'libx264', 15),
    ('x.h264', 'libx264', 25),
    ('x.h264', 'libx264', 60),
    ('x.m2v', 'mpeg2video', 24),
    ('x.m2v', 'mpeg2video', 50),
  ],
)
def test_a_stream_without_a_container_says_its_rate(
  tmp_path, name, codec, rate
):
  path = tmp_path / name
  frames = sample_videos.moving(2 * rate)
  sample_videos.write(path, frames, rate=rate, codec=codec)
  facts, _ = _frames(path)
  assert (facts.source_fps, facts.num_frames) == (rate, 50)


@pytest.mark.parametrize('rate', [1, 5, 10, 24, 25, 30, 50, 60, 120])
def test_two_seconds_give_fifty_frames_at_any_source_rate(tmp_path, rate):
  sample_videos.write(
    tmp_path / 'x.mp4', sample_videos.moving(2 * rate), rate=rate
  )
  facts, _ = _frames(tmp_path / 'x.mp4')
  assert facts.num_frames == 50
  assert facts.source_fps == rate
  assert facts.duration_seconds == pytest.approx(2)


def test_variable_frame_rate_is_sampled_by_time(tmp_path):
  grey_levels = [20, 60, 100, 140, 180, 220]
  times = [0, 40, 80, 1000, 1040, 2000]
  sample_videos.write(
    tmp_path / 'x.mkv',
    [np.full((64, 64, 3), level, np.uint8) for level in grey_levels],
    codec='ffv1',
    pix_fmt='bgr0',
    times=times,
    time_base=Fraction(1, 1000),
  )
  _, images = _frames(tmp_path / 'x.mkv')
  for number, image in enumerate(images):
    shown = [t for t in times if t <= number * 40]
    assert abs(int(image[32, 32, 0]) - grey_levels[len(shown) - 1]) <= 2
  assert len(images) == 51


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'avi'])
def test_one_picture_gives_one_frame(tmp_path, suffix):
  sample_videos.write(
    tmp_path / f'x.{suffix}',
    sample_videos.moving(1),
    codec='mjpeg',
    pix_fmt='yuvj420p',
    rate=5,
  )
  assert _frames(tmp_path / f'x.{suffix}')[0].num_frames == 1


def test_parts_within_one_picture_add_up_to_the_whole(tmp_path):
  path = tmp_path / 'x.mkv'
  _write_levels(path, [0, 0.7, 20.7], codec='ffv1', pix_fmt='gray')
  _, whole = _frames(path)
  borders = [0, 0.5, 2.76, 16.51, None]
  numbers, found = [], []
  for start, end in itertools.pairwise(borders):
    _, images = _frames(path, segment=parse_segment(start, end))
    numbers.append(len(images))
    found += images
  # 0.5 s, 2.26 s and 13.75 s: 13, 56 and 344 places of the grid of 1/25 s.
  assert numbers[:3] == [13, 56, 344]
  np.testing.assert_array_equal(found, whole)


def test_a_part_of_a_file_of_one_picture_has_its_length(tmp_path):
  path = tmp_path / 'x.mp4'
  sample_videos.write(path, sample_videos.moving(1), rate=5)
  assert _frames(path)[0].num_frames == 1
  for start, end, count in ((0, 0.12, 3), (0.04, None, 4), (0.05, 0.051, 1)):
    part = parse_segment(start, end)
    assert _frames(path, segment=part)[0].num_frames == count


@pytest.mark.parametrize('rate', [25, 30, Fraction(30_000, 1001)])
@pytest.mark.parametrize(
  'options', [{'bf': '0'}, {'bf': '2'}, {'bf': '2', 'flags': '+cgop'}]
)
@pytest.mark.parametrize(
  'name, codec', [('x.m1v', 'mpeg1video'), ('x.m2v', 'mpeg2video')]
)
def test_a_raw_mpeg_stream_begins_with_its_first_picture(
  tmp_path, name, codec, options, rate
):
  options = {'qmin': '1', 'qmax': '2', 'sc_threshold': '1000000000'} | options
  grey = [np.full((64, 64, 3), 4 * n, np.uint8) for n in range(60)]
  path = tmp_path / name
  sample_videos.write(path, grey, codec=codec, rate=rate, options=options)
  shown = [_Shown(n, n / Fraction(rate), 1 / Fraction(rate)) for n in range(60)]
  expected = _fps_filter(shown, 1 / Fraction(rate), 25)
  assert _levels(_frames(path)[1]) == expected
  _, images = _frames(path, segment=parse_segment(0, 1))
  assert _levels(images) == expected[:25]


@pytest.mark.parametrize('suffix', ['avi', 'mjpeg', 'h264'])
def test_a_source_without_timestamps_works(tmp_path, suffix):
  codec = 'libx264' if suffix == 'h264' else 'mjpeg'
  pix_fmt = 'yuv420p' if suffix == 'h264' else 'yuvj420p'
  path = tmp_path / f'x.{suffix}'
  sample_videos.write(
    path, sample_videos.moving(20), codec=codec, pix_fmt=pix_fmt
  )
  assert _frames(path)[0].num_frames == 20


def test_a_video_above_max_seconds_is_refused_by_name_of_the_option(tmp_path):
  sample_videos.write(tmp_path / 'x.mp4', sample_videos.moving(60))
  assert _frames(tmp_path / 'x.mp4', max_seconds=3)[0].num_frames == 60
  with pytest.raises(VideoError, match='--max-seconds'):
    _frames(tmp_path / 'x.mp4', max_seconds=2)


def test_a_gap_of_hours_is_refused_before_it_fills_the_disk(tmp_path):
  sample_videos.write(
    tmp_path / 'x.mkv',
    sample_videos.moving(3),
    times=[0, 40, 40 + 7_200_000],
    time_base=Fraction(1, 1000),
  )
  with pytest.raises(VideoError, match='--max-seconds'):
    _frames(tmp_path / 'x.mkv')


# Size.


@pytest.mark.parametrize(
  'size, expected',
  [
    ((64, 96), (64, 96)),
    ((63, 95), (63, 95)),
    ((320, 480), (320, 480)),
    ((480, 640), (320, 427)),
    ((641, 481), (426, 320)),
    ((720, 1280), (320, 569)),
    ((2, 2), (2, 2)),
    ((1, 1), (1, 1)),
    ((400, 21), (400, 21)),
  ],
)
def test_the_short_side_becomes_320_and_nothing_is_enlarged(
  tmp_path, size, expected
):
  sample_videos.write(
    tmp_path / 'x.mkv',
    [sample_videos.patches(*size)] * 2,
    codec='ffv1',
    pix_fmt='bgr0',
  )
  facts, _ = _frames(tmp_path / 'x.mkv')
  assert (facts.height, facts.width) == expected
  assert (facts.source_height, facts.source_width) == size


def test_pixels_that_are_not_square_are_made_square(tmp_path):
  sample_videos.write(
    tmp_path / 'x.mp4',
    [sample_videos.patches(480, 720)] * 2,
    pixel_aspect=Fraction(32, 27),
  )
  facts, images = _frames(tmp_path / 'x.mp4')
  assert (facts.height, facts.width) == (320, 569)
  assert _patch_error(images[0]) <= 8


def test_frames_too_wide_for_a_jpeg_are_refused_before_encoding(
  tmp_path, capfd
):
  sample_videos.write(
    tmp_path / 'x.mov',
    sample_videos.moving(2, 16, 16384),
    codec='png',
    pix_fmt='rgb24',
    pixel_aspect=Fraction(8),
  )
  with pytest.raises(
    VideoError, match=r'would be 131072 x 16; .* 65500 pixels'
  ):
    _frames(tmp_path / 'x.mov')
  assert capfd.readouterr().err == ''


def test_fine_detail_does_not_alias_when_it_shrinks(tmp_path):
  stripes = np.zeros((1280, 1280, 3), np.uint8)
  stripes[:, ::2] = 255
  sample_videos.write(
    tmp_path / 'x.mkv', [stripes] * 2, codec='ffv1', pix_fmt='bgr0'
  )
  _, images = _frames(tmp_path / 'x.mkv')
  # The kernel is cut off at the border.
  inner = images[0][:, 2:-2].astype(int)
  assert np.abs(inner - 127).max() <= 3


# Colour.


@pytest.mark.parametrize('full_range', [False, True])
@pytest.mark.parametrize('matrix', sorted(sample_videos.MATRICES))
def test_matrix_and_range_of_the_stream_are_honoured(
  tmp_path, matrix, full_range
):
  picture = sample_videos.ycbcr_420(
    sample_videos.patches(480, 640), matrix, full_range=full_range
  )
  sample_videos.write(
    tmp_path / 'x.mp4',
    [picture] * 2,
    frame_format='yuv420p',
    size=(480, 640),
    matrix=matrix,
    full_range=full_range,
    options={'crf': '5'},
  )
  _, images = _frames(tmp_path / 'x.mp4')
  assert _patch_error(images[0]) <= 3


@pytest.mark.parametrize(
  'size, matrix', [((480, 640), 'bt601'), ((720, 1280), 'bt709')]
)
def test_an_untagged_stream_is_bt601_and_in_high_definition_bt709(
  tmp_path, size, matrix
):
  picture = sample_videos.ycbcr_420(
    sample_videos.patches(*size), matrix, full_range=False
  )
  sample_videos.write(
    tmp_path / 'x.mp4',
    [picture] * 2,
    frame_format='yuv420p',
    size=size,
    options={'crf': '5'},
  )
  _, images = _frames(tmp_path / 'x.mp4')
  assert _patch_error(images[0]) <= 3


@pytest.mark.parametrize(
  'suffix, codec, pix_fmt, options',
  [
    ('mp4', 'libx264', 'yuv420p', {'crf': '5'}),
    ('mkv', 'libx264', 'yuv420p10le', {'crf': '5'}),
    ('mp4', 'libx264', 'yuv444p', {'crf': '5'}),
    ('webm', 'libvpx-vp9', 'yuv420p', {'crf': '5', 'b': '0'}),
    ('avi', 'mpeg4', 'yuv420p', {'b': '9000000'}),
    ('mpg', 'mpeg2video', 'yuv420p', {'b': '9000000'}),
    ('mpg', 'mpeg1video', 'yuv420p', {'b': '9000000'}),
    ('wmv', 'wmv2', 'yuv420p', {'b': '9000000'}),
    ('flv', 'flv1', 'yuv420p', {'b': '9000000'}),
    ('ts', 'libx264', 'yuv420p', {'crf': '5'}),
    ('mov', 'qtrle', 'rgb24', {}),
    ('mov', 'png', 'rgb24', {}),
    ('mov', 'prores_ks', 'yuv422p10le', {}),
    ('avi', 'huffyuv', 'yuv422p', {}),
    ('avi', 'rawvideo', 'bgr24', {}),
    ('avi', 'mjpeg', 'yuvj420p', {'q': '1'}),
    ('y4m', 'rawvideo', 'yuv420p', {}),
  ],
)
def test_codecs_and_pixel_formats_keep_the_colours(
  tmp_path, suffix, codec, pix_fmt, options
):
  path = tmp_path / f'x.{suffix}'
  sample_videos.write(
    path,
    [sample_videos.patches(96, 128)] * 10,
    codec=codec,
    pix_fmt=pix_fmt,
    options=options,
  )
  facts, images = _frames(path)
  assert facts.num_frames == 10
  assert (facts.height, facts.width) == (96, 128)
  assert _patch_error(images[5]) <= 10


@pytest.mark.parametrize('size', [(1, 1), (3, 2), (63, 95), (64, 96)])
@pytest.mark.parametrize('is_full_range', [False, True])
@pytest.mark.parametrize('shares', [(0.2126, 0.0722), (0.299, 0.114)])
def test_colours_become_those_of_jpeg_pixel_by_pixel(
  shares, is_full_range, size
):
  red, blue = shares
  rng = np.random.default_rng(0)
  half = [(size[0] + 1) // 2, (size[1] + 1) // 2]
  planes = (
    rng.integers(60, 190, size, dtype=np.uint8),
    *rng.integers(100, 150, (2, *half), dtype=np.uint8),
  )
  found = picture_colors.to_jpeg_colors(
    *planes, luma_shares=shares, is_full_range=is_full_range
  )
  found = [plane.astype(float) for plane in found]
  luma, cb, cr = (plane.astype(float) for plane in planes)
  cb, cr = cb - 128, cr - 128
  if not is_full_range:
    luma, cb, cr = (luma - 16) / 0.8588235, cb / 0.8784314, cr / 0.8784314
  # Full range is reached in whole levels, and the matrix adds up three.
  tolerance = 0.51 if is_full_range or shares == (0.299, 0.114) else 1.2
  for y in range(size[0]):
    for x in range(size[1]):
      at = y // 2, x // 2
      r = luma[y, x] + 2 * (1 - red) * cr[at]
      b = luma[y, x] + 2 * (1 - blue) * cb[at]
      g = (luma[y, x] - red * r - blue * b) / (1 - red - blue)
      expected = 0.299 * r + 0.587 * g + 0.114 * b
      assert abs(found[0][y, x] - expected) <= tolerance
      assert abs(found[1][at] - 128 - (b - expected) / 1.772) <= tolerance
      assert abs(found[2][at] - 128 - (r - expected) / 1.402) <= tolerance


@pytest.mark.parametrize('is_full_range', [False, True])
def test_colours_past_the_end_of_the_range_do_not_wrap_around(is_full_range):
  luma, chroma = np.array([[0, 255]], np.uint8), np.array([[255]], np.uint8)
  for cb, cr in ((chroma, chroma), (255 - chroma, 255 - chroma)):
    found = picture_colors.to_jpeg_colors(
      luma,
      cb,
      cr,
      luma_shares=(0.2126, 0.0722),
      is_full_range=is_full_range,
    )
    for before, after in zip((luma, cb, cr), found, strict=True):
      assert np.abs(after.astype(int) - before).max() < 60


def test_scaled_pictures_have_the_mean_colour_of_the_source(tmp_path):
  rng = np.random.default_rng(0)
  picture = np.concatenate(
    [
      rng.integers(60, 190, (480, 640), dtype=np.uint8),
      rng.integers(90, 160, (240, 640), dtype=np.uint8),
    ]
  )
  sample_videos.write(
    tmp_path / 'x.mkv',
    [picture] * 2,
    codec='ffv1',
    pix_fmt='yuv420p',
    frame_format='yuv420p',
    size=(480, 640),
    matrix='bt601',
    full_range=False,
  )
  jpegs = []
  options = video_frames.FrameOptions(jpeg_quality=95)
  video_frames.write_frames(tmp_path / 'x.mkv', options, jpegs.append)
  image = Image.open(io.BytesIO(jpegs[0]))
  image.draft('YCbCr', image.size)
  found = np.asarray(image).reshape(-1, 3).mean(0)
  cb, cr = picture[480:].reshape(2, 240, 320).astype(float).mean((1, 2))
  expected = [
    (picture[:480].mean() - 16) * 255 / 219,
    (cb - 128) * 255 / 224 + 128,
    (cr - 128) * 255 / 224 + 128,
  ]
  np.testing.assert_allclose(found, expected, atol=0.2)


def test_a_turned_picture_has_the_colours_of_one_that_is_not(tmp_path):
  images = []
  for degrees in (0, 180):
    path = tmp_path / f'{degrees}.mov'
    picture = np.rot90(sample_videos.patches(720, 1280), degrees // 90)
    sample_videos.write(
      path, [picture] * 2, rotation=(degrees, 0, 0), options={'crf': '5'}
    )
    images.append(_frames(path)[1][0])
  upright, turned = (sample_videos.patch_centres(image) for image in images)
  assert np.abs(upright.astype(int) - turned).max() <= 4


@pytest.mark.parametrize('pix_fmt', ['gray', 'gray10le', 'gray16le'])
def test_grey_sources_keep_their_levels(tmp_path, pix_fmt):
  ramp = np.linspace(0, 255, 96).astype(np.uint8)[None].repeat(64, 0)
  scale = {'gray': 1, 'gray10le': 4, 'gray16le': 257}[pix_fmt]
  source = (ramp.astype(np.uint16) * scale).astype(
    np.uint8 if scale == 1 else np.uint16
  )
  sample_videos.write(
    tmp_path / 'x.mkv',
    [source] * 2,
    codec='ffv1',
    pix_fmt=pix_fmt,
    frame_format=pix_fmt,
  )
  _, images = _frames(tmp_path / 'x.mkv')
  assert np.abs(images[0].astype(int) - ramp[..., None]).max() <= 4


@pytest.mark.parametrize(
  'suffix, codec, pix_fmt',
  [
    ('mov', 'qtrle', 'argb'),
    ('mov', 'png', 'rgba'),
    ('mov', 'prores_ks', 'yuva444p10le'),
    ('webm', 'libvpx-vp9', 'yuva420p'),
    ('webm', 'libvpx', 'yuva420p'),
  ],
)
def test_transparency_is_put_on_black(tmp_path, suffix, codec, pix_fmt):
  rgb = sample_videos.patches(96, 128)
  alpha = np.full((96, 128, 1), 255, np.uint8)
  alpha[:, :64] = 128
  alpha[:48, :32] = 0
  path = tmp_path / f'x.{suffix}'
  sample_videos.write(
    path,
    [np.concatenate([rgb, alpha], -1)] * 2,
    codec=codec,
    pix_fmt=pix_fmt,
    frame_format='rgba',
    options=({'b': '9000000', 'auto-alt-ref': '0'} if 'vpx' in codec else {}),
  )
  _, images = _frames(path)
  expected = sample_videos.patch_centres(np.rint(rgb * (alpha / 255.0)))
  assert _patch_error(images[0], expected) <= 12


# Rotation.


@pytest.mark.parametrize(
  'flips', [(False, False), (True, False), (False, True)]
)
@pytest.mark.parametrize('degrees', [0, 90, 180, 270])
def test_the_display_matrix_is_applied(tmp_path, degrees, flips):
  picture = sample_videos.patches(96, 128)
  sample_videos.write(
    tmp_path / 'x.mov',
    [picture] * 2,
    rotation=(degrees, *flips),
    options={'crf': '5'},
  )
  _, images = _frames(tmp_path / 'x.mov')
  # FFmpeg flips the picture first, then turns it the other way round.
  upright = np.rot90(picture, degrees // 90)
  expected = _by_definition(tmp_path / 'x.mov', picture)
  assert images[0].shape == expected.shape
  assert _patch_error(images[0], sample_videos.patch_centres(expected)) <= 10
  if flips == (False, False):
    np.testing.assert_array_equal(expected, upright)


def _by_definition(path, picture):
  """Moves each pixel to where the display matrix sends it."""
  with av.open(str(path)) as container:
    frame = next(container.decode(video=0))
    side_data = frame.side_data.get('DISPLAYMATRIX')
  if side_data is None:
    return picture
  matrix = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3)
  linear = np.sign(matrix[:2, :2])
  y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
  shown = np.stack([x, y], -1) @ linear
  shown -= shown.min((0, 1))
  width, height = shown.max((0, 1)) + 1
  result = np.zeros((height, width, 3), np.uint8)
  result[shown[..., 1], shown[..., 0]] = picture
  return result


def test_a_rotated_video_is_measured_upright(tmp_path):
  sample_videos.write(
    tmp_path / 'x.mov', sample_videos.moving(2, 360, 640), rotation=(90, 0, 0)
  )
  facts, _ = _frames(tmp_path / 'x.mov')
  assert (facts.height, facts.width) == (569, 320)


# Interlacing.


def _woven(num_frames):
  """Pictures whose two fields show a bar at two moments."""

  def bar(moment):
    picture = np.full((96, 128, 3), 60, np.uint8)
    x = 5 * moment % 104
    picture[:, x : x + 24] = (220, 200, 60)
    return picture

  pictures = []
  for number in range(num_frames):
    picture = bar(2 * number)
    picture[1::2] = bar(2 * number + 1)[1::2]
    pictures.append(picture)
  return pictures


def _combing(images):
  grey = np.stack(images).astype(int).mean(-1)
  return np.abs(2 * grey[:, 1:-1] - grey[:, :-2] - grey[:, 2:]).mean()


@pytest.mark.parametrize(
  'suffix, codec, options',
  [
    ('mp4', 'libx264', {'x264-params': 'tff=1', 'crf': '12'}),
    ('mpg', 'mpeg2video', {'flags': '+ilme+ildct', 'b': '9000000'}),
  ],
)
def test_interlaced_frames_lose_their_combs(tmp_path, suffix, codec, options):
  path = tmp_path / f'x.{suffix}'
  sample_videos.write(path, _woven(12), codec=codec, options=options)
  facts, images = _frames(path)
  assert facts.num_frames == 12
  assert _combing(_woven(12)) > 10
  assert _combing(images) < 1


@pytest.mark.parametrize(
  'suffix, codec, options',
  [
    ('mp4', 'libx264', {'x264-params': 'tff=1', 'bf': '2'}),
    ('mpg', 'mpeg2video', {'flags': '+ilme+ildct', 'b': '9000000'}),
  ],
)
def test_parts_of_interlaced_videos_are_those_of_the_whole(
  tmp_path, suffix, codec, options
):
  path = tmp_path / f'x.{suffix}'
  sample_videos.write(path, _woven(25), codec=codec, options=options)
  _, whole = _frames(path)
  for first, last in ((0, 7), (3, 4), (9, 20), (12, 25)):
    part = parse_segment(first / 25, last / 25)
    _, images = _frames(path, segment=part)
    np.testing.assert_array_equal(images, whole[first:last])


def test_progressive_frames_keep_their_lines(tmp_path):
  sample_videos.write(tmp_path / 'x.mp4', _woven(4), options={'crf': '5'})
  _, images = _frames(tmp_path / 'x.mp4')
  assert _combing(images) > 10


def test_one_interlaced_frame_is_not_lost_and_keeps_its_colours(tmp_path):
  picture = sample_videos.ycbcr_420(
    sample_videos.patches(480, 640), 'bt709', full_range=True
  )
  sample_videos.write(
    tmp_path / 'x.mp4',
    [picture],
    frame_format='yuv420p',
    size=(480, 640),
    matrix='bt709',
    full_range=True,
    options={'crf': '5', 'x264-params': 'tff=1'},
  )
  facts, images = _frames(tmp_path / 'x.mp4')
  assert facts.num_frames == 1
  assert _patch_error(images[0]) <= 3


@pytest.mark.parametrize('size', [(5, 3), (6, 6), (8, 4), (7, 5), (8, 6)])
def test_tiny_interlaced_frames_are_kept(tmp_path, size):
  path = tmp_path / 'x.mkv'
  sample_videos.write(
    path,
    sample_videos.moving(3, *size),
    codec='mpeg2video',
    options={'flags': '+ildct+ilme'},
  )
  with av.open(str(path)) as container:
    assert next(container.decode(video=0)).interlaced_frame
  facts, images = _frames(path)
  assert facts.num_frames == 3
  assert images[0].shape[:2] == size


# Damage.


def test_a_truncated_file_is_kept_with_a_warning(tmp_path):
  path = tmp_path / 'x.mp4'
  frames = np.random.default_rng(0).integers(
    0, 255, (50, 64, 64, 3), dtype=np.uint8
  )
  sample_videos.write(path, frames, container_options={'movflags': 'faststart'})
  assert _frames(path)[0].warnings == []
  content = path.read_bytes()
  path.write_bytes(content[: int(len(content) * 0.6)])
  facts, _ = _frames(path)
  assert 0 < facts.num_frames < 45
  assert any('truncated' in warning for warning in facts.warnings)


def _write_late(path, seconds):
  """Two seconds of noise whose clock begins at so many."""
  frames = np.random.default_rng(0).integers(
    0, 255, (50, 64, 64, 3), dtype=np.uint8
  )
  sample_videos.write(
    path,
    frames,
    times=[1000 * seconds + 40 * number for number in range(50)],
    time_base=Fraction(1, 1000),
    options={'g': '10'},
  )


@pytest.mark.parametrize('seconds', [1, 1000, 4000])
@pytest.mark.parametrize('suffix', ['mkv', 'nut', 'mp4'])
def test_a_clip_that_kept_its_times_is_neither_refused_nor_called_cut_off(
  tmp_path, suffix, seconds
):
  path = tmp_path / f'x.{suffix}'
  _write_late(path, seconds)
  facts, _ = _frames(path, max_seconds=600)
  # The last picture of NUT and of MP4 has no duration.
  assert facts.num_frames in (49, 50)
  if suffix == 'mp4':
    assert facts.warnings == []
  else:
    (warning,) = facts.warnings
    assert warning.startswith(
      f'late start: its first picture is at {seconds}.00 s'
    )


def test_a_clip_that_kept_its_times_and_was_cut_off_is_called_so(tmp_path):
  path = tmp_path / 'x.mkv'
  _write_late(path, 4000)
  content = path.read_bytes()
  path.write_bytes(content[: len(content) * 6 // 10])
  warnings = _frames(path)[0].warnings
  assert any('of 2.00 s are there' in warning for warning in warnings)


def test_a_lost_beginning_is_told(tmp_path):
  path = tmp_path / 'x.mkv'
  _write_late(path, 0)
  content = bytearray(path.read_bytes())
  assert _frames(path)[0].warnings == []
  cluster = content.index(bytes.fromhex('1f43b675'))
  content[cluster : cluster + 8] = bytes(8)
  path.write_bytes(content)
  facts, _ = _frames(path)
  assert facts.num_frames < 50
  assert any('its beginning is lost' in warning for warning in facts.warnings)


def test_a_change_of_size_within_a_stream_keeps_the_first_size(tmp_path):
  first, second = tmp_path / 'a.h264', tmp_path / 'b.h264'
  sample_videos.write(first, sample_videos.moving(5, 64, 96))
  sample_videos.write(second, sample_videos.moving(5, 128, 160))
  both = tmp_path / 'both.h264'
  both.write_bytes(first.read_bytes() + second.read_bytes())
  facts, _ = _frames(both)
  assert facts.num_frames == 10
  assert (facts.height, facts.width) == (64, 96)
  assert facts.warnings == [
    'sizes: 5 of 10 pictures are 160 x 128, and stretched to the size of the '
    'first, 96 x 64'
  ]


@pytest.mark.parametrize('suffix', ['ts', 'h264'])
def test_a_change_of_pixel_aspect_keeps_the_first_and_is_told(tmp_path, suffix):
  content, paths = b'', []
  for number, aspect in enumerate((Fraction(16, 15), Fraction(64, 45))):
    path = tmp_path / f'{number}.{suffix}'
    sample_videos.write(
      path,
      sample_videos.moving(20, 64, 90),
      pixel_aspect=aspect,
      # Without timestamps pictures in the decoder count to the next ones.
      options={'bf': '0' if suffix == 'h264' else '2'},
    )
    content += path.read_bytes()
    paths.append(path)
  both = tmp_path / f'both.{suffix}'
  both.write_bytes(content)
  assert [_frames(path)[0].width for path in paths] == [96, 128]
  facts, _ = _frames(both)
  assert facts.width == 96
  assert (
    'sizes: 20 of 40 pictures are 90 x 64 of pixels 64:45, and stretched to the '
    'size of the first, 90 x 64 of pixels 16:15' in facts.warnings
  )
  # A part of it has the shape that it is to have.
  assert _frames(both, segment=parse_segment(1, 1.4))[0].width == 128


def _write_levels(path, seconds, **options):
  """Writes a grey picture for each second, whose level is its number."""
  sample_videos.write(
    path,
    [np.full((64, 64, 3), 4 * n, np.uint8) for n in range(len(seconds))],
    times=[round(90_000 * second) for second in seconds],
    time_base=Fraction(1, 90_000),
    **options,
  )


def _levels(images):
  return [round(image.mean() / 4) for image in images]


def test_a_gap_of_a_transport_stream_is_told_and_times_are_those_of_the_file(
  tmp_path,
):
  path = tmp_path / 'x.ts'
  seconds = [n / 25 for n in range(25)] + [16 + n / 25 for n in range(25)]
  _write_levels(path, seconds, options={'bf': '0'})
  facts, images = _frames(path)
  assert _levels(images) == [*range(50)]
  assert facts.warnings == [
    'gaps: its clock jumps ahead 1 time, by 15.00 s in all, which are left out'
  ]
  _, images = _frames(path, segment=parse_segment(16.4, 16.8))
  assert _levels(images) == [*range(35, 45)]
  calls = []
  facts, images = _frames(
    path, segment=parse_segment(0.8, None), on_picture=lambda: calls.append(1)
  )
  assert _levels(images) == [*range(20, 50)]
  # To look ahead takes a while in a large file.
  assert len(calls) >= 2 * 50
  assert [text[:23] for text in facts.warnings] == ['gaps: its clock jumps a']
  for start in (5, 18):
    with pytest.raises(VideoError, match='no picture within'):
      _frames(path, segment=parse_segment(start, start + 1))


@pytest.mark.parametrize('wrong', [(10,), (10, 11), range(10, 30), (0,), (49,)])
@pytest.mark.parametrize('by', [100, -20])
def test_parts_of_a_stream_with_wrong_times_are_of_its_pictures(
  tmp_path, wrong, by
):
  path = tmp_path / 'x.ts'
  sound = [30 + n / 25 for n in range(50)]
  _write_levels(path, sound, options={'bf': '0'})
  seconds = [time + by * (n in wrong) for n, time in enumerate(sound)]
  path.write_bytes(_with_times(path.read_bytes(), seconds))
  facts, images = _frames(path)
  assert _levels(images) == [*range(50)]
  assert facts.warnings == []
  _, images = _frames(path, segment=parse_segment(1.6, 1.8))
  assert _levels(images) == [40, 41, 42, 43, 44]


def _with_times(stream, seconds):
  """Puts other timestamps into a transport stream of one picture in a PES."""
  content, start, count = bytearray(stream), 0, 0
  while (start := content.find(b'\0\0\1\xe0', start)) >= 0:
    assert content[start + 7] & 0xC0 == 0x80, 'it has times of decoding, too'
    ticks = round(90_000 * seconds[count])
    parts = (
      ticks >> 30 << 1 | 0x21,
      ticks >> 14 & 0xFFFE | 1,
      ticks << 1 & 0xFFFE | 1,
    )
    for place, length, part in zip((9, 10, 12), (1, 2, 2), parts, strict=True):
      content[start + place : start + place + length] = part.to_bytes(length)
    start, count = start + 14, count + 1
  assert count == len(seconds)
  return bytes(content)


@pytest.mark.parametrize('rate', [30, 50, 60])
@pytest.mark.parametrize('start', [0, 0.1234, 7 / 30])
def test_a_start_between_two_microseconds_moves_no_picture(
  tmp_path, rate, start
):
  first = round(90_000 * start)
  path = tmp_path / 'x.ts'
  _write_levels(
    path,
    [Fraction(first, 90_000) + Fraction(n, rate) for n in range(40)],
    rate=rate,
    container_options={'muxdelay': '0'},
  )
  shown = [_Shown(n, Fraction(n, rate), Fraction(1, rate)) for n in range(40)]
  _, images = _frames(path)
  expected = _fps_filter(shown, Fraction(1, 90_000), 25)
  assert _levels(images) == expected


def test_a_colour_matrix_that_is_not_known_is_told(tmp_path):
  colors = {'x264-params': 'colormatrix=YCgCo'}
  frames = sample_videos.moving(5, 64, 96)
  sample_videos.write(tmp_path / 'x.mp4', frames, options=colors)
  (warning,) = _frames(tmp_path / 'x.mp4')[0].warnings
  assert warning.startswith('colors: the matrix 8 of ITU-T H.273 is not known')
  colors = {'x264-params': 'colormatrix=bt709'}
  sample_videos.write(tmp_path / 'y.mp4', frames, options=colors)
  assert not _frames(tmp_path / 'y.mp4')[0].warnings


def test_one_picture_of_another_size_is_one(tmp_path):
  first, second = tmp_path / 'a.h264', tmp_path / 'b.h264'
  sample_videos.write(first, sample_videos.moving(5, 64, 96))
  sample_videos.write(second, sample_videos.moving(1, 64, 128))
  both = tmp_path / 'both.h264'
  both.write_bytes(first.read_bytes() + second.read_bytes())
  (warning,) = _frames(both)[0].warnings
  assert warning.startswith('sizes: 1 of 6 pictures is 128 x 64, and')


def test_many_sizes_within_a_stream_are_not_all_named(tmp_path):
  both = tmp_path / 'both.h264'
  content = b''
  for number in range(6):
    part = tmp_path / f'{number}.h264'
    sample_videos.write(part, sample_videos.moving(2, 64, 96 + 16 * number))
    content += part.read_bytes()
  both.write_bytes(content)
  assert _frames(both)[0].warnings == [
    'sizes: 10 of 12 pictures are 112 x 64, 128 x 64, 144 x 64, others, and '
    'stretched to the size of the first, 96 x 64'
  ]


# Cutting.


@pytest.mark.parametrize(
  'width, height, columns',
  [
    (568, 320, 12),  # 36 blocks, 3 in an interval
    (425, 320, 9),  # 27, 3
    (320, 320, 10),  # 20, 2
    (208, 128, 13),  # a prime number of them
    (90, 60, 2),  # 6, 3
  ],
)
def test_stored_frames_can_be_cut(tmp_path, width, height, columns):
  rng = np.random.default_rng(0)
  pictures = rng.integers(0, 255, (2, height, width, 3), dtype=np.uint8)
  path = tmp_path / 'a.mkv'
  sample_videos.write(path, pictures, codec='ffv1', pix_fmt='yuv444p')
  jpegs = []
  video_frames.write_frames(path, video_frames.FrameOptions(), jpegs.append)
  for jpeg in jpegs:
    layout = jpeg_cut.read_layout(jpeg)
    assert layout.num_columns == columns
    assert layout.num_rows == -(-height // 16)
