"""What the demo data set promises about its two labels and its files.

The statistics are those of one fixed seed: a test either always passes or
always fails. Bounds on accuracies at chance allow four standard deviations.
"""

import csv
import json
import pathlib
import subprocess
import sys
import textwrap

import av
import numpy as np
import prepare
import pytest
from demo_data import demo_files, demo_videos

_NUM_APPEARANCES = len(demo_videos.APPEARANCES)
_NUM_MOTIONS = len(demo_videos.MOTIONS)
_NUM_PAIRS = _NUM_APPEARANCES * _NUM_MOTIONS


@pytest.fixture(scope='module')
def videos():
  return demo_videos.render_arrays(4 * _NUM_PAIRS, seed=3)


def _labels(num_videos, seed):
  return np.array(
    [demo_videos.labels(index, seed) for index in range(num_videos)]
  )


def _chance_bound(num_videos, num_classes):
  chance = 1 / num_classes
  return chance + 4 * np.sqrt(chance * (1 - chance) / num_videos)


def _nearest_neighbour_accuracy(features, label):
  """Leave one out; float [N, F] features, int [N] labels."""
  features = (features - features.mean(0)) / (features.std(0) + 1e-6)
  square = (features**2).sum(1)
  distance = square[:, None] + square[None] - 2 * features @ features.T
  np.fill_diagonal(distance, np.inf)
  nearest = np.argsort(distance, axis=1)[:, :5]
  votes = (label[nearest][..., None] == np.arange(label.max() + 1)).sum(1)
  return (votes.argmax(1) == label).mean()


def _ridge_accuracy(features, label):
  """Five folds; float [N, F] features, int [N] labels."""
  features = (features - features.mean(0)) / (features.std(0) + 1e-6)
  features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
  target = (label[:, None] == np.arange(label.max() + 1)) * 1.0
  fold = np.random.default_rng(0).permutation(len(label)) % 5
  is_right = []
  for held_out in range(5):
    is_train = fold != held_out
    x = features[is_train]
    kernel = x @ x.T + 0.1 * features.shape[1] * np.eye(len(x))
    weight = x.T @ np.linalg.solve(kernel, target[is_train])
    predicted = (features[~is_train] @ weight).argmax(1)
    is_right.append(predicted == label[~is_train])
  return np.concatenate(is_right).mean()


def _frame_features(frame):
  """Four descriptions of one uint8 [H, W, 3] image, float [F] each."""
  image = frame / 255
  grey = image.mean(-1)
  height, width = grey.shape
  pixels = image.reshape(height // 8, 8, width // 8, 8, 3).mean((1, 3)).ravel()
  colours = np.concatenate(
    [np.histogram(image[..., c], bins=8, range=(0, 1))[0] for c in range(3)]
  )
  middle = grey[8:56, 16:64]
  middle = (middle - middle.mean()) / middle.std()
  down, right = np.gradient(middle)
  orientation = np.arctan2(down, right) % np.pi
  gradients = np.histogram(
    orientation, bins=12, range=(0, np.pi), weights=np.hypot(down, right)
  )[0]
  hann = np.hanning(48)[:, None] * np.hanning(48)
  power = np.abs(np.fft.fft2(middle * hann)) ** 2
  frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(48)] * 2))
  ring = np.minimum((frequency * 48).astype(int), 23)
  spectrum = np.log(np.bincount(ring.ravel(), power.ravel(), 24))
  autocorrelation = np.fft.ifft2(power).real[:12:2, :24:2].ravel() / 1e3
  histogram = np.histogram(middle, bins=10, range=(-2.5, 2.5))[0]
  texture = np.concatenate([spectrum, histogram / 50])
  return pixels, colours, np.append(gradients, autocorrelation), texture


def _motion_features(frames):
  """Affine motion by least squares in short windows; float [12]."""
  grey = frames[..., 1].astype(np.float32)
  smooth = grey[:, 2:] + 2 * grey[:, 1:-1] + grey[:, :-2]
  smooth = smooth[:, :, 2:] + 2 * smooth[:, :, 1:-1] + smooth[:, :, :-2]
  smooth = smooth[:, 8:-8, 10:-10]
  by_time, by_y, by_x = np.gradient(smooth)
  y, x = np.indices(smooth.shape[1:]) - np.array(
    [[[smooth.shape[1] / 2]], [[smooth.shape[2] / 2]]]
  )
  # Shift right and down, growth, and turn clockwise explain the change.
  basis = [by_x, by_y, x * by_x + y * by_y, x * by_y - y * by_x]
  basis = np.stack(basis, axis=-1)
  estimates = []
  for start in range(0, len(frames), 6):
    window = basis[start : start + 6].reshape(-1, 4)
    change = by_time[start : start + 6].ravel()
    estimates.append(
      np.linalg.solve(window.T @ window, -window.T @ change) * (1, 1, 20, 20)
    )
  return np.concatenate([np.mean(estimates, 0), np.std(estimates, 0)])


@pytest.fixture(scope='module')
def frame_features(videos):
  rng = np.random.default_rng(0)
  picked = [
    _frame_features(frames[rng.integers(len(frames))])
    for frames in videos['frames']
  ]
  return [np.array(features) for features in zip(*picked, strict=True)]


def test_video_is_a_pure_function_of_seed_and_index(videos):
  frames, appearance, motion = demo_videos.render(7, seed=3)
  np.testing.assert_array_equal(frames, videos['frames'][7])
  assert appearance == videos['appearance'][7]
  assert motion == videos['motion'][7]
  other_seed, _, _ = demo_videos.render(7, seed=4)
  assert np.abs(np.float32(other_seed) - frames).mean() > 10


def test_several_processes_render_the_same_arrays(videos):
  several = demo_videos.render_arrays(6, seed=3, num_processes=2)
  assert set(several) == {'frames', 'appearance', 'motion'}
  for key, value in several.items():
    assert value.dtype == videos[key].dtype
    np.testing.assert_array_equal(value, videos[key][:6])


def test_arrays_have_documented_shape_and_type(videos):
  size = demo_videos.NUM_FRAMES, demo_videos.HEIGHT, demo_videos.WIDTH, 3
  assert videos['frames'].shape == (4 * _NUM_PAIRS, *size)
  assert videos['frames'].dtype == np.uint8
  assert videos['appearance'].dtype == videos['motion'].dtype == np.int32


@pytest.mark.parametrize('num_videos', [_NUM_PAIRS, 1000])
def test_all_pairs_of_labels_are_equally_frequent(num_videos):
  counts = np.zeros((_NUM_APPEARANCES, _NUM_MOTIONS), int)
  np.add.at(counts, tuple(_labels(num_videos, seed=0).T), 1)
  assert counts.min() == num_videos // _NUM_PAIRS
  assert counts.max() == -(-num_videos // _NUM_PAIRS)


def test_seed_shuffles_the_order_of_the_pairs():
  first, other = _labels(1000, seed=0), _labels(1000, seed=1)
  assert (first == other).all(1).mean() < 0.1
  assert (first[:_NUM_PAIRS] == first[_NUM_PAIRS : 2 * _NUM_PAIRS]).mean() < 0.4


def test_pose_at_a_random_time_is_distributed_alike_for_all_motions():
  """Two-sample Kolmogorov-Smirnov distance of angle and size, per motion."""
  num_samples = 2000
  poses = []
  for motion in range(_NUM_MOTIONS):
    rng = np.random.default_rng(motion)
    drawn = []
    for _ in range(num_samples):
      _, _, angle, log_size = demo_videos._trajectory(motion, rng)
      time = rng.integers(demo_videos.NUM_FRAMES)
      drawn.append((angle[time] % (2 * np.pi), log_size[time]))
    poses.append(np.sort(drawn, axis=0))
  for pose in poses[1:]:
    for column in range(2):
      a, b = poses[0][:, column], pose[:, column]
      points = np.concatenate([a, b])
      distance = np.abs(
        np.searchsorted(a, points, 'right')
        - np.searchsorted(b, points, 'right')
      ).max()
      # Exceeded by chance once in a thousand comparisons.
      assert distance / num_samples < 1.95 * np.sqrt(2 / num_samples)


def test_no_single_frame_tells_the_motion(videos, frame_features):
  bound = _chance_bound(len(videos['motion']), _NUM_MOTIONS)
  together = np.concatenate(frame_features, axis=1)
  for features in [*frame_features, together]:
    assert _nearest_neighbour_accuracy(features, videos['motion']) < bound
    assert _ridge_accuracy(features, videos['motion']) < bound


def test_the_same_frame_tells_the_appearance(videos, frame_features):
  _, _, _, texture = frame_features
  assert _nearest_neighbour_accuracy(texture, videos['appearance']) > 0.6
  assert _ridge_accuracy(texture, videos['appearance']) > 0.6


@pytest.fixture(scope='module')
def motion_features(videos):
  return np.array([_motion_features(frames) for frames in videos['frames']])


@pytest.mark.parametrize(
  'motion, column, sign',
  [
    ('right', 0, 1),
    ('left', 0, -1),
    ('down', 1, 1),
    ('up', 1, -1),
    ('zoom_in', 2, 1),
    ('zoom_out', 2, -1),
    ('clockwise', 3, 1),
    ('counterclockwise', 3, -1),
  ],
)
def test_texture_moves_as_its_label_says(
  videos, motion_features, motion, column, sign
):
  is_motion = videos['motion'] == demo_videos.MOTIONS.index(motion)
  mean = motion_features[:, :4]
  assert (sign * mean[is_motion, column] > 0).all()
  assert (np.abs(mean[is_motion]).argmax(1) == column).mean() > 0.9


def test_swing_goes_to_and_fro(videos, motion_features):
  is_swing = videos['motion'] == demo_videos.MOTIONS.index('swing')
  mean, deviation = motion_features[is_swing, 0], motion_features[is_swing, 4]
  assert (np.abs(mean) < deviation).all()


def test_motion_shows_between_frames_and_does_not_tell_the_appearance(
  videos, motion_features
):
  features = motion_features
  assert _nearest_neighbour_accuracy(features, videos['motion']) > 0.9
  # Above chance, if at all, because the errors of the estimate depend on the
  # texture: the motion itself is drawn without knowing the appearance.
  assert _nearest_neighbour_accuracy(features, videos['appearance']) < 0.25


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  directory = tmp_path_factory.mktemp('demo') / 'videos'
  demo_files.write_video_files(directory, seed=3, num_videos=6)
  return directory


def _contents(directory):
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_files_have_neutral_names_and_a_table_of_labels(folder, videos):
  names = sorted(path.name for path in folder.glob('*.mp4'))
  assert names == [f'video_{index:04d}.mp4' for index in range(6)]
  with open(folder / 'labels.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['path'] for row in rows] == names
  for index, row in enumerate(rows):
    appearance = demo_videos.APPEARANCES.index(row['appearance'])
    motion = demo_videos.MOTIONS.index(row['motion'])
    assert appearance == videos['appearance'][index]
    assert motion == videos['motion'][index]


def test_h264_gives_back_nearly_the_rendered_frames(folder, videos):
  for index in range(6):
    with av.open(str(folder / f'video_{index:04d}.mp4')) as container:
      stream = container.streams.video[0]
      assert stream.codec_context.name == 'h264'
      assert stream.average_rate == demo_videos.FRAMES_PER_SECOND
      decoded = [f.to_ndarray(format='rgb24') for f in container.decode(stream)]
    assert len(decoded) == demo_videos.NUM_FRAMES
    difference = np.array(decoded) - videos['frames'][index].astype(np.float32)
    # Of a video with camera noise, in luminance: colour has half the
    # resolution in the file.
    luminance = np.abs(difference @ np.float32([0.299, 0.587, 0.114]))
    assert luminance.mean((1, 2)).max() < 7
    assert np.abs(difference.mean((0, 1, 2))).max() < 2


def test_several_processes_write_the_same_bytes(folder, tmp_path):
  demo_files.write_video_files(
    tmp_path / 'new', seed=3, num_videos=6, num_processes=2
  )
  assert _contents(tmp_path / 'new') == _contents(folder)


def test_killed_writing_goes_on_where_it_was(folder, tmp_path):
  directory = tmp_path / 'killed'
  program = """
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    from demo_data import demo_files

    class Count:
      videos = 0

      def __call__(self):
        self.videos += 1
        if self.videos == 3:
          os.kill(os.getpid(), signal.SIGKILL)

    demo_files.write_video_files(
      sys.argv[2], seed=3, num_videos=6, on_video=Count()
    )
  """
  folder_of_module = str(pathlib.Path(demo_videos.__file__).parents[1])
  killed = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program), folder_of_module]
    + [str(directory)],
    check=False,
  )
  assert killed.returncode == -9
  assert not (directory / 'labels.csv').exists()
  finished = {p: p.stat().st_mtime_ns for p in directory.glob('video_*.mp4')}
  assert len(finished) == 3
  # What a kill in the middle of a file leaves behind.
  (directory / '.video_0003.mp4.unfinished').write_bytes(b'half a file')
  calls = []
  demo_files.write_video_files(
    directory, seed=3, num_videos=6, on_video=lambda: calls.append(1)
  )
  assert len(calls) == 6
  assert {p: p.stat().st_mtime_ns for p in finished} == finished
  assert _contents(directory) == _contents(folder)


def test_workers_end_when_the_parent_is_killed(tmp_path):
  program = """
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    from demo_data import demo_files

    def stop():
      os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == '__main__':
      demo_files.write_video_files(
        sys.argv[2], seed=3, num_videos=40, num_processes=2, on_video=stop
      )
  """
  script = tmp_path / 'write.py'
  script.write_text(textwrap.dedent(program))
  folder_of_module = str(pathlib.Path(demo_videos.__file__).parents[1])
  # The workers share the captured output: it ends when the last of them ends.
  killed = subprocess.run(
    [sys.executable, str(script), folder_of_module, str(tmp_path / 'new')],
    check=False,
    capture_output=True,
    timeout=60,
  )
  assert killed.returncode == -9


@pytest.mark.parametrize('other', [{'seed': 4}, {'num_videos': 7}])
def test_folder_of_other_videos_is_refused(folder, other):
  before = _contents(folder)
  with pytest.raises(ValueError, match='name another'):
    demo_files.write_video_files(
      folder, **{'seed': 3, 'num_videos': 6, **other}
    )
  assert _contents(folder) == before


def test_folder_with_other_files_is_refused(tmp_path):
  (tmp_path / 'holiday.mp4').write_bytes(b'')
  with pytest.raises(ValueError, match='new or an empty folder'):
    demo_files.write_video_files(tmp_path, seed=3, num_videos=6)
  assert [path.name for path in tmp_path.iterdir()] == ['holiday.mp4']


def test_rendering_to_arrays_needs_neither_av_nor_tensorflow_nor_jax():
  program = """
    import sys
    sys.path.insert(0, sys.argv[1])
    for name in ('av', 'tensorflow', 'jax'):
      sys.modules[name] = None
    from demo_data import demo_videos
    demo_videos.render_arrays(1, seed=0)
  """
  folder_of_module = str(pathlib.Path(demo_videos.__file__).parents[1])
  subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program), folder_of_module],
    check=True,
  )


def test_another_look_has_the_same_labels_and_motion(videos, motion_features):
  for index in range(0, 2 * _NUM_MOTIONS):
    frames, appearance, motion = demo_videos.render(index, seed=3, look='night')
    assert appearance == videos['appearance'][index]
    assert motion == videos['motion'][index]
    # It is darker, and what moves most is what moves most by day.
    assert frames.mean() < 0.95 * videos['frames'][index].mean()
    night, day = _motion_features(frames)[:4], motion_features[index, :4]
    if motion != demo_videos.MOTIONS.index('swing'):
      assert np.abs(night).argmax() == np.abs(day).argmax()
      assert np.sign(night[np.abs(night).argmax()]) == np.sign(
        day[np.abs(day).argmax()]
      )


def test_the_command_prepares_another_look_under_another_name(tmp_path):
  out = tmp_path / 'second'
  arguments = [
    'demo',
    f'--out={out}',
    '--num-videos=4',
    '--processes=1',
    '--val-percent=50',
    '--seed=3',
  ]
  assert prepare.main([*arguments, '--look=night', '--name=second']) == 0
  assert json.loads((out / 'dataset.json').read_text())['name'] == 'second'
  assert prepare.main(arguments) == 2


def test_every_look_can_be_asked_for():
  assert tuple(demo_videos.LOOKS) == prepare._LOOKS
