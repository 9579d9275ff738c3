"""What is installed is pinned, by version and by hash."""

import ast
import pathlib
import re

REPOSITORY = pathlib.Path(__file__).parents[1]
PIN = re.compile(r'([A-Za-z0-9._-]+)==([^\s\\;]+)')


def pins(name):
  """Package -> version of a file; every line must be a pin."""
  found = {}
  for line in (REPOSITORY / name).read_text().splitlines():
    if line.startswith(('#', '    --hash=sha256:')) or not line:
      continue
    package, version = PIN.match(line).groups()
    found[re.sub(r'[-_.]+', '-', package).lower()] = version
  return found


def test_the_lock_has_the_versions_of_the_constraints():
  assert pins('requirements.lock') == pins('constraints.txt')


def test_every_package_of_the_lock_has_hashes():
  text = (REPOSITORY / 'requirements.lock').read_text()
  for entry in re.split(r'\n(?=\S)', text):
    if entry.startswith('#'):
      continue
    hashes = re.findall(r'--hash=sha256:[0-9a-f]{64}\b', entry)
    assert hashes, entry
    assert '://' not in entry
  assert len(text) < 10**6


def test_every_package_that_is_asked_for_is_pinned():
  tree = ast.parse((REPOSITORY / 'setup.py').read_text())
  (asked,) = (
    node.value.elts
    for node in tree.body
    if isinstance(node, ast.Assign) and node.targets[0].id == 'INSTALL_REQUIRES'
  )
  names = {re.match(r'f?.([\w.-]+)', ast.unparse(each))[1] for each in asked}
  names = {re.sub(r'[-_.]+', '-', name).lower() for name in names}
  assert {'numpy', 'pyarrow', 'jinja2', 'tensorflow-cpu'} <= names
  # Where there is no build for the CPU alone: the same version, not tested.
  assert names - {'tensorflow'} <= set(pins('constraints.txt'))
