import functools
import io
import json
import sys
import threading
import time

import av
import numpy as np
import prepare
import pytest
import sample_videos
import tensorflow_datasets as tfds
from dataset import folder_lock
from errors import InputError
from PIL import Image
from sources import tfds_videos

from vie_jax.input_pipeline import frame_store

_NAMES = ('left', 'right')


class SmallVideos(tfds.core.GeneratorBasedBuilder):
  """Five videos, as frames and as encoded files."""

  VERSION = tfds.core.Version('1.0.0')
  encoded = b''

  def _info(self):
    features = {
      'video': tfds.features.Video(shape=(None, 32, 48, 3)),
      'file': tfds.features.Tensor(shape=(), dtype=np.object_),
      'way': tfds.features.ClassLabel(names=_NAMES),
      'speed': tfds.features.Scalar(np.int32),
    }
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {'train': self._examples(3), 'test': self._examples(2, first=3)}

  def _generate_examples(self):
    raise NotImplementedError

  def _examples(self, count, first=0):
    for number in range(first, first + count):
      yield (
        number,
        {
          'video': sample_videos.moving(4 + number, 32, 48, seed=number),
          'file': self.encoded,
          'way': _NAMES[number % 2],
          'speed': number,
        },
      )


class OddVideos(tfds.core.GeneratorBasedBuilder):
  """One split, of which one video has no frame; its labels lie deeper."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    meta = {
      'label': tfds.features.ClassLabel(names=_NAMES),
      'who': tfds.features.Text(),
      'place': tfds.features.Tensor(shape=(2,), dtype=np.float32),
    }
    features = {'video': tfds.features.Video(shape=(None, 16, 16, 3))}
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict({**features, 'meta': meta})
    )

  def _split_generators(self, dl_manager):
    return {'test': self._examples()}

  def _generate_examples(self):
    raise NotImplementedError

  def _examples(self):
    for number in range(6):
      frames = sample_videos.moving(4, 16, 16, seed=number)
      yield (
        number,
        {
          'video': frames[:0] if number == 2 else frames,
          'meta': {
            'label': _NAMES[number % 2],
            'who': f'{number}',
            'place': [0, 0],
          },
        },
      )


class DeepVideos(tfds.core.GeneratorBasedBuilder):
  """Video and class lie inside of another feature.

  `two` has two videos there, `classes` two classes, and `outside` a second
  video and class outside.
  """

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [  # noqa: RUF012
    tfds.core.BuilderConfig(name=name)
    for name in ('one', 'two', 'classes', 'outside')
  ]

  def _info(self):
    video = tfds.features.Video(shape=(None, 16, 16, 3))
    clip = {'frames': video, 'way': tfds.features.ClassLabel(names=_NAMES)}
    features = {'clip': clip}
    if self.builder_config.name == 'two':
      clip['other'] = video
    if self.builder_config.name == 'classes':
      clip['again'] = tfds.features.ClassLabel(names=_NAMES)
    if self.builder_config.name == 'outside':
      kind = tfds.features.ClassLabel(names=['a', 'b'])
      features |= {'film': video, 'kind': kind}
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {'train': self._examples()}

  def _generate_examples(self):
    raise NotImplementedError

  def _examples(self):
    frames = sample_videos.moving(4, 16, 16)
    for number, way in enumerate(_NAMES):
      example = {'clip': {'frames': frames, 'way': way}}
      if self.builder_config.name == 'two':
        example['clip']['other'] = frames
      if self.builder_config.name == 'classes':
        example['clip']['again'] = way
      if self.builder_config.name == 'outside':
        example |= {'film': frames, 'kind': number}
      yield number, example


class SplitVideos(SmallVideos):
  """With configs, as the splits of UCF101 are."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [  # noqa: RUF012
    tfds.core.BuilderConfig(name=name) for name in ('one', 'two')
  ]


@pytest.fixture(scope='module')
def odd_data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('odd')
  OddVideos(data_dir=folder).download_and_prepare()
  return folder


@pytest.mark.slow
def test_one_split_is_shared_out_and_a_video_without_a_frame_is_skipped(
  odd_data_dir, tmp_path, capsys
):
  out = tmp_path / 'o'
  options = ('--label=meta/label', '--val-percent=50')
  assert _prepare(odd_data_dir, out, *options, name='odd_videos') == 0
  found = [_videos(out, split) for split in ('train', 'val')]
  assert all(found)
  assert len(found[0] + found[1]) == 5
  (skipped,) = json.loads((out / 'skipped.json').read_text())
  assert skipped['reason'] == 'no frame in it'
  assert skipped['path'].startswith('test/0000000')
  capsys.readouterr()
  assert _prepare(odd_data_dir, out, *options, name='odd_videos') == 0
  assert 'already complete' in capsys.readouterr().out


@pytest.mark.parametrize(
  'label, message',
  [
    ('meta', "the feature 'meta' is not one text or number"),
    ('meta/place', "the feature 'meta/place' is not one text or number"),
    ('video', "the feature 'video' is not one text or number"),
    ('name', "the feature 'name' is not there"),
  ],
)
def test_a_label_that_is_none_is_refused_with_those_that_are(
  odd_data_dir, tmp_path, label, message
):
  with pytest.raises(InputError) as caught:
    tfds_videos.write_tfds_videos(
      'odd_videos', tmp_path / 'v', data_dir=odd_data_dir, label=label
    )
  assert message in str(caught.value)
  assert str(caught.value).endswith('; possible are meta/label, meta/who')


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  sample_videos.write(folder / 'x.mp4', sample_videos.moving(7, 32, 48))
  SmallVideos.encoded = (folder / 'x.mp4').read_bytes()
  SmallVideos(data_dir=folder / 'sets').download_and_prepare()
  return folder / 'sets'


def _prepare(data_dir, out, *options, name='small_videos'):
  arguments = ['tfds', '--name', name, '--data-dir', str(data_dir)]
  arguments += ['--out', str(out), '--processes', '1', *options]
  return prepare.main(arguments)


@pytest.mark.parametrize('config', ['one', 'two'])
def test_each_config_is_a_data_set_of_its_own(tmp_path, config):
  builder = SplitVideos(config=config, data_dir=tmp_path / 'sets')
  builder.download_and_prepare()
  name = f'split_videos/{config}'
  options = ('--video=video', '--label=way')
  assert _prepare(tmp_path / 'sets', tmp_path / 'o', *options, name=name) == 0
  manifest = json.loads((tmp_path / 'o' / 'dataset.json').read_text())
  assert manifest['name'] == f'tfds-split_videos-{config}'
  assert manifest['options']['data_set'] == f'split_videos/{config}/1.0.0'


def test_of_several_classes_none_is_taken_and_all_are_named(tmp_path, capsys):
  sets = tmp_path / 'sets'
  DeepVideos(config='classes', data_dir=sets).download_and_prepare()
  capsys.readouterr()
  write = functools.partial(
    tfds_videos.write_tfds_videos, 'deep_videos/classes', data_dir=sets
  )
  write(tmp_path / 'none')
  assert (
    'Note: tfds deep_videos/classes has the classes clip/way, clip/again; none '
    'is taken, name one with --label.'
  ) in capsys.readouterr().err
  rows = (tmp_path / 'none' / 'list.jsonl').read_text().splitlines()
  assert not any('label' in json.loads(row) for row in rows)
  write(tmp_path / 'way', label='clip/way')
  assert 'Note' not in capsys.readouterr().err


def test_the_only_video_and_class_may_lie_inside_of_another_feature(tmp_path):
  sets = tmp_path / 'sets'
  for config in ('one', 'two', 'outside'):
    DeepVideos(config=config, data_dir=sets).download_and_prepare()
  for config, expected in (('one', [*_NAMES]), ('outside', ['a', 'b'])):
    out = tmp_path / config
    tfds_videos.write_tfds_videos(f'deep_videos/{config}', out, data_dir=sets)
    rows = (out / 'list.jsonl').read_text().splitlines()
    assert sorted(json.loads(row)['label'] for row in rows) == expected
  with pytest.raises(InputError) as caught:
    tfds_videos.write_tfds_videos(
      'deep_videos/two', tmp_path / 'w', data_dir=sets
    )
  assert 'has 2 video features' in str(caught.value)
  assert 'name one of clip/frames, clip/other with --video' in str(caught.value)


def _videos(out, split):
  with frame_store.FrameStore.open(out, split) as store:
    numbers, names = store.label('label')
    return [
      (names[number], store.read_frames(index, range(store.num_frames[index])))
      for index, number in enumerate(numbers)
    ]


def test_frames_become_videos_with_labels_and_splits(
  data_dir, tmp_path, capsys
):
  out = tmp_path / 'o'
  assert _prepare(data_dir, out, name='small_videos:1.0.0') == 0
  found = _videos(out, 'train') + _videos(out, 'val')
  assert len(_videos(out, 'val')) == 2
  expected = {
    4 + n: (_NAMES[n % 2], sample_videos.moving(4 + n, 32, 48, seed=n))
    for n in range(5)
  }
  for name, frames in found:
    way, video = expected.pop(len(frames))
    assert name == way
    image = np.asarray(Image.open(io.BytesIO(frames[1]))).astype(int)
    # JPEG halves the resolution of colour at the border of the square.
    assert np.median(np.abs(image - video[1])) <= 1
    assert (np.abs(image[4, 6] - video[1, 4, 6]) < 40).all()
  assert not expected
  (path,) = (tmp_path / 'o-videos' / 'val').glob('*0.mkv')
  with av.open(str(path)) as file:
    stored = [frame.to_ndarray(format='rgb24') for frame in file.decode()]
  assert any(
    np.array_equal(stored, sample_videos.moving(4 + n, 32, 48, seed=n))
    for n in (3, 4)
  )
  manifest = json.loads((out / 'dataset.json').read_text())
  assert manifest['name'] == 'tfds-small_videos'
  assert manifest['options']['data_set'] == 'small_videos/1.0.0'
  assert prepare.main(['check', str(out), '--full']) == 0
  capsys.readouterr()
  assert _prepare(data_dir, out, name='small_videos:1.0.0') == 0
  assert 'already complete' in capsys.readouterr().out


def test_the_frame_rate_and_the_features_are_options(data_dir, tmp_path):
  options = ('--label=speed', '--frame-rate=5')
  assert _prepare(data_dir, tmp_path / 'o', *options) == 0
  found = {name: len(f) for name, f in _videos(tmp_path / 'o', 'train')}
  assert found == {'0': 20, '1': 25, '2': 30}
  # A folder of other videos is not taken for those of these options.
  folder = f'--extract-to={tmp_path / "o-videos"}'
  assert _prepare(data_dir, tmp_path / 'p', folder) == 2


def test_a_frame_rate_may_be_no_whole_number(data_dir, tmp_path):
  options = ('--label=speed', '--frame-rate=12.5')
  out = tmp_path / 'o'
  assert _prepare(data_dir, out, *options, name='tfds:small_videos') == 0
  found = {name: len(f) for name, f in _videos(out, 'train')}
  assert found == {'0': 8, '1': 10, '2': 12}


@pytest.mark.parametrize(
  'rate, message',
  [('fast', "'fast' is no number"), ('nan', 'nan is not in [1, 1000]')],
)
def test_a_frame_rate_that_is_none_is_said(rate, message, tmp_path, capsys):
  with pytest.raises(SystemExit):
    _prepare(tmp_path, tmp_path / 'o', f'--frame-rate={rate}')
  assert message in capsys.readouterr().err.splitlines()[-1]


def test_encoded_files_are_taken_as_they_are(data_dir, tmp_path):
  assert _prepare(data_dir, tmp_path / 'o', '--video=file') == 0
  assert [len(f) for _, f in _videos(tmp_path / 'o', 'train')] == [7, 7, 7]


def test_a_run_waits_for_one_that_writes_to_the_same_folder(
  data_dir, tmp_path, capsys
):
  folder = tmp_path / 'v'
  run = threading.Thread(
    target=tfds_videos.write_tfds_videos,
    args=('small_videos', folder),
    kwargs={'data_dir': data_dir},
  )
  with folder_lock.locked_in_turn(folder):
    run.start()
    said = ''
    while f'another run is writing to {folder}' not in said:
      assert run.is_alive()
      said += capsys.readouterr().err
      time.sleep(0.01)
    assert not list(folder.iterdir())
  run.join()
  assert len((folder / 'list.jsonl').read_text().splitlines()) == 5


def test_what_a_killed_run_leaves_is_not_in_the_way(data_dir, tmp_path):
  folder = tmp_path / 'v'
  folder.mkdir()
  (folder / '.tfds.json.12.tmp').write_text('{')
  tfds_videos.write_tfds_videos('small_videos', folder, data_dir=data_dir)
  videos = sorted((folder / 'train').iterdir())
  assert len(videos) == 3
  # As if it had been killed later.
  (folder / 'list.jsonl').unlink()
  videos[1].rename(folder / 'train' / '.00000001.mkv.ab.tmp')
  tfds_videos.write_tfds_videos('small_videos', folder, data_dir=data_dir)
  assert sorted((folder / 'train').iterdir()) == videos
  assert not list(folder.rglob('*.tmp'))


@pytest.mark.parametrize(
  'name, options, message',
  [
    ('small_videos', ('--video=sound',), "no feature 'sound', only"),
    ('small_videos', ('--video=way',), 'not uint8 [T, H, W, 3]'),
    ('no_such_set', (), 'cannot be opened'),
    ('small_videos:9.9.9', (), 'there is small_videos:1.0.0'),
    ('tfds:small_videos/x', (), 'there is small_videos:1.0.0'),
    ('../sets', (), 'tfds ../sets cannot be opened'),
    ('ucf101/ucf101_1', (), 'download_and_prepare()'),
  ],
)
def test_mistakes_are_one_line(
  data_dir, tmp_path, capsys, name, options, message
):
  assert _prepare(data_dir, tmp_path / 'o', *options, name=name) == 2
  errors = [
    line
    for line in capsys.readouterr().err.splitlines()
    if line.startswith('Error')
  ]
  assert len(errors) == 1
  assert message in errors[0]


def test_a_package_that_is_not_installed_is_named_in_one_line(
  tmp_path, monkeypatch, capsys
):
  # As in the environment of Beam's workers.
  for name in [*sys.modules]:
    if name.startswith(('tensorflow_datasets', 'sources.tfds_videos')):
      monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  out = str(tmp_path / 'o')
  assert prepare.main(['tfds', '--name=any', '--out', out]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('Error: the package tensorflow_datasets is not inst')
