"""Compiles the programs of a run for eight TPUs that are not here.

A program of its own, as libtpu takes over signals of its process; see
tpu_programs_test.py for its environment. Prints one JSON object: program ->
what the compiler plans for one and for ten million videos.
"""

import json
import sys

import compiled_program
import jax
from jax.experimental import topologies
from sharded import programs

from vie_jax import sharding

TOPOLOGY = 'v5e:2x4'
# name -> (step, numbers of the method).
PROGRAMS = {
  'fill_bank': ('fill_bank', {}),
  'instance_recognition': ('instance_recognition', {}),
  'local_aggregation': ('local_aggregation', {}),
  'local_aggregation blocks': (
    'local_aggregation',
    {'product_bytes': programs.SMALL_BLOCKS},
  ),
  'recluster': ('recluster', {}),
}


def facts(compiled):
  memory = compiled.memory_analysis()
  sent = [
    size
    for in_loops in (False, True)
    for sizes in compiled_program.collectives(
      compiled, in_loops=in_loops
    ).values()
    for size in sizes
  ]
  return {
    'argument': memory.argument_size_in_bytes,
    'output': memory.output_size_in_bytes,
    'alias': memory.alias_size_in_bytes,
    'temp': memory.temp_size_in_bytes,
    'largest sent': max(sent, default=0),
  }


def main():
  on = sharding.mesh_over(
    topologies.get_topology_desc(platform='tpu', topology_name=TOPOLOGY).devices
  )
  assert on.size == 8
  found = {}
  for name, (step, numbers) in PROGRAMS.items():
    found[name] = [
      facts(programs.compile_step(step, videos, on, **numbers))
      for videos in programs.VIDEOS
    ]
  json.dump(found, sys.stdout)


if __name__ == '__main__':
  jax.config.update('jax_enable_compilation_cache', False)
  main()
