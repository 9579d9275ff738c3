"""What the processes of a run have to agree upon before they go on.

With one process nothing is sent. Only the main thread may call these: they
are collective, so that all processes must come by in the same order.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_first() -> bool:
  """Whether this is the process that writes files which exist once."""
  return jax.process_index() == 0


def anywhere(flag: bool) -> bool:
  """Whether the flag is set in any process."""
  if jax.process_count() == 1:
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def everywhere(flag: bool) -> bool:
  """Whether the flag is set in every process."""
  return not anywhere(not flag)


def from_first(text: str) -> str:
  """The text that the first process gives, in every process."""
  if jax.process_count() == 1:
    return text
  content = np.frombuffer(text.encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
  # What the others give is not looked at, but it must be of the same size.
  mine = content if is_first() else np.zeros(size, np.uint8)
  return bytes(multihost_utils.broadcast_one_to_all(mine)).decode()
