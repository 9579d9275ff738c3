"""The paper's tables: what has to be run for them, and running it."""
