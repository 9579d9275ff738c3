"""Files that launchers write from the templates in launch/templates/."""

import json
import pathlib
import shlex
from typing import Any

import jinja2

_FOLDER = pathlib.Path(__file__).parents[1] / 'templates'


def _quoted(value: Any) -> str:
  """A value as JSON, which YAML reads as the same value."""
  return json.dumps(value, ensure_ascii=False)


def render(template: str, **values: Any) -> str:
  """Fills in a template of launch/templates/.

  In a template, `value | shell` is one word of a shell, and `value | quoted`
  one value of YAML, whatever is in it. A name that is not given is an error.

  Args:
    template: name of the file.
    **values: what the template asks for.
  """
  # What comes out is no HTML: values are quoted by the filters.
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=False,  # noqa: S701
    keep_trailing_newline=True,
    lstrip_blocks=True,
    trim_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters['quoted'] = _quoted
  environment.filters['shell'] = lambda value: shlex.quote(str(value))
  return environment.get_template(template).render(values)
