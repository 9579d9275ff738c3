"""The method: pure functions of arrays, sharded over one mesh axis."""
