"""Images in folders: order, symlinks, fingerprints, every error."""

import os
import pathlib

import pytest
from input_pipeline import image_dataset

from vie_jax.input_pipeline import dataset_folder, image_folder

PLAIN = image_dataset.plain(1)


def test_a_folder_gives_its_images_in_order(tmp_path):
  image_dataset.write_folder(tmp_path / 'pets', image_dataset.FOLDER)
  with image_folder.open_split(str(tmp_path / 'pets'), 'train') as source:
    assert source.name == 'pets'
    assert source.class_names == ['cat', 'dog']
    assert source.label_column == 'label'
    expected = {
      'cat/d.bmp': 0,
      'cat/deeper/c.Gif': 0,
      'dog/a.png': 1,
      'dog/b.JPEG': 1,
    }
    assert list(image_dataset.content_of(source)) == list(expected)
    for name, (encoded, label) in image_dataset.content_of(source).items():
      assert label == expected[name]
      assert encoded == image_dataset.FOLDER[f'train/{name}']
  with image_folder.open_split(str(tmp_path / 'pets'), 'val') as source:
    assert source.class_names == ['cat', 'dog']
    assert image_dataset.content_of(source) == {
      'dog/f.jpg': (image_dataset.FOLDER['val/dog/f.jpg'], 1)
    }
    for index in (-1, 1):
      with pytest.raises(IndexError, match='is not in'):
        source.read(index)


def test_a_relative_path_gives_the_name_of_its_folder(tmp_path, monkeypatch):
  image_dataset.write_folder(tmp_path / 'pets', image_dataset.FOLDER)
  monkeypatch.chdir(tmp_path / 'pets' / 'train')
  with image_folder.open_split('../', 'train') as source:
    assert source.name == 'pets'
    monkeypatch.chdir('/')
    assert source.read(0)[1] == 0


@pytest.mark.parametrize('other', ['validation', 'test'])
def test_validation_folders_may_have_other_names(tmp_path, other):
  image_dataset.write_folder(tmp_path, image_dataset.FOLDER)
  (tmp_path / 'val').rename(tmp_path / other)
  with image_folder.open_split(str(tmp_path), 'val') as source:
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
  image_dataset.write_folder(tmp_path, {**image_dataset.FOLDER, **more})
  with pytest.raises(dataset_folder.DatasetError, match=reason):
    image_folder.open_split(str(tmp_path), split)


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
  message = image_dataset.message_of(
    image_folder.open_split, str(tmp_path), split
  )
  assert reason in message
  assert str(tmp_path) in message


@pytest.mark.parametrize('name', ['no/such', 'http://host/x', 'gs://bucket/x'])
def test_only_folders_of_this_machine_are_opened(name):
  for message in (
    image_dataset.message_of(image_folder.open_split, name, 'train'),
    image_dataset.message_of(image_folder.open_flat, name),
  ):
    assert message == f'{name} is no folder of images on this machine.'


def test_symlinks_are_followed_inside_the_folder_only(tmp_path, caplog):
  outside = image_dataset.write_folder(
    tmp_path / 'outside', {'a.png': PLAIN, 'sub/b.png': PLAIN}
  )
  folder = image_dataset.write_folder(tmp_path / 'pets', image_dataset.FOLDER)
  links = {
    'train/cat/file.png': outside / 'a.png',
    'train/cat/folder': outside / 'sub',
    'train/cat/relative': pathlib.Path('../../../outside'),
    'train/emu': outside,
    'train/cat/loop': folder / 'train',
    'train/cat/self': folder / 'train/cat',
    'train/cat/gone.png': folder / 'nothing.png',
    'train/gnu': folder / 'nothing',
    'train/cat/again.png': folder / 'train/dog/a.png',
  }
  for path, target in links.items():
    (folder / path).symlink_to(target)
  with caplog.at_level('WARNING', logger='absl'):
    source = image_folder.open_split(str(folder), 'train')
  assert caplog.messages == [
    f'Passed over in {folder}/train: 4 symlinks that lead out, such as '
    "'cat/file.png'.",
    f'Passed over in {folder}/train: 2 symlinks that lead nowhere, such as '
    "'cat/gone.png'.",
  ]
  assert source.class_names == ['cat', 'dog']
  names = list(image_dataset.content_of(source))
  assert 'cat/again.png' in names
  assert not any('outside' in name or 'sub' in name for name in names)
  assert 'cat/file.png' not in names
  assert len(names) == len(set(names))
  again = source.read(names.index('cat/again.png'))
  assert again == (image_dataset.FOLDER['train/dog/a.png'], 0)
  (folder / 'train/fox').symlink_to(folder / 'train/dog')
  message = image_dataset.message_of(
    image_folder.open_split, str(folder), 'train'
  )
  assert 'train/fox has no images of its own' in message


def test_images_of_formats_that_are_not_read_are_counted(tmp_path, caplog):
  others = ('a.webp', 'b.WebP', 'deep/c.tiff', '.e.webp', 'd.txt')
  files = {f'train/cat/{name}': PLAIN for name in others}
  image_dataset.write_folder(tmp_path / 'pets', image_dataset.FOLDER | files)
  with caplog.at_level('WARNING', logger='absl'):
    source = image_folder.open_split(str(tmp_path / 'pets'), 'train')
  assert source.num_images == 4
  (line,) = caplog.messages
  assert line == (
    f'Passed over in {tmp_path}/pets/train: 3 images (.tiff 1, .webp 2); '
    '.jpg .jpeg .jpe .jfif .png .bmp .gif are read: convert the others.'
  )


def test_a_split_that_is_a_symlink_out_of_the_folder_is_refused(tmp_path):
  outside = image_dataset.write_folder(
    tmp_path / 'outside', image_dataset.FOLDER
  )
  (tmp_path / 'pets').mkdir()
  (tmp_path / 'pets/train').symlink_to(outside / 'train')
  message = image_dataset.message_of(
    image_folder.open_split, str(tmp_path / 'pets'), 'train'
  )
  assert 'pets/train is a symlink that leads out of' in message


def test_names_that_are_no_text_are_passed_over_and_named(tmp_path, caplog):
  image_dataset.write_folder(tmp_path, image_dataset.FOLDER)
  train = os.path.join(os.fsencode(tmp_path), b'train')
  os.mkdir(os.path.join(train, b'gr\xfcn'))
  for name in (b'cat/\xff.png', b'cat/\xff.txt', b'gr\xfcn/a.png'):
    with open(os.path.join(train, name), 'wb') as file:
      file.write(PLAIN)
  with caplog.at_level('WARNING', logger='absl'):
    source = image_folder.open_split(str(tmp_path), 'train')
  assert source.num_images == 4
  assert source.class_names == ['cat', 'dog']
  (line,) = caplog.messages
  assert f'{tmp_path}/train: 2 names that are not UTF-8, such as' in line
  assert line.endswith(r"'cat/\udcff.png'.")
  assert line.isascii()


def test_pipes_are_named_and_not_waited_for(tmp_path, caplog):
  image_dataset.write_folder(tmp_path, image_dataset.FOLDER)
  os.mkfifo(tmp_path / 'train/cat/pipe.jpg')
  os.mkfifo(tmp_path / 'train/cat/pipe')
  (tmp_path / 'train/cat/round.jpg').symlink_to('round.jpg')
  with caplog.at_level('WARNING', logger='absl'):
    source = image_folder.open_split(str(tmp_path), 'train')
  assert source.num_images == 4
  assert [line.partition('train: ')[2] for line in caplog.messages] == [
    "1 image that is no regular file, such as 'cat/pipe.jpg'.",
    "1 symlink that leads nowhere, such as 'cat/round.jpg'.",
  ]


def test_jpeg_has_four_suffixes(tmp_path):
  files = {f'train/cat/{n}': PLAIN for n in ('a.jfif', 'b.JPE', 'c.jpeg')}
  image_dataset.write_folder(tmp_path, files)
  with image_folder.open_split(str(tmp_path), 'train') as source:
    assert list(image_dataset.content_of(source)) == [
      'cat/a.jfif',
      'cat/b.JPE',
      'cat/c.jpeg',
    ]


def test_a_file_that_vanished_is_named(tmp_path):
  image_dataset.write_folder(tmp_path, image_dataset.FOLDER)
  with image_folder.open_split(str(tmp_path), 'val') as source:
    (tmp_path / 'val/dog/f.jpg').unlink()
    message = image_dataset.message_of(source.read, 0)
  assert f'{tmp_path}/val/dog/f.jpg cannot be read' in message


def test_a_folders_fingerprint_is_of_names_and_sizes(tmp_path):
  def fingerprint(name, files):
    folder = image_dataset.write_folder(tmp_path / name, files)
    with image_folder.open_split(str(folder), 'train') as source:
      return source.fingerprint

  same = fingerprint('one', image_dataset.FOLDER)
  assert fingerprint('two', image_dataset.FOLDER) == same
  longer = image_dataset.FOLDER | {'train/dog/a.png': PLAIN + b' '}
  other_names = image_dataset.FOLDER | {'train/dog/z.png': PLAIN}
  other_classes = image_dataset.FOLDER | {'train/emu/z.png': PLAIN}
  changed = [
    fingerprint(str(number), files)
    for number, files in enumerate([longer, other_names, other_classes])
  ]
  assert len({same, *changed}) == 4


def test_a_flat_folder_has_names_and_no_labels(tmp_path):
  image_dataset.write_folder(tmp_path / 'all', image_dataset.FOLDER)
  with image_folder.open_flat(str(tmp_path / 'all')) as source:
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
    assert source.read(4) == (image_dataset.FOLDER['val/dog/f.jpg'], -1)
  (tmp_path / 'empty').mkdir()
  message = image_dataset.message_of(
    image_folder.open_flat, str(tmp_path / 'empty')
  )
  assert message == f'{tmp_path}/empty has no images.'
