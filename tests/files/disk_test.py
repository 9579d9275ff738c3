"""Files that are there as a whole, or as they were."""

import errno

import pytest

from vie_jax.files import disk


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path):
  path = tmp_path / 'page.html'
  path.write_text('old')
  with disk.replacing(path) as fresh:
    fresh.write_text('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new'
  assert [*tmp_path.iterdir()] == [path]


def replace(path, text, error=None):
  with disk.replacing(path) as fresh:
    fresh.write_text(text)
    if error is not None:
      raise error


@pytest.mark.parametrize('kind', [KeyboardInterrupt, ValueError])
def test_what_was_there_stays_if_the_new_one_fails(tmp_path, kind):
  path = tmp_path / 'page.html'
  path.write_text('old')
  with pytest.raises(kind):
    replace(path, 'half', kind())
  assert path.read_text() == 'old'
  assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
  'number, filename',
  [(errno.EFBIG, 'X'), (errno.EDQUOT, 'X'), (errno.EIO, None)],
)
def test_errors_of_writing_are_given_a_name(number, filename):
  with pytest.raises(OSError) as error, disk.naming('X'):
    raise OSError(number, 'what the system says')
  assert error.value.filename == filename


def test_an_error_of_the_system_names_the_file(tmp_path):
  path = tmp_path / 'page.html'
  with pytest.raises(OSError) as error:
    replace(path, 'half', OSError(errno.ENOSPC, 'No space left on device'))
  assert error.value.filename == str(path)
  path.mkdir()
  with pytest.raises(IsADirectoryError) as error:
    replace(path, 'new')
  assert error.value.filename == str(path)
