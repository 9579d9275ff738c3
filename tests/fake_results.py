"""Results as the modes write them, without running anything."""

import json
import math

from vie_jax.evaluation import paper_roles, paper_tables


def facts_of(cell, accuracy, *, column='label', clip_gap=0.05, **changes):
  """What a result.json that fills a cell holds.

  Args:
    cell: of a table.
    accuracy: figure -> video top-1, a fraction.
    column: label column.
    clip_gap: by how much single clips are worse.
    **changes: top-level entries to put in place of these.
  """
  wanted = cell.wanted
  is_random = wanted.training[0] == 'random'
  trained_on = {
    'name': paper_roles.ROLES['kinetics'].dataset,
    'path': '/data/kinetics',
    'fingerprint': 'f' * 16,
    'share': wanted.share,
    'bin_frames': paper_roles.BINS.get(wanted.bins, 0),
  }
  stream = {'training': 'local_aggregation', 'trained_on': trained_on}
  is_two = wanted.training == paper_tables.SIDE_BY_SIDE
  return {
    'format_version': 1,
    'mode': wanted.mode,
    'seed': 0,
    'commit': 'abc1234',
    'date': '2026-11-23T18:00:00+00:00',
    'seconds': 12.3,
    'hardware': {'devices': '1 x cpu', 'cores': 2, 'machine': 'x86_64'},
    'versions': {'jax': '0.10.2'},
    'dataset': {
      'name': paper_roles.ROLES[wanted.role].dataset,
      'path': f'/data/{wanted.role}',
      'kind': 'image' if wanted.role == 'imagenet' else 'video',
      'fingerprint': 'f' * 16,
      'train': 786,
      'val': 214,
      'split': 'val',
    },
    'network': {
      'name': wanted.network,
      'training': wanted.training[0],
      'step': 0 if is_random else 450,
      'source': 'random' if is_random else 'W',
      'input': {
        'sampler': wanted.samplers[0],
        'num_frames': 4,
        'frame_step': 4,
        'size': 32,
      },
      'trained_on': None if is_random else trained_on,
      **({'streams': {'single': stream, 'motion': stream}} if is_two else {}),
    },
    'views': {'clips': 5, 'crop': 'center', 'average': 'softmax'},
    'accuracy': {
      column: {
        name: {
          'top1': value,
          'top5': min(1.0, value + 0.2),
          'clip_top1': max(0.0, value - clip_gap),
        }
        for name, value in accuracy.items()
      }
    },
    'chance': {column: 0.1},
    'steps': 1000,
    'settings': {'augmentation': wanted.augmentation},
    'config': {},
  } | changes


def evaluations():
  """Cells by the evaluation that fills them, without repetition."""
  groups = {}
  for cell in paper_tables.CELLS.values():
    key = paper_tables.evaluation_of(cell)
    groups.setdefault(key, {}).setdefault(cell.wanted.figure, cell)
  return [list(by_figure.values()) for by_figure in groups.values()]


def write(folder, facts, *, curve=None):
  """Writes result.json and, of an accuracy that rises, metrics.jsonl."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'result.json').write_text(json.dumps(facts))
  if curve is None:
    return
  lines = [
    {
      'step': step,
      'train/loss': 3 * math.exp(-step / 300) + 0.1 * math.sin(step),
      **{
        f'val/{column}_{name}_{figure}': value * (1 - math.exp(-step / 200))
        for column, by_name in facts['accuracy'].items()
        for name, figures in by_name.items()
        for figure, value in figures.items()
      },
    }
    for step in range(0, curve, 50)
  ]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'metrics.jsonl').write_text(text)
