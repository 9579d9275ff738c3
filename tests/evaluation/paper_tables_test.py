"""The paper's tables: complete, as printed, and filled by the right results."""

import copy
import re

import fake_results
import pytest

from vie_jax.evaluation import cell_results, paper_roles, paper_tables
from vie_jax.evaluation.paper_roles import Role
from vie_jax.evaluation.paper_tables import CELLS

# As the paper prints them: a row of each table, and the extremes.
PRINTED = {
  'table1.random.kinetics.conv3': 9.40,
  'table1.random.imagenet.conv5': 6.23,
  'table1.vie_single_ir.kinetics.supervised': 57.59,
  'table1.vie_single.kinetics.conv5': 44.41,
  'table1.vie_trn.imagenet.conv3': 27.24,
  'table1.vie_3dresnet.kinetics.conv3': 33.01,
  'table1.vie_slow.kinetics.supervised': 60.84,
  'table1.vie_slow.kinetics.conv4': 40.48,
  'table1.vie_slowfast.kinetics.conv5': 47.37,
  'table1.vie_twostream_sf.kinetics.conv5': 48.53,
  'table1.vie_twostream_s.imagenet.conv5': 44.02,
  'table2.vie_3dresnet.scratch.ucf101.color_noise': 60.0,
  'table2.vie_3dresnet.vie.hmdb51.multiscale': 44.8,
  'table2.vie_slowfast.supervised.ucf101.color_noise': 89.7,
  'table2.vie_single.vie.hmdb51.color_noise': 41.2,
  'table2.vie_twostream_sf.vie.ucf101.multiscale': 78.2,
  'table3.vie_single_70.imagenet.conv5': 39.85,
  'table3.vie_single_30.kinetics.conv5': 40.72,
  'table3.vie_single_2bin.kinetics.conv4': 39.16,
  'table3.vie_single_5bin.imagenet.conv3': 23.90,
  'table4.trn_input_single.kinetics.conv3': 25.52,
  'table4.slowfast_input_single.kinetics.conv5': 44.29,
  'table5.supervised_single.imagenet.conv4': 37.82,
  'table5.supervised_slowfast.imagenet.conv5': 30.75,
}


def finds(cell, facts, **options):
  return cell_results.find(cell, facts, **options) is not None


def test_every_table_has_all_its_cells():
  counts = {table.name: len(table.cells) for table in paper_tables.TABLES}
  assert counts == {
    'table1': 60,
    'table2': 40,
    'table3': 30,
    'table4': 9,
    'table5': 15,
  }
  assert len(CELLS) == sum(counts.values())


def test_names_are_words_with_points_between():
  for name in CELLS:
    assert re.fullmatch(r'table[1-5](\.[a-z0-9_]+){3,4}', name), name


@pytest.mark.parametrize('name', PRINTED)
def test_figures_are_the_papers(name):
  assert CELLS[name].paper == PRINTED[name]


def test_a_row_that_is_in_two_tables_has_the_same_figures():
  for name, cell in CELLS.items():
    if name.startswith('table3.vie_single.'):
      twin = CELLS[name.replace('table3', 'table1')]
      assert (cell.paper, cell.wanted) == (twin.paper, twin.wanted)


def test_the_figure_that_cannot_be_read_is_none_and_says_so():
  unknown = [cell for cell in CELLS.values() if cell.paper is None]
  assert [cell.name for cell in unknown] == [
    'table2.vie_slowfast.scratch.hmdb51.color_noise'
  ]
  assert 'illegible' in unknown[0].note


def test_every_restored_figure_has_a_note_and_every_note_a_cell():
  assert set(paper_tables.NOTES) <= set(CELLS)
  assert CELLS['table1.vie_slowfast.kinetics.supervised'].note
  restored = [c for c in CELLS.values() if c.note.startswith('restored')]
  assert len(restored) == 11


def test_a_result_fills_the_cells_of_its_evaluation_and_no_others():
  for cells in fake_results.evaluations():
    facts = fake_results.facts_of(
      cells[0], {cell.wanted.figure: 0.5 for cell in cells}
    )
    key = paper_tables.evaluation_of(cells[0])
    for cell in CELLS.values():
      belongs = paper_tables.evaluation_of(cell) == key
      assert finds(cell, facts) == belongs, (cell.name, cells[0].name)


@pytest.mark.parametrize(
  'name, path, value',
  [
    ('table1.vie_slow.kinetics.conv4', 'mode', 'knn_eval'),
    ('table1.vie_slow.kinetics.conv4', 'dataset.name', 'other'),
    ('table1.vie_slow.kinetics.conv4', 'network.name', 'vie_slowfast'),
    ('table1.vie_slow.kinetics.conv4', 'network.training', 'random'),
    ('table1.vie_slow.kinetics.conv4', 'network.input.sampler', 'trn'),
    ('table1.vie_slow.kinetics.conv4', 'network.trained_on.share', 0.7),
    ('table1.vie_slow.kinetics.conv4', 'network.trained_on.bin_frames', 52),
    ('table1.vie_slow.kinetics.conv4', 'network.trained_on.name', 'ucf101'),
    (
      'table1.vie_slow.kinetics.conv4',
      'network.trained_on.with_replacement',
      True,
    ),
    ('table3.vie_single_30.kinetics.conv4', 'network.trained_on.share', 0.31),
    (
      'table3.vie_single_30.kinetics.conv4',
      'network.trained_on.with_replacement',
      True,
    ),
    *(
      (f'table{place}', f'network.streams.{stream}.{field}', value)
      for place in (
        '1.vie_twostream_s.kinetics.conv5',
        '2.vie_twostream_sf.vie.ucf101.multiscale',
      )
      for stream in ('single', 'motion')
      for field, value in (
        ('training', 'random'),
        ('training', 'instance_recognition'),
        ('training', 'supervised'),
        ('trained_on.name', 'ucf101'),
        ('trained_on.share', 0.3),
      )
    ),
    ('table3.vie_single_2bin.kinetics.conv4', 'network.trained_on', None),
    (
      'table2.vie_single.vie.ucf101.multiscale',
      'settings.augmentation',
      'color_noise',
    ),
    (
      'table1.vie_slow.kinetics.supervised',
      'settings.augmentation',
      'multiscale',
    ),
    (
      'table1.vie_slow.imagenet.conv5',
      'settings.averaged_layers',
      ['conv5'],
    ),
    (
      'table5.supervised_trn.imagenet.conv5',
      'settings.averaged_layers',
      ['conv5'],
    ),
    ('table2.vie_single.vie.ucf101.multiscale', 'dataset.name', 'hmdb51'),
    (
      'table2.vie_single.scratch.ucf101.multiscale',
      'network.training',
      'supervised',
    ),
  ],
)
def test_a_result_of_something_else_fills_no_cell(name, path, value):
  facts = fake_results.facts_of(CELLS[name], {CELLS[name].wanted.figure: 0.5})
  assert finds(CELLS[name], facts)
  other = copy.deepcopy(facts)
  *parents, last = path.split('.')
  inner = other
  for parent in parents:
    inner = inner[parent]
  inner[last] = value
  assert not finds(CELLS[name], other)


def test_conv5_of_supervised_networks_may_be_averaged_which_a_remark_says():
  cell = CELLS['table5.supervised_slow.imagenet.conv5']
  assert not cell.note
  assert 'averages Conv5' in paper_tables.TABLES[4].remark
  for averaged in ([], ['conv5']):
    facts = fake_results.facts_of(cell, {'conv3': 0.4, 'conv5': 0.5})
    facts['settings']['averaged_layers'] = averaged
    assert finds(cell, facts)
    assert finds(CELLS['table5.supervised_slow.imagenet.conv3'], facts)


@pytest.mark.parametrize('broken', ['text', 3, None, []])
@pytest.mark.parametrize('part', ['trained_on', 'input'])
def test_parts_that_are_no_objects_are_no_match_and_no_crash(part, broken):
  cell = CELLS['table3.vie_single_30.kinetics.conv4']
  facts = fake_results.facts_of(cell, {'conv4': 0.5})
  facts['network'][part] = broken
  facts['settings'] = broken
  assert not finds(cell, facts)


def test_weights_of_the_authors_fill_the_row_of_their_network():
  cell = CELLS['table1.vie_3dresnet.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  facts['network'] |= {'training': 'official', 'trained_on': None}
  assert finds(cell, facts)


def role_of_kinetics(**known):
  role = Role('kinetics400', **known)
  return {'roles': paper_roles.ROLES | {'kinetics': role}}


@pytest.mark.parametrize(
  'trained_on, known, fills',
  [
    # Results of before have no name; that of the data set may be known.
    ({'fingerprint': 'a'}, {'fingerprint': 'a', 'path': '/k'}, True),
    ({'fingerprint': 'b'}, {'fingerprint': 'a', 'path': '/k'}, False),
    # It was moved.
    ({'fingerprint': 'a', 'path': '/old'}, {'fingerprint': 'a'}, True),
    # The fingerprint is of 30 % of it.
    ({'fingerprint': 'b', 'path': '/k', 'share': 0.3}, {'path': '/k'}, True),
    ({'fingerprint': 'b', 'path': '/u', 'share': 0.3}, {'path': '/k'}, False),
    ({'fingerprint': 'b', 'path': '/u'}, {}, True),
    # One that is called the same, and is another one.
    ({'name': 'kinetics400'}, {'fingerprint': 'a'}, True),
    (
      {'name': 'kinetics400', 'dataset_fingerprint': 'b'},
      {'fingerprint': 'a'},
      False,
    ),
    (
      {'name': 'kinetics400', 'dataset_fingerprint': 'a', 'fingerprint': 'b'},
      {'fingerprint': 'a'},
      True,
    ),
  ],
)
def test_networks_are_told_by_the_data_set_that_they_were_trained_on(
  trained_on, known, fills
):
  share = trained_on.get('share', 1.0)
  name = 'vie_single_30' if share < 1 else 'vie_single'
  cell = CELLS[f'table3.{name}.imagenet.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  facts['network']['trained_on'] = {'share': share, **trained_on}
  assert finds(cell, facts, **role_of_kinetics(**known)) == fills


def test_a_result_on_another_data_set_of_that_name_fills_no_cell():
  cell = CELLS['table1.vie_slow.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  own = facts['dataset']['fingerprint']
  assert finds(cell, facts, **role_of_kinetics(fingerprint=own))
  assert not finds(cell, facts, **role_of_kinetics(fingerprint='0' * 16))


def test_two_streams_of_before_fill_their_cells_unless_one_was_not_trained():
  cell = CELLS['table1.vie_twostream_s.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  del facts['network']['streams']
  facts['network']['source'] = 'A, B'
  assert finds(cell, facts)
  facts['network']['source'] = 'A, random'
  assert not finds(cell, facts)


@pytest.mark.parametrize('broken', ['text', [], {'single': 'text'}, {'a': {}}])
def test_streams_that_are_none_are_no_match_and_no_crash(broken):
  cell = CELLS['table1.vie_twostream_s.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  facts['network']['streams'] = broken
  assert not finds(cell, facts)


def test_a_readout_of_some_layers_fills_those_only():
  cells = [CELLS[f'table1.vie_slow.kinetics.conv{n}'] for n in (3, 4, 5)]
  facts = fake_results.facts_of(cells[0], {'conv3': 0.3, 'conv5': 0.5})
  assert [finds(cell, facts) for cell in cells] == [True, False, True]


def test_other_data_sets_can_play_the_roles():
  cell = CELLS['table1.vie_slow.kinetics.conv4']
  facts = fake_results.facts_of(cell, {'conv4': 0.5}, column='motion')
  facts['accuracy']['appearance'] = {'conv4': {'top1': 0.9}}
  facts['dataset']['name'] = facts['network']['trained_on']['name'] = 'demo'
  roles = paper_roles.ROLES | {'kinetics': Role('demo', 'motion')}
  assert not finds(cell, facts)
  assert cell_results.find(cell, facts, roles=roles)['top1'] == 0.5
  roles['kinetics'] = Role('demo', 'appearance')
  assert cell_results.find(cell, facts, roles=roles)['top1'] == 0.9


def test_bins_of_other_lengths_can_stand_for_the_papers():
  cell = CELLS['table3.vie_single_5bin.kinetics.conv4']
  facts = fake_results.facts_of(cell, {'conv4': 0.5})
  facts['network']['trained_on']['bin_frames'] = 10
  assert not finds(cell, facts)
  assert finds(cell, facts, bins={'2bin': 24, '5bin': 10})


def origin(training, **trained_on):
  """An entry of started_from, of what plays Kinetics."""
  dataset = {'name': 'kinetics400', 'share': 1.0, 'bin_frames': 0}
  return {
    'training': training,
    'step': 3,
    'source': 'runs/A',
    'trained_on': dataset | trained_on,
  }


IR, LA = origin('instance_recognition'), origin('local_aggregation')
UNKNOWN = {'training': 'unknown', 'step': None, 'source': 'runs/A'}
OFFICIAL = {'training': 'official', 'step': 7, 'source': 'official:A'}
OF_A_PART = origin('local_aggregation', share=0.3)


@pytest.mark.parametrize(
  'row, started_from, fault',
  [
    ('vie_trn', [LA], ''),
    ('vie_single', [IR], ''),
    ('vie_single', [LA, IR], ''),
    ('vie_single', [OFFICIAL], ''),
    ('vie_single', [UNKNOWN], ''),
    ('vie_single', [origin('finetuned')], 'have seen labels'),
    ('vie_single', [LA, origin('supervised'), IR], 'have seen labels'),
    ('vie_single', [OF_A_PART], 'other videos'),
    ('vie_single', [origin('local_aggregation', name='ucf101')], 'other'),
    ('vie_single', 'text', 'no network of that row'),
    ('vie_single_ir', [IR], ''),
    ('vie_single_ir', [UNKNOWN], ''),
    ('vie_single_ir', [LA], 'no network of that row'),
    ('vie_single_ir', [IR, LA], 'no network of that row'),
    ('vie_single_ir', [OFFICIAL], 'no network of that row'),
    ('vie_single_ir', [IR, origin('finetuned')], 'have seen labels'),
  ],
)
def test_a_cell_is_of_networks_that_started_from_what_its_row_does(
  row, started_from, fault
):
  cell = CELLS[f'table1.{row}.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  facts['network']['started_from'] = started_from
  options = {'roles': paper_roles.ROLES, 'bins': paper_roles.BINS}
  reason = cell_results.reason_against(cell, facts, **options)
  assert finds(cell, facts) == (not fault)
  assert fault in reason
  assert bool(reason) == bool(fault)
  # That is no reason against a result of something else.
  facts['mode'] = 'knn_eval'
  assert cell_results.reason_against(cell, facts, **options) == ''


def test_a_part_of_the_data_may_start_from_the_same_part():
  cell = CELLS['table3.vie_single_30.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  for started_from, is_it in (([OF_A_PART], True), ([IR], False)):
    facts['network']['started_from'] = started_from
    assert finds(cell, facts) == is_it


@pytest.mark.parametrize('stream', ['single', 'motion'])
def test_no_stream_of_a_cell_has_seen_labels(stream):
  cell = CELLS['table1.vie_twostream_s.kinetics.conv5']
  facts = copy.deepcopy(fake_results.facts_of(cell, {'conv5': 0.5}))
  facts['network']['streams'][stream]['started_from'] = [IR]
  assert finds(cell, facts)
  facts['network']['streams'][stream]['started_from'] = [origin('finetuned')]
  assert not finds(cell, facts)


def test_a_supervised_network_of_a_cell_is_trained_from_scratch():
  cell = CELLS['table5.supervised_single.imagenet.conv4']
  facts = fake_results.facts_of(cell, {'conv4': 0.5})
  facts['network']['started_from'] = []
  assert finds(cell, facts)
  facts['network']['started_from'] = [LA]
  assert not finds(cell, facts)
