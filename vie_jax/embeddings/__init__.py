"""Embeddings of many videos: sources, and what they are kept in."""
