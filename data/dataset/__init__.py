"""The files of a prepared data set, here or at a URL."""
