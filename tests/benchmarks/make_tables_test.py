import json

import pytest

from tests.benchmarks import benchmark_modules

_RESULTS = benchmark_modules.FOLDER / 'results'


@pytest.fixture
def make_tables(monkeypatch):
  return benchmark_modules.load(monkeypatch, 'make_tables')[0]


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


def _write(path, lines, **closing):
  last = {'benchmark': 'reading', 'figures': len(lines), 'is_complete': True}
  path.write_text('\n'.join([*lines, json.dumps(last | closing)]) + '\n')
  return path


def test_the_page_is_made_from_the_committed_results(make_tables):
  files = list(_RESULTS.glob('*.json'))
  assert files
  page = benchmark_modules.FOLDER.parent / 'docs' / 'benchmarks.md'
  assert page.read_text('utf-8') == make_tables.page(files)


def test_each_case_is_a_table_of_variants_by_metrics(make_tables, tmp_path):
  lines = [
    _line(ratio_to='theirs', ratio=1.5),
    _line(metric='megabytes', value=0.5),
    _line(variant='theirs', value=8.23),
    _line(case='large files', value=12345.6),
  ]
  page = make_tables.page([_write(tmp_path / 'x.json', lines)])
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


def test_a_file_that_was_cut_off_is_refused(make_tables, tmp_path):
  path = _write(tmp_path / 'x.json', [_line(), _line(variant='theirs')])
  whole = path.read_text()
  assert 'cut off' not in make_tables.page([path])
  lines = whole.splitlines(keepends=True)
  for cut, reason in (
    (''.join(lines[:2]), 'its last line does not say that it is complete'),
    (whole[: len(whole) // 3], 'line 1 is cut off'),
    (whole[:-20], 'line 3 is cut off'),
    ('', 'its last line does not say'),
    (''.join(lines[1:]), 'closes a run of 2 figures, and 1 are there'),
  ):
    path.write_text(cut)
    with pytest.raises(ValueError, match=reason) as caught:
      make_tables.page([path])
    assert str(caught.value).startswith(f'{path}: ')
  # Several runs may follow each other, each with its last line.
  path.write_text(whole + whole)
  assert make_tables.page([path])


def test_one_that_is_kept_says_so_on_the_page(make_tables, tmp_path):
  path = _write(tmp_path / 'x.json', [_line()], is_complete=False)
  assert 'This run was cut off before its end.' in make_tables.page([path])


@pytest.mark.parametrize(
  'field, value',
  [
    ('value', float('nan')),
    ('value', float('inf')),
    ('value', '3'),
    ('value', None),
    ('ratio', '1.5'),
    ('ratio', float('nan')),
    ('rounds', 'three'),
    ('versions', 3),
    ('versions', {'jax': 3}),
    ('benchmark', None),
    ('case', ''),
    ('case', ['a']),
    ('variant', 3),
    ('variant', 'a\nb'),
    ('metric', {}),
    ('machine', []),
  ],
)
def test_a_value_of_another_kind_is_refused(
  tmp_path, make_tables, field, value
):
  path = _write(tmp_path / 'x.json', [_line(**{field: value})])
  with pytest.raises(ValueError, match=f'line 1: {field} is no ') as caught:
    make_tables.page([path])
  assert str(caught.value).startswith(f'{path}: ')


def test_a_ratio_needs_the_name_of_a_variant(tmp_path, make_tables):
  path = _write(tmp_path / 'x.json', [_line(ratio=1.5)])
  with pytest.raises(ValueError, match='line 1: ratio_to is no text'):
    make_tables.page([path])


def test_a_bar_in_a_name_ends_no_cell(tmp_path, make_tables):
  line = _line(variant='a|b', metric='c|d', ratio=2.0, ratio_to='e|f')
  page = make_tables.page([_write(tmp_path / 'x.json', [line])])
  assert '| | c\\|d |' in page
  assert '| a\\|b | 12.3 (2.00 x e\\|f) |' in page


@pytest.mark.parametrize(
  'line', ['5', '[]', '{}', '{"is_complete": true}', '{"value": 1}']
)
def test_a_line_of_another_kind_is_refused(tmp_path, make_tables, line):
  path = tmp_path / 'x.json'
  path.write_text(line + '\n')
  with pytest.raises(ValueError, match='line 1 is no object with '):
    make_tables.page([path])


def test_each_run_stands_below_its_own_heading(make_tables, tmp_path):
  here = _write(tmp_path / 'a-here.json', [_line(machine='here')])
  there = _write(tmp_path / 'b-there.json', [_line(machine='there')])
  again = _write(tmp_path / 'c-here.json', [_line(machine='here', case='two')])
  page = make_tables.page([here, there, again])
  assert page.index('there') < page.rindex(': here') < page.index('Two')
  assert make_tables.page([here, again]).count(': here') == 1
