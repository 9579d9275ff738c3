"""An object store on this machine that takes its time, as those far away do.

It has one bucket, `data`, with the files of a folder, speaks as much of S3 as
reading needs, and answers each request after so many milliseconds, however many
there are. It is a process of its own.
"""

import asyncio
import contextlib
import html
import multiprocessing
import os
import pathlib
import re
import urllib.parse

from measuring import script

BUCKET = 'data'
_RANGE = re.compile(
  rb'^range: bytes=(\d+)-(\d+)\r$', re.IGNORECASE | re.MULTILINE
)


_CONTEXT = multiprocessing.get_context('spawn')


@contextlib.contextmanager
def running(folder, milliseconds):
  """Runs a store.

  Args:
    folder: path, what is in the bucket.
    milliseconds: each request takes.

  Yields:
    dict of the environment variables by which s3fs finds it.
  """
  ours, its = _CONTEXT.Pipe(duplex=False)
  process = _CONTEXT.Process(
    target=_serve, args=(its, pathlib.Path(folder), milliseconds / 1e3)
  )
  # Ctrl-C is for whoever reads from it, and ends it.
  with script.held_back():
    process.start()
  its.close()
  try:
    port = ours.recv()
    yield {
      'AWS_ENDPOINT_URL': f'http://127.0.0.1:{port}',
      'AWS_ACCESS_KEY_ID': 'nobody',
      'AWS_SECRET_ACCESS_KEY': 'nothing',
      'AWS_DEFAULT_REGION': 'us-east-1',
      'AWS_CONFIG_FILE': os.devnull,
      'AWS_SHARED_CREDENTIALS_FILE': os.devnull,
    }
  finally:
    process.kill()
    process.join()
    ours.close()


def _serve(pipe, folder, seconds):
  """Tells its port, and answers until it is ended."""
  asyncio.run(_Store(folder, seconds).serve(pipe.send))


class _Store:
  """What is in the bucket.

  Args:
    folder: path.
    seconds: a request takes.
  """

  def __init__(self, folder, seconds):
    self._seconds = seconds
    self._files = {
      path.relative_to(folder).as_posix(): path
      for path in sorted(folder.rglob('*'))
      if path.is_file()
    }

  async def serve(self, tell):
    """Answers for ever, after it has told its port."""
    server = await asyncio.start_server(self._talk, '127.0.0.1', 0)
    tell(server.sockets[0].getsockname()[1])
    await server.serve_forever()

  async def _talk(self, reader, writer):
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
      while True:
        head = await reader.readuntil(b'\r\n\r\n')
        await asyncio.sleep(self._seconds)
        writer.writelines(self._answer(head))
        await writer.drain()

  def _answer(self, head):
    method, target, _ = head.split(b' ', 2)
    url = urllib.parse.urlsplit(target.decode())
    name = urllib.parse.unquote(url.path).removeprefix(f'/{BUCKET}/')
    query = urllib.parse.parse_qs(url.query)
    if 'list-type' in query:
      return _response('200 OK', self._listing(*query.get('prefix', [''])))
    if name not in self._files:
      return _response('404 Not Found', b'')
    path = self._files[name]
    size = path.stat().st_size
    if method == b'HEAD':
      return _response('200 OK', b'', size=size)
    found = _RANGE.search(head)
    first, last = map(int, found.groups()) if found else (0, size - 1)
    with path.open('rb', buffering=0) as file:
      body = os.pread(file.fileno(), last - first + 1, first)
    if not found:
      return _response('200 OK', body)
    place = f'Content-Range: bytes {first}-{last}/{size}\r\n'
    return _response('206 Partial Content', body, place)

  def _listing(self, prefix):
    entries = ''.join(
      f'<Contents><Key>{html.escape(name)}</Key>'
      f'<Size>{path.stat().st_size}</Size>'
      '<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>'
      for name, path in self._files.items()
      if name.startswith(prefix)
    )
    return (
      f'<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>'
    ).encode()


def _response(status, body, more='', size=None):
  head = (
    f'HTTP/1.1 {status}\r\n{more}ETag: "1"\r\n'
    'Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT\r\n'
    f'Content-Length: {len(body) if size is None else size}\r\n\r\n'
  )
  return [head.encode(), body]
