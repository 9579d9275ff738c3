"""Labelled images by name: which are any, and ImageNet's known counts."""

import pytest
from input_pipeline import image_dataset

from vie_jax.input_pipeline import (
  dataset_folder,
  image_folder,
  labelled_images,
  tfds_images,
)


def test_tfds_and_folders_are_opened_by_name(tmp_path):
  image_dataset.prepare(image_dataset.TinyPictures, tmp_path / 'tfds')
  image_dataset.write_folder(tmp_path / 'pets', image_dataset.FOLDER)
  for name, kind, count in (
    ('tfds:tiny_pictures', tfds_images.TfdsImages, image_dataset.NUM_TEST),
    (str(tmp_path / 'pets'), image_folder.FolderImages, 1),
  ):
    with labelled_images.open_images(
      name, 'val', data_dir=str(tmp_path / 'tfds')
    ) as source:
      assert isinstance(source, kind)
      assert source.num_images == count


@pytest.mark.parametrize('name', ['ImageNet', 'ILSVRC2012', 'imagenet-1k'])
def test_counts_of_imagenet_are_compared_in_one_line(tmp_path, caplog, name):
  image_dataset.write_folder(tmp_path / name, image_dataset.FOLDER)
  with labelled_images.open_images(str(tmp_path / name), 'train'):
    pass
  (line,) = caplog.messages
  assert line == (
    f'{tmp_path / name / "train"} has 4 images of 2 classes; ImageNet has '
    '1281167 of 1000 (-1281163 and -998).'
  )


@pytest.mark.parametrize('name', ['pets', 'imagenet_v2', 'tiny-imagenet-200'])
def test_other_data_sets_are_not_compared_with_imagenet(tmp_path, caplog, name):
  image_dataset.write_folder(tmp_path / name, image_dataset.FOLDER)
  with labelled_images.open_images(str(tmp_path / name), 'val'):
    pass
  assert caplog.messages == []


def test_images_below_the_home_are_found(tmp_path, monkeypatch):
  image_dataset.write_folder(tmp_path / 'pets', image_dataset.FOLDER)
  monkeypatch.setenv('HOME', str(tmp_path))
  assert labelled_images.is_images('~/pets')


@pytest.mark.parametrize('name', ['1.jpg', 'cat/1.PNG', 'train/1.jpg'])
def test_images_of_no_class_are_refused(tmp_path, name):
  image_dataset.write_folder(tmp_path / 'pets', {name: b''})
  with pytest.raises(dataset_folder.DatasetError) as error:
    image_folder.check_no_loose_images(tmp_path / 'pets')
  assert str(tmp_path / 'pets' / name) in str(error.value)
  assert f'{tmp_path}/pets/val/CLASS/. Move them there.' in str(error.value)


@pytest.mark.parametrize('name', ['dataset.json', 'train/videos.parquet'])
def test_videos_are_no_loose_images(tmp_path, name):
  image_dataset.write_folder(tmp_path / 'videos', {name: b''})
  image_folder.check_no_loose_images(tmp_path / 'videos')
  image_folder.check_no_loose_images(tmp_path / 'none')
  image_folder.check_no_loose_images('s3://bucket/name')


def test_images_are_told_from_prepared_videos(tmp_path):
  assert labelled_images.is_images('tfds:imagenet2012')
  assert not labelled_images.is_images(str(tmp_path))
  assert not labelled_images.is_images(str(tmp_path / 'none'))
  image_dataset.write_folder(tmp_path / 'pets', image_dataset.FOLDER)
  assert labelled_images.is_images(str(tmp_path / 'pets'))
  image_dataset.write_folder(
    tmp_path / 'videos',
    {'dataset.json': b'{}', 'train/videos.parquet': b'', 'train/x/y': b''},
  )
  assert not labelled_images.is_images(str(tmp_path / 'videos'))
  image_dataset.write_folder(
    tmp_path / 'unfinished', {'train/videos.parquet': b''}
  )
  assert not labelled_images.is_images(str(tmp_path / 'unfinished'))
