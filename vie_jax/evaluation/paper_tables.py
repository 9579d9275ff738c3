"""Tables 1 to 5 of the paper: its figures, and what result of ours each is.

Every figure is a `Cell` with a name of its own, such as
`table1.vie_slow.kinetics.conv4`. A cell says what a result must be to stand
in its place; `cell_results.find` picks the figure from a `result.json`.

Source: "Unsupervised Learning from Video with Deep Neural Embeddings" (ICLR
2020 submission, arXiv:1905.11954), tables 1 to 5, top-1 accuracy in percent.
The text at hand is a scan. A figure that needed more than reading has a note
that says what the scan shows; one that cannot be read is None.
"""

import dataclasses

NETWORKS = {
  'vie_single': 'VIE-Single',
  'vie_trn': 'VIE-TRN',
  'vie_3dresnet': 'VIE-3DResNet',
  'vie_slow': 'VIE-Slow',
  'vie_slowfast': 'VIE-SlowFast',
  'vie_twostream_s': 'VIE-TwoStream-S',
  'vie_twostream_sf': 'VIE-TwoStream-SF',
}
# The frames that a network sees, unless the cell is about that.
SAMPLERS = {
  'vie_single': ('single',),
  'vie_trn': ('trn',),
  'vie_3dresnet': ('3dresnet',),
  'vie_slow': ('slow', 'slow_looped'),
  'vie_slowfast': ('slowfast',),
  'vie_twostream_s': ('slow', 'slow_looped'),
  'vie_twostream_sf': ('slowfast',),
}
LAYERS = ('conv3', 'conv4', 'conv5')
CLASSIFIER = 'classifier'
# How weights of a cell may have come to be, as `network.training` says it.
# Published weights of the authors are of Local Aggregation.
LOCAL_AGGREGATION = ('local_aggregation', 'official')
INSTANCE_RECOGNITION = ('instance_recognition',)
SUPERVISED = ('supervised',)
RANDOM = ('random',)
SIDE_BY_SIDE = ('side_by_side',)
# Officially these are read out at a pooled Conv5 on ImageNet when supervised.
POOLED_CONV5 = ('vie_single', 'vie_slow', 'vie_slowfast')


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What a result must be to stand in a cell.

  Attributes:
    mode: of main.py.
    role: of the data set that it was tested on.
    network: its name in the config.
    training: of the weights that the evaluation started from.
    samplers: the frames that were shown, one of these.
    figure: name of the readout, or 'classifier'.
    share: of the videos that the weights were trained on.
    bins: '2bin', '5bin', or '' for whole videos.
    augmentation: of trainings of the whole network; '' for readouts.
    averaged_layers: which may have been averaged over space before the readout;
      all others are flattened.
  """

  mode: str
  role: str
  network: str
  training: tuple[str, ...]
  samplers: tuple[str, ...]
  figure: str
  share: float = 1.0
  bins: str = ''
  augmentation: str = ''
  averaged_layers: tuple[str, ...] = ()

  @property
  def origins(self) -> tuple[str, ...]:
    """What trainings before that of the weights may have been, likewise.

    Local Aggregation goes on from Instance Recognition, and VIE-TRN of the
    paper from VIE-Single.
    """
    if self.training in (LOCAL_AGGREGATION, SIDE_BY_SIDE):
      return (*INSTANCE_RECOGNITION, *LOCAL_AGGREGATION)
    return self.training if self.training == INSTANCE_RECOGNITION else ()


@dataclasses.dataclass(frozen=True)
class Cell:
  """A figure of the paper.

  Attributes:
    name: of the cell, unique.
    paper: top-1 in percent; None where it cannot be read.
    note: what is to be known about the paper's figure; '' for nothing.
    wanted: the result that stands beside it.
  """

  name: str
  paper: float | None
  note: str
  wanted: Wanted


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table: cells or None by column, None where the paper has none.

  Attributes:
    title: of the row.
    cells: one for each column of the table.
  """

  title: str
  cells: tuple[Cell | None, ...]


@dataclasses.dataclass(frozen=True)
class Quoted:
  """A row of other authors' methods: figures as the paper prints them."""

  title: str
  figures: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of the paper.

  Attributes:
    name: 'table1' ... 'table5'.
    title: what it is about.
    groups: (title, number of columns) of neighbouring columns.
    columns: titles within the groups.
    rows: those that a result of ours can fill.
    quoted: those of other authors' methods, which are not part of this code.
    remark: what is to be known of results of ours beside them; '' for nothing.
  """

  name: str
  title: str
  groups: tuple[tuple[str, int], ...]
  columns: tuple[str, ...]
  rows: tuple[Row, ...]
  quoted: tuple[Quoted, ...] = ()
  remark: str = ''

  @property
  def cells(self) -> tuple[Cell, ...]:
    """All cells, row by row."""
    return tuple(c for row in self.rows for c in row.cells if c is not None)


# Figures by row: supervised; then Conv3, Conv4, Conv5 on Kinetics, and the
# same on ImageNet.
_TABLE_1 = {
  'random': (None, 9.40, 8.43, 6.84, 7.98, 7.78, 6.23),
  'vie_single_ir': (57.59, 23.50, 38.72, 43.85, 22.85, 40.49, 40.43),
  'vie_single': (57.59, 23.84, 38.25, 44.41, 25.02, 40.49, 42.33),
  'vie_trn': (59.43, 25.72, 39.38, 44.91, 27.24, 40.28, 37.44),
  'vie_3dresnet': (53.22, 33.01, 41.34, 43.40, 30.18, 35.37, 32.62),
  'vie_slow': (60.84, 24.80, 40.48, 46.36, 20.10, 37.02, 37.45),
  'vie_slowfast': (62.36, 28.68, 42.07, 47.37, 22.61, 36.84, 36.60),
  'vie_twostream_s': (None, 26.38, 41.80, 47.13, 23.98, 40.52, 44.02),
  'vie_twostream_sf': (None, 29.89, 43.50, 48.53, 23.23, 40.73, 43.69),
}
# UCF101 and HMDB51 with the multi-scale augmentation, and with colour noise.
_TABLE_2 = {
  ('vie_3dresnet', 'scratch'): (47.4, 21.5, 60.0, 27.0),
  ('vie_3dresnet', 'vie'): (72.3, 44.8, 75.5, 44.6),
  ('vie_3dresnet', 'supervised'): (84.4, 58.7, 84.8, 60.2),
  ('vie_slowfast', 'scratch'): (55.8, 21.4, 70.0, None),
  ('vie_slowfast', 'vie'): (77.0, 46.5, 78.9, 50.1),
  ('vie_slowfast', 'supervised'): (88.4, 68.4, 89.7, 70.4),
  ('vie_single', 'scratch'): (46.7, 17.3, 57.3, 23.9),
  ('vie_single', 'vie'): (71.2, 38.4, 73.1, 41.2),
  ('vie_single', 'supervised'): (81.0, 49.9, 83.5, 52.9),
  ('vie_twostream_sf', 'vie'): (78.2, 50.5, 80.4, 52.5),
}
_TABLE_2_OTHERS = (
  Quoted('AlexNet, CMC, pretrained on UCF101', ('~59.1', '~26.7', '', '')),
  Quoted('AlexNet, OPN, pretrained on UCF101', ('56.3', '22.1', '', '')),
  Quoted('C3D, MoAp', ('~61.2', '~33.4', '', '')),
  Quoted('3DResNet, 3DRotNet', ('~62.9', '~33.7', '', '')),
  Quoted('3DResNet, 3DRotNet, 64 frames', ('66.0', '37.1', '', '')),
  Quoted('C3D, ST-Puzzle', ('60.6', '28.3', '', '')),
  Quoted('3DResNet, ST-Puzzle', ('65.8', '33.7', '', '')),
)
# VIE-Single on parts of the data: share, bins; the figures as in table 1.
_TABLE_3 = {
  'vie_single': (1.0, '', 23.84, 38.25, 44.41, 25.02, 40.49, 42.33),
  'vie_single_70': (0.7, '', 26.18, 38.87, 43.59, 23.05, 39.63, 39.85),
  'vie_single_30': (0.3, '', 25.54, 37.49, 40.72, 23.33, 38.49, 36.23),
  'vie_single_2bin': (1.0, '2bin', 24.54, 39.16, 44.24, 25.55, 41.43, 39.36),
  'vie_single_5bin': (1.0, '5bin', 25.17, 38.73, 43.33, 23.90, 40.46, 37.83),
}
_TABLE_4 = {
  'trn': (25.52, 39.25, 44.27),
  'slow': (26.17, 39.24, 44.62),
  'slowfast': (25.72, 39.38, 44.29),
}
_TABLE_5 = {
  'vie_single': (22.32, 37.82, 38.26),
  'vie_trn': (22.82, 41.13, 39.15),
  'vie_3dresnet': (28.09, 34.40, 30.56),
  'vie_slow': (21.86, 40.77, 32.87),
  'vie_slowfast': (20.25, 37.41, 30.75),
}
_NO_POINT = 'restored: the scan has lost the decimal point'
NOTES = {
  'table1.vie_slowfast.kinetics.supervised': 'restored: the scan has "[62361"',
  'table1.vie_twostream_s.imagenet.conv5': 'restored: the scan has "44021"',
  'table1.vie_twostream_sf.kinetics.conv5': (
    'restored: the scan has "[48531"; the text of the paper rounds it to 48.5'
  ),
  'table2.vie_3dresnet.scratch.ucf101.multiscale': _NO_POINT,
  'table2.vie_3dresnet.scratch.hmdb51.multiscale': _NO_POINT,
  'table2.vie_slowfast.scratch.ucf101.multiscale': _NO_POINT,
  'table2.vie_slowfast.scratch.hmdb51.multiscale': _NO_POINT,
  'table2.vie_slowfast.scratch.hmdb51.color_noise': (
    'illegible: the scan shows no figure here'
  ),
  'table2.vie_slowfast.vie.ucf101.color_noise': _NO_POINT,
  'table2.vie_slowfast.vie.hmdb51.color_noise': (
    'restored: the scan has "50:1"'
  ),
  'table2.vie_single.scratch.ucf101.multiscale': _NO_POINT,
  'table2.vie_single.scratch.hmdb51.multiscale': _NO_POINT,
}
_ALGORITHMS = {
  'scratch': ('Scratch', RANDOM),
  'vie': ('VIE', LOCAL_AGGREGATION),
  'supervised': ('Supervised', SUPERVISED),
}
# The paper's names in table 2.
_TABLE_2_NETWORKS = {
  'vie_3dresnet': '3DResNet',
  'vie_slowfast': 'SlowFast',
  'vie_single': 'ResNet18',
  'vie_twostream_sf': 'VIE-TwoStream-SF',
}
_LAYER_TITLES = tuple(layer.capitalize() for layer in LAYERS)


def _cell(name: str, paper: float | None, wanted: Wanted) -> Cell:
  return Cell(name, paper, NOTES.get(name, ''), wanted)


def _readouts(
  prefix: str,
  role: str,
  network: str,
  training: tuple[str, ...],
  figures: tuple[float, ...],
  **more,
) -> tuple[Cell, ...]:
  """Cells of linear readouts from Conv3, Conv4 and Conv5."""
  samplers = more.pop('samplers', SAMPLERS[network])
  return tuple(
    _cell(
      f'{prefix}.{role}.{layer}',
      paper,
      Wanted('linear_eval', role, network, training, samplers, layer, **more),
    )
    for layer, paper in zip(LAYERS, figures, strict=True)
  )


def _row_of_table_1(name: str, figures: tuple[float | None, ...]) -> Row:
  network = {'random': 'vie_single', 'vie_single_ir': 'vie_single'}.get(
    name, name
  )
  training, title = LOCAL_AGGREGATION, NETWORKS[network]
  if name == 'random':
    training, title = RANDOM, 'Random'
  elif name == 'vie_single_ir':
    training, title = INSTANCE_RECOGNITION, f'{title} (IR)'
  elif 'twostream' in name:
    training = SIDE_BY_SIDE
  supervised, *readouts = figures
  first = supervised and _cell(
    f'table1.{name}.kinetics.supervised',
    supervised,
    Wanted(
      'supervised',
      'kinetics',
      network,
      # What it started from, or what it came to be.
      (*RANDOM, *SUPERVISED),
      SAMPLERS[network],
      CLASSIFIER,
      augmentation='color_noise',
    ),
  )
  prefix = f'table1.{name}'
  return Row(
    title,
    (
      first,
      *_readouts(prefix, 'kinetics', network, training, readouts[:3]),
      *_readouts(prefix, 'imagenet', network, training, readouts[3:]),
    ),
  )


def _row_of_table_2(network: str, algorithm: str, figures) -> Row:
  title, training = _ALGORITHMS[algorithm]
  if network == 'vie_twostream_sf':
    training = SIDE_BY_SIDE
  where = [
    (role, augmentation)
    for augmentation in ('multiscale', 'color_noise')
    for role in ('ucf101', 'hmdb51')
  ]
  return Row(
    f'{_TABLE_2_NETWORKS[network]}, {title}',
    tuple(
      _cell(
        f'table2.{network}.{algorithm}.{role}.{augmentation}',
        paper,
        Wanted(
          'finetune',
          role,
          network,
          training,
          SAMPLERS[network],
          CLASSIFIER,
          augmentation=augmentation,
        ),
      )
      for (role, augmentation), paper in zip(where, figures, strict=True)
    ),
  )


def _row_of_table_3(name: str, share: float, bins: str, *figures) -> Row:
  title = {
    'vie_single': 'VIE-Single',
    'vie_single_2bin': '2bin',
    'vie_single_5bin': '5bin',
  }.get(name, f'{100 * share:.0f} %')
  more = {'share': share, 'bins': bins}
  prefix, single = f'table3.{name}', 'vie_single'
  return Row(
    title,
    tuple(
      cell
      for role, part in (('kinetics', figures[:3]), ('imagenet', figures[3:]))
      for cell in _readouts(
        prefix, role, single, LOCAL_AGGREGATION, part, **more
      )
    ),
  )


def _row_of_table_4(clips: str, figures: tuple[float, ...]) -> Row:
  title = {'trn': 'TRN', 'slow': 'Slow', 'slowfast': 'SlowFast'}[clips]
  return Row(
    f'{title}-Input-Single',
    _readouts(
      f'table4.{clips}_input_single',
      'kinetics',
      'vie_single',
      LOCAL_AGGREGATION,
      figures,
      samplers=SAMPLERS[f'vie_{clips}'],
    ),
  )


def _row_of_table_5(network: str, figures: tuple[float, ...]) -> Row:
  return Row(
    NETWORKS[network].replace('VIE', 'Supervised'),
    _readouts(
      f'table5.supervised_{network.removeprefix("vie_")}',
      'imagenet',
      network,
      SUPERVISED,
      figures,
      averaged_layers=('conv5',) if network in POOLED_CONV5 else (),
    ),
  )


TABLES = (
  Table(
    'table1',
    'Linear readouts on Kinetics and, as static video, on ImageNet',
    (('Kinetics', 4), ('ImageNet', 3)),
    ('Super.', *_LAYER_TITLES, *_LAYER_TITLES),
    tuple(_row_of_table_1(*item) for item in _TABLE_1.items()),
  ),
  Table(
    'table2',
    'Finetuning on UCF101 and HMDB51, pretrained on Kinetics',
    (('multi-scale augmentation', 2), ('colour-noise augmentation', 2)),
    ('UCF101', 'HMDB51', 'UCF101', 'HMDB51'),
    tuple(_row_of_table_2(*key, row) for key, row in _TABLE_2.items()),
    _TABLE_2_OTHERS,
  ),
  Table(
    'table3',
    'VIE-Single on less data, and on parts of videos',
    (('Kinetics', 3), ('ImageNet', 3)),
    (*_LAYER_TITLES, *_LAYER_TITLES),
    tuple(_row_of_table_3(name, *row) for name, row in _TABLE_3.items()),
  ),
  Table(
    'table4',
    'VIE-Single on the clips of multi-frame networks',
    (('Kinetics', 3),),
    _LAYER_TITLES,
    tuple(_row_of_table_4(*item) for item in _TABLE_4.items()),
  ),
  Table(
    'table5',
    'ImageNet readouts of networks that were supervised on Kinetics',
    (('ImageNet', 3),),
    _LAYER_TITLES,
    tuple(_row_of_table_5(*item) for item in _TABLE_5.items()),
    remark=(
      'The official code averages Conv5 of supervised Single, Slow and SlowFast '
      'over space here, of which the paper says nothing; ours is as the settings '
      'of the result say (linear_eval.averaged_layers).'
    ),
  ),
)
CELLS = {cell.name: cell for table in TABLES for cell in table.cells}


def evaluation_of(cell: Cell) -> Wanted:
  """What one run of main.py fills along with the cell: equal for all of it."""
  return dataclasses.replace(cell.wanted, figure='')
