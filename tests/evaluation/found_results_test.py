"""What is found below some folders, and what is named as not usable."""

import json

import fake_results
import pytest

from vie_jax.evaluation import found_results
from vie_jax.evaluation.paper_tables import CELLS

CELL = CELLS['table1.vie_slow.kinetics.conv4']


def write(folder, top1=0.5, **options):
  facts = fake_results.facts_of(CELL, {'conv4': top1})
  fake_results.write(folder, facts, **options)
  return facts


def names(results):
  return [result.name for result in results]


def test_results_are_found_in_workdirs_and_in_folders_of_them(tmp_path):
  write(tmp_path / 'runs' / 'a' / 'linear_eval' / 'x')
  write(tmp_path / 'runs' / 'b' / 'knn_eval' / 'x')
  found = found_results.collect([tmp_path / 'runs'])
  assert names(found.results) == ['a/linear_eval/x', 'b/knn_eval/x']
  found = found_results.collect(
    [tmp_path / 'runs' / 'a', tmp_path / 'runs' / 'b']
  )
  assert names(found.results) == ['a/linear_eval/x', 'b/knn_eval/x']
  assert not found.skipped


def test_a_folder_that_is_named_twice_or_is_in_another_is_read_once(tmp_path):
  write(tmp_path / 'a' / 'linear_eval' / 'x')
  found = found_results.collect([tmp_path, tmp_path / 'a', tmp_path])
  assert len(found.results) == 1


def test_workdirs_of_the_same_name_keep_apart(tmp_path):
  for parent in ('first', 'second'):
    write(tmp_path / parent / 'run' / 'linear_eval' / 'x')
  found = found_results.collect(
    [tmp_path / 'first' / 'run', tmp_path / 'second' / 'run']
  )
  assert len(set(names(found.results))) == 2


def test_nothing_is_looked_for_in_checkpoints(tmp_path):
  write(tmp_path / 'a' / 'checkpoints' / '100')
  assert not found_results.collect([tmp_path]).results


BROKEN = {
  'not JSON': '{"mode": ',
  'JSON object': '[1, 2]',
  'format version None': '{"mode": "train"}',
  'format version 7': '{"format_version": 7}',
  "'mode' is missing": '{"format_version": 1}',
  'answers a query': '{"format_version": 1, "mode": "retrieve", "query": {}}',
  'is no share': json.dumps(
    fake_results.facts_of(CELL, {'conv4': 0.5})
    | {'accuracy': {'label': {'conv4': {'top1': 50}}}}
  ),
  "of 'label' is no share": json.dumps(
    fake_results.facts_of(CELL, {'conv4': 0.5}) | {'accuracy': {'label': 0.5}}
  ),
}


@pytest.mark.parametrize('reason', BROKEN)
def test_a_broken_file_is_named_and_the_others_are_read(tmp_path, reason):
  write(tmp_path / 'good' / 'linear_eval' / 'x')
  (tmp_path / 'bad').mkdir()
  (tmp_path / 'bad' / 'result.json').write_text(BROKEN[reason])
  found = found_results.collect([tmp_path])
  assert names(found.results) == ['good/linear_eval/x']
  (skipped,) = found.skipped
  assert skipped.name == 'bad/result.json'
  assert reason in skipped.reason


def test_a_file_that_is_no_text_is_named(tmp_path):
  (tmp_path / 'result.json').write_bytes(b'\xff\xfe\x00')
  (skipped,) = found_results.collect([tmp_path]).skipped
  assert 'not JSON' in skipped.reason


def test_folders_without_results_are_named(tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'run' / 'checkpoints').mkdir(parents=True)
  found = found_results.collect(
    [tmp_path / 'empty', tmp_path / 'run', tmp_path / 'nowhere']
  )
  reasons = {skipped.name: skipped.reason for skipped in found.skipped}
  assert reasons == {
    'empty': 'has no result.json in it',
    'run': 'has no result: not evaluated yet, or not finished',
    'nowhere': 'has no result.json in it',
  }


def test_an_evaluation_that_is_not_finished_is_named(tmp_path):
  write(tmp_path / 'run' / 'linear_eval' / 'x')
  begun = tmp_path / 'run' / 'finetune' / 'x'
  begun.mkdir(parents=True)
  (begun / 'metrics.jsonl').write_text('{"step": 1, "train/loss": 2.0}\n')
  (tmp_path / 'run' / 'checkpoints').mkdir()
  found = found_results.collect([tmp_path])
  assert [skipped.name for skipped in found.skipped] == ['run/finetune/x']


def as_lists(curves):
  return {name: tuple(map(list, curve)) for name, curve in curves.items()}


def test_curves_are_read_with_what_they_belong_to(tmp_path):
  facts = write(tmp_path / 'run' / 'linear_eval' / 'x', curve=200)
  (tmp_path / 'run' / 'metrics.jsonl').write_text(
    '{"step": 10, "train/loss": 3.0, "knn/label_top1": null}\n'
    'half a li\n'
    '{"train/loss": 1.0}\n'
    '{"step": 20, "train/loss": 2}\n'
    '{"step": 30, "train/lo'
  )
  pretraining, readout = found_results.collect([tmp_path]).runs
  assert pretraining.name == 'run'
  assert pretraining.result is None
  assert as_lists(pretraining.curves) == {'train/loss': ([10, 20], [3.0, 2.0])}
  assert readout.result.facts == facts
  assert as_lists(readout.curves)['val/label_conv4_top1'][0] == [
    0,
    50,
    100,
    150,
  ]
