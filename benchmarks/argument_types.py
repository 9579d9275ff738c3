"""Types of the benchmarks' arguments, for argparse."""

import argparse
import math


def count(text):
  """A whole number of at least 1."""
  # Few digits: Python refuses thousands of them in words of its own.
  if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number above 0')
  return int(text)


def positive(text):
  """A finite number above 0."""
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 < value < math.inf:
    raise argparse.ArgumentTypeError(f'{text!r} is no number above 0')
  return value
