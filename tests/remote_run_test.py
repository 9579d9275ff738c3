"""Runs on a data set in an object store: real commands, a real S3 server."""

import os
import subprocess

import numpy as np
import pytest
import tiny_run


def _run(workdir, dataset, environment, mode):
  subprocess.run(
    tiny_run.command(
      workdir, dataset, mode=mode, num_steps=4, eval_every_steps=4
    ),
    env=tiny_run.environment() | environment,
    check=True,
    timeout=tiny_run.PATIENCE_SECONDS,
  )


@pytest.mark.slow
def test_a_run_on_a_url_has_the_bits_of_one_on_the_folder(
  demo_dataset, s3, tmp_path
):
  s3.files.put(f'{demo_dataset}{os.sep}', f'{s3.url}/demo/', recursive=True)
  places = {'here': demo_dataset, 'there': f'{s3.url}/demo'}
  for mode in ('describe', 'train', 'knn_eval', 'embed'):
    for name, dataset in places.items():
      _run(tmp_path / name, dataset, s3.server.environment, mode)
  for file in ('embed/demo/embeddings', 'knn_eval/demo/embeddings_val'):
    here, there = (np.load(tmp_path / name / f'{file}.npy') for name in places)
    np.testing.assert_array_equal(here, there)
