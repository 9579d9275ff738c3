"""Passwords in URLs: refused, and never repeated."""

import logging as python_logging
import os
import stat
import subprocess
import sys

import jax
import prepare
import pytest
import tiny_run

from vie_jax.config import config_check
from vie_jax.input_pipeline import dataset_folder, frame_store
from vie_jax.machine import compilation_cache
from vie_jax.telemetry import run_log
from vie_jax.untrusted import urls

SECRET = 'S3cr3t'  # noqa: S105
WITH_SECRET = (
  f's3://AKIA:{SECRET}@bucket/data',
  f's3://AKIA:{SECRET}/with/slash@bucket/data',
  f's3://AKIA:{SECRET},comma@bucket/data',
  f'https://user:{SECRET}@host/data',
  f'https://{SECRET}@host/data',
  f'https://host/data?X-Amz-Signature={SECRET}',
  f'https://host/data?x=1&X-Goog-Signature={SECRET}&y=2',
  f'https://host/data?sv=1&sig={SECRET}',
  f'gs://bucket/data?access_token={SECRET}',
  f'https://host/data#token={SECRET}',
  f'simplecache::s3://AKIA:{SECRET}@bucket/data',
  f'W1,s3://AKIA:{SECRET}@bucket/data',
)
WITHOUT = (
  's3://bucket/data',
  'gs://bucket/some@name/x',
  'http://127.0.0.1:9000/data',
  'simplecache::s3://bucket/data',
  'memory://x?versionId=3',
  '/data/user:name@host',
  'data:text',
)


@pytest.mark.parametrize('url', WITH_SECRET)
def test_a_secret_is_refused_and_not_repeated(url):
  assert SECRET not in urls.problem(url)
  assert SECRET not in urls.redacted(f'cannot reach {url} (timeout)')
  assert SECRET not in urls.shown(url)
  from configs import default

  config = default.get_config()
  for field in ('dataset.dir', 'init_from', 'embeddings', 'finetune.dataset'):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({field: url})
    with pytest.raises(config_check.ConfigError) as error:
      config_check.check(changed)
    assert SECRET not in str(error.value)
    assert f'config.{field}' in str(error.value)


@pytest.mark.parametrize('url', WITH_SECRET[:-1])
def test_a_data_set_behind_it_is_not_opened(url, capsys, tmp_path):
  with pytest.raises(dataset_folder.DatasetError) as error:
    frame_store.FrameStore.open(url, 'train')
  assert SECRET not in str(error.value)
  for command in (
    ['folder', f'--videos={tmp_path}', f'--out={url}'],
    ['check', url],
    ['show', url, f'--out={tmp_path / "page.html"}'],
  ):
    assert prepare.main(command) == 2
  printed = ''.join(capsys.readouterr())
  assert SECRET not in printed
  assert printed.count('Error: ') == 3


@pytest.mark.parametrize('url', WITHOUT)
def test_other_urls_are_left_alone(url):
  assert urls.problem(url) is None
  assert urls.redacted(url) == url


@pytest.mark.parametrize(
  ('place', 'shown'),
  [
    ('/home/me/data/kinetics/', 'kinetics'),
    ('~/W', 'W'),
    ('../me/W', 'W'),
    ('W/slow', 'W/slow'),
    ('/home/me/W1,/home/me/W2', 'W1,W2'),
    ('official:/home/me/x.tar', 'x.tar'),
    ('s3://bucket/data', 's3://bucket/data'),
  ],
)
def test_pages_show_the_last_part_of_a_path(place, shown):
  assert urls.shown(place) == shown


def run_main(*arguments):
  return subprocess.run(
    [sys.executable, str(tiny_run.REPOSITORY / 'main.py'), *arguments],
    env=tiny_run.environment(),
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_a_run_does_not_begin_and_writes_nothing(tmp_path):
  config = f'--config={tiny_run.REPOSITORY / "configs" / "vie_single.py"}'
  done = run_main(
    config,
    f'--workdir={tmp_path / "W"}',
    f'--config.dataset.dir={WITH_SECRET[0]}',
    f'--config.init_from={WITH_SECRET[3]}',
  )
  assert done.returncode == 2
  assert SECRET not in done.stdout + done.stderr
  assert 'config.dataset.dir: s3://***@' in done.stderr
  assert not (tmp_path / 'W').exists()


def record_of(message, *arguments):
  return python_logging.LogRecord(
    'absl', python_logging.INFO, 'train.py', 1, message, arguments, None
  )


def test_a_name_cannot_write_a_line_of_the_log():
  name = 'a\x1b[31m\n2026-01-01 00:00:00 forged\r\u202e\x9b1m\udcff.mp4'
  line = run_log._formatter().format(record_of('Skipped: %s: %s', name, 'x'))
  assert '\n' not in line
  assert line.isprintable()
  assert r'a\x1b[31m\n2026-01-01 00:00:00 forged\r\u202e\x9b1m\udcff' in line
  # What is meant to have lines has them, none that begins with a time.
  text = run_log._formatter().format(record_of('Config:\n%s', name))
  first, *others = text.split('\n')
  assert first.endswith(' Config:')
  assert others
  assert all(other.startswith('  ') for other in others)
  assert all(other.isprintable() for other in others)


@pytest.mark.slow
def test_the_log_of_a_run_on_a_hostile_name(demo_dataset, tmp_path):
  folder = tmp_path / 'x\x1b[31m\n2026-01-01 00:00:00 forged'
  os.symlink(demo_dataset, folder)
  done = subprocess.run(
    tiny_run.command(
      tmp_path / 'W', folder, num_steps=1, num_devices=1, batch_size=4
    ),
    env=tiny_run.environment(),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  log = (tmp_path / 'W' / 'train.log').read_text()
  assert r'x\x1b[31m\n2026-01-01' in done.stderr
  for text in (log, done.stderr):
    assert '\x1b' not in text
    assert '\n2026-01-01' not in text


def test_compiled_programs_lie_where_nobody_else_writes(tmp_path, monkeypatch):
  def used(path):
    jax.config.update('jax_compilation_cache_dir', None)
    compilation_cache.use(str(path))
    return jax.config.jax_compilation_cache_dir

  before = jax.config.jax_compilation_cache_dir
  try:
    path = tmp_path / 'new' / 'xla'
    assert used(path) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert used(path) == str(path)
    for mode in (0o777, 0o770, 0o702):
      path.chmod(mode)
      assert used(path) is None
    path.chmod(0o755)
    assert used(path) == str(path)
    monkeypatch.setattr(os, 'getuid', lambda: 12345)
    assert used(path) is None
    monkeypatch.undo()
    (tmp_path / 'file').write_text('')
    assert used(tmp_path / 'file' / 'xla') is None
  finally:
    jax.config.update('jax_compilation_cache_dir', before)


def test_small_programs_are_kept_unless_the_environment_says_otherwise(
  tmp_path, monkeypatch
):
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}

  def least_seconds():
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 3.0)
    compilation_cache.use(str(tmp_path / 'xla'))
    return jax.config.jax_persistent_cache_min_compile_time_secs

  variable = 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'
  try:
    monkeypatch.delenv(variable, raising=False)
    assert least_seconds() == compilation_cache.LEAST_SECONDS
    monkeypatch.setenv(variable, '3')
    assert least_seconds() == 3.0
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
