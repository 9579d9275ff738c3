"""What is written beside embeddings, read by those who read it."""

import io
import json

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector import projector_plugin
from werkzeug import test as werkzeug_test

from vie_jax.embeddings import embedding_files
from vie_jax.embeddings.embed_sources import Item

SIZE = 5
NUM_ITEMS = 30
# What would break a line, a cell or a quotation.
ODD = 'tab\there\r\nand "quotes" \u2028 ünï'


def color_of(number):
  return (8 * number, 255 - 8 * number, 40)


def picture(number):
  data = io.BytesIO()
  kind = ('JPEG', 'PNG')[number % 2]
  Image.new('RGB', (40, 30), color_of(number)).save(data, kind)
  return data.getvalue()


def items(count=NUM_ITEMS):
  return [
    Item(
      id=f'{number:04x}',
      path=f'{ODD}{number}.mp4',
      split='train' if number < 20 else 'val',
      num_frames=10 + number,
      duration_seconds=None if number % 5 == 0 else number / 25,
      labels={} if number % 3 == 0 else {'motion': f'{ODD}{number % 2}'},
    )
    for number in range(count)
  ]


def write(folder, *, num_clips=None, count=NUM_ITEMS):
  rows = np.random.default_rng(0).standard_normal(
    (count * (num_clips or 1), SIZE)
  )
  np.save(folder / 'embeddings.npy', rows.astype(np.float32))
  embedding_files.write(
    folder / 'embeddings.npy',
    items(count),
    label_columns=['motion'],
    num_clips=num_clips,
    picture=picture,
  )
  return rows.astype(np.float32)


@pytest.mark.parametrize('num_clips', [None, 3])
@pytest.mark.parametrize('block_rows', [1, 7, 1000])
def test_parquet_has_every_row_however_it_is_cut(
  tmp_path, monkeypatch, num_clips, block_rows
):
  monkeypatch.setattr(embedding_files, '_BLOCK_BYTES', block_rows * 4 * SIZE)
  rows = write(tmp_path, num_clips=num_clips)
  file = pyarrow.parquet.ParquetFile(tmp_path / 'embeddings.parquet')
  assert file.num_row_groups == -(-len(rows) // block_rows)
  table = file.read()
  assert str(table.schema.field('embedding').type).startswith(
    'fixed_size_list<'
  )
  np.testing.assert_array_equal(np.stack(table['embedding'].to_numpy()), rows)
  per_item = num_clips or 1
  for row, values in enumerate(table.drop('embedding').to_pylist()):
    item = items()[row // per_item]
    assert values == {
      'id': item.id,
      'path': item.path,
      'split': item.split,
      'clip': row % per_item if num_clips else None,
      'num_frames': item.num_frames,
      'duration_seconds': item.duration_seconds,
      'label_motion': item.labels.get('motion'),
    }


def serve(folder):
  """Function from a route and its arguments to TensorBoard's answer."""
  plugin = projector_plugin.ProjectorPlugin(
    base_plugin.TBContext(logdir=str(folder))
  )
  apps = plugin.get_plugin_apps()

  def get(route, **arguments):
    client = werkzeug_test.Client(apps[route])
    answer = client.get('/', query_string={'run': '.', **arguments})
    assert answer.status_code == 200, answer.data
    return answer.data

  return get


def test_the_projector_shows_every_point_with_its_picture(tmp_path):
  rows = write(tmp_path)
  get = serve(tmp_path / 'projector')
  assert json.loads(get('/runs')) == ['.']
  (info,) = json.loads(get('/info'))['embeddings']
  name = info['tensorName']
  assert info['tensorShape'] == [NUM_ITEMS, SIZE]
  found = np.frombuffer(get('/tensor', name=name), np.float32)
  np.testing.assert_allclose(found.reshape(rows.shape), rows, rtol=1e-6)
  lines = get('/metadata', name=name).decode().split('\n')
  assert lines.pop() == ''
  assert len(lines) == NUM_ITEMS + 1
  assert {line.count('\t') for line in lines} == {lines[0].count('\t')}
  assert lines[1].startswith('0000\ttab here and "quotes"')
  sprite = Image.open(io.BytesIO(get('/sprite_image', name=name)))
  width, height = info['sprite']['singleImageDim']
  columns = sprite.width // width
  assert columns**2 >= NUM_ITEMS
  for number in range(NUM_ITEMS):
    y, x = divmod(number, columns)
    pixel = sprite.getpixel((x * width + width // 2, y * height + height // 2))
    np.testing.assert_allclose(pixel, color_of(number), atol=12)


@pytest.mark.parametrize('limit', ['points', 'numbers'])
def test_a_large_set_is_shown_in_part(tmp_path, monkeypatch, limit):
  if limit == 'points':
    monkeypatch.setattr(embedding_files, 'MAX_POINTS', 7)
  else:
    monkeypatch.setattr(embedding_files, '_MAX_NUMBERS', 7 * SIZE + 1)
  rows = write(tmp_path, num_clips=2)
  get = serve(tmp_path / 'projector')
  (info,) = json.loads(get('/info'))['embeddings']
  assert info['tensorShape'] == [7, SIZE]
  found = np.frombuffer(get('/tensor', name=info['tensorName']), np.float32)
  # Evenly spread over the rows, each with its own metadata.
  chosen = [0, 8, 17, 25, 34, 42, 51]
  np.testing.assert_allclose(found.reshape(7, SIZE), rows[chosen], rtol=1e-6)
  lines = get('/metadata', name=info['tensorName']).decode().split('\n')
  assert [line.split('\t')[0] for line in lines[1:8]] == [
    f'{row // 2:04x}' for row in chosen
  ]


def test_a_single_point_is_shown(tmp_path):
  write(tmp_path, count=1)
  (info,) = json.loads(serve(tmp_path / 'projector')('/info'))['embeddings']
  assert info['tensorShape'] == [1, SIZE]


def test_files_are_replaced_and_nothing_else_is_left(tmp_path):
  for _ in range(2):
    write(tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'embeddings.ids.txt',
    'embeddings.npy',
    'embeddings.parquet',
    'projector',
  ]
