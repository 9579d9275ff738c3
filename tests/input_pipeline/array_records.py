"""Shards with records of all sizes that matter, as `array_record` writes them."""

import random

from array_record.python import array_record_module

from vie_jax.input_pipeline import array_record_format

_BLOCK = array_record_format.BLOCK_BYTES
_RANDOM = random.Random(5)
SIZES = {
  'no record': [],
  'one empty record': [0],
  'one record': [1],
  'small and empty ones': [3, 0, 5],
  'of several blocks': [200_000, 1, _BLOCK, _BLOCK - 24, _BLOCK - 64] * 3,
  'of any size': [_RANDOM.randrange(_BLOCK) for _ in range(300)],
  'very many': [1] * 20_000,
}


def write(path, records):
  """Writes a shard of these records, bytes, each in a chunk of its own."""
  writer = array_record_module.ArrayRecordWriter(
    str(path), 'group_size:1,uncompressed'
  )
  for record in records:
    writer.write(record)
  writer.close()
