"""Each module imports only what this table allows; arrows point one way."""

import ast
import importlib
import operator
import os
import pathlib
import re
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
PACKAGE = REPOSITORY / 'vie_jax'
DATA = REPOSITORY / 'data'
BENCHMARKS = REPOSITORY / 'benchmarks'
LAUNCH = REPOSITORY / 'launch'
FREE = set(sys.stdlib_module_names) | {'absl'}
CONFIGS = sorted(path.stem for path in (REPOSITORY / 'configs').glob('*.py'))
MODULES = sorted(
  '.'.join(path.relative_to(REPOSITORY).with_suffix('').parts)
  for path in PACKAGE.rglob('*.py')
  if path.name != '__init__.py'
)
WITHOUT_TENSORFLOW = [
  name
  for name in MODULES
  if any(
    f'{name}.'.startswith(f'vie_jax.{part}.')
    for part in (
      'objective',
      'models',
      'evaluation',
      'pixels',
      'device_augment',
      'files',
      'finite',
      'machine',
      'processes',
      'sharding',
      'untrusted',
      'standard_output',
      'telemetry.metrics_file',
      'telemetry.step_trace',
      'results.result_file',
      'optimizer',
      'train_state',
      'train_step',
      'saved_steps',
      'checkpoint',
      'run_record',
    )
  )
]

ALLOWED = {  # module or folder -> (own code, outside packages)
  'machine': ('', 'jax'),
  'sharding': ('', 'jax numpy'),
  'finite': ('machine sharding', 'jax numpy'),
  'skipped_steps': ('finite wording', 'jax ml_collections numpy'),
  'objective': ('machine objective sharding', 'jax numpy'),
  'models': ('machine models untrusted', 'jax flax numpy'),
  'pixels': ('machine', 'jax'),
  'device_augment': ('pixels', 'jax numpy'),
  'optimizer': ('', 'jax optax'),
  'planning/accelerators': ('', ''),
  'config': (
    'config models.network_names planning.accelerators untrusted',
    'ml_collections',
  ),
  'planning/scaling': ('objective planning.accelerators', ''),
  'processes': ('processes sharding', 'jax numpy'),
  'files': ('files processes', ''),
  'code_version': ('__version__', ''),
  'option_parser': ('', ''),
  'standard_output': ('', ''),
  'wording': ('', ''),
  'untrusted': ('untrusted', 'numpy pyarrow'),
  'input_pipeline': (
    'files.disk input_pipeline untrusted wording',
    'tensorflow tensorflow_datasets numpy pyarrow array_record fsspec PIL '
    'simplejpeg',
  ),
  'telemetry': (
    'files input_pipeline processes telemetry untrusted wording',
    'clu google jax ml_collections numpy tensorboard tensorflow',
  ),
  'train_state': ('sharding objective.memory_bank', 'jax flax optax'),
  'train_step': ('finite sharding train_state objective', 'jax flax optax'),
  'saved_steps': ('files.disk processes saved_steps', 'jax numpy orbax'),
  'checkpoint': ('files.disk processes saved_steps', 'jax'),
  'run_record': ('checkpoint config.config_roles files.disk processes', ''),
  'guarded_saves': (
    'checkpoint input_pipeline.dataset_folder processes skipped_steps '
    'telemetry',
    '',
  ),
  'training_data': ('', ''),
  'lineage': ('training_data', ''),
  'run_weights': (
    'checkpoint models.network_names run_record sharding',
    'jax ml_collections',
  ),
  'weights': (
    'checkpoint lineage models run_weights sharding train_state training_data',
    'jax flax numpy ml_collections',
  ),
  'results': (
    'code_version config.config_roles files.disk input_pipeline.frame_store '
    'results run_record untrusted weights',
    'jax ml_collections numpy',
  ),
  'evaluation': (
    'evaluation files.disk lineage objective results.result_file sharding '
    'telemetry.metrics_file training_data untrusted option_parser '
    'standard_output wording',
    'jax flax optax numpy jinja2 matplotlib PIL',
  ),
  'blueprint': (
    'config models objective.memory_bank optimizer sharding train_step wording',
    'jax flax ml_collections',
  ),
  'experiment': (
    'blueprint config device_augment input_pipeline models processes '
    'telemetry train_state wording',
    'jax flax numpy optax ml_collections',
  ),
  'embeddings': (
    'config device_augment embeddings evaluation experiment files finite '
    'input_pipeline processes results run_record telemetry untrusted weights wording',
    'jax numpy pyarrow PIL ml_collections',
  ),
  'classifiers': (
    'blueprint checkpoint classifiers config device_augment evaluation '
    'experiment files finite guarded_saves input_pipeline lineage machine '
    'models.network_names processes results run_record sharding '
    'skipped_steps telemetry weights wording',
    'jax flax numpy optax ml_collections',
  ),
  'convert': (
    'blueprint checkpoint config files models processes weights wording',
    'jax numpy ml_collections',
  ),
  'export': (
    'blueprint config device_augment evaluation.features files '
    'machine.platform_choice processes results weights',
    'jax flax numpy ml_collections',
  ),
  'describe': (
    'blueprint config models planning.plan',
    'jax ml_collections',
  ),
  'planning/plan': (
    'blueprint config evaluation.knn input_pipeline.augmentation '
    'input_pipeline.frame_sampling models objective planning wording',
    'jax numpy ml_collections',
  ),
  'embed': (
    'blueprint config device_augment embeddings evaluation experiment files '
    'models.network_names processes results sharding telemetry untrusted '
    'weights wording',
    'jax flax numpy ml_collections',
  ),
  'evaluate': (
    'checkpoint embeddings evaluation experiment files finite input_pipeline '
    'results run_weights telemetry train_state weights wording',
    'jax numpy ml_collections',
  ),
  'linear_eval': (
    'classifiers evaluation input_pipeline.image_folder '
    'input_pipeline.labelled_images results sharding weights',
    'jax flax ml_collections',
  ),
  'finetune': (
    'classifiers config evaluation optimizer results sharding training_data '
    'weights',
    'jax flax optax ml_collections',
  ),
  'retrieval': (
    'config embeddings evaluate evaluation experiment files input_pipeline '
    'results retrieval telemetry untrusted weights wording',
    'jax numpy PIL ml_collections',
  ),
  'retrieve': (
    'embeddings evaluation experiment files input_pipeline results retrieval wording',
    'jax numpy ml_collections',
  ),
  'training': (
    'blueprint checkpoint config evaluate evaluation.monitors experiment '
    'finite guarded_saves lineage machine processes run_record run_weights sharding '
    'skipped_steps telemetry train_state train_step training weights wording',
    'flax jax ml_collections',
  ),
  'train': (
    'blueprint checkpoint experiment files processes run_record telemetry '
    'train_state train_step training',
    'jax clu ml_collections',
  ),
  'program': (
    'checkpoint code_version config embeddings files finite input_pipeline '
    'machine models.official_checkpoint option_parser processes program '
    'standard_output '
    'results telemetry untrusted weights',
    'jax ml_collections',
  ),
}
DATA_ALLOWED = {  # module or folder of data/ -> its own code
  'errors': '',
  'wording': 'vie_jax',
  'progress': '',
  'interrupts': '',
  'option_parser': 'vie_jax',
  'untrusted': 'vie_jax',
  'unread': 'errors vie_jax',
  'media': 'errors wording',
  'dataset': 'errors unread untrusted wording',
  'sources': 'dataset errors media progress untrusted wording',
  'preparation': (
    'dataset errors interrupts media progress sources unread untrusted wording'
  ),
  'demo_data': 'interrupts',
  'check_dataset': 'dataset errors sources unread untrusted wording',
  'pages': ('dataset errors media progress untrusted vie_jax wording'),
  'command_options': 'dataset media preparation sources',
  'definition_commands': 'command_options dataset errors sources',
  'prepare': (
    'check_dataset command_options dataset definition_commands demo_data errors '
    'interrupts option_parser pages preparation progress sources unread '
    'untrusted wording'
  ),
  'prepare_beam': 'preparation prepare',
}
# Folders of launch/.
LAUNCH_ALLOWED = {
  'job': 'job',
  'tpu': 'job tpu',
  'reproduction': 'job reproduction',
}
# Files that may import more than their folder, inside functions.
EXCEPTIONS = {'models/official_files.py': 'tensorflow'}


def imported_names(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path.name}: write imports in full'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def is_allowed(name, own, outside):
  top, _, inside = name.partition('.')
  if top != 'vie_jax':
    return top in FREE or top in outside.split()
  return any(f'{inside}.'.startswith(f'{part}.') for part in own.split())


def paths_of(layer):
  paths = [PACKAGE / f'{layer}.py', *(PACKAGE / layer).glob('*.py')]
  return [path for path in paths if path.exists()]


@pytest.mark.parametrize('layer', ALLOWED)
def test_imports_only_what_the_table_allows(layer):
  paths = paths_of(layer)
  assert paths
  own, outside = ALLOWED[layer]
  for path in paths:
    more = EXCEPTIONS.get(str(path.relative_to(PACKAGE)), '')
    for name in imported_names(path):
      allowed = is_allowed(name, own, f'{outside} {more}')
      assert allowed, f'{path.name} imports {name}'


def test_the_table_names_every_module():
  named = {path for layer in ALLOWED for path in paths_of(layer)}
  modules = set(PACKAGE.rglob('*.py'))
  assert {path for path in modules - named if path.stem[0] != '_'} == set()


def test_the_page_for_contributors_has_the_layers_in_their_order():
  text = (REPOSITORY / 'CONTRIBUTING.md').read_text()
  rows = [line.split('|')[1] for line in text.splitlines() if line[:3] == '| `']
  row_of = {
    name.rstrip('/'): number
    for number, row in enumerate(rows)
    for name in re.findall(r'`([^`]+)`', row)
  }
  assert row_of.keys() == ALLOWED.keys()
  for module, (own_code, _) in ALLOWED.items():
    for name in own_code.replace('.', '/').split():
      layers = [part for part in row_of if f'{name}/'.startswith(f'{part}/')]
      assert all(row_of[part] <= row_of[module] for part in layers), (
        f'{module} stands above {name}'
      )


@pytest.mark.parametrize('module', [*MODULES, 'main'])
def test_every_module_imports(module):
  importlib.import_module(module)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_locked_and_sound(name):
  from vie_jax.config import config_check

  config = importlib.import_module(f'configs.{name}').get_config()
  assert config.is_locked
  config_check.check(config)


def test_lower_layers_need_neither_tensorflow_nor_clu():
  code = f"""
import importlib, sys
for name in ('tensorflow', 'clu', 'ml_collections'):
  sys.modules[name] = None  # importing it now fails
for name in {WITHOUT_TENSORFLOW}:
  importlib.import_module(name)
"""
  environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)


def test_a_mistake_in_the_command_line_is_said_before_the_slow_imports():
  code = """
import sys
for name in ('jax', 'tensorflow', 'vie_jax.train'):
  sys.modules[name] = None  # importing it now fails
sys.argv = ['main.py', '--config=configs/vie_single.py', '--config.seed=-3']
import runpy
runpy.run_path('main.py', run_name='__main__')
"""
  environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
  done = subprocess.run(
    [sys.executable, '-c', code],
    check=False,
    env=environment,
    cwd=REPOSITORY,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.startswith('Command line: config.seed is -3')


def test_a_config_is_checked_without_jax():
  """Launchers do, also on machines that have little else than Python."""
  code = """
import sys
for name in ('jax', 'flax', 'numpy', 'tensorflow'):
  sys.modules[name] = None  # importing it now fails
from configs import default
from vie_jax.config import config_check
config_check.check(default.get_config())
"""
  environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)


def test_what_reads_no_data_needs_no_tensorflow():
  code = """
import sys
for name in ('tensorflow', 'clu'):
  sys.modules[name] = None  # importing it now fails
from vie_jax.config import modes
from vie_jax.program import one_mode
for mode in ('convert', 'describe', 'export'):
  modes.find(mode)
"""
  environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)


def test_every_mode_is_found():
  modes = importlib.import_module('vie_jax.config.modes')
  assert all(callable(modes.find(mode)) for mode in modes.MODES)


def test_the_batches_of_every_mode_are_fields_of_the_config():
  modes = importlib.import_module('vie_jax.config.modes')
  config = importlib.import_module('configs.default').get_config()
  for mode in modes.MODES.values():
    assert all(operator.attrgetter(field)(config) for field in mode.batches)


@pytest.mark.parametrize('folder', DATA_ALLOWED)
def test_the_data_tools_import_only_what_the_table_allows(folder):
  allowed = {folder, *DATA_ALLOWED[folder].split()}
  top = {path.stem for path in DATA.iterdir() if path.suffix in ('', '.py')}
  own = {'vie_jax', *top}
  for path in [DATA / f'{folder}.py', *(DATA / folder).glob('*.py')]:
    if path.exists():
      used = {name.partition('.')[0] for name in imported_names(path)}
      assert used & own <= allowed, path


def test_the_table_names_every_folder_of_the_data_tools():
  folders = {path.relative_to(DATA).parts[0] for path in DATA.rglob('*.py')}
  assert {name.removesuffix('.py') for name in folders} == DATA_ALLOWED.keys()


def test_of_the_data_tools_only_show_and_what_serves_all_use_the_package():
  def users(*packages):
    return {
      path.name
      for path in DATA.rglob('*.py')
      for name in imported_names(path)
      if name.partition('.')[0] in packages
    }

  assert users('vie_jax', 'jax') == {
    'network_clips.py',
    'option_parser.py',
    'show_dataset.py',
    'unread.py',
    'untrusted.py',
    'wording.py',
  }
  assert users('tensorflow', 'tensorflow_datasets') == {'tfds_videos.py'}


def test_the_data_tools_start_without_what_takes_long_to_import():
  code = """
import sys
for name in ('jax', 'tensorflow', 'ml_collections'):
  sys.modules[name] = None  # importing it now fails
import prepare
used = {name for name in sys.modules if name.startswith('vie_jax')}
assert used == {'vie_jax'} | {f'vie_jax.{name}' for name in (
  'files', 'files.disk', 'input_pipeline', 'input_pipeline.remote_errors',
  'input_pipeline.unanswered', 'option_parser', 'untrusted', 'untrusted.tables',
  'untrusted.tar_stream', 'untrusted.text', 'untrusted.urls', 'wording',
)}, used
"""
  environment = dict(os.environ, PYTHONPATH=str(REPOSITORY / 'data'))
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)


@pytest.mark.parametrize('folder', [BENCHMARKS, LAUNCH], ids=lambda p: p.name)
def test_files_of_the_folder_itself_are_commands_and_no_others_are(folder):
  commands = {path.stem for path in folder.glob('*.py')}
  for path in folder.rglob('*.py'):
    is_command = "__name__ == '__main__'" in path.read_text('utf-8')
    assert is_command == (path.parent == folder), path
    # Each is there for itself: what two of them need is in a folder.
    used = {name.partition('.')[0] for name in imported_names(path)}
    assert not used & commands, path


def test_what_launchers_are_made_of_imports_only_what_the_table_allows():
  for folder, own in LAUNCH_ALLOWED.items():
    for path in (LAUNCH / folder).glob('*.py'):
      used = {name.partition('.')[0] for name in imported_names(path)}
      assert used & LAUNCH_ALLOWED.keys() <= set(own.split()), path
