"""Images of TFDS by index, in both formats, and every error."""

import concurrent.futures
import io
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from input_pipeline import image_dataset
from PIL import Image

from vie_jax.input_pipeline import dataset_folder, record_shards, tfds_images

FORMATS = ('tfrecord', 'array_record')


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
  return tfds_images.open_split(spec, split, str(data_dir))


def shard_of(data_dir, number):
  (shard,) = pathlib.Path(data_dir).rglob(f'*train*0000{number}-of-00003')
  return shard


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
    assert image_dataset.content_of(source) == expected
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
    expected = image_dataset.content_of(source)
  with open_tiny(folder, spec='tiny_pictures:1.2.0') as source:
    assert image_dataset.content_of(source) == expected
  with open_tiny(folder, spec='tiny_pictures:1.*.*') as source:
    assert image_dataset.content_of(source) == expected


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
  message = image_dataset.message_of(open_tiny, tmp_path, 'train', 'no_train')
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
  with pytest.raises(dataset_folder.DatasetError, match=found):
    open_tiny(tmp_path, spec=builder.name)


def test_what_is_not_prepared_is_not_downloaded(tmp_path):
  message = image_dataset.message_of(open_tiny, tmp_path / 'none', spec='mnist')
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
  assert reason in image_dataset.message_of(open_tiny, tmp_path, spec=spec)


def test_other_file_formats_are_refused(copies):
  (path,) = copies['tfrecord'].rglob('dataset_info.json')
  info = json.loads(path.read_text())
  path.write_text(json.dumps({**info, 'fileFormat': 'riegeli'}))
  message = image_dataset.message_of(open_tiny, copies['tfrecord'])
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
  message = image_dataset.message_of(open_tiny, copies['tfrecord'])
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
    message = image_dataset.message_of(
      source.read, 8
    )  # the first of the second shard
  assert str(shard) in message
  assert reason in message


def test_a_missing_array_record_shard_is_named_at_once(copies):
  shard = shard_of(copies['array_record'], 2)
  shard.unlink()
  assert f'{shard} is missing' in image_dataset.message_of(
    open_tiny, copies['array_record']
  )


def test_a_shard_that_changes_under_way_is_noticed(copies):
  shard = shard_of(copies['tfrecord'], 0)
  with open_tiny(copies['tfrecord']) as source:
    shard.write_bytes(bytes(len(shard.read_bytes())))
    assert 'was changed while' in image_dataset.message_of(source.read, 3)
    shard.unlink()
    assert f'{shard} cannot be read' in image_dataset.message_of(source.read, 3)


def test_a_record_without_an_image_is_named(copies):
  shard = shard_of(copies['tfrecord'], 1)
  with tf.io.TFRecordWriter(str(shard)) as writer:
    for record in (b'', b'no example', *[b''] * 5):
      writer.write(record)
  with open_tiny(copies['tfrecord']) as source:
    for record in range(2):
      message = image_dataset.message_of(source.read, 8 + record)
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
  message = image_dataset.message_of(record_shards.TfRecordShards, missing)
  assert f'{urls[0]}x cannot be read' in message
