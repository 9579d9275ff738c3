"""The rendered videos and images of `make demo`."""
