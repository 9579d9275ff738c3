"""What is said about labels before a classifier is trained."""

import numpy as np

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


def test_nothing_is_said_where_all_can_be_learnt(caplog):
  assert messages(caplog, [[0, 0], [1, 1]], [[1, 0], [-1, -1]]) == []
