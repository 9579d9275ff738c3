"""The repository, whose vie_jax the scripts of this folder take.

It is the one around this folder, whichever is installed.
"""

import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
