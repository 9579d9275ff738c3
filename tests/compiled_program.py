"""What a compiled program keeps on one device and sends to others.

Read from the optimised HLO of one device, and from the compiler's memory
analysis: what runs, not what was written. Arrays that grow with the number of
videos are found by compiling a program for two numbers of them.
"""

import collections
import dataclasses
import math
import re

_INSTRUCTION = re.compile(
  r'^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>.+?) (?P<opcode>[a-z][\w\-]*)'
  r'\('
)
_ARRAY = re.compile(r'(?P<dtype>pred|[a-z]+\d+)\[(?P<dims>[\d,]*)\]')
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$')
# The computations that an instruction has others run by, and loops' bodies.
_CALLED = re.compile(
  r'(?P<how>body|condition|calls|to_apply|true_computation|false_computation|'
  r'branch_computations|called_computations)=\{?(?P<names>[^\s,=}]+(?:, %[^\s,=}]+)*)'
)
_NAME = re.compile(r'[\w.\-]+')
_COMMENT = re.compile(r'/\*.*?\*/')
_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2}
COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'all-to-all',
  'collective-broadcast',
  'collective-permute',
  'reduce-scatter',
)


@dataclasses.dataclass(frozen=True)
class Array:
  """An array of a program: its type on one device."""

  dtype: str
  dims: tuple[int, ...]

  @property
  def num_bytes(self):
    width = _BYTES.get(self.dtype) or int(re.sub(r'\D', '', self.dtype)) // 8
    return width * math.prod(self.dims)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """A line of HLO: what it does and the arrays that it results in."""

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  is_in_loop: bool

  @property
  def collective(self):
    """The kind of communication, or None."""
    kind = self.opcode.removesuffix('-start')
    return kind if kind in COLLECTIVES else None

  @property
  def num_bytes(self):
    return sum(array.num_bytes for array in self.arrays)


def instructions(compiled):
  """The instructions of a compiled program, those inside fusions included."""
  text = _COMMENT.sub('', compiled.as_text())
  in_loops = _in_loops(text)
  found = []
  for computation, line in _lines(text):
    match = _INSTRUCTION.match(line)
    if match:
      arrays = tuple(
        Array(dtype, tuple(int(size) for size in dims.split(',') if size))
        for dtype, dims in _ARRAY.findall(match['type'])
      )
      found.append(
        Instruction(
          match['name'], match['opcode'], arrays, computation in in_loops
        )
      )
  assert found, 'the HLO has no instruction that this can read'
  return found


def _lines(text):
  """Yields (computation, line) for each line of a program."""
  computation = None
  for line in text.splitlines():
    begins = _COMPUTATION.match(line)
    if begins:
      computation = begins['name']
    yield computation, line


def _in_loops(text):
  """The computations that loops run, directly or through other ones."""
  called, waiting = collections.defaultdict(set), set()
  for computation, line in _lines(text):
    for call in _CALLED.finditer(line):
      names = _NAME.findall(call['names'])
      called[computation].update(names)
      if call['how'] in ('body', 'condition'):
        waiting.update(names)
  found = set()
  while waiting:
    computation = waiting.pop()
    found.add(computation)
    waiting |= called[computation] - found
  return found


def collectives(compiled, *, in_loops=False):
  """kind -> bytes of the arrays that travel, one number for each array.

  Args:
    compiled: the program.
    in_loops: whether those inside or those outside of loops.

  Returns:
    dict of collections.Counter, bytes of an array -> how many there are. XLA
    sends several arrays together where it can; they count one by one. The
    arrays of an all-to-all are the pieces of one, and count as one.
  """
  found = collections.defaultdict(collections.Counter)
  for one in instructions(compiled):
    if one.collective and one.is_in_loop == in_loops:
      if one.collective == 'all-to-all':
        found[one.collective][one.num_bytes] += 1
      else:
        found[one.collective].update(array.num_bytes for array in one.arrays)
  return dict(found)


@dataclasses.dataclass(frozen=True)
class Growing:
  """An array that grows with the number of videos.

  Attributes:
    instruction: that makes it, with the larger number.
    array: of it.
    shares: by how much its dimensions grow, in units of a device's rows.
  """

  instruction: Instruction
  array: Array
  shares: tuple[float, ...]


def growing(small, large, more_rows):
  """The arrays that differ between two compilations of a program.

  Args:
    small: compiled for some videos.
    large: compiled for more.
    more_rows: how many rows more a device has then.
  """
  pairs = zip(instructions(small), instructions(large), strict=True)
  found = []
  for one, other in pairs:
    assert one.opcode == other.opcode, 'the programs differ in more than sizes'
    assert len(one.arrays) == len(other.arrays)
    for before, after in zip(one.arrays, other.arrays, strict=True):
      assert before.dtype == after.dtype
      assert len(before.dims) == len(after.dims)
      shares = tuple(
        (new - old) / more_rows
        for old, new in zip(before.dims, after.dims, strict=True)
      )
      if any(shares):
        found.append(Growing(other, after, shares))
  return found


def problems(small, large, *, more_rows, flattened=()):
  """What of size N a device holds more of than its share, or sends.

  Args:
    small: compiled for some videos.
    large: compiled for more.
    more_rows: how many rows more each device has then.
    flattened: sizes whose product with the rows a dimension may be.

  Returns:
    A list of str, one of each instruction that is at fault.
  """
  found = []
  for grows in growing(small, large, more_rows):
    what = f'{grows.instruction.opcode} {grows.array}'
    shares = [share for share in grows.shares if share]
    if grows.instruction.collective:
      found.append(f'communication that grows: {what}')
    elif len(shares) > 1:
      found.append(f'grows in two dimensions: {what}')
    elif shares[0] > 1 and shares[0] not in flattened:
      found.append(f'{shares[0]:.3g} times the share of a device: {what}')
  return found


def slopes(small, large, more_rows):
  """Bytes by which one more row of a device makes arguments, ... larger."""
  one, other = small.memory_analysis(), large.memory_analysis()
  return {
    name: (
      getattr(other, f'{name}_size_in_bytes')
      - getattr(one, f'{name}_size_in_bytes')
    )
    / more_rows
    for name in ('argument', 'output', 'alias', 'temp')
  }
