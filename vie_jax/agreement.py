"""What the processes of a run have to agree upon before they go on.

Only the main thread may call these: all processes must come by in the same
order. No device takes part, so that nothing waits for what devices compute.
"""

from vie_jax import distributed


def is_first() -> bool:
  """Whether this is the process that writes files which exist once."""
  return distributed.index() == 0


def anywhere(flag: bool) -> bool:
  """Whether the flag is set in any process."""
  return any(distributed.gather('flag', bool(flag)))


def everywhere(flag: bool) -> bool:
  """Whether the flag is set in every process."""
  return all(distributed.gather('flag', bool(flag)))


def from_first(text: str) -> str:
  """The text that the first process gives, in every process."""
  return distributed.by_first('text', lambda: text)
