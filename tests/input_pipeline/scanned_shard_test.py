"""Records are found without the index: as array_record itself finds them."""

import random

import pytest
from array_record.python import array_record_module
from input_pipeline import array_records

from vie_jax.input_pipeline import array_record_format, scanned_shard

BLOCK = array_record_format.BLOCK_BYTES
RANDOM = random.Random(3)


def write(path, records):
  """The path of a shard."""
  array_records.write(path, records)
  return path


@pytest.mark.parametrize(
  'sizes', array_records.SIZES.values(), ids=array_records.SIZES
)
def test_each_record_is_the_one_that_array_record_reads(tmp_path, sizes):
  path = write(tmp_path / 'shard', [RANDOM.randbytes(n) for n in sizes])
  expected = array_record_module.ArrayRecordReader(str(path)).read_all()
  shard = scanned_shard.ScannedShard(path, len(sizes))
  numbers = list(range(len(sizes)))
  assert shard.read(numbers) == expected
  assert shard.read(numbers[-1:] * 2) == expected[-1:] * 2


def test_a_record_may_end_anywhere_in_a_block(tmp_path):
  for size in range(BLOCK - 240, BLOCK + 20):
    records = [b'a' * size, b'b' * 100, b'c']
    path = write(tmp_path / 'shard', records)
    assert scanned_shard.ScannedShard(path, 3).read([0, 1, 2]) == records, size


def test_no_changed_byte_breaks_more_than_a_refusal(tmp_path):
  records = [RANDOM.randbytes(n) for n in (300, 70_000, 300)]
  path = write(tmp_path / 'shard', records)
  content = path.read_bytes()
  begins = [content.index(record[:100]) for record in records]
  num_whole = 0
  # The headers of the first record and the second, and of the second block.
  for place in [*range(64, 110), *range(400, 460), *range(BLOCK, BLOCK + 24)]:
    for bit in range(8):
      damaged = bytearray(content)
      damaged[place] ^= 1 << bit
      path.write_bytes(damaged)
      shard = scanned_shard.ScannedShard(path, 3)
      found = []
      for number in range(3):
        try:
          found += shard.read([number])
        except array_record_format.DamagedError:
          found.append(None)
      num_whole += found == records
      for number, begin in enumerate(begins):
        # Only bytes of a record itself may be others, and only in that.
        if place >= BLOCK or not 0 <= place - begin < len(records[number]):
          assert found[number] in (records[number], None), (place, bit)
  assert num_whole > 0


def test_what_lies_behind_a_damaged_header_is_named_as_not_found(tmp_path):
  records = [RANDOM.randbytes(9_000) for _ in range(5)]
  path = write(tmp_path / 'shard', records)
  content = bytearray(path.read_bytes())
  # The header of the third record's chunk, but for its hash: 4 bytes of sizes
  # are between the two.
  place = content.index(records[2]) - 36
  content[place : place + 32] = bytes(32)
  path.write_bytes(content)
  shard = scanned_shard.ScannedShard(path, 5)
  assert shard.read([0, 1]) == records[:2]
  for number in (2, 3, 4):
    with pytest.raises(
      array_record_format.DamagedError, match=f'record {number} is not found'
    ):
      shard.read([number])


@pytest.mark.parametrize('num_records', [1, 4, 6, 400])
def test_another_number_of_records_is_refused(tmp_path, num_records):
  records = [RANDOM.randbytes(9_000) for _ in range(5)]
  path = write(tmp_path / 'shard', records)
  with pytest.raises(
    array_record_format.DamagedIndexError, match=f'records .*{num_records}'
  ):
    scanned_shard.ScannedShard(path, num_records)


def test_a_file_that_is_cut_short_or_gone_is_refused(tmp_path):
  records = [RANDOM.randbytes(9_000) for _ in range(5)]
  path = write(tmp_path / 'shard', records)
  shard = scanned_shard.ScannedShard(path, 5)
  with path.open('r+b') as file:
    file.truncate(20_000)
  assert shard.read([0, 1]) == records[:2]
  with pytest.raises(array_record_format.DamagedError):
    shard.read([4])
  with pytest.raises(array_record_format.DamagedError):
    scanned_shard.ScannedShard(path, 5).read([2])
  path.write_bytes(b'')
  with pytest.raises(array_record_format.DamagedError):
    scanned_shard.ScannedShard(path, 5).read([0])
  path.unlink()
  with pytest.raises(array_record_format.DamagedError, match='it is gone'):
    scanned_shard.ScannedShard(path, 5)
