"""Files of vectors that another encoder made, good and bad."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from vie_jax.embeddings import foreign_embeddings

VIDEOS = [(f'{i:016x}', f'class {i % 3}/video {i}.mp4') for i in range(20)]
SIZE = 7
VECTORS = np.random.default_rng(0).standard_normal((20, SIZE)) * 40
UNIT = np.stack([v / np.sqrt((v * v).sum()) for v in VECTORS])
FORMATS = ('npy', 'parquet')


def write(folder, kind, names, vectors, *, clips=None, key='id', ids_text=None):
  """Writes vectors in one of the two formats; returns the path."""
  path = folder / f'vectors.{kind}'
  if kind == 'npy':
    np.save(path, vectors)
    lines = names
    if clips is not None:
      lines = [f'{n}\t{c}' for n, c in zip(names, clips, strict=True)]
    text = '\n'.join(lines) + '\n' if ids_text is None else ids_text
    (folder / 'vectors.ids.txt').write_text(text)
    return path
  columns = {key: names, 'embedding': list(vectors)}
  if clips is not None:
    columns['clip'] = clips
  pyarrow.parquet.write_table(pyarrow.table(columns), path)
  return path


def ids():
  return [name for name, _ in VIDEOS]


def error_of(path, videos=VIDEOS):
  with pytest.raises(foreign_embeddings.EmbeddingsError) as error:
    foreign_embeddings.read(path, videos)
  message = str(error.value)
  assert '\n' not in message
  assert 'config.embeddings' in message
  return message


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize('by', ['id', 'path'])
def test_vectors_go_to_their_videos_in_any_order(tmp_path, kind, by, dtype):
  order = np.random.default_rng(1).permutation(20)
  names = [VIDEOS[i][by == 'path'] for i in order]
  path = write(tmp_path, kind, names, VECTORS[order].astype(dtype), key=by)
  found, num_extra = foreign_embeddings.read(path, VIDEOS)
  assert num_extra == 0
  assert found.dtype == np.float32
  atol = 2e-3 if dtype == 'float16' else 1e-6
  np.testing.assert_allclose(found, UNIT[:, None], atol=atol)


@pytest.mark.parametrize('kind', FORMATS)
def test_vectors_of_other_videos_are_counted_and_need_not_be_sound(
  tmp_path, kind
):
  vectors = VECTORS.astype(np.float32)
  vectors[3] = np.nan
  vectors[4] = 0
  videos = [*VIDEOS[5:9], *VIDEOS[15:]]
  found, num_extra = foreign_embeddings.read(
    write(tmp_path, kind, ids(), vectors), videos
  )
  assert num_extra == 11
  np.testing.assert_allclose(found[:4, 0], UNIT[5:9], atol=1e-6)
  np.testing.assert_allclose(found[4:, 0], UNIT[15:], atol=1e-6)


@pytest.mark.parametrize('kind', FORMATS)
def test_more_rows_than_are_read_at_a_time(tmp_path, kind):
  count = 2 * foreign_embeddings._ROWS_AT_A_TIME + 5
  vectors = np.random.default_rng(2).standard_normal((count, 3))
  names = [f'{i}' for i in range(count)]
  videos = [(name, 'x') for name in reversed(names)]
  found, _ = foreign_embeddings.read(
    write(tmp_path, kind, names, vectors), videos
  )
  for row in (0, 5, count // 2, count - 1):
    vector = vectors[count - 1 - row]
    np.testing.assert_allclose(
      found[row, 0], vector / np.linalg.norm(vector), atol=1e-6
    )


@pytest.mark.parametrize('kind', FORMATS)
def test_numbered_clips_stay_clips(tmp_path, kind):
  clips = [i % 4 for i in range(20)]
  names = [VIDEOS[i // 4][0] for i in range(20)]
  order = np.random.default_rng(3).permutation(20)
  path = write(
    tmp_path,
    kind,
    [names[i] for i in order],
    VECTORS[order],
    clips=[clips[i] for i in order],
  )
  found, _ = foreign_embeddings.read(path, VIDEOS[:5])
  np.testing.assert_allclose(found, UNIT.reshape(5, 4, SIZE), atol=1e-6)


@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize(
  'clips', [[0, 1, 0, 2], [0, 1, 0, 0], [1, 2, 1, 2], [0, 1, 0, 1, 2]]
)
def test_clips_that_do_not_fit_together_are_refused(tmp_path, kind, clips):
  names = [VIDEOS[i][0] for i in (0, 0, 1, 1, 1)][: len(clips)]
  path = write(tmp_path, kind, names, VECTORS[: len(clips)], clips=clips)
  message = error_of(path, VIDEOS[:2])
  if clips == [0, 1, 0, 0]:
    assert f'{VIDEOS[1][0]} or {VIDEOS[1][1]}, clip 0, comes twice' in message
  else:
    assert 'the same clips' in message


@pytest.mark.parametrize('clips', [[0.6, 1.6], [float('inf'), 0.0]])
def test_clips_are_whole_numbers(tmp_path, clips):
  names = [VIDEOS[0][0]] * 2
  path = write(tmp_path, 'parquet', names, VECTORS[:2], clips=clips)
  assert 'column clip has no whole numbers' in error_of(path, VIDEOS[:1])


@pytest.mark.parametrize('kind', FORMATS)
def test_missing_videos_are_named(tmp_path, kind):
  message = error_of(write(tmp_path, kind, ids()[:13], VECTORS[:13]))
  assert '7 of 20 videos have no vector' in message
  assert VIDEOS[13][0] in message
  assert VIDEOS[13][1] in message
  assert VIDEOS[19][0] not in message
  assert 'and so on' in message


@pytest.mark.parametrize('kind', FORMATS)
def test_a_video_that_comes_twice_is_named(tmp_path, kind):
  # Once by its id, once by its path: the same video all the same.
  names = [*ids(), VIDEOS[4][1]]
  message = error_of(
    write(tmp_path, kind, names, np.concatenate([VECTORS, VECTORS[:1]]))
  )
  assert f'{VIDEOS[4][0]} or {VIDEOS[4][1]} comes twice' in message


@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize(
  'value,words', [(np.nan, 'finite'), (np.inf, 'finite'), (0, 'zero')]
)
def test_vectors_without_a_direction_are_named(tmp_path, kind, value, words):
  vectors = VECTORS.astype(np.float32)
  vectors[6] = value
  message = error_of(write(tmp_path, kind, ids(), vectors))
  assert f'the vector of {VIDEOS[6][0]} is' in message
  assert words in message


@pytest.mark.parametrize('scale', [1e-300, 1e300])
def test_tiny_and_huge_vectors_have_a_direction(tmp_path, scale):
  found, _ = foreign_embeddings.read(
    write(tmp_path, 'npy', ids(), VECTORS * scale), VIDEOS
  )
  np.testing.assert_allclose(found[:, 0], UNIT, atol=1e-6)


def test_vectors_of_several_lengths_are_refused(tmp_path):
  vectors = [*VECTORS[:19], VECTORS[19][:5]]
  message = error_of(write(tmp_path, 'parquet', ids(), vectors))
  assert 'vectors of 5 and of 7 dimensions' in message
  # Also where they are not read together.
  path = tmp_path / 'vectors.parquet'
  pyarrow.parquet.write_table(
    pyarrow.table({'id': ids(), 'embedding': vectors}),
    path,
    row_group_size=19,
  )
  batches = pyarrow.parquet.ParquetFile(path).num_row_groups
  assert batches == 2
  assert 'dimensions' in error_of(path)


@pytest.mark.parametrize(
  'array',
  [
    VECTORS.astype(np.int32),
    VECTORS.astype(np.complex64),
    VECTORS[:, 0],
    VECTORS[:, None],
    np.zeros((0, 7)),
    np.array(['a'] * 20),
  ],
  ids=lambda array: f'{array.dtype}{list(array.shape)}',
)
def test_arrays_of_another_kind_are_refused(tmp_path, array):
  message = error_of(write(tmp_path, 'npy', ids(), array))
  assert str(array.dtype) in message
  assert '[n, D]' in message


def test_pickles_are_not_read(tmp_path):
  message = error_of(write(tmp_path, 'npy', ids(), np.array([None] * 20)))
  assert 'cannot be read' in message


@pytest.mark.parametrize(
  'column,words',
  [
    (['a'] * 20, 'string'),
    (list(range(20)), 'int64'),
    ([[1, 2]] * 20, 'list'),
    ([[0.5, None]] * 20, 'empty cells'),
    ([[0.5, 1.0]] * 19 + [None], 'empty cells'),
    ([[0.5, 1.0]] * 19 + [[]], 'of 0 and of 2'),
  ],
)
def test_columns_of_another_kind_are_refused(tmp_path, column, words):
  path = tmp_path / 'vectors.parquet'
  pyarrow.parquet.write_table(
    pyarrow.table({'id': ids(), 'embedding': column}), path
  )
  assert words in error_of(path)


@pytest.mark.parametrize('missing', ['id', 'embedding'])
def test_missing_columns_are_named(tmp_path, missing):
  columns = {'id': ids(), 'embedding': list(VECTORS)}
  columns['other'] = columns.pop(missing)
  path = tmp_path / 'vectors.parquet'
  pyarrow.parquet.write_table(pyarrow.table(columns), path)
  message = error_of(path)
  assert 'needed are id or path, and embedding' in message
  assert 'other' in message


def test_ids_that_do_not_fit_the_array_are_refused(tmp_path):
  path = write(tmp_path, 'npy', ids()[:-1], VECTORS)
  assert '19 lines' in error_of(path)
  (tmp_path / 'vectors.ids.txt').write_bytes(b'\xff\xfe')
  assert 'vectors.ids.txt' in error_of(path)
  (tmp_path / 'vectors.ids.txt').unlink()
  assert 'vectors.ids.txt' in error_of(path)


def test_ids_may_come_from_another_system(tmp_path):
  text = '\r\n'.join(ids())
  path = write(tmp_path, 'npy', ids(), VECTORS, ids_text=text)
  found, _ = foreign_embeddings.read(path, VIDEOS)
  np.testing.assert_allclose(found, UNIT[:, None], atol=1e-6)


@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize('damage', ['cut', 'other'])
def test_damaged_files_are_named(tmp_path, kind, damage):
  path = write(tmp_path, kind, ids(), VECTORS)
  content = path.read_bytes()
  path.write_bytes(content[:-300] if damage == 'cut' else b'not at all')
  message = error_of(path)
  assert str(path) in message
  assert 'cannot be read' in message


def test_no_file_and_files_of_another_kind_are_named(tmp_path):
  assert 'There is no file' in error_of(tmp_path / 'none.npy')
  assert 'There is no file' in error_of(tmp_path)
  (tmp_path / 'vectors.csv').write_text('1,2')
  assert 'neither a .parquet nor an .npy' in error_of(tmp_path / 'vectors.csv')
