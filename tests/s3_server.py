"""A real S3 server on this machine: moto's, in a process of its own.

Run as a script it serves, writes its port, and then one line for each request:
method, path, status, bytes of the answer.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import signal
import subprocess
import sys


class S3Server:
  """A server that is running.

  Attributes:
    environment: variables by which a process finds the server.
  """

  def __init__(self, process, log, port):
    self._process = process
    self._log = log
    self.environment = {
      'AWS_ENDPOINT_URL': f'http://127.0.0.1:{port}',
      'AWS_ACCESS_KEY_ID': 'test',
      'AWS_SECRET_ACCESS_KEY': 'test',
      'AWS_DEFAULT_REGION': 'us-east-1',
      'AWS_CONFIG_FILE': os.devnull,
      'AWS_SHARED_CREDENTIALS_FILE': os.devnull,
    }

  def requests(self):
    """What was asked for so far: list of (method, path, status, bytes)."""
    lines = self._log.read_text('utf-8').splitlines()[1:]
    rows = [line.rsplit(' ', 2) for line in lines]
    return [
      (*first.split(' ', 1), int(status), int(size))
      for first, status, size in rows
    ]

  def hang(self):
    """Has it answer nobody, and keep connections open."""
    self._process.send_signal(signal.SIGSTOP)

  def stop(self):
    """Ends the process."""
    self._process.kill()
    self._process.wait()


@dataclasses.dataclass
class Bucket:
  """An empty bucket.

  Attributes:
    server: S3Server.
    url: str.
    files: filesystem of fsspec.
  """

  server: S3Server
  url: str
  files: object

  def content(self, folder):
    """Relative path and digest of every object below a folder."""
    root = f'{self.url.removeprefix("s3://")}/{folder}/'
    return {
      path.removeprefix(root): hashlib.sha256(
        self.files.cat_file(path)
      ).hexdigest()
      for path in self.files.find(root)
    }


@contextlib.contextmanager
def running(folder):
  """Runs a server with an empty bucket; its log lies in `folder`."""
  log = pathlib.Path(folder) / 's3.log'
  with open(log, 'w', encoding='utf-8') as output:
    process = subprocess.Popen(
      [sys.executable, __file__], stdout=output, stderr=subprocess.DEVNULL
    )
  try:
    while not (text := log.read_text('utf-8')).endswith('\n'):
      assert process.poll() is None, 'the S3 server ended'
    server = S3Server(process, log, int(text.split()[0]))
    yield server
  finally:
    process.kill()
    process.wait()


def _serve():
  from moto.server import DomainDispatcherApplication, create_backend_app
  from werkzeug.serving import make_server

  application = DomainDispatcherApplication(create_backend_app)

  def noting(environment, start):
    def noted(status, headers, *more):
      size = dict(headers).get('Content-Length', '0')
      method, path = environment['REQUEST_METHOD'], environment['PATH_INFO']
      line = f'{method} {path} {status.split()[0]} {size}\n'
      os.write(1, line.encode())  # whole, whatever other threads write
      return start(status, headers, *more)

    return application(environment, noted)

  server = make_server('127.0.0.1', 0, noting, threaded=True)
  print(server.port, flush=True)
  server.serve_forever()


if __name__ == '__main__':
  _serve()
