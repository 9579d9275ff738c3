"""Small files that claim or hold far too much, for tests."""

import fractions
import functools
import struct
import zlib

import av
import sample_videos

SIDE = 16_000


@functools.cache
def png(width, height):
  """A grey PNG picture of this size, all black: 1,000 times as large."""
  compressor = zlib.compressobj(9)
  row = bytes(width + 1)
  pieces = [compressor.compress(row) for _ in range(height)]
  pixels = b''.join([*pieces, compressor.flush()])
  header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
  chunks = ((b'IHDR', header), (b'IDAT', pixels), (b'IEND', b''))
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(data))
    + kind
    + data
    + struct.pack('>I', zlib.crc32(kind + data))
    for kind, data in chunks
  )


def mov_of_png(path, *, claimed_side):
  """A video of one large PNG picture; its header may claim another size."""
  with av.open(str(path), 'w') as out:
    stream = out.add_stream('png', rate=25)
    stream.width = stream.height = claimed_side
    stream.pix_fmt = 'gray'
    packet = av.Packet(png(SIDE, SIDE))
    packet.stream = stream
    packet.time_base = fractions.Fraction(1, 25)
    packet.pts = packet.dts = 0
    packet.is_keyframe = True
    out.mux(packet)


def raw_video(path):
  """A header of uncompressed video, and little behind it."""
  header = f'YUV4MPEG2 W{SIDE} H{SIDE} F25:1 Ip A1:1 C420\nFRAME\n'
  path.write_bytes(header.encode() + bytes(10_000))


def gif(path):
  """A header of a GIF, and nothing behind it."""
  path.write_bytes(
    b'GIF89a' + struct.pack('<HHBBB', 65_500, 65_500, 0, 0, 0) + bytes(1000)
  )


def endless_avi(path):
  """Thirty pictures that claim to be 2^31 - 1."""
  sample_videos.write(path, sample_videos.moving(30), codec='mpeg4')
  content = bytearray(path.read_bytes())
  place = content.index(b'vids') + 32
  content[place : place + 4] = struct.pack('<I', 2**31 - 1)
  path.write_bytes(content)


def ten_hours(path):
  """Two pictures, ten hours apart."""
  sample_videos.write(
    path,
    sample_videos.moving(2),
    times=[0, 36_000_000],
    time_base=fractions.Fraction(1, 1000),
  )
