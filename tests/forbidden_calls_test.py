"""Nothing here runs a shell, or code that a file brings along."""

import ast
import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
FOLDERS = ('configs', 'data', 'launch', 'tests', 'vie_jax')
FORBIDDEN_CALLS = {
  'eval',
  'exec',
  'os.popen',
  'os.system',
  'subprocess.getoutput',
  'subprocess.getstatusoutput',
  'torch.load',
  'yaml.full_load',
  'yaml.load',
  'yaml.unsafe_load',
}
FORBIDDEN_MODULES = {'cPickle', 'dill', 'joblib', 'marshal', 'pickle', 'shelve'}
# The examples of a document are run there.
EXCEPTIONS = {'tests/embeddings_doc_test.py': 'exec'}
FORBIDDEN_OPTIONS = {'allow_pickle', 'shell'}


def python_files():
  found = [*REPOSITORY.glob('*.py')]
  for folder in FOLDERS:
    found += (REPOSITORY / folder).rglob('*.py')
  return sorted(found)


def findings(source):
  """Gives (line, what) of everything in a source that is forbidden."""
  for node in ast.walk(ast.parse(source)):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [node.module or '']
    for name in names:
      if name.partition('.')[0] in FORBIDDEN_MODULES:
        yield node.lineno, name
    if isinstance(node, ast.Call):
      name = ast.unparse(node.func)
      if name in FORBIDDEN_CALLS:
        yield node.lineno, name
      for keyword in node.keywords:
        is_off = isinstance(keyword.value, ast.Constant) and (
          keyword.value.value is False
        )
        if keyword.arg in FORBIDDEN_OPTIONS and not is_off:
          yield node.lineno, ast.unparse(keyword)


def test_the_whole_tree_is_looked_at():
  names = {str(path.relative_to(REPOSITORY)) for path in python_files()}
  assert {'main.py', 'data/prepare.py', 'vie_jax/train.py'} <= names


def test_no_file_runs_a_shell_or_loads_code():
  found = [
    f'{path.relative_to(REPOSITORY)}:{line}: {what}'
    for path in python_files()
    for line, what in findings(path.read_text('utf-8'))
    if EXCEPTIONS.get(str(path.relative_to(REPOSITORY))) != what
  ]
  assert found == []


@pytest.mark.parametrize(
  'source',
  [
    "os.system('ls')",
    "subprocess.run('ls', shell=True)",
    "subprocess.run('ls', shell=flag)",
    'import pickle',
    'from pickle import loads',
    'eval(text)',
    'exec(text)',
    'yaml.load(text)',
    "np.load('x.npy', allow_pickle=True)",
    "torch.load('x.pt')",
  ],
)
def test_each_of_them_would_be_found(source):
  assert list(findings(source))


def test_what_is_safe_is_not_found():
  safe = "np.load('x.npy', allow_pickle=False)\nyaml.safe_load(text)\n"
  assert not list(findings(safe))
