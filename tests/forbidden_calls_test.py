"""Nothing here runs a shell, loads code that a file brings, or downloads.

`ruff check` holds the list of bandit (S in pyproject.toml). This test holds
what that list lacks, and that the list is on.
"""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
FORBIDDEN_CALLS = {
  'code.interact',
  'compile',
  'eval',
  'exec',
  'importlib.util.spec_from_file_location',
  'os.popen',
  'os.popen2',
  'os.system',
  'os.tempnam',
  'pandas.read_pickle',
  'pty.spawn',
  'runpy.run_module',
  'runpy.run_path',
  'subprocess.getoutput',
  'subprocess.getstatusoutput',
  'tempfile.mktemp',
  'tensorflow.keras.models.load_model',
  'tensorflow.saved_model.load',
  'torch.hub.load',
  'torch.jit.load',
  'torch.load',
}
# What else they have, such as yaml.load, builds objects.
ALLOWED_OF_YAML = {'safe_load', 'safe_load_all', 'safe_dump', 'YAMLError'}
FORBIDDEN_MODULES = {
  'cPickle',
  'cloudpickle',
  'commands',
  'dill',
  'joblib',
  'jsonpickle',
  'marshal',
  'pickle',
  'shelve',
  # Entities of a few bytes that become gigabytes.
  'lxml',
  'xml',
}
# Nothing is downloaded. Object stores are read through fsspec.
NETWORK_MODULES = {
  'aiohttp',
  'ftplib',
  'gdown',
  'http.client',
  'httpx',
  'kagglehub',
  'huggingface_hub',
  'requests',
  'telnetlib',
  'tensorflow_hub',
  'urllib.request',
  'urllib3',
  'wget',
}
STARTS_PROCESSES = {
  f'subprocess.{name}'
  for name in ('Popen', 'call', 'check_call', 'check_output', 'run')
}
SHELLS = {'bash', 'dash', 'ksh', 'sh', 'zsh', 'cmd', 'powershell'}
# Of cloud machines, which answer to nothing else.
PLAIN_HTTP = re.compile(
  r'http://(localhost|127\.0\.0\.1|metadata\.google\.internal|169\.254\.)'
)
# (file, what): what is looked at and kept.
KEPT = {
  # The examples of a document are run there.
  ('tests/embeddings_doc_test.py', 'exec'),
}


def python_files():
  """Every Python file of the repository, whatever folder it is in."""
  for folder, folders, names in os.walk(REPOSITORY):
    folders[:] = [
      name
      for name in folders
      if not name.startswith('.')
      and name not in ('__pycache__', 'build', 'demo', 'workdir')
    ]
    for name in names:
      if name.endswith('.py'):
        yield pathlib.Path(folder) / name


def is_false(node):
  return isinstance(node, ast.Constant) and node.value is False


def is_text(node):
  return isinstance(node, ast.Constant) and isinstance(node.value, str)


def is_made_up(node):
  """Whether a text is put together here: f'...', '' + x, '%s' % x, join."""
  if isinstance(node, ast.BinOp):
    return any(map(is_made_up, (node.left, node.right))) or any(
      map(is_text, (node.left, node.right))
    )
  is_method = isinstance(node, ast.Call) and isinstance(
    node.func, ast.Attribute
  )
  return isinstance(node, ast.JoinedStr) or (
    is_method and node.func.attr in ('format', 'join')
  )


class Finder(ast.NodeVisitor):
  """Collects (line, what) of everything in a source that is forbidden.

  Names are followed through imports: `from os import system as run` makes
  `run(...)` a call of os.system.
  """

  def __init__(self, *, is_test=False):
    self.found = []
    self._is_test = is_test
    self._meaning = {}
    self._opens_archives = False

  def _add(self, node, what):
    self.found.append((node.lineno, what))

  def _module(self, node, name):
    parts = name.split('.')
    prefixes = {'.'.join(parts[: n + 1]) for n in range(len(parts))}
    if prefixes & FORBIDDEN_MODULES:
      self._add(node, name)
    if prefixes & NETWORK_MODULES and not self._is_test:
      self._add(node, name)
    self._opens_archives |= parts[0] in ('tarfile', 'zipfile')

  def visit_Import(self, node):
    for alias in node.names:
      self._module(node, alias.name)
      self._meaning[alias.asname or alias.name.partition('.')[0]] = (
        alias.name if alias.asname else alias.name.partition('.')[0]
      )

  def visit_ImportFrom(self, node):
    for alias in node.names:
      name = f'{node.module}.{alias.name}'
      self._module(node, name)
      self._meaning[alias.asname or alias.name] = name
      if name in FORBIDDEN_CALLS:
        self._add(node, name)

  def _dotted(self, node):
    """The full name of what is called, as far as it can be read."""
    if isinstance(node, ast.Name):
      return self._meaning.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
      return f'{self._dotted(node.value)}.{node.attr}'
    if isinstance(node, ast.Call):
      called = self._dotted(node.func)
      names = [argument.value for argument in node.args if is_text(argument)]
      if called in ('getattr', 'builtins.getattr') and names:
        return f'{self._dotted(node.args[0])}.{names[-1]}'
      if called in ('__import__', 'importlib.import_module') and names:
        return names[0]
    return '?'

  def visit_Call(self, node):
    self.generic_visit(node)
    name = self._dotted(node.func)
    name = name.removeprefix('builtins.')
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in FORBIDDEN_CALLS or name.startswith('os.spawn'):
      self._add(node, name)
    if name in ('__import__', 'importlib.import_module', 'getattr'):
      self._looked_up(node)
    if name.startswith('yaml.') and name[5:] not in ALLOWED_OF_YAML:
      self._add(node, name)
    for option in ('allow_pickle', 'shell'):
      if option in options and not is_false(options[option]):
        self._add(node, f'{option}={ast.unparse(options[option])}')
    reads_array = name in ('numpy.load', 'numpy.lib.format.read_array')
    if reads_array and not self._is_test and 'allow_pickle' not in options:
      self._add(node, f'{name} without allow_pickle=False')
    self._archive(node, options)
    if name in STARTS_PROCESSES and node.args:
      self._command(node.args[0])

  def _looked_up(self, node):
    """A module or a function that is named by a string."""
    name = self._dotted(node)
    if name.partition('.')[0] in FORBIDDEN_MODULES or name in FORBIDDEN_CALLS:
      self._add(node, name)

  def _archive(self, node, options):
    """Archives: each member is checked, or tarfile's own filter is on."""
    attribute = getattr(node.func, 'attr', self._dotted(node.func))
    is_filtered = getattr(options.get('filter'), 'value', None) == 'data'
    if attribute in ('extractall', 'unpack_archive') and not is_filtered:
      self._add(node, attribute)
    if attribute == 'extract' and self._opens_archives and not is_filtered:
      self._add(node, attribute)

  def _command(self, command):
    """A command is a list of words; none of them is a made-up script."""
    if is_made_up(command) or is_text(command):
      self._add(command, 'a command as one string')
    words = getattr(command, 'elts', [])
    shells = [
      word.value.rpartition('/')[2] in SHELLS for word in words if is_text(word)
    ]
    scripts = [word for word in words[1:] if not is_text(word)]
    if any(shells) and any(map(is_made_up, scripts)):
      self._add(command, 'a script for a shell, put together')

  def visit_Constant(self, node):
    """Plain http, in any string of the code that ships."""
    if self._is_test or not is_text(node):
      return
    if 'http://' in node.value and not PLAIN_HTTP.search(node.value):
      self._add(node, 'http://')


def findings(source, *, is_test=False):
  finder = Finder(is_test=is_test)
  finder.visit(ast.parse(source))
  return finder.found


def test_the_whole_tree_is_looked_at():
  names = {str(path.relative_to(REPOSITORY)) for path in python_files()}
  assert {
    'main.py',
    'setup.py',
    'benchmarks/prepare.py',
    'configs/default.py',
    'data/prepare.py',
    'launch/reproduce.py',
    'tests/s3_server.py',
    'vie_jax/train.py',
  } <= names


def test_no_file_runs_a_shell_loads_code_or_downloads():
  found = []
  for path in python_files():
    name = path.relative_to(REPOSITORY).as_posix()
    # This file spells out what it forbids.
    if name == 'tests/forbidden_calls_test.py':
      continue
    source = path.read_text('utf-8')
    for line, what in findings(source, is_test=name.startswith('tests/')):
      if (name, what) not in KEPT:
        found.append(f'{name}:{line}: {what}')
  assert found == []


PLANTED = [
  "import os\nos.system('ls')",
  "import os as o\no.system('ls')",
  "from os import system\nsystem('ls')",
  "from os import system as s\ns('ls')",
  "import os\ngetattr(os, 'system')('ls')",
  "__import__('os').system('ls')",
  "import importlib\nimportlib.import_module('os').popen('ls')",
  "import builtins\nbuiltins.eval('1')",
  "import os\nos.popen('ls')",
  "import os\nos.spawnlp(0, 'ls', 'ls')",
  "import subprocess\nsubprocess.run('ls', shell=True)",
  "import subprocess\nsubprocess.run(['ls'], shell=flag)",
  "from subprocess import run as r\nr(f'rm {name}')",
  "import subprocess as sp\nsp.check_output('rm ' + name)",
  "import subprocess\nsubprocess.run(['bash', '-c', f'rm {name}'])",
  "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'rm ' + name])",
  "import subprocess\nsubprocess.run(['sh', '-c', ' '.join(words)])",
  "import subprocess\nsubprocess.call('rm {}'.format(name))",
  "from subprocess import getoutput\ngetoutput('ls')",
  'import pickle',
  'from pickle import loads',
  'import cloudpickle as c',
  "__import__('pickle').loads(data)",
  "import importlib\nimportlib.import_module('dill').loads(data)",
  'import marshal',
  'eval(text)',
  'exec(text)',
  "compile(text, 'x', 'exec')",
  'import yaml\nyaml.load(text)',
  'import yaml as y\ny.load(text, Loader=y.SafeLoader)',
  'from yaml import unsafe_load\nunsafe_load(text)',
  'import yaml\nyaml.full_load(text)',
  "import numpy as np\nnp.load('x.npy')",
  "from numpy import load\nload('x.npy')",
  "import numpy as np\nnp.load('x.npy', allow_pickle=True)",
  "import numpy as np\nnp.load('x.npy', allow_pickle=flag)",
  "import pandas as pd\npd.read_pickle('x')",
  "import torch\ntorch.load('x.pt')",
  "import torch\ntorch.load('x.pt', weights_only=True)",
  "import tensorflow as tf\ntf.saved_model.load('x')",
  "import tensorflow as tf\ntf.keras.models.load_model('x')",
  "import tarfile\ntarfile.open('x').extractall('y')",
  "import tarfile\ntarfile.open('x').extractall('y', filter='tar')",
  "import tarfile\ntarfile.open('x').extract('m', 'y')",
  "import zipfile\nzipfile.ZipFile('x').extractall('y')",
  "import zipfile\nzipfile.ZipFile('x').extract('m', 'y')",
  "import shutil\nshutil.unpack_archive('x.tar', 'y')",
  'import tempfile\ntempfile.mktemp()',
  'from tempfile import mktemp\nmktemp()',
  'import xml.etree.ElementTree as et',
  'from xml.dom import minidom',
  'from lxml import etree',
  'import urllib.request',
  'from urllib import request',
  'import requests',
  "URL = 'http://example.com/weights.tar'",
  "import runpy\nrunpy.run_path('x.py')",
]


@pytest.mark.parametrize('source', PLANTED)
def test_each_of_them_would_be_found(source):
  assert findings(source)


@pytest.mark.parametrize(
  'source',
  [
    "import numpy as np\nnp.load('x.npy', allow_pickle=False)",
    'import yaml\nyaml.safe_load(text)',
    "import re\nre.compile('x')",
    "import tarfile\ntarfile.open('x').extract('m', 'y', filter='data')",
    "import subprocess\nsubprocess.run(['bash', script, name], shell=False)",
    'import subprocess\nsubprocess.run([sys.executable, str(path)])',
    'import urllib.parse',
    "URL = 'http://127.0.0.1:9000'",
  ],
)
def test_what_is_safe_is_not_found(source):
  assert findings(source) == []


@pytest.mark.parametrize(
  ('rule', 'source'),
  [
    ('S101', 'assert number > 0'),
    ('S102', 'exec(text)'),
    ('S113', "import requests\nrequests.get('https://x')"),
    ('S202', "import tarfile\ntarfile.open('x').extractall()"),
    ('S301', 'import pickle\npickle.loads(data)'),
    ('S306', 'import tempfile\ntempfile.mktemp()'),
    ('S307', 'eval(text)'),
    ('S310', 'import urllib.request\nurllib.request.urlopen(url)'),
    ('S314', "import xml.etree.ElementTree as et\net.parse('x')"),
    ('S324', 'import hashlib\nhashlib.md5(data)'),
    ('S501', "import requests\nrequests.get('x', verify=False, timeout=1)"),
    ('S506', 'import yaml\nyaml.load(text)'),
    ('S602', "import subprocess as s\ns.run('ls ' + x, shell=True)"),
    ('S605', 'from os import system as s\ns(x)'),
    ('S701', 'import jinja2\njinja2.Environment(autoescape=False)'),
    ('S704', 'import markupsafe\nmarkupsafe.Markup(text)'),
  ],
)
def test_the_list_of_bandit_is_on(rule, source):
  done = subprocess.run(
    [sys.executable, '-m', 'ruff', 'check', '--output-format=json']
    + ['--no-cache', '--stdin-filename=vie_jax/planted.py', '-'],
    input=source,
    capture_output=True,
    text=True,
    cwd=REPOSITORY,
  )
  assert rule in {finding['code'] for finding in json.loads(done.stdout)}


def test_no_template_passes_text_on_unescaped():
  templates = [
    *REPOSITORY.glob('vie_jax/**/*.jinja'),
    *REPOSITORY.glob('data/**/*.jinja'),
  ]
  assert len(templates) >= 4
  for path in templates:
    text = path.read_text('utf-8')
    assert not re.search(r'\|\s*safe\b|autoescape\s+false|Markup', text), path
