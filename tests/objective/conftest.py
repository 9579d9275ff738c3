"""The objective mixes number types nowhere by accident."""

import pytest


@pytest.fixture(autouse=True)
def _everywhere(strict_dtypes):
  del strict_dtypes
