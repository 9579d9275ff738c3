import logging as python_logging
import re
import sys

import fault_runs
import pytest
import tiny_run
from absl import logging

from vie_jax.telemetry import run_log


@pytest.fixture(autouse=True)
def absl_logger():
  """The logger, as it was before when the test is over."""
  logger = logging.get_absl_logger()
  handlers, level = list(logger.handlers), logger.level
  logging.set_verbosity(logging.INFO)
  yield logger
  for handler in logger.handlers:
    if handler not in handlers:
      handler.close()
  # Those of runs before were closed when the first one here began.
  logger.handlers[:] = [
    handler
    for handler in handlers
    if not isinstance(handler, run_log._FileHandler)
  ]
  logger.setLevel(level)


def lines(workdir):
  return (workdir / run_log.FILE_NAME).read_text().splitlines()


def say(logger, text, *, level=python_logging.INFO, path='train.py'):
  logger.handle(
    logger.makeRecord('absl', level, path, 1, text, args=(), exc_info=None)
  )


def test_lines_have_time_and_message_and_are_appended(tmp_path):
  for text in ('first', 'second'):
    run_log.to_file(tmp_path)
    logging.info('The %s line.', text)
  first, second = lines(tmp_path)
  time = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d'
  assert re.fullmatch(f'{time} The first line.', first)
  assert re.fullmatch(f'{time} The second line.', second)


def test_libraries_speak_only_when_it_matters(tmp_path, absl_logger):
  run_log.to_file(tmp_path)
  library = '/lib/etils/epath/gpath.py'
  say(absl_logger, 'Saving.', path=library)
  say(absl_logger, 'Beware.', path=library, level=python_logging.WARNING)
  say(absl_logger, 'It failed.', path=library, level=python_logging.ERROR)
  # What orbax says of a failure is long, and is said again in our words.
  orbax = '/lib/orbax/checkpoint/manager.py'
  say(absl_logger, 'Failed.', path=orbax, level=python_logging.ERROR)
  say(absl_logger, 'Ours.')
  assert [line.split(' ', 2)[2] for line in lines(tmp_path)] == [
    'It failed.',
    'Ours.',
  ]


def test_two_runs_in_one_process_write_to_their_own_files(tmp_path):
  for name in ('first', 'second'):
    (tmp_path / name).mkdir()
    run_log.to_file(tmp_path / name)
    logging.info('Only in %s.', name)
  for name in ('first', 'second'):
    (line,) = lines(tmp_path / name)
    assert line.endswith(f'Only in {name}.')


def test_every_process_has_a_log_of_its_own(tmp_path):
  assert run_log.file_name() == run_log.FILE_NAME == 'train.log'
  run_log.to_file(tmp_path, 3)
  logging.info('Here.')
  assert [path.name for path in tmp_path.iterdir()] == ['train-process-3.log']
  assert 'Here.' in (tmp_path / run_log.file_name(3)).read_text()


def test_lines_wait_for_room(tmp_path, capsys):
  with fault_runs.small_disk(tmp_path / 'disk', '64k') as disk:
    run_log.to_file(disk)
    fault_runs.fill(disk / 'other')
    for number in range(200):
      logging.info('Line %d.', number)
    (disk / 'other').unlink()
    logging.info('Line 200.')
    numbers = [line.rsplit(' ', 1)[1] for line in lines(disk)]
    run_log.to_file(tmp_path)  # Closes it.
  assert numbers == [f'{number}.' for number in range(201)]
  assert 'Logging error' not in capsys.readouterr().err


def test_a_log_that_cannot_be_written_to_says_so_once(tmp_path, capsys):
  with fault_runs.FailingDisk(tmp_path) as disk:
    run_log.to_file(disk.folder)
    logging.info('Before.')
    disk.fail()
    for number in range(3):
      logging.info('Line %d.', number)
    assert lines(disk.folder)[0].endswith('Before.')
    run_log.to_file(tmp_path)  # Closes it.
  error = capsys.readouterr().err
  path = disk.folder / run_log.FILE_NAME
  assert error.count(f'{path} misses lines: Read-only file system') == 1
  assert 'Traceback' not in error


def test_what_a_failed_save_leaves_behind_is_not_said_twice():
  program = """
import asyncio
from absl import logging
from vie_jax.telemetry import run_log

source = '''
async def fails():
  raise ValueError('no room')
'''
exec(compile(source, %r, 'exec'))

async def forgets():
  task = asyncio.ensure_future(fails())
  await asyncio.sleep(0)
  await asyncio.sleep(0)
  del task

class Late:
  def __del__(self):
    raise RuntimeError(%r)

logging.use_absl_handler()
run_log.to_terminal()
asyncio.run(forgets())
Late()
logging.info('The end.')
"""

  def said_by(*values):
    return tiny_run.run([sys.executable, '-c', program % values])

  said = said_by('/lib/orbax/checkpoint/writer.py', 'Event loop is closed')
  *before, last = said.splitlines()
  assert last.endswith(' The end.')
  assert before == ['WARNING: Logging before flag parsing goes to stderr.']
  said = said_by('/lib/s3fs/core.py', 'Something else')
  assert 'Something else' in said
  assert 'no room' in said


def test_what_is_long_is_in_the_file_alone(tmp_path):
  program = """
import sys
from absl import logging
from vie_jax.telemetry import run_log

logging.use_absl_handler()
run_log.to_terminal()
run_log.to_file_alone('Nowhere: 100 %s.')
run_log.to_file(sys.argv[1])
run_log.to_file_alone('Config:\\n{\\n  "share": "100 %s"\\n}')
logging.info('The end.')
"""
  said = tiny_run.run([sys.executable, '-c', program, str(tmp_path)])
  assert said.splitlines()[-1].endswith(' The end.')
  for word in ('Nowhere', 'Config', 'share'):
    assert word not in said
  first, *rest, last = lines(tmp_path)
  assert first.endswith(' Config:')
  assert rest == ['  {', '    "share": "100 %s"', '  }']
  assert last.endswith(' The end.')


def test_the_first_file_has_what_was_said_before_it(tmp_path):
  program = """
import pathlib
import sys
from absl import logging
from vie_jax.telemetry import run_log

logging.use_absl_handler()
run_log.to_terminal()
logging.info('Before, %d.', 1)
run_log.to_terminal('[0] ')
logging.info('Before, %d.', 2)
for name in ('one', 'two'):
  folder = pathlib.Path(sys.argv[1], name)
  folder.mkdir()
  run_log.to_file(folder)
  logging.info('Of %s.', name)
"""
  said = tiny_run.run([sys.executable, '-c', program, str(tmp_path)])
  assert [said.count(f'Before, {number}.') for number in (1, 2)] == [1, 1]
  one, two = (
    [line.split(' ', 2)[2] for line in lines(tmp_path / name)]
    for name in ('one', 'two')
  )
  assert one == ['Before, 1.', 'Before, 2.', 'Of one.']
  assert two == ['Of two.']


def test_what_was_said_before_a_file_is_what_it_was_then(tmp_path):
  program = """
import sys
from absl import logging
from vie_jax.telemetry import run_log

logging.use_absl_handler()
run_log.to_terminal()
numbers = [1]
logging.info('Early %s, 100%%.', numbers)
numbers.append(2)
logging.info('Of %s.', 'a\\nb')
logging.info('A listing:\\n%s', '100%')
run_log.to_file(sys.argv[1])
"""
  tiny_run.run([sys.executable, '-c', program, str(tmp_path)])
  early, of, listing, last = lines(tmp_path)
  assert early.endswith(' Early [1], 100%.')
  assert of.endswith(r' Of a\nb.')
  assert listing.endswith(' A listing:')
  assert last == '  100%'
