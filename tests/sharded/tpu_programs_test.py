"""What TPUs are sent and keep, of programs compiled for them without one."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest
from sharded import programs

from vie_jax.objective import memory_bank

# A TPU fills arrays up to multiples of 8 by 128. A bank of 9 numbers is laid
# down by columns, of which there are 16 then; where k-means has it by rows,
# these are of 128 numbers.
STATE = 4 * 16 + 4 + 4  # bank, bank_step, one clustering
BANK_BY_ROWS = 4 * 128
PRODUCTS = 4 * programs.BATCH
TEMPORARY = {
  'fill_bank': 0,
  'instance_recognition': 0,
  # Beside the products, the maxima of groups of 16 rows, twice.
  'local_aggregation': PRODUCTS + PRODUCTS / 8,
  'local_aggregation blocks': 0,
  'recluster': BANK_BY_ROWS + 64,
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason="needs libtpu: pip install 'jax[tpu]'",
)
def test_tpus_hold_their_share_and_send_none_of_it():
  tests = pathlib.Path(__file__).parents[1]
  result = subprocess.run(
    [sys.executable, '-m', 'sharded.tpu_programs'],
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': f'{tests}{os.pathsep}{tests.parent}',
      'TPU_SKIP_MDS_QUERY': '1',  # there is no Google machine to ask
    },
    capture_output=True,
    text=True,
    check=False,
    timeout=1800,
  )
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)
  one, other = (memory_bank.num_rows(number, 8) for number in programs.VIDEOS)
  more_rows = (other - one) / 8
  assert found.keys() == TEMPORARY.keys()
  for name, (small, large) in found.items():
    slopes = {
      kind: (large[kind] - small[kind]) / more_rows
      for kind in ('argument', 'output', 'alias', 'temp')
    }
    # The labels of before are not read by k-means.
    read = STATE - 4 if name == 'recluster' else STATE
    assert slopes['argument'] == slopes['alias'] == read, (name, slopes)
    assert slopes['output'] == STATE, (name, slopes)
    assert slopes['temp'] <= TEMPORARY[name] + 0.5, (name, slopes)
    assert large['largest sent'] == small['largest sent'] > 0, name
