"""Object stores that are away, or refuse: real clients, a real HTTP server."""

import contextlib
import errno
import http.server
import socket
import threading

import fsspec
import pytest

from vie_jax.input_pipeline import dataset_folder, frame_store, remote_errors
from vie_jax.processes import exit_codes
from vie_jax.program import run_errors


@contextlib.contextmanager
def server_that_answers(status):
  """Serves one status to every request; yields its port."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      self.send_response(status)
      self.send_header('Content-Length', '0')
      self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *unused):
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    yield server.server_port
  finally:
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(monkeypatch, protocol, port):
  """What opening a data set there raises."""
  url, settings = f'http://127.0.0.1:{port}/bucket/data', {}
  if protocol == 's3':
    url = 's3://bucket/data'
    settings = {
      'key': 'test',
      'secret': 'test',
      'endpoint_url': f'http://127.0.0.1:{port}',
      'config_kwargs': {'retries': {'max_attempts': 0}},
    }
  monkeypatch.setitem(fsspec.config.conf, protocol, settings)
  with pytest.raises(dataset_folder.DatasetError) as error:
    frame_store.FrameStore.open(url, 'train')
  assert '\n' not in str(error.value)
  return error.value


@pytest.mark.parametrize('protocol', ['s3', 'http'])
@pytest.mark.parametrize(
  'status, code',
  [
    (403, exit_codes.REFUSED),
    (404, exit_codes.REFUSED),
    (429, exit_codes.RETRY),
    (500, exit_codes.RETRY),
    (502, exit_codes.RETRY),
    (503, exit_codes.RETRY),
  ],
)
def test_only_a_store_that_does_not_refuse_is_tried_again(
  monkeypatch, protocol, status, code
):
  with server_that_answers(status) as port:
    error = refusal(monkeypatch, protocol, port)
  assert run_errors.code_of(error) == code, error


@pytest.mark.parametrize('protocol', ['s3', 'http'])
def test_a_store_that_is_not_there_is_tried_again(monkeypatch, protocol):
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))  # Nobody listens.
    error = refusal(monkeypatch, protocol, probe.getsockname()[1])
  assert run_errors.code_of(error) == exit_codes.RETRY, error
  assert 'the same command goes on' in str(error)


def test_a_backend_that_is_missing_is_not_tried_again():
  with pytest.raises(dataset_folder.DatasetError) as error:
    frame_store.FrameStore.open('no-such-protocol://bucket/data', 'train')
  assert run_errors.code_of(error.value) == exit_codes.REFUSED


def caused(error, cause):
  error.__cause__ = cause
  return error


@pytest.mark.parametrize(
  'error, passes',
  [
    (TimeoutError(), True),
    (ConnectionResetError(), True),
    (socket.gaierror(socket.EAI_AGAIN, 'Try again'), True),
    (OSError(errno.EBUSY, 'slow down'), True),
    (OSError(errno.EIO, 'no idea'), False),
    (caused(OSError('no idea'), TimeoutError()), True),
    (caused(PermissionError('403'), TimeoutError()), False),
    (ValueError('a mistake'), False),
  ],
)
def test_which_errors_may_pass(error, passes):
  assert remote_errors.may_pass(error) == passes
