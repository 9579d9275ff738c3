"""Fields set on the command line are data: mistakes are one line, code 2."""

import json
import os
import subprocess
import sys

import pytest
import tiny_run

from vie_jax.files import config_origin, workdir_lock
from vie_jax.program import command_line

MAIN = tiny_run.REPOSITORY / 'main.py'
CONFIG = '--config=configs/vie_single.py'
CALL = '__import__("os").mkdir("owned")'
# Each case is parsed by a process of its own, after the imports.
SCRIPT = """
import json, os, sys, tempfile
import main
from vie_jax.config import config_check
from vie_jax.program import command_line

outcomes = []
for words in json.loads(sys.argv[1]):
  said = tempfile.TemporaryFile()
  child = os.fork()
  if not child:
    os.dup2(said.fileno(), 2)
    # config_flags looks for the fields there.
    sys.argv = ['main.py', *words]
    try:
      command_line.parse(sys.argv)
      config = main._CONFIG.value
      config_check.check(config)
      print(config.optimizer.learning_rate, config.batch_size,
            config.embed.splits, file=sys.stderr)
      code = 0
    except config_check.ConfigError as error:
      print(error, file=sys.stderr)
      code = 2
    except SystemExit as error:
      code = error.code
    finally:
      sys.stderr.flush()
    os._exit(code)
  status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  said.seek(0)
  outcomes.append((status, said.read().decode()))
print(json.dumps(outcomes))
"""
REFUSED = {
  'no number': (['--config.batch_size=abc'], 'batch_size=abc'),
  'a fraction': (['--config.batch_size=1.5'], 'batch_size=1.5'),
  'nothing': (['--config.batch_size='], 'batch_size='),
  'many digits': (['--config.batch_size=' + '9' * 5000], 'batch_size=999'),
  'too large': (
    ['--config.seed=4294967295'],
    'at most 4294967294',
  ),
  'a truth': (['--config.batch_size=True'], 'batch_size=True'),
  'unknown': (['--config.nothing=1'], "no field 'nothing'"),
  'misspelt': (['--config.batchsize=1'], 'batch_size'),
  'unknown within': (['--config.optimizer.x=1'], "no field 'x'"),
  'a group': (['--config.optimizer=1'], 'optimizer=1'),
  'private': (['--config.__class__=1'], '__class__'),
  'globals': (['--config.optimizer.__init__.__globals__=1'], '__globals__'),
  'not finite': (['--config.optimizer.learning_rate=nan'], 'learning_rate'),
  'endless': (['--config.optimizer.learning_rate=1e999'], 'learning_rate'),
  'a call': ([f'--config.model.name={CALL}'], 'model.name'),
  'calls': ([f'--config.optimizer.drop_steps={CALL}'], 'drop_steps'),
  'torn': (['--config.optimizer.drop_steps=(1,2'], 'drop_steps'),
  'texts': (['--config.optimizer.drop_steps=(1,"a")'], 'drop_steps'),
  'deep': (['--config.optimizer.drop_steps=' + '(' * 3000], 'drop_steps'),
  'another flag': (['--unknown=1'], 'unknown'),
  'a word': (['--workdir=w', 'more'], "'more' belongs to no flag"),
  'another mode': (['--mode=nothing'], 'mode'),
}


WORDED = {
  'no number': ('batch_size=abc', "'abc' is no whole number"),
  'a fraction': ('batch_size=1.5', "'1.5' is no whole number"),
  'no rate': ('optimizer.learning_rate=x', "'x' is no number"),
  'no truth': ('profile=maybe', "'maybe' is neither true nor false"),
  'torn': ('optimizer.drop_steps=(1,2', '(1,2 is no list of values in'),
  'misspelt': (
    'batchsize=1',
    "no field 'batchsize'; did you mean 'batch_size'",
  ),
  'in a text': ('model.name.x=1', 'a field of a text, which has none'),
  'in a number': ('batch_size.x=1', "no field 'batch_size.x'"),
  'group': ('optimizer=1', 'a group of fields, which are set one by one'),
}


# Words with a slip in one of them -> how what is said of it ends.
MEANT = {
  (CONFIG, '--mode=linear_evl'): '|train>; did you mean linear_eval?',
  (CONFIG, '--distributed=of'): '<auto|on|off>; did you mean off?',
  (CONFIG, '--mode=zzz'): '|train>.',
  (CONFIG, '--wrkdir=w'): 'there is no flag --wrkdir; did you mean --workdir?',
  (CONFIG, '--zzz=w'): 'there is no flag --zzz.',
  ('--config=configs/vie_slowfst.py', '--config.seed=1'): (
    'in the current folder; did you mean configs/vie_slowfast.py?'
  ),
  (CONFIG, '--config.optimizer.lerning_rate=1'): (
    "no field 'lerning_rate'; did you mean 'learning_rate'?"
  ),
}


@pytest.fixture(scope='module')
def outcomes():
  cases = {name: [CONFIG, *words] for name, (words, _) in REFUSED.items()}
  cases |= {
    f'{name}, worded': [CONFIG, f'--config.{word}']
    for name, (word, _) in WORDED.items()
  }
  cases['no variant'] = ['--config=configs/demo.py:none']
  cases['no variants'] = ['--config=configs/vie_slowfast.py:none']
  cases['scientific'] = [CONFIG, '--config.optimizer.learning_rate=1e-3']
  cases['twice'] = [CONFIG, '--config.batch_size=8', '--config.batch_size=16']
  cases['tuples'] = [
    CONFIG,
    '--config.embed.splits=("train",)',
    '--config.embed.splits=("val",)',
  ]
  cases['words of their own'] = [
    CONFIG,
    *('--config.embed.splits', '("train",)', '--config.batch_size', '8'),
    *('--config.optimizer.learning_rate', '-2', '--config.profile'),
    *('--config.embed.splits', '("val",)', '--config.batch_size=16'),
    *('--config.optimizer.learning_rate', '0.5', '--config.profile=false'),
  ]
  cases |= {' '.join(words): words for words in MEANT}
  cases['no Python'] = ['--config=README.md']
  cases['nowhere'] = ['--config=configs/nowhere.py', '--config.batch_size=8']
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT, json.dumps(list(cases.values()))],
    cwd=tiny_run.REPOSITORY,
    env=tiny_run.environment(),
    stdout=subprocess.PIPE,
    check=True,
  )
  return dict(zip(cases, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize('name', REFUSED)
def test_a_mistake_is_one_line(outcomes, name):
  code, said = outcomes[name]
  assert code == 2, said
  assert REFUSED[name][1] in said
  assert said.count('\n') == 1
  assert len(said) < 4000
  assert not os.path.exists(tiny_run.REPOSITORY / 'owned')


@pytest.mark.parametrize('name', WORDED)
def test_a_mistake_is_in_words_not_in_those_of_python(outcomes, name):
  code, said = outcomes[f'{name}, worded']
  assert code == 2
  assert WORDED[name][1] in said
  for words in ('literal', 'convert', 'argument', 'pars', 'indices', 'class'):
    assert words not in said


@pytest.mark.parametrize('words', MEANT)
def test_a_slip_is_answered_with_what_may_be_meant(outcomes, words):
  code, said = outcomes[' '.join(words)]
  assert code == 2
  assert said.endswith(f'{MEANT[words]}\n')


@pytest.mark.parametrize(
  'name, meant',
  [
    ('configs/vie_slowfst.py', 'configs/vie_slowfast.py'),
    ('vie_slowfast.py', 'configs/vie_slowfast.py'),
    ('configs/vie_slowfast', 'configs/vie_slowfast.py'),
    ('config/vie_trn.py', 'configs/vie_trn.py'),
    ('configs/nowhere.py', ''),
    ('{own}/min.py', '{own}/mine.py'),
  ],
)
def test_a_config_that_may_be_meant_is_near_or_one_of_configs(
  tmp_path, monkeypatch, name, meant
):
  (tmp_path / 'mine.py').touch()
  monkeypatch.chdir(tiny_run.REPOSITORY)
  found = command_line.near_config(name.format(own=tmp_path))
  assert found == meant.format(own=tmp_path)


def test_a_config_that_is_not_there_is_answered_with_one_that_is():
  assert refused('--config=configs/vie_slowfst.py') == (
    'Command line: there is no config configs/vie_slowfst.py; did you mean '
    'configs/vie_slowfast.py?'
  )


def test_an_error_of_a_config_file_is_said_without_its_kind(outcomes):
  code, said = outcomes['no variant']
  assert code == 2
  assert said.startswith('Command line: configs/demo.py:none does not exist')


def test_a_variant_of_a_config_without_any_is_refused_by_name(outcomes):
  assert outcomes['no variants'] == [
    2,
    'Command line: configs/vie_slowfast.py takes no variant behind a colon; '
    'leave that out.\n',
  ]


def test_numbers_are_numbers_and_the_last_of_two_wins(outcomes):
  both = "('train', 'val')"
  assert outcomes['scientific'] == [0, f'0.001 128 {both}\n']
  assert outcomes['twice'] == [0, f'0.03 16 {both}\n']


def test_the_last_of_two_tuples_wins_as_that_of_two_numbers_does(outcomes):
  assert outcomes['tuples'] == [0, "0.03 128 ('val',)\n"]
  assert outcomes['words of their own'] == [0, "0.5 16 ('val',)\n"]


def test_without_a_config_that_is_what_is_said():
  assert refused() == (
    'Command line: there is no --config, such as '
    '--config=configs/vie_slowfast.py.'
  )


def test_a_config_that_is_not_there_is_sought_in_the_current_folder(outcomes):
  code, said = outcomes['nowhere']
  assert code == 2
  assert 'there is no file configs/nowhere.py; a relative path beg' in said


def test_a_config_that_is_no_python_is_one_line(outcomes):
  code, said = outcomes['no Python']
  assert code == 2
  assert said.count('\n') == 1
  assert 'README.md' in said


# Text of a config file -> what is said of it; {file} is its path.
CONFIG_FILES = {
  'raise KeyError("foo")': "{file}, line 3: KeyError: 'foo'",
  'raise ValueError': '{file}, line 3: ValueError',
  'raise ValueError("so\\nand so")': '{file}, line 3: so\\nand so',
  'assert False': '{file}, line 3: AssertionError',
  'raise SystemExit(3)': '{file}, line 3: SystemExit: 3',
  'default.get_config().batchsize = 3': '{file}, line 3: AttributeError: ',
  'import json; json.loads("x")': '{file}, line 3: json.decoder.JSONDecodeErr',
  'return None': 'returns nothing',
  'return {"batch_size": 3}': 'get_config() returns dict, which is no Config',
  'return ml_collections.ConfigDict()': 'is missing: begin with configs/default.py',
  'config = default.get_config(); config.batch_size = None; return config': (
    'config.batch_size is None; it must be of type int'
  ),
}


@pytest.mark.parametrize('number', range(len(CONFIG_FILES)))
def test_a_config_file_that_is_wrong_is_one_line_with_its_place(
  tmp_path, number
):
  body, words = list(CONFIG_FILES.items())[number]
  file = tmp_path / 'mine.py'
  file.write_text(
    f'import ml_collections; from configs import default\n'
    f'def get_config():\n  {body}\n'
  )
  assert words.format(file=file) in refused(f'--config={file}')


def refused(*words):
  """What main.py says of a command line, in its last line."""
  done = subprocess.run(
    [sys.executable, 'main.py', '--mode=describe', *words],
    cwd=tiny_run.REPOSITORY,
    env=tiny_run.environment(),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert 'Traceback' not in done.stderr
  said = done.stderr.splitlines()[-1]
  assert said.startswith('Command line: ')
  return said


def test_signals_that_are_none_are_one_line():
  said = refused(CONFIG, "--config.fault.signals=('SIGFOO',)")
  assert "config.fault.signals is ('SIGFOO',); each must be one of" in said


def refused_before_slow_imports(workdir, *words):
  """What main.py says of a run that cannot start; TensorFlow takes seconds."""
  done = subprocess.run(
    [
      *(sys.executable, '-X', 'importtime', 'main.py', CONFIG),
      *(f'--workdir={workdir}', *words),
    ],
    cwd=tiny_run.REPOSITORY,
    env=tiny_run.environment(),
    capture_output=True,
    text=True,
  )
  lines = done.stderr.splitlines()
  imports = [line for line in lines if line.startswith('import time:')]
  said = [line for line in lines if line not in imports]
  assert done.returncode == 2
  assert any(line.endswith(' jax') for line in imports)
  assert not any(line.endswith(' tensorflow') for line in imports)
  return said[-1]


@pytest.mark.parametrize('workdir', ['', ' '])
def test_an_empty_workdir_is_not_taken_for_the_default(workdir):
  said = refused(CONFIG, f'--workdir={workdir}')
  assert 'Command line: --workdir is empty; leave it out' in said


@pytest.mark.parametrize('mode', ['train', 'retrieve'])
def test_a_data_set_that_is_not_there_is_told_of_before_slow_imports(
  tmp_path, mode
):
  dataset, workdir = tmp_path / 'nowhere', tmp_path / 'workdir'
  said = refused_before_slow_imports(
    workdir, f'--mode={mode}', f'--config.dataset.dir={dataset}'
  )
  assert f'no prepared data set at {dataset}.' in said
  assert not workdir.exists()


def test_too_large_a_batch_is_told_of_before_slow_imports(
  tmp_path, demo_dataset
):
  said = refused_before_slow_imports(
    tmp_path / 'workdir',
    f'--config.dataset.dir={demo_dataset}',
    '--config.batch_size=37',
  )
  assert 'config.batch_size is 37' in said
  assert f'{demo_dataset} has only 36 for training' in said


def test_a_workdir_in_use_is_told_of_before_slow_imports(
  tmp_path, demo_dataset
):
  with workdir_lock.hold(tmp_path / 'workdir'):
    said = refused_before_slow_imports(
      tmp_path / 'workdir',
      f'--config.dataset.dir={demo_dataset}',
      '--config.batch_size=36',
    )
  assert f'being written to by process {os.getpid()} on' in said


def test_missing_weights_are_told_of_before_slow_imports(
  tmp_path, demo_dataset
):
  said = refused_before_slow_imports(
    tmp_path, '--mode=knn_eval', f'--config.dataset.dir={demo_dataset}'
  )
  assert f'{tmp_path} has no checkpoint to take weights from. Train' in said


@pytest.mark.parametrize(
  'name, words',
  [
    ('vie[lr=0.1]', 'has [ in it'),
    ('a*', 'has * in it'),
    ('a?b', 'has ? in it'),
    ('a\\b', 'has \\ in it'),
    ('w\udcff', 'is not UTF-8'),
    # As a locale of ASCII takes UTF-8.
    ('w\udcc3\udcbc', 'the locale is not UTF-8, which the path is'),
    ('{a} ~b%$"é', None),
  ],
)
def test_a_workdir_where_checkpoints_could_not_be_read_again(name, words):
  problem = command_line.workdir_problem(f'/runs/{name}/vie')
  assert (problem is None) if words is None else (words in problem)


@pytest.mark.parametrize('url', ['gs://b/w', 's3://b/w', 'file:///w'])
def test_a_workdir_that_is_a_url_is_refused(url):
  said = refused(CONFIG, f'--workdir={url}')
  assert f'--workdir: {url} is a URL, and the workdir must be a path' in said
  assert not (tiny_run.REPOSITORY / url.partition('/')[0]).exists()


def test_such_a_workdir_is_refused_even_where_the_path_is_relative(tmp_path):
  # And Python looks nowhere for modules (-I).
  folder = tmp_path / 'a[1]'
  folder.mkdir()
  main = tiny_run.REPOSITORY / 'main.py'
  config = tiny_run.REPOSITORY / 'configs' / 'vie_single.py'
  done = subprocess.run(
    [sys.executable, '-I', main, f'--config={config}', '--workdir=run'],
    cwd=folder,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr == (
    f'Command line: --workdir: {folder}/run has [ in it. Checkpoints could not '
    'be read again there: rename the folder.\n'
  )
  assert not list(folder.iterdir())


def refused_in(folder, config_file, *words):
  """What main.py says, in a folder, of a run that has a data set nowhere."""
  file = folder / config_file
  file.parent.mkdir(exist_ok=True)
  file.write_text('from configs.vie_single import get_config')
  done = subprocess.run(
    [sys.executable, MAIN, f'--config={config_file}', *words]
    + [f'--config.dataset.dir={folder / "nowhere"}'],
    cwd=folder,
    env=tiny_run.environment(),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  return done.stderr.splitlines()[-1]


def test_config_files_of_one_name_do_not_share_the_default_workdir(tmp_path):
  folder = tmp_path / 'workdir' / 'mine'
  folder.mkdir(parents=True)
  own = config_origin.of(tmp_path / 'a' / 'mine.py')
  config_origin.write(folder, own)
  other = tmp_path / 'b' / 'mine.py'
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'mine.py').touch()
  assert (
    f'workdir/mine holds a training by another config file, {own}, and this one '
    f'is {other}. Name a folder of its own with --workdir, or, to go on there '
    'with this one, --workdir=workdir/mine.'
  ) in refused_in(tmp_path, 'b/mine.py')
  for file, *words in (
    ('a/mine.py',),
    ('b/mine.py', '--workdir=workdir/mine'),
  ):
    assert 'no prepared data set' in refused_in(tmp_path, file, *words)


def test_a_workdir_may_lie_in_the_home_directory(
  tmp_path, demo_dataset, monkeypatch
):
  monkeypatch.setenv('HOME', str(tmp_path))
  said = refused_before_slow_imports(
    '~/w', '--mode=knn_eval', f'--config.dataset.dir={demo_dataset}'
  )
  assert f'There is no workdir {tmp_path}/w to take weights from' in said


def test_help_is_no_mistake():
  done = subprocess.run(
    [sys.executable, str(MAIN), '--help'],
    cwd=tiny_run.REPOSITORY,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '--workdir' in done.stdout
