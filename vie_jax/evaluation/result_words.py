"""What a report says of a result: figures and facts in words.

Nothing here is escaped; that is the business of the page.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from vie_jax import lineage
from vie_jax.evaluation import recall_figures
from vie_jax.evaluation.found_results import Result, part
from vie_jax.untrusted import urls
from vie_jax.wording import chosen

NO_FIGURE = '\N{EN DASH}'
# As many as a cell of a table has room for.
_RECALL_AT = ('1', '5', '10')
_MINUS = '\N{MINUS SIGN}'
_SPLITS = ('train', 'val')
# Of modes that test nothing; the others do so on validation videos.
_WITHOUT_TEST = ('embed', 'export')
# What became of the clips of a video, where "mean" and the word do not say it.
_AVERAGES = {
  'mean': 'mean of the clips',
  'none': 'each clip by itself',
  'knn': 'mean kNN votes',
}


def percent(value: Any) -> str:
  """A share as percent with one decimal; '' if there is none."""
  is_number = isinstance(value, int | float) and math.isfinite(value)
  return f'{100 * value:.1f}' if is_number else ''


def signed(value: float) -> str:
  """A difference in points with its sign."""
  return f'{value:+.1f}'.replace('-', _MINUS)


def text(value: Any) -> str:
  """Any value of a result in words; '' for nothing."""
  if value is None:
    return ''
  if isinstance(value, Mapping):
    return ', '.join(f'{name} {text(v)}' for name, v in value.items())
  if isinstance(value, list | tuple):
    return ', '.join(map(text, value))
  return f'{value:,}' if type(value) is int and value > 9999 else str(value)


def result_facts(result: Result) -> dict[str, str]:
  """What is to be known about a result, besides its figures."""
  facts = result.facts
  network, dataset = facts['network'], facts['dataset']
  hardware = part(facts, 'hardware')
  cores = hardware.get('cores')
  clip, trained_on = part(network, 'input'), part(network, 'trained_on')
  on = [
    trained_on.get('name') or urls.shown(text(trained_on.get('path'))),
    f'{100 * trained_on["share"]:.0f} %'
    if isinstance(trained_on.get('share'), int | float)
    and trained_on['share'] != 1
    else '',
    'drawn with replacement' if trained_on.get('with_replacement') else '',
    f'bins of {trained_on["bin_frames"]} frames'
    if trained_on.get('bin_frames')
    else '',
  ]
  return {
    'folder': result.name,
    'mode': text(facts['mode']),
    'network': text(network.get('name')),
    'training': text(network.get('training')).replace('_', ' '),
    'trained on': ', '.join(filter(None, map(text, on))),
    'started from': _started_from(network),
    'checkpoint step': text(network.get('step')),
    'input': (
      f'{text(clip.get("sampler"))}, {text(clip.get("num_frames"))} x '
      f'{text(clip.get("size"))} px'
    ),
    'data set': text(dataset.get('name')),
    'train / val': _counts(dataset),
    'split': _split(facts),
    'views': _views(part(facts, 'views')),
    'augmentation': text(part(facts, 'settings').get('augmentation')).replace(
      '_', ' '
    ),
    'steps': text(facts.get('steps')),
    'seed': text(facts.get('seed')),
    'seconds': text(facts.get('seconds')),
    'hardware': ', '.join(
      filter(
        None,
        (
          text(hardware.get('devices')),
          f'{cores} {chosen(cores, "core", "cores")}' if cores else '',
          text(hardware.get('machine')),
        ),
      )
    ),
    'commit': text(facts.get('commit')),
    # To the minute; dates are in UTC.
    'date': text(facts.get('date'))[:16].replace('T', ' '),
  }


def origin(it: Mapping) -> str:
  """Weights that a training started from, an entry of `started_from`."""
  place = urls.shown(text(it.get('source'))) or 'weights of unknown origin'
  training = text(it.get('training')).replace('_', ' ') or lineage.UNKNOWN
  step = it.get('step')
  return f'{place} ({training}{"" if step is None else f", step {text(step)}"})'


def _started_from(network: Mapping) -> str:
  """The trainings before, the nearest first; of streams, one by one."""
  found = ', before that '.join(map(origin, lineage.origins(network)))
  streams = part(network, 'streams')
  of_streams = {name: _started_from(part(streams, name)) for name in streams}
  named = [f'{name}: {words}' for name, words in of_streams.items() if words]
  return '; '.join(filter(None, (found, *named)))


def _counts(dataset: Mapping) -> str:
  """Videos or images of each split; '' of what has none, such as clips."""
  counts = [text(dataset.get(split)) for split in _SPLITS]
  return (
    ' / '.join(count or NO_FIGURE for count in counts) if any(counts) else ''
  )


def _split(facts: Mapping) -> str:
  """The split that was tested, or those that were embedded."""
  dataset = facts['dataset']
  if dataset.get('split'):
    return text(dataset['split'])
  if facts['mode'] not in _WITHOUT_TEST:
    return 'val'
  return ', '.join(split for split in _SPLITS if split in dataset)


def _views(views: Mapping) -> str:
  """What is seen of a video, and what becomes of it; '' if nothing says."""
  if not views:
    return ''
  clips, average = views.get('clips'), text(views.get('average'))
  shown = f'{text(clips)} {chosen(clips, "clip", "clips")}'
  if clips == 'all, consecutive':
    shown = 'all consecutive clips'
  average = _AVERAGES.get(average, f'mean {average}')
  return f'{shown}, {text(views.get("crop"))} crop, {average}'


def has_top5(facts: Mapping, column: str) -> bool:
  """Whether top-5 tells anything: of five classes or fewer, all are in it.

  Results of before do not say how many classes a column has.
  """
  num_classes = part(facts, 'classes').get(column)
  return not isinstance(num_classes, int) or num_classes > 5


def top5(facts: Mapping, column: str, figures: Mapping) -> str:
  """Top-5 in percent, a dash where it tells nothing, '' if there is none."""
  return percent(figures.get('top5')) if has_top5(facts, column) else NO_FIGURE


def figures_of(
  result: Result, is_wanted: Callable[[str, Mapping], bool]
) -> list[tuple[str, str, str, str, str]]:
  """(what, top-1, top-5, clip top-1, recall) of the figures of a result.

  Args:
    result: whose.
    is_wanted: (column, figure) -> whether it is one of them.
  """
  facts = result.facts
  averaged = part(facts, 'settings').get('averaged_layers')
  averaged = averaged if isinstance(averaged, list) else []
  return [
    (
      f'{column}, {name}{" averaged" if name in averaged else ""}',
      percent(figures['top1']),
      top5(facts, column, figures),
      percent(figures.get('clip_top1')),
      _recall(facts, column),
    )
    for column, by_name in facts['accuracy'].items()
    for name, figures in by_name.items()
    if is_wanted(column, figures)
  ]


def _recall(facts, column):
  """Recall among the nearest neighbours, which `retrieve` has."""
  found = part(part(facts, 'recall'), column)
  places = recall_figures.telling(
    [k for k in _RECALL_AT if k in found], recall_figures.num_compared(facts)
  )
  shares = {k: percent(found[k]) for k in places}
  return ', '.join(f'@{k} {share}' for k, share in shares.items() if share)
