"""What is wrong on one machine ends the run on all, with one line."""

import json
import re
import shutil
import socket

import lost_videos
import processes
import pytest
import tiny_run

from vie_jax.files import config_origin
from vie_jax.input_pipeline import frame_store
from vie_jax.telemetry import metrics_file

pytestmark = pytest.mark.slow

TIME = re.compile(r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ')
OTHER = f'Process 1 of 2 on {socket.gethostname()} has ended, and so does this'


def messages(command, folder, codes=(2, 2), **options):
  """The last line of both processes, without its time."""
  commands = command if isinstance(command[0], list) else [command] * 2
  both = processes.Processes(commands, folder / 'said', **options).wait()
  assert tuple(process.code for process in both) == codes
  for process in both:
    assert 'Traceback' not in process.log
  return [TIME.sub('', p.log.strip().splitlines()[-1]) for p in both]


@pytest.fixture
def hosts(demo_dataset, tmp_path):
  """Folders of two machines, each with a data set `set` of its own."""
  folders = [tmp_path / 'host-0', tmp_path / 'host-1']
  for folder in folders:
    shutil.copytree(demo_dataset, folder / 'set')
  return folders


def test_data_missing_on_one_machine(hosts, tmp_path):
  shutil.rmtree(hosts[1] / 'set')
  command = tiny_run.command(tmp_path / 'run', 'set')
  first, second = messages(command, tmp_path, cwds=hosts)
  assert second.startswith('[1] ')
  assert 'set' in second
  assert first == f'[0] {OTHER} one: {second.removeprefix("[1] ")}'
  assert not (tmp_path / 'run').exists()


def test_other_data_on_one_machine(hosts, tmp_path):
  facts = hosts[1] / 'set' / 'dataset.json'
  known = json.loads(facts.read_text())
  shutil.rmtree(hosts[1] / 'set')
  tiny_run.prepare(
    'demo',
    '--num-videos=48',
    '--val-percent=25',
    '--seed=5',
    '--processes=2',
    f'--out={hosts[1] / "set"}',
  )
  assert json.loads(facts.read_text()) != known
  command = tiny_run.command(tmp_path / 'run', 'set')
  for message in messages(command, tmp_path, cwds=hosts):
    assert re.search(
      r'must be alike\. fingerprint of set, train, is \'[0-9a-f]{64}\' in '
      r'process 0 and \'[0-9a-f]{64}\' in process 1',
      message,
    )


def test_other_settings_on_one_machine(demo_dataset, tmp_path):
  command = [
    tiny_run.command(tmp_path / 'run', demo_dataset, seed=seed)
    for seed in (0, 7)
  ]
  for message in messages(command, tmp_path):
    assert 'config.seed is 0 in process 0 and 7 in process 1.' in message


@pytest.mark.parametrize(
  'name, value, message',
  [
    (
      'JAX_THREEFRY_PARTITIONABLE',
      '0',
      'jax_threefry_partitionable is True in process 0 and False in process 1',
    ),
    (
      'JAX_ENABLE_X64',
      '1',
      'jax_enable_x64 is False in process 0 and True in process 1',
    ),
  ],
)
def test_other_settings_of_jax_on_one_machine(
  demo_dataset, tmp_path, name, value, message
):
  command = tiny_run.command(tmp_path / 'run', demo_dataset)
  for said in messages(command, tmp_path, environs=[{}, {name: value}]):
    assert message in said


def test_other_code_on_one_machine(demo_dataset, tmp_path):
  other = tmp_path / 'other'
  for name in ('vie_jax', 'configs'):
    shutil.copytree(tiny_run.REPOSITORY / name, other / name)
  shutil.copy(tiny_run.REPOSITORY / 'main.py', other)
  with (other / 'vie_jax/objective/memory_bank.py').open('a') as file:
    file.write('# Another rule.\n')
  command = tiny_run.command(tmp_path / 'run', demo_dataset)
  commands = [
    command,
    [word.replace(str(tiny_run.REPOSITORY), str(other)) for word in command],
  ]
  commands[1][0] = command[0]
  # Each takes the package beside its main.py.
  environs = [{'PYTHONPATH': ''}] * 2
  cwds = [tiny_run.REPOSITORY, other]
  for said in messages(commands, tmp_path, environs=environs, cwds=cwds):
    assert re.search(
      r"the code of vie_jax, its SHA-256, is '[0-9a-f]{64}' in process 0 and "
      r"'[0-9a-f]{64}' in process 1",
      said,
    )


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'batch_size': 6}, 'config.batch_size is 6, which does not split evenly'),
    ({'num_devices': 2}, 'several processes use all that they have; 0 takes'),
  ],
)
def test_what_does_not_fit_several_processes(
  demo_dataset, tmp_path, changes, message
):
  command = tiny_run.command(tmp_path / 'run', demo_dataset, **changes)
  for said in messages(command, tmp_path):
    assert message in said


def test_a_default_workdir_of_another_config_file(demo_dataset, tmp_path):
  """Process 0 looks, and both leave; each may have a path of its own."""
  other = tmp_path / 'vie_single.py'
  other.touch()
  folder = tmp_path / 'workdir' / 'vie_single'
  folder.mkdir(parents=True)
  config_origin.write(folder, str(other))
  command = tiny_run.command('', demo_dataset)
  for said in messages(command, tmp_path, cwds=[tmp_path] * 2):
    assert f'holds a training by another config file, {other}' in said
  assert [path.name for path in folder.iterdir()] == [config_origin.FILE]


@pytest.fixture(scope='module')
def damaged_dataset(demo_dataset, tmp_path_factory):
  """Every third frame of twelve videos is damaged, and all of another two."""
  damaged = tmp_path_factory.mktemp('bits') / 'set'
  shutil.copytree(demo_dataset, damaged)
  with frame_store.FrameStore.open(damaged, 'train') as store:
    frames = [
      store.read_frames(video, [number])[0]
      for video in range(12)
      for number in range(0, store.num_frames[video], 3)
    ]
  for shard in (damaged / 'train').glob('frames-*'):
    content = bytearray(shard.read_bytes())
    for jpeg in frames:
      place = content.find(jpeg)
      if place >= 0:
        content[place + len(jpeg) // 2] ^= 16
    shard.write_bytes(content)
  lost_videos.destroy(damaged, 'train', [20, 30])
  return damaged


def test_damage_is_counted_and_judged_as_by_one_process(
  damaged_dataset, tmp_path
):
  counts = []
  for name, number in (('one', 1), ('two', 2)):
    workdir = tmp_path / name / 'run'
    command = tiny_run.command(
      workdir, damaged_dataset, num_steps=8, input__max_bad_share=0.5
    )
    processes.run([command] * number, tmp_path / name, num_devices=2)
    counts.append(metrics_file.curve(workdir, 'input/bad_frames')[1])
  assert counts[0] == counts[1]
  assert counts[0][-1] > 5
  command = tiny_run.command(
    tmp_path / 'run', damaged_dataset, input__max_bad_share=0.01
  )
  first, second = messages(command, tmp_path)
  # Both found it by themselves, and in the same frames.
  assert first.removeprefix('[0] ') == second.removeprefix('[1] ')
  assert 'more than the share 0.01 that config.input.max_bad' in first
