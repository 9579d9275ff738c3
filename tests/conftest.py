"""Settings of all tests: eight CPU devices, strict array semantics."""

import gc
import os
import pathlib
import signal

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# Compiling takes most of the time here, and running it hardly any.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
  ]
)

import fsspec
import jax
import pytest
import s3_server
import tiny_run

from vie_jax import sharding

REPOSITORY = pathlib.Path(__file__).parents[1]
# Few tests that take minutes: begun last, they would keep one process alone.
LONG_FILES = ('end_to_end_test', 'checkpoint_kill_test', 'small_run_test')

# A shell that runs the tests in the background has them ignore Ctrl-C, nohup
# has them ignore SIGHUP, and so would the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_compilation_cache_dir', str(REPOSITORY / '.jax_cache'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.stem not in LONG_FILES)


@pytest.fixture(scope='module', autouse=True)
def _little_for_the_garbage_collector():
  """What is there already is not looked through again and again."""
  gc.collect()
  gc.freeze()


@pytest.fixture
def strict_dtypes():
  with jax.numpy_dtype_promotion('strict'):
    yield


@pytest.fixture(params=[1, 8], ids=lambda number: f'{number}_devices')
def mesh(request):
  return sharding.make_mesh(request.param)


@pytest.fixture(
  params=[pytest.param(1, marks=pytest.mark.slow), 8],
  ids=lambda number: f'{number}_devices',
)
def mesh_of_a_step(request):
  """A mesh for whole training steps, which take long to compile."""
  return sharding.make_mesh(request.param)


@pytest.fixture
def mesh8():
  return sharding.make_mesh(8)


@pytest.fixture(scope='session')
def demo_dataset(tmp_path_factory):
  """A small prepared data set, made by the real command.

  36 training and 12 validation videos, label columns appearance and motion;
  the video files are beside it, in `demo-videos`.
  """
  folder = tmp_path_factory.mktemp('prepared') / 'demo'
  tiny_run.prepare(
    'demo',
    '--num-videos=48',
    '--val-percent=25',
    '--processes=2',
    f'--out={folder}',
  )
  return folder


@pytest.fixture(scope='session')
def s3_process(tmp_path_factory):
  """One S3 server for all tests of this process."""
  with s3_server.running(tmp_path_factory.mktemp('s3')) as server:
    yield server


@pytest.fixture
def s3(s3_process, monkeypatch, tmp_path):
  """The S3 server, with a bucket of the test's own.

  Its `url` is that of the bucket, its `files` what fsspec sees there.
  """
  for name, value in s3_process.environment.items():
    monkeypatch.setenv(name, value)
  bucket = tmp_path.name.replace('_', '-').lower().strip('-')
  files = fsspec.filesystem('s3', use_listings_cache=False)
  files.mkdir(bucket)
  return s3_server.Bucket(s3_process, f's3://{bucket}', files)
