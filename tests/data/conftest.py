import pathlib
import sys

_HERE = pathlib.Path(__file__).parent

# The commands in data/ are scripts: their folder is on the path, no package.
for folder in (_HERE, _HERE.parents[1] / 'data'):
  if str(folder) not in sys.path:
    sys.path.insert(0, str(folder))
