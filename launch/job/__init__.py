"""A training elsewhere: its command, its config, and programs that start it."""
