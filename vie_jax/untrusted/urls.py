"""URLs that carry a password, which must not get into logs and records."""

import re

# Names of parameters, in lower case, that let whoever has the URL in.
_SECRET = re.compile(
  r'sig|token|secret|password|passwd|credential|api[-_]?key|access[-_]?key|auth'
)
# user@ or key:secret@ in front of a host; a secret may hold a slash. A number
# behind the colon is a port, and a second colon begins another URL (fsspec).
_USER = re.compile(r'(://)(?:[^/?#\s]*@|[^/?#\s:]*:(?!:|\d+(?:[/?#,\s]|$))\S*)')
_PARAMETER = re.compile(r'([?&#;])([^=&?#;\s]*)=([^&#\s\'")]*)')
_REMEDY = (
  'give the URL without it, and let the backend find it in its own files or the '
  'environment'
)


def problem(text: str) -> str | None:
  """Says that something in a URL is secret, without saying it, or None.

  Args:
    text: a path, a URL, or several of them with commas between.
  """
  if '://' not in text:
    return None
  if _USER.search(text):
    return f'{redacted(text)} carries a user or a password: {_REMEDY}'
  for _, name, _ in _PARAMETER.findall(text):
    if _SECRET.search(name.lower()):
      return f'{redacted(text)} carries the secret {name}: {_REMEDY}'
  return None


def redacted(text: str) -> str:
  """Replaces what is secret in the URLs of a text by ***.

  Args:
    text: any, such as the message of a backend.
  """
  text = _USER.sub(r'\1***@', text)
  return _PARAMETER.sub(
    lambda found: (
      f'{found[1]}{found[2]}=***'
      if _SECRET.search(found[2].lower())
      else found[0]
    ),
    text,
  )


def shown(place: object) -> str:
  """A path or URL for pages that are given to others.

  Args:
    place: one, or several with commas between.

  Returns:
    The same; of a path that is absolute, or leads upwards or home, only its
    last part.
  """
  return ','.join(map(_shown, redacted(str(place)).split(',')))


def _shown(place):
  # Also behind a word, as in official:/home/x.
  leads_away = re.search(r'(^|:)[/~]|\.\.', place)
  if '://' in place or not leads_away:
    return place
  return place.rstrip('/').rpartition('/')[2]
