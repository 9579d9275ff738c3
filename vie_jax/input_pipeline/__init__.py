"""From prepared videos to batches of windows; the only TensorFlow."""
