"""How figures are taken, and what the commands of benchmarks/ have in common."""

# First of all, whichever module is wanted: see there.
from measuring import script  # noqa: F401
