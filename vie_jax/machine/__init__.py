"""The machine: its caches and memory, and which way of a computation it takes."""
