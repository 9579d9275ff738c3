"""Whether JAX has the devices that it is told to take."""

import jax

# Of devices that are there, and another process has: that may pass.
_TAKEN = 'in use'


class NoDevicesError(ValueError):
  """JAX_PLATFORMS names a kind of device that is not there."""


def check_are_there() -> None:
  """Refuses a JAX_PLATFORMS that JAX finds no device for.

  Of several processes, to be called once they are connected.

  Raises:
    NoDevicesError: with the remedy.
  """
  platforms = jax.config.jax_platforms
  if not platforms:
    return
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    if _TAKEN in str(error):
      raise
    raise NoDevicesError(
      f'JAX_PLATFORMS is {platforms!r}, and JAX finds no such device here. Unset '
      'it, which takes what there is, or set it to cpu; GPUs and TPUs need a JAX '
      'that is installed for them.'
    ) from error
