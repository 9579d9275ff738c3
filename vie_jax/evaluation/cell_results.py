"""Which results fill which cells of the paper's tables."""

from collections.abc import Mapping

from vie_jax import lineage, training_data
from vie_jax.evaluation import paper_roles, paper_tables, result_words
from vie_jax.evaluation.found_results import part


def _streams(network: Mapping) -> list[Mapping]:
  """The networks of which one consists side by side; [] if it does not."""
  if 'streams' not in network:
    return []
  streams = part(network, 'streams')
  return [part(streams, name) for name in ('single', 'motion')]


def _has_vie_streams(network: Mapping) -> bool:
  """Whether the streams of a network, if it has them, were trained by VIE."""
  if network.get('training') not in paper_tables.SIDE_BY_SIDE:
    return True
  if 'streams' in network:
    trainings = [stream.get('training') for stream in _streams(network)]
    return all(
      training in paper_tables.LOCAL_AGGREGATION for training in trainings
    )
  # Results of before say no more than where they are from.
  sources = str(network.get('source')).replace(' ', '').split(',')
  return 'random' not in sources


def _is_trained_on(
  trained_on: Mapping,
  wanted: paper_tables.Wanted,
  kinetics: paper_roles.Role,
  bins: Mapping[str, int],
) -> bool:
  """Whether videos are those that a cell is about, as far as is known."""
  bin_frames = bins[wanted.bins] if wanted.bins else 0
  return (
    trained_on.get('share', 1.0) == wanted.share
    and trained_on.get('bin_frames', 0) == bin_frames
    # Of so many draws with replacement, fewer are different videos.
    and not trained_on.get('with_replacement')
    and kinetics.may_be(training_data.dataset_of(trained_on))
  )


def _fault(
  origin: Mapping,
  wanted: paper_tables.Wanted,
  kinetics: paper_roles.Role,
  bins: Mapping[str, int],
) -> str:
  """What is wrong with weights that a network started from; '' for nothing."""
  training = origin.get('training')
  if training == lineage.UNKNOWN:
    return ''
  if training in lineage.LABELLED:
    return 'have seen labels'
  if training not in wanted.origins:
    return 'no network of that row starts from'
  trained_on = part(origin, 'trained_on')
  # Of official weights nothing is known.
  if trained_on and not _is_trained_on(trained_on, wanted, kinetics, bins):
    return 'were trained on other videos than those of that row'
  return ''


def _faulty_origin(cell, facts, roles, bins) -> str:
  """The first weights that a network started from and should not have."""
  network = facts['network']
  for each in (network, *_streams(network)):
    for origin in lineage.origins(each):
      fault = _fault(origin, cell.wanted, roles['kinetics'], bins)
      if fault:
        return f'{result_words.origin(origin)}, which {fault}'
  return ''


def _is_pooled_as(wanted: paper_tables.Wanted, settings: Mapping) -> bool:
  """Whether a layer is flattened, unless it may have been averaged."""
  averaged = settings.get('averaged_layers')
  is_averaged = isinstance(averaged, list) and wanted.figure in averaged
  return not is_averaged or wanted.figure in wanted.averaged_layers


def find(
  cell: paper_tables.Cell,
  facts: Mapping,
  *,
  roles: Mapping[str, paper_roles.Role] = paper_roles.ROLES,
  bins: Mapping[str, int] = paper_roles.BINS,
) -> dict | None:
  """The accuracies that a result has for a cell.

  Args:
    cell: of a table.
    facts: of a result.json.
    roles: what stands for the data sets of the paper.
    bins: frames of a bin, by row of table 3.

  Returns:
    `top1`, `clip_top1` and others, as fractions; None if the result is of
    something else.
  """
  accuracy = _find(cell, facts, roles, bins)
  if accuracy is None or _faulty_origin(cell, facts, roles, bins):
    return None
  return accuracy


def reason_against(
  cell: paper_tables.Cell,
  facts: Mapping,
  *,
  roles: Mapping[str, paper_roles.Role],
  bins: Mapping[str, int],
) -> str:
  """Why a result is none for a cell that has all that the cell looks at.

  Args:
    cell: of a table.
    facts: of a result.json.
    roles: as in `find`.
    bins: likewise.

  Returns:
    What its network, or a stream of it, started from, and what is wrong with
    that, in words; '' where that is not the reason.
  """
  if _find(cell, facts, roles, bins) is None:
    return ''
  return _faulty_origin(cell, facts, roles, bins)


def _find(cell, facts, roles, bins):
  """As `find`, of networks that have started from anything."""
  wanted, role = cell.wanted, roles[cell.wanted.role]
  network, settings = facts['network'], part(facts, 'settings')
  is_it = (
    facts['mode'] == wanted.mode
    and role.is_of(facts['dataset'])
    and network.get('name') == wanted.network
    and network.get('training') in wanted.training
    and part(network, 'input').get('sampler') in wanted.samplers
    and _has_vie_streams(network)
    and all(
      _is_trained_on(
        part(origin, 'trained_on'), wanted, roles['kinetics'], bins
      )
      for origin in [network, *_streams(network)]
    )
    and wanted.augmentation in ('', settings.get('augmentation'))
    and _is_pooled_as(wanted, settings)
  )
  if not is_it:
    return None
  column = paper_roles.column_of(role, facts['accuracy'])
  return facts['accuracy'].get(column, {}).get(wanted.figure)
