"""Commands of other programs, and what becomes of those that hang."""

import pathlib
import time

import pytest
from job import command_runner


@pytest.fixture
def runner():
  return command_runner.Commands(is_dry_run=False, show=lambda line: None)


def test_what_hangs_is_ended_with_all_that_it_started(runner, tmp_path):
  path = tmp_path / 'pid'
  command = f'sleep 600 & echo $! >{path}; wait'
  with pytest.raises(command_runner.CommandError) as raised:
    runner.run('bash', '-c', command, seconds=1)
  assert 'timed out after 1 s' in str(raised.value)
  assert raised.value.exit_code == 75
  child = pathlib.Path('/proc', path.read_text().strip(), 'cmdline')
  deadline = time.monotonic() + 10
  while child.exists() and child.read_text() and time.monotonic() < deadline:
    time.sleep(0.05)
  # Nothing is left, or what nobody has asked about yet.
  assert not child.exists() or not child.read_text()


@pytest.mark.parametrize(
  'said, code',
  [
    ('ERROR: (gcloud) UNAVAILABLE: The service is busy.', 75),
    ('ERROR: HttpError 503', 75),
    ('sbatch: error: Socket timed out on send/recv operation', 75),
    ('ssh: connect to host 10.0.0.1 port 22: Connection refused', 75),
    ('ERROR: INVALID_ARGUMENT: 503 chips', 2),
    ('WARNING: Read timed out.\nERROR: no version that fits vie==9', 2),
    ('ERROR: (gcloud) PERMISSION_DENIED: no access\nlog: code 502', 2),
    ('sbatch: error: Requested partition is unavailable', 2),
    ('error: 504 files changed', 2),
    ('ERROR: RESOURCE_EXHAUSTED: Quota limit has been exceeded', 2),
    ('Unable to connect to the server: net/http: TLS handshake timeout', 75),
    ('Unable to connect to the server: dial tcp 34.1.2.3:443: i/o timeout', 75),
    (
      'Unable to connect to the server: remote error: tls: bad certificate',
      2,
    ),
    (
      'Unable to connect to the server: dial tcp: lookup nosuch.example: no such '
      'host',
      2,
    ),
    (
      'error: error validating data: failed to download openapi: Get '
      '"http://localhost:8080/openapi/v2": dial tcp 127.0.0.1:8080: connect: '
      'connection refused',
      2,
    ),
  ],
)
def test_what_passes_by_itself_may_be_tried_again(said, code):
  error = command_runner.CommandError(['gcloud'], 1, said)
  assert error.exit_code == code


def test_what_is_no_utf8_is_shown_all_the_same(runner):
  assert runner.run('printf', r'\xff') == '\ufffd'
