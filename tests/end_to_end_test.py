"""Real command lines: train, kill, go on, evaluate, and what can go wrong."""

import concurrent.futures
import functools
import json
import re
import shutil
import sys
import time

import fault_runs
import lost_videos
import numpy as np
import pytest
import tiny_run
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from vie_jax import run_record
from vie_jax.files import config_origin
from vie_jax.input_pipeline import frame_store
from vie_jax.telemetry import metrics_file, run_log

TIME = re.compile(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ')


def wait_until(is_so, process):
  """Polls quickly; False if the process ends first."""
  deadline = time.monotonic() + tiny_run.PATIENCE_SECONDS
  while not is_so():
    if process.poll() is not None:
      return False
    assert time.monotonic() < deadline
    time.sleep(0.001)
  return True


def is_at(workdir, step):
  """Whether the log of a run has come to a step."""
  log = workdir / metrics_file.NAME
  return lambda: log.exists() and f'"step": {step},' in log.read_text()


def is_saving(workdir, *, after=0):
  """Whether a checkpoint is being written, with others there already."""
  folder = workdir / 'checkpoints'

  def check():
    names = [path.name for path in folder.glob('*')]
    finished = [int(name) for name in names if name.isdigit()]
    return max(finished, default=-1) >= after and any(
      'tmp' in name for name in names
    )

  return check


def kill_when(is_so, command, num_devices):
  """Starts a command and kills it when something is so."""
  process = tiny_run.start(command, num_devices=num_devices)
  assert wait_until(is_so, process), tiny_run.output_of(process)
  tiny_run.kill(process)


class Runs:
  """The same run twice: uninterrupted; and killed, then told to stop."""

  def __init__(self, folder, dataset, num_devices):
    self.dataset, self.num_devices = dataset, num_devices
    self.whole, self.killed = folder / 'whole', folder / 'killed'
    # One after the other: the second finds the programs compiled.
    whole = tiny_run.command(self.whole, dataset)
    tiny_run.run(whole, num_devices=num_devices)
    command = tiny_run.command(self.killed, dataset)
    kill_when(is_saving(self.killed, after=12), command, num_devices)
    self.told = fault_runs.hit(
      command,
      fault_runs.has_step(self.killed, 17),
      fault_runs.TERM,
      num_devices=num_devices,
    )
    self.output = tiny_run.run(command, num_devices=num_devices)


@pytest.fixture(scope='session')
def runs_on(demo_dataset, tmp_path_factory):
  """Function from a number of devices to its `Runs`, made when first asked."""

  @functools.cache
  def make(number):
    folder = tmp_path_factory.mktemp(f'runs_{number}')
    return Runs(folder, demo_dataset, number)

  return make


@pytest.fixture(
  params=[1, pytest.param(8, marks=pytest.mark.slow)],
  ids=lambda number: f'{number}_devices',
)
def runs(request, runs_on):
  return runs_on(request.param)


@pytest.fixture(scope='session')
def trained(runs_on):
  """The workdir of a finished run on one device."""
  return runs_on(1).whole


def test_a_run_says_which_config_file_it_is_of(trained):
  origin = (trained / config_origin.FILE).read_text()
  assert origin == 'configs/vie_single.py\n'


class Finished:
  """A command that came to its end: what it said, and its exit code."""

  def __init__(self, command, cwd=tiny_run.REPOSITORY):
    process = tiny_run.start(command, cwd=cwd)
    self.output = tiny_run.output_of(process)
    self.code = process.returncode

  @property
  def message(self):
    """The last line, without its time."""
    return TIME.sub('', self.output.strip().splitlines()[-1])


def finish_all(commands, **options):
  """Runs commands by name, two at a time: name -> `Finished`."""
  finish = functools.partial(Finished, **options)
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    results = pool.map(finish, commands.values())
    return dict(zip(commands, results, strict=True))


def assert_same_end(one, other, dataset, num_devices):
  config = tiny_run.config(dataset, num_devices=num_devices)
  fault_runs.assert_same_end(one, other, config)


def test_a_run_that_is_told_to_stop_saves_its_step(runs):
  assert runs.told.code == fault_runs.RETRY, runs.told.output
  assert 'SIGTERM: stopping' in runs.told.output
  (saved,) = re.findall(r'checkpoint of step (\d+)', runs.output)
  assert int(saved) >= 17


def test_a_killed_run_ends_bit_equal_to_the_uninterrupted_one(runs):
  assert 'Going on from the checkpoint of step' in runs.output
  assert_same_end(runs.whole, runs.killed, runs.dataset, runs.num_devices)


def test_a_killed_run_leaves_the_same_complete_log(runs):
  expected, killed = (
    fault_runs.figures(runs.whole),
    fault_runs.figures(runs.killed),
  )
  assert killed == expected
  steps = sorted({step for step, name in killed if name == 'train/loss'})
  assert steps == list(range(1, tiny_run.NUM_STEPS + 1))
  assert {step for step, name in killed if name == 'same_video/top1'} == {
    0,
    12,
    24,
  }


def test_no_unfinished_checkpoint_is_left(runs):
  def names_of(workdir):
    return sorted(path.name for path in (workdir / 'checkpoints').iterdir())

  assert names_of(runs.whole) == ['16', '20', '24']
  # What a signal has saved comes between.
  *saved, before, last = names_of(runs.killed)
  assert [name.isdigit() for name in saved] == [True]
  assert (before, last) == ('20', '24')


@pytest.mark.slow
def test_eight_devices_begin_like_one(trained, runs_on):
  one, other = fault_runs.figures(trained), fault_runs.figures(runs_on(8).whole)
  for name in ('train/loss', 'train/gradient_norm', 'train/own_similarity'):
    assert other[1, name] == pytest.approx(one[1, name], rel=1e-4)
  for name in ('knn/appearance_top1', 'same_video/top1'):
    assert other[0, name] == one[0, name]


@pytest.mark.slow
@pytest.mark.parametrize('num_devices', [1, 8])
def test_many_kills_at_many_moments_change_nothing(
  demo_dataset, tmp_path, num_devices
):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  tiny_run.run(tiny_run.command(whole, demo_dataset), num_devices=num_devices)
  command = tiny_run.command(killed, demo_dataset)
  moments = [
    is_at(killed, 0),  # evaluated, nothing saved yet
    is_saving(killed),  # the first checkpoint
    is_at(killed, 6),
    is_at(killed, 11),  # just clustered
    is_saving(killed, after=8),
    is_at(killed, 14),
    is_saving(killed, after=16),  # an old one is being deleted, too
    is_at(killed, 24),  # the last step, not saved yet
  ]
  for moment in moments:
    kill_when(moment, command, num_devices)
  tiny_run.run(command, num_devices=num_devices)
  assert_same_end(whole, killed, demo_dataset, num_devices)
  assert fault_runs.figures(killed) == fault_runs.figures(whole)


@pytest.fixture(scope='session')
def damaged_dataset(demo_dataset, tmp_path_factory):
  """The demo's videos, with a bit flipped in every fifth frame of training."""
  damaged = tmp_path_factory.mktemp('bits') / 'set'
  shutil.copytree(demo_dataset, damaged)
  with frame_store.FrameStore.open(damaged, 'train') as store:
    frames = [
      store.read_frames(video, [number])[0]
      for video in range(store.num_videos)
      for number in range(video % 5, store.num_frames[video], 5)
    ]
  for shard in (damaged / 'train').glob('frames-*'):
    content = bytearray(shard.read_bytes())
    for jpeg in frames:
      place = content.find(jpeg)
      if place >= 0:
        content[place + len(jpeg) // 2] ^= 16
    shard.write_bytes(content)
  return damaged


TOLERANT = {'num_steps': 12, 'input__max_bad_share': 0.5}


@pytest.mark.slow
def test_a_killed_run_on_damaged_data_ends_bit_equal(damaged_dataset, tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  output = tiny_run.run(tiny_run.command(whole, damaged_dataset, **TOLERANT))
  command = tiny_run.command(killed, damaged_dataset, **TOLERANT)
  kill_when(is_saving(killed, after=4), command, 1)
  resumed = tiny_run.run(command)
  assert 'Going on from the checkpoint of step' in resumed
  assert fault_runs.figures(killed) == fault_runs.figures(whole)
  config = tiny_run.config(damaged_dataset, num_devices=1, **TOLERANT)
  fault_runs.assert_same_end(whole, killed, config)
  steps, counts = metrics_file.curve(whole, 'input/bad_frames')
  assert steps == list(range(1, 13))
  assert counts == sorted(counts)
  assert counts[-1] > 15
  (summary,) = re.findall(r'Replaced or left out (\d+) damaged frames', output)
  assert int(summary) == counts[-1]
  named = re.findall(r"Frame \d+ of video '([^']*)' .* shown instead", output)
  assert len(named) == len(set(named)) > 5


@pytest.mark.slow
def test_a_run_goes_on_without_videos_that_are_lost(demo_dataset, tmp_path):
  folder = tmp_path / 'set'
  shutil.copytree(demo_dataset, folder)
  names = {}
  for split, video in (('train', 5), ('val', 2)):
    with frame_store.FrameStore.open(folder, split) as store:
      names[split] = store.paths[video]
    lost_videos.destroy(folder, split, [video])
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  output = tiny_run.run(tiny_run.command(whole, folder, **TOLERANT))
  for split, outcome in (
    ('train', "A clip of '[^']*' is shown instead, as one of that video"),
    ('val', 'It is left out'),
  ):
    line = (
      rf'Video {names[split]!r} \(split {split!r} .* has no frame that can .*'
      f'cannot be read .* {outcome}'
    )
    assert len(re.findall(line, output)) == 1
  _, counts = metrics_file.curve(whole, 'input/bad_frames')
  # 12 steps of 16 of 36 videos, a frame each: at most one visit in 2 steps.
  assert 3 <= counts[-1] <= 6
  assert (
    f'Replaced or left out {counts[-1]:.0f} damaged frames of 1 video' in output
  )
  command = tiny_run.command(killed, folder, **TOLERANT)
  kill_when(is_saving(killed, after=4), command, 1)
  tiny_run.run(command)
  assert fault_runs.figures(killed) == fault_runs.figures(whole)
  config = tiny_run.config(folder, num_devices=1, **TOLERANT)
  fault_runs.assert_same_end(whole, killed, config)


@pytest.mark.slow
def test_too_much_damage_stops_a_training_with_one_line(
  damaged_dataset, tmp_path
):
  finished = Finished(tiny_run.command(tmp_path, damaged_dataset))
  assert finished.code == 2
  assert 'Traceback' not in finished.output
  assert 'more than the share 0.05 that config.input.max_bad' in finished.output
  assert f'check {damaged_dataset} --full' in finished.message


DIVERGING = {'num_steps': 40, 'optimizer__learning_rate': 1e30}


@pytest.fixture(scope='session')
def later(demo_dataset, trained, tmp_path_factory):
  """What can be done in copies of a finished run's workdir.

  Function from a name to (workdir, `Finished`).
  """
  folder = tmp_path_factory.mktemp('later')
  options = {
    'complete': {},
    'evaluated': {'mode': 'knn_eval'},
    'untrained': {'mode': 'knn_eval', 'init_from': 'random'},
    'diverging': DIVERGING,
    'damaged': {},
    'all_damaged': {},
  }
  for name in options:
    shutil.copytree(trained, folder / name)
  shutil.rmtree(folder / 'untrained')
  shutil.rmtree(folder / 'damaged' / 'checkpoints' / '24' / 'memory_bank')
  for record in (folder / 'all_damaged' / 'checkpoints').glob('*/commit.json'):
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 1'))
  results = finish_all(
    {
      name: tiny_run.command(folder / name, demo_dataset, **changes)
      for name, changes in options.items()
    }
  )
  return lambda name: (folder / name, results[name])


def contents(folder):
  """The bytes of all files in a folder, or of one file."""
  if folder.is_file():
    return folder.read_bytes()
  return {
    path.relative_to(folder): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


@pytest.mark.slow
def test_a_complete_run_says_so_and_changes_nothing(trained, later):
  workdir, finished = later('complete')
  assert finished.code == 0
  assert finished.message == 'Training is complete: step 24.'
  for name in ('checkpoints', metrics_file.NAME):
    assert contents(workdir / name) == contents(trained / name)


def test_the_start_of_a_run_is_documented(trained):
  config = json.loads((trained / run_record.CONFIG_FILE).read_text())
  assert config['model']['width'] == 4
  log = (trained / run_log.FILE_NAME).read_text()
  assert 'params' in log or 'backbone/' in log
  for text in ('"width": 4', 'Progress: ', 'ETA: '):
    assert text in log


def tensorboard_of(workdir):
  """name -> [(step, value)], of a run's event files."""
  accumulator = event_accumulator.EventAccumulator(
    str(workdir), size_guidance={'tensors': 0}
  )
  accumulator.Reload()
  curves = {}
  for name in accumulator.Tags()['tensors']:
    curves[name] = [
      (point.step, tensor_util.make_ndarray(point.tensor_proto).item())
      for point in accumulator.Tensors(name)
    ]
  return curves


def test_tensorboard_has_the_curves_of_the_log(trained):
  curves = tensorboard_of(trained)
  for (step, name), value in fault_runs.figures(trained).items():
    assert (step, pytest.approx(value, rel=1e-5)) in curves[name]
  assert '"batch_size": 16' in str(curves['config'])


def test_tensorboard_has_every_figure_once_after_a_kill(runs):
  curves = tensorboard_of(runs.killed)
  for name in ('train/loss', 'same_video/top1', 'config'):
    steps = [step for step, _ in curves[name]]
    assert steps == sorted({*steps}), name
  for step, name in fault_runs.figures(runs.killed):
    assert step in [point[0] for point in curves[name]]


@pytest.mark.slow
def test_knn_evaluates_the_checkpoint(trained, later):
  workdir, finished = later('evaluated')
  assert finished.code == 0, finished.output
  folder = workdir / 'knn_eval' / 'demo'
  result = json.loads((folder / 'result.json').read_text())
  assert (result['network']['step'], result['reference']) == (24, 'bank')
  assert result['network']['training'] == 'local_aggregation'
  # What training measured at its end.
  log = fault_runs.figures(trained)
  for column, accuracy in result['accuracy'].items():
    figures = dict(accuracy['knn'])
    assert figures.pop('judged') == 12
    for name, value in figures.items():
      assert value == log[24, f'knn/{column}_{name}']
  assert result['same_video']['top1'] == log[24, 'same_video/top1']
  neighbors = np.load(folder / 'neighbors.npz')
  assert neighbors['index'].shape == neighbors['similarity'].shape == (12, 3)
  assert ((neighbors['index'] >= 0) & (neighbors['index'] < 36)).all()
  assert (np.diff(neighbors['similarity'], axis=1) <= 0).all()


@pytest.mark.slow
def test_knn_evaluates_a_network_that_was_never_trained(later):
  workdir, finished = later('untrained')
  assert finished.code == 0, finished.output
  folder = workdir / 'knn_eval' / 'demo_random'
  result = json.loads((folder / 'result.json').read_text())
  assert (result['network']['step'], result['reference']) == (0, 'clips')
  assert result['chance'].keys() == {'appearance', 'motion'}
  assert np.load(folder / 'neighbors.npz')['index'].shape == (12, 3)
  assert [path.name for path in workdir.iterdir()] == ['knn_eval']


@pytest.mark.slow
def test_divergence_stops_with_one_line_and_keeps_the_last_checkpoint(
  demo_dataset, trained, later
):
  workdir, finished = later('diverging')
  assert finished.code == 2
  assert 'Traceback' not in finished.output
  assert finished.message.startswith('Training stopped at step ')
  assert 'the last good checkpoint, of step 24, is kept' in finished.message
  assert 'config.optimizer.learning_rate' in finished.message
  log = (workdir / run_log.FILE_NAME).read_text()
  assert finished.message in log
  config = tiny_run.config(demo_dataset, num_devices=1)
  leaves = fault_runs.leaves_of(workdir, config)
  expected = fault_runs.leaves_of(trained, config)
  for name, value in expected.items():
    np.testing.assert_array_equal(leaves[name], value)
    if np.issubdtype(value.dtype, np.floating):
      assert np.isfinite(value).all()


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
  demo_dataset, trained, later
):
  workdir, finished = later('damaged')
  newest = workdir / 'checkpoints' / '24'
  assert finished.code == 0, finished.output
  (line,) = [x for x in finished.output.split('\n') if 'is damaged' in x]
  assert f'The checkpoint {newest} is damaged: memory_bank/' in line
  assert 'is missing. Going on from step 20 instead.' in line
  assert 'Going on from the checkpoint of step 20.' in finished.output
  assert (newest.parent / '24.damaged').is_dir()
  assert_same_end(trained, workdir, demo_dataset, 1)


@pytest.mark.slow
def test_if_all_checkpoints_are_damaged_a_run_does_not_begin_anew(
  trained, later
):
  workdir, finished = later('all_damaged')
  assert finished.code == 2
  assert 'Traceback' not in finished.output
  assert finished.message.startswith(
    f'No checkpoint in {workdir / "checkpoints"} can be restored: 24: '
  )
  assert 'move them away to start anew' in finished.message
  names = {path.name for path in (workdir / 'checkpoints').iterdir()}
  assert names == {path.name for path in (trained / 'checkpoints').iterdir()}


@pytest.fixture(scope='session')
def flat_run(demo_dataset, tmp_path_factory):
  """A SlowFast run on videos without labels."""
  folder = tmp_path_factory.mktemp('flat')
  (folder / 'videos').mkdir()
  for path in (demo_dataset.parent / 'demo-videos').glob('*.mp4'):
    shutil.copy(path, folder / 'videos')
  tiny_run.prepare(
    'folder',
    f'--videos={folder / "videos"}',
    f'--out={folder / "prepared"}',
    '--val-percent=25',
    '--processes=2',
  )
  tiny_run.run(
    tiny_run.command(
      folder / 'W',
      folder / 'prepared',
      'vie_slowfast',
      num_steps=4,
      objective__instance_recognition_steps=0,
      eval_every_steps=4,
      memory_bank__init='embeddings',
    )
  )
  return folder / 'W'


@pytest.mark.slow
def test_slowfast_trains_some_steps(flat_run):
  log = fault_runs.figures(flat_run)
  losses = [value for (_, name), value in log.items() if name == 'train/loss']
  assert len(losses) == 4
  assert np.isfinite(losses).all()
  # The bank began as the network's embeddings, not at random.
  assert log[0, 'health/bank_share_never_visited'] == 1.0
  assert log[1, 'train/own_similarity'] > 0.5


@pytest.mark.slow
def test_videos_without_labels_are_monitored_all_the_same(flat_run):
  log = fault_runs.figures(flat_run)
  for step in (0, 4):
    assert 0 <= log[step, 'same_video/top1'] <= 1
    assert log[step, 'same_video/chance'] > 0
    assert log[step, 'health/bank_effective_rank'] >= 1
  assert not any(name.startswith('knn/') for _, name in log)


@pytest.fixture(scope='session')
def refused(demo_dataset, tmp_path_factory):
  """Runs all commands that must fail, two at a time."""
  folder = tmp_path_factory.mktemp('refused')
  damaged = folder / 'damaged'
  shutil.copytree(demo_dataset, damaged)
  next((damaged / 'train').glob('frames-*')).unlink()
  (folder / 'empty').mkdir()
  # Where no prepared Kinetics is in place.
  (folder / 'elsewhere').mkdir()
  commands = {
    'removed_data': tiny_run.command(folder / 'W1', folder / 'nowhere'),
    'removed_shard': tiny_run.command(folder / 'W2', damaged),
    'empty_workdir': tiny_run.command(
      folder / 'empty', demo_dataset, mode='knn_eval'
    ),
    'bad_value': tiny_run.command(
      folder / 'W3', demo_dataset, optimizer__name='sdg'
    ),
    'mistyped_field': tiny_run.command(
      folder / 'W4', demo_dataset, batchsize=8
    ),
    'no_arguments': [
      sys.executable,
      str(tiny_run.REPOSITORY / 'main.py'),
      f'--config={tiny_run.REPOSITORY / "configs" / "vie_slowfast.py"}',
    ],
  }
  return folder, finish_all(commands, cwd=folder / 'elsewhere')


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, parts',
  {
    'removed_data': ['nowhere', 'data/prepare.py folder'],
    'removed_shard': ['damaged/train/frames-', 'missing'],
    'empty_workdir': ['empty', '--config.init_from=random'],
    'bad_value': ["config.optimizer.name is 'sdg'", 'sgd, adam'],
    'no_arguments': ['data/prepared/kinetics400', 'data/prepare.py folder'],
  }.items(),
)
def test_what_cannot_be_done_is_said_in_two_sentences(refused, name, parts):
  result = refused[1][name]
  assert 'Traceback' not in result.output
  assert result.code == 2
  *earlier, _ = result.output.strip().splitlines()
  assert all(': 36 training videos, ' in line for line in earlier)
  assert len(re.findall(r'[.?!](?: |$)', result.message)) <= 2
  for part in parts:
    assert part in result.message


@pytest.mark.slow
def test_a_mistyped_field_is_named_with_a_proposal(refused):
  result = refused[1]['mistyped_field']
  assert 'Traceback' not in result.output
  assert result.code != 0
  assert "no field 'batchsize'; did you mean 'batch_size'?" in result.output


@pytest.mark.slow
def test_what_cannot_be_done_leaves_nothing_behind(refused):
  folder, _ = refused
  left = sorted(path.name for path in folder.iterdir())
  assert left == ['damaged', 'elsewhere', 'empty']
  assert not list((folder / 'elsewhere').iterdir())
  assert not list((folder / 'empty').iterdir())
