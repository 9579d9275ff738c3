"""What a trace of config.profile says of the device and of the loop."""

import jax

from vie_jax.telemetry import step_trace

# Threads of XLA on a CPU, which is its own host, and what they do for it.
_CPU_WORK = ('ThunkExecutor::Execute',)
PHASES = (
  'input wait',
  'batch to device',
  'step',
  'wait for step before',
  'figures',
)


def read(folder):
  """Reads the trace of a workdir.

  Args:
    folder: pathlib.Path, `WORKDIR/profile`.

  Returns:
    dict of shares of the time between the first step's start and the last
    one's end: 'device idle', and each of `PHASES` of the loop's thread.
  """
  (path,) = folder.glob('plugins/profile/*/*.xplane.pb')
  return shares(list(jax.profiler.ProfileData.from_file(str(path)).planes))


def shares(planes):
  """As `read`, of planes of a `jax.profiler.ProfileData`."""
  steps = _named(planes, step_trace.STEP)
  begin, end = min(start for start, _ in steps), max(end for _, end in steps)
  span = end - begin
  found = {
    'device idle': 1 - _covered(_within(_busy(planes), begin, end)) / span
  }
  for phase in PHASES:
    found[phase] = _covered(_within(_named(planes, phase), begin, end)) / span
  return found


def _named(planes, name):
  """(start, end) of host events of a name, in ns."""
  return _on_host(planes, lambda found: found == name)


def _on_host(planes, is_meant):
  """(start, end) of host events of names that are meant, in ns."""
  return [
    (event.start_ns, event.end_ns)
    for plane in planes
    if plane.name.startswith('/host:')
    for line in plane.lines
    for event in line.events
    if is_meant(event.name)
  ]


def _busy(planes):
  """(start, end) of everything that devices do, of one of them."""
  devices = [p for p in planes if p.name.startswith('/device:')]
  if not devices:
    return _on_host(planes, lambda name: name.startswith(_CPU_WORK))
  return [
    (event.start_ns, event.end_ns)
    for line in devices[0].lines
    # Not lines that are made from others, such as XLA's modules and steps.
    if line.name.startswith('Stream') or line.name == 'XLA Ops'
    for event in line.events
  ]


def _within(intervals, begin, end):
  """The parts of intervals that lie between two times."""
  return [
    (max(start, begin), min(stop, end))
    for start, stop in intervals
    if stop > begin and start < end
  ]


def _covered(intervals):
  """Length of the union of intervals (start, end), in any order."""
  total, reached = 0.0, float('-inf')
  for start, end in sorted(intervals):
    total += max(0.0, end - max(start, reached))
    reached = max(reached, end)
  return total
