"""Ways of others, in PyTorch."""

import importlib.util
import sys

if importlib.util.find_spec('torch') is None:
  sys.exit("Error: PyTorch is not installed: pip install '.[benchmark]'.")
