"""Batches of still images: crops, resizing, order, formats, every error."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf
from input_pipeline import image_dataset
from PIL import Image

from vie_jax.input_pipeline import (
  bad_frames,
  batch_order,
  dataset_folder,
  image_crops,
  image_folder,
  image_pipeline,
  labelled_images,
)

SIZE, SHORT_SIDE = 20, 24


@pytest.fixture(scope='module')
def plain_images(tmp_path_factory):
  """13 images, each of a colour that says its number."""
  files = {
    f'{part}/{number:02d}.png': image_dataset.plain(number)
    for number in range(13)
    for part in ('train/' + 'ab'[number % 2], 'val/a')
  }
  folder = image_dataset.write_folder(tmp_path_factory.mktemp('plain'), files)
  with image_folder.open_flat(str(folder / 'train')) as source:
    # By path: the even numbers come first.
    assert source.names(1) == 'a/02.png'
  return folder


@pytest.fixture
def source(plain_images):
  with labelled_images.open_images(str(plain_images), 'train') as source:
    yield source


def open_files(folder, files):
  """Some files as images without labels."""
  image_dataset.write_folder(folder, files)
  return image_folder.open_flat(str(folder))


def train(source, count, **settings):
  """The first batches as a list."""
  settings = {'size': SIZE, 'batch_size': 4, 'seed': 5} | settings
  with image_pipeline.train_batches(source, **settings) as batches:
    return [next(batches) for _ in range(count)]


def evaluate(source, **settings):
  settings = {
    'size': SIZE,
    'short_side': SHORT_SIDE,
    'batch_size': 4,
  } | settings
  with image_pipeline.eval_batches(source, **settings) as batches:
    return list(batches)


def join(batches):
  return {
    name: np.concatenate([batch[name] for batch in batches])
    for name in batches[0]
  }


def assert_equal(first, second):
  assert len(first) == len(second)
  for one, other in zip(first, second, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def area_means(picture, size):
  """Means over the areas of a size x size grid, by hand: float64."""
  for axis in range(2):
    length = picture.shape[axis]
    rows = []
    for i in range(size):
      low, high = i * length / size, (i + 1) * length / size
      shares = [
        max(0, min(high, pixel + 1) - max(low, pixel))
        for pixel in range(length)
      ]
      rows.append(np.array(shares) / sum(shares))
    picture = np.moveaxis(
      np.tensordot(np.array(rows), picture.astype(float), (1, axis)), 0, axis
    )
  return picture


def decode(encoded):
  with Image.open(io.BytesIO(encoded)) as image:
    return np.asarray(image.convert('RGB'))


def cut(picture, area):
  top, left, height, width = area
  return picture[top : top + height, left : left + width]


def drawn_area(shape, *, seed, position):
  """The crop that training takes at a position: ints."""
  area_seed = batch_order.seed_at(tf.constant(position, tf.int64), seed=seed)
  area = image_crops.train_area(tf.constant(shape), seed=area_seed)
  return area.numpy().tolist()


def test_training_batches_keep_the_contract(source):
  for batch in train(source, 4):
    assert batch['window'].shape == (4, 1, SIZE, SIZE, 3)
    assert batch['window'].dtype == np.uint8
    assert batch['crop'].dtype == np.float32
    assert batch['crop'].tolist() == [[0, 0, SIZE, SIZE]] * 4
    assert batch['instance_index'].dtype == np.int32
    assert batch['label'].dtype == np.int32
    for row, index in enumerate(batch['instance_index']):
      encoded, label = source.read(index)
      number = image_dataset.number_of(decode(encoded))
      assert image_dataset.number_of(batch['window'][row, 0]) == number
      assert batch['label'][row] == label == number % 2


def test_training_resizes_the_drawn_crop_by_area(tmp_path):
  kinds = {
    'a.png': {'file_format': 'PNG'},
    'b.jpg': {'file_format': 'JPEG', 'quality': 80, 'subsampling': 2},
    'c.jpg': {'file_format': 'JPEG', 'subsampling': 0, 'progressive': True},
  }
  shapes = [(61, 90), (90, 61), (16, 25), (41, 41), (9, 200)]
  files = {
    f'{height}x{width}/{name}': image_dataset.encode(
      image_dataset.textured(height, width), **options
    )
    for height, width in shapes
    for name, options in kinds.items()
  }
  source = open_files(tmp_path, files)
  rows = join(train(source, 4, batch_size=len(files)))
  for position, index in enumerate(rows['instance_index']):
    picture = decode(source.read(index)[0])
    area = drawn_area(picture.shape[:2], seed=5, position=position)
    expected = area_means(cut(picture, area), SIZE)
    difference = np.abs(rows['window'][position, 0] - expected)
    assert difference.mean() < 0.3  # rounding alone is 0.25
    assert difference.max() < 0.51


def test_evaluation_resizes_the_middle_by_area(tmp_path):
  pictures = {
    f'{height}x{width}.png': image_dataset.textured(height, width)
    for height, width in [(48, 60), (61, 40), (24, 24), (7, 90), (1, 1)]
  }
  source = open_files(
    tmp_path,
    {name: image_dataset.encode(picture) for name, picture in pictures.items()},
  )
  for batch in evaluate(source, batch_size=1):
    picture = pictures[source.names(batch['instance_index'][0])]
    height, width, _ = picture.shape
    side = max(1, int(SIZE * min(height, width) / SHORT_SIDE))
    area = ((height - side) // 2, (width - side) // 2, side, side)
    expected = area_means(cut(picture, area), SIZE)
    assert np.abs(batch['window'][0, 0] - expected).max() < 0.51


def test_evaluation_equals_pillow_where_a_box_is_of_whole_pixels(tmp_path):
  picture = image_dataset.textured(3 * SHORT_SIDE, 4 * SHORT_SIDE)
  source = open_files(tmp_path, {'a.png': image_dataset.encode(picture)})
  (batch,) = evaluate(source, batch_size=1)
  resized = Image.fromarray(picture).resize(
    (4 * SHORT_SIDE // 3, SHORT_SIDE), Image.Resampling.BOX
  )
  left, top = (4 * SHORT_SIDE // 3 - SIZE) // 2, (SHORT_SIDE - SIZE) // 2
  expected = np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)))
  difference = np.abs(batch['window'][0, 0].astype(int) - expected)
  assert difference.max() <= 1
  assert difference.mean() < 0.15  # Pillow rounds after each axis


@pytest.mark.parametrize('height, width', [(40, 72), (72, 40)])
def test_a_part_of_a_jpeg_has_the_pixels_of_the_whole(tmp_path, height, width):
  # Where the part begins and ends there is colour to interpolate.
  encoded = image_dataset.encode(
    image_dataset.textured(height, width), 'JPEG', quality=80, subsampling=2
  )
  source = open_files(tmp_path, {'a.jpg': encoded})
  (batch,) = evaluate(source, size=40, short_side=40, batch_size=1)
  expected = cut(
    decode(encoded), ((height - 40) // 2, (width - 40) // 2, 40, 40)
  )
  np.testing.assert_array_equal(batch['window'][0, 0], expected)


def test_a_plain_picture_keeps_its_grey_level(tmp_path):
  # The area resize is off by a thousandth: truncating would darken it.
  picture = np.full((317, 211, 3), 99, np.uint8)
  source = open_files(tmp_path, {'a.png': image_dataset.encode(picture)})
  (batch,) = evaluate(source, size=224, short_side=256, batch_size=1)
  assert np.all(batch['window'] == 99)


def test_epochs_visit_each_image_once(source):
  batches = train(source, 90)
  epochs = np.stack([batch['instance_index'] for batch in batches])
  epochs = epochs.reshape(30, 12)  # 13 images, batches of 4
  assert all(len(set(epoch)) == 12 for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 30
  left_out = {(set(range(13)) - set(epoch)).pop() for epoch in epochs}
  assert len(left_out) > 6


def test_a_batch_is_a_function_of_seed_and_step(tmp_path):
  files = {
    f'{number}.jpg': image_dataset.encode(
      image_dataset.textured(30, 40, number), 'JPEG'
    )
    for number in range(6)
  }
  source = open_files(tmp_path, files)
  batches = train(source, 7)
  assert_equal(batches, train(source, 7, num_threads=1))
  assert_equal(batches[5:], train(source, 2, start_step=5, num_threads=4))
  assert_equal(
    train(source, 1, start_step=10**7), train(source, 1, start_step=10**7)
  )
  other = train(source, 1, seed=6)[0]
  assert not np.array_equal(other['window'], batches[0]['window'])
  # An image is cropped anew at each visit.
  rows = join(batches)
  shown = rows['window'][rows['instance_index'] == 0]
  assert len(np.unique(shown.reshape(len(shown), -1), axis=0)) == len(shown) > 2


def test_a_late_step_starts_at_once(source):
  train(source, 1)
  begin = time.perf_counter()
  late = train(source, 1, start_step=10**7)
  assert time.perf_counter() - begin < 5
  assert_equal(late, train(source, 2, start_step=10**7 - 1)[1:])


def test_hosts_share_the_batch_of_a_single_host(source):
  for load in (
    lambda **host: train(source, 4, **host),
    lambda **host: evaluate(source, **host),
  ):
    shares = [load(host_index=host, host_count=2) for host in range(2)]
    joined = [join(parts) for parts in zip(*shares, strict=True)]
    assert_equal(joined, load())


def test_evaluation_takes_every_image_in_order(source):
  batches = evaluate(source)
  rows = join(batches)
  assert len(batches) == 4
  assert rows['instance_index'].tolist() == [*range(13), 12, 12, 12]
  assert rows['is_valid'].tolist() == [True] * 13 + [False] * 3
  assert rows['is_valid'].dtype == bool
  assert rows['clip_index'].tolist() == [0] * 16
  assert rows['clip_index'].dtype == np.int32
  assert rows['window'].shape == (16, 1, SIZE, SIZE, 3)
  assert rows['crop'].tolist() == [[0, 0, SIZE, SIZE]] * 16
  numbers = image_dataset.number_of(rows['window'][:, 0])
  assert numbers.tolist()[:13] == [*range(0, 13, 2), *range(1, 13, 2)]
  assert rows['label'].tolist()[:13] == [0] * 7 + [1] * 6
  assert_equal(batches[2:], evaluate(source, start_step=2))


def test_settings_that_do_not_fit_are_refused(source):
  with pytest.raises(ValueError, match=r'batch of 14 .* the 13 of .*lower the'):
    train(source, 1, batch_size=14)
  with pytest.raises(ValueError, match=r'batch of 4 clips .* by 3 hosts'):
    train(source, 1, host_count=3)
  with pytest.raises(ValueError, match='host 2 is not one of 2'):
    evaluate(source, host_index=2, host_count=2)
  with pytest.raises(ValueError, match='start_step must be at least 0'):
    train(source, 1, start_step=-1)
  with pytest.raises(ValueError, match='seed must be at least 0'):
    train(source, 1, seed=-1)
  with pytest.raises(ValueError, match=r'crop of 25 pixels .* side of 24'):
    evaluate(source, size=25)
  for load in (
    lambda: train(source, 1, size=0),
    lambda: evaluate(source, size=0),
  ):
    with pytest.raises(ValueError, match='size must be at least 1'):
      load()


def palette(picture):
  return Image.fromarray(picture).quantize(16)


def with_alpha(picture):
  alpha = np.full((*picture.shape[:2], 1), 90, np.uint8)
  return Image.fromarray(np.concatenate([picture, alpha], axis=2))


FILES = {
  'rgb.png': lambda picture: (picture, 'PNG'),
  'rgb.jpg': lambda picture: (picture, 'JPEG'),
  'rgb.bmp': lambda picture: (picture, 'BMP'),
  'grey.png': lambda picture: (Image.fromarray(picture).convert('L'), 'PNG'),
  'grey.jpg': lambda picture: (Image.fromarray(picture).convert('L'), 'JPEG'),
  'grey.bmp': lambda picture: (Image.fromarray(picture).convert('L'), 'BMP'),
  'grey_alpha.png': lambda picture: (with_alpha(picture).convert('LA'), 'PNG'),
  'alpha.png': lambda picture: (with_alpha(picture), 'PNG'),
  'alpha.bmp': lambda picture: (with_alpha(picture), 'BMP'),
  'palette.png': lambda picture: (palette(picture), 'PNG'),
  'palette.bmp': lambda picture: (palette(picture), 'BMP'),
  'palette.gif': lambda picture: (palette(picture), 'GIF'),
  'bits.png': lambda picture: (Image.fromarray(picture).convert('1'), 'PNG'),
  'cmyk.jpg': lambda picture: (
    Image.fromarray(picture).convert('CMYK'),
    'JPEG',
  ),
  'really_a_png.JPEG': lambda picture: (picture, 'PNG'),
}


def test_every_kind_of_file_gives_its_colours(tmp_path):
  picture = image_dataset.textured(SIZE, SIZE)
  files = {
    name: image_dataset.encode(*make(picture)) for name, make in FILES.items()
  }
  source = open_files(tmp_path, files)
  (batch,) = evaluate(source, short_side=SIZE, batch_size=len(files))
  for row, window in enumerate(batch['window']):
    expected = decode(files[source.names(row)])
    np.testing.assert_array_equal(window[0], expected, source.names(row))
  (batch,) = train(source, 1, batch_size=len(files))
  for row, index in enumerate(batch['instance_index']):
    area = drawn_area((SIZE, SIZE), seed=5, position=row)
    expected = area_means(cut(decode(files[source.names(index)]), area), SIZE)
    assert np.abs(batch['window'][row, 0] - expected).max() < 0.51


def test_sixteen_bits_become_eight(tmp_path):
  levels = image_dataset.textured(SIZE, SIZE)[..., 0].astype(np.uint16) * 257
  source = open_files(tmp_path, {'a.png': image_dataset.encode(levels)})
  (batch,) = evaluate(source, short_side=SIZE, batch_size=1)
  expected = np.repeat(levels[..., np.newaxis] // 257, 3, axis=2)
  np.testing.assert_array_equal(batch['window'][0, 0], expected)


def test_an_animation_gives_its_first_picture(tmp_path):
  pictures = [image_dataset.textured(SIZE, SIZE, seed) for seed in range(3)]
  frames = [palette(picture) for picture in pictures]
  encoded = image_dataset.encode(
    frames[0], 'GIF', save_all=True, append_images=frames[1:]
  )
  source = open_files(tmp_path, {'a.gif': encoded})
  (batch,) = evaluate(source, short_side=SIZE, batch_size=1)
  expected = np.asarray(frames[0].convert('RGB'))
  np.testing.assert_array_equal(batch['window'][0, 0], expected)


def test_tfds_images_come_with_their_labels(tmp_path):
  image_dataset.prepare(image_dataset.TinyPictures, tmp_path)
  with labelled_images.open_images(
    'tfds:tiny_pictures', 'train', data_dir=str(tmp_path)
  ) as source:
    rows = join(train(source, 5))
    numbers = image_dataset.number_of(rows['window'][:, 0])
    assert len(set(numbers.tolist())) == 20
    assert rows['label'].tolist() == (numbers % 3).tolist()
    for index, number in zip(rows['instance_index'], numbers, strict=True):
      assert source.read(index)[0] == image_dataset.plain(number)


def claim_png(width, height):
  """A PNG file of few bytes that says it has another size."""
  encoded = image_dataset.plain(0)
  header = encoded[12:16] + struct.pack('>II', width, height) + encoded[24:29]
  checksum = struct.pack('>I', zlib.crc32(header))
  return encoded[:12] + header + checksum + encoded[33:]


def claim_jpeg(width, height):
  encoded = image_dataset.encode(np.zeros((8, 8, 3), np.uint8), 'JPEG')
  place = encoded.index(b'\xff\xc0') + 5
  size = struct.pack('>HH', height, width)
  return encoded[:place] + size + encoded[place + 4 :]


def claim_gif(width, height):
  encoded = image_dataset.encode(palette(np.zeros((8, 8, 3), np.uint8)), 'GIF')
  return encoded[:6] + struct.pack('<HH', width, height) + encoded[10:]


JPEG = image_dataset.encode(image_dataset.textured(40, 50), 'JPEG')
PNG = image_dataset.encode(image_dataset.textured(40, 50))
GIF = image_dataset.encode(palette(image_dataset.textured(40, 50)), 'GIF')
BMP = image_dataset.encode(image_dataset.textured(40, 50), 'BMP')
TOO_LARGE = 'has more than 100 megapixels'


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize(
  'damaged, reason',
  [
    (claim_png(12_000, 9000), TOO_LARGE),
    (claim_png(30_000, 30_000), TOO_LARGE),
    (claim_jpeg(12_000, 9000), TOO_LARGE),
    (claim_jpeg(65_500, 65_500), TOO_LARGE),
    (claim_gif(65_500, 65_500), TOO_LARGE),
    (claim_png(4000, 3000), 'cannot be decoded'),
    (b'', 'is no JPEG, PNG, BMP or GIF'),
    (b'<html>not found</html>', 'is no JPEG, PNG, BMP or GIF'),
    (b'RIFF\x24\x00\x00\x00WEBPVP8 ', 'is no JPEG, PNG, BMP or GIF'),
    (JPEG[:3], 'is no JPEG, PNG, BMP or GIF'),
    (JPEG[:200], 'cannot be decoded'),
    (JPEG[: len(JPEG) // 2], 'cannot be decoded'),
    (PNG[:200], 'cannot be decoded'),
    (PNG[: len(PNG) // 2], 'cannot be decoded'),
    (GIF[: len(GIF) // 2], 'cannot be decoded'),
    (BMP[: len(BMP) // 2], 'cannot be decoded'),
  ],
)
def test_what_cannot_be_decoded_is_named(tmp_path, damaged, reason):
  files = {f'{number}.png': image_dataset.plain(number) for number in range(4)}
  source = open_files(tmp_path, {**files, 'sub/2.png': damaged})
  message = rf"'sub/2.png' of {tmp_path} {reason}.*\. Replace the file or"
  with image_pipeline.eval_batches(
    source, size=SIZE, short_side=SHORT_SIDE, batch_size=4
  ) as batches:
    assert next(batches)['instance_index'].tolist() == [0, 1, 2, 3]
    with pytest.raises(dataset_folder.DatasetError, match=message) as caught:
      next(batches)
  assert '\n' not in str(caught.value)


@pytest.fixture
def damaged_folder(tmp_path):
  """Nine images, of which three are damaged, each in another way."""
  files = {
    f'{number}.jpg': image_dataset.encode(
      image_dataset.textured(30, 40, number), 'JPEG'
    )
    for number in range(9)
  }
  files['0.jpg'] = claim_png(30_000, 30_000)
  files['4.jpg'] = files['4.jpg'][:300]
  files['8.jpg'] = b'<html>not found</html>'
  source = open_files(tmp_path, files)
  (tmp_path / '5.jpg').unlink()
  return source


def test_a_damaged_training_image_is_replaced_by_its_neighbour(
  damaged_folder, caplog
):
  damage = bad_frames.BadFrames(1.0)
  batches = train(damaged_folder, 6, damage=damage)
  rows = join(batches)
  bad = np.isin(rows['instance_index'], [0, 4, 5, 8])
  assert rows['bad_frames'].tolist() == bad.tolist()
  assert rows['bad_frames'].dtype == np.int32
  for position in np.flatnonzero(bad):
    index = rows['instance_index'][position]
    shown = decode(damaged_folder.read({0: 1, 4: 3, 5: 6, 8: 7}[index])[0])
    area = drawn_area(shown.shape[:2], seed=5, position=position)
    expected = area_means(cut(shown, area), SIZE)
    assert np.abs(rows['window'][position, 0] - expected).max() < 0.51
  assert damage.num_bad == bad.sum() > 5
  named = [line for line in caplog.messages if 'stands for it' in line]
  assert len(named) == 4
  assert_equal(batches, train(damaged_folder, 6, damage=damage, num_threads=1))
  later = train(damaged_folder, 3, damage=damage, start_step=3)
  assert_equal(batches[3:], later)
  caplog.clear()
  message = r'of \d+ frames are damaged, .*max_bad_share .*Replace the file'
  with pytest.raises(dataset_folder.DatasetError, match=message):
    train(damaged_folder, 6)


def test_a_test_leaves_out_damaged_images(damaged_folder):
  damage = bad_frames.BadFrames(1.0)
  for _ in range(2):
    batches = evaluate(damaged_folder, leaves_out=True, damage=damage)
  rows = join(batches)
  assert rows['is_valid'].tolist() == (
    [False, True, True, True, False, False, True, True, False] + [False] * 3
  )
  assert rows['bad_frames'].sum() == sum(damage.clips['val'].values()) == 4
  with pytest.raises(dataset_folder.DatasetError, match=r'4 of \d frames are'):
    evaluate(damaged_folder, leaves_out=True, damage=bad_frames.BadFrames(0.4))


def test_images_that_are_all_damaged_stop(tmp_path):
  source = open_files(tmp_path, {f'{n}.jpg': JPEG[:300] for n in range(3)})
  with pytest.raises(
    dataset_folder.DatasetError, match=r"'\d.jpg' of .* None of"
  ):
    train(source, 1, batch_size=2)


def test_a_damaged_record_is_named(tmp_path):
  builder = image_dataset.prepare(image_dataset.TinyPictures, tmp_path)
  (shard,) = tmp_path.rglob('*train*00001-of-00003')
  example = tf.train.Example()
  example.features.feature['picture'].bytes_list.value.append(PNG[:99])
  example.features.feature['kind'].int64_list.value.append(1)
  with tf.io.TFRecordWriter(str(shard)) as writer:
    for _ in range(7):
      writer.write(example.SerializeToString())
  with labelled_images.open_images(
    f'tfds:{builder.name}', 'train', data_dir=str(tmp_path)
  ) as source:
    message = rf"'{shard.name}__0' of split train of .* Prepare the data set"
    with pytest.raises(dataset_folder.DatasetError, match=message):
      evaluate(source)


def test_batches_end_with_their_with_statement(source):
  with image_pipeline.train_batches(
    source, size=SIZE, batch_size=4, seed=0
  ) as batches:
    next(batches)
  with pytest.raises(RuntimeError, match='inside the with-statement'):
    next(batches)
