"""Whether JAX has the devices that it is told to take."""

import jax

# How JAX says that it is not installed for a kind of device, or knows none of it.
# Whatever else it says, such as of a device that another process has, may pass.
_ABSENT = (
  'list of known backends',
  'no platforms that are instances of',
  'cannot open shared object file',
)


class NoDevicesError(ValueError):
  """JAX_PLATFORMS names a kind of device that is not there."""


def check_are_there() -> None:
  """Refuses a JAX_PLATFORMS that JAX finds no device for.

  Of several processes, to be called once they are connected.

  Raises:
    NoDevicesError: with the remedy.
    RuntimeError: as JAX raises it, of devices that may be there.
  """
  platforms = jax.config.jax_platforms
  if not platforms:
    return
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    reason = ' '.join(str(error).split())
    # Of CUDA it says nothing at all.
    if reason and not any(words in reason for words in _ABSENT):
      raise
    raise NoDevicesError(
      f'JAX_PLATFORMS is {platforms!r}, and JAX finds no such device here'
      f'{f" ({reason})" if reason else ""}. Unset it, which takes what there is, '
      'or set it to cpu; GPUs and TPUs need a JAX that is installed for them.'
    ) from error
