"""Which errors of object stores and file systems may pass by themselves.

Each backend of fsspec has its own errors, and those of extras cannot be
imported where these are not installed: so their classes are known by name.
"""

import socket

from vie_jax.files import disk

_CLASSES = (ConnectionError, TimeoutError, socket.gaierror)
_NAMES = frozenset(
  {
    'aiohttp.client_exceptions.ClientConnectionError',
    'aiohttp.client_exceptions.ClientPayloadError',
    'botocore.exceptions.ConnectionError',
    'botocore.exceptions.HTTPClientError',
    'google.auth.exceptions.TransportError',
    'requests.exceptions.ConnectionError',
    'requests.exceptions.Timeout',
  }
)
# Of HTTP: request timeout, too early, too many requests; all of 500 and above
# are errors of the server.
_STATUS = frozenset({408, 425, 429})


def may_pass(error: BaseException | None) -> bool:
  """Whether a store did not answer, or could not; not whether it refused.

  Args:
    error: of a backend, after its own retries, or of the system. What it was
      raised from counts, too, but for a file that is not there and access that
      is refused.
  """
  while error is not None:
    if isinstance(error, (FileNotFoundError, PermissionError)):
      return False
    if _is_passing(error):
      return True
    error = error.__cause__
  return False


def _is_passing(error):
  names = {f'{kind.__module__}.{kind.__name__}' for kind in type(error).__mro__}
  status = _status(error)
  return (
    isinstance(error, _CLASSES)
    or not _NAMES.isdisjoint(names)
    or getattr(error, 'errno', None) in disk.AWAY
    or status in _STATUS
    or status >= 500
  )


def _status(error):
  """The status of HTTP that an error tells of, or 0."""
  response = getattr(error, 'response', None)
  if isinstance(response, dict):  # botocore
    found = response.get('ResponseMetadata', {}).get('HTTPStatusCode')
  else:
    found = getattr(error, 'status', None) or getattr(error, 'code', None)
  return found if isinstance(found, int) else 0
