import pytest

from tests.benchmarks import benchmark_modules


@pytest.mark.slow
@pytest.mark.parametrize('milliseconds', [None, 3])
def test_threads_and_processes_make_clips_of_a_folder_or_store(milliseconds):
  pytest.importorskip('s3fs')
  store = [] if milliseconds is None else [f'--milliseconds={milliseconds}']
  lines = benchmark_modules.run(
    *('decode_workers.py', '--networks=vie_single', '--workers=1'),
    *('--rounds=1', '--batches=1', *store),
  )
  where = ', object store that takes 3 ms' if store else ''
  assert {line['case'] for line in lines} == {
    f'vie_single, batches of 128{where}'
  }
  assert [(line['variant'], line['ratio_to']) for line in lines] == [
    *(('1 thread', None), ('1 thread', None)),
    *(('1 process', 'threads'), ('1 process', None)),
  ]
  assert all(line['value'] > 0 for line in lines)
