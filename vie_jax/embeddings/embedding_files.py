"""The files that embeddings are handed on in, docs/embeddings.md has more.

  embeddings.ids.txt   the id of each row of embeddings.npy
  embeddings.parquet   the same rows with what is known of them
  projector/           what TensorBoard's embedding projector reads

All are made of embeddings.npy, a block of rows at a time.
"""

import io
import math
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow
import pyarrow.parquet
from absl import logging
from PIL import Image, ImageOps

from vie_jax.embeddings.embed_sources import Item
from vie_jax.evaluation import row_file
from vie_jax.files import disk

IDS_FILE = 'embeddings.ids.txt'
PARQUET_FILE = 'embeddings.parquet'
PROJECTOR_FOLDER = 'projector'
# What a browser can hold: points, and numbers in all.
MAX_POINTS = 10_000
_MAX_NUMBERS = 5_000_000
# Pixels: of one picture, and of the side of all of them together.
_PICTURE, _SPRITE = 64, 5000
_BLOCK_BYTES = 2**25


def write(
  array: pathlib.Path,
  items: Sequence[Item],
  *,
  label_columns: Sequence[str],
  num_clips: int | None,
  picture: Callable[[int], bytes],
) -> None:
  """Writes everything that belongs beside an array of embeddings.

  Args:
    array: path of embeddings.npy: a row for each item, or for each clip.
    items: in the order of the rows.
    label_columns: that items may have.
    num_clips: G, if the clips of an item have rows of their own; else None.
    picture: number of an item -> encoded picture of it.
  """
  folder = array.parent
  with disk.replacing(folder / IDS_FILE) as fresh:
    _write_ids(fresh, items, num_clips)
  with disk.replacing(folder / PARQUET_FILE) as fresh:
    _write_parquet(fresh, array, items, label_columns, num_clips)
  projector = folder / PROJECTOR_FOLDER
  projector.mkdir(exist_ok=True)
  with disk.naming(projector):
    _write_projector(projector, array, items, label_columns, num_clips, picture)


def _write_ids(path, items, num_clips):
  with path.open('w', encoding='utf-8', newline='\n') as file:
    for item in items:
      for clip in range(num_clips or 1):
        file.write(item.id + (f'\t{clip}' if num_clips else '') + '\n')


def _write_parquet(path, array, items, label_columns, num_clips):
  size = np.load(array, mmap_mode='r', allow_pickle=False).shape[1]
  text = pyarrow.string()
  labels = [f'label_{column}' for column in label_columns]
  schema = pyarrow.schema(
    [
      ('id', text),
      ('path', text),
      ('split', text),
      ('clip', pyarrow.int32()),
      ('num_frames', pyarrow.int32()),
      ('duration_seconds', pyarrow.float64()),
      *((label, text) for label in labels),
      ('embedding', pyarrow.list_(pyarrow.float32(), size)),
    ]
  )
  row = 0
  with pyarrow.parquet.ParquetWriter(
    path,
    schema,
    # Embeddings hardly repeat, all else does.
    use_dictionary=['split', *labels],
  ) as writer:
    for block in row_file.read_blocks(array, block_bytes=_BLOCK_BYTES):
      rows = range(row, row + len(block))
      row += len(block)
      columns = _columns(rows, items, label_columns, num_clips)
      vectors = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(block.reshape(-1)), size
      )
      arrays = [
        pyarrow.array(values, schema.field(name).type)
        for name, values in columns.items()
      ]
      writer.write_batch(
        pyarrow.record_batch([*arrays, vectors], schema=schema)
      )


def _columns(rows, items, label_columns, num_clips):
  """What is known of some rows, by the name of its column."""
  chosen = [items[row // (num_clips or 1)] for row in rows]
  return {
    'id': [item.id for item in chosen],
    'path': [item.path for item in chosen],
    'split': [item.split for item in chosen],
    'clip': [row % num_clips if num_clips else None for row in rows],
    'num_frames': [item.num_frames for item in chosen],
    'duration_seconds': [item.duration_seconds for item in chosen],
    **{
      f'label_{column}': [item.labels.get(column) for item in chosen]
      for column in label_columns
    },
  }


def _write_projector(folder, array, items, label_columns, num_clips, picture):
  """Writes evenly spread rows for TensorBoard's projector."""
  num_rows, size = np.load(array, mmap_mode='r', allow_pickle=False).shape
  count = min(num_rows, MAX_POINTS, max(1, _MAX_NUMBERS // size))
  rows = np.arange(count) * num_rows // count
  _write_tensors(folder / 'tensors.tsv', array, rows)
  columns = _columns(rows.tolist(), items, label_columns, num_clips)
  _write_metadata(folder / 'metadata.tsv', columns)
  side = math.ceil(math.sqrt(count))
  pixels = min(_PICTURE, _SPRITE // side)
  sprite = Image.new('RGB', (side * pixels, -(-count // side) * pixels))
  for point, row in enumerate(rows.tolist()):
    number = row // (num_clips or 1)
    square = _square(picture(number), pixels, items[number].path)
    y, x = divmod(point, side)
    sprite.paste(square, (x * pixels, y * pixels))
  sprite.save(folder / 'sprite.jpg', quality=85)
  # Last: without it the projector shows nothing.
  (folder / 'projector_config.pbtxt').write_text(
    'embeddings {\n'
    '  tensor_name: "embeddings"\n'
    f'  tensor_shape: {count}\n'
    f'  tensor_shape: {size}\n'
    '  tensor_path: "tensors.tsv"\n'
    '  metadata_path: "metadata.tsv"\n'
    '  sprite {\n'
    '    image_path: "sprite.jpg"\n'
    f'    single_image_dim: {pixels}\n'
    f'    single_image_dim: {pixels}\n'
    '  }\n'
    '}\n'
  )


def _write_tensors(path, array, rows):
  """Writes some rows, given in rising order, as text."""
  start = 0
  with path.open('w') as file:
    for block in row_file.read_blocks(array, block_bytes=_BLOCK_BYTES):
      here = rows[(rows >= start) & (rows < start + len(block))]
      for vector in block[here - start]:
        file.write('\t'.join(f'{x:.7g}' for x in vector) + '\n')
      start += len(block)


def _write_metadata(path, columns):
  """Writes a line for each point, without what would break a line."""
  with path.open('w', encoding='utf-8', newline='\n') as file:
    for values in [columns, *zip(*columns.values(), strict=True)]:
      cells = ('' if value is None else str(value) for value in values)
      file.write('\t'.join(' '.join(cell.split()) for cell in cells) + '\n')


def _square(encoded, pixels, path):
  """The middle of an encoded picture, so many pixels wide and high.

  A damaged picture is grey here: the network may have seen its sound part.
  """
  size = (pixels, pixels)
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      image.draft('RGB', size)
      return ImageOps.fit(image.convert('RGB'), size)
  except (OSError, ValueError, Image.DecompressionBombError) as error:
    logging.warning('%s has no thumbnail, it is damaged: %s', path, error)
    return Image.new('RGB', size, (128, 128, 128))
