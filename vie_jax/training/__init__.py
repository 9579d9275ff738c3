"""Pretraining: what it starts from, its steps, its figures and saves."""
