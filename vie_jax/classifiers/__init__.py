"""Training classifiers on labels: data, loop, schedule."""
