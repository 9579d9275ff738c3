"""Embedding arrays of clips, prepared videos, own files and images."""

import json
import re
import shutil
import time

import numpy as np
import pyarrow.parquet
import pytest
import tiny_run
from oracle import official, reference_network

from vie_jax import (
  blueprint,
  device_augment,
  embed,
  evaluate,
  experiment,
  weights,
)
from vie_jax.config import config_check
from vie_jax.embeddings import clip_files, foreign_embeddings
from vie_jax.evaluation import features
from vie_jax.input_pipeline import (
  dataset_folder,
  frame_store,
  image_folder,
  image_pipeline,
)
from vie_jax.models import official_checkpoint
from vie_jax.results import result

SIZES = {'width': 4, 'fast_width': 2}
# (network, official type, frames, side): of any size, and not the config's.
CASES = [
  ('vie_single', 'single', 1, 24),
  ('vie_slow', 'slow', 6, 40),
  ('vie_trn', 'trn', 4, 32),
]


def config_of(name, tmp_path, **changes):
  """The tiny config of a network, whose clips are in `clips.npz`."""
  frames = {'vie_single': 1, 'vie_slowfast': 8}.get(name, 4)
  settings = {
    'model__name': name,
    'clip__num_frames': frames,
    'clip__sampler': 'single' if frames == 1 else 'slow',
    'init_from': 'random',
    'embed__clips': str(tmp_path / 'clips.npz'),
    'embed__batch_size': 8,
  }
  return tiny_run.config('nowhere', **settings | changes)


def write_clips(tmp_path, *shape):
  clips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  np.savez(tmp_path / 'clips.npz', clips=clips)
  return clips


def write_official(tmp_path, kind):
  listing = reference_network.variable_shapes(kind, **SIZES)
  arrays = {name: official.weights(name, shape) for name, shape in listing}
  np.savez(tmp_path / 'official.npz', **arrays)
  return arrays


@pytest.mark.parametrize('name,kind,frames,side', CASES)
def test_embeddings_are_those_of_the_official_network(
  tmp_path, name, kind, frames, side
):
  # More than a batch of 8, and the last one not full.
  clips = write_clips(tmp_path, 11, frames, side, side + 8, 3)
  arrays = write_official(tmp_path, kind)
  config = config_of(
    name, tmp_path, init_from=f'official:{tmp_path / "official.npz"}'
  )
  embed.embed(config, str(tmp_path / 'W'))
  (folder,) = (tmp_path / 'W' / 'embed').iterdir()
  assert folder.name == 'clips_official.npz'
  found = np.load(folder / 'embeddings.npy')
  assert found.dtype == np.float32
  assert found.shape == (11, 128)
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
  expected = reference_network.forward(
    arrays, kind, clips, dtype='float64', **SIZES
  )
  np.testing.assert_allclose(found, expected.embedding, atol=1e-5)
  written = result.read(folder / 'result.json')
  assert written['clips'] == [11, frames, side, side + 8, 3]
  assert written['shape'] == [11, 128]
  assert written['network']['training'] == 'official'
  assert written['network']['source'].startswith('official:')


@pytest.mark.slow
def test_embeddings_do_not_depend_on_the_batch_size(tmp_path):
  write_clips(tmp_path, 9, 1, 32, 32, 3)
  results = [
    embed.embed(
      config_of(
        'vie_single', tmp_path, embed__batch_size=size, num_devices=devices
      ),
      str(tmp_path / 'W'),
    )
    for size, devices in ((64, 1), (4, 2))
  ]
  np.testing.assert_allclose(*results, atol=1e-5)


def refusal(config, tmp_path):
  with pytest.raises(
    (
      clip_files.ClipsError,
      config_check.ConfigError,
      dataset_folder.DatasetError,
    )
  ) as error:
    embed.embed(config, str(tmp_path / 'W'))
  assert not (tmp_path / 'W').exists()
  return str(error.value)


def test_no_file_is_refused_by_the_field_that_names_it(tmp_path):
  config = config_of('vie_single', tmp_path, embed__clips='')
  message = 'There is no file or folder nowhere (config.dataset.dir).'
  assert message in refusal(config, tmp_path)
  config.dataset.dir = ''
  assert 'Nothing is named to embed' in refusal(config, tmp_path)
  config.embed.source = str(tmp_path / 'gone')
  assert '/gone (config.embed.source).' in refusal(config, tmp_path)
  message = refusal(config_of('vie_single', tmp_path), tmp_path)
  assert f'There is no file {tmp_path / "clips.npz"}' in message


@pytest.mark.parametrize(
  'array,words',
  [
    (np.zeros((2, 1, 32, 32, 3), np.float32), 'float32'),
    (np.zeros((2, 32, 32, 3), np.uint8), r'\[2, 32, 32, 3\]'),
    (np.zeros((2, 1, 32, 32, 4), np.uint8), r'\[2, 1, 32, 32, 4\]'),
    (np.zeros((0, 1, 32, 32, 3), np.uint8), 'no clips'),
    (np.array([None]), 'plain arrays'),
  ],
)
def test_other_arrays_are_refused(tmp_path, array, words):
  path = tmp_path / 'clips.npz'
  np.savez(path, clips=array)
  message = refusal(config_of('vie_single', tmp_path), tmp_path)
  assert str(path) in message
  assert re.search(words, message)


def test_files_of_another_kind_are_refused(tmp_path):
  path = tmp_path / 'clips.npz'
  config = config_of('vie_single', tmp_path)
  np.savez(path, frames=np.zeros((2, 1, 32, 32, 3), np.uint8))
  assert "no array named 'clips'" in refusal(config, tmp_path)
  with path.open('wb') as file:
    np.save(file, np.zeros((2, 1, 32, 32, 3), np.uint8))
  assert 'no .npz file' in refusal(config, tmp_path)
  path.write_bytes(b'not an archive at all')
  assert str(path) in refusal(config, tmp_path)
  write_clips(tmp_path, 2, 1, 32, 32, 3)
  path.write_bytes(path.read_bytes()[:-500])
  assert str(path) in refusal(config, tmp_path)
  np.savez_compressed(path, clips=np.zeros((2, 1, 32, 32, 3), np.uint8))
  content = bytearray(path.read_bytes())
  middle = len(content) // 3
  content[middle : middle + 4] = b'\xff\xff\xff\xff'
  path.write_bytes(content)
  assert str(path) in refusal(config, tmp_path)


@pytest.mark.parametrize(
  'name,frames,words',
  [
    ('vie_trn', 5, 'made for 4'),
    ('vie_slowfast', 6, 'multiple of config.model.alpha, 4'),
  ],
)
def test_clips_that_the_network_cannot_take_are_refused(
  tmp_path, name, frames, words
):
  write_clips(tmp_path, 2, frames, 32, 32, 3)
  assert words in refusal(config_of(name, tmp_path), tmp_path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
  write_clips(tmp_path, 2, 1, 32, 32, 3)
  write_official(tmp_path, 'slow')
  config = config_of(
    'vie_single', tmp_path, init_from=f'official:{tmp_path / "official.npz"}'
  )
  with pytest.raises(
    official_checkpoint.OfficialCheckpointError, match='vie_slow'
  ):
    embed.embed(config, str(tmp_path / 'W'))


def test_clips_of_another_file_of_the_name_replace_nothing(tmp_path):
  write_clips(tmp_path, 2, 1, 32, 32, 3)
  config = config_of('vie_single', tmp_path)
  first = embed.embed(config, str(tmp_path / 'W'))
  (tmp_path / 'other').mkdir()
  np.savez(
    tmp_path / 'other' / 'clips.npz', clips=np.zeros((1, 1, 32, 32, 3), 'u1')
  )
  config.embed.clips = str(tmp_path / 'other' / 'clips.npz')
  with pytest.raises(result.ResultError, match='would be replaced'):
    embed.embed(config, str(tmp_path / 'W'))
  path = tmp_path / 'W' / 'embed' / 'clips_random' / 'embeddings.npy'
  np.testing.assert_array_equal(np.load(path), first)


def test_embeddings_that_there_are_already_are_not_embedded(tmp_path):
  config = config_of('vie_single', tmp_path, embeddings='vectors.npy')
  assert 'Leave it out in --mode=embed' in refusal(config, tmp_path)


def source_config(source, base='vie_single', **changes):
  settings = {'init_from': 'random', 'embed__batch_size': 8, 'num_devices': 1}
  return tiny_run.config(
    'nowhere', base, embed__source=str(source), **settings | changes
  )


def embedded(source, workdir, **changes):
  """Embeds a source: (folder, the array in it)."""
  config = source_config(source, **changes)
  returned = embed.embed(config, str(workdir))
  (folder,) = (workdir / 'embed').iterdir()
  found = np.load(folder / 'embeddings.npy')
  np.testing.assert_array_equal(found, returned)
  assert found.dtype == np.float32
  assert found.flags.c_contiguous
  return folder, found


@pytest.fixture(scope='module')
def clips_of(demo_dataset):
  """Split -> embeddings of its clips, as kNN sees them: [V, G, D]."""
  config = tiny_run.config(demo_dataset, init_from='random', num_devices=1)
  with experiment.open_experiment(config, 'knn_eval') as run:
    found = weights.load(
      config, 'W', run.model, clip_shape=run.clip_shape, mesh=run.mesh
    )
    evaluator = evaluate.Evaluator(run)
    yield {
      split: evaluator.embed(found.variables, videos)
      for split, videos in (('train', run.train), ('val', run.val))
    }


def test_a_prepared_data_set_is_embedded_whole(
  demo_dataset, clips_of, tmp_path
):
  folder, found = embedded(demo_dataset, tmp_path)
  assert folder.name == 'demo_random'
  expected = [features.video_means(clips_of[s]) for s in ('train', 'val')]
  np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)
  table = pyarrow.parquet.read_table(folder / 'embeddings.parquet')
  np.testing.assert_array_equal(np.stack(table['embedding'].to_numpy()), found)
  row = 0
  for split in ('train', 'val'):
    with frame_store.FrameStore.open(demo_dataset, split) as store:
      for video in range(store.num_videos):
        values = {n: table[n][row].as_py() for n in table.column_names}
        labels, names = store.label('motion')
        assert values['id'] == store.ids[video]
        assert values['path'] == store.paths[video]
        assert values['split'] == split
        assert values['clip'] is None
        assert values['num_frames'] == store.num_frames[video]
        assert values['duration_seconds'] == store.num_frames[video] / 25
        assert values['label_motion'] == names[labels[video]]
        row += 1
  assert row == table.num_rows == 48
  lines = (folder / 'embeddings.ids.txt').read_text().splitlines()
  assert lines == table['id'].to_pylist()
  written = result.read(folder / 'result.json')
  assert written['shape'] == [48, 128]
  assert (written['dataset']['train'], written['dataset']['val']) == (36, 12)
  assert written['views'] == {'clips': 5, 'crop': 'center', 'average': 'mean'}


def test_one_split_and_its_clips(demo_dataset, clips_of, tmp_path):
  folder, found = embedded(
    demo_dataset, tmp_path, embed__splits=('val',), embed__per_clip=True
  )
  assert folder.name == 'demo_per_clip_random'
  expected = clips_of['val'].reshape(60, 128)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  table = pyarrow.parquet.read_table(folder / 'embeddings.parquet')
  assert table['clip'].to_pylist() == [*range(5)] * 12
  ids = table['id'].to_pylist()
  assert ids == [ids[i // 5 * 5] for i in range(60)]
  lines = (folder / 'embeddings.ids.txt').read_text().splitlines()
  assert lines == [f'{name}\t{i % 5}' for i, name in enumerate(ids)]


@pytest.mark.parametrize('name', ['embeddings.npy', 'embeddings.parquet'])
def test_its_files_are_read_as_embeddings_made_elsewhere(
  demo_dataset, clips_of, tmp_path, name
):
  folder, found = embedded(
    demo_dataset, tmp_path, embed__splits=('val',), embed__batch_size=32
  )
  with frame_store.FrameStore.open(demo_dataset, 'val') as store:
    videos = list(zip(store.ids, store.paths, strict=True))
  read, num_extra = foreign_embeddings.read(folder / name, videos[::-1])
  assert num_extra == 0
  np.testing.assert_allclose(read[::-1, 0], found, atol=1e-6)


@pytest.mark.slow
def test_a_layer_is_the_plain_mean_of_its_readouts(demo_dataset, tmp_path):
  config = source_config(demo_dataset, dataset__dir=str(demo_dataset))
  config.embed.source = ''
  config.embed.layer = 'conv4'
  config.embed.splits = ('val',)
  found = embed.embed(config, str(tmp_path))
  assert (tmp_path / 'embed' / 'demo_conv4_random').is_dir()
  with experiment.open_experiment(config, 'knn_eval') as run:
    loaded = weights.load(
      config, 'W', run.model, clip_shape=run.clip_shape, mesh=run.mesh
    )
    rows = []
    with experiment.eval_batches(run, run.val) as batches:
      for batch in batches:
        clips = run.center(batch['window'], batch['crop'])
        readouts = run.model.apply(loaded.variables, clips, method='readouts')
        rows.extend(np.asarray(readouts['conv4'])[batch['is_valid']])
  expected = np.stack(rows).reshape(12, 5, -1).mean(axis=1)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  assert np.linalg.norm(found, axis=1).max() > 1.5


@pytest.mark.slow
def test_an_array_of_clips_has_layers_too(tmp_path):
  clips = write_clips(tmp_path, 3, 1, 32, 32, 3)
  config = config_of('vie_single', tmp_path, embed__layer='conv5')
  found = embed.embed(config, str(tmp_path / 'W'))
  model = blueprint.build_model(config)
  loaded = weights.load(
    config,
    'W',
    model,
    clip_shape=(1, 32, 32, 3),
    mesh=blueprint.make_mesh(config, 'embed'),
  )
  normalised = device_augment.normalize(clips.astype(np.float32))
  readouts = model.apply(loaded.variables, normalised, method='readouts')
  np.testing.assert_allclose(found, readouts['conv5'], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope='module')
def images(demo_dataset, tmp_path_factory):
  """A folder of images of two classes: 9 frames of the data set."""
  folder = tmp_path_factory.mktemp('images') / 'pictures'
  with frame_store.FrameStore.open(demo_dataset, 'val') as store:
    for video in range(9):
      (frame,) = store.read_frames(video, [7])
      path = folder / f'class{video % 2}' / f'{video}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(frame)
  return folder


@pytest.mark.parametrize(
  'base,frames',
  [
    ('vie_single', 1),
    pytest.param('vie_slowfast', 8, marks=pytest.mark.slow),
  ],
)
def test_an_image_is_shown_as_static_video(images, tmp_path, base, frames):
  folder, found = embedded(images, tmp_path, base=base)
  assert folder.name == 'pictures_random'
  table = pyarrow.parquet.read_table(folder / 'embeddings.parquet')
  paths = table['path'].to_pylist()
  assert paths == sorted(
    str(path.relative_to(images)) for path in images.rglob('*.jpg')
  )
  assert table['label_label'].to_pylist() == [p.split('/')[0] for p in paths]
  assert table['num_frames'].to_pylist() == [1] * 9
  assert table['duration_seconds'].null_count == 9
  config = source_config(images, base)
  windows = []
  with (
    image_folder.open_flat(str(images)) as opened,
    image_pipeline.eval_batches(
      opened, size=32, short_side=36, batch_size=3
    ) as batches,
  ):
    for batch in batches:
      windows.extend(batch['window'])
  # The middle square, shown all the time.
  clips = [np.repeat(window, frames, axis=0) for window in windows]
  np.savez(tmp_path / 'clips.npz', clips=np.stack(clips))
  config.embed.clips = str(tmp_path / 'clips.npz')
  expected = embed.embed(config, str(tmp_path / 'by hand'))
  np.testing.assert_allclose(found, expected, atol=1e-5)
  written = result.read(folder / 'result.json')
  assert written['dataset']['kind'] == 'image'
  assert written['dataset']['path'] == str(images)


def test_images_with_splits_keep_them(images, tmp_path):
  source = tmp_path / 'sets'
  for split, numbers in (('train', '0246'), ('validation', '13')):
    for number in numbers:
      target = source / split / f'class{int(number) % 2}' / f'{number}.jpg'
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(images / target.parent.name / target.name, target)
  folder, _ = embedded(source, tmp_path / 'W')
  table = pyarrow.parquet.read_table(folder / 'embeddings.parquet')
  assert table['split'].to_pylist() == ['train'] * 4 + ['val'] * 2
  assert table['label_label'].to_pylist() == ['class0'] * 4 + ['class1'] * 2


def test_a_file_that_is_no_image_is_named(images, tmp_path):
  source = tmp_path / 'pictures'
  shutil.copytree(images, source)
  (source / 'class0' / 'bad.jpg').write_bytes(b'no picture')
  with pytest.raises(dataset_folder.DatasetError, match=r'class0/bad\.jpg'):
    embed.embed(source_config(source), str(tmp_path / 'W'))


@pytest.fixture(scope='module')
def video_files(demo_dataset):
  return sorted((demo_dataset.parent / 'demo-videos').glob('*.mp4'))


def test_a_folder_of_videos_is_prepared_and_embedded(
  demo_dataset, clips_of, video_files, tmp_path, caplog
):
  source = tmp_path / 'mine'
  source.mkdir()
  for file in video_files[:5]:
    shutil.copy(file, source)
  (source / 'broken.mp4').write_bytes(b'no video')
  with caplog.at_level('INFO'):
    folder, found = embedded(source, tmp_path / 'W')
  assert 'Skipped: broken.mp4: ' in caplog.text
  assert folder.name == 'mine_random'
  table = pyarrow.parquet.read_table(folder / 'embeddings.parquet')
  assert table['path'].to_pylist() == [file.name for file in video_files[:5]]
  # The same files are part of the demo's data set.
  for name, vector in zip(table['path'].to_pylist(), found, strict=True):
    for split, clips in clips_of.items():
      with frame_store.FrameStore.open(demo_dataset, split) as store:
        if name in store.paths:
          mean = features.video_means(clips)[store.paths.index(name)]
          np.testing.assert_allclose(vector, mean, atol=1e-5)
  assert result.read(folder / 'result.json')['dataset']['path'] == str(source)


def folder_of_videos(folder, files):
  folder.mkdir(parents=True)
  for file in files:
    shutil.copy(file, folder)
  return folder


def test_a_folder_that_has_changed_is_embedded_anew(video_files, tmp_path):
  source = folder_of_videos(tmp_path / 'mine', video_files[:2])
  _, first = embedded(source, tmp_path / 'W')
  shutil.copy(video_files[2], source)
  folder, found = embedded(source, tmp_path / 'W')
  np.testing.assert_array_equal(found[:2], first)
  assert len(found) == result.read(folder / 'result.json')['shape'][0] == 3
  # Another one of the name is told so, and nothing is thrown away for it.
  other = folder_of_videos(tmp_path / 'other' / 'mine', video_files[:2])
  with pytest.raises(result.ResultError, match='result_name'):
    embedded(other, tmp_path / 'W')
  with frame_store.FrameStore.open(folder / 'prepared', 'train') as store:
    assert store.num_videos == 3


def test_what_belongs_to_other_data_is_said_before_videos_are_prepared(
  demo_dataset, video_files, tmp_path
):
  folder, _ = embedded(demo_dataset, tmp_path / 'W')
  source = folder_of_videos(tmp_path / 'demo', video_files[:2])
  with pytest.raises(result.ResultError, match='result_name'):
    embedded(source, tmp_path / 'W')
  assert not (folder / 'prepared').exists()


@pytest.mark.slow
def test_a_single_video_file_is_embedded(video_files, tmp_path):
  folder, found = embedded(video_files[0], tmp_path)
  assert folder.name == f'{video_files[0].stem}_random'
  assert found.shape == (1, 128)
  written = result.read(folder / 'result.json')
  assert written['dataset']['name'] == video_files[0].stem


@pytest.mark.slow
def test_what_cannot_be_embedded_is_said_in_one_line(demo_dataset, tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'notes.txt').write_text('no video')
  shutil.copytree(demo_dataset, tmp_path / 'damaged')
  next((tmp_path / 'damaged' / 'val').glob('frames-*')).unlink()
  for source, words in (
    (tmp_path / 'none', 'There is no file or folder'),
    (tmp_path / 'empty', 'no video files'),
    (tmp_path / 'notes.txt', 'is named neither like an image nor like a'),
    (tmp_path / 'damaged', 'missing'),
  ):
    with pytest.raises(dataset_folder.DatasetError, match=words) as error:
      embed.embed(source_config(source), str(tmp_path / 'W'))
    assert '\n' not in str(error.value)
  config = source_config(demo_dataset, embed__splits=())
  with pytest.raises(config_check.ConfigError, match=r'embed\.splits'):
    embed.embed(config, str(tmp_path / 'W'))


@pytest.mark.slow
def test_an_embedding_that_is_killed_goes_on_and_ends_the_same(
  demo_dataset, tmp_path
):
  settings = {
    'mode': 'embed',
    'init_from': 'random',
    'clip__num_eval_clips': 60,
    'embed__batch_size': 7,  # not a divisor of the clips of a video
  }
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  tiny_run.run(tiny_run.command(whole, demo_dataset, **settings))
  command = tiny_run.command(killed, demo_dataset, **settings)
  folder = killed / 'embed' / 'demo_random'
  saved = 0
  process = tiny_run.start(command)
  while saved < 2 and process.poll() is None:
    time.sleep(0.002)
    if (folder / 'embeddings.json').exists():
      record = json.loads((folder / 'embeddings.json').read_text())
      saved = record['num_done']
  tiny_run.kill(process)
  assert process.returncode == -9
  assert [path.name for path in folder.glob('embeddings.*')].count(
    'embeddings.parquet'
  ) == 0
  output = tiny_run.run(command)
  saved = re.search(r'Going on from (\d+) of 48 rows', output)
  assert int(saved[1]) >= 2
  log = (folder / 'train.log').read_text()
  assert 'Embedded 48 of 48 rows (100.0 %)' in log
  assert 'minutes to go' in log
  expected = whole / 'embed' / 'demo_random'
  # Another start of the batches: the last bits may differ.
  np.testing.assert_allclose(
    np.load(folder / 'embeddings.npy'),
    np.load(expected / 'embeddings.npy'),
    atol=1e-6,
  )
  tables = [
    pyarrow.parquet.read_table(path / 'embeddings.parquet')
    for path in (folder, expected)
  ]
  assert tables[0].drop('embedding').equals(tables[1].drop('embedding'))
