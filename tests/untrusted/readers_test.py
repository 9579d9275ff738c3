"""Hostile files, given to every reader of files that come from elsewhere."""

import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys
import weakref

import fake_results
import hostile_files
import hostile_tars
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hostile_files import check_refused

from vie_jax.embeddings import clip_files, foreign_embeddings
from vie_jax.evaluation import (
  filled_tables,
  found_results,
  paper_tables,
  report,
)
from vie_jax.input_pipeline import dataset_folder, frame_store
from vie_jax.models import official_checkpoint, official_files
from vie_jax.results import findings, result
from vie_jax.telemetry import metrics_file
from vie_jax.untrusted import arrays, tables

VIDEOS = [(f'id{number}', f'{number}.mp4') for number in range(4)]


@pytest.fixture
def mark(tmp_path):
  """The file that code in a payload would make; nobody may."""
  path = tmp_path / 'code_ran'
  yield path
  assert not path.exists()


def test_the_payload_runs_where_pickles_are_loaded(tmp_path):
  path, mark = tmp_path / 'x.pkl', tmp_path / 'code_ran'
  path.write_bytes(hostile_files.pickle_that_writes(mark))
  subprocess.run([sys.executable, '-m', 'pickle', str(path)], check=False)
  assert mark.exists()


def test_clips_for_embedding(tmp_path, mark):
  for _, path in hostile_files.hostile_npz(tmp_path, clip_files.ARRAY, mark):
    check_refused(
      lambda path=path: clip_files.read_clips(path), clip_files.ClipsError, path
    )


def test_official_arrays(tmp_path, mark):
  error = official_checkpoint.OfficialCheckpointError
  for _, path in hostile_files.hostile_npz(tmp_path, 'conv/kernel', mark):
    check_refused(lambda path=path: official_files.read(path), error, path)


def test_findings_of_another_network(tmp_path, mark, demo_dataset):
  with (
    frame_store.FrameStore.open(demo_dataset, 'train') as train,
    frame_store.FrameStore.open(demo_dataset, 'val') as val,
  ):

    def read(folder):
      findings.read_beside(str(folder), train, val, mode='retrieve', name='x')

    (tmp_path / 'cases').mkdir()
    cases = list(
      hostile_files.hostile_npz(tmp_path / 'cases', 'fingerprint', mark)
    )
    for kind, path in cases:
      folder = tmp_path / kind.replace(' ', '_')
      result.write(folder, {'mode': 'retrieve', 'heading': 'h', 'dataset': {}})
      path.rename(folder / findings.FILE)
      check_refused(
        lambda folder=folder: read(folder), result.ResultError, findings.FILE
      )
    sound = {
      'fingerprint': np.array(val.fingerprint),
      'index': np.zeros((val.num_videos, 2), np.int32),
      'similarity': np.zeros((val.num_videos, 2), np.float32),
      'columns': np.array(['motion']),
      'predicted': np.zeros((1, val.num_videos), np.int32),
    }
    for number, (name, value) in enumerate(
      (
        ('index', sound['index'] + train.num_videos),
        ('index', sound['index'] - 1),
        ('index', sound['index'].astype(np.float32)),
        ('index', sound['index'][:, 0]),
        ('similarity', sound['similarity'][:, :1]),
        ('similarity', sound['similarity'] * np.nan),
        ('predicted', sound['predicted'] + 10**6),
        ('predicted', sound['predicted'][:, :3]),
        ('predicted', np.zeros((1, val.num_videos), 'S3')),
        ('columns', np.array([['a', 'b']])),
      )
    ):
      folder = tmp_path / f'case{number}'
      result.write(folder, {'mode': 'retrieve', 'heading': 'h', 'dataset': {}})
      np.savez(folder / findings.FILE, **sound | {name: value})
      check_refused(
        lambda folder=folder: read(folder), result.ResultError, findings.FILE
      )


def test_embeddings_in_numpy_files(tmp_path, mark):
  for _, path in hostile_files.hostile_npy(tmp_path, mark):
    path.with_suffix(foreign_embeddings.IDS_SUFFIX).write_text('id0\n')
    check_refused(
      lambda path=path: foreign_embeddings.read(path, VIDEOS),
      foreign_embeddings.EmbeddingsError,
      path,
    )
  # Not waited for.
  pipe = tmp_path / 'pipe.npy'
  os.mkfifo(pipe)
  with pytest.raises(arrays.ArraysError):
    arrays.open_npy(pipe)
  with pytest.raises(arrays.ArraysError):
    arrays.read_npz(pipe)


def test_embeddings_in_parquet_files(tmp_path):
  columns = {
    'id': [i for i, _ in VIDEOS],
    'path': [p for _, p in VIDEOS],
    'embedding': [[1.0, 0.0]] * len(VIDEOS),
    'clip': [None] * len(VIDEOS),
  }
  for kind, path in hostile_files.hostile_parquet(
    tmp_path, columns, long='id', many='path'
  ):
    if kind != 'lists':
      check_refused(
        lambda path=path: foreign_embeddings.read(path, VIDEOS),
        foreign_embeddings.EmbeddingsError,
        path,
      )
  sound = foreign_embeddings.read(tmp_path / 'sound.parquet', VIDEOS)
  assert sound[0].shape == (len(VIDEOS), 1, 2)


def test_a_description_of_a_column_at_which_arrow_ends_the_process():
  # Four bytes of the footer of a sound file, of 50 rows, are others.
  path = pathlib.Path(__file__).with_name('damaged_column.parquet')
  for read in (tables.open_table, tables.read_table):
    with pytest.raises(tables.TableError, match='size mismatch'):
      read(path)


def test_an_opened_table_keeps_nothing_of_its_callers(tmp_path):
  class Kept:
    pass

  def open_one():
    kept = Kept()
    tables.open_table(tmp_path / 'x.parquet')
    return weakref.ref(kept)

  pyarrow.parquet.write_table(pyarrow.table({'a': [1]}), tmp_path / 'x.parquet')
  kept = open_one()
  gc.collect()
  assert kept() is None


def test_columns_whose_paths_are_equal_are_read(tmp_path):
  names = ['a.b', 'a', 'c', 'c']
  table = pyarrow.table([[1], [{'b': 2}], [3], [4]], names=names)
  pyarrow.parquet.write_table(table, tmp_path / 'x.parquet')
  assert tables.open_table(tmp_path / 'x.parquet').metadata.num_columns == 4


def test_a_table_in_very_many_pieces_is_refused(tmp_path):
  table = pyarrow.table({str(name): range(600) for name in range(100)})
  path = tmp_path / 'x.parquet'
  pyarrow.parquet.write_table(table, path, row_group_size=1)
  with pytest.raises(tables.TableError, match='100 columns in 600 row groups'):
    tables.open_table(path)


def copied(demo_dataset, folder):
  shutil.copytree(demo_dataset, folder)
  return folder


def test_the_table_of_a_data_set(tmp_path, demo_dataset):
  sound = tables.read_table(demo_dataset / 'train' / 'videos.parquet')
  folder = copied(demo_dataset, tmp_path / 'data')
  target = folder / 'train' / 'videos.parquet'
  manifest = json.loads((folder / 'dataset.json').read_text())
  cases = list(
    hostile_files.hostile_parquet(
      tmp_path, {n: sound[n].combine_chunks() for n in sound.column_names}
    )
  )
  for number, changes in enumerate(
    (
      {'first_frame': 1},
      {'first_frame': -(10**9)},
      {'num_frames': 0},
      {'num_frames': -5},
      {'height': 0},
      {'label_motion': 10**6},
      {'label_motion': -2},
    )
  ):
    (name, value), *_ = changes.items()
    column = np.full(sound.num_rows, value)
    path = tmp_path / f'case{number}.parquet'
    position = sound.column_names.index(name)
    hostile_files.pyarrow.parquet.write_table(
      sound.set_column(position, name, [column]), path
    )
    cases.append((name, path))
  for kind, path in cases:
    if kind == 'sound':
      continue
    shutil.copy(path, target)
    size = target.stat().st_size
    manifest['files']['train/videos.parquet']['bytes'] = size
    (folder / 'dataset.json').write_text(json.dumps(manifest))
    check_refused(
      lambda: frame_store.FrameStore.open(folder, 'train'),
      dataset_folder.DatasetError,
      target,
    )


def test_the_manifest_of_a_data_set(tmp_path, demo_dataset):
  folder = copied(demo_dataset, tmp_path / 'data')
  path = folder / 'dataset.json'
  sound = json.loads(path.read_text())

  def check():
    check_refused(
      lambda: frame_store.FrameStore.open(folder, 'train'),
      dataset_folder.DatasetError,
      path,
    )

  for _, hostile in hostile_files.hostile_json(tmp_path, 'dataset.json'):
    shutil.copy(hostile, path)
    check()
  entry = {'bytes': 8, 'sha256': '', 'records': 1}
  for changes in (
    {'files': {'train/../../secret': entry}},
    {'files': {'/etc/passwd': entry}},
    {'files': {'train/frames-0-of-1.array_record': {'bytes': -1}}},
    {'files': {'train/videos.parquet': {'bytes': 1e300}}},
    {'files': {'train/videos.parquet': None}},
    {'files': []},
    {'labels': {'motion': 'text'}},
    {'labels': {'motion': [1, 2]}},
    {'splits': {'train': {'videos': True, 'frames': 1}}},
    {'splits': {'../up': {'videos': 1, 'frames': 1}}},
    {'options': {'fps': 0}},
    {'options': {}},
    {'name': ['..']},
    {'fingerprint': 5},
    {'max_short_side': -1},
  ):
    path.write_text(json.dumps(sound | changes))
    check()


def test_a_name_of_a_data_set_leads_nowhere():
  from configs import default

  for name in ('..', '.', '../../x', '/etc', '...', '\x1b[31m\n', ''):
    folder = result.folder(default.get_config(), 'W', 'embed', name)
    assert folder.parent.as_posix() == 'W/embed'
    assert '..' not in folder.parts
    assert folder.name.isprintable()


def test_results(tmp_path):
  for kind, path in hostile_files.hostile_json(tmp_path, result.FILE):
    check_refused(lambda path=path: result.read(path), result.ResultError, path)
    assert found_results.read_result(path)[0] is None, kind
    (path.with_name(metrics_file.NAME)).write_bytes(path.read_bytes())
    assert metrics_file.curves(path.parent) == {}
    assert list(metrics_file.read(path.parent)) == []


FIGURES = {  # kind -> (repeated line, how often, what is said of it)
  'no figures': ('{"step":1}', 2_000_000, 'no figures'),
  'blank lines': ('', 2_000_000, 'no figures'),
  'broken lines': ('{', 2_000_000, 'no figures'),
  'nested': (
    '{"step":1,"loss":1,"x":[' + '[],' * 600_000 + '0]}',
    20,
    'no figures',
  ),
  'many names': (
    '{"step":1,' + ','.join(f'"{n}":1' for n in range(100_000)) + '}',
    40,
    'no figures',
  ),
  'a long name': (f'{{"step":1,"{"x" * 10**6}":1}}', 40, 'no figures'),
  'long line': ('\0' * 2**26, 1, 'no figures'),
}


@pytest.mark.parametrize('kind', FIGURES)
def test_figures_that_are_none(tmp_path, kind):
  line, count, reason = FIGURES[kind]
  path = tmp_path / 'run' / metrics_file.NAME
  path.parent.mkdir()
  path.write_text(f'{line}\n' * count)
  check_refused(
    lambda: metrics_file.curves(path.parent), metrics_file.MetricsError, reason
  )
  found = found_results.collect([path.parent])
  assert not found.runs
  assert found.skipped[0].name == f'run/{metrics_file.NAME}'
  assert reason in found.skipped[0].reason


def test_figures_in_a_file_that_is_larger_than_any_disk(tmp_path):
  with (tmp_path / metrics_file.NAME).open('wb') as file:
    file.truncate(10**12)
  check_refused(
    lambda: metrics_file.curves(tmp_path), metrics_file.MetricsError, 'bytes'
  )


def test_figures_of_too_many_lines(tmp_path, monkeypatch):
  monkeypatch.setattr(metrics_file, 'MAX_LINES', 1000)
  path = tmp_path / metrics_file.NAME
  path.write_text('{"step":1,"a":1}\n' * 1000)
  assert len(metrics_file.curves(tmp_path)['a'][0]) == 1000
  path.write_text('{"step":1,"a":1}\n' * 1001)
  with pytest.raises(metrics_file.MetricsError, match='more than 1000 lines'):
    metrics_file.curves(tmp_path)


def test_figures_in_a_pipe_are_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / metrics_file.NAME)
  found = found_results.collect([tmp_path])
  assert 'no regular file' in found.skipped[0].reason
  with pytest.raises(OSError, match='no regular file'):
    list(metrics_file.read(tmp_path))


def test_figures_behind_a_line_that_is_too_long(tmp_path):
  line = json.dumps({'step': 1, 'loss': 0.5})
  long = ' ' * (metrics_file.MAX_LINE_BYTES + 5)
  (tmp_path / metrics_file.NAME).write_text(f'{line}\n{long}{line}\n{line}')
  steps, values = metrics_file.curves(tmp_path)['loss']
  assert (list(steps), list(values)) == ([1, 1], [0.5, 0.5])


ODD = (
  None,
  True,
  -1,
  10**18,
  float('inf'),
  float('nan'),
  '',
  '\x1b[31m\u202e<b>',
  [],
  {},
  [[[]]],
  {'': {'': ''}},
)


def with_each_value_changed(facts, value):
  """Yields copies of nested dicts in which one entry is another."""
  for name, inside in facts.items():
    yield facts | {name: value}
    if isinstance(inside, dict):
      for changed in with_each_value_changed(inside, value):
        yield facts | {name: changed}


def test_a_report_of_odd_results_is_written_all_the_same(tmp_path):
  cell = paper_tables.CELLS['table1.vie_slow.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  results, number = [], 0
  for value in ODD:
    for changed in with_each_value_changed(facts, value):
      number += 1
      if not found_results._reason_against(changed):
        results.append(
          found_results.Result(f'r{number}', tmp_path / str(number), changed)
        )
  assert len(results) > 200
  found = found_results.Found(results, [], [])
  filled = filled_tables.fill(found, filled_tables.Options())
  for template in ('report.html.jinja', 'report.md.jinja'):
    assert 'r1' in report.render(filled, template)


def test_official_archives(tmp_path):
  error = official_checkpoint.OfficialCheckpointError
  for number, kind in enumerate(hostile_tars.KINDS):
    path = tmp_path / f'{number}.tar.gz'
    hostile_tars.write_large_header(path, kind)
    check_refused(lambda path=path: official_files.read(path), error, path)
  path = tmp_path / 'member.tar.gz'
  hostile_tars.write_large_member(path)
  check_refused(lambda: official_files.read(path), error, path)
