"""Prepares videos with Apache Beam; the data set is the same to the byte.

  python data/prepare_beam.py folder --videos DIR --out OUT -- --runner=RUNNER

Before `--` is what prepare.py takes, behind it what the runner of Beam takes.
OUT and the videos must be folders that all workers see under the same path.
data/beam.md says how to set up the environment.
"""

import os
import pathlib
import sys

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import prepare


def main(arguments):
  """Runs one command.

  Args:
    arguments: list of str.

  Returns:
    int, the exit code of `prepare.main`; 2 where Beam is not installed.
  """
  at = arguments.index('--') if '--' in arguments else len(arguments)
  if {'-h', '--help'} & {*arguments[:at]}:
    return prepare.main(arguments[:at])
  try:
    # Imported here: help comes without Beam.
    from preparation.beam_cluster import BeamCluster
  except ModuleNotFoundError as error:
    print(
      f'Error: the package {error.name} is not installed; data/beam.md says '
      'how to set up the environment that Beam needs.',
      file=sys.stderr,
    )
    return 2
  # For workers that the runner starts on this machine.
  here = str(pathlib.Path(__file__).resolve().parent)
  paths = [here, *filter(None, [os.environ.get('PYTHONPATH')])]
  os.environ['PYTHONPATH'] = os.pathsep.join(paths)
  cluster = BeamCluster(arguments[at + 1 :])
  return prepare.main(arguments[:at], cluster=cluster)


if __name__ == '__main__':
  prepare.set_up_process()
  sys.exit(main(sys.argv[1:]))
