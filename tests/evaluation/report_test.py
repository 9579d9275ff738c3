"""The report: every cell, with our figure or the command that gives one."""

import errno
import html.parser
import os
import pathlib
import re
import subprocess
import sys

import chromium
import fake_results
import other_user
import pytest

from vie_jax.evaluation import (
  filled_tables,
  found_results,
  paper_roles,
  paper_tables,
  report,
  result_words,
)
from vie_jax.evaluation.paper_tables import CELLS

PAYLOAD = '"><script>document.title="owned"</script>|`*_{{ 7 * 7 }}'
SLOW = [CELLS[f'table1.vie_slow.kinetics.conv{n}'] for n in (3, 4, 5)]


class Page(html.parser.HTMLParser):
  """Elements of a page with the text in them; every tag must be closed."""

  VOID = ('meta', 'br')

  def __init__(self, text):
    super().__init__(convert_charrefs=True)
    self.elements = []
    self._open = []
    self.feed(text)
    self.close()
    assert not self._open

  def handle_starttag(self, tag, attributes):
    element = {'tag': tag, 'text': '', **dict(attributes)}
    self.elements.append(element)
    if tag not in self.VOID:
      self._open.append(element)

  def handle_startendtag(self, tag, attributes):
    self.elements.append({'tag': tag, 'text': '', **dict(attributes)})

  def handle_endtag(self, tag):
    assert self._open[-1]['tag'] == tag, (tag, self._open[-1])
    self._open.pop()

  def handle_data(self, data):
    for element in self._open:
      element['text'] += data

  def cell(self, name):
    """What the main table shows of a cell, without white space."""
    (element,) = (e for e in self.elements if e.get('title') == name)
    return ' '.join(element['text'].split())


def written(tmp_path, **options):
  """The page and the Markdown of everything in a folder."""
  found = found_results.collect([tmp_path / 'runs'])
  filled = filled_tables.fill(found, filled_tables.Options(**options))
  page, plain = report.write(filled, tmp_path / 'out' / 'report.html')
  return Page(page.read_text('utf-8')), plain.read_text('utf-8')


def write_slow(folder, conv5=0.5, **changes):
  facts = fake_results.facts_of(
    SLOW[0], {'conv3': 0.3, 'conv4': 0.4, 'conv5': conv5}, **changes
  )
  fake_results.write(folder, facts)
  return facts


def rows(plain):
  """All rows of all tables of a Markdown text, as lists of cells."""
  lines = [line for line in plain.splitlines() if line.startswith('|')]
  return [
    [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
    for line in lines
  ]


def row(plain, first):
  (found,) = (cells for cells in rows(plain) if cells[0] == first)
  return found


@pytest.fixture(scope='module')
def full(tmp_path_factory):
  """A report in which every cell has a result, and half have curves."""
  folder = tmp_path_factory.mktemp('full')
  for number, cells in enumerate(fake_results.evaluations()):
    facts = fake_results.facts_of(
      cells[0], {cell.wanted.figure: (cell.paper or 30) / 100 for cell in cells}
    )
    where = folder / 'runs' / f'run{number}' / facts['mode'] / 'x'
    fake_results.write(where, facts, curve=1000 if number % 2 else None)
  page, plain = written(folder)
  return folder, page, plain


def test_a_cell_shows_ours_of_videos_and_clips_the_papers_and_the_difference(
  tmp_path,
):
  write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k')
  page, plain = written(tmp_path)
  shown = page.cell('table1.vie_slow.kinetics.conv5')
  assert shown == '50.0clips 45.0 paper 46.36 +3.6'
  assert page.cell('table1.vie_slow.kinetics.conv3').endswith('24.80 +5.2')
  assert row(plain, 'VIE-Slow')[4] == '**50.0** (45.0) / 46.36, +3.6'
  assert row(plain, 'VIE-Slow')[1] == '/ 60.84'


def test_a_figure_below_the_papers_has_a_minus(tmp_path):
  write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k', conv5=0.4)
  page, _ = written(tmp_path)
  assert page.cell('table1.vie_slow.kinetics.conv5').endswith('46.36 −6.4')


def test_a_cell_that_is_not_run_is_blank_and_its_command_is_named(tmp_path):
  write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k')
  page, plain = written(tmp_path, command='python run.py')
  shown = page.cell('table1.vie_trn.kinetics.conv5')
  assert '44.91' in shown
  assert 'clips' not in shown
  for text in (
    plain,
    ' '.join(e['text'] for e in page.elements if e['tag'] == 'code'),
  ):
    assert 'python run.py table1.vie_trn.kinetics.conv3' in text
    assert 'python run.py table1.vie_slow.kinetics.conv3' not in text
  identifiers = {e.get('id') for e in page.elements}
  for name in CELLS:
    prefix = 'f' if name.startswith('table1.vie_slow.kinetics.conv') else 'c'
    assert f'{prefix}-{name}' in identifiers, name


def test_every_command_fills_the_cells_that_it_is_named_for(tmp_path):
  (tmp_path / 'runs').mkdir()
  filled = filled_tables.fill(
    found_results.collect([tmp_path / 'runs']), filled_tables.Options()
  )
  groups = filled_tables.missing(filled)
  assert sorted(n for names, _ in groups for n in names) == sorted(CELLS)
  for names, command in groups:
    assert command.endswith(f' {names[0]}')
    assert len({paper_tables.evaluation_of(CELLS[n]) for n in names}) == 1


def test_of_several_results_the_newest_is_shown_and_all_are_listed(tmp_path):
  for name, conv5, day in (('a', 0.41, 1), ('b', 0.52, 3), ('c', 0.47, 2)):
    write_slow(
      tmp_path / 'runs' / name / 'linear_eval' / 'k',
      conv5=conv5,
      date=f'2026-11-0{day}T00:00:00+00:00',
    )
  page, plain = written(tmp_path)
  shown = page.cell('table1.vie_slow.kinetics.conv5')
  assert shown.startswith('52.0')
  assert shown.endswith('newest of 3; the others: 47.0, 41.0')
  assert 'newest of 3; the others: 47.0, 41.0' in row(plain, 'VIE-Slow')[4]
  details = [r for r in rows(plain) if r[0] == f'`{SLOW[2].name}`']
  assert [r[2] for r in details] == ['52.0', '47.0', '41.0']


def test_details_are_all_there(tmp_path):
  write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k')
  page, plain = written(tmp_path)
  detail = row(plain, f'`{SLOW[2].name}`')
  # 214 videos: the root of 0.5 * 0.5 / 214 is 3.4 points.
  assert detail == [
    f'`{SLOW[2].name}`',
    '46.36',
    '50.0',
    '3.4',
    '+3.6',
    '70.0',
    '45.0',
    '10.0',
    '[1] slow/linear\\_eval/k',
  ]
  facts = row(plain, '[1]')
  for expected in (
    'slow/linear\\_eval/k',
    'vie\\_slow',
    'local aggregation',
    'kinetics400',
    '786 / 214',
    'val',
    '450',
    '5 clips, center crop, mean softmax',
    '1000',
    '0',
    '1 x cpu, 2 cores, x86\\_64',
    'abc1234',
    '2026-11-23 18:00',
  ):
    assert expected in facts, (expected, facts)
  table = next(
    e for e in page.elements if e.get('aria-label') == 'All evaluations'
  )
  assert 'abc1234' in table['text']


def test_parts_of_the_data_are_told(tmp_path):
  cell = CELLS['table3.vie_single_30.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.4})
  folder = tmp_path / 'runs' / 'a' / 'linear_eval' / 'k'
  fake_results.write(folder, facts)
  _, plain = written(tmp_path)
  assert 'kinetics400, 30 %' in row(plain, '[1]')
  facts['network']['trained_on']['with_replacement'] = True
  fake_results.write(folder, facts)
  _, plain = written(tmp_path)
  assert '| kinetics400, 30 %, drawn with replacement |' in plain


def test_results_that_are_in_no_table_are_listed(tmp_path):
  write_slow(tmp_path / 'runs' / 'slow' / 'knn_eval' / 'k', mode='knn_eval')
  page, plain = written(tmp_path)
  assert [r[1:] for r in rows(plain) if r[0] == '[1]'][:3] == [
    ['slow/knn\\_eval/k', 'label, conv3', '30.0', '50.0', '25.0'],
    ['slow/knn\\_eval/k', 'label, conv4', '40.0', '60.0', '35.0'],
    ['slow/knn\\_eval/k', 'label, conv5', '50.0', '70.0', '45.0'],
  ]
  assert any(e.get('aria-label') == 'Other evaluations' for e in page.elements)


def test_results_of_networks_of_another_origin_are_named_with_the_reason(
  tmp_path, capsys
):
  origin = {
    'training': 'finetuned',
    'step': 12,
    'source': 'w1/finetune/v|1',
    'trained_on': {},
  }
  before = {'training': 'local_aggregation', 'step': 14, 'source': 'w1'}
  facts = write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k')
  facts['network']['started_from'] = [origin, before]
  fake_results.write(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k', facts)
  page, plain = written(tmp_path)
  assert '0 of the 154 figures' in plain
  listed = plain.partition('## Evaluations that are in no table')[2]
  assert (
    '\n\nIn no cell, for what the weights started from:\n\n'
    '- [1] slow/linear\\_eval/k: w1/finetune/v\\|1 (finetuned, step 12), which '
    'have seen labels. Not in `table1.vie_slow.kinetics.conv3`, `conv4`, '
    '`conv5`.\n'
  ) in listed.partition('\n## ')[0] + '\n'
  (told,) = (
    e['text']
    for e in page.elements
    if e['tag'] == 'li' and 'labels' in e['text']
  )
  assert told == (
    '[1] slow/linear_eval/k: w1/finetune/v|1 (finetuned, step 12), which have '
    'seen labels. Not in table1.vie_slow.kinetics.conv3, conv4, conv5.'
  )
  out = tmp_path / 'r.html'
  assert report.main([str(tmp_path / 'runs'), f'--out={out}']) == 0
  assert capsys.readouterr().err == (
    'slow/linear_eval/k is in no cell, for what its weights started from: '
    'w1/finetune/v|1 (finetuned, step 12), which have seen labels.\n'
  )


def facts_shown(facts):
  result = found_results.Result('x', pathlib.Path(), facts)
  return result_words.result_facts(result)


def test_what_a_network_started_from_is_told_the_nearest_first():
  facts = fake_results.facts_of(SLOW[0], {'conv5': 0.5})
  assert facts_shown(facts)['started from'] == ''
  facts['network']['started_from'] = [
    {'training': 'local_aggregation', 'step': 12345, 'source': '/home/x/w1'},
    {'training': 'unknown', 'step': None, 'source': 'w0'},
  ]
  assert facts_shown(facts)['started from'] == (
    'w1 (local aggregation, step 12,345), before that w0 (unknown)'
  )
  facts['network']['streams'] = {
    'single': {'started_from': facts['network'].pop('started_from')[1:]},
    'motion': {'started_from': []},
  }
  assert facts_shown(facts)['started from'] == 'single: w0 (unknown)'
  facts['network']['started_from'] = 'text'
  facts['network']['streams'] = 'text'
  told = 'weights of unknown origin (unknown)'
  assert facts_shown(facts)['started from'] == told


@pytest.mark.parametrize(
  'clips, average, shown',
  [
    (5, 'softmax', '5 clips, center crop, mean softmax'),
    (1, 'embedding', '1 clip, center crop, mean embedding'),
    (5, 'knn', '5 clips, center crop, mean kNN votes'),
    (5, 'mean', '5 clips, center crop, mean of the clips'),
    (5, 'none', '5 clips, center crop, each clip by itself'),
    (
      'all, consecutive',
      'softmax',
      'all consecutive clips, center crop, mean softmax',
    ),
  ],
)
def test_views_are_told_in_words(clips, average, shown):
  facts = fake_results.facts_of(SLOW[0], {'conv5': 0.5})
  facts['views'] |= {'clips': clips, 'average': average}
  assert facts_shown(facts)['views'] == shown


@pytest.mark.parametrize(
  'mode, dataset, counts, split',
  [
    ('embed', {'train': 53, 'val': 19}, '53 / 19', 'train, val'),
    ('embed', {'val': 19}, '– / 19', 'val'),
    ('embed', {'train': 53, 'val': 0}, '53 / 0', 'train, val'),
    ('embed', {'kind': 'clips', 'clips': 12}, '', ''),
    ('export', {'name': 'vie_single'}, '', ''),
    ('linear_eval', {'train': 53, 'val': 19, 'split': 'val'}, '53 / 19', 'val'),
    # Results of before do not say it.
    ('linear_eval', {'train': 53, 'val': 19}, '53 / 19', 'val'),
  ],
)
def test_splits_are_those_that_were_looked_at(mode, dataset, counts, split):
  facts = fake_results.facts_of(SLOW[0], {}, mode=mode, dataset=dataset)
  shown = facts_shown(facts)
  assert (shown['train / val'], shown['split']) == (counts, split)


def test_nouns_and_verbs_fit_one_evaluation_of_one_figure(tmp_path):
  facts = fake_results.facts_of(SLOW[0], {'conv5': 0.5}, mode='linear_eval')
  facts['views'] = {'clips': 1, 'crop': 'center', 'average': 'softmax'}
  facts['hardware'] = {'devices': 'cpu x 1', 'cores': 1}
  fake_results.write(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k', facts)
  page, plain = written(tmp_path)
  told = ' '.join(plain.split())
  assert '1 of the 154 figures of Tables 1 to 5 of' in told
  assert 'Embeddings" has a result here, from 1 evaluation. All' in told
  shown = ' '.join(e['text'] for e in page.elements)
  assert 'Embeddings” has a result here, from 1 evaluation. All' in shown
  assert '1 clip, center crop' in plain
  assert 'cpu x 1, 1 core' in plain


def test_all_evaluations_that_are_in_no_table_are_counted_and_listed(tmp_path):
  runs = tmp_path / 'runs' / 'slow'
  write_slow(runs / 'linear_eval' / 'k')
  write_slow(runs / 'knn_eval' / 'k', mode='knn_eval')
  facts = fake_results.facts_of(SLOW[0], {}, mode='embed') | {'accuracy': {}}
  fake_results.write(runs / 'embed' / 'k', facts)
  page, plain = written(tmp_path)
  assert '2 evaluations are\n[in no table]' in plain
  told = '2 are in none.'
  assert f'\n{told}\n' in plain
  assert any(e['text'].startswith(told) for e in page.elements)
  listed = plain.partition('## Evaluations that are in no table')[2]
  found = rows(listed.partition('\n## ')[0])[2:]
  # In the table are figures, and none is without.
  assert [cells[0] for cells in found] == ['[2]'] * 3
  told = '1 has no accuracy: [1] slow/embed/k.'
  assert f'\n{told}\n' in listed
  assert any(e['text'] == told for e in page.elements if e['tag'] == 'p')
  # One of its figures is in no cell.
  facts = write_slow(runs / 'linear_eval' / 'k')
  facts['accuracy']['label']['conv1'] = {'top1': 0.1}
  fake_results.write(runs / 'linear_eval' / 'k', facts)
  _, plain = written(tmp_path)
  told = '2 are in none; of 1 more, which is in one, the figures listed here'
  assert told in plain


def test_embeddings_alone_are_named_without_a_table(tmp_path):
  facts = fake_results.facts_of(SLOW[0], {}, mode='embed')
  for name, accuracy in (('a|b', {}), ('<b>_c', {'label': {}})):
    folder = tmp_path / 'runs' / 'slow' / name
    fake_results.write(folder, facts | {'accuracy': accuracy})
  page, plain = written(tmp_path)
  listed = plain.partition('## Evaluations that are in no table')[2]
  listed = listed.partition('\n## ')[0]
  assert listed.endswith(
    '\n2 are in none.\n\n2 have no accuracy: [1] slow/\\<b\\>\\_c, '
    '[2] slow/a\\|b.\n'
  )
  told = '2 have no accuracy: [1] slow/<b>_c, [2] slow/a|b.'
  assert any(e['text'] == told for e in page.elements if e['tag'] == 'p')
  assert not [
    e for e in page.elements if e.get('aria-label') == 'Other evaluations'
  ]
  assert {'#others', '#r-1', '#r-2'} <= {e.get('href') for e in page.elements}


def test_recall_is_shown_where_there_is_some(tmp_path):
  write_slow(tmp_path / 'runs' / 'slow' / 'knn_eval' / 'k', mode='knn_eval')
  _, plain = written(tmp_path)
  assert 'recall' not in plain
  recall = {'1': 0.2, '5': 0.5, '10': 0.75, '50': 1.0}
  facts = fake_results.facts_of(SLOW[0], {}, recall={'label': recall})
  facts |= {'mode': 'retrieve', 'accuracy': {'label': {'knn': {'top1': 0.4}}}}
  fake_results.write(tmp_path / 'runs' / 'slow' / 'retrieve' / 'k', facts)
  page, plain = written(tmp_path)
  (found,) = (cells for cells in rows(plain) if 'label, knn' in cells)
  assert found[3:] == ['40.0', '', '', '@1 20.0, @5 50.0, @10 75.0']
  (table,) = (
    e for e in page.elements if e.get('aria-label') == 'Other evaluations'
  )
  assert '@1 20.0, @5 50.0, @10 75.0' in table['text']


@pytest.mark.parametrize(
  'train, left_out, shown',
  [
    (11, 0, '@1 20.0, @5 50.0, @10 75.0'),
    (11, 1, '@1 20.0, @5 50.0'),
    (1, 0, '@1 20.0'),
    ('many', 0, '@1 20.0, @5 50.0, @10 75.0'),
    (10, None, '@1 20.0, @5 50.0, @10 75.0'),
  ],
)
def test_recall_among_all_training_videos_is_left_out(
  tmp_path, train, left_out, shown
):
  recall = {'1': 0.2, '5': 0.5, '10': 0.75}
  facts = fake_results.facts_of(SLOW[0], {}, recall={'label': recall})
  facts |= {'mode': 'retrieve', 'accuracy': {'label': {'knn': {'top1': 0.4}}}}
  facts['dataset']['train'] = train
  facts['left_out'] = {'train': left_out, 'val': 0}
  fake_results.write(tmp_path / 'runs' / 'slow' / 'retrieve' / 'k', facts)
  _, plain = written(tmp_path)
  (found,) = (cells for cells in rows(plain) if 'label, knn' in cells)
  assert found[6] == shown


@pytest.mark.parametrize('num_classes, shown', [(5, '–'), (6, '70.0')])
def test_top5_of_few_classes_is_a_dash(tmp_path, num_classes, shown):
  classes = {'label': num_classes}
  runs = tmp_path / 'runs' / 'slow'
  write_slow(runs / 'linear_eval' / 'k', classes=classes)
  write_slow(runs / 'knn_eval' / 'k', classes=classes, mode='knn_eval')
  _, plain = written(tmp_path)
  assert row(plain, f'`{SLOW[2].name}`')[5] == shown
  assert [r[4] for r in rows(plain) if 'label, conv5' in r] == [shown]


def test_without_a_filled_cell_there_is_no_table_of_them(tmp_path):
  (tmp_path / 'runs').mkdir()
  page, plain = written(tmp_path)
  assert '## All figures\n\nNone has a result yet.' in plain
  assert not [e for e in page.elements if e.get('aria-label') == 'All figures']


def test_files_that_nothing_was_taken_from_are_named(tmp_path):
  (tmp_path / 'runs' / 'bad').mkdir(parents=True)
  (tmp_path / 'runs' / 'bad' / 'result.json').write_text('{')
  page, plain = written(tmp_path)
  assert 'bad/result.json is not JSON' in plain
  assert any(
    'bad/result.json is not JSON' in ' '.join(e['text'].split())
    for e in page.elements
    if e['tag'] == 'li'
  )


@pytest.mark.parametrize(
  'judged, changes, num_videos',
  [
    # With a label, and not left out.
    ({'judged': 24}, {}, 24),
    ({'judged': 24}, {'left_out': {'val': 8}}, 24),
    # Results of before do not say how many were judged.
    ({}, {'left_out': {'val': 14}}, 200),
    ({}, {}, 214),
  ],
)
def test_a_standard_error_is_by_the_videos_that_were_judged(
  judged, changes, num_videos
):
  facts = fake_results.facts_of(SLOW[0], {'conv3': 0.3}, **changes)
  filling = filled_tables.Filling(
    found_results.Result('x', pathlib.Path(), facts),
    {'top1': 0.3, **judged},
    None,
  )
  assert filling.error == pytest.approx(100 * (0.3 * 0.7 / num_videos) ** 0.5)


@pytest.mark.parametrize('top1', [0, 0.0, 1, 1.0])
def test_none_or_all_of_the_videos_have_a_standard_error_too(top1):
  def error(top1):
    facts = fake_results.facts_of(SLOW[0], {'conv3': top1})
    result = found_results.Result('x', pathlib.Path(), facts)
    return filled_tables.Filling(
      result, {'top1': top1, 'judged': 20}, None
    ).error

  # The roots of (p - q)^2 = q (1 - q) / 20 are 0 and 1 / 21 for p = 0.
  assert error(top1) == pytest.approx(100 / 21)
  # One video more or less decides nothing.
  difference = abs(error(top1) ** 2 + error(0.05) ** 2) ** 0.5
  assert 2 * difference > 5


@pytest.mark.parametrize(
  'number', [None, 'many', True, 0, -3, pytest.param(10**400, id='huge')]
)
def test_a_number_of_videos_that_is_none_gives_no_standard_error(number):
  for accuracy, dataset in (
    ({'top1': 0.3, 'judged': number}, {}),
    ({'top1': 0.3}, {'val': number}),
  ):
    facts = fake_results.facts_of(SLOW[0], {'conv3': 0.3}, dataset=dataset)
    result = found_results.Result('x', pathlib.Path(), facts)
    assert filled_tables.Filling(result, accuracy, None).error is None


@pytest.mark.parametrize(
  'slow, single, verdict',
  [
    (0.6, 0.4, 'holds'),
    (0.4, 0.6, 'does not hold'),
    # Two standard errors of the difference are 9.6 points.
    (0.5, 0.41, 'undecided'),
    (0.5, 0.40, 'holds'),
    (0.41, 0.5, 'undecided'),
    (0.5, None, 'not run'),
  ],
)
def test_orderings_are_judged_by_the_number_of_videos(
  tmp_path, slow, single, verdict
):
  write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k', conv5=slow)
  if single is not None:
    cell = CELLS['table1.vie_single.kinetics.conv5']
    facts = fake_results.facts_of(cell, {'conv5': single})
    fake_results.write(
      tmp_path / 'runs' / 'single' / 'linear_eval' / 'k', facts
    )
  _, plain = written(tmp_path)
  pair = [
    '`table1.vie_slow.kinetics.conv5`',
    '`table1.vie_single.kinetics.conv5`',
  ]
  (found,) = (r for r in rows(plain) if r[1:3] == pair)
  assert found[3] == '+2.0'
  assert found[5] == verdict


def test_the_data_sets_that_stand_for_the_papers_are_told(tmp_path):
  write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k')
  page, plain = written(tmp_path)
  assert 'stand for' not in plain
  roles = paper_roles.ROLES | {'kinetics': paper_roles.Role('demo', 'motion')}
  page, plain = written(tmp_path, roles=roles)
  assert 'Kinetics is demo (label motion)' in plain
  assert any('Kinetics is demo' in e['text'] for e in page.elements)


def test_a_role_that_nothing_plays_has_no_commands(tmp_path):
  write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k')
  roles = paper_roles.ROLES | {'hmdb51': paper_roles.Role('')}
  page, plain = written(tmp_path, roles=roles)
  assert 'HMDB51 is left out' in plain
  assert 'hmdb51' not in plain.partition('## Not run yet')[2]
  identifiers = {e.get('id') for e in page.elements}
  for element in page.elements:
    if element.get('href'):
      assert element['href'].removeprefix('#') in identifiers
  assert '21.5' in page.cell('table2.vie_3dresnet.scratch.hmdb51.multiscale')


def test_a_full_report_has_no_cell_without_a_figure(full):
  _, page, plain = full
  for name in CELLS:
    assert 'clips' in page.cell(name), name
  assert 'Every cell has a result.' in plain


def test_rows_of_a_table_have_as_many_cells_as_its_head(full):
  _, _, plain = full
  tables = re.findall(r'(?:^\|.*\|$\n?)+', plain, flags=re.MULTILINE)
  assert len(tables) >= 8
  for table in tables:
    found = rows(table)
    assert set(''.join(found[1])) == {'-'}
    assert {len(cells) for cells in found} == {len(found[0])}, found[0]


def test_every_run_with_curves_has_its_plots(full):
  folder, page, _ = full
  runs = {
    path.parent.relative_to(folder / 'runs').as_posix()
    for path in (folder / 'runs').rglob('metrics.jsonl')
  }
  assert len(runs) > 25
  plots = [e for e in page.elements if e.get('class') == 'plot']
  # Loss and accuracy of each.
  assert len(plots) == 2 * len(runs)
  for run in runs:
    assert sum(p['aria-label'].startswith(f'{run}:') for p in plots) == 2
  for plot in plots:
    assert 'training step' in plot['text']
    assert 'nats' in plot['text'] or '%' in plot['text']


def test_the_page_asks_for_nothing_and_runs_nothing(full):
  _, page, _ = full
  assert not [e for e in page.elements if e['tag'] == 'script']
  for element in page.elements:
    for attribute in ('src', 'href'):
      assert (element.get(attribute) or '#').startswith('#')
  (policy,) = (e['content'] for e in page.elements if 'http-equiv' in e)
  assert "default-src 'none'" in policy


def test_links_within_the_page_lead_somewhere(full):
  _, page, _ = full
  identifiers = [e['id'] for e in page.elements if e.get('id')]
  assert len(identifiers) == len(set(identifiers))
  for element in page.elements:
    if element.get('href'):
      assert element['href'].removeprefix('#') in identifiers


def test_text_from_results_is_no_markup(tmp_path):
  facts = write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k')
  facts['commit'] = facts['network']['source'] = PAYLOAD
  facts['hardware']['devices'] = facts['date'] = PAYLOAD
  facts['accuracy'][PAYLOAD] = facts['accuracy']['label']
  roles = paper_roles.ROLES | {
    'kinetics': paper_roles.Role('kinetics400', PAYLOAD)
  }
  fake_results.write(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k', facts)
  page, plain = written(tmp_path, roles=roles, title=PAYLOAD, notes=[PAYLOAD])
  assert not [e for e in page.elements if e['tag'] == 'script']
  assert any(PAYLOAD in e['text'] for e in page.elements if e['tag'] == 'h1')
  assert '<script' not in plain.replace('\\<', '')
  assert len(row(plain, '[1]')) == len(row(plain, 'no.'))


def test_a_page_of_nothing_is_still_a_page(tmp_path):
  (tmp_path / 'runs').mkdir()
  page, plain = written(tmp_path)
  assert 'None were found.' in plain
  assert any('No run has written curves' in e['text'] for e in page.elements)


@pytest.mark.skipif(not chromium.PATH, reason='there is no Chromium')
def test_chromium_shows_it_without_complaint(full, tmp_path):
  folder, _, _ = full
  browser = chromium.Browser(tmp_path / 'profile')
  try:
    uri = (folder / 'out' / 'report.html').as_uri()
    for width in (1280, 390):
      tab = chromium.Tab(browser, uri, width=width)
      assert tab.complaints() == []
      assert tab.requests() == [uri]
      # Wide tables scroll in their own frame.
      assert tab.run('document.documentElement.scrollWidth') <= width
      tab.close()
  finally:
    browser.close()


# The command line.


def run(*arguments, **options):
  return subprocess.run(
    [sys.executable, '-m', 'vie_jax.evaluation.report', *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
    **options,
  )


def test_the_command_writes_both_files_and_names_what_it_skipped(tmp_path):
  write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k')
  (tmp_path / 'runs' / 'result.json').write_text('{')
  done = run(tmp_path / 'runs', '--out', tmp_path / 'new' / 'report.html')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith(
    '3 of 154 cells have a result. Of 1 evaluation 0 are in no cell.'
  )
  assert 'is not JSON' in done.stderr
  assert (tmp_path / 'new' / 'report.html').exists()
  assert (tmp_path / 'new' / 'report.md').exists()


def test_roles_and_bins_of_the_command_line_are_used(tmp_path, capsys):
  cell = CELLS['table3.vie_single_5bin.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.4}, column='motion')
  facts['dataset']['name'] = facts['network']['trained_on']['name'] = 'demo'
  facts['network']['trained_on']['bin_frames'] = 10
  facts['accuracy']['appearance'] = {'conv5': {'top1': 0.7}}
  fake_results.write(tmp_path / 'a', facts)
  out = f'--out={tmp_path / "report.html"}'
  assert report.main([str(tmp_path), out]) == 0
  assert capsys.readouterr().out.startswith('0 of 154')
  more = ['--role=kinetics=demo:motion', '--bins=5bin=10']
  assert report.main([str(tmp_path), out, *more]) == 0
  assert capsys.readouterr().out.startswith('1 of 154')


def test_the_list_has_every_cell_with_its_command(capsys):
  assert report.main(['--list']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines] == list(CELLS)
  for line in lines:
    name, command = line.split(maxsplit=1)
    assert command == f'python launch/reproduce.py --plan=paper {name}'


@pytest.mark.parametrize(
  'arguments, words',
  [
    ([], '--out'),
    (['W'], '--out'),
    (['W', '--out=report.txt'], 'must end in .html'),
    (['W', '--out=r.html', '--role=cinema=x'], 'is no role'),
    (['W', '--out=r.html', '--bins=9bin=1'], '9bin=1'),
  ],
)
def test_a_mistake_on_the_command_line_is_named(arguments, words, capsys):
  with pytest.raises(SystemExit) as stopped:
    report.main(arguments)
  assert stopped.value.code == 2
  assert words in capsys.readouterr().err.splitlines()[-1]


def test_folders_that_do_not_exist_are_named_and_no_page_is_written(
  tmp_path, capsys
):
  write_slow(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k')
  (tmp_path / 'file').write_text('')
  names = [str(tmp_path / name) for name in ('runs', 'nope', 'file')]
  out = tmp_path / 'report.html'
  assert report.main([*names, f'--out={out}']) == 2
  lines = capsys.readouterr().err.splitlines()
  assert lines == [f'{name}: there is no such folder.' for name in names[1:]]
  assert not out.exists()


def test_a_page_that_cannot_be_written_is_one_line(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  assert report.main([str(tmp_path), f'--out={tmp_path}/file/r.html']) == 2
  assert 'cannot be written' in capsys.readouterr().err.splitlines()[0]


def test_evaluations_of_own_data_come_first_where_no_cell_has_a_result(
  tmp_path,
):
  own = fake_results.facts_of(
    CELLS['table1.vie_slow.kinetics.conv5'], {'conv5': 0.4}
  )
  own['dataset']['name'] = 'mine'
  heading, table = 'Evaluations that are in no table', 'Table 1'
  fake_results.write(tmp_path / 'A' / 'linear_eval' / 'mine', own)
  for number, before in enumerate((True, False)):
    out = tmp_path / f'{number}.html'
    done = run(tmp_path / 'A', '--out', out)
    assert ' 1 is in no cell' in done.stdout
    assert '1 evaluation is in no table' in out.read_text()
    for page in (out, out.with_suffix('.md')):
      text = page.read_text()
      start = '<h2' if page is out else '## '
      first = [part for part in text.split(start)[1:] if table in part[:60]]
      assert (
        text.index(f'{start}{first[0][:9]}') > text.index(heading)
      ) == before
    write_slow(tmp_path / 'A' / 'linear_eval' / 'k')


def test_an_averaged_readout_is_told_where_no_cell_is_of_it(tmp_path):
  figures = {'conv3': 0.31, 'conv4': 0.42, 'conv5': 0.577}
  facts = fake_results.facts_of(
    CELLS['table1.vie_slow.kinetics.conv5'], figures
  )
  facts['settings']['averaged_layers'] = ['conv5']
  fake_results.write(tmp_path / 'runs' / 'slow' / 'linear_eval' / 'k', facts)
  _, plain = written(tmp_path)
  assert '2 of the 154 figures' in plain
  told = ['slow/linear\\_eval/k', 'label, conv5 averaged', '57.7']
  assert [r[1:4] for r in rows(plain) if 'averaged' in str(r)] == [told]
  # No poor scan, but a remark.
  assert '/ 32.87 ' in plain
  assert 'averages Conv5 of supervised' in plain


def test_a_workdir_that_nobody_may_look_into_is_no_empty_one(tmp_path, capsys):
  write_slow(tmp_path / 'open' / 'linear_eval' / 'x')
  write_slow(tmp_path / 'run' / 'linear_eval' / 'x')
  folder, page = tmp_path / 'run', tmp_path / 'report.html'
  folder.chmod(0)
  # Root looks into every folder, with its capabilities.
  with other_user.running(tmp_path):
    code = report.main(
      [str(tmp_path / 'open'), str(folder), '--out', str(page)]
    )
  folder.chmod(0o755)
  assert code == 2
  assert (
    f'{folder} cannot be read: Permission denied.' in capsys.readouterr().err
  )
  assert not page.exists()


@pytest.mark.parametrize('number', [errno.EACCES, errno.ENOENT])
def test_a_folder_below_that_is_closed_or_gone_is_passed_over(
  tmp_path, capsys, monkeypatch, number
):
  """Such as a disk's lost+found, and what a run removes meanwhile."""
  write_slow(tmp_path / 'run' / 'linear_eval' / 'x')
  walk, other = os.walk, str(tmp_path / 'run' / 'other')

  def walk_by(root, onerror):
    onerror(OSError(number, os.strerror(number), other))
    yield from walk(root, onerror=onerror)

  monkeypatch.setattr(os, 'walk', walk_by)
  page = tmp_path / 'report.html'
  assert report.main([str(tmp_path / 'run'), '--out', str(page)]) == 0
  assert page.exists()
  said = f'{other} cannot be read: Permission denied.'
  assert (said in capsys.readouterr().err) == (number == errno.EACCES)


def test_a_folder_in_a_closed_one_is_not_said_to_be_missing(tmp_path, capsys):
  write_slow(tmp_path / 'closed' / 'run' / 'linear_eval' / 'x')
  (tmp_path / 'closed').chmod(0)
  page = tmp_path / 'report.html'
  folder = tmp_path / 'closed' / 'run'
  with other_user.running(tmp_path):
    code = report.main([str(folder), '--out', str(page)])
  (tmp_path / 'closed').chmod(0o755)
  assert code == 2
  assert (
    f'{folder} cannot be read: Permission denied.' in capsys.readouterr().err
  )
