"""What a training of classifiers may go on from."""

import copy
import pathlib

import pytest

from vie_jax import result
from vie_jax.classifiers import fit

RECORD = {
  'fingerprint': 'f' * 64,
  'network': {
    'name': 'vie_twostream_s',
    'weights': 'a' * 64,
    'trained_on': {'name': 'demo', 'path': '/demo', 'share': 1.0},
    'streams': {'single': {'training': 'local_aggregation'}},
  },
  'settings': {},
  'schedule': {},
  'input': {},
  'config': {'model': {}},
}


def test_what_earlier_versions_did_not_say_of_the_weights_does_not_matter():
  saved = copy.deepcopy(RECORD)
  del saved['network']['streams']
  del saved['network']['trained_on']['name']
  fit._check(saved, RECORD, pathlib.Path('W'))
  saved['network']['trained_on'] = None
  fit._check(saved, RECORD, pathlib.Path('W'))


def test_other_weights_are_refused():
  saved = copy.deepcopy(RECORD)
  saved['network']['weights'] = 'b' * 64
  with pytest.raises(result.ResultError, match=r'network\.weights was'):
    fit._check(saved, RECORD, pathlib.Path('W'))
