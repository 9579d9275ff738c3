"""The documentation names what exists, and its numbers are the code's."""

import ast
import functools
import importlib
import operator
import pathlib
import re

import pytest
import tiny_run

from configs import default
from vie_jax import describe

DOCS = sorted((tiny_run.REPOSITORY / 'docs').rglob('*.md'))
FOLDERS = 'benchmarks|configs|data|docs|launch|tests|vie_jax'
CODE = re.compile(r'`([^`]+)`')
LINK = re.compile(r'\]\(([^)\s]+)\)')
# `path`, `path:argument of a config file` or `path: name, Class.name`.
PATH = re.compile(rf'((?:{FOLDERS})/[\w./]+|main\.py)(:\w+)?(?:: (.+))?')
FIELD = re.compile(r'(?:--)?(?:config\.)?([a-z_]+(?:\.[a-z_]+)*)(?:=(.*))?')
FILE_SUFFIXES = ('.json', '.npz', '.npy', '.md', '.parquet', '.txt', '.log')

each_page = pytest.mark.parametrize('page', DOCS, ids=lambda page: page.name)


@functools.cache
def names_in(path):
  """Functions, classes, their methods, and constants of a Python file."""
  names = set()
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      names.add(node.name)
      if isinstance(node, ast.ClassDef):
        names |= {
          f'{node.name}.{method.name}'
          for method in node.body
          if isinstance(method, ast.FunctionDef)
        }
    elif isinstance(node, ast.Assign):
      names |= {name.id for name in node.targets if isinstance(name, ast.Name)}
  return names


def without_blocks(page):
  """The text of a page without its fenced blocks."""
  return re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)


def missing(text):
  """What the text names in code marks, and the repository does not have."""
  for code in CODE.findall(text):
    code = ' '.join(code.split())
    if re.match(rf'(?:{FOLDERS})/|main\.py', code):
      yield from missing_file(code)
    elif is_field(code):
      yield from missing_field(code)


def missing_file(code):
  """`path` or `path: name`, as far as it does not exist."""
  found = PATH.fullmatch(code)
  path = found and tiny_run.REPOSITORY / found[1]
  if not path or not path.exists():
    yield code
  elif found[3]:
    named = set(found[3].split(', '))
    yield from (f'{found[1]}: {name}' for name in named - names_in(path))


def is_field(code):
  """Whether code is meant as a config field, alone or with a value."""
  found = FIELD.fullmatch(code)
  return (
    found
    and (
      '.' in code.partition('=')[0]
      or (found[2] and found[1] in default.get_config())
    )
    and not code.endswith(FILE_SUFFIXES)
  )


def missing_field(code):
  """`section.field` or `section.field=value`, if it is no field or value."""
  name, value = FIELD.fullmatch(code).groups()
  try:
    old = operator.attrgetter(name)(default.get_config())
  except AttributeError:
    yield code
    return
  if value is not None:
    new = value if isinstance(old, str) else ast.literal_eval(value)
    if type(new) is not type(old):
      yield code


@pytest.mark.parametrize(
  'wrong',
  [
    'vie_jax/nothing.py',
    'vie_jax/optimizer.py: nothing',
    'vie_jax/models/embedding.py: VideoEmbedding.nothing',
    'vie_jax/ optimizer.py',
    'optimizer.nothing',
    'optimizer.momentum.more',
    'optimiser.momentum',
    'config.nothing',
    '--config.model.nothing=3',
    'model.width="wide"',
    'batch_size=6.4',
  ],
)
def test_a_name_of_nothing_is_noticed(wrong):
  right = (
    '`vie_jax/optimizer.py: build, DROP_FACTOR`, `configs/vie_single.py:ir`, '
    '`vie_jax/models/embedding.py: VideoEmbedding.readouts`, `main.py`, '
    '`--config.model.width=8`, `crop.method=multiscale`, `seed=1`, '
    '`result.json`, `batch_stats`'
  )
  assert list(missing(right)) == []
  assert len(list(missing(f'{right}, `{wrong}`'))) == 1


@each_page
def test_every_path_function_and_field_exists(page):
  assert list(missing(without_blocks(page))) == []


@each_page
def test_every_field_in_a_command_exists(page):
  for block in re.findall(r'```.*?```', page.read_text(), flags=re.DOTALL):
    for name in re.findall(r'--config\.([a-z_.]+)', block):
      assert list(missing_field(name)) == []
    for path in re.findall(rf'(?:{FOLDERS})/[\w./]+\.py', block):
      assert (tiny_run.REPOSITORY / path).exists(), path


@each_page
def test_every_link_leads_somewhere(page):
  headings = re.findall(r'^#+ (.+)$', without_blocks(page), flags=re.MULTILINE)
  anchors = {
    '#' + re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
    for heading in headings
  }
  for link in LINK.findall(without_blocks(page)):
    if link.startswith('#'):
      assert link in anchors
    elif not link.startswith('https://'):
      assert (page.parent / link.partition('#')[0]).exists(), link


def tables(page):
  """Tables of a page: lists of rows, which are lists of cells."""
  found = re.findall(r'(?:^\|.*\|$\n?)+', page.read_text(), flags=re.MULTILINE)
  for table in found:
    rows = [line.strip('|').split('|') for line in table.strip().split('\n')]
    yield [[cell.strip() for cell in row] for row in rows]


@each_page
def test_rows_of_a_table_have_as_many_cells_as_its_head(page):
  for table in tables(page):
    assert set(table[1][0]) <= set('-:')
    assert {len(row) for row in table} == {len(table[0])}, table[0]


def rows_by_config(*columns):
  """Config -> its cells, of the table of method.md with these columns."""
  page = tiny_run.REPOSITORY / 'docs' / 'method.md'
  (table,) = (t for t in tables(page) if t[0][: len(columns)] == list(columns))
  return {row[0].strip('`'): row[1:] for row in table[2:]}


def config_of(name):
  """The config of 'configs/name.py' or 'configs/name.py:argument'."""
  path, _, argument = name.partition(':')
  module = importlib.import_module(f'configs.{pathlib.Path(path).stem}')
  return module.get_config(*([argument] if argument else []))


def numbers(cell):
  return [int(n) for n in re.findall(r'\d+', cell.replace(',', ''))]


def test_the_schedules_are_those_of_the_configs():
  rows = rows_by_config('config', 'batch', 'steps of IR')
  known = {path.stem for path in (tiny_run.REPOSITORY / 'configs').iterdir()}
  named = {pathlib.Path(name.partition(':')[0]).stem for name in rows}
  unscheduled = {'default', 'demo', 'input_single', 'reproduce', '__pycache__'}
  assert named == known - unscheduled
  for name, (batch, steps, drops, end, clusters, neighbors, _) in rows.items():
    config = config_of(name)
    assert numbers(batch) == [config.batch_size], name
    warm_start = config.objective.instance_recognition_steps
    assert numbers(steps) == [warm_start], name
    assert numbers(drops) == list(config.optimizer.drop_steps), name
    assert numbers(end) == [config.num_steps], name
    if warm_start < config.num_steps:
      settings = config.local_aggregation
      assert numbers(clusters) == [settings.num_clusters], name
      assert numbers(neighbors) == [settings.num_neighbors], name


@pytest.mark.slow
def test_the_sizes_are_those_that_describe_prints():
  rows = rows_by_config('config', 'clip', 'trainable parameters')
  assert len(rows) == 7
  for name, (clip, parameters, operations, *readouts) in rows.items():
    facts = describe.description(config_of(name))
    assert numbers(clip) == facts['clip'], name
    assert numbers(parameters) == [facts['parameters']], name
    assert numbers(operations) == [facts['forward_flops_per_clip']], name
    sizes = [number for cell in readouts for number in numbers(cell)]
    assert sizes == list(facts['readouts'].values()), name
