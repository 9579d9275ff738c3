"""Readers of files of anybody: those of the package, vie_jax/untrusted.

The package is the one beside this folder, whichever is installed.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from vie_jax.untrusted import tables, tar_stream, text, urls

__all__ = ['tables', 'tar_stream', 'text', 'urls']
