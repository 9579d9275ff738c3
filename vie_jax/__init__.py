"""Video Instance Embedding: learn a representation from unlabelled video."""
