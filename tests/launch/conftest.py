import pathlib
import sys

# As with the commands in data/: scripts, whose folder is on the path.
_FOLDER = pathlib.Path(__file__).parents[2] / 'launch'
if str(_FOLDER) not in sys.path:
  sys.path.insert(0, str(_FOLDER))
