"""What lies in the folder of a saved step, and how it is checked."""
