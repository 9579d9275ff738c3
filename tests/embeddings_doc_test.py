"""The lines of docs/embeddings.md, run on what `--mode=embed` writes."""

import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pyarrow.parquet
import pytest
import tiny_run

from vie_jax import embed, export, train
from vie_jax.embeddings import embedding_files
from vie_jax.input_pipeline import image_pipeline

PAGE = (tiny_run.REPOSITORY / 'docs' / 'embeddings.md').read_text()


def blocks(heading):
  """The Python of the section under a heading."""
  section = PAGE.split(f'\n## {heading}\n')[1].split('\n## ')[0]
  return re.findall(r'```python\n(.*?)```', section, flags=re.DOTALL)


class IndexFlatIP:
  """The search that FAISS does, with its demands on arrays, in NumPy."""

  def __init__(self, size):
    assert isinstance(size, int)
    self.vectors = np.empty((0, size), np.float32)

  def add(self, vectors):
    self._check(vectors)
    self.vectors = np.concatenate([self.vectors, vectors])

  def search(self, queries, count):
    self._check(queries)
    products = queries @ self.vectors.T
    row = np.argsort(-products, axis=1, kind='stable')[:, :count]
    return np.take_along_axis(products, row, axis=1), row

  def _check(self, vectors):
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert vectors.shape[1:] == self.vectors.shape[1:]


@pytest.fixture
def faiss(monkeypatch):
  """FAISS, or the same search where it is not installed."""
  try:
    import faiss
  except ImportError:
    faiss = types.ModuleType('faiss')
    faiss.IndexFlatIP = IndexFlatIP
    monkeypatch.setitem(sys.modules, 'faiss', faiss)
  return faiss


@pytest.fixture(scope='module')
def workdir(demo_dataset, tmp_path_factory):
  folder = tmp_path_factory.mktemp('documented')
  embed.embed(
    tiny_run.config(
      demo_dataset,
      init_from='random',
      embed__batch_size=32,
      result_name='NAME',
    ),
    str(folder / 'W'),
  )
  return folder / 'W'


def test_the_faiss_example_finds_the_nearest_rows(workdir, monkeypatch, faiss):
  (block,) = blocks('Searching them')
  lines = block.split('vectors = ', 1)[1].strip().split('\n')[1:]
  assert len(lines) == 3
  assert all('index' in line for line in lines)
  monkeypatch.chdir(workdir.parent)
  names = {}
  exec(block, names)  # noqa: S102  # of our own document
  vectors = np.load(workdir / 'embed' / 'NAME' / 'embeddings.npy')
  assert names['row'].shape == names['similarity'].shape == (5, 4)
  for query in range(5):
    products = [float(np.dot(vectors[query], v)) for v in vectors]
    best = sorted(range(len(products)), key=lambda i: -products[i])[:4]
    assert best[0] == query
    np.testing.assert_allclose(
      names['similarity'][query], [products[i] for i in best], atol=1e-5
    )
    for row, expected in zip(names['row'][query], best, strict=True):
      assert products[row] == pytest.approx(products[expected], abs=1e-5)


def test_the_script_embeds_as_the_mode_does(
  demo_dataset, tmp_path, monkeypatch
):
  config = tiny_run.config(
    demo_dataset, num_steps=1, embed__clips=str(tmp_path / 'clips.npz')
  )
  shape = (3, 1, config.crop.size, config.crop.size, 3)
  clips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  np.savez(tmp_path / 'clips.npz', clips=clips)
  train.train_and_evaluate(config, str(tmp_path / 'W'))
  embed.embed(config, str(tmp_path / 'W'))
  (block,) = blocks('In a script of your own')
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(block, names)  # noqa: S102  # of our own document
  (file,) = tmp_path.glob('W/embed/*/embeddings.npy')
  np.testing.assert_allclose(names['embed'](clips), np.load(file), atol=1e-6)
  assert names['vectors'].shape == (2, 128)


@pytest.mark.skipif(not shutil.which('ffmpeg'), reason='needs FFmpeg')
@pytest.mark.parametrize('changes', ['', '-vf crop=48:64 -t 0.4'])
def test_the_file_of_a_network_embeds_a_video_as_the_mode_does(
  demo_dataset, tmp_path, monkeypatch, changes
):
  """Wide; tall, and so short that the clip begins anew."""
  (tmp_path / 'V').mkdir()
  video = tmp_path / 'V' / 'video.mp4'
  source = min((demo_dataset.parent / 'demo-videos').glob('*.mp4'))
  ffmpeg = ['ffmpeg', '-v', 'error', '-i', source, *changes.split(), video]
  subprocess.run(ffmpeg, check=True)
  config = tiny_run.config(
    'nowhere',
    'vie_slowfast',
    init_from='random',
    embed__source=str(video),
    clip__num_eval_clips=1,
    result_name='vie_slowfast',
  )
  export.export(config, str(tmp_path / 'W'))
  expected = embed.embed(config, str(tmp_path / 'W'))
  load, encode = blocks('The network as one file')
  code = load + encode
  for of_the_page, of_this_test in (
    ('(2, 16,', '(2, 8,'),
    ('224', '32'),
    ('256', '36'),
    ('- 64)', '- 16)'),
    ('4 * numpy.arange(16)', '2 * numpy.arange(8)'),
  ):
    assert of_the_page in code
    code = code.replace(of_the_page, of_this_test)
  monkeypatch.chdir(tmp_path / 'V')
  (tmp_path / 'V' / 'W').symlink_to(tmp_path / 'W')
  names = {}
  exec(code, names)  # noqa: S102  # of our own document
  assert names['vectors'].shape == (1, 128)
  # A clip one frame later has 0.974 at most.
  assert np.sum(names['vectors'] * expected) > 0.985


def first_cells(heading, column):
  """First cells of the table with this column head, under a heading."""
  section = PAGE.split(f'## {heading}\n')[1].split('\n## ')[0]
  (table,) = [t for t in section.split('\n\n') if t.startswith(f'| {column} |')]
  return [
    re.match(r'\| `([^`]+)`', line)[1] for line in table.split('\n')[2:] if line
  ]


def test_the_page_names_the_files_and_columns_that_there_are(workdir):
  folder = workdir / 'embed' / 'NAME'
  names = {f'{p.name}/' if p.is_dir() else p.name for p in folder.iterdir()}
  assert set(first_cells('The files', 'file')) == names
  table = pyarrow.parquet.read_table(folder / 'embeddings.parquet')
  columns = first_cells('The files', 'column of the Parquet file')
  labels = ['label_appearance', 'label_motion']
  position = columns.index('label_<column>')
  columns[position : position + 1] = labels
  assert table.column_names == columns


def test_the_numbers_of_the_page_are_those_of_the_code():
  assert f'up to {embedding_files.MAX_POINTS:,} rows' in PAGE
  millions = embedding_files._MAX_NUMBERS // 10**6
  assert f'{millions} million numbers' in PAGE
  assert f'some {embedding_files._BLOCK_BYTES // 2**20} MB' in PAGE
  assert ', '.join(image_pipeline._FORMATS) in PAGE
