"""The parser of the command line: that of the package, vie_jax/option_parser.

The package is the one beside this folder, whichever is installed.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from vie_jax.option_parser import OptionParser

__all__ = ['OptionParser']
