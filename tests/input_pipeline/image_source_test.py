"""Labelled images by index: TFDS in both formats, folders, every error."""

import concurrent.futures
import io
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from input_pipeline import image_dataset
from PIL import Image

from vie_jax.input_pipeline import frame_store, image_source, record_shards

FORMATS = ('tfrecord', 'array_record')
PLAIN = image_dataset.plain(1)
FOLDER = {
  'train/dog/b.JPEG': image_dataset.plain(4),
  'train/dog/a.png': image_dataset.plain(3),
  'train/cat/deeper/c.Gif': image_dataset.plain(1),
  'train/cat/d.bmp': image_dataset.plain(2),
  'train/cat/notes.txt': b'no image',
  'train/cat/.hidden.png': PLAIN,
  'train/.thumbnails/e.png': PLAIN,
  'train/README.md': b'no class',
  'val/dog/f.jpg': image_dataset.plain(5),
}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """format -> data_dir of the data set tiny_pictures."""
  folders = {}
  for file_format in FORMATS:
    folders[file_format] = tmp_path_factory.mktemp(file_format)
    image_dataset.prepare(
      image_dataset.TinyPictures, folders[file_format], file_format
    )
  return folders


@pytest.fixture
def copies(prepared, tmp_path):
  """format -> data_dir that a test may damage."""
  for file_format, folder in prepared.items():
    shutil.copytree(folder, tmp_path / file_format)
  return {file_format: tmp_path / file_format for file_format in prepared}


def open_tiny(data_dir, split='train', spec='tiny_pictures'):
  return image_source.open_images(f'tfds:{spec}', split, data_dir=str(data_dir))


def shard_of(data_dir, number):
  (shard,) = pathlib.Path(data_dir).rglob(f'*train*0000{number}-of-00003')
  return shard


def content(source):
  """All images as {name: (encoded, label)}."""
  indices = range(source.num_images)
  return {source.names(index): source.read(index) for index in indices}


def message_of(call, *arguments, **options):
  """The one line that a mistake ends in."""
  with pytest.raises(frame_store.DatasetError) as caught:
    call(*arguments, **options)
  message = str(caught.value)
  assert '\n' not in message
  assert message.endswith('.')
  return message


@pytest.mark.parametrize('file_format', FORMATS)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_random_access_gives_what_tfds_gives(prepared, file_format, split):
  builder = tfds.builder('tiny_pictures', data_dir=prepared['tfrecord'])
  examples = builder.as_dataset(
    split={'train': 'train', 'val': 'test'}[split],
    decoders={'picture': tfds.decode.SkipDecoding()},
    read_config=tfds.ReadConfig(add_tfds_id=True),
  )
  expected = {
    example['tfds_id'].decode().replace('tfrecord', file_format): (
      example['picture'],
      int(example['kind']),
    )
    for example in examples.as_numpy_iterator()
  }
  with open_tiny(prepared[file_format], split) as source:
    assert source.num_images == len(expected)
    assert content(source) == expected
    assert source.class_names == image_dataset.CLASSES
    assert source.label_column == 'label'
    assert source.name == 'tfds-tiny_pictures'
    for index in (-1, source.num_images):
      with pytest.raises(IndexError, match='is not in'):
        source.read(index)


def test_array_records_are_in_the_order_of_their_data_source(prepared):
  folder = prepared['array_record']
  builder = tfds.builder('tiny_pictures', data_dir=folder)
  examples = builder.as_data_source(split='train')
  with open_tiny(folder) as source:
    assert source.num_images == len(examples)
    for index, example in enumerate(examples):
      encoded, label = source.read(index)
      picture = np.asarray(Image.open(io.BytesIO(encoded)))
      np.testing.assert_array_equal(picture, example['picture'])
      assert label == example['kind']


@pytest.mark.parametrize('file_format', FORMATS)
def test_many_threads_read_with_few_open_files(
  prepared, file_format, monkeypatch
):
  monkeypatch.setattr(record_shards, '_MAX_OPEN_READERS', 1)
  with open_tiny(prepared[file_format]) as source:
    alone = [source.read(index) for index in range(source.num_images)]
    order = np.random.default_rng(0).permutation(source.num_images)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      for _ in range(10):
        together = list(pool.map(source.read, order))
        assert together == [alone[index] for index in order]


def test_a_data_set_is_found_by_version_and_without_its_code(prepared):
  folder = prepared['tfrecord']
  with open_tiny(folder) as source:
    expected = content(source)
  with open_tiny(folder, spec='tiny_pictures:1.2.0') as source:
    assert content(source) == expected
  with open_tiny(folder, spec='tiny_pictures:1.*.*') as source:
    assert content(source) == expected


def test_fingerprints_are_those_of_the_content(prepared, tmp_path):
  with open_tiny(prepared['tfrecord']) as source:
    fingerprint = source.fingerprint
  assert len(fingerprint) == 64
  with open_tiny(prepared['array_record']) as source:
    assert source.fingerprint == fingerprint
  with open_tiny(prepared['tfrecord'], 'val') as source:
    assert source.fingerprint != fingerprint
  image_dataset.prepare(image_dataset.ThreeSplits, tmp_path)
  with open_tiny(tmp_path, spec='three_splits') as source:
    assert source.fingerprint != fingerprint


def test_validation_comes_before_test(tmp_path):
  image_dataset.prepare(image_dataset.ThreeSplits, tmp_path)
  with open_tiny(tmp_path, 'val', 'three_splits') as source:
    assert source.num_images == 2
    assert source.location == 'split validation of tfds:three_splits'


def test_a_missing_split_is_named_with_those_there_are(tmp_path):
  image_dataset.prepare(image_dataset.NoTrain, tmp_path)
  message = message_of(open_tiny, tmp_path, 'train', 'no_train')
  assert 'no split train, only extra, test' in message


def test_without_a_split_to_test_on_a_tenth_is_held_out(tmp_path):
  image_dataset.prepare(image_dataset.TrainOnly, tmp_path)
  with (
    open_tiny(tmp_path, 'train', 'train_only') as train,
    open_tiny(tmp_path, 'val', 'train_only') as val,
  ):
    assert (train.num_images, val.num_images) == (21, 2)
    assert train.fingerprint != val.fingerprint
    found = [
      source.read(index)
      for source in (train, val)
      for index in range(source.num_images)
    ]
    names = [
      source.names(index)
      for source in (train, val)
      for index in range(source.num_images)
    ]
    assert len({encoded for encoded, _ in found}) == len(set(names)) == 23
    for source in (train, val):
      with pytest.raises(IndexError):
        source.read(source.num_images)


def test_supervised_keys_decide_between_several_labels(tmp_path):
  image_dataset.prepare(image_dataset.TwoLabels, tmp_path)
  with open_tiny(tmp_path, spec='two_labels') as source:
    assert source.class_names == [str(number) for number in range(7)]


@pytest.mark.parametrize(
  'builder_class, found',
  [
    (image_dataset.TwoImages, r"images \['left', 'right'\] .* \['label'\]"),
    (image_dataset.FloatImages, r"images \[\] and the labels \['label'\]"),
  ],
)
def test_what_is_no_classification_is_refused(tmp_path, builder_class, found):
  builder = image_dataset.prepare(builder_class, tmp_path)
  with pytest.raises(frame_store.DatasetError, match=found):
    open_tiny(tmp_path, spec=builder.name)


def test_what_is_not_prepared_is_not_downloaded(tmp_path):
  message = message_of(open_tiny, tmp_path / 'none', spec='mnist')
  assert 'tfds:mnist is not prepared' in message
  assert f"tfds.builder('mnist', data_dir='{tmp_path}/none')" in message
  assert 'config.linear_eval.tfds_data_dir' in message
  assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize(
  'spec, reason',
  [
    ('no_such_set', 'cannot be opened: Dataset no_such_set not found'),
    ('mnist:9.9.9', 'cannot be opened: Failed to construct'),
    ('mnist/wrong', 'cannot be opened: Failed to construct'),
    ('', 'cannot be opened'),
    ('huggingface:mnist', 'is no data set of TFDS itself'),
    ('kaggle:mnist', 'is no data set of TFDS itself'),
  ],
)
def test_unknown_names_are_refused(tmp_path, spec, reason):
  assert reason in message_of(open_tiny, tmp_path, spec=spec)


def test_other_file_formats_are_refused(copies):
  (path,) = copies['tfrecord'].rglob('dataset_info.json')
  info = json.loads(path.read_text())
  path.write_text(json.dumps({**info, 'fileFormat': 'riegeli'}))
  message = message_of(open_tiny, copies['tfrecord'])
  assert 'stored as riegeli; prepare it as tfrecord or array_record' in message


@pytest.mark.parametrize(
  'damage, reason',
  [
    (lambda old: old[:-1], 'is cut short or damaged'),
    (lambda old: old[:200], 'is cut short or damaged'),
    (lambda old: b'', 'is cut short or damaged'),
    (lambda old: old + b'x', 'holds more than its 7 records'),
    (lambda old: old + old, 'holds more than its 7 records'),
    (lambda old: b'\xff' * 8 + old[8:], 'is cut short or damaged'),
    (None, 'cannot be read: '),
  ],
)
def test_a_damaged_tfrecord_shard_is_named(copies, damage, reason):
  shard = shard_of(copies['tfrecord'], 1)
  if damage is None:
    shard.unlink()
  else:
    shard.write_bytes(damage(shard.read_bytes()))
  message = message_of(open_tiny, copies['tfrecord'])
  assert str(shard) in message
  assert reason in message
  with open_tiny(copies['tfrecord'], 'val') as source:
    assert source.num_images == image_dataset.NUM_TEST


@pytest.mark.parametrize(
  'damage, reason',
  [
    (lambda old, other: old[:-1], 'holds 0 records instead of 7'),
    (lambda old, other: b'', 'holds 0 records instead of 7'),
    (lambda old, other: old[:200] + bytes(100) + old[300:], 'cannot be'),
    (lambda old, other: other, 'holds 8 records instead of 7'),
  ],
)
def test_a_damaged_array_record_shard_is_named(copies, damage, reason):
  shard, other = (shard_of(copies['array_record'], n) for n in (1, 0))
  shard.write_bytes(damage(shard.read_bytes(), other.read_bytes()))
  with open_tiny(copies['array_record']) as source:
    assert source.read(0)[0][:4] == b'\x89PNG'
    message = message_of(source.read, 8)  # the first of the second shard
  assert str(shard) in message
  assert reason in message


def test_a_missing_array_record_shard_is_named_at_once(copies):
  shard = shard_of(copies['array_record'], 2)
  shard.unlink()
  assert f'{shard} is missing' in message_of(open_tiny, copies['array_record'])


def test_a_shard_that_changes_under_way_is_noticed(copies):
  shard = shard_of(copies['tfrecord'], 0)
  with open_tiny(copies['tfrecord']) as source:
    shard.write_bytes(bytes(len(shard.read_bytes())))
    assert 'was changed while' in message_of(source.read, 3)
    shard.unlink()
    assert f'{shard} cannot be read' in message_of(source.read, 3)


def test_a_record_without_an_image_is_named(copies):
  shard = shard_of(copies['tfrecord'], 1)
  with tf.io.TFRecordWriter(str(shard)) as writer:
    for record in (b'', b'no example', *[b''] * 5):
      writer.write(record)
  with open_tiny(copies['tfrecord']) as source:
    for record in range(2):
      message = message_of(source.read, 8 + record)
      assert f'{shard.name}__{record} of split train' in message
      assert 'holds no picture and kind' in message


def test_shards_are_read_wherever_gfile_reads(prepared):
  paths = [str(shard_of(prepared['tfrecord'], number)) for number in range(3)]
  counts = [8, 7, 8]
  here = record_shards.TfRecordShards(list(zip(paths, counts, strict=True)))
  urls = [f'file://{path}' for path in paths]
  there = record_shards.TfRecordShards(list(zip(urls, counts, strict=True)))
  for index in np.random.default_rng(1).permutation(23):
    assert here.read(int(index)) == there.read(int(index))
  missing = [(f'{urls[0]}x', 8)]
  message = message_of(record_shards.TfRecordShards, missing)
  assert f'{urls[0]}x cannot be read' in message


def test_a_folder_gives_its_images_in_order(tmp_path):
  image_dataset.write_folder(tmp_path / 'pets', FOLDER)
  with image_source.open_images(str(tmp_path / 'pets'), 'train') as source:
    assert source.name == 'pets'
    assert source.class_names == ['cat', 'dog']
    assert source.label_column == 'label'
    expected = {
      'cat/d.bmp': 0,
      'cat/deeper/c.Gif': 0,
      'dog/a.png': 1,
      'dog/b.JPEG': 1,
    }
    assert list(content(source)) == list(expected)
    for name, (encoded, label) in content(source).items():
      assert label == expected[name]
      assert encoded == FOLDER[f'train/{name}']
  with image_source.open_images(str(tmp_path / 'pets'), 'val') as source:
    assert source.class_names == ['cat', 'dog']
    assert content(source) == {'dog/f.jpg': (FOLDER['val/dog/f.jpg'], 1)}
    for index in (-1, 1):
      with pytest.raises(IndexError, match='is not in'):
        source.read(index)


@pytest.mark.parametrize('name', ['ImageNet', 'ILSVRC2012', 'imagenet-1k'])
def test_counts_of_imagenet_are_compared_in_one_line(tmp_path, caplog, name):
  image_dataset.write_folder(tmp_path / name, FOLDER)
  with image_source.open_images(str(tmp_path / name), 'train'):
    pass
  (line,) = caplog.messages
  assert line == (
    f'{tmp_path / name / "train"} has 4 images of 2 classes; ImageNet has '
    '1281167 of 1000 (-1281163 and -998).'
  )


@pytest.mark.parametrize('name', ['pets', 'imagenet_v2', 'tiny-imagenet-200'])
def test_other_data_sets_are_not_compared_with_imagenet(tmp_path, caplog, name):
  image_dataset.write_folder(tmp_path / name, FOLDER)
  with image_source.open_images(str(tmp_path / name), 'val'):
    pass
  assert caplog.messages == []


def test_a_relative_path_gives_the_name_of_its_folder(tmp_path, monkeypatch):
  image_dataset.write_folder(tmp_path / 'pets', FOLDER)
  monkeypatch.chdir(tmp_path / 'pets' / 'train')
  with image_source.open_images('../', 'train') as source:
    assert source.name == 'pets'
    monkeypatch.chdir('/')
    assert source.read(0)[1] == 0


@pytest.mark.parametrize('other', ['validation', 'test'])
def test_validation_folders_may_have_other_names(tmp_path, other):
  image_dataset.write_folder(tmp_path, FOLDER)
  (tmp_path / 'val').rename(tmp_path / other)
  with image_source.open_images(str(tmp_path), 'val') as source:
    assert source.names(0) == 'dog/f.jpg'
    assert source.location == str(tmp_path / other)


@pytest.mark.parametrize(
  'more, split, reason',
  [
    (
      {'val/emu/x.png': PLAIN},
      'val',
      "class 'emu' in .*/val is not in .*train",
    ),
    ({'val/x.png': PLAIN}, 'val', 'val/x.png is in no class'),
    (
      {'train/emu/x.txt': b''},
      'train',
      'train/emu has no images of its own, so that 1 of',
    ),
  ],
)
def test_folders_that_do_not_fit_are_named(tmp_path, more, split, reason):
  image_dataset.write_folder(tmp_path, {**FOLDER, **more})
  with pytest.raises(frame_store.DatasetError, match=reason):
    image_source.open_images(str(tmp_path), split)


@pytest.mark.parametrize(
  'files, split, reason',
  [
    ({'val/cat/x.png': PLAIN}, 'train', 'has no folder train with a subfolder'),
    ({'train/cat/x.png': PLAIN}, 'val', 'no folder val or validation or test'),
    ({'train/x.png': PLAIN}, 'train', 'has no classes'),
    (
      {'train/cat/x.png': PLAIN, 'val/cat/x.txt': b''},
      'val',
      'val has no images',
    ),
  ],
)
def test_folders_without_images_are_refused(tmp_path, files, split, reason):
  image_dataset.write_folder(tmp_path, files)
  message = message_of(image_source.open_images, str(tmp_path), split)
  assert reason in message
  assert str(tmp_path) in message


@pytest.mark.parametrize('name', ['no/such', 'http://host/x', 'gs://bucket/x'])
def test_only_folders_of_this_machine_are_opened(name):
  for message in (
    message_of(image_source.open_images, name, 'train'),
    message_of(image_source.open_flat, name),
  ):
    assert message == f'{name} is no folder of images on this machine.'


def test_symlinks_are_followed_inside_the_folder_only(tmp_path, caplog):
  outside = image_dataset.write_folder(
    tmp_path / 'outside', {'a.png': PLAIN, 'sub/b.png': PLAIN}
  )
  folder = image_dataset.write_folder(tmp_path / 'pets', FOLDER)
  links = {
    'train/cat/file.png': outside / 'a.png',
    'train/cat/folder': outside / 'sub',
    'train/cat/relative': pathlib.Path('../../../outside'),
    'train/emu': outside,
    'train/cat/loop': folder / 'train',
    'train/cat/self': folder / 'train/cat',
    'train/cat/gone.png': folder / 'nothing.png',
    'train/cat/again.png': folder / 'train/dog/a.png',
  }
  for path, target in links.items():
    (folder / path).symlink_to(target)
  with caplog.at_level('WARNING', logger='absl'):
    source = image_source.open_images(str(folder), 'train')
  assert '4 symlinks in' in caplog.text
  assert source.class_names == ['cat', 'dog']
  names = list(content(source))
  assert 'cat/again.png' in names
  assert not any('outside' in name or 'sub' in name for name in names)
  assert 'cat/file.png' not in names
  assert len(names) == len(set(names))
  again = source.read(names.index('cat/again.png'))
  assert again == (FOLDER['train/dog/a.png'], 0)
  (folder / 'train/fox').symlink_to(folder / 'train/dog')
  message = message_of(image_source.open_images, str(folder), 'train')
  assert 'train/fox has no images of its own' in message


def test_a_split_that_is_a_symlink_out_of_the_folder_is_refused(tmp_path):
  outside = image_dataset.write_folder(tmp_path / 'outside', FOLDER)
  (tmp_path / 'pets').mkdir()
  (tmp_path / 'pets/train').symlink_to(outside / 'train')
  message = message_of(
    image_source.open_images, str(tmp_path / 'pets'), 'train'
  )
  assert 'pets/train is a symlink that leads out of' in message


def test_names_that_are_no_text_are_passed_over(tmp_path):
  image_dataset.write_folder(tmp_path, FOLDER)
  name = os.path.join(os.fsencode(tmp_path), b'train/cat/\xff.png')
  with open(name, 'wb') as file:
    file.write(PLAIN)
  with image_source.open_images(str(tmp_path), 'train') as source:
    assert source.num_images == 4


def test_a_file_that_vanished_is_named(tmp_path):
  image_dataset.write_folder(tmp_path, FOLDER)
  with image_source.open_images(str(tmp_path), 'val') as source:
    (tmp_path / 'val/dog/f.jpg').unlink()
    message = message_of(source.read, 0)
  assert f'{tmp_path}/val/dog/f.jpg cannot be read' in message


def test_a_folders_fingerprint_is_of_names_and_sizes(tmp_path):
  def fingerprint(name, files):
    folder = image_dataset.write_folder(tmp_path / name, files)
    with image_source.open_images(str(folder), 'train') as source:
      return source.fingerprint

  same = fingerprint('one', FOLDER)
  assert fingerprint('two', FOLDER) == same
  longer = FOLDER | {'train/dog/a.png': PLAIN + b' '}
  other_names = FOLDER | {'train/dog/z.png': PLAIN}
  other_classes = FOLDER | {'train/emu/z.png': PLAIN}
  changed = [
    fingerprint(str(number), files)
    for number, files in enumerate([longer, other_names, other_classes])
  ]
  assert len({same, *changed}) == 4


def test_a_flat_folder_has_names_and_no_labels(tmp_path):
  image_dataset.write_folder(tmp_path / 'all', FOLDER)
  with image_source.open_flat(str(tmp_path / 'all')) as source:
    assert source.name == 'all'
    assert source.class_names == []
    assert source.label_column is None
    names = [source.names(index) for index in range(source.num_images)]
    assert names == [
      'train/cat/d.bmp',
      'train/cat/deeper/c.Gif',
      'train/dog/a.png',
      'train/dog/b.JPEG',
      'val/dog/f.jpg',
    ]
    assert source.read(4) == (FOLDER['val/dog/f.jpg'], -1)
  (tmp_path / 'empty').mkdir()
  message = message_of(image_source.open_flat, str(tmp_path / 'empty'))
  assert message == f'{tmp_path}/empty has no images.'


def test_images_are_told_from_prepared_videos(tmp_path):
  assert image_source.is_images('tfds:imagenet2012')
  assert not image_source.is_images(str(tmp_path))
  assert not image_source.is_images(str(tmp_path / 'none'))
  image_dataset.write_folder(tmp_path / 'pets', FOLDER)
  assert image_source.is_images(str(tmp_path / 'pets'))
  image_dataset.write_folder(
    tmp_path / 'videos',
    {'dataset.json': b'{}', 'train/videos.parquet': b'', 'train/x/y': b''},
  )
  assert not image_source.is_images(str(tmp_path / 'videos'))
  image_dataset.write_folder(
    tmp_path / 'unfinished', {'train/videos.parquet': b''}
  )
  assert not image_source.is_images(str(tmp_path / 'unfinished'))
