"""Video Instance Embedding: learn a representation from unlabelled video."""

__version__ = '0.1.0'
