"""Files on a disk that is full for a while; `/dev/full` always is."""

import errno

import fault_runs
import pytest

from vie_jax.files import disk, patient_file

FULL = '/dev/full'


def test_lines_are_there_as_soon_as_they_are_written(tmp_path):
  file = patient_file.PatientFile(tmp_path / 'log')
  for line in ('one\n', 'zwei: \u00e4\n', 'not UTF-8: \udcff\n'):
    file.write(line)
  expected = 'one\nzwei: \u00e4\nnot UTF-8: \\udcff\n'
  assert (tmp_path / 'log').read_text('utf-8') == expected
  file.close()


def test_lines_wait_for_room_and_none_is_torn(tmp_path):
  lines = [f'line {number} {"x" * 60}\n' for number in range(200)]
  with fault_runs.small_disk(tmp_path / 'disk', '64k') as disk:
    file = patient_file.PatientFile(disk / 'log')
    for line in lines[:3]:
      file.write(line)
    fault_runs.fill(disk / 'other')
    for line in lines[3:190]:
      file.write(line)
    assert file.is_behind
    # What fitted into the block that the file has begun.
    assert (disk / 'log').stat().st_size == 4096
    (disk / 'other').unlink()
    for line in lines[190:]:
      file.write(line)
      assert not file.is_behind
    file.close()
    assert (disk / 'log').read_text() == ''.join(lines)
  assert file.num_dropped == 0


def test_too_many_lines_have_the_oldest_dropped():
  file = patient_file.PatientFile(FULL, most_bytes=100)
  for _ in range(20):
    file.write('123456789\n')
  assert file.is_behind
  assert file.num_dropped == 10
  with pytest.raises(OSError) as error:
    file.close()
  assert disk.is_no_room(error.value)
  assert error.value.filename == FULL


def test_a_line_that_is_begun_is_not_dropped(tmp_path):
  with fault_runs.small_disk(tmp_path / 'disk', '64k') as disk:
    file = patient_file.PatientFile(disk / 'log', most_bytes=3000)
    file.write('a' * 4000 + '\n')
    fault_runs.fill(disk / 'other')
    for letter in 'bcdef':
      file.write(letter * 999 + '\n')
    (disk / 'other').unlink()
    file.close()
    lines = (disk / 'log').read_text().split('\n')
  assert [line[:1] for line in lines] == ['a', 'b', 'e', 'f', '']
  assert [len(line) for line in lines] == [4000, 999, 999, 999, 0]
  assert file.num_dropped == 2


def test_by_choice_a_full_disk_is_an_error():
  file = patient_file.PatientFile(FULL, waits=False)
  with pytest.raises(OSError) as error:
    file.write('one\n')
  assert error.value.errno == errno.ENOSPC


def test_lines_that_meet_errors_are_bounded_too():
  file = patient_file.PatientFile(FULL, waits=False, most_bytes=100)
  for _ in range(20):
    with pytest.raises(OSError):
      file.write('123456789\n')
  assert file.num_dropped == 10


def test_a_closed_file_keeps_no_lines_and_may_be_closed_again(tmp_path):
  file = patient_file.PatientFile(tmp_path / 'log')
  file.close()
  with pytest.raises(ValueError, match='log is closed'):
    file.write('one\n')
  assert not file.is_behind
  file.close()


def test_lines_that_never_found_room_do_not_stop_a_second_close():
  file = patient_file.PatientFile(FULL)
  file.write('one\n')
  with pytest.raises(OSError, match='No space left'):
    file.close()
  file.flush()
  file.close()
