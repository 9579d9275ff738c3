"""The parts of the ArrayRecord format that `data/prepare.py` writes.

With 'group_size:1,uncompressed' each record is in a chunk of its own:

* Blocks of 64 KiB, each beginning with a header of 24 bytes, wherever in a
  chunk that is: 8 bytes of hash, the distance back to where the chunk began,
  and on to where it ends.
* Chunks: a header of 40 bytes (hash; size of the data; hash of the data; type,
  1 byte; number of records, 7 bytes; decoded size) and the data.
* The data of a chunk of records: compression (0 is none), size of the sizes,
  the size of each record, the records. Sizes are varints.
* The last block holds a postscript, which says where the footer is: a chunk
  whose first record is about the file, and the others about one chunk each.

Source: riegeli, doc/riegeli_records_file_format.md, and array_record,
cpp/layout.proto, both of Google. A test compares every record with what
`array_record` itself reads.

Checked are sizes, counts and types, and the distances in the headers of
blocks. Not checked are the hashes: they are HighwayHash, and no kept library
has it for Python. So bytes that changed within a picture show only where it
can no longer be decoded. `python data/prepare.py check URL` checks them all.
"""

import struct

import numpy as np

BLOCK_BYTES = 2**16
_BLOCK_HEADER = struct.Struct('<8xQQ')
_CHUNK_HEADER = struct.Struct('<8xQ8xB7sQ')
_RECORDS_CHUNK = ord('r')
_UNCOMPRESSED = 0
_MAX_VARINT_BYTES = 10
# Behind the header of the first block and a chunk that says what the file is.
_FIRST_RECORD = _BLOCK_HEADER.size + _CHUNK_HEADER.size

# Before each number of a protocol buffer: which field it is.
_TAG_1, _TAG_2, _TAG_3 = 0x08, 0x10, 0x18
# The second number of the postscript.
_MAGIC = 0x71930E704FDAE05E


class DamagedError(RuntimeError):
  """What is stored is not what it should be, or gone; one line."""


class DamagedIndexError(DamagedError):
  """The index of a shard is not what it should be: no record is found."""


def only_record(data, begin, what):
  """Takes the record out of a chunk that holds one, and nothing behind it.

  Args:
    data: bytes of the chunk.
    begin: int, where in the file that is.
    what: it is, for messages.

  Returns:
    bytes.

  Raises:
    DamagedError: if there is anything else.
  """
  plain = _without_block_headers(data, begin, what, ends_with_chunk=True)
  content, sizes = _records(plain, what)
  if len(plain) != _CHUNK_HEADER.size + _data_size(plain) or len(sizes) != 1:
    raise DamagedError(f'{what} is not where the index says')
  return content


def footer_offset(data, begin):
  """Reads from the last block where the footer begins.

  Args:
    data: bytes of the block.
    begin: int, where in the file that is.

  Returns:
    int, which may be anything.

  Raises:
    DamagedError: if the block is not the last one of such a file.
  """
  what = 'the postscript'
  content, sizes = _records(_without_block_headers(data, begin, what), what)
  values = _varints(content[: sizes[0]] if len(sizes) else b'')
  if values.tolist()[::2] != [_TAG_1, _TAG_2] or values[3] != _MAGIC:
    raise DamagedError('it does not end as an ArrayRecord file')
  return int(values[1])


def chunk_offsets(data, begin, num_records):
  """Reads from the footer where the records begin and end.

  Args:
    data: bytes of the footer.
    begin: int, where in the file that is.
    num_records: that there must be.

  Returns:
    int64 [num_records + 1].

  Raises:
    DamagedError: if it says anything else, or records share a chunk.
  """
  what = 'the index'
  content, sizes = _records(_without_block_headers(data, begin, what), what)
  count = len(sizes) - 1
  if count != num_records:
    raise DamagedError(f'it has {count} records instead of {num_records}')
  # The first record of the footer is about the file.
  values = _varints(content[sizes[0] :])
  if len(values) != 6 * count:
    raise DamagedError(f'{what} is damaged')
  tag_1, offset, tag_2, _, tag_3, records = values.reshape(count, 6).T
  offsets = np.append(offset, begin)
  is_sound = (
    (tag_1 == _TAG_1).all()
    and (tag_2 == _TAG_2).all()
    and (tag_3 == _TAG_3).all()
    and (np.diff(offsets) > 0).all()
    and offsets[0] > 0
  )
  if not is_sound:
    raise DamagedError(f'{what} is damaged')
  if (records != 1).any():
    raise DamagedError("it was not written with 'group_size:1'")
  return offsets


def scanned_offsets(read, size, num_records):
  """Finds where records begin and end by their headers, without the index.

  Args:
    read: function from begin and end to the bytes between them, fewer where
      the file ends.
    size: of the file, in bytes.
    num_records: that there must be.

  Returns:
    list of int, [num_records + 1]; shorter where a header is damaged, and
    what lies behind it cannot be found.

  Raises:
    DamagedIndexError: if there are fewer, all of them found, or more.
  """
  offsets = [_FIRST_RECORD]
  count, end = _chunk_at(read, offsets[-1], size)
  while count == 1 and len(offsets) <= num_records:
    offsets.append(end)
    count, end = _chunk_at(read, end, size)
  # The footer has a record more than there are others.
  is_at_footer = count == len(offsets)
  if is_at_footer and len(offsets) <= num_records:
    raise DamagedIndexError(
      f'it has {len(offsets) - 1} records instead of {num_records}'
    )
  if count == 1 and not is_at_footer and len(offsets) > num_records:
    raise DamagedIndexError(f'it has more records than {num_records}')
  return offsets


def _chunk_at(read, begin, size):
  """Reads the header of a chunk of records.

  Returns:
    (count, end): how many records it holds, and where it ends; (0, begin) if
    there is none, or the file of that size ends before it does.
  """
  reach = _CHUNK_HEADER.size + 2 * _BLOCK_HEADER.size
  plain = _without_block_headers(read(begin, begin + reach), begin, '')
  if len(plain) < _CHUNK_HEADER.size:
    return 0, begin
  data_size, kind, count, _ = _CHUNK_HEADER.unpack_from(plain)
  end = _behind(begin, _CHUNK_HEADER.size + data_size)
  if kind != _RECORDS_CHUNK or end > size:
    return 0, begin
  return int.from_bytes(count, 'little'), end


def _behind(begin, num_bytes):
  """Where so many bytes of a chunk end, with the headers of blocks between."""
  usable = BLOCK_BYTES - _BLOCK_HEADER.size
  # Bytes that the block of the begin would hold before it, without its header.
  before = max(begin % BLOCK_BYTES - _BLOCK_HEADER.size, 0)
  blocks, rest = divmod(before + num_bytes, usable)
  if not rest:
    blocks, rest = blocks - 1, usable
  first = begin - begin % BLOCK_BYTES
  return first + blocks * BLOCK_BYTES + _BLOCK_HEADER.size + rest


def _without_block_headers(data, begin, what, *, ends_with_chunk=False):
  """Leaves out the headers of blocks, and checks what they say.

  Args:
    data: bytes, from the begin of a chunk on.
    begin: int, where in the file that is.
    what: it is, for messages.
    ends_with_chunk: whether the data ends where the chunk does; else it may
      end behind it, and later headers speak of other chunks.

  Returns:
    bytes.
  """
  pieces, start = [], 0
  for place in range(-begin % BLOCK_BYTES, len(data), BLOCK_BYTES):
    pieces.append(data[start:place])
    start = place + _BLOCK_HEADER.size
    if ends_with_chunk:
      header = data[place:start]
      distances = len(header) == _BLOCK_HEADER.size and _BLOCK_HEADER.unpack(
        header
      )
      if distances != (place, len(data) - place):
        raise DamagedError(f'{what} is not where the index says')
  pieces.append(data[start:])
  return b''.join(pieces)


def _data_size(plain):
  return _CHUNK_HEADER.unpack_from(plain)[0]


def _records(plain, what):
  """Takes the records out of a chunk without block headers.

  Args:
    plain: bytes; may hold more behind the chunk.
    what: it is, for messages.

  Returns:
    (content, sizes): bytes of the records, one behind the other, and int64
    [records].
  """
  if len(plain) <= _CHUNK_HEADER.size:
    raise DamagedError(f'{what} is cut short')
  data_size, kind, count, decoded_size = _CHUNK_HEADER.unpack_from(plain)
  payload = plain[_CHUNK_HEADER.size : _CHUNK_HEADER.size + data_size]
  if kind != _RECORDS_CHUNK or len(payload) != data_size or not payload:
    raise DamagedError(f'{what} is damaged')
  if payload[0] != _UNCOMPRESSED:
    raise DamagedError(f'{what} is damaged, or compressed')
  start = 1
  while start < min(len(payload), _MAX_VARINT_BYTES) and payload[start] > 127:
    start += 1
  start += 1
  values = _varints(payload[1:start])
  end = start + int(values[0] if len(values) else 0)
  sizes = _varints(payload[start:end])
  content = payload[end:]
  if (
    len(sizes) != int.from_bytes(count, 'little')
    or len(content) != decoded_size
    or int(sizes.sum()) != decoded_size
  ):
    raise DamagedError(f'{what} has another size than its header says')
  return content, sizes


def _varints(data):
  """Decodes varints, one behind the other, of at most 63 bits: int64 [n]."""
  octets = np.frombuffer(data, np.uint8)
  ends = np.flatnonzero(octets < 128)
  if not len(ends):
    return np.zeros(0, np.int64)
  begins = np.concatenate([[0], ends[:-1] + 1])
  octets = octets[: ends[-1] + 1]
  place = np.arange(len(octets)) - np.repeat(begins, ends - begins + 1)
  # What would not fit is damage; it gives some number, and no error.
  bits = (octets & 127).astype(np.int64) << np.minimum(7 * place, 62)
  return np.add.reduceat(bits, begins)
