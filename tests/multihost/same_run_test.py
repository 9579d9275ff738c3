"""The same run on devices and processes of several numbers: main.py itself."""

import json
import time

import numpy as np
import processes
import pytest
import tiny_run

from vie_jax.telemetry import metrics_file

pytestmark = pytest.mark.slow

# Twenty steps of each objective; k-means before steps 20, 24 and 32.
#
# The rate is small, and frames are larger than elsewhere in the tests: where
# batch norm has only the 8 values of a batch, rounding grows by a factor of
# ten and more a step, on any device, and no two of them would stay together.
#
# Where two values of a window of the max-pool are equal up to rounding, which
# of them has the gradient depends on the number of devices. It changes the
# gradient of the stem, of one step in some 20, by up to a percent of its largest
# value, and nothing else. At this rate later losses do not show it, and fewer
# than half of the steps have such a tie.
SETTINGS = {
  'batch_size': 8,
  'num_steps': 40,
  'eval_every_steps': 40,
  'checkpoint_every_steps': 40,
  'crop__size': 64,
  'crop__short_side_min': 64,
  'crop__short_side_max': 80,
  'crop__eval_short_side': 64,
  'instance_recognition__loss': 'softmax',
  'objective__instance_recognition_steps': 20,
  'local_aggregation__recluster_every_steps': 8,
  'local_aggregation__min_videos_per_cluster': 6,
  'optimizer__learning_rate': 1e-7,
}
NUM_NOISE_STEPS = 5
GRID = [(1, 2), (1, 4), (1, 8), (2, 2), (2, 4)]  # processes, devices of each


def run(folder, dataset, num_processes, num_devices, mode='train', **changes):
  settings = SETTINGS | changes
  command = tiny_run.command(folder / 'run', dataset, mode=mode, **settings)
  processes.run(
    [command] * num_processes, folder / mode, num_devices=num_devices
  )
  return folder / 'run'


@pytest.fixture(scope='module')
def alone(demo_dataset, tmp_path_factory):
  """The workdir of one process with one device."""
  folder = tmp_path_factory.mktemp('alone')
  run(folder, demo_dataset, 1, 1)
  return run(folder, demo_dataset, 1, 1, 'knn_eval')


@pytest.mark.parametrize('num_processes, num_devices', GRID)
def test_losses_and_neighbors_are_those_of_one_device(
  alone, demo_dataset, tmp_path, num_processes, num_devices
):
  together = run(tmp_path, demo_dataset, num_processes, num_devices)
  assert_same_losses(together, alone, f'{num_processes} x {num_devices}')
  steps, expected = metrics_file.curve(alone, 'health/kmeans_objective')
  assert steps == [21, 25, 33]
  _, found = metrics_file.curve(together, 'health/kmeans_objective')
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert_same_knn(
    run(tmp_path, demo_dataset, num_processes, num_devices, 'knn_eval'), alone
  )


@pytest.mark.parametrize('num_processes, num_devices', [(1, 8), (2, 2)])
def test_losses_against_noise_are_those_of_one_device(
  demo_dataset, tmp_path, num_processes, num_devices
):
  # Over so few videos it diverges, and rounding grows tenfold with each step.
  noise = {'instance_recognition__loss': 'nce', 'num_steps': NUM_NOISE_STEPS}
  alone = run(tmp_path / 'alone', demo_dataset, 1, 1, **noise)
  together = run(
    tmp_path / 'together', demo_dataset, num_processes, num_devices, **noise
  )
  assert_same_losses(
    together,
    alone,
    f'{num_processes} x {num_devices}, NCE',
    NUM_NOISE_STEPS,
  )


def assert_same_losses(workdir, expected, name, num_steps=40):
  """Losses of the first step, of 30 and of all; gradients but for ties."""
  differences = {}
  for curve in ('train/loss', 'train/gradient_norm'):
    steps, wanted = metrics_file.curve(expected, curve)
    assert steps == list(range(1, num_steps + 1))
    _, found = metrics_file.curve(workdir, curve)
    difference = np.abs(np.divide(found, wanted) - 1)
    print(
      f'{name}, {curve}: {difference[0]:.1e} at first, '
      f'{np.median(difference):.1e} (median), {difference.max():.1e} at most'
    )
    differences[curve] = difference
  loss, gradient = differences.values()
  assert loss[0] < 1e-6
  assert loss[:30].max() < 1e-5
  assert loss.max() < 1e-4
  assert gradient[0] < 1e-6
  assert np.median(gradient) < 1e-5
  assert gradient.max() < 0.05


@pytest.mark.parametrize(
  'first, second', [((2, 2), (1, 1)), ((1, 4), (2, 2)), ((2, 2), (1, 8))]
)
def test_a_killed_run_goes_on_with_another_number_of_processes(
  alone, demo_dataset, tmp_path, first, second
):
  command = tiny_run.command(
    tmp_path / 'run', demo_dataset, **SETTINGS | {'checkpoint_every_steps': 5}
  )
  started = processes.Processes(
    [command] * first[0], tmp_path / 'first', num_devices=first[1]
  )
  # k-means has run by then, and the checkpoint of step 20 is complete.
  while '[23] ' not in started.said(0):
    assert started.processes[0].poll() is None, started.said(0)
    time.sleep(0.1)
  started.kill()
  run(tmp_path, demo_dataset, *second, checkpoint_every_steps=5)
  log = (tmp_path / 'run' / 'train.log').read_text()
  assert 'Going on from the checkpoint of step' in log
  assert_same_losses(tmp_path / 'run', alone, f'{first} then {second}')


def assert_same_knn(workdir, expected):
  one, other = (
    json.loads((w / 'knn_eval' / 'demo' / 'result.json').read_text())
    for w in (expected, workdir)
  )
  assert one['accuracy'] == other['accuracy']
  one, other = (
    np.load(w / 'knn_eval' / 'demo' / 'neighbors.npz')
    for w in (expected, workdir)
  )
  np.testing.assert_array_equal(one['index'], other['index'])
  np.testing.assert_allclose(one['similarity'], other['similarity'], atol=1e-4)
