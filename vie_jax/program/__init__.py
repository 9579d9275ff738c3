"""One mode, from the command line to the exit code."""
