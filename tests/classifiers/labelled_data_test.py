"""What is said about labels before a classifier is trained."""

import numpy as np
import pytest
import tiny_run

from vie_jax import experiment
from vie_jax.classifiers import labelled_data


def messages(caplog, train, val):
  classes = {'label': ['cup', 'dog', 'emu'], 'place': ['in', 'out']}
  with caplog.at_level('WARNING', logger='absl'):
    labelled_data._warn_of_untrained(
      '/data', classes, np.array(train), np.array(val)
    )
  return caplog.messages


def test_classes_that_only_validation_has_are_named(caplog):
  train = [[0, 0], [0, 1], [-1, -1]]
  val = [[0, 0], [1, -1], [2, 1], [2, 0]]
  assert messages(caplog, train, val) == [
    "/data: classes of 'label' without a training video: 2 of 3, such as "
    "'dog'. They cannot be learnt, and 3 of 4 validation videos are of them."
  ]


def test_readouts_see_each_video_once_whatever_training_saw(demo_dataset):
  config = tiny_run.config(
    demo_dataset,
    dataset__share=0.5,
    dataset__with_replacement=True,
    linear_eval__batch_size=8,
    dataset__bin_frames=10,
  )
  with labelled_data.open_videos(config, '', 'linear_eval') as data:
    assert data.facts['train'] == 36
    assert len({data.name_of(index) for index in range(36)}) == 36


def test_nothing_is_said_where_all_can_be_learnt(caplog):
  assert messages(caplog, [[0, 0], [1, 1]], [[1, 0], [-1, -1]]) == []


@pytest.mark.parametrize(
  'known, truth, expected',
  [
    ([0, 1, 1, -1], [1, 1, 0, -1], 2 / 3),
    # Guessing is better.
    ([0, 1, 1], [0, 0, 0, 1], 1 / 2),
    ([0, 1, 2, 2], [0, 1, 1, 0], 1 / 3),
    ([-1, -1], [0, 1], 0),
    # Of a class that training does not have, no guess is right.
    ([0, 1], [2, 2, 2], 0),
    ([0, 1, 1, 2, 2], [0, 0, 3, -1], 2 / 9),
  ],
)
def test_chance_is_of_naming_the_most_frequent_class(known, truth, expected):
  chance = experiment.chance_of_labels(np.array(known), np.array(truth))
  assert chance == pytest.approx(expected)


def test_chance_of_images_is_that_of_videos_with_their_labels(
  demo_dataset, tmp_path
):
  for split, names in {'train': 'abbbbb', 'val': 'abbb'}.items():
    for number, name in enumerate(names):
      path = tmp_path / 'pets' / split / name / f'{number}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(b'not looked at')
  config = tiny_run.config(
    demo_dataset, linear_eval__batch_size=2, num_devices=1
  )
  images = str(tmp_path / 'pets')
  with labelled_data.open_images(config, images, 'linear_eval') as data:
    assert data.chance == {'label': pytest.approx(3 / 4)}
