"""The objective mixes number types nowhere by accident."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
  with jax.numpy_dtype_promotion('strict'):
    yield
