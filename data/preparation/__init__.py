"""The way from a source to a data set: on one machine or with Beam, resumable."""
