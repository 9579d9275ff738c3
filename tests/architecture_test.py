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
  if name.split('.')[1]
  in (
    'objective',
    'models',
    'evaluation',
    'antialiased_resize',
    'color_noise',
    'device_augment',
    'finite',
    'platform_choice',
    'processes',
    'sharding',
    'untrusted',
    'metrics_file',
    'result_file',
    'optimizer',
    'train_state',
    'train_step',
    'workdir_lock',
    'step_trace',
    'saved_steps',
    'checkpoint',
    'run_record',
  )
]

ALLOWED = {  # module or folder -> (own code, outside packages)
  'environment': ('', 'jax'),
  'sharding': ('', 'jax numpy'),
  'platform_choice': ('', 'jax'),
  'finite': ('platform_choice sharding', 'jax numpy'),
  'skipped_steps': ('finite', 'jax ml_collections numpy'),
  'objective': ('objective platform_choice sharding', 'jax numpy'),
  'models': ('models platform_choice untrusted', 'jax flax numpy'),
  'antialiased_resize': ('platform_choice', 'jax'),
  'color_noise': ('platform_choice', 'jax'),
  'device_augment': ('antialiased_resize color_noise', 'jax numpy'),
  'optimizer': ('', 'jax optax'),
  'planning/accelerators': ('', ''),
  'config_check': (
    'models.network_names planning.accelerators untrusted',
    'ml_collections',
  ),
  'config_roles': ('', ''),
  'config_fields': ('config_check', 'ml_collections'),
  'planning/scaling': ('objective planning.accelerators', ''),
  'processes': ('processes sharding', 'jax numpy'),
  'device_memory': ('', 'jax'),
  'disk': ('', ''),
  'patient_file': ('disk', ''),
  'code_version': ('__version__', ''),
  'command_line': (
    'code_version processes.exit_codes untrusted',
    'ml_collections',
  ),
  'run_errors': (
    'checkpoint config_check device_memory disk embeddings.clip_files '
    'embeddings.foreign_embeddings finite input_pipeline '
    'models.official_checkpoint processes result untrusted workdir_lock',
    '',
  ),
  'run_log': ('patient_file processes untrusted', ''),
  'compilation_cache': ('', 'jax'),
  'step_trace': ('', 'jax'),
  'step_progress': ('', ''),
  'input_wait': ('processes', ''),
  'untrusted': ('untrusted', 'numpy pyarrow'),
  'metrics_file': ('untrusted', ''),
  'scalar_writer': ('', 'clu'),
  'tensorboard_log': ('disk scalar_writer', 'clu tensorflow'),
  'metric_log': (
    'disk metrics_file patient_file processes scalar_writer tensorboard_log',
    'clu',
  ),
  'result_file': ('untrusted', ''),
  'input_pipeline': (
    'disk input_pipeline untrusted',
    'tensorflow tensorflow_datasets numpy pyarrow array_record fsspec PIL '
    'simplejpeg',
  ),
  'train_state': ('sharding objective.memory_bank', 'jax flax optax'),
  'train_step': ('finite sharding train_state objective', 'jax flax optax'),
  'saved_steps': ('disk processes saved_steps', 'jax numpy orbax'),
  'checkpoint': ('disk processes saved_steps', 'jax'),
  'run_record': ('checkpoint config_roles disk processes', ''),
  'workdir_lock': ('disk processes', ''),
  'guarded_saves': (
    'checkpoint input_pipeline.dataset_folder input_wait metric_log processes '
    'skipped_steps step_trace',
    '',
  ),
  'evaluation': (
    'disk evaluation metrics_file objective result_file sharding '
    'training_data untrusted',
    'jax flax optax numpy jinja2 matplotlib PIL',
  ),
  'blueprint': (
    'config_check models modes objective.memory_bank optimizer sharding '
    'train_step',
    'jax flax ml_collections',
  ),
  'damage_counts': (
    'input_pipeline processes',
    'jax numpy ml_collections',
  ),
  'experiment': (
    'blueprint config_check damage_counts device_augment input_pipeline '
    'input_wait models modes processes train_state',
    'jax flax numpy optax ml_collections',
  ),
  'training_data': ('', ''),
  'run_weights': (
    'checkpoint models.network_names run_record sharding',
    'jax ml_collections',
  ),
  'weights': (
    'checkpoint models run_weights sharding train_state training_data',
    'jax flax numpy ml_collections',
  ),
  'result': ('code_version disk result_file weights', 'jax ml_collections'),
  'embeddings': (
    'damage_counts device_augment disk embeddings evaluation experiment '
    'finite input_pipeline processes result run_log untrusted weights',
    'jax numpy pyarrow PIL ml_collections',
  ),
  'classifiers': (
    'blueprint checkpoint classifiers config_check config_roles damage_counts '
    'device_augment environment evaluation experiment finite guarded_saves '
    'input_pipeline input_wait metric_log models.network_names processes '
    'result run_log run_record sharding skipped_steps step_progress '
    'weights workdir_lock',
    'jax flax numpy optax ml_collections',
  ),
  'convert': (
    'blueprint checkpoint config_check disk models processes weights '
    'workdir_lock',
    'jax numpy ml_collections',
  ),
  'describe': (
    'blueprint config_check models planning.plan',
    'jax ml_collections',
  ),
  'planning/plan': (
    'blueprint config_check evaluation.knn input_pipeline.augmentation models '
    'objective planning',
    'jax numpy ml_collections',
  ),
  'embed': (
    'blueprint config_check damage_counts device_augment disk embeddings '
    'evaluation experiment models.network_names processes result run_log '
    'sharding untrusted weights workdir_lock',
    'jax flax numpy ml_collections',
  ),
  'evaluate': (
    'checkpoint damage_counts embeddings evaluation experiment findings '
    'finite input_pipeline result run_weights train_state weights '
    'workdir_lock',
    'jax numpy ml_collections',
  ),
  'linear_eval': (
    'classifiers evaluation input_pipeline.image_folder '
    'input_pipeline.labelled_images result sharding weights',
    'jax flax ml_collections',
  ),
  'finetune': (
    'classifiers config_check evaluation optimizer result sharding '
    'training_data weights',
    'jax flax optax ml_collections',
  ),
  'findings': ('disk result input_pipeline.frame_store untrusted', 'numpy'),
  'retrieval_page': (
    'evaluation findings input_pipeline.frame_store '
    'input_pipeline.sound_frames untrusted',
    'numpy PIL',
  ),
  'retrieve': (
    'config_check damage_counts embeddings evaluate evaluation experiment '
    'findings input_pipeline result retrieval_page weights workdir_lock',
    'jax numpy ml_collections',
  ),
  'train_reporter': (
    'checkpoint damage_counts environment evaluate experiment finite '
    'guarded_saves metric_log skipped_steps train_state',
    'jax',
  ),
  'train_loop': (
    'damage_counts evaluation.monitors experiment input_wait processes '
    'sharding step_progress step_trace train_reporter train_state train_step',
    '',
  ),
  'train_start': (
    'blueprint checkpoint config_check damage_counts environment experiment '
    'processes run_record run_weights sharding train_state train_step weights',
    'jax ml_collections',
  ),
  'train': (
    'blueprint checkpoint experiment metric_log processes run_log run_record '
    'step_trace train_loop train_reporter train_start train_state '
    'train_step workdir_lock',
    'jax clu ml_collections',
  ),
  'modes': ('', 'ml_collections'),
  'early_refusals': (
    'config_check input_pipeline.dataset_folder modes weights workdir_lock',
    'ml_collections',
  ),
  'program': (
    'compilation_cache early_refusals modes processes run_errors run_log',
    'jax ml_collections',
  ),
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
  from vie_jax import config_check

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
from vie_jax import config_check
config_check.check(default.get_config())
"""
  environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)


def test_what_reads_no_data_needs_no_tensorflow():
  code = """
import sys
for name in ('tensorflow', 'clu'):
  sys.modules[name] = None  # importing it now fails
from vie_jax import modes, program
for mode in ('convert', 'describe'):
  modes.find(mode)
"""
  environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)


def test_every_mode_is_found():
  modes = importlib.import_module('vie_jax.modes')
  assert all(callable(modes.find(mode)) for mode in modes.MODES)


def test_the_batches_of_every_mode_are_fields_of_the_config():
  modes = importlib.import_module('vie_jax.modes')
  config = importlib.import_module('configs.default').get_config()
  for mode in modes.MODES.values():
    assert all(operator.attrgetter(field)(config) for field in mode.batches)


def test_of_the_data_tools_only_show_and_untrusted_use_the_package():
  def users(*packages):
    return {
      path.name
      for path in (REPOSITORY / 'data').glob('*.py')
      for name in imported_names(path)
      if name.partition('.')[0] in packages
    }

  assert users('vie_jax', 'jax') == {
    'network_clips.py',
    'show_dataset.py',
    'untrusted.py',
  }
  assert users('tensorflow', 'tensorflow_datasets') == {'tfds_videos.py'}


def test_the_data_tools_start_without_what_takes_long_to_import():
  code = """
import sys
for name in ('jax', 'tensorflow', 'ml_collections'):
  sys.modules[name] = None  # importing it now fails
import prepare
used = {name for name in sys.modules if name.startswith('vie_jax')}
assert used == {'vie_jax', 'vie_jax.untrusted'} | {
  f'vie_jax.untrusted.{name}' for name in ('tables', 'tar_stream', 'urls')
}, used
"""
  environment = dict(os.environ, PYTHONPATH=str(REPOSITORY / 'data'))
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)
