"""The networks: Flax modules from clips of frames to unit embeddings."""
