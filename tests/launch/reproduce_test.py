"""Running plans: what is skipped, what fails, what is written."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest
import reproduce
import tiny_run
from reproduction import (
  demo_plan,
  expected_times,
  finished_steps,
  paper_plan,
  step_runner,
)
from reproduction.plan import Step

from vie_jax.evaluation import cell_results, paper_roles
from vie_jax.evaluation.paper_tables import CELLS

SCRIPT = str(tiny_run.REPOSITORY / 'launch' / 'reproduce.py')
# The smallest run that is still one: seconds, and learns nothing.
TINY = {
  'model.width': 4,
  'num_steps': 4,
  'objective.instance_recognition_steps': 2,
  'memory_bank.init': 'uniform',
  'batch_size': 8,
  'local_aggregation.num_neighbors': 4,
  'linear_eval.num_steps': 2,
  'linear_eval.batch_size': 8,
}


def command(out, dataset, *arguments):
  return [
    sys.executable,
    SCRIPT,
    '--plan=demo',
    f'--out={out}',
    f'--kinetics={dataset}',
    '--label=kinetics=motion',
    *arguments,
    *(f'--config.{field}={value}' for field, value in TINY.items()),
  ]


def step(name, *arguments, needs=()):
  """A step that is over at once: data/prepare.py says what is wrong."""
  return Step(name, needs, 'data', 'nowhere', arguments=arguments)


def good(name, **options):
  return step(name, '--help', **options)


def bad(name, **options):
  return step(name, 'check', '/nowhere', **options)


def run(tmp_path, steps, *, jobs=1, is_verbose=False):
  lines = []
  runner = step_runner.Runner(
    steps,
    {step.name: 1.0 for step in steps},
    logs=tmp_path / 'logs',
    jobs=jobs,
    is_verbose=is_verbose,
    say=lines.append,
  )
  return runner.run(), lines


# Which steps are finished.


@pytest.fixture
def slow():
  """The steps of a readout of VIE-Slow in the demo plan."""
  plan = demo_plan.make(out='R', paths={}, labels={}, extra={})
  return plan.needed(['table1.vie_slow.kinetics.conv5'])


def finish(step, config=None, dataset=None):
  """Leaves what a finished step leaves."""
  folder = finished_steps.REPOSITORY / step.folder
  folder.mkdir(parents=True, exist_ok=True)
  config = config or step.config()
  text = config.to_json_best_effort()
  if step.mode == 'train':
    (folder / 'config.json').write_text(text)
    (folder / 'checkpoints' / str(config.num_steps)).mkdir(parents=True)
    return
  facts = {
    'format_version': 1,
    'mode': step.mode,
    'dataset': dataset or {'name': 'demo'},
    'network': {},
    'accuracy': {'motion': {'conv5': {'top1': 0.5}}},
    'config': json.loads(text),
  }
  (folder / 'result.json').write_text(json.dumps(facts))


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
  for module in (finished_steps, step_runner):
    monkeypatch.setattr(module, 'REPOSITORY', tmp_path)


def names(steps):
  return [step.name for step in steps]


def test_at_first_everything_is_to_be_done(slow, in_tmp):
  assert finished_steps.unfinished(slow) == slow


def test_a_finished_training_is_not_run_again(slow, in_tmp):
  finish(slow[1])
  assert names(finished_steps.unfinished(slow)) == names([slow[0], slow[2]])


def test_when_all_is_finished_no_data_is_prepared_either(slow, in_tmp):
  finish(slow[1])
  finish(slow[2])
  assert finished_steps.unfinished(slow) == []


def test_a_training_that_is_not_at_its_end_is_run(slow, in_tmp, tmp_path):
  finish(slow[1])
  checkpoints = tmp_path / slow[1].folder / 'checkpoints'
  (checkpoints / str(slow[1].config().num_steps)).rename(checkpoints / '7')
  assert slow[1] in finished_steps.unfinished(slow)


@pytest.mark.parametrize('number', [1, 2])
def test_a_step_of_other_settings_is_run(slow, in_tmp, number):
  for each in slow[1:]:
    config = each.config()
    if each == slow[number]:
      config.model.width += 1
    finish(each, config)
  assert slow[number] in finished_steps.unfinished(slow)


@pytest.mark.parametrize('text', ['', '{"format_version": 1}', '[]'])
def test_a_step_with_a_broken_result_is_run(slow, in_tmp, tmp_path, text):
  finish(slow[1])
  finish(slow[2])
  (tmp_path / slow[2].folder / 'result.json').write_text(text)
  assert slow[2] in finished_steps.unfinished(slow)
  (tmp_path / slow[1].folder / 'config.json').write_text(text)
  assert slow[1] in finished_steps.unfinished(slow)


def prepared(folder, fingerprint):
  """What a plan reads of a prepared data set; returns what results say."""
  folder.mkdir()
  facts = {'name': 'demo', 'fingerprint': fingerprint}
  (folder / 'dataset.json').write_text(json.dumps(facts))
  return facts | {'path': str(folder)}


def test_what_is_of_another_data_set_is_refused_and_not_taken_for_finished(
  tmp_path, capsys
):
  one = prepared(tmp_path / 'one', 'a' * 64)
  prepared(tmp_path / 'moved', 'a' * 64)
  prepared(tmp_path / 'other', 'b' * 64)
  cell = 'table1.vie_slow.kinetics.conv5'

  def main(name, *more):
    arguments = ('--plan=demo', f'--out={tmp_path / "R"}', cell, *more)
    return reproduce.main([*arguments, f'--kinetics={tmp_path / name}'])

  plan = demo_plan.make(
    out=str(tmp_path / 'R'),
    paths={'kinetics': one['path']},
    labels={},
    extra={},
  )
  for each in plan.needed([cell]):
    finish(each, dataset=one)
  for name in ('one', 'moved'):
    assert main(name) == 0
    assert '1 of 1 cell;' in capsys.readouterr().out
  assert main('other') == 2
  said = capsys.readouterr()
  (line,) = said.err.splitlines()
  for words in (one['path'], 'a' * 12, str(tmp_path / 'other'), 'b' * 12):
    assert words in line
  assert 'cells' not in said.out
  # What is only listed is not compared.
  assert main('other', '--dry-run') == 0


# Running them.


def test_steps_run_in_order_and_the_time_left_is_told(tmp_path):
  failed, lines = run(tmp_path, [good('a'), good('b', needs=('a',)), good('c')])
  assert failed == {}
  ended = [line for line in lines if line.startswith('[')]
  assert [line.split(':')[0] for line in ended] == [
    '[1 of 3] a',
    '[2 of 3] b',
    '[3 of 3] c',
  ]
  assert 'left)' in ended[0]
  assert 'left)' in ended[1]
  assert 'left)' not in ended[2]
  log = (tmp_path / 'logs' / 'a.log').read_text()
  assert log.startswith('$ python data/prepare.py --help\n')
  assert 'COMMAND' in log


def test_a_failure_is_named_and_what_does_not_need_it_goes_on(tmp_path):
  steps = [
    bad('a'),
    good('b', needs=('a',)),
    good('c', needs=('b',)),
    good('d'),
  ]
  failed, lines = run(tmp_path, steps)
  assert set(failed) == {'a', 'b', 'c'}
  assert 'exit code 1' in failed['a'] or 'exit code 2' in failed['a']
  assert str(tmp_path / 'logs' / 'a.log') in failed['a']
  assert failed['b'] == 'a failed'
  assert failed['c'] == 'b failed'
  assert any(line.startswith('[4 of 4] d: ') for line in lines)
  assert not (tmp_path / 'logs' / 'b.log').exists()


def test_a_training_that_ended_with_other_settings_fails(
  slow, in_tmp, tmp_path
):
  # Nothing is left to do for a main.py that finds it finished.
  (tmp_path / 'main.py').touch()
  readout = dataclasses.replace(slow[2], mode='data', arguments=('--help',))
  training = dataclasses.replace(slow[1], needs=())
  config = training.config()
  config.optimizer.learning_rate *= 2
  finish(training, config)
  failed, _ = run(tmp_path, [training, readout])
  assert failed[training.name].startswith(
    f'{training.folder} holds a training that ended with other settings'
  )
  assert failed[readout.name] == f'{training.name} failed'
  shutil.rmtree(tmp_path / training.folder)
  finish(training)
  assert run(tmp_path, [training]) == ({}, mock.ANY)


def test_several_at_a_time_still_wait_for_what_they_need(tmp_path):
  steps = [good('a'), good('b', needs=('a',)), good('c'), good('d')]
  failed, lines = run(tmp_path, steps, jobs=2)
  assert failed == {}
  begun = lines.index('      b ...')
  ended = next(i for i, line in enumerate(lines) if '] a: ' in line)
  assert ended < begun
  assert lines.index('      c ...') < ended


def test_output_is_shown_when_asked_for(tmp_path):
  _, lines = run(tmp_path, [good('a')], is_verbose=True)
  assert any(line.startswith('usage:') for line in lines)


def test_times_are_expected_from_what_was_needed_so_far():
  progress = step_runner.Progress({'a': 1.0, 'b': 3.0}, started=100.0)
  assert progress.left(110.0) is None
  progress.done.add('a')
  assert progress.left(110.0) == 30.0
  progress.done.add('b')
  assert progress.left(150.0) == 0.0


@pytest.mark.parametrize(
  'seconds, words',
  [
    (12, '12 s'),
    (600, '10 minutes'),
    (7200, '2.0 hours'),
    (260_000, '3.0 days'),
  ],
)
def test_times_are_said_in_words(seconds, words):
  assert step_runner.in_words(seconds) == words


@pytest.mark.parametrize('make', [paper_plan.make, demo_plan.make])
def test_every_step_but_the_data_is_expected_to_take_some_time(make):
  plan = make(out='R', paths={}, labels={}, extra={})
  for each in plan.steps.values():
    is_timed = expected_times.of_step(plan, each) > 0
    assert is_timed == (each.mode != 'data')


# The command line.


def test_the_list_has_the_cells_of_the_plan_with_their_commands(capsys):
  assert reproduce.main(['--list']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines] == list(CELLS)
  name, words = lines[0].split(maxsplit=1)
  assert words == f'python launch/reproduce.py --plan=paper {name}'
  assert reproduce.main(['--list', '--plan=demo', '--out=X']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert not [line for line in lines if 'hmdb51' in line]
  assert '--plan=demo --out=X table1' in lines[0]


def test_a_dry_run_prints_the_commands_and_runs_nothing(capsys, tmp_path):
  out = tmp_path / 'out'
  arguments = ['--plan=demo', f'--out={out}', '--dry-run']
  assert reproduce.main([*arguments, 'table1.vie_slow.kinetics.conv5']) == 0
  assert capsys.readouterr().out.splitlines() == [
    f'python data/prepare.py demo --num-videos=1200 --val-percent=35 '
    f'--out={out}/data/videos',
    f'python main.py --config=configs/reproduce.py:slow '
    f'--workdir={out}/vie_slow --config.dataset.dir={out}/data/videos',
    f'python main.py --config=configs/reproduce.py:slow '
    f'--workdir={out}/vie_slow --mode=linear_eval '
    f'--config.dataset.dir={out}/data/videos --config.result_name=kinetics',
  ]
  assert not out.exists()


def test_a_table_a_row_and_all_can_be_asked_for():
  plan = demo_plan.make(out='R', paths={}, labels={}, extra={})
  row = reproduce.chosen_cells(plan, ['table1.vie_slow'], [], all_=False)
  assert len(row) == 7
  table = reproduce.chosen_cells(plan, [], ['table2'], all_=False)
  assert len(table) == 20
  everything = reproduce.chosen_cells(plan, [], [], all_=True)
  assert everything == list(plan.step_of)


@pytest.mark.parametrize(
  'arguments, words',
  [
    ([], 'Name cells'),
    (['table1.vie_slowfst'], 'Did you mean table1.vie_slowfast'),
    (['table1.vie_slow.kinetics.conv'], 'There is no cell'),
    (['--table=table9'], 'There is no cell table9'),
    (['--plan=demo', 'table2.vie_single.vie.hmdb51'], 'not in the plan'),
    (['table1', '--config.modle.width=3'], 'did you mean model.width?'),
    (['table1', '--config.nothing.x=3'], 'nothing.x'),
    (['table1', '--config.model.width=wide'], 'model.width=wide'),
    (['table1', '--config.seed=-3'], 'config.seed is -3; it must'),
    (['table1', '--kinetics=s3://me:S3cr3t@b/k'], 's3://***@b/k carries'),
    (['table1', '--speed=3'], '--speed=3 is not understood; see --help'),
    (['table1', '--kinetic=/k'], 'did you mean --kinetics?; see --help'),
    (['table1', '--label=motion'], 'ROLE=COLUMN'),
    (['table1.random', '--kinetics=/nowhere'], 'no data set /nowhere'),
    (['table1', '--cost=H100'], 'UTILISATION:DOLLARS_PER_HOUR:CORES:'),
    (['--plan=demo', '--all', '--cost=H:1:0.1:1:1:1'], 'only'),
  ],
)
def test_a_mistake_is_one_line(arguments, words, capsys):
  assert reproduce.main(arguments) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('Error: ')
  assert words in line
  assert 'S3cr3t' not in line


def test_costs_are_printed_for_what_was_asked_for(capsys):
  assert (
    reproduce.main(['--cost=H100:989:0.15:3:16:1000', 'table1.vie_slow']) == 0
  )
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(' | ')[0] for line in lines[2:]] == [
    '| supervised_slow/supervised/kinetics',
    '| vie_slow',
    '| vie_slow/linear_eval/kinetics',
    '| vie_slow/linear_eval/imagenet',
    '| all',
  ]


@pytest.mark.slow
def test_a_row_is_run_a_failing_cell_reported_and_the_rest_not_run_again(
  demo_dataset, tmp_path
):
  out = tmp_path / 'out'
  row = 'table1.vie_single.kinetics'
  readouts = [f'{row}.{name}' for name in ('conv3', 'conv4', 'conv5')]
  # Too many videos in a batch for the supervised network, and only there.
  arguments = command(
    out, demo_dataset, row, '--config.supervised.batch_size=99'
  )
  done = subprocess.run(
    arguments,
    capture_output=True,
    text=True,
    check=False,
    env=tiny_run.environment(),
  )
  said = done.stdout
  assert done.returncode == 1, said + done.stderr
  assert '4 cells, 3 steps, 0 of them finished already' in said
  assert 'failed: supervised_single/supervised/kinetics: exit code 2' in said
  assert said.splitlines()[-2] == f'without a result: {row}.supervised'
  result = out / 'vie_single' / 'linear_eval' / 'kinetics' / 'result.json'
  facts = json.loads(result.read_text())
  roles = {'kinetics': paper_roles.Role('demo', 'motion')}
  for name in readouts:
    assert cell_results.find(
      CELLS[name], facts, roles=paper_roles.ROLES | roles
    )
    assert f'id="f-{name}"' in (out / 'report.html').read_text()
  _, _, missing = (out / 'report.md').read_text().partition('## Not run yet')
  assert f'{row}.supervised` |' in missing
  assert f'{row}.conv3`' not in missing
  assert 'hmdb51' not in missing
  before = result.stat().st_mtime_ns
  again = command(out, demo_dataset, *readouts, arguments[7])
  said = tiny_run.run(again)
  assert '2 steps, 2 of them finished already' in said
  assert result.stat().st_mtime_ns == before
  # The data set was moved, and then it is another one under its name.
  moved = shutil.copytree(demo_dataset, tmp_path / 'moved')
  said = tiny_run.run(command(out, moved, *readouts, arguments[7]))
  assert '2 steps, 2 of them finished already' in said
  manifest = json.loads((moved / 'dataset.json').read_text())
  manifest['fingerprint'] = 'b' * 64
  (moved / 'dataset.json').write_text(json.dumps(manifest))
  done = subprocess.run(
    command(out, moved, *readouts, arguments[7]),
    capture_output=True,
    text=True,
    check=False,
    env=tiny_run.environment(),
  )
  assert done.returncode == 2
  assert f'{out}/vie_single holds a network trained on' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_plan_stops_its_command_and_says_so(
  how, demo_dataset, tmp_path
):
  out = tmp_path / 'out'
  process = tiny_run.start(
    command(out, demo_dataset, 'table1.vie_single.kinetics')
  )
  log = out / 'logs' / 'vie_single.log'
  end = time.monotonic() + tiny_run.PATIENCE_SECONDS
  while not log.exists() and time.monotonic() < end:
    time.sleep(0.1)
  process.send_signal(how)
  said = tiny_run.output_of(process)
  assert process.returncode == 130, said
  assert 'The same command goes on from here.' in said


def test_a_folder_that_takes_no_files_is_named(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'reproduce-demo').write_text('in the way')
  assert reproduce.main(['--plan=demo', '--all']) == 2
  said = capsys.readouterr().err
  assert 'Error: ' in said
  assert 'reproduce-demo' in said
  assert 'Not a directory' in said
