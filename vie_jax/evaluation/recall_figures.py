"""Which figures of recall are shown: those that tell something."""

from collections.abc import Mapping, Sequence

from vie_jax.evaluation.found_results import part


def num_compared(facts: Mapping) -> int | None:
  """How many training videos queries were compared with; None if not known.

  Args:
    facts: of a result.
  """
  train = facts['dataset'].get('train')
  left_out = part(facts, 'left_out').get('train', 0)
  is_known = type(train) is int and type(left_out) is int
  return train - left_out if is_known else None


def telling(
  num_neighbors: Sequence[str], num_videos: int | None
) -> Sequence[str]:
  """The k whose recall tells something: there are more training videos.

  Args:
    num_neighbors: the values of k, the smallest first.
    num_videos: the training videos; None if it is not known.

  Returns:
    Some of them, the first at least.
  """
  if num_videos is None:
    return num_neighbors
  few = [k for k in num_neighbors if int(k) < num_videos]
  return few or num_neighbors[:1]
