import importlib.util
import json
import pathlib

_REPOSITORY = pathlib.Path(__file__).parents[2]
_RESULTS = _REPOSITORY / 'benchmarks' / 'results'


def _make_tables():
  path = _REPOSITORY / 'benchmarks' / 'make_tables.py'
  spec = importlib.util.spec_from_file_location('make_tables', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _line(**values):
  line = {
    'benchmark': 'reading',
    'case': 'small files',
    'variant': 'ours',
    'metric': 'clips per second',
    'value': 12.345,
    'ratio_to': None,
    'ratio': None,
    'rounds': 3,
    'machine': 'a CPU',
    'versions': {'b': '2', 'a': '1'},
  }
  return json.dumps(line | values)


def test_the_page_is_made_from_the_committed_results():
  files = list(_RESULTS.glob('*.json'))
  assert files
  page = (_REPOSITORY / 'docs' / 'benchmarks.md').read_text('utf-8')
  assert page == _make_tables().page(files)


def test_each_case_is_a_table_of_variants_by_metrics(tmp_path):
  lines = [
    _line(ratio_to='theirs', ratio=1.5),
    _line(metric='megabytes', value=0.5),
    _line(variant='theirs', value=8.23),
    _line(case='large files', value=12345.6),
  ]
  path = tmp_path / 'x.json'
  path.write_text('\n'.join(lines) + '\n')
  page = _make_tables().page([path])
  assert '## reading: a CPU' in page
  assert '3 rounds; a 1, b 2.' in page
  small, large = page.split('### Small files')[1].split('### Large files')
  assert small.split('\n\n')[1].splitlines() == [
    '| | clips per second | megabytes |',
    '|---|---|---|',
    '| ours | 12.3 (1.50 x theirs) | 0.5 |',
    '| theirs | 8.23 |  |',
  ]
  assert '| ours | 12,346 |' in large
