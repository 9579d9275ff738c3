"""Scripts use names of vie_jax that are there, also where no test runs them."""

import ast
import importlib
import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
SCRIPTS = sorted(
  path.relative_to(REPOSITORY)
  for folder in ('benchmarks', 'data', 'launch')
  for path in (REPOSITORY / folder).rglob('*.py')
)


def modules_of(tree):
  """Name in the file -> module of vie_jax that it stands for."""
  found = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and node.module.startswith('vie_jax'):
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        if (REPOSITORY / f'{name.replace(".", "/")}.py').exists():
          found[alias.asname or alias.name] = importlib.import_module(name)
  return found


def missing_names(source):
  tree = ast.parse(source)
  modules = modules_of(tree)
  return {
    f'{node.value.id}.{node.attr}'
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id in modules
    and not hasattr(modules[node.value.id], node.attr)
  }


def test_a_name_that_has_moved_is_found():
  source = 'from vie_jax import device_augment as d\nd.center\nd.resize\n'
  assert missing_names(source) == {'d.resize'}


@pytest.mark.parametrize('script', SCRIPTS, ids=str)
def test_names_of_vie_jax_exist(script):
  assert missing_names((REPOSITORY / script).read_text()) == set()
