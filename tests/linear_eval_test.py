"""Linear readouts: what they learn, where they live, going on after a kill."""

import json
import os
import pathlib
import re
import shutil
import time

import fault_runs
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run
from input_pipeline import image_dataset
from PIL import Image

from vie_jax import checkpoint, linear_eval, sharding, train, weights
from vie_jax.classifiers import labelled_data
from vie_jax.config import config_check, modes
from vie_jax.evaluation import linear_readout
from vie_jax.input_pipeline import dataset_folder
from vie_jax.processes import preemption
from vie_jax.program import run_errors
from vie_jax.results import result
from vie_jax.telemetry import metrics_file

SETTINGS = {
  'init_from': 'random',
  'linear_eval__batch_size': 8,
  'linear_eval__eval_batch_size': 16,
  'linear_eval__num_steps': 12,
  'linear_eval__static_num_steps': 12,
  'linear_eval__eval_every_steps': 6,
  'linear_eval__checkpoint_every_steps': 3,
  'linear_eval__drop_steps': (8,),
  'num_devices': 1,
}


def config(dataset, base='vie_single', **changes):
  return tiny_run.config(dataset, base, **{**SETTINGS, **changes})


def readouts(folder):
  """The arrays of the newest checkpoint."""
  with checkpoint.Checkpoints(
    folder, read_only=True, items=linear_eval.ITEMS
  ) as checkpoints:
    step = checkpoints.latest_step
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    fields = linear_eval.ITEMS['readouts']
    return step, checkpoints.restore_as_saved(
      step, 'readouts', dict.fromkeys(fields, whole)
    )


@pytest.fixture(scope='module')
def finished(demo_dataset, tmp_path_factory):
  """A whole evaluation: workdir and result."""
  workdir = tmp_path_factory.mktemp('readouts')
  return workdir, linear_eval.linear_eval(config(demo_dataset), workdir)


def test_result_has_every_readout_and_its_circumstances(finished):
  workdir, written = finished
  folder = workdir / 'linear_eval' / 'demo_random'
  assert result.read(folder / result.FILE) == json.loads(json.dumps(written))
  assert set(written['accuracy']) == {'appearance', 'motion'}
  for by_layer in written['accuracy'].values():
    assert list(by_layer) == ['conv3', 'conv4', 'conv5']
    for accuracy in by_layer.values():
      assert 0 <= accuracy['top1'] <= accuracy['top5'] <= 1
      assert 0 <= accuracy['clip_top1'] <= 1
      assert accuracy['judged'] == 12
  assert written['network']['training'] == 'random'
  assert written['dataset']['train'] == 36
  assert written['steps'] == 12
  assert written['views'] == {
    'clips': 5,
    'crop': 'center',
    'average': 'softmax',
  }


def test_nothing_is_written_outside_its_folder(finished):
  workdir, _ = finished
  assert [path.name for path in workdir.iterdir()] == ['linear_eval']
  assert [p.name for p in (workdir / 'linear_eval').iterdir()] == [
    'demo_random'
  ]


def test_the_rate_drops_and_the_curves_are_there(finished):
  folder = finished[0] / 'linear_eval' / 'demo_random'
  steps, rates = metrics_file.curve(folder, 'train/learning_rate')
  assert dict(zip(steps, rates, strict=True)) == pytest.approx(
    # Step number 8, the ninth, is the last of the old rate.
    {step: 0.01 if step <= 9 else 0.001 for step in range(1, 13)}
  )
  steps, _ = metrics_file.curve(folder, 'val/motion_conv4_top1')
  assert steps == [6, 12]
  curves = metrics_file.curves(folder)
  assert {name for name in curves if name.startswith('val/motion_conv4')} == {
    f'val/motion_conv4_{figure}' for figure in ('top1', 'top5', 'clip_top1')
  }


def test_the_same_command_again_changes_nothing(finished, demo_dataset):
  workdir, written = finished
  before = readouts(workdir / 'linear_eval' / 'demo_random')
  again = linear_eval.linear_eval(config(demo_dataset), workdir)
  assert again['accuracy'] == written['accuracy']
  assert again['best'] == written['best']
  jax.tree.map(
    np.testing.assert_array_equal,
    before,
    readouts(workdir / 'linear_eval' / 'demo_random'),
  )


def test_a_finished_result_is_left_as_it_is(finished, demo_dataset):
  workdir, written = finished
  path = workdir / 'linear_eval' / 'demo_random' / result.FILE
  before = path.read_bytes()
  assert linear_eval.linear_eval(config(demo_dataset), workdir) == written
  assert path.read_bytes() == before


def test_a_lost_result_is_written_again(finished, demo_dataset):
  workdir, written = finished
  path = workdir / 'linear_eval' / 'demo_random' / result.FILE
  before = path.read_bytes()
  path.unlink()
  again = linear_eval.linear_eval(config(demo_dataset), workdir)
  assert again['accuracy'] == written['accuracy']
  assert again['seconds'] == pytest.approx(written['seconds'], abs=5)
  path.write_bytes(before)


@pytest.mark.parametrize(
  'damaged',
  [
    *('', '{"format_', 'null', '{}', '{"format_version": 1}', None),
    '{"format_version": 1, "mode": "", "accuracy": {}, "chance": {}, '
    '"steps": 12, "network": {}, "settings": 3}',
  ],
)
def test_a_damaged_result_is_written_again(
  finished, demo_dataset, tmp_path, damaged
):
  workdir, written = finished
  copy = tmp_path / 'copy'
  shutil.copytree(workdir, copy)
  path = copy / 'linear_eval' / 'demo_random' / result.FILE
  whole = path.read_bytes()
  path.write_bytes(whole[:-9] if damaged is None else damaged.encode())
  again = linear_eval.linear_eval(config(demo_dataset), copy)
  assert again['accuracy'] == written['accuracy']
  assert result.read(path) == again


def stop_at_step(folder, step, monkeypatch, settings):
  """Runs until a signal finds some step done, and not evaluated."""
  with monkeypatch.context() as patch:
    is_there = fault_runs.has_step(folder, step)
    patch.setattr(preemption.SIGNALS, 'poll', is_there)
    with pytest.raises(preemption.Stopped):
      linear_eval.linear_eval(settings, folder.parents[1])


def test_a_signal_at_the_last_step_leaves_one_evaluation_to_make_up_for(
  finished, demo_dataset, tmp_path, monkeypatch
):
  settings = config(demo_dataset)
  folder = tmp_path / 'linear_eval' / 'demo_random'
  # Of another training, which was moved away but for this file.
  stale = finished[1] | {'settings': {**finished[1]['settings']}}
  stale['settings']['learning_rate'] = 7.0
  folder.mkdir(parents=True)
  (folder / result.FILE).write_text(json.dumps(stale))
  stop_at_step(folder, 12, monkeypatch, settings)
  assert evaluated_steps(folder) == [6]
  evaluations = []
  evaluate_now = linear_eval.Readouts.evaluate

  def evaluate(task, state):
    evaluations.append(int(state.step))
    return evaluate_now(task, state)

  monkeypatch.setattr(linear_eval.Readouts, 'evaluate', evaluate)
  for _ in range(3):
    again = linear_eval.linear_eval(settings, tmp_path)
    assert again['accuracy'] == finished[1]['accuracy']
    assert evaluated_steps(folder) == [6, 12]
  assert evaluations == [12]


def test_a_training_that_is_to_go_on_is_not_taken_for_finished(
  demo_dataset, tmp_path, monkeypatch
):
  folder = tmp_path / 'linear_eval' / 'demo_random'
  stop_at_step(folder, 12, monkeypatch, config(demo_dataset))
  linear_eval.linear_eval(config(demo_dataset), tmp_path)
  longer = config(demo_dataset, linear_eval__num_steps=14)
  assert linear_eval.linear_eval(longer, tmp_path)['steps'] == 14
  assert evaluated_steps(folder) == [6, 12, 14]


def evaluated_steps(folder):
  return metrics_file.curve(folder, 'val/seconds')[0]


def test_a_folder_in_place_of_the_result_is_named(
  finished, demo_dataset, tmp_path
):
  copy = tmp_path / 'copy'
  shutil.copytree(finished[0], copy)
  path = copy / 'linear_eval' / 'demo_random' / result.FILE
  path.unlink()
  path.mkdir()
  with pytest.raises(IsADirectoryError) as error:
    linear_eval.linear_eval(config(demo_dataset), copy)
  assert f'{path} cannot be used' in run_errors.message_of(error.value, 'W')
  assert not list(path.parent.glob('*.tmp'))


def test_what_does_not_matter_may_change(finished, demo_dataset, tmp_path):
  workdir, written = finished
  moved = tmp_path / 'moved'
  shutil.copytree(workdir, moved)
  other = config(
    demo_dataset,
    linear_eval__dataset=f'{demo_dataset}/',
    linear_eval__eval_batch_size=8,
    linear_eval__static_num_steps=7,
    linear_eval__static_drop_steps=(1, 2),
  )
  again = linear_eval.linear_eval(other, os.path.relpath(moved))
  assert again['accuracy'] == written['accuracy']


@pytest.mark.slow
def test_a_folder_of_something_else_is_left_alone(
  finished, demo_dataset, tmp_path
):
  del finished
  taken = tmp_path / 'linear_eval' / 'taken'
  train.train_and_evaluate(
    config(demo_dataset, num_steps=1, checkpoint_every_steps=1), taken
  )
  with pytest.raises(result.ResultError, match='something else'):
    linear_eval.linear_eval(config(demo_dataset, result_name='taken'), tmp_path)


def test_other_settings_are_refused_by_name(finished, demo_dataset):
  other = config(demo_dataset, linear_eval__learning_rate=0.02)
  with pytest.raises(result.ResultError) as error:
    linear_eval.linear_eval(other, finished[0])
  assert 'settings.learning_rate was 0.01, is 0.02' in str(error.value)
  assert 'config.result_name' in str(error.value)


@pytest.mark.parametrize(
  'field, values',
  [
    ('batch_norm_decay', '0.997, is 0.1'),
    ('dtype', "'float32', is 'bfloat16'"),
  ],
)
def test_another_network_is_refused_by_name(
  finished, demo_dataset, field, values
):
  value = 0.1 if field == 'batch_norm_decay' else 'bfloat16'
  other = config(demo_dataset, **{f'model__{field}': value})
  with pytest.raises(result.ResultError, match=f'model.{field} was {values}'):
    linear_eval.linear_eval(other, finished[0])


@pytest.mark.slow
def test_another_name_is_another_evaluation(finished, demo_dataset, tmp_path):
  short = config(
    demo_dataset,
    result_name='quick',
    linear_eval__num_steps=2,
    linear_eval__layers=('conv1', 'conv5'),
    linear_eval__averaged_layers=('conv5',),
    dataset__label_columns=('motion',),
  )
  written = linear_eval.linear_eval(short, tmp_path)
  assert (tmp_path / 'linear_eval' / 'quick' / result.FILE).exists()
  assert list(written['accuracy']) == ['motion']
  assert list(written['accuracy']['motion']) == ['conv1', 'conv5']
  _, state = readouts(tmp_path / 'linear_eval' / 'quick')
  kernel = np.asarray(state['params']['conv5']['motion']['kernel'])
  # Averaged over space: a feature per channel, and zeros behind them.
  assert kernel[:32].any(axis=1).all()
  assert not kernel[32:].any()


@pytest.mark.slow
def test_eight_devices_train_the_same_readouts(
  finished, demo_dataset, tmp_path
):
  workdir, written = finished
  eight = linear_eval.linear_eval(config(demo_dataset, num_devices=8), tmp_path)
  for column, by_layer in eight['accuracy'].items():
    for layer, accuracy in by_layer.items():
      # A clip at the border between two classes may change sides.
      assert accuracy['clip_top1'] == pytest.approx(
        written['accuracy'][column][layer]['clip_top1'], abs=0.05
      )
  one = readouts(workdir / 'linear_eval' / 'demo_random')
  other = readouts(tmp_path / 'linear_eval' / 'demo_random')
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    one,
    other,
  )


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bits(
  demo_dataset, tmp_path
):
  def command(name):
    changes = {**SETTINGS, 'linear_eval__drop_steps': '(8,)'}
    return tiny_run.command(
      tmp_path / name, demo_dataset, mode='linear_eval', **changes
    )

  folder = tmp_path / 'killed' / 'linear_eval' / 'demo_random'
  for saved in (3, 6):
    process = tiny_run.start(command('killed'))
    deadline = time.monotonic() + tiny_run.PATIENCE_SECONDS
    while not (folder / 'checkpoints' / str(saved)).exists():
      assert process.poll() is None, process.communicate()[0]
      assert time.monotonic() < deadline
      time.sleep(0.01)
    tiny_run.kill(process)
    assert not (folder / result.FILE).exists()
  tiny_run.run(command('killed'))
  tiny_run.run(command('whole'))
  whole = tmp_path / 'whole' / 'linear_eval' / 'demo_random'
  accuracy = [
    result.read(path / result.FILE)['accuracy'] for path in (whole, folder)
  ]
  assert accuracy[0] == accuracy[1]
  jax.tree.map(np.testing.assert_array_equal, readouts(whole), readouts(folder))
  steps, _ = metrics_file.curve(folder, 'train/loss')
  assert steps == list(range(1, 13))


@pytest.mark.slow
def test_the_step_never_holds_a_whole_kernel(demo_dataset, tmp_path):
  settings = config(
    demo_dataset,
    num_devices=8,
    linear_eval__layers=('conv3', 'conv4'),
    linear_eval__batch_size=16,  # other than the numbers of classes
  )
  with labelled_data.open_videos(settings, '', 'linear_eval') as data:
    variables = weights.load(
      settings,
      tmp_path,
      data.model,
      clip_shape=data.clip_shape,
      mesh=data.mesh,
    ).variables
    with data.open_train(0) as batches:
      batch = sharding.global_batch(next(batches), data.mesh)
    readouts = linear_eval.Readouts(data, variables, settings)
    step = jax.jit(readouts.step).lower(
      readouts.initialize(), batch, jnp.float32(0.1)
    )
    program = step.compile().as_text()
  # Kernels have 1,024 rows, 128 of them on each device, and 9 or 8 classes.
  assert re.search(r'f32\[128,[89]\]', program)
  assert not re.search(r'f32\[1024,[89]\]', program)
  assert not re.search(r'f32\[[89],1024\]', program)


@pytest.mark.slow
def test_two_steps_are_those_of_a_loop(demo_dataset, tmp_path):
  settings = config(
    demo_dataset,
    dataset__label_columns=('motion',),
    linear_eval__layers=('conv5',),
    linear_eval__num_steps=2,
    linear_eval__drop_steps=(0,),
    linear_eval__learning_rate=0.5,
    linear_eval__weight_decay=0.1,
  )
  with labelled_data.open_videos(settings, '', 'linear_eval') as data:
    variables = weights.load(
      settings,
      tmp_path,
      data.model,
      clip_shape=data.clip_shape,
      mesh=data.mesh,
    ).variables
    with data.open_train(0) as batches:
      batches = [next(batches) for _ in range(2)]
    size = 32 * 1 * 1  # eight times the width, on one place
    init = linear_readout.initializer(
      {'conv5': size}, {'motion': 9}, optax.identity(), mesh=data.mesh
    )
    head = init(jax.random.key(settings.seed)).params['conv5']['motion']
    kernel, bias = (
      np.asarray(head[name], np.float64)[:size] for name in ('kernel', 'bias')
    )
    speed = [np.zeros_like(kernel), np.zeros_like(bias)]
    for step, (batch, rate) in enumerate(
      zip(batches, (0.5, 0.05), strict=True)
    ):
      key = jax.random.fold_in(jax.random.key(settings.seed), step)
      clips = data.augment(key, batch['window'], batch['crop'])
      found = data.model.apply(variables, clips, method='readouts')['conv5']
      features = np.asarray(found, np.float64)
      gradient = [0.1 * kernel, 0.1 * bias]
      for row, (label,) in zip(features, batch['labels'], strict=True):
        scores = np.exp(row @ kernel + bias)
        error = scores / scores.sum()
        error[label] -= 1
        gradient[0] = gradient[0] + np.outer(row, error) / len(features)
        gradient[1] = gradient[1] + error / len(features)
      speed = [0.9 * s + g for s, g in zip(speed, gradient, strict=True)]
      kernel, bias = kernel - rate * speed[0], bias - rate * speed[1]
  linear_eval.linear_eval(settings, tmp_path)
  _, state = readouts(tmp_path / 'linear_eval' / 'demo_random')
  trained = jax.tree.map(np.asarray, state['params']['conv5']['motion'])
  np.testing.assert_allclose(trained['kernel'][:size], kernel, atol=1e-4)
  np.testing.assert_allclose(trained['bias'], bias, atol=1e-4)


def colored_images(folder, num_train=24, num_val=8):
  """Images whose class is their colour, of several sizes and formats."""
  rng = np.random.default_rng(0)
  colors = {'blue': (20, 40, 220), 'red': (220, 30, 30)}
  for split, count in (('train', num_train), ('val', num_val)):
    for name, color in colors.items():
      target = folder / split / name
      target.mkdir(parents=True)
      for number in range(count // 2):
        shape = (*rng.integers(40, 70, 2), 3)
        pixels = np.clip(color + rng.normal(0, 12, shape), 0, 255)
        suffix = 'png' if number % 3 == 0 else 'jpg'
        Image.fromarray(pixels.astype(np.uint8)).save(
          target / f'{number}.{suffix}'
        )


@pytest.mark.slow
@pytest.mark.parametrize('base', ['vie_single', 'vie_slowfast'])
def test_images_are_learned_as_static_video(base, demo_dataset, tmp_path):
  images = tmp_path / 'colors'
  colored_images(images)
  settings = config(
    demo_dataset,
    base,
    linear_eval__dataset=str(images),
    linear_eval__static_num_steps=30,
    linear_eval__eval_every_steps=30,
    linear_eval__checkpoint_every_steps=30,
    linear_eval__static_grey_probability=0.0,
    augmentation__hue=0.0,
  )
  written = linear_eval.linear_eval(settings, tmp_path / 'w')
  assert written['dataset']['kind'] == 'image'
  assert (written['dataset']['train'], written['dataset']['val']) == (24, 8)
  assert written['views']['clips'] == 1
  assert written['accuracy']['label']['conv3']['top1'] == 1.0


@pytest.mark.slow
def test_damaged_images_are_counted_in_the_result(demo_dataset, tmp_path):
  images = tmp_path / 'colors'
  colored_images(images)
  (images / 'train' / 'red' / '1.jpg').write_bytes(b'no picture')
  (images / 'val' / 'blue' / '3.png').write_bytes(b'')
  settings = config(
    demo_dataset,
    linear_eval__dataset=str(images),
    linear_eval__static_num_steps=6,
    input__max_bad_share=0.2,
  )
  written = linear_eval.linear_eval(settings, tmp_path / 'w')
  # Each of the 24 images is visited once in an epoch of 3 steps.
  assert written['bad_frames'] == {'train': 2, 'val': 1}
  folder = tmp_path / 'w' / 'linear_eval' / 'colors_random'
  _, counts = metrics_file.curve(folder, 'input/bad_frames')
  assert counts[-1] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
  'file_format',
  ['tfrecord', 'array_record'],
)
def test_a_tfds_data_set_is_read_by_its_name(
  file_format, demo_dataset, tmp_path
):
  image_dataset.prepare(
    image_dataset.TinyPictures, tmp_path / 'tfds', file_format
  )
  settings = config(
    demo_dataset,
    linear_eval__dataset='tfds:tiny_pictures',
    linear_eval__tfds_data_dir=str(tmp_path / 'tfds'),
    linear_eval__static_num_steps=1,
    linear_eval__layers=('conv5',),
  )
  written = linear_eval.linear_eval(settings, tmp_path / 'w')
  folder = tmp_path / 'w' / 'linear_eval' / 'tfds-tiny_pictures_random'
  assert (folder / result.FILE).exists()
  assert written['dataset']['train'] == image_dataset.NUM_TRAIN
  assert written['dataset']['val'] == image_dataset.NUM_TEST
  assert list(written['accuracy']) == ['label']


def test_labels_are_needed_and_their_absence_is_said(demo_dataset, tmp_path):
  videos = pathlib.Path(f'{demo_dataset}-videos')
  flat = tmp_path / 'flat'
  flat.mkdir()
  for number, path in enumerate(sorted(videos.rglob('*.mp4'))[:12]):
    (flat / f'{number}.mp4').write_bytes(path.read_bytes())
  prepared = tmp_path / 'prepared'
  tiny_run.prepare(
    'folder', f'--videos={flat}', f'--out={prepared}', '--val-percent=30'
  )
  with pytest.raises(
    dataset_folder.DatasetError, match='has no labels to train'
  ):
    linear_eval.linear_eval(
      config(prepared, linear_eval__batch_size=4), tmp_path
    )


def test_a_batch_larger_than_the_data_set_names_its_field(
  demo_dataset, tmp_path
):
  with pytest.raises(
    config_check.ConfigError, match=r'linear_eval\.batch_size is 64'
  ):
    linear_eval.linear_eval(
      config(demo_dataset, linear_eval__batch_size=64), tmp_path
    )


def test_a_missing_val_split_is_named_before_a_batch_that_is_too_large(
  demo_dataset, tmp_path
):
  tiny_run.prepare_without_val(demo_dataset, tmp_path / 'prepared')
  for mode in ('linear_eval', 'finetune', 'supervised'):
    settings = tiny_run.config(
      tmp_path / 'prepared', init_from='random', **{f'{mode}__batch_size': 64}
    )
    with pytest.raises(
      dataset_folder.DatasetError,
      match='no validation videos to test on: prepare the videos to another',
    ):
      modes.find(mode)(settings, str(tmp_path / 'W'))
